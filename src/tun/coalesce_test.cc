#include "tun/coalesce.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <random>

#include "tun/split.h"
#include "tun/test_packet.h"

namespace adit {
namespace {

using test::Packet;
using test::PacketSpec;

struct Written {
  VirtioHeader header;
  Packet packet;
  std::size_t packet_count = 0;
};

// Runs one batch; the input packets are copied, so that the caller can compare with them.
std::vector<Written> Coalesce(Coalescer& coalescer, std::vector<Packet> packets) {
  for (Packet& packet : packets) coalescer.Add(packet);
  std::vector<Written> writes;
  for (const TunWrite& write : coalescer.Finish()) {
    Written one{.header = write.header, .packet = {}, .packet_count = write.packet_count};
    for (const iovec& part : write.parts) {
      const auto* from = static_cast<const std::uint8_t*>(part.iov_base);
      one.packet.insert(one.packet.end(), from, from + part.iov_len);
    }
    EXPECT_EQ(one.packet.size(), write.bytes);
    EXPECT_LE(write.parts.size(), kMaxWriteParts);
    writes.push_back(std::move(one));
  }
  coalescer.Clear();
  return writes;
}

std::vector<Written> Coalesce(std::vector<Packet> packets, CoalesceOptions options = {}) {
  Coalescer coalescer(options);
  return Coalesce(coalescer, std::move(packets));
}

std::vector<std::size_t> Counts(const std::vector<Written>& writes) {
  std::vector<std::size_t> counts;
  for (const Written& write : writes) counts.push_back(write.packet_count);
  return counts;
}

// The way back, as the kernel would go it.
std::vector<Packet> SplitAll(std::vector<Written> writes) {
  std::vector<Packet> packets;
  for (Written& write : writes) {
    Splitter splitter(write.header, write.packet);
    EXPECT_EQ(splitter.error(), SplitError::kNone);
    EXPECT_EQ(splitter.segment_count(), write.packet_count);
    while (const auto segment = splitter.Next()) {
      packets.emplace_back(segment->head.begin(), segment->head.end());
      packets.back().insert(packets.back().end(), segment->body.begin(), segment->body.end());
    }
  }
  return packets;
}

PacketSpec After(PacketSpec spec, std::size_t payload_bytes) {
  spec.sequence += static_cast<std::uint32_t>(spec.payload.size());
  spec.id += 1;
  spec.payload.assign(payload_bytes, 0x5a);
  return spec;
}

// `count` packets of one flow as a sender's TSO would cut them.
std::vector<PacketSpec> Train(PacketSpec first, std::size_t count) {
  std::vector<PacketSpec> specs{first};
  while (specs.size() < count) specs.push_back(After(specs.back(), first.payload.size()));
  return specs;
}

std::vector<Packet> BuildAll(const std::vector<PacketSpec>& specs) {
  std::vector<Packet> packets;
  for (const PacketSpec& spec : specs) packets.push_back(test::Build(spec));
  return packets;
}

const Packet kThousand(1000, 0x42);

PacketSpec Data(bool is_v6 = false, bool is_tcp = true, std::uint8_t flow = 1) {
  PacketSpec spec;
  spec.is_v6 = is_v6;
  spec.is_tcp = is_tcp;
  spec.flow = flow;
  spec.payload = kThousand;
  return spec;
}

using Counted = std::vector<std::size_t>;

TEST(Coalescer, MergesATrainOfEachKindIntoOneSuperPacketThatSplitsBack) {
  for (const bool is_v6 : {false, true}) {
    for (const bool is_tcp : {false, true}) {
      auto specs = Train(Data(is_v6, is_tcp), 40);
      specs.push_back(After(specs.back(), 333));
      if (is_tcp) specs.back().flags |= 0x08;
      const auto packets = BuildAll(specs);
      const auto writes = Coalesce(packets);
      ASSERT_EQ(Counts(writes), Counted{41});
      const VirtioHeader& header = writes[0].header;
      EXPECT_EQ(header.flags, kVirtioNeedsChecksum);
      EXPECT_EQ(header.gso_type, !is_tcp ? kVirtioGsoUdpL4 : is_v6 ? kVirtioGsoTcp6 : kVirtioGsoTcp4);
      EXPECT_EQ(header.segment_bytes, 1000);
      EXPECT_EQ(header.checksum_start, is_v6 ? 40 : 20);
      EXPECT_EQ(header.checksum_offset, is_tcp ? 16 : 6);
      EXPECT_EQ(header.header_bytes, header.checksum_start + (is_tcp ? 20 : 8));
      // The checksum field holds the pseudo-header's sum of the whole, the IPv4 header's checksum is right.
      EXPECT_EQ(test::Get16(writes[0].packet, header.checksum_start + std::size_t{header.checksum_offset}),
                test::NaivePseudoSum(writes[0].packet, is_tcp, header.checksum_start));
      if (!is_v6) {
        EXPECT_EQ(test::NaiveSum(Bytes(writes[0].packet).first(20)), 0xffffu);
      }
      EXPECT_EQ(SplitAll(writes), packets);
    }
  }
}

TEST(Coalescer, LeavesALonePacketAsItCame) {
  const auto packets = BuildAll({Data()});
  const auto writes = Coalesce(packets);
  ASSERT_EQ(writes.size(), 1u);
  EXPECT_EQ(writes[0].packet, packets[0]);
  EXPECT_EQ(writes[0].header.gso_type, kVirtioGsoNone);
  EXPECT_EQ(writes[0].header.flags, 0);
}

TEST(Coalescer, WritesEverythingSinglyWhereTheDeviceTakesNoSuperPackets) {
  const auto tcp = BuildAll(Train(Data(), 3));
  const auto udp = BuildAll(Train(Data(false, false), 3));
  EXPECT_EQ(Counts(Coalesce(tcp, {.tcp = false, .udp = true})), (Counted{1, 1, 1}));
  EXPECT_EQ(Counts(Coalesce(udp, {.tcp = false, .udp = true})), (Counted{3}));
  EXPECT_EQ(Counts(Coalesce(udp, {.tcp = true, .udp = false})), (Counted{1, 1, 1}));
  EXPECT_EQ(Counts(Coalesce(tcp, {.tcp = true, .udp = false})), (Counted{3}));
  Coalescer coalescer({});
  coalescer.set_options({.tcp = false, .udp = false});
  EXPECT_EQ(Counts(Coalesce(coalescer, tcp)), (Counted{1, 1, 1}));
}

// Each row changes the middle one of three packets so that it must not join the first; `counts` is what comes out.
struct BreakingRule {
  const char* what;
  std::function<void(PacketSpec&)> change;
  Counted counts;
  bool tcp = true, udp = true, v4 = true, v6 = true;
};

TEST(Coalescer, EndsARunByEachRule) {
  const BreakingRule rules[] = {
      {.what = "another TOS", .change = [](PacketSpec& s) { s.tos = 0xb8; }, .counts = {1, 1, 1}},
      {.what = "another ECN mark", .change = [](PacketSpec& s) { s.tos = 3; }, .counts = {1, 1, 1}},
      {.what = "another TTL", .change = [](PacketSpec& s) { s.ttl = 63; }, .counts = {1, 1, 1}},
      {.what = "another flow label",
       .change = [](PacketSpec& s) { s.flow_label = 5; },
       .counts = {1, 1, 1},
       .v4 = false},
      {.what = "another DF",
       .change = [](PacketSpec& s) { s.dont_fragment = false; },
       .counts = {1, 1, 1},
       .v6 = false},
      {.what = "a jump of the id", .change = [](PacketSpec& s) { s.id += 7; }, .counts = {1, 1, 1}, .v6 = false},
      {.what = "a fragment",
       .change = [](PacketSpec& s) { s.more_fragments = true; },
       .counts = {1, 1, 1},
       .v6 = false},
      {.what = "IPv4 options",
       .change = [](PacketSpec& s) { s.ip_extra = {1, 1, 1, 1}; },
       .counts = {1, 1, 1},
       .v6 = false},
      {.what = "an IPv6 extension header",
       .change =
           [](PacketSpec& s) {
             s.ip_extra_type = 60;
             s.ip_extra = {static_cast<std::uint8_t>(s.is_tcp ? 6 : 17), 0, 1, 4, 0, 0, 0, 0};
           },
       .counts = {1, 1, 1},
       .v4 = false},
      {.what = "a gap", .change = [](PacketSpec& s) { s.sequence += 1; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "an overlap", .change = [](PacketSpec& s) { s.sequence -= 1; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "another acknowledgement",
       .change = [](PacketSpec& s) { s.acknowledgement += 1; },
       .counts = {1, 1, 1},
       .udp = false},
      {.what = "another window", .change = [](PacketSpec& s) { s.window += 1; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "another urgent pointer",
       .change = [](PacketSpec& s) { s.urgent = 1; },
       .counts = {1, 1, 1},
       .udp = false},
      {.what = "another reserved bit",
       .change = [](PacketSpec& s) { s.reserved = 1; },
       .counts = {1, 1, 1},
       .udp = false},
      {.what = "another timestamp",
       .change = [](PacketSpec& s) { s.tcp_options = {1, 1, 8, 10, 0, 0, 0, 2, 0, 0, 0, 9}; },
       .counts = {1, 1, 1},
       .udp = false},
      {.what = "no options", .change = [](PacketSpec& s) { s.tcp_options.clear(); }, .counts = {1, 1, 1}, .udp = false},
      {.what = "ECE", .change = [](PacketSpec& s) { s.flags |= 0x40; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "CWR", .change = [](PacketSpec& s) { s.flags |= 0x80; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "FIN", .change = [](PacketSpec& s) { s.flags |= 0x01; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "SYN", .change = [](PacketSpec& s) { s.flags |= 0x02; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "RST", .change = [](PacketSpec& s) { s.flags |= 0x04; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "URG", .change = [](PacketSpec& s) { s.flags |= 0x20; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "no ACK", .change = [](PacketSpec& s) { s.flags = 0; }, .counts = {1, 1, 1}, .udp = false},
      {.what = "PSH", .change = [](PacketSpec& s) { s.flags |= 0x08; }, .counts = {2, 1}, .udp = false},
      {.what = "a shorter one", .change = [](PacketSpec& s) { s.payload.resize(999); }, .counts = {2, 1}},
      {.what = "a longer one", .change = [](PacketSpec& s) { s.payload.resize(1001); }, .counts = {1, 2}},
      {.what = "no payload", .change = [](PacketSpec& s) { s.payload.clear(); }, .counts = {1, 1, 1}},
      {.what = "no UDP checksum",
       .change = [](PacketSpec& s) { s.zero_udp_checksum = true; },
       .counts = {1, 1, 1},
       .tcp = false},
  };
  for (const BreakingRule& rule : rules) {
    for (const bool is_v6 : {false, true}) {
      for (const bool is_tcp : {false, true}) {
        if (!(is_v6 ? rule.v6 : rule.v4) || !(is_tcp ? rule.tcp : rule.udp)) continue;
        SCOPED_TRACE(fmt::format("{} {} {}", rule.what, is_v6 ? "v6" : "v4", is_tcp ? "TCP" : "UDP"));
        PacketSpec first = Data(is_v6, is_tcp);
        first.tcp_options = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 9};
        auto specs = Train(first, 3);
        rule.change(specs[1]);
        if (rule.counts == Counted{1, 2})
          specs[2].sequence += 1;  // a longer one begins the next run, ended by the third
        if (specs[1].payload.size() == 999) specs[2].sequence -= 1;
        const auto packets = BuildAll(specs);
        const auto writes = Coalesce(packets);
        EXPECT_EQ(Counts(writes), rule.counts);
        EXPECT_EQ(SplitAll(writes), packets) << "order or content changed";
      }
    }
  }
}

TEST(Coalescer, WritesAPacketWithABadChecksumAloneAndAsItIs) {
  for (const bool is_v6 : {false, true}) {
    for (const bool is_tcp : {false, true}) {
      for (std::size_t bad = 0; bad < 4; ++bad) {
        SCOPED_TRACE(fmt::format("{} {} packet {}", is_v6 ? "v6" : "v4", is_tcp ? "TCP" : "UDP", bad));
        auto packets = BuildAll(Train(Data(is_v6, is_tcp), 4));
        packets[bad].back() ^= 1;
        const auto writes = Coalesce(packets);
        const Counted expected[] = {{1, 3}, {1, 1, 2}, {2, 1, 1}, {3, 1}};
        EXPECT_EQ(Counts(writes), expected[bad]);
        EXPECT_EQ(SplitAll(writes), packets);
      }
    }
  }
}

TEST(Coalescer, WritesAPacketWithABadIpv4HeaderChecksumAlone) {
  for (std::size_t bad = 0; bad < 3; ++bad) {
    auto packets = BuildAll(Train(Data(), 3));
    packets[bad][10] ^= 1;
    const auto writes = Coalesce(packets);
    const Counted expected[] = {{1, 2}, {1, 1, 1}, {2, 1}};
    EXPECT_EQ(Counts(writes), expected[bad]);
    EXPECT_EQ(SplitAll(writes), packets);
  }
}

TEST(Coalescer, AcceptsAConstantIdWithDontFragmentOnly) {
  auto specs = Train(Data(), 4);
  for (auto& spec : specs) spec.id = 0;
  EXPECT_EQ(Counts(Coalesce(BuildAll(specs))), Counted{4});
  for (auto& spec : specs) spec.dont_fragment = false;
  EXPECT_EQ(Counts(Coalesce(BuildAll(specs))), (Counted{1, 1, 1, 1}));
}

TEST(Coalescer, DoesNotMixAConstantAndACountingId) {
  auto specs = Train(Data(), 4);
  specs[1].id = specs[0].id;
  EXPECT_EQ(Counts(Coalesce(BuildAll(specs))), (Counted{2, 2}));
  specs = Train(Data(), 4);
  specs[2].id = specs[3].id = specs[1].id;
  EXPECT_EQ(Counts(Coalesce(BuildAll(specs))), (Counted{2, 2}));
}

TEST(Coalescer, CountsIdAndSequenceAcrossTheirWrap) {
  PacketSpec first = Data();
  first.id = 0xfffe;
  first.sequence = 0xfffffc00;
  const auto packets = BuildAll(Train(first, 5));
  const auto writes = Coalesce(packets);
  EXPECT_EQ(Counts(writes), Counted{5});
  EXPECT_EQ(SplitAll(writes), packets);
}

TEST(Coalescer, MergesWhatHasTheSameEceAndReservedBits) {
  PacketSpec first = Data();
  first.flags |= 0x40;
  first.reserved = 1;  // AE of accurate ECN
  const auto packets = BuildAll(Train(first, 3));
  EXPECT_EQ(SplitAll(Coalesce(packets)), packets);
  EXPECT_EQ(Counts(Coalesce(packets)), Counted{3});
}

TEST(Coalescer, KeepsInterleavedFlowsApartAndMergesEach) {
  std::vector<std::vector<PacketSpec>> flows;
  for (std::uint8_t flow = 0; flow < 8; ++flow) flows.push_back(Train(Data(flow % 2 == 0, flow % 4 < 2, flow), 5));
  std::vector<PacketSpec> specs;
  for (std::size_t i = 0; i < 5; ++i) {
    for (const auto& flow : flows) specs.push_back(flow[i]);
  }
  const auto writes = Coalesce(BuildAll(specs));
  EXPECT_EQ(Counts(writes), Counted(8, 5));
  std::vector<PacketSpec> by_flow;
  for (const auto& flow : flows) by_flow.insert(by_flow.end(), flow.begin(), flow.end());
  EXPECT_EQ(SplitAll(writes), BuildAll(by_flow)) << "the writes come in the order of their first packets";
}

TEST(Coalescer, EndsTheOldestRunBeyondTheBoundOfOpenFlows) {
  std::vector<PacketSpec> specs;
  for (std::size_t flow = 0; flow <= kMaxOpenFlows; ++flow) {
    specs.push_back(Data(false, true, static_cast<std::uint8_t>(flow)));
  }
  specs.push_back(After(Data(false, true, 1), 1000));  // the second oldest: still open
  specs.push_back(After(Data(false, true, 0), 1000));  // the oldest: was ended
  const auto writes = Coalesce(BuildAll(specs));
  ASSERT_EQ(writes.size(), kMaxOpenFlows + 2);
  EXPECT_EQ(writes[1].packet_count, 2u);
  EXPECT_EQ(writes[0].packet_count, 1u);
  EXPECT_EQ(writes.back().packet_count, 1u);
}

TEST(Coalescer, APureAckEndsItsOwnFlowOnly) {
  const auto one = Train(Data(false, true, 1), 4);
  const auto two = Train(Data(false, true, 2), 4);
  PacketSpec ack = After(one[1], 0);
  const std::vector<PacketSpec> specs{one[0], two[0], one[1], two[1], ack, two[2], one[2], one[3], two[3]};
  const auto writes = Coalesce(BuildAll(specs));
  EXPECT_EQ(Counts(writes), (Counted{2, 4, 1, 2}));
  EXPECT_EQ(SplitAll(writes), BuildAll({one[0], one[1], two[0], two[1], two[2], two[3], ack, one[2], one[3]}));
}

TEST(Coalescer, AnAckOfTheOtherDirectionEndsNothing) {
  const auto data = Train(Data(), 4);
  PacketSpec back = Data(false, true, 9);
  back.payload.clear();
  const auto writes = Coalesce(BuildAll({data[0], data[1], back, data[2], back, data[3]}));
  EXPECT_EQ(Counts(writes), (Counted{4, 1, 1}));
}

TEST(Coalescer, OtherProtocolsGoSinglyAndEndNothing) {
  auto specs = Train(Data(), 3);
  auto packets = BuildAll(specs);
  Packet icmp = packets[0];
  icmp[9] = 1;
  packets.insert(packets.begin() + 1, icmp);
  const auto writes = Coalesce(packets);
  EXPECT_EQ(Counts(writes), (Counted{3, 1}));
  EXPECT_EQ(writes[1].packet, icmp);
}

TEST(Coalescer, AFragmentEndsAllRunsSinceItsFlowCannotBeTold) {
  auto one = Train(Data(false, true, 1), 2);
  auto two = Train(Data(false, false, 2), 3);
  two[1].more_fragments = true;
  const auto packets = BuildAll({one[0], two[0], two[1], two[2], one[1]});
  const auto writes = Coalesce(packets);
  EXPECT_EQ(Counts(writes), (Counted{1, 1, 1, 1, 1}));
  EXPECT_EQ(SplitAll(writes), packets);
}

TEST(Coalescer, NeverExceedsTheLargestPacket) {
  for (const bool is_v6 : {false, true}) {
    PacketSpec first = Data(is_v6);
    first.payload.assign(1380, 1);
    const auto packets = BuildAll(Train(first, 120));
    const auto writes = Coalesce(packets);
    ASSERT_EQ(writes.size(), 3u);
    EXPECT_EQ(writes[0].packet_count, 47u);
    EXPECT_LE(writes[0].packet.size(), kMaxPacketBytes);
    EXPECT_EQ(SplitAll(writes), packets);
  }
}

TEST(Coalescer, NeverExceedsTheBoundOfParts) {
  PacketSpec first = Data();
  first.payload.assign(10, 1);
  const auto packets = BuildAll(Train(first, 300));
  const auto writes = Coalesce(packets);
  EXPECT_EQ(Counts(writes), (Counted{kMaxWriteParts, kMaxWriteParts, 300 - 2 * kMaxWriteParts}));
  EXPECT_EQ(SplitAll(writes), packets);
}

TEST(Coalescer, UndoesTheSplitterForRandomSuperPackets) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  for (int i = 0; i < 400; ++i) {
    PacketSpec spec = Data(random.Below(2) == 0, random.Below(2) == 0);
    spec.tos = static_cast<std::uint8_t>(random.NextU32());
    spec.ttl = static_cast<std::uint8_t>(random.NextU32());
    spec.id = static_cast<std::uint16_t>(random.NextU32());
    spec.sequence = random.NextU32();
    spec.tcp_options = test::RandomPayload(random, 4 * random.Below(11));
    if (random.Below(2) == 0) spec.flags |= 0x08;
    const auto segment_bytes = static_cast<std::uint16_t>(600 + random.Below(800));
    spec.payload = test::RandomPayload(random, segment_bytes + 1 + random.Below(60000));
    const auto super = test::BuildSuper(spec, segment_bytes);
    const auto writes = Coalesce(test::NaiveSplit(spec, segment_bytes));
    ASSERT_EQ(writes.size(), 1u);
    ASSERT_EQ(writes[0].packet, super.packet);
    ASSERT_EQ(std::memcmp(&writes[0].header, &super.header, sizeof(VirtioHeader)), 0);
  }
}

// Random traffic of many flows with all that breaks runs: what the kernel gets is, flow by flow, what came in.
TEST(Coalescer, KeepsEveryPacketAndTheOrderWithinEachFlow) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  Coalescer coalescer({});
  std::size_t merged = 0;
  for (int round = 0; round < 300; ++round) {
    const std::uint32_t flow_count = 1 + random.Below(round % 7 == 0 ? 60 : 6);
    std::map<std::uint32_t, PacketSpec> flows;
    std::vector<Packet> packets;
    std::map<std::uint32_t, std::vector<Packet>> expected;
    for (std::uint32_t n = 1 + random.Below(150); n > 0; --n) {
      const std::uint32_t flow = random.Below(flow_count);
      auto [at, is_new] = flows.try_emplace(flow, Data(flow % 2 == 0, flow % 3 != 0, static_cast<std::uint8_t>(flow)));
      PacketSpec& spec = at->second;
      spec.payload.resize(std::min<std::size_t>(spec.payload.size(), 200));
      if (!is_new) spec = After(spec, 200);
      PacketSpec sent = spec;
      switch (random.Below(20)) {
        case 0:
          sent.payload.resize(random.Below(200));
          break;
        case 1:
          sent.flags |= static_cast<std::uint8_t>(1u << random.Below(8));
          break;
        case 2:
          sent.acknowledgement += 1;
          break;
        case 3:
          sent.more_fragments = !sent.is_v6;
          break;
        case 4:
          sent.tos = 3;
          break;
        case 5:
          sent.sequence += 5;
          break;
        case 6:
          sent.zero_udp_checksum = true;
          break;
        default:
          break;
      }
      Packet packet = test::Build(sent);
      if (random.Below(30) == 0) packet.back() ^= 0x10;
      expected[flow].push_back(packet);
      packets.push_back(std::move(packet));
    }
    const auto writes = Coalesce(coalescer, packets);
    for (const Written& write : writes) merged += write.packet_count - 1;
    std::map<std::uint32_t, std::vector<Packet>> got;
    for (Packet& packet : SplitAll(writes)) {
      const std::uint32_t flow = packet[0] >> 4 == 6 ? packet[23] : packet[15];
      got[flow].push_back(std::move(packet));
    }
    ASSERT_EQ(got, expected) << "round " << round;
  }
  EXPECT_GT(merged, 3000u) << "the traffic should leave enough to merge";
}

// Not validated input: nothing outside the packets is touched, and every byte comes out as often as it went in.
TEST(Coalescer, SurvivesAnyBytes) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  Coalescer coalescer({});
  for (int round = 0; round < 2000; ++round) {
    std::vector<Packet> packets;
    for (auto& spec : Train(Data(random.Below(2) == 0, random.Below(2) == 0), 1 + random.Below(8))) {
      Packet packet = test::Build(spec);
      for (std::uint32_t n = random.Below(3); n > 0; --n)
        packet[random.Below(60)] = static_cast<std::uint8_t>(random.NextU32());
      if (random.Below(8) == 0) packet.resize(random.Below(static_cast<std::uint32_t>(packet.size())));
      packet.shrink_to_fit();
      packets.push_back(std::move(packet));
    }
    std::size_t count = 0;
    for (const Written& write : Coalesce(coalescer, packets)) count += write.packet_count;
    ASSERT_EQ(count, packets.size());
  }
}

TEST(Coalescer, KeepsItsMemoryFromBatchToBatch) {
  std::vector<Packet> batch;
  for (std::uint8_t flow = 0; flow < 3; ++flow) {
    for (auto& packet : BuildAll(Train(Data(flow == 0, flow != 2, flow), 40))) batch.push_back(std::move(packet));
  }
  const std::vector<Packet> pristine = batch;
  Coalescer coalescer({});
  std::vector<const void*> memory;
  for (int round = 0; round < 5; ++round) {
    for (std::size_t i = 0; i < batch.size(); ++i) std::ranges::copy(pristine[i], batch[i].begin());
    for (Packet& packet : batch) coalescer.Add(packet);
    const auto writes = coalescer.Finish();
    ASSERT_EQ(writes.size(), 3u);
    std::vector<const void*> now{writes.data()};
    for (const TunWrite& write : writes) now.push_back(write.parts.data());
    if (round > 0) {
      EXPECT_EQ(now, memory);
    }
    memory = now;
    coalescer.Clear();
  }
}

}  // namespace
}  // namespace adit
