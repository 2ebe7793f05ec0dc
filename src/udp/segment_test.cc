#include "udp/segment.h"

#include <gtest/gtest.h>

#include <array>
#include <random>

#include "base/random.h"

namespace adit {
namespace {

Endpoint To(std::uint16_t port) {
  Endpoint to;
  to.remote = *SocketAddress::Parse("192.0.2.1:1");
  to.remote.port = port;
  return to;
}

// Datagrams of `sizes`, one behind the other in `buffer`.
std::vector<OutgoingDatagram> Adjacent(Bytes buffer, const std::vector<std::size_t>& sizes, const Endpoint& to) {
  std::vector<OutgoingDatagram> datagrams;
  std::size_t offset = 0;
  for (const std::size_t size : sizes) {
    datagrams.push_back({buffer.subspan(offset, size), &to, 0});
    offset += size;
  }
  return datagrams;
}

// Size and segment size of each run.
using Shape = std::vector<std::pair<std::size_t, std::size_t>>;
Shape ShapeOf(const std::vector<SendRun>& runs) {
  Shape shape;
  for (const SendRun& run : runs) shape.emplace_back(run.data.size(), run.segment_bytes);
  return shape;
}

Shape Grouped(const std::vector<std::size_t>& sizes, std::size_t max_segments = kMaxGsoSegments) {
  static std::vector<std::uint8_t> buffer(1 << 20);
  const Endpoint to = To(1);
  std::vector<SendRun> runs;
  GroupDatagrams(Adjacent(buffer, sizes, to), max_segments, runs);
  return ShapeOf(runs);
}

TEST(Segment, ARunEndsWithItsFirstShorterDatagram) {
  EXPECT_EQ(Grouped({1452, 1452, 96, 96, 1452}), (Shape{{3000, 1452}, {96, 96}, {1452, 1452}}));
  EXPECT_EQ(Grouped({96, 1452}), (Shape{{96, 96}, {1452, 1452}}));
  EXPECT_EQ(Grouped({}), Shape{});
}

TEST(Segment, ASuperPacketIsOneRun) {
  std::vector<std::size_t> sizes(45, 1452);
  EXPECT_EQ(Grouped(sizes), (Shape{{std::size_t{45} * 1452, 1452}}));
  sizes.push_back(133);  // 45 * 1452 + 133 is the last that a device still offloads
  EXPECT_EQ(Grouped(sizes), (Shape{{kMaxGsoBytes, 1452}}));
  sizes.back() = 134;
  EXPECT_EQ(Grouped(sizes), (Shape{{std::size_t{45} * 1452, 1452}, {134, 134}}));
}

TEST(Segment, ARunKeepsTheNumberOfSegments) {
  const std::vector<std::size_t> sizes(130, 96);
  EXPECT_EQ(Grouped(sizes), (Shape{{std::size_t{128} * 96, 96}, {std::size_t{2} * 96, 96}}));
  EXPECT_EQ(Grouped(sizes, 64), (Shape{{std::size_t{64} * 96, 96}, {std::size_t{64} * 96, 96}, {192, 96}}));
  EXPECT_EQ(Grouped({96, 96}, 1), (Shape{{96, 96}, {96, 96}}));
}

TEST(Segment, ALargeDatagramStaysWhole) {
  EXPECT_EQ(Grouped({65507, 65507}), (Shape{{65507, 65507}, {65507, 65507}}));
  EXPECT_EQ(RunBytes(65507, 65507, 128), 65507u);
  EXPECT_EQ(RunBytes(2 * 65507, 65507, 128), 65507u);
  EXPECT_EQ(RunBytes(100'000, 1452, 128), 45u * 1452);
  EXPECT_EQ(RunBytes(kMaxGsoBytes, 1452, 128), kMaxGsoBytes);
  EXPECT_EQ(RunBytes(100'000, 100, 64), 6400u);
  EXPECT_EQ(RunBytes(6350, 100, 64), 6350u);
}

TEST(Segment, DifferentEndpointTosOrPlaceSeparates) {
  std::array<std::uint8_t, 500> buffer{};
  const Endpoint a = To(1);
  const Endpoint same_as_a = To(1);
  const Endpoint b = To(2);
  Endpoint other_source = To(1);
  other_source.source.ip = *IpAddress::Parse("192.0.2.9");
  const Bytes bytes(buffer);
  const std::vector<OutgoingDatagram> datagrams = {
      {bytes.subspan(0, 50), &a, 0},   {bytes.subspan(50, 50), &same_as_a, 0},
      {bytes.subspan(100, 50), &b, 0}, {bytes.subspan(150, 50), &b, 1},
      {bytes.subspan(201, 50), &b, 1}, {bytes.subspan(251, 50), &other_source, 1},
      {bytes.subspan(301, 50), &a, 1},
  };
  std::vector<SendRun> runs;
  GroupDatagrams(datagrams, kMaxGsoSegments, runs);
  EXPECT_EQ(ShapeOf(runs), (Shape{{100, 50}, {50, 50}, {50, 50}, {50, 50}, {50, 50}, {50, 50}}));
  EXPECT_EQ(runs[1].to, b);
  EXPECT_EQ(runs[2].tos, 1);
  EXPECT_EQ(runs[4].to, other_source);
}

TEST(Segment, RunsHoldExactlyTheDatagramsInTheirOrder) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  SeededRandom random(seed);
  static std::vector<std::uint8_t> buffer(1 << 21);
  random.Fill(buffer);
  const std::array<Endpoint, 2> endpoints = {To(1), To(2)};
  constexpr std::array<std::size_t, 5> kSizes = {32, 96, 700, 1452, 1453};

  for (int round = 0; round < 2000; ++round) {
    std::vector<OutgoingDatagram> datagrams;
    std::size_t offset = 0;
    for (std::uint32_t n = random.Below(200); n > 0; --n) {
      // Mostly like the one before, so that long runs occur.
      OutgoingDatagram next = datagrams.empty() ? OutgoingDatagram{{}, &endpoints[0], 0} : datagrams.back();
      std::size_t size = next.data.size();
      if (size == 0 || random.Below(20) == 0) size = kSizes[random.Below(kSizes.size())];
      if (random.Below(50) == 0) next.to = &endpoints[random.Below(2)];
      if (random.Below(50) == 0) next.tos = static_cast<std::uint8_t>(random.Below(4));
      if (random.Below(50) == 0) ++offset;
      next.data = Bytes(buffer).subspan(offset, size);
      offset += size;
      datagrams.push_back(next);
    }
    const std::size_t max_segments = random.Below(2) == 0 ? kMinGsoSegments : kMaxGsoSegments;
    std::vector<SendRun> runs;
    GroupDatagrams(datagrams, max_segments, runs);

    std::size_t next = 0;
    for (const SendRun& run : runs) {
      ASSERT_LE(run.data.size(), kMaxGsoBytes);
      ASSERT_LE(DatagramCount(run.data.size(), run.segment_bytes), max_segments);
      for (std::size_t at = 0; at < run.data.size(); at += run.segment_bytes, ++next) {
        ASSERT_LT(next, datagrams.size());
        const Bytes cut = run.data.subspan(at, std::min(run.segment_bytes, run.data.size() - at));
        ASSERT_EQ(cut.data(), datagrams[next].data.data());
        ASSERT_EQ(cut.size(), datagrams[next].data.size());
        ASSERT_EQ(run.to, *datagrams[next].to);
        ASSERT_EQ(run.tos, datagrams[next].tos);
      }
    }
    ASSERT_EQ(next, datagrams.size());
  }
}

TEST(Segment, CutsAReceivedRun) {
  std::array<std::uint8_t, 250> buffer{};
  ReceivedRun run;
  run.data = buffer;
  run.segment_bytes = 100;
  ASSERT_EQ(DatagramCount(run.data.size(), run.segment_bytes), 3u);
  EXPECT_EQ(DatagramAt(run, 0).size(), 100u);
  EXPECT_EQ(DatagramAt(run, 1).data(), buffer.data() + 100);
  EXPECT_EQ(DatagramAt(run, 2).size(), 50u);
  EXPECT_EQ(DatagramCount(200, 100), 2u);
  EXPECT_EQ(DatagramCount(1, 100), 1u);
  EXPECT_DEATH(DatagramAt(run, 3), "offset");
}

}  // namespace
}  // namespace adit
