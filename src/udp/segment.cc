#include "udp/segment.h"

#include <algorithm>

#include "base/check.h"

namespace adit {
namespace {

// Whether `next` may follow in `run`, whose datagrams so far all have its segment size.
bool Extends(const SendRun& run, const OutgoingDatagram& next, std::size_t max_segments) {
  const std::size_t bytes = run.data.size() + next.data.size();
  return run.data.data() + run.data.size() == next.data.data() && next.data.size() <= run.segment_bytes &&
         RunBytes(bytes, run.segment_bytes, max_segments) == bytes && run.tos == next.tos && run.to == *next.to;
}

}  // namespace

std::size_t RunBytes(std::size_t bytes, std::size_t segment_bytes, std::size_t max_segments) {
  CHECK(segment_bytes > 0);
  if (bytes <= kMaxGsoBytes && bytes <= segment_bytes * max_segments) return bytes;
  return std::min(bytes,
                  segment_bytes * std::max<std::size_t>(1, std::min(max_segments, kMaxGsoBytes / segment_bytes)));
}

void GroupDatagrams(std::span<const OutgoingDatagram> datagrams, std::size_t max_segments, std::vector<SendRun>& runs) {
  bool open = false;  // the last run may grow
  for (const OutgoingDatagram& datagram : datagrams) {
    CHECK(!datagram.data.empty());
    if (open && Extends(runs.back(), datagram, max_segments)) {
      SendRun& run = runs.back();
      run.data = Bytes(run.data.data(), run.data.size() + datagram.data.size());
      open = datagram.data.size() == run.segment_bytes;
      continue;
    }
    runs.push_back({datagram.data, datagram.data.size(), *datagram.to, datagram.tos});
    open = true;
  }
}

MutableBytes DatagramAt(const ReceivedRun& run, std::size_t index) {
  const std::size_t offset = index * run.segment_bytes;
  CHECK(offset < run.data.size());
  return run.data.subspan(offset, std::min(run.segment_bytes, run.data.size() - offset));
}

}  // namespace adit
