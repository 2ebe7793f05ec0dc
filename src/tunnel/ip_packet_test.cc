#include "tunnel/ip_packet.h"

#include <gtest/gtest.h>

#include "crypto/test_support.h"

namespace adit {
namespace {

// The sum over the whole header, which is 0xffff if its checksum is right. The obvious version.
std::uint16_t HeaderSum(Bytes header) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < header.size(); i += 2) sum += static_cast<std::uint32_t>(header[i] * 256 + header[i + 1]);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(sum);
}

void FixChecksum(MutableBytes header) {
  header[10] = header[11] = 0;
  const auto sum = static_cast<std::uint16_t>(~HeaderSum(header));
  header[10] = static_cast<std::uint8_t>(sum >> 8);
  header[11] = static_cast<std::uint8_t>(sum);
}

std::vector<std::uint8_t> V4Packet(std::size_t total, std::size_t words = 5) {
  std::vector<std::uint8_t> packet(std::max<std::size_t>(total, 4 * words));
  packet[0] = static_cast<std::uint8_t>(0x40 | words);
  packet[2] = static_cast<std::uint8_t>(total >> 8);
  packet[3] = static_cast<std::uint8_t>(total);
  packet[8] = 64;
  packet[9] = 17;
  const ByteArray<8> addresses = {10, 0, 0, 1, 192, 0, 2, 7};
  std::ranges::copy(addresses, packet.begin() + 12);
  FixChecksum(MutableBytes(packet).first(4 * words));
  packet.resize(total);
  return packet;
}

std::vector<std::uint8_t> V6Packet(std::size_t payload) {
  std::vector<std::uint8_t> packet(40 + payload);
  packet[0] = 0x60;
  packet[4] = static_cast<std::uint8_t>(payload >> 8);
  packet[5] = static_cast<std::uint8_t>(payload);
  packet[8] = 0xfd;
  packet[23] = 1;
  packet[24] = 0xfe;
  packet[39] = 2;
  return packet;
}

TEST(ParseIp, ReadsAddressesLengthAndTos_CONF80) {
  auto v4 = V4Packet(100);
  v4[1] = 0xb9;
  v4.resize(112);  // padding
  const auto ip4 = ParseIp(v4);
  ASSERT_TRUE(ip4);
  EXPECT_TRUE(ip4->is_v4());
  EXPECT_EQ(ip4->total_bytes, 100u);
  EXPECT_EQ(ip4->header_bytes, 20u);
  EXPECT_EQ(ip4->tos, 0xb9);
  EXPECT_EQ(ip4->ecn(), 1);
  EXPECT_EQ(ip4->source_address().ToString(), "10.0.0.1");
  EXPECT_EQ(ip4->destination_address().ToString(), "192.0.2.7");
  EXPECT_EQ(ip4->source, v4.data() + 12);
  EXPECT_EQ(ip4->destination, v4.data() + 16);

  auto v6 = V6Packet(60);
  v6[0] = 0x6b;
  v6[1] = 0x9f;
  v6.resize(112);
  const auto ip6 = ParseIp(v6);
  ASSERT_TRUE(ip6);
  EXPECT_FALSE(ip6->is_v4());
  EXPECT_EQ(ip6->total_bytes, 100u);
  EXPECT_EQ(ip6->header_bytes, 40u);
  EXPECT_EQ(ip6->tos, 0xb9);
  EXPECT_EQ(ip6->source_address().ToString(), "fd00::1");
  EXPECT_EQ(ip6->destination_address().ToString(), "fe00::2");
}

TEST(ParseIp, ReadsAHeaderWhoseBodyLiesElsewhere_CONF80) {
  const auto v4 = V4Packet(100);
  EXPECT_FALSE(ParseIpHeader(Bytes(v4).first(20), 99));
  EXPECT_EQ(ParseIpHeader(Bytes(v4).first(20), 100).value().total_bytes, 100u);
  EXPECT_FALSE(ParseIpHeader(Bytes(v4).first(19), 100));
  const auto v6 = V6Packet(60);
  EXPECT_FALSE(ParseIpHeader(Bytes(v6).first(40), 99));
  EXPECT_EQ(ParseIpHeader(Bytes(v6).first(40), 100).value().total_bytes, 100u);
  EXPECT_FALSE(ParseIpHeader(Bytes(v6).first(39), 100));
}

