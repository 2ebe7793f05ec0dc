#include "tun/split.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "tun/test_packet.h"

namespace adit {
namespace {

using test::Packet;
using test::PacketSpec;
using test::SuperPacket;

std::vector<Packet> Split(SuperPacket super) {
  Splitter splitter(super.header, super.packet);
  std::vector<Packet> packets;
  if (splitter.error() != SplitError::kNone) {
    EXPECT_EQ(splitter.segment_count(), 0u);
    EXPECT_FALSE(splitter.Next());
    return packets;
  }
  std::size_t largest = 0;
  while (const auto segment = splitter.Next()) {
    packets.emplace_back(segment->head.begin(), segment->head.end());
    packets.back().insert(packets.back().end(), segment->body.begin(), segment->body.end());
    largest = std::max(largest, segment->size());
    // What the contract allows the consumer: everything up to the end of this body is his.
    const std::size_t end = static_cast<std::size_t>(segment->body.data() + segment->body.size() - super.packet.data());
    if (!segment->head.empty()) std::memset(super.packet.data(), 0xee, end);
  }
  EXPECT_EQ(packets.size(), splitter.segment_count());
  EXPECT_EQ(largest, splitter.max_segment_bytes());
  return packets;
}

std::vector<Packet> Only(Packet packet) { return {std::move(packet)}; }

SplitError ErrorOf(SuperPacket super) { return Splitter(super.header, super.packet).error(); }

PacketSpec RandomSpec(Random& random) {
  PacketSpec spec;
  spec.is_v6 = random.Below(2) == 0;
  spec.is_tcp = random.Below(3) != 0;
  spec.tos = static_cast<std::uint8_t>(random.NextU32());
  spec.ttl = static_cast<std::uint8_t>(random.NextU32());
  spec.flow_label = random.Below(1 << 20);
  spec.id = static_cast<std::uint16_t>(random.NextU32());
  spec.dont_fragment = random.Below(2) == 0;
  spec.sequence = random.NextU32();
  spec.acknowledgement = random.NextU32();
  spec.flags = static_cast<std::uint8_t>(random.NextU32());
  spec.window = static_cast<std::uint16_t>(random.NextU32());
  spec.tcp_options = test::RandomPayload(random, 4 * random.Below(11));
  if (!spec.is_v6) spec.ip_extra = test::RandomPayload(random, 4 * random.Below(11));
  if (spec.is_v6 && random.Below(3) == 0) {
    spec.ip_extra_type = random.Below(2) == 0 ? 0 : 60;  // hop-by-hop or destination options, 8 or 16 bytes
    spec.ip_extra = test::RandomPayload(random, 8 + 8 * random.Below(2));
    spec.ip_extra[0] = spec.is_tcp ? 6 : 17;
    spec.ip_extra[1] = static_cast<std::uint8_t>(spec.ip_extra.size() / 8 - 1);
  }
  return spec;
}

TEST(Splitter, EqualsTheNaiveSplitterForRandomSuperPackets) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  for (int i = 0; i < 1500; ++i) {
    PacketSpec spec = RandomSpec(random);
    const std::size_t room = 65535 - 160;
    spec.payload = test::RandomPayload(random, 1 + random.Below(i % 10 == 0 ? room : 9000));
    const auto segment_bytes = static_cast<std::uint16_t>(1 + random.Below(1500));
    auto super = test::BuildSuper(spec, segment_bytes);
    super.header.header_bytes = static_cast<std::uint16_t>(random.NextU32());
    if (spec.is_tcp && random.Below(4) == 0) super.header.gso_type |= kVirtioGsoEcn;
    ASSERT_EQ(Split(super), test::NaiveSplit(spec, segment_bytes)) << "packet " << i;
  }
}

TEST(Splitter, ComputesChecksumsInFullWhenThePacketPromisesThem) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  for (int i = 0; i < 300; ++i) {
    PacketSpec spec = RandomSpec(random);
    spec.payload = test::RandomPayload(random, 1 + random.Below(5000));
    auto super = test::BuildSuper(spec, 700);
    super.packet = test::Build(spec);
    super.header.flags = 0;
    super.header.checksum_start = static_cast<std::uint16_t>(random.NextU32());
    ASSERT_EQ(Split(super), test::NaiveSplit(spec, 700)) << "packet " << i;
  }
}

TEST(Splitter, CutsMoreThan128SegmentsOutOfATinyMss) {
  PacketSpec spec{.payload = Packet(60000, 7)};
  const auto packets = Split(test::BuildSuper(spec, 8));
  EXPECT_EQ(packets.size(), 7500u);
  EXPECT_EQ(packets, test::NaiveSplit(spec, 8));
}

