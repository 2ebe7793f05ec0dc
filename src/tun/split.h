// Outbound step 2: cuts the super-packet of one TUN read into packets of the size that the segment hint asks for, and
// finishes checksums that the kernel left to us. Pure.
//
// TSO (IPv4 and IPv6) and USO, with IPv4 options and IPv6 extension headers. Per segment: lengths, IPv4 id (counting
// up, as the kernel's own segmentation does), TCP sequence number, FIN and PSH on the last only, CWR on the first only
// (RFC 3168 §6.1.2), checksums. The virtio header is input like any other: it is checked against a parse of the packet,
// hdr_len is not looked at. There is no bound on the number of segments but the packet's bytes: a tiny MSS gives many.
#pragma once

#include <optional>

#include "base/bytes.h"
#include "tun/checksum.h"
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
// Any header and any bytes are safe. A packet without offload work is passed on whole, looked at for its version only.
class Splitter {
 public:
  Splitter(const VirtioHeader& header, MutableBytes packet);

  SplitError error() const { return error_; }
  std::size_t segment_count() const { return segment_count_; }  // at least 1 unless there is an error
  // The largest segment, head included; all but the last have this size.
  std::size_t max_segment_bytes() const;
  // The next segment, in order. Its head lives in this Splitter and holds until the next call; its checksums are final.
  // The caller may overwrite bytes of earlier bodies (and the original headers) before it asks for the next one.
  std::optional<Segment> Next();

 private:
  SplitError CompleteChecksum(const VirtioHeader& header);
  SplitError PrepareSegments(const VirtioHeader& header);

  MutableBytes packet_;
  SplitError error_ = SplitError::kMalformed;
  std::size_t segment_count_ = 0;
  std::size_t next_ = 0;  // index of the segment that Next() returns

  // Constant after construction; only used when the packet is cut (head_bytes_ > 0).
  std::size_t head_bytes_ = 0;
  std::size_t transport_start_ = 0;
  std::size_t segment_bytes_ = 0;  // payload of all segments but the last
  bool is_v6_ = false;
  bool is_tcp_ = false;
  std::uint8_t tcp_flags_ = 0;
  std::uint16_t first_id_ = 0;
  std::uint32_t first_sequence_ = 0;
  WordSum ip_sum_ = 0;         // IPv4 header without what changes: total length, id, checksum
  WordSum transport_sum_ = 0;  // pseudo-header without the length, transport header without what changes

  ByteArray<kMaxHeadBytes> head_;  // the headers; Next() rewrites what changes
};

}  // namespace adit
