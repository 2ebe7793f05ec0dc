#include "tunnel/icmp.h"

#include <gtest/gtest.h>

#include "crypto/test_support.h"
#include "tunnel/ip_packet.h"

namespace adit {
namespace {

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

// The one's complement sum of RFC 1071, the obvious way: 0xffff over anything that contains its own checksum.
std::uint16_t Sum(Bytes bytes, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < bytes.size(); ++i) sum += static_cast<std::uint32_t>(bytes[i]) << (i % 2 == 0 ? 8 : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

std::vector<std::uint8_t> V4(const char* from, const char* to, std::uint8_t protocol, Bytes payload,
                             std::uint16_t fragment = 0) {
  std::vector<std::uint8_t> packet(20);
  const std::size_t total = 20 + payload.size();
  packet[0] = 0x45;
  packet[1] = 0x10;
  packet[2] = static_cast<std::uint8_t>(total >> 8);
  packet[3] = static_cast<std::uint8_t>(total);
  packet[6] = static_cast<std::uint8_t>(fragment >> 8);
  packet[7] = static_cast<std::uint8_t>(fragment);
  packet[8] = 64;
  packet[9] = protocol;
  std::ranges::copy(Ip(from).bytes(), packet.begin() + 12);
  std::ranges::copy(Ip(to).bytes(), packet.begin() + 16);
  packet.insert(packet.end(), payload.begin(), payload.end());
  return packet;
}

std::vector<std::uint8_t> V6(const char* from, const char* to, std::uint8_t next_header, Bytes payload) {
  std::vector<std::uint8_t> packet(40);
  packet[0] = 0x60;
  packet[4] = static_cast<std::uint8_t>(payload.size() >> 8);
  packet[5] = static_cast<std::uint8_t>(payload.size());
  packet[6] = next_header;
  packet[7] = 64;
  std::ranges::copy(Ip(from).bytes(), packet.begin() + 8);
  std::ranges::copy(Ip(to).bytes(), packet.begin() + 24);
  packet.insert(packet.end(), payload.begin(), payload.end());
  return packet;
}

bool IsAnswered(Bytes packet) { return BuildUnreachable(packet, std::nullopt).has_value(); }

TEST(Icmp, AnswersIpv4WithHostUnreachable_CONF87) {
  const auto packet = V4("10.0.0.2", "192.0.2.9", 17, Ascending(40));
  const auto answer = BuildUnreachable(packet, Ip("10.0.0.1"));
  ASSERT_TRUE(answer);
  const auto ip = ParseIp(*answer);
  ASSERT_TRUE(ip && ip->is_v4());
  EXPECT_EQ(ip->total_bytes, answer->size());
  EXPECT_EQ(ip->source_address().ToString(), "10.0.0.1");
  EXPECT_EQ(ip->destination_address().ToString(), "10.0.0.2");
  EXPECT_EQ(ip->ecn(), 0);
  EXPECT_EQ((*answer)[9], 1);   // ICMP
  EXPECT_EQ((*answer)[20], 3);  // destination unreachable
  EXPECT_EQ((*answer)[21], 1);  // host
  EXPECT_EQ(Sum(Bytes(*answer).first(20)), 0xffff);
  EXPECT_EQ(Sum(Bytes(*answer).subspan(20)), 0xffff);
  EXPECT_EQ(ToHex(Bytes(*answer).subspan(28)), ToHex(packet));
}

TEST(Icmp, SaysHowLongAPacketMayBe) {
  const auto v4 = BuildTooBig(V4("10.0.0.2", "192.0.2.9", 17, Ascending(1400)), 0x1234, Ip("10.0.0.1"));
  ASSERT_TRUE(v4);
  EXPECT_EQ(ToHex(Bytes(*v4).subspan(20, 2)), "0304");
  EXPECT_EQ(ToHex(Bytes(*v4).subspan(24, 4)), "00001234");  // RFC 1191, 4: two unused bytes, then the MTU
  EXPECT_EQ(Sum(Bytes(*v4).subspan(20)), 0xffff);
  const auto v6 = BuildTooBig(V6("fd00::2", "2001:db8::9", 17, Ascending(1400)), 0x1234, Ip("fd00::1"));
  ASSERT_TRUE(v6);
  EXPECT_EQ(ToHex(Bytes(*v6).subspan(40, 2)), "0200");
  EXPECT_EQ(ToHex(Bytes(*v6).subspan(44, 4)), "00001234");  // RFC 4443, 3.2
  const auto error = V4("10.0.0.2", "192.0.2.9", 1, Bytes(*v4).subspan(20));
  EXPECT_FALSE(BuildTooBig(error, 1280, std::nullopt)) << "no answer to an ICMP error";
}

TEST(Icmp, AnswersIpv6WithAddressUnreachable_CONF87) {
  for (const std::size_t payload : {0u, 1u, 40u, 41u, 1500u}) {
    const auto packet = V6("fd00::2", "2001:db8::9", 17, Ascending(payload));
    const auto answer = BuildUnreachable(packet, Ip("fd00::1"));
    ASSERT_TRUE(answer);
    const auto ip = ParseIp(*answer);
    ASSERT_TRUE(ip && !ip->is_v4());
    EXPECT_EQ(ip->total_bytes, answer->size());
    EXPECT_EQ(ip->source_address().ToString(), "fd00::1");
    EXPECT_EQ(ip->destination_address().ToString(), "fd00::2");
    EXPECT_EQ((*answer)[6], 58);
    EXPECT_EQ((*answer)[40], 1);
    EXPECT_EQ((*answer)[41], 3);
    const Bytes icmp = Bytes(*answer).subspan(40);
    const auto pseudo = static_cast<std::uint32_t>(Sum(Bytes(*answer).subspan(8, 32)) + icmp.size() + 58);
    EXPECT_EQ(Sum(icmp, pseudo), 0xffff) << payload;
    EXPECT_TRUE(std::ranges::equal(icmp.subspan(8), Bytes(packet).first(icmp.size() - 8)));
  }
}

TEST(Icmp, QuotesAsMuchAsEveryHostTakes_CONF87) {
  EXPECT_EQ(BuildUnreachable(V4("10.0.0.2", "192.0.2.9", 6, Ascending(1400)), std::nullopt)->size(), 576u);
  EXPECT_EQ(BuildUnreachable(V4("10.0.0.2", "192.0.2.9", 6, Ascending(528)), std::nullopt)->size(), 576u);
  EXPECT_EQ(BuildUnreachable(V4("10.0.0.2", "192.0.2.9", 6, Ascending(527)), std::nullopt)->size(), 575u);
  EXPECT_EQ(BuildUnreachable(V6("fd00::2", "fd01::1", 6, Ascending(1400)), std::nullopt)->size(), 1280u);
}

TEST(Icmp, QuotesNoPadding) {
  auto packet = V4("10.0.0.2", "192.0.2.9", 17, Ascending(9));
  packet.resize(packet.size() + 7);
  EXPECT_EQ(BuildUnreachable(packet, std::nullopt)->size(), 28u + 29u);
}

TEST(Icmp, SpeaksForTheUnreachableWithoutAnAddressOfTheFamily_CONF87) {
  const auto v4 = V4("10.0.0.2", "192.0.2.9", 17, Ascending(8));
  const auto v6 = V6("fd00::2", "fd01::1", 17, Ascending(8));
  EXPECT_EQ(ParseIp(*BuildUnreachable(v4, std::nullopt))->source_address().ToString(), "192.0.2.9");
  EXPECT_EQ(ParseIp(*BuildUnreachable(v4, Ip("fd00::1")))->source_address().ToString(), "192.0.2.9");
  EXPECT_EQ(ParseIp(*BuildUnreachable(v6, Ip("10.0.0.1")))->source_address().ToString(), "fd01::1");
}

TEST(Icmp, NeverAnswersAnIcmpError_CONF87) {
  for (unsigned type = 0; type < 256; ++type) {
    const ByteArray<8> icmp = {static_cast<std::uint8_t>(type)};
    const bool is_error = type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
    EXPECT_EQ(IsAnswered(V4("10.0.0.2", "192.0.2.9", 1, icmp)), !is_error) << type;
    EXPECT_EQ(IsAnswered(V6("fd00::2", "fd01::1", 58, icmp)), type >= 128) << type;
  }
  // Too short to tell what it is.
  EXPECT_FALSE(IsAnswered(V4("10.0.0.2", "192.0.2.9", 1, {})));
  EXPECT_FALSE(IsAnswered(V6("fd00::2", "fd01::1", 58, {})));
}

TEST(Icmp, NeverAnswersItsOwnAnswer_CONF87) {
  const auto answer4 = BuildUnreachable(V4("10.0.0.2", "192.0.2.9", 17, Ascending(8)), Ip("10.0.0.1"));
  const auto answer6 = BuildUnreachable(V6("fd00::2", "fd01::1", 17, Ascending(8)), Ip("fd00::1"));
  EXPECT_FALSE(IsAnswered(*answer4));
  EXPECT_FALSE(IsAnswered(*answer6));
}

TEST(Icmp, NeverAnswersMulticastBroadcastOrNobody_CONF87) {
  const auto payload = Ascending(8);
  for (const char* const to : {"224.0.0.251", "239.255.255.250", "255.255.255.255", "240.0.0.1", "0.0.0.0"}) {
    EXPECT_FALSE(IsAnswered(V4("10.0.0.2", to, 17, payload))) << to;
    EXPECT_FALSE(IsAnswered(V4(to, "192.0.2.9", 17, payload))) << to;
  }
  for (const char* const to : {"ff02::1", "ff0e::fb", "::"}) {
    EXPECT_FALSE(IsAnswered(V6("fd00::2", to, 17, payload))) << to;
    EXPECT_FALSE(IsAnswered(V6(to, "fd01::1", 17, payload))) << to;
  }
  EXPECT_TRUE(IsAnswered(V4("10.0.0.2", "223.255.255.255", 17, payload)));
}

TEST(Icmp, AnswersTheFirstFragmentOnly_CONF87) {
  const auto payload = Ascending(24);
  EXPECT_TRUE(IsAnswered(V4("10.0.0.2", "192.0.2.9", 17, payload, 0x4000)));  // do not fragment
  EXPECT_TRUE(IsAnswered(V4("10.0.0.2", "192.0.2.9", 17, payload, 0x2000)));  // the first of several
  EXPECT_FALSE(IsAnswered(V4("10.0.0.2", "192.0.2.9", 17, payload, 0x2001)));
  EXPECT_FALSE(IsAnswered(V4("10.0.0.2", "192.0.2.9", 17, payload, 0x1fff)));
  for (unsigned bit = 0; bit < 13; ++bit) {
    EXPECT_FALSE(IsAnswered(V4("10.0.0.2", "192.0.2.9", 17, payload, static_cast<std::uint16_t>(1u << bit)))) << bit;
  }

  const auto fragment = [&](std::uint16_t offset_and_flags) {
    std::vector<std::uint8_t> header = {
        17, 0, static_cast<std::uint8_t>(offset_and_flags >> 8), static_cast<std::uint8_t>(offset_and_flags), 1, 2,
        3,  4};
    header.insert(header.end(), payload.begin(), payload.end());
    return V6("fd00::2", "fd01::1", 44, header);
  };
  EXPECT_TRUE(IsAnswered(fragment(0x0001)));
  EXPECT_FALSE(IsAnswered(fragment(0x0008)));
  EXPECT_FALSE(IsAnswered(fragment(0x0009)));
  EXPECT_FALSE(IsAnswered(fragment(0xfff8)));
}

TEST(Icmp, LooksBehindExtensionHeadersForWhatItMustNotAnswer_CONF87) {
  // Hop-by-hop (8 bytes), destination options (16), authentication (16: 2 + 2 words of 4), then ICMPv6.
  const auto chain = [](std::uint8_t icmp_type) {
    std::vector<std::uint8_t> bytes = {60, 0, 0, 0, 0, 0, 0, 0};
    bytes.insert(bytes.end(), {51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    bytes.insert(bytes.end(), {58, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    bytes.insert(bytes.end(), {icmp_type, 0, 0, 0, 0, 0, 0, 0});
    return bytes;
  };
  EXPECT_TRUE(IsAnswered(V6("fd00::2", "fd01::1", 0, chain(128))));
  EXPECT_FALSE(IsAnswered(V6("fd00::2", "fd01::1", 0, chain(1))));
  // Cut off anywhere before the type is known: no answer.
  const auto whole = chain(128);
  for (std::size_t size = 0; size <= 40; ++size) {
    EXPECT_FALSE(IsAnswered(V6("fd00::2", "fd01::1", 0, Bytes(whole).first(size)))) << size;
  }
}

TEST(Icmp, AnswersIpOnly_CONF87) {
  EXPECT_FALSE(IsAnswered({}));
  EXPECT_FALSE(IsAnswered(Ascending(60)));
  auto packet = V4("10.0.0.2", "192.0.2.9", 17, Ascending(8));
  packet[3] = 200;
  EXPECT_FALSE(IsAnswered(packet));
}

TEST(Icmp, SurvivesAnythingThatLooksLikeAPacket) {
  SeededRandom random(DrawSeed());
  std::size_t answered = 0;
  for (int i = 0; i < 200'000; ++i) {
    auto packet = RandomBytes(random, random.Below(120));
    if (!packet.empty()) packet[0] = random.Below(2) == 0 ? 0x45 : 0x60;
    if (packet.size() > 6) {
      const std::uint8_t next_headers[] = {0, 43, 44, 51, 58, 60, 6, 17};
      packet[4] = 0;
      packet[5] = static_cast<std::uint8_t>(packet.size() > 40 ? packet.size() - 40 : 0);
      packet[2] = 0;
      packet[3] = static_cast<std::uint8_t>(packet.size());
      if (packet[0] == 0x60) packet[6] = next_headers[random.Below(8)];
    }
    if (packet.size() > 41 && random.Below(2) == 0) {
      packet[40] = 44;
      packet[41] = static_cast<std::uint8_t>(random.Below(4));
    }
    const auto answer = BuildUnreachable(packet, std::nullopt);
    if (!answer) continue;
    ++answered;
    ASSERT_TRUE(ParseIp(*answer));
    ASSERT_FALSE(IsAnswered(*answer));
  }
  EXPECT_GT(answered, 1'000u);
}

TEST(IcmpLimiter, AllowsABurstThenARate_CONF87) {
  IcmpLimiter limiter;
  Instant now(1000s);
  for (std::uint32_t i = 0; i < kIcmpAnswersBurst; ++i) ASSERT_TRUE(limiter.Allow(now));
  EXPECT_FALSE(limiter.Allow(now));
  EXPECT_FALSE(limiter.Allow(now + 999us));
  EXPECT_TRUE(limiter.Allow(now + 1ms));
  EXPECT_FALSE(limiter.Allow(now + 1ms));
  std::uint32_t allowed = 0;
  for (int i = 0; i < 10'000; ++i) allowed += limiter.Allow(now + 1s + i * 100us) ? 1 : 0;
  EXPECT_EQ(allowed, kIcmpAnswersBurst + 999);
}

}  // namespace
}  // namespace adit