TEST(Splitter, TakesTheLargestPacketThereIs) {
  PacketSpec spec{.payload = Packet(65535 - 40, 9)};
  EXPECT_EQ(Split(test::BuildSuper(spec, 1380)), test::NaiveSplit(spec, 1380));
  EXPECT_EQ(Split(test::BuildSuper(spec, 65535)), test::NaiveSplit(spec, 65535));
  Packet too_long(65536, 0x45);
  EXPECT_EQ(Splitter(VirtioHeader{}, too_long).error(), SplitError::kMalformed);
}

TEST(Splitter, KeepsFinAndPushForTheLastAndCwrForTheFirst) {
  PacketSpec spec{.flags = 0x80 | 0x40 | 0x10 | 0x08 | 0x01, .payload = Packet(3000, 1)};
  auto super = test::BuildSuper(spec, 1000);
  super.header.gso_type |= kVirtioGsoEcn;
  const auto packets = Split(super);
  ASSERT_EQ(packets.size(), 3u);
  EXPECT_EQ(packets[0][33], 0x80 | 0x40 | 0x10);
  EXPECT_EQ(packets[1][33], 0x40 | 0x10);
  EXPECT_EQ(packets[2][33], 0x40 | 0x10 | 0x08 | 0x01);
}

TEST(Splitter, CountsIdAndSequenceAcrossTheirWrap) {
  PacketSpec spec{.id = 0xffff, .sequence = 0xffffff00, .payload = Packet(1000, 1)};
  const auto packets = Split(test::BuildSuper(spec, 0x100));
  ASSERT_EQ(packets.size(), 4u);
  EXPECT_EQ(test::Get16(packets[1], 4), 0u);
  EXPECT_EQ(test::Get32(packets[1], 24), 0u);
  EXPECT_EQ(test::Get32(packets[2], 24), 0x100u);
}

TEST(Splitter, LeavesTtlAndTosOfEverySegmentAsTheyCame) {
  for (const bool is_v6 : {false, true}) {
    PacketSpec spec{.is_v6 = is_v6, .tos = 0xb9, .ttl = 37, .payload = Packet(3000, 1)};
    for (const auto& packet : Split(test::BuildSuper(spec, 1000))) {
      EXPECT_EQ(packet[is_v6 ? 7 : 8], 37);
      EXPECT_EQ(is_v6 ? test::Get16(packet, 0) >> 4 & 0xff : packet[1], 0xb9u);
    }
  }
}

TEST(Splitter, WritesAllOnesWhereAUdpChecksumComesOutAsZero) {
  // Two payload bytes chosen so that the sum is 0xffff.
  PacketSpec spec{.is_tcp = false, .payload = Packet(2, 0)};
  const std::uint32_t sum = ~test::Get16(test::Build(spec), 26) & 0xffff;
  test::Put16(spec.payload, 0, ~sum & 0xffff);
  auto gso = test::BuildSuper(spec, 1000);
  ASSERT_EQ(Split(gso).size(), 1u);
  EXPECT_EQ(test::Get16(Split(gso)[0], 26), 0xffffu);
  gso.header.gso_type = kVirtioGsoNone;
  gso.header.segment_bytes = 0;
  EXPECT_EQ(test::Get16(Split(gso)[0], 26), 0xffffu);
}

TEST(Splitter, PassesAPlainPacketOnUntouched) {
  PacketSpec spec{.payload = Packet(100, 3)};
  const SuperPacket plain{.header = {}, .packet = test::Build(spec)};
  EXPECT_EQ(Split(plain), Only(plain.packet));
  SuperPacket valid = plain;
  valid.header.flags = kVirtioDataValid;
  EXPECT_EQ(Split(valid), Only(plain.packet));
}

TEST(Splitter, FinishesTheChecksumOfASinglePacket) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  for (int i = 0; i < 500; ++i) {
    PacketSpec spec = RandomSpec(random);
    spec.payload = test::RandomPayload(random, random.Below(1400));
    auto super = test::BuildSuper(spec, 0);
    super.header.gso_type = kVirtioGsoNone;
    auto expected = test::Build(spec);
    // 0 and 0xffff are the same sum; a checksum filled in for any protocol avoids 0, which UDP gives a meaning.
    const std::size_t field = test::TransportStart(spec) + (spec.is_tcp ? 16 : 6);
    if (test::Get16(expected, field) == 0) test::Put16(expected, field, 0xffff);
    ASSERT_EQ(Split(super), Only(expected)) << "packet " << i;
  }
}

