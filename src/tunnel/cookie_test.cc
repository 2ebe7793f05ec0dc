#include "tunnel/cookie.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <string>

#include "crypto/test_support.h"
#include "tunnel/noise.h"

namespace adit {
namespace {

constexpr Instant kStart = Instant(1000s);

SocketAddress At(const char* text) { return *SocketAddress::Parse(text); }

// Yields what it is given, in order.
class ScriptedRandom final : public Random {
 public:
  explicit ScriptedRandom(std::vector<std::uint8_t> bytes) : bytes_(std::move(bytes)) {}
  void Fill(MutableBytes out) override {
    CHECK(used_ + out.size() <= bytes_.size());
    std::copy_n(bytes_.begin() + static_cast<std::ptrdiff_t>(used_), out.size(), out.begin());
    used_ += out.size();
  }

 private:
  std::vector<std::uint8_t> bytes_;
  std::size_t used_ = 0;
};

// Bob's checker and Alice's jar for Bob, and an initiation of Alice's.
class CookieTest : public testing::Test {
 protected:
  CookieTest() {
    InitializeCrypto();
    bob_ = PrivateKey::Generate(random_).ComputePublicKey();
    checker_.SetPublicKey(bob_);
    jar_.emplace(bob_);
    random_.Fill(MutableBytesOf(message_));
    message_.type = 1;
  }

  Bytes message() const { return BytesOf(message_); }
  void AddMacs(Instant now = kStart) { jar_->AddMacs(MutableBytesOf(message_), now); }
  MacVerdict Check(bool is_under_load, Instant now = kStart, const SocketAddress& from = At("192.0.2.1:51820")) {
    return checker_.Check(message(), from, is_under_load, now, random_);
  }
  CookieReplyMessage Reply(Instant now = kStart, const SocketAddress& from = At("192.0.2.1:51820")) {
    return checker_.CreateReply(message(), from, now, random_);
  }
  bool has_mac2() const { return message_.mac2 != Mac{}; }

