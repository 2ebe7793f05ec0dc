#include "tunnel/messages.h"

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <vector>

#include "tunnel/limits.h"

namespace adit {
namespace {

std::vector<std::uint8_t> Message(std::uint8_t type, std::size_t size) {
  std::vector<std::uint8_t> bytes(size);
  if (size > 0) bytes[0] = type;
  return bytes;
}

TEST(Messages, HaveTheLayoutOfThePaper_CONF5_CONF6_CONF7_CONF8) {
  EXPECT_EQ(offsetof(InitiationMessage, sender_index), 4u);
  EXPECT_EQ(offsetof(InitiationMessage, ephemeral), 8u);
  EXPECT_EQ(offsetof(InitiationMessage, encrypted_static), 40u);
  EXPECT_EQ(offsetof(InitiationMessage, encrypted_timestamp), 88u);
  EXPECT_EQ(offsetof(InitiationMessage, mac1), 116u);
  EXPECT_EQ(offsetof(InitiationMessage, mac2), 132u);
  EXPECT_EQ(sizeof(InitiationMessage), 148u);

  EXPECT_EQ(offsetof(ResponseMessage, sender_index), 4u);
  EXPECT_EQ(offsetof(ResponseMessage, receiver_index), 8u);
  EXPECT_EQ(offsetof(ResponseMessage, ephemeral), 12u);
  EXPECT_EQ(offsetof(ResponseMessage, encrypted_nothing), 44u);
  EXPECT_EQ(offsetof(ResponseMessage, mac1), 60u);
  EXPECT_EQ(offsetof(ResponseMessage, mac2), 76u);
  EXPECT_EQ(sizeof(ResponseMessage), 92u);

  EXPECT_EQ(offsetof(CookieReplyMessage, receiver_index), 4u);
  EXPECT_EQ(offsetof(CookieReplyMessage, nonce), 8u);
  EXPECT_EQ(offsetof(CookieReplyMessage, encrypted_cookie), 32u);
  EXPECT_EQ(sizeof(CookieReplyMessage), 64u);

  EXPECT_EQ(offsetof(DataHeader, receiver_index), 4u);
  EXPECT_EQ(offsetof(DataHeader, counter), 8u);
  EXPECT_EQ(kKeepaliveBytes, 32u);
}

TEST(Messages, WriteTheCounterAsSixtyFourBitsLittleEndian_CONF8) {
  const DataHeader header{.type = 4, .receiver_index = 0x01020304, .counter = 0x1112131415161718};
  const ByteArray<16> expected = {4, 0, 0, 0, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11};
  EXPECT_TRUE(std::ranges::equal(BytesOf(header), expected));
}

TEST(ParseMessage, TakesEachTypeAtItsLengthOnly_CONF5_CONF6_CONF7_CONF8_CONF9) {
  for (unsigned type = 0; type < 256; ++type) {
    for (std::size_t size = 0; size <= 400; ++size) {
      const auto parsed = ParseMessage(Message(static_cast<std::uint8_t>(type), size));
      const bool is_expected = (type == 1 && size == 148) || (type == 2 && size == 92) || (type == 3 && size == 64) ||
                               (type == 4 && size >= 32);
      ASSERT_EQ(parsed.has_value(), is_expected) << "type " << type << ", " << size << " bytes";
      if (parsed) {
        ASSERT_EQ(static_cast<std::uint32_t>(*parsed), type);
      }
    }
  }
}

TEST(ParseMessage, TakesDataOfAnyLengthFromAKeepaliveOn_CONF8) {
  EXPECT_EQ(ParseMessage(Message(4, 32)), MessageType::kData);
  EXPECT_EQ(ParseMessage(Message(4, 33)), MessageType::kData);  // a multiple of 16 is the sender's habit, no rule
  EXPECT_EQ(ParseMessage(Message(4, 65535)), MessageType::kData);
  EXPECT_EQ(ParseMessage(Message(4, 31)), std::nullopt);
}

TEST(ParseMessage, RefusesReservedBytesThatAreNotZero_CONF4) {
  struct Kind {
    std::uint8_t type;
    std::size_t size;
  };
  for (const Kind kind : {Kind{1, 148}, Kind{2, 92}, Kind{3, 64}, Kind{4, 32}}) {
    auto bytes = Message(kind.type, kind.size);
    ASSERT_TRUE(ParseMessage(bytes));
    for (std::size_t reserved = 1; reserved <= 3; ++reserved) {
      for (unsigned bit = 0; bit < 8; ++bit) {
        bytes[reserved] = static_cast<std::uint8_t>(1u << bit);
        EXPECT_FALSE(ParseMessage(bytes)) << int{kind.type} << " byte " << reserved << " bit " << bit;
      }
      bytes[reserved] = 0;
    }
  }
}

TEST(ParseMessage, RefusesWhatIsTooShortForAType_CONF9) {
  for (std::size_t size = 0; size < 4; ++size) EXPECT_FALSE(ParseMessage(Message(4, size)));
}

// The numbers once more, written down independently: whoever changes one has to change it twice.
TEST(Limits, AreThoseOfThePaper_CONF20_CONF21_CONF22_CONF23_CONF24_CONF25_CONF26) {
  const ProtocolLimits limits;
  EXPECT_EQ(limits.rekey_after_messages, 1'152'921'504'606'846'976u);    // 2^60
  EXPECT_EQ(limits.reject_after_messages, 18'446'744'073'709'543'423u);  // 2^64 - 2^13 - 1
  EXPECT_EQ(limits.rekey_after_time, std::chrono::seconds(120));
  EXPECT_EQ(limits.reject_after_time, std::chrono::seconds(180));
  EXPECT_EQ(limits.rekey_timeout, std::chrono::seconds(5));
  EXPECT_EQ(kRekeyAttemptTime, std::chrono::seconds(90));
  EXPECT_EQ(limits.max_handshake_retries, 18u);
  EXPECT_EQ(limits.keepalive_timeout, std::chrono::seconds(10));
}

TEST(Limits, AreThoseOfTheReferenceWhereThePaperIsSilent_CONF27_CONF28_CONF29_CONF30_CONF34_CONF35) {
  const ProtocolLimits limits;
  EXPECT_EQ(limits.handshake_jitter, std::chrono::milliseconds(333));
  EXPECT_EQ(limits.cookie_secret_max_age, std::chrono::seconds(120));
  EXPECT_EQ(limits.cookie_max_use, std::chrono::seconds(115));
  EXPECT_EQ(limits.min_initiation_interval, std::chrono::milliseconds(20));
  EXPECT_EQ(kReplayWindowBits, 8192u);
  EXPECT_EQ(kReplayWindowUsable, 8128u);
  EXPECT_EQ(kDefaultMtu, 1420u);
  EXPECT_EQ(kDefaultMtu + kDataOverhead + 8 + 40, 1500u);
  EXPECT_EQ(kPaddingMultiple, 16u);
  EXPECT_EQ(kHandshakeTos, 0x88);
}

TEST(Limits, BoundEveryQueue_CONF31_CONF32_CONF33) {
  EXPECT_EQ(kMaxStagedPackets, 128u);
  EXPECT_EQ(kHandshakeQueueLength, 4096u);
  EXPECT_EQ(kUnderLoadQueueLength, 512u);
  EXPECT_EQ(kUnderLoadHold, std::chrono::seconds(1));
  EXPECT_EQ(kMaxPeers, 65536u);
}

}  // namespace
}  // namespace adit