TEST(Splitter, FinishesTheChecksumOfAnInnerPacketOfAnotherProtocol) {
  // IPIP: the checksum to finish is that of the TCP header behind the second IP header.
  const PacketSpec inner_spec{.payload = Packet(33, 5)};
  const auto inner = test::BuildSuper(inner_spec, 0);
  Packet outer(20 + inner.packet.size());
  outer[0] = 0x45;
  outer[9] = 4;
  std::ranges::copy(inner.packet, outer.begin() + 20);
  test::Put16(outer, 2, static_cast<std::uint32_t>(outer.size()));
  SuperPacket super{.header = inner.header, .packet = outer};
  super.header.gso_type = kVirtioGsoNone;
  super.header.checksum_start = 40;
  const auto packets = Split(super);
  ASSERT_EQ(packets.size(), 1u);
  EXPECT_TRUE(std::ranges::equal(Bytes(packets[0]).subspan(20), test::Build(inner_spec)));
}

TEST(Splitter, TakesThePseudoHeaderOfARoutedPacketFromTheKernel) {
  // With segments left the checksum is made with the final destination, which the fixed header does not hold.
  PacketSpec spec{.is_v6 = true, .payload = Packet(2000, 8)};
  spec.ip_extra_type = 43;
  spec.ip_extra.assign(24, 0);
  spec.ip_extra[0] = 6;
  spec.ip_extra[1] = 2;
  spec.ip_extra[3] = 1;
  auto super = test::BuildSuper(spec, 1000);
  const std::uint32_t shift = 0x1234;  // stands for the difference of the two destinations
  test::Put16(super.packet, 64 + 16, test::NaiveSum(Bytes(super.packet).subspan(64 + 16, 2), shift));
  const auto packets = Split(super);
  const auto plain = test::NaiveSplit(spec, 1000);
  ASSERT_EQ(packets.size(), 2u);
  for (int i = 0; i < 2; ++i) {
    const auto index = static_cast<std::size_t>(i);
    const std::uint32_t with_shift = test::NaiveSum(Bytes(packets[index]).subspan(64 + 16, 2), shift);
    EXPECT_EQ(with_shift, test::Get16(plain[index], 64 + 16));
  }
  super.header.flags = 0;
  EXPECT_EQ(ErrorOf(super), SplitError::kMalformed) << "nobody can tell the destination";
}

TEST(Splitter, RefusesHeadersThatContradictThePacket) {
  const PacketSpec spec{.payload = Packet(3000, 1)};
  const auto good = test::BuildSuper(spec, 1000);
  ASSERT_EQ(ErrorOf(good), SplitError::kNone);
  const auto expect_refused = [&](const char* what, auto change) {
    SuperPacket bad = good;
    change(bad);
    EXPECT_EQ(ErrorOf(bad), SplitError::kMalformed) << what;
  };
  expect_refused("no bytes", [](SuperPacket& s) { s.packet.clear(); });
  expect_refused("gso_size 0", [](SuperPacket& s) { s.header.segment_bytes = 0; });
  expect_refused("csum_start past the end", [](SuperPacket& s) { s.header.checksum_start = 60000; });
  expect_refused("csum_start elsewhere", [](SuperPacket& s) { s.header.checksum_start = 24; });
  expect_refused("csum_offset of UDP", [](SuperPacket& s) { s.header.checksum_offset = 6; });
  expect_refused("version 5", [](SuperPacket& s) { s.packet[0] = 0x55; });
  expect_refused("version 6 with IPv4 bytes", [](SuperPacket& s) { s.packet[0] = 0x65; });
  expect_refused("IHL 4", [](SuperPacket& s) { s.packet[0] = 0x44; });
  expect_refused("IHL past the end", [](SuperPacket& s) {
    s.packet.resize(40);
    test::Put16(s.packet, 2, 40);
    s.packet[0] = 0x4f;
  });
  expect_refused("TCP data offset 4", [](SuperPacket& s) { s.packet[32] = 0x40; });
  expect_refused("TCP header past the end", [](SuperPacket& s) {
    s.packet.resize(40);
    test::Put16(s.packet, 2, 40);
    s.packet[32] = 0xf0;
  });
  expect_refused("TCP header cut off", [](SuperPacket& s) {
    s.packet.resize(39);
    test::Put16(s.packet, 2, 39);
  });
  expect_refused("length field too small", [](SuperPacket& s) { test::Put16(s.packet, 2, 1000); });
  expect_refused("length field too large", [](SuperPacket& s) { test::Put16(s.packet, 2, 65535); });
  expect_refused("TCP6 on IPv4", [](SuperPacket& s) { s.header.gso_type = kVirtioGsoTcp6; });
  expect_refused("USO on TCP", [](SuperPacket& s) { s.header.gso_type = kVirtioGsoUdpL4; });
  expect_refused("TCP4 on UDP", [](SuperPacket& s) { s.packet[9] = 17; });
  expect_refused("the old UFO", [](SuperPacket& s) { s.header.gso_type = 3; });
  expect_refused("an unknown type", [](SuperPacket& s) { s.header.gso_type = 0x21; });
  expect_refused("ECN alone", [](SuperPacket& s) { s.header.gso_type = kVirtioGsoEcn; });
  expect_refused("a fragment", [](SuperPacket& s) { s.packet[6] = 0x20; });

  PacketSpec udp_spec{.is_tcp = false, .payload = Packet(3000, 1)};
  SuperPacket udp = test::BuildSuper(udp_spec, 1000);
  ASSERT_EQ(ErrorOf(udp), SplitError::kNone);
  udp.header.gso_type |= kVirtioGsoEcn;
  EXPECT_EQ(ErrorOf(udp), SplitError::kMalformed) << "ECN with USO";

  PacketSpec long_spec{.is_v6 = true, .payload = Packet(3000, 1)};
  long_spec.ip_extra_type = 60;
  long_spec.ip_extra.assign(256, 0);
  long_spec.ip_extra[0] = 6;
  long_spec.ip_extra[1] = 31;
  EXPECT_EQ(ErrorOf(test::BuildSuper(long_spec, 1000)), SplitError::kMalformed) << "head longer than kMaxHeadBytes";
}