TEST(ParseIp, RefusesEveryOtherVersion_CONF80) {
  for (unsigned version = 0; version < 16; ++version) {
    auto packet = V6Packet(60);
    packet[2] = 0;
    packet[3] = 60;  // a good length, should anyone read it as IPv4
    packet[0] = static_cast<std::uint8_t>(version << 4 | 5);
    EXPECT_EQ(ParseIp(packet).has_value(), version == 4 || version == 6) << version;
  }
}

TEST(ParseIp, RefusesAHeaderThatDoesNotFit_CONF80) {
  for (std::size_t size = 0; size < 20; ++size) EXPECT_FALSE(ParseIp(V4Packet(size))) << size;
  EXPECT_TRUE(ParseIp(V4Packet(20)));
  const auto v6 = V6Packet(0);
  for (std::size_t size = 0; size < 40; ++size) EXPECT_FALSE(ParseIp(Bytes(v6).first(size))) << size;
  EXPECT_TRUE(ParseIp(v6));
}

TEST(ParseIp, RefusesAnIpv4HeaderLengthThatContradicts_CONF80) {
  auto packet = V4Packet(40);
  for (unsigned words = 0; words < 16; ++words) {
    packet[0] = static_cast<std::uint8_t>(0x40 | words);
    EXPECT_EQ(ParseIp(packet).has_value(), words >= 5 && words <= 10) << words;
  }
}

TEST(ParseIp, RefusesATotalLengthBelowTheHeaderOrBeyondTheBytes_CONF80) {
  auto packet = V4Packet(60);
  for (unsigned total = 0; total < 100; ++total) {
    packet[3] = static_cast<std::uint8_t>(total);
    EXPECT_EQ(ParseIp(packet).has_value(), total >= 20 && total <= 60) << total;
  }
  auto v6 = V6Packet(20);
  for (unsigned payload = 0; payload < 100; ++payload) {
    v6[5] = static_cast<std::uint8_t>(payload);
    EXPECT_EQ(ParseIp(v6).has_value(), payload <= 20) << payload;
  }
}

