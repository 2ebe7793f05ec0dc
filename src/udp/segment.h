// Runs: several datagrams of equal size to (or from) one endpoint, which one system call carries with UDP_SEGMENT or
// UDP_GRO. Grouping datagrams into runs, and cutting runs into datagrams. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"

namespace adit {

// Payload bytes of one run. The kernel takes 65507 over IPv4 and 65527 over IPv6, but a device offloads only frames
// below 64 KiB: with the Ethernet, IP and UDP headers in front, 65494 bytes over IPv4 and 65474 over IPv6 are cut in
// software, and the receiver gets 46 datagrams where it could get one run (measured on Linux 6.18).
inline constexpr std::size_t kMaxGsoBytes = 65473;
// Segments of one run: 128 since Linux 6.9, 64 before. Which of them holds is learnt by sending.
inline constexpr std::size_t kMaxGsoSegments = 128;
inline constexpr std::size_t kMinGsoSegments = 64;

// What one receive call returned: one or more datagrams of one sender, each `segment_bytes` long but for a shorter
// last.
struct ReceivedRun {
  MutableBytes data;              // not empty; see UdpReceiver for how long it lives and what may be written around it
  std::size_t segment_bytes = 0;  // > 0
  Endpoint from;                  // remote, and the local address and interface it was sent to
  std::uint8_t ecn = 0;           // the two ECN bits of the outer header
  bool truncated = false;         // larger than the buffer, or its control data is incomplete: drop it
};

// What one send call is to carry: one or more datagrams to one endpoint, each `segment_bytes` long but for a shorter
// last. Longer than kMaxGsoBytes or than the segments one send may have is fine: Send() cuts it.
struct SendRun {
  Bytes data;
  std::size_t segment_bytes = 0;  // == data.size() for a single datagram
  Endpoint to;
  std::uint8_t tos = 0;  // DSCP and ECN of the outer header
};

// One datagram that waits to be grouped. `to` is borrowed.
struct OutgoingDatagram {
  Bytes data;  // not empty
  const Endpoint* to = nullptr;
  std::uint8_t tos = 0;
};

// Appends runs that hold all `datagrams` in their order. Neighbours share a run when their bytes are adjacent in
// memory, they go to the same endpoint with the same TOS, and all but the last have one size; a run keeps both limits
// above, with `max_segments` in the place of the second.
void GroupDatagrams(std::span<const OutgoingDatagram> datagrams, std::size_t max_segments, std::vector<SendRun>& runs);

// How many of the next `bytes`, cut every `segment_bytes`, one run can carry: all of them, or whole datagrams, at least
// one. REQUIRES: segment_bytes > 0.
std::size_t RunBytes(std::size_t bytes, std::size_t segment_bytes, std::size_t max_segments);

// How many datagrams a run of `bytes` holds. REQUIRES: segment_bytes > 0.
constexpr std::size_t DatagramCount(std::size_t bytes, std::size_t segment_bytes) {
  return (bytes + segment_bytes - 1) / segment_bytes;
}

// Datagram `index` of a received run. REQUIRES: index < DatagramCount(run.data.size(), run.segment_bytes).
MutableBytes DatagramAt(const ReceivedRun& run, std::size_t index);

}  // namespace adit