TEST(Splitter, RefusesAChecksumOutsideASinglePacket) {
  const PacketSpec spec{.payload = Packet(10, 1)};
  auto good = test::BuildSuper(spec, 0);
  good.header.gso_type = kVirtioGsoNone;
  ASSERT_EQ(ErrorOf(good), SplitError::kNone);
  for (const auto& [start, offset] : std::initializer_list<std::pair<unsigned, unsigned>>{
           {0, 16}, {19, 16}, {20, 6}, {20, 49}, {20, 65535}, {49, 0}, {65535, 65535}, {50, 0}}) {
    auto bad = good;
    bad.header.checksum_start = static_cast<std::uint16_t>(start);
    bad.header.checksum_offset = static_cast<std::uint16_t>(offset);
    EXPECT_EQ(ErrorOf(bad), SplitError::kMalformed) << start << " + " << offset;
  }
}

// S22: whatever stands in front of and in a packet, nothing outside it is touched (ASan sees it) and what comes out
// holds together.
TEST(Splitter, SurvivesAnyHeaderAndAnyBytes) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  int accepted = 0;
  for (int i = 0; i < 40000; ++i) {
    PacketSpec spec = RandomSpec(random);
    spec.payload = test::RandomPayload(random, random.Below(300));
    auto super = test::BuildSuper(
        spec, static_cast<std::uint16_t>(random.Below(4) == 0 ? random.NextU32() : 1 + random.Below(99)));
    const auto raw = reinterpret_cast<std::uint8_t*>(&super.header);
    for (std::uint32_t n = random.Below(3); n > 0; --n)
      raw[random.Below(10)] = static_cast<std::uint8_t>(random.NextU32());
    for (std::uint32_t n = random.Below(3); n > 0; --n) {
      super.packet[random.Below(static_cast<std::uint32_t>(std::min<std::size_t>(super.packet.size(), 80)))] =
          static_cast<std::uint8_t>(random.NextU32());
    }
    if (random.Below(3) == 0) super.packet.resize(random.Below(static_cast<std::uint32_t>(super.packet.size())));
    super.packet.shrink_to_fit();  // so that ASan guards its very end
    Splitter splitter(super.header, super.packet);
    if (splitter.error() != SplitError::kNone) continue;
    ++accepted;
    std::size_t count = 0;
    std::size_t bytes = 0;
    std::size_t head = 0;
    while (const auto segment = splitter.Next()) {
      ++count;
      head = segment->head.size();
      bytes += segment->body.size();
      ASSERT_LE(segment->size(), splitter.max_segment_bytes());
    }
    ASSERT_EQ(count, splitter.segment_count());
    ASSERT_EQ(head + bytes, super.packet.size());
  }
  EXPECT_GT(accepted, 4000) << "the mutations should leave enough that passes";
}

}  // namespace
}  // namespace adit