// 65,535 + 40 wraps to 39 in 16 bits.
TEST(ParseIp, AddsTheIpv6LengthWithoutWrapping_CONF80) {
  for (unsigned payload = 65'490; payload <= 65'535; ++payload) {
    auto packet = V6Packet(100);
    packet[4] = static_cast<std::uint8_t>(payload >> 8);
    packet[5] = static_cast<std::uint8_t>(payload);
    EXPECT_FALSE(ParseIp(packet)) << payload;
  }
  EXPECT_EQ(ParseIp(V6Packet(65'535)).value().total_bytes, 65'575u);
}

TEST(PaddingBytes, RoundsUpToSixteenWithinTheMtu_CONF35_CONF81) {
  struct Case {
    std::size_t packet, mtu, padding;
  };
  const Case cases[] = {
      {0, 1420, 0},      {1, 1420, 15},    {15, 1420, 1},   {16, 1420, 0},    {17, 1420, 15},
      {1408, 1420, 0},   {1409, 1420, 11}, {1419, 1420, 1}, {1420, 1420, 0},   // up to the MTU, not beyond
      {1421, 1420, 15},  {1436, 1420, 0},  {2840, 1420, 0}, {2841, 1420, 15},  // longer: the last piece counts
      {65'535, 1420, 9},                                                       // 46 · 1420 + 215, to 224
      {0, 0, 0},         {1, 0, 15},       {1420, 0, 4},    {65'535, 0, 1},    // unknown MTU: plain
      {100, 1, 0},       {5, 7, 2},        {7, 7, 0},       {1279, 1280, 1},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(PaddingBytes(c.packet, c.mtu), c.padding) << c.packet << " bytes, MTU " << c.mtu;
  }
}

TEST(PaddingBytes, NeverReachesSixteenNorPassesTheMtu_CONF81) {
  for (const std::size_t mtu : {576u, 1280u, 1420u, 1421u, 1500u, 9000u, 65535u}) {
    for (std::size_t size = 0; size <= mtu; ++size) {
      const std::size_t padding = PaddingBytes(size, mtu);
      ASSERT_LT(padding, 16u);
      ASSERT_LE(size + padding, mtu);
      ASSERT_TRUE((size + padding) % 16 == 0 || size + padding == mtu) << size;
    }
  }
}

TEST(Ecn, CopiesTheInnerFieldOutwardsAndNoDscp_CONF83) {
  for (unsigned tos = 0; tos < 256; ++tos) EXPECT_EQ(OuterTos(static_cast<std::uint8_t>(tos)), tos & 3);
}

TEST(Ecn, MergesAsRfc6040Says_CONF83) {
  constexpr std::uint8_t kNot = 0, kOne = 1, kZero = 2, kCe = 3;
  struct Row {
    std::uint8_t inner, outer, merged;
  };
  const Row rows[] = {
      {kNot, kNot, kNot},   {kNot, kOne, kNot},  {kNot, kZero, kNot},   {kNot, kCe, kNot},  // the last: not dropped
      {kZero, kNot, kZero}, {kZero, kOne, kOne}, {kZero, kZero, kZero}, {kZero, kCe, kCe},
      {kOne, kNot, kOne},   {kOne, kOne, kOne},  {kOne, kZero, kOne},   {kOne, kCe, kCe},
      {kCe, kNot, kCe},     {kCe, kOne, kCe},    {kCe, kZero, kCe},     {kCe, kCe, kCe},
  };
  for (const Row& row : rows) {
    EXPECT_EQ(MergedEcn(row.inner, row.outer), row.merged) << int{row.inner} << " in " << int{row.outer};
  }
}

TEST(Ecn, MarksTheHeaderAndKeepsItsChecksumRight_CONF83) {
  SeededRandom random(DrawSeed());
  for (int i = 0; i < 20'000; ++i) {
    const std::size_t words = 5 + random.Below(11);
    auto packet = V4Packet(100, words);
    random.Fill(MutableBytes(packet).subspan(4, 4 * words - 4));
    packet[1] = static_cast<std::uint8_t>(random.Below(256));
    FixChecksum(MutableBytes(packet).first(4 * words));
    const auto before = packet;
    const auto outer = static_cast<std::uint8_t>(random.Below(4));
    MergeEcn(packet, outer);

    EXPECT_EQ(packet[1] & 3, MergedEcn(before[1], outer));
    EXPECT_EQ(packet[1] & 0xfc, before[1] & 0xfc);
    ASSERT_EQ(HeaderSum(Bytes(packet).first(4 * words)), 0xffff);
    packet[1] = before[1];
    packet[10] = before[10];
    packet[11] = before[11];
    ASSERT_EQ(packet, before);  // and nothing else
  }
}

// Where the sums carry twice, or reach the two zeros of one's complement.
TEST(Ecn, KeepsAChecksumRightAtTheEdgesOfItsRange_CONF83) {
  for (int target = -8; target <= 8; ++target) {
    for (std::uint8_t inner = 0; inner < 4; ++inner) {
      for (std::uint8_t outer = 0; outer < 4; ++outer) {
        auto packet = V4Packet(20);
        packet[1] = inner;
        packet[10] = packet[11] = 0;
        // The id that makes the checksum `target`.
        const unsigned rest = HeaderSum(packet) + static_cast<unsigned>(target & 0xffff);
        const unsigned id = 0xffff - (rest > 0xffff ? rest - 0xffff : rest);
        packet[4] = static_cast<std::uint8_t>(id >> 8);
        packet[5] = static_cast<std::uint8_t>(id);
        packet[10] = static_cast<std::uint8_t>(target >> 8 & 0xff);
        packet[11] = static_cast<std::uint8_t>(target & 0xff);
        ASSERT_EQ(HeaderSum(packet), 0xffff);
        MergeEcn(packet, outer);
        ASSERT_EQ(HeaderSum(packet), 0xffff) << target << ": " << int{inner} << " in " << int{outer};
      }
    }
  }
}

TEST(Ecn, MarksIpv6AndTouchesNothingElse_CONF83) {
  SeededRandom random(DrawSeed());
  for (int i = 0; i < 2'000; ++i) {
    auto packet = V6Packet(60);
    random.Fill(MutableBytes(packet).first(4));
    packet[0] = static_cast<std::uint8_t>(0x60 | (packet[0] & 15));
    const auto before = packet;
    const auto outer = static_cast<std::uint8_t>(random.Below(4));
    MergeEcn(packet, outer);
    EXPECT_EQ(packet[1] >> 4 & 3, MergedEcn(static_cast<std::uint8_t>(before[1] >> 4 & 3), outer));
    packet[1] = static_cast<std::uint8_t>((packet[1] & 0xcf) | (before[1] & 0x30));
    ASSERT_EQ(packet, before);
  }
}

}  // namespace
}  // namespace adit