  SeededRandom random_{1};
  PublicKey bob_;
  CookieChecker checker_;
  std::optional<CookieJar> jar_;
  InitiationMessage message_;
};

TEST_F(CookieTest, AcceptsItsOwnMac1_CONF61) {
  AddMacs();
  EXPECT_EQ(Check(false), MacVerdict::kValidMac1);
}

TEST_F(CookieTest, ChecksMac1AlsoUnderLoad_CONF61) {
  EXPECT_EQ(Check(false), MacVerdict::kInvalid);
  EXPECT_EQ(Check(true), MacVerdict::kInvalid);
}

TEST_F(CookieTest, RefusesEveryAlteredBitBeforeMac2_CONF61_CONF19) {
  AddMacs();
  const MutableBytes bytes = MutableBytesOf(message_);
  for (std::size_t bit = 0; bit < 8 * (sizeof(message_) - 16); ++bit) {
    const auto flip = static_cast<std::uint8_t>(1u << (bit % 8));
    bytes[bit / 8] ^= flip;
    ASSERT_EQ(Check(false), MacVerdict::kInvalid) << bit;
    bytes[bit / 8] ^= flip;
  }
  EXPECT_EQ(Check(false), MacVerdict::kValidMac1);
}

TEST_F(CookieTest, ComparesMacsInConstantTimeOnly_CONF19) {
  std::ifstream in(ADIT_SOURCE_DIR "/src/tunnel/cookie.cc");
  const std::string source{std::istreambuf_iterator<char>(in), {}};
  ASSERT_FALSE(source.empty());
  const auto count = [&source](std::string_view what) {
    std::size_t n = 0;
    for (std::size_t at = source.find(what); at != source.npos; at = source.find(what, at + 1)) ++n;
    return n;
  };
  EXPECT_EQ(count("EqualInConstantTime(ComputeMac1("), 1u);
  EXPECT_EQ(count("EqualInConstantTime(ComputeMac2("), 1u);
  EXPECT_EQ(count("ComputeMac1("), 3u);  // defined, checked, written
  EXPECT_EQ(count("ComputeMac2("), 3u);
  EXPECT_EQ(count("memcmp"), 0u);
}

TEST_F(CookieTest, HasNoValidMac1BeforeThereIsAKey) {
  CookieChecker checker;
  AddMacs();
  EXPECT_EQ(checker.Check(message(), At("192.0.2.1:1"), false, kStart, random_), MacVerdict::kInvalid);
}

TEST_F(CookieTest, FollowsAChangeOfTheKey) {
  AddMacs();
  checker_.SetPublicKey(PrivateKey::Generate(random_).ComputePublicKey());
  EXPECT_EQ(Check(false), MacVerdict::kInvalid);
}

TEST_F(CookieTest, LeavesMac2ZeroWithoutACookie_CONF68) {
  message_.mac2.fill(0xaa);
  AddMacs();
  EXPECT_FALSE(has_mac2());
}

TEST_F(CookieTest, AsksForACookieUnderLoadAndAcceptsIt_CONF63_CONF66_CONF67_CONF68) {
  AddMacs();
  EXPECT_EQ(Check(true), MacVerdict::kValidMac1);
  ASSERT_TRUE(jar_->ConsumeReply(Reply(), kStart));
  // The message that was refused is not sent again; the next one carries mac2.
  EXPECT_FALSE(has_mac2());
  AddMacs();
  EXPECT_TRUE(has_mac2());
  EXPECT_EQ(Check(true), MacVerdict::kValidMac1AndCookie);
  EXPECT_EQ(Check(false), MacVerdict::kValidMac1);
}

TEST_F(CookieTest, AnswersWithLessThanItReceived_CONF63) {
  EXPECT_LT(sizeof(CookieReplyMessage), sizeof(ResponseMessage));
  EXPECT_LT(sizeof(CookieReplyMessage), sizeof(InitiationMessage));
}

TEST_F(CookieTest, AnswersResponsesToo_CONF63) {
  ResponseMessage response;
  random_.Fill(MutableBytesOf(response));
  response.type = 2;
  jar_->AddMacs(MutableBytesOf(response), kStart);
  const SocketAddress from = At("192.0.2.1:1");
  ASSERT_EQ(checker_.Check(BytesOf(response), from, true, kStart, random_), MacVerdict::kValidMac1);
  const auto reply = checker_.CreateReply(BytesOf(response), from, kStart, random_);
  EXPECT_EQ(reply.receiver_index, response.sender_index);
  EXPECT_TRUE(jar_->ConsumeReply(reply, kStart));
}

TEST_F(CookieTest, CoversMac1AndAllBeforeItByMac2_CONF68) {
  AddMacs();
  ASSERT_TRUE(jar_->ConsumeReply(Reply(), kStart));
  AddMacs();
  for (std::size_t bit = 0; bit < 128; ++bit) {
    const auto flip = static_cast<std::uint8_t>(1u << (bit % 8));
    message_.mac2[bit / 8] ^= flip;
    ASSERT_EQ(Check(true), MacVerdict::kValidMac1) << bit;
    message_.mac2[bit / 8] ^= flip;
  }
  // With mac1 made good for the altered message, as anyone can who knows Bob's key, mac2 still gives it away.
  const Mac mac2 = message_.mac2;
  message_.sender_index = message_.sender_index + 1;
  CookieJar(bob_).AddMacs(MutableBytesOf(message_), kStart);
  message_.mac2 = mac2;
  EXPECT_EQ(Check(true), MacVerdict::kValidMac1);
}

TEST_F(CookieTest, BindsTheCookieToAddressAndPort_CONF64) {
  AddMacs();
  ASSERT_TRUE(jar_->ConsumeReply(Reply(), kStart));
  AddMacs();
  EXPECT_EQ(Check(true, kStart, At("192.0.2.1:51820")), MacVerdict::kValidMac1AndCookie);
  EXPECT_EQ(Check(true, kStart, At("192.0.2.1:51821")), MacVerdict::kValidMac1);
  EXPECT_EQ(Check(true, kStart, At("192.0.2.2:51820")), MacVerdict::kValidMac1);
  EXPECT_EQ(Check(true, kStart, At("[::ffff:192.0.2.1]:51820")), MacVerdict::kValidMac1);
}

TEST_F(CookieTest, ChangesItsSecretAfterTwoMinutes_CONF28_CONF64) {
  AddMacs();
  ASSERT_TRUE(jar_->ConsumeReply(Reply(kStart), kStart));
  AddMacs();
  EXPECT_EQ(Check(true, kStart + 120s - 1ns), MacVerdict::kValidMac1AndCookie);
  EXPECT_EQ(Check(true, kStart + 120s), MacVerdict::kValidMac1);
}

TEST_F(CookieTest, UsesACookieFor115Seconds_CONF28) {
  AddMacs();
  ASSERT_TRUE(jar_->ConsumeReply(Reply(), kStart));
  AddMacs(kStart + 115s - 1ns);
  EXPECT_TRUE(has_mac2());
  AddMacs(kStart + 115s);
  EXPECT_FALSE(has_mac2());
}

TEST_F(CookieTest, ConsumesOneReplyAMessage_CONF66) {
  const auto unasked = Reply();
  EXPECT_FALSE(jar_->ConsumeReply(unasked, kStart));
  AddMacs();
  const auto reply = Reply();
  EXPECT_TRUE(jar_->ConsumeReply(reply, kStart));
  // A replay does not make the cookie younger.
  EXPECT_FALSE(jar_->ConsumeReply(reply, kStart + 60s));
  AddMacs(kStart + 116s);
  EXPECT_FALSE(has_mac2());
}

TEST_F(CookieTest, TakesOnlyTheReplyToItsLastMessage_CONF65_CONF66) {
  AddMacs();
  const auto old = Reply();
  message_.sender_index = message_.sender_index + 1;
  AddMacs();
  EXPECT_FALSE(jar_->ConsumeReply(old, kStart));
  EXPECT_TRUE(jar_->ConsumeReply(Reply(), kStart));
}

TEST_F(CookieTest, RefusesAForgedReplyAndStillTakesTheRealOne_CONF65) {
  AddMacs();
  const auto reply = Reply();
  for (std::size_t bit = 8 * offsetof(CookieReplyMessage, nonce); bit < 8 * sizeof(reply); ++bit) {
    auto forged = reply;
    MutableBytesOf(forged)[bit / 8] ^= static_cast<std::uint8_t>(1u << (bit % 8));
    ASSERT_FALSE(jar_->ConsumeReply(forged, kStart)) << bit;
  }
  EXPECT_TRUE(jar_->ConsumeReply(reply, kStart));
}

TEST_F(CookieTest, UsesANewNonceForEachReply_CONF65) {
  AddMacs();
  EXPECT_NE(Reply().nonce, Reply().nonce);
}

// Frozen bytes; where they come from: noise_test.cc.
TEST(CookieVector, HoldsByteForByte_CONF3_CONF11_CONF64_CONF65_CONF68) {
  InitializeCrypto();
  PublicKey responder;
  std::ranges::copy(FromHex("31e0303fd6418d2f8c0e78b91f22e8caed0fbe48656dcf4767e4834f701b8f62"),
                    responder.bytes.begin());
  const auto without_mac2 = FromHex(
      "0100000044332211ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944001e21de9f98ddd8e2ad57527207feb5"
      "6253c9c94a9e496782ecfcb2a75fbcaf752d6cf9956f6a4cc1a138d6de1e87238cbd2c462d6bf53d83c83619f17d594245e4f5662001d367"
      "18f42ca315d76e6ed156e3ed3de108edfd2593af");
  const std::string reply_hex =
      "03000000443322116465666768696a6b6c6d6e6f707172737475767778797a7bf602545b6119ac9171c8af91fa1156bf72682558e4d61e75"
      "a4020d8372f394e2";
  const std::string mac2_hex = "0293e745d44d6a31dc5caa5fa065dad7";

  auto message = without_mac2;
  message.resize(148);
  auto blank = message;
  std::ranges::fill(MutableBytes(blank).last(32), 0);
  CookieJar jar(responder);
  jar.AddMacs(blank, kStart);
  EXPECT_EQ(blank, message);

  // First the nonce, then the secret: the order in which the checker asks.
  auto script = Ascending(24, 100);
  const auto secret = Ascending(32);
  script.insert(script.end(), secret.begin(), secret.end());
  ScriptedRandom random(script);
  CookieChecker checker;
  checker.SetPublicKey(responder);
  const auto reply = checker.CreateReply(message, At("192.0.2.1:51820"), kStart, random);
  EXPECT_EQ(ToHex(BytesOf(reply)), reply_hex);
  ASSERT_TRUE(jar.ConsumeReply(reply, kStart));
  jar.AddMacs(message, kStart);
  EXPECT_EQ(ToHex(Bytes(message).first(132)), ToHex(without_mac2));
  EXPECT_EQ(ToHex(Bytes(message).last(16)), mac2_hex);
}

}  // namespace
}  // namespace adit
