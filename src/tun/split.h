// Outbound step 2: cuts the super-packet of one TUN read into packets of the size that the segment hint asks for, and
// finishes checksums that the kernel left to us. Pure.
#pragma once

#include <optional>

#include "base/bytes.h"
#include "tun/virtio.h"

namespace adit {

// IPv4 or IPv6 header with options or extension headers, and a TCP header, at their longest that we split.
inline constexpr std::size_t kMaxHeadBytes = 256;

// One inner packet: `head` (may be empty) followed by `body`. The body stays where the TUN read put it.
struct Segment {
  Bytes head;
  MutableBytes body;
  std::size_t size() const { return head.size() + body.size(); }
};

enum class SplitError {
  kNone,
  kMalformed,  // header fields that contradict the packet: drop and count
};

// Splits one packet. Use: construct, check error(), then Next() until it is empty.
// Borrows `packet` and writes to it (checksums, and whatever the consumer of Next() does to earlier bodies).
class Splitter {
 public:
  Splitter(const VirtioHeader& header, MutableBytes packet);

  SplitError error() const { return error_; }
  std::size_t segment_count() const { return segment_count_; }  // at least 1 unless there is an error
  // The largest segment, head included; all but the last have this size.
  std::size_t max_segment_bytes() const;
  // The next segment, in order. Its head lives in this Splitter and holds until the next call; its checksums are final. The caller may
  // overwrite bytes of earlier bodies (and the original headers) before it asks for the next one.
  std::optional<Segment> Next();

 private:
  // private part: to be written with the implementation
  SplitError error_ = SplitError::kMalformed;
  std::size_t segment_count_ = 0;
};

}  // namespace adit
