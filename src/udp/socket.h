// The UDP sockets (door): one per address family on the same port, in batches. SO_MARK, sticky source by PKTINFO, ECN,
// GSO on send and GRO on receive, each with a run-time fallback. No error here ends a loop or loses a peer.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"

namespace adit {

inline constexpr std::size_t kMaxDatagramBytes = 65535;
// Payload bytes of one UDP_SEGMENT send over IPv4 and IPv6, and segments in it (64 before Linux 6.9, 128 since; probed).
inline constexpr std::size_t kMaxGsoBytes = 65507;
inline constexpr int kSocketBufferBytes = 16 << 20;  // datapath-limit: 212 KB costs 20 % and 15,000 retransmits, 64 MB gains nothing

struct UdpOptions {
  bool gso = true;  // UDP_SEGMENT
  bool gro = true;  // UDP_GRO
  bool ipv4 = true;
  bool ipv6 = true;  // without IPv6 in the kernel: IPv4 only, no error
};

// What one receive call returned: one or more datagrams of one sender, each `segment_bytes` long but for a shorter last.
struct ReceivedRun {
  MutableBytes data;
  std::size_t segment_bytes = 0;  // > 0
  Endpoint from;                  // remote, and the local address and interface it was sent to
  std::uint8_t ecn = 0;           // the two ECN bits of the outer header
  bool truncated = false;         // larger than the buffer: drop it
};

// What one send call is to carry: one or more datagrams to one endpoint, each `segment_bytes` long but for a shorter last.
struct SendRun {
  Bytes data;
  std::size_t segment_bytes = 0;  // == data.size() for a single datagram
  Endpoint to;
  std::uint8_t tos = 0;
};

// What became of a run. The data plane only needs to know what to tell the peer's state.
struct SendOutcome {
  std::size_t datagrams_sent = 0;
  bool clear_source = false;  // the kernel refused the sticky source (EINVAL, EADDRNOTAVAIL...): it was retried without, forget it
  int error = 0;              // the errno value of the last datagram that could not be sent, 0 if none
};

enum class SocketFamily : std::uint8_t { kV4, kV6 };

// Buffers for receiving, one per thread.
class UdpReceiver;

// A pair of sockets. Immutable but for its mark; all sends are thread-safe. Rebinding makes a new pair.
class UdpSockets {
 public:
  // Binds both families to `port`; 0 = any port that is free in both (up to 100 tries). Error.code is the errno value: EADDRINUSE,
  // EPERM for the mark. Nothing stays open on failure.
  static Result<std::shared_ptr<UdpSockets>> Open(std::uint16_t port, std::uint32_t fwmark, const UdpOptions& options);

  std::uint16_t port() const;
  int fd(SocketFamily family) const;  // -1 without that family; non-blocking; for epoll
  Status SetMark(std::uint32_t fwmark);

  // Sends all runs; `now` drives the re-probe of offloads that were switched off. outcomes.size() == runs.size().
  void Send(std::span<const SendRun> runs, Instant now, std::span<SendOutcome> outcomes);

  bool gso_enabled() const;
  bool gro_enabled() const;
  std::size_t max_gso_segments() const;
  std::uint64_t degrade_count() const;
};

}  // namespace adit
