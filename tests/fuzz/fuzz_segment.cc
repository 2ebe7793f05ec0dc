// Grouping datagrams into runs. First byte: segments per run; then per datagram: a byte whose bits choose endpoint, TOS
// and whether a gap follows in memory, and two bytes of length.
//
// Holds: cutting the runs gives back the same datagrams, in order, each to its endpoint with its TOS; every run keeps
// its bounds.
#include <algorithm>
#include <array>
#include <vector>

#include "fuzz/input.h"
#include "udp/segment.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  static constexpr std::size_t kMaxDatagrams = 1024;
  static std::vector<std::uint8_t> memory(kMaxDatagrams * 2048);
  std::array<Endpoint, 4> endpoints;
  for (std::size_t i = 0; i < endpoints.size(); ++i) endpoints[i].remote.port = static_cast<std::uint16_t>(i);

  FuzzInput input(data, size);
  const std::size_t max_segments = 1 + input.TakeByte() % kMaxGsoSegments;
  std::vector<OutgoingDatagram> datagrams;
  std::size_t at = 0;
  while (!input.empty() && datagrams.size() < kMaxDatagrams) {
    const std::uint8_t choice = input.TakeByte();
    const std::size_t bytes = 1 + input.TakeU16() % 2000;
    datagrams.push_back({.data = Bytes(memory).subspan(at, bytes),
                         .to = &endpoints[choice & 3],
                         .tos = static_cast<std::uint8_t>(choice >> 2 & 3)});
    at += bytes + ((choice & 16) ? 1 : 0);
  }

  std::vector<SendRun> runs;
  GroupDatagrams(datagrams, max_segments, runs);
  std::size_t next = 0;
  for (const SendRun& run : runs) {
    CHECK(run.segment_bytes > 0 && !run.data.empty());
    const std::size_t count = DatagramCount(run.data.size(), run.segment_bytes);
    CHECK(count <= max_segments);
    CHECK(run.data.size() <= kMaxGsoBytes || count == 1);
    for (std::size_t i = 0; i < count; ++i, ++next) {
      const std::size_t from = i * run.segment_bytes;
      const Bytes datagram = run.data.subspan(from, std::min(run.segment_bytes, run.data.size() - from));
      CHECK(next < datagrams.size());
      CHECK(datagram.data() == datagrams[next].data.data() && datagram.size() == datagrams[next].data.size());
      CHECK(run.to == *datagrams[next].to && run.tos == datagrams[next].tos);
    }
  }
  CHECK(next == datagrams.size());
  return 0;
}
