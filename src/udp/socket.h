// The UDP sockets (door): one per address family on the same port, in batches. SO_MARK, sticky source by PKTINFO, ECN,
// GSO on send and GRO on receive, each with a run-time fallback. No error here ends a loop or loses a peer.
#pragma once

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"
#include "udp/segment.h"

namespace adit {

inline constexpr std::size_t kMaxDatagramBytes = 65535;
// The default of 212 KB costs 20 % of the throughput and 15,000 retransmits a run; 64 MB gains nothing over 16
// (measured).
inline constexpr int kSocketBufferBytes = 16 << 20;
// How long an offload that the kernel refused stays off before it is tried again: routes and devices change.
inline constexpr Duration kOffloadRetryAfter = 10min;
// Destinations whose path is too small for UDP_SEGMENT; beyond the bound the oldest entry gives way, which costs one
// refused send.
inline constexpr std::size_t kMaxRefusedPaths = 64;
// How long one Send() waits for room in a full socket buffer. It waits again only after progress.
inline constexpr int kSendWaitMilliseconds = 5;
inline constexpr int kMaxPortTries = 100;

// The index of the link that datagrams to an address leave by; 0: they do not leave. Empty: the routing table decides.
// Called on whatever thread sends.
using ChooseLink = std::function<std::optional<std::uint32_t>(const IpAddress& to)>;

struct UdpOptions {
  bool gso = true;  // UDP_SEGMENT
  bool gro = true;  // UDP_GRO
  bool ipv4 = true;
  bool ipv6 = true;          // without IPv6 in the kernel: IPv4 only, no error. The same the other way round
  ChooseLink choose_link{};  // none: the routing table decides
  // Called when an offload was switched off, with a sentence, on the thread that sent; may be empty.
  std::function<void(std::string_view)> on_degrade{};
};

// What became of a run. The data plane only needs to know what to tell the peer's state.
struct SendOutcome {
  std::size_t datagrams_sent = 0;
  bool clear_source = false;  // the kernel refused the sticky source; it went out without: forget it
  int error = 0;              // the errno value of the last datagram that could not be sent, 0 if none
};

enum class SocketFamily : std::uint8_t { kV4, kV6 };

// The system calls behind the sockets, so that a caller can stand in a kernel that answers differently.
struct UdpSyscalls {
  int (*socket)(int, int, int) = ::socket;
  int (*setsockopt)(int, int, int, const void*, socklen_t) = ::setsockopt;
  int (*bind)(int, const sockaddr*, socklen_t) = ::bind;
  ssize_t (*sendmsg)(int, const msghdr*, int) = ::sendmsg;
  int (*sendmmsg)(int, mmsghdr*, unsigned, int) = ::sendmmsg;
  int (*recvmmsg)(int, mmsghdr*, unsigned, int, timespec*) = ::recvmmsg;
  int (*poll)(pollfd*, nfds_t, int) = ::poll;
};

// A pair of sockets. Immutable but for its mark and for what it learns about offloads; all members are thread-safe.
// Rebinding makes a new pair.
class UdpSockets {
 public:
  // Binds both families to `port`; 0 = any port that is free in both (up to kMaxPortTries). Error.code is the errno
  // value: EADDRINUSE, EPERM for the mark. Nothing stays open on failure.
  static Result<std::shared_ptr<UdpSockets>> Open(std::uint16_t port, std::uint32_t fwmark, const UdpOptions& options,
                                                  const UdpSyscalls& syscalls = {});

  std::uint16_t port() const { return port_; }
  int fd(SocketFamily family) const;  // -1 without that family; non-blocking; for epoll
  // All datagrams from now on. On failure (EPERM) both sockets keep the mark they had.
  Status SetMark(std::uint32_t fwmark);

  // Sends all runs, in order; `now` drives the re-probe of offloads that were switched off. Returns when each datagram
  // was handed to the kernel or dropped; waits at most kSendWaitMilliseconds without progress. REQUIRES:
  // outcomes.size() == runs.size(); no outcome need be initialised.
  void Send(std::span<const SendRun> runs, Instant now, std::span<SendOutcome> outcomes);

  bool gso_enabled() const;
  bool gro_enabled() const { return gro_; }
  std::size_t max_gso_segments() const { return max_segments_.load(std::memory_order_relaxed); }
  // How often an offload was switched off, and what was said of the last time ("" if never).
  std::uint64_t degrade_count() const { return degrade_count_.load(std::memory_order_relaxed); }
  std::string last_degrade() const;
  const UdpSyscalls& syscalls() const { return syscalls_; }

 private:
  class SendCall;
  // A destination to which the kernel refused segments of this size or larger (EMSGSIZE).
  struct RefusedPath {
    IpAddress to;
    std::size_t segment_bytes = 0;
    Instant until;
  };

  UdpSockets(const UdpOptions& options, const UdpSyscalls& syscalls)
      : syscalls_(syscalls), choose_link_(options.choose_link), on_degrade_(options.on_degrade), gro_(options.gro) {}
  Status OpenPair(std::uint16_t port, std::uint32_t fwmark, const UdpOptions& options);
  Status OpenOne(SocketFamily family, std::uint16_t port, std::uint32_t fwmark, const UdpOptions& options);
  std::optional<std::uint32_t> LinkTo(const IpAddress& to) const {
    return choose_link_ ? choose_link_(to) : std::nullopt;
  }
  void ReprobeGso(Instant now);
  bool MaySegment(const SendRun& run, Instant now);
  void GsoRefused(int error, Instant now);
  void GsoRefusedOnPath(const SendRun& run, Instant now);
  void ManySegmentsRefused();
  void Degraded(std::string what);

  const UdpSyscalls syscalls_;
  const ChooseLink choose_link_;
  const std::function<void(std::string_view)> on_degrade_;
  std::array<Fd, 2> fds_;  // by SocketFamily
  std::uint16_t port_ = 0;
  bool gso_possible_ = false;  // wanted, and the kernel knows UDP_SEGMENT
  bool gro_;
  std::mutex mark_mutex_;
  std::uint32_t mark_ = 0;

  std::atomic<Instant::rep> gso_off_until_ = 0;  // 0: on
  std::atomic<std::size_t> max_segments_ = kMaxGsoSegments;
  std::atomic<std::size_t> refused_count_ = 0;  // lets the ordinary send pass without the lock
  std::atomic<std::uint64_t> degrade_count_ = 0;
  mutable std::mutex mutex_;          // for the two below
  std::vector<RefusedPath> refused_;  // at most kMaxRefusedPaths
  std::string last_degrade_;
};

// Writable bytes in front of and behind the data of every ReceivedRun: a virtio header goes in front, and a cipher may
// read a vector past the end.
inline constexpr std::size_t kReceiveHeadroom = 64;
inline constexpr std::size_t kReceiveTailroom = 64;
inline constexpr std::size_t kReceiveBuffers = 4;  // more than one call can use: 64 KiB each, measured to gain nothing

enum class ReceiveStatus {
  kOk,
  kWouldBlock,
  kError,  // last_error(); nothing was received. The socket stays usable: count it, go on, pause if it repeats
};

// Buffers for receiving, one per thread. Not thread-safe. Several may read from one socket at a time.
class UdpReceiver {
 public:
  explicit UdpReceiver(std::size_t buffers = kReceiveBuffers);

  // Receives up to as many runs as there are buffers. `runs` and what they point to are the caller's to scribble on,
  // with kReceiveHeadroom and kReceiveTailroom around each, until the next call. Empty datagrams are left out, so kOk
  // may come with no run.
  ReceiveStatus Receive(const UdpSockets& sockets, SocketFamily family, std::span<ReceivedRun>& runs);

  int last_error() const { return last_error_; }  // errno value of the last kError

 private:
  struct FreeArena {
    void operator()(std::uint8_t* arena) const;
  };

  std::unique_ptr<std::uint8_t[], FreeArena> arena_;
  std::vector<mmsghdr> headers_;
  std::vector<iovec> iovecs_;
  std::vector<sockaddr_storage> names_;
  std::vector<std::uint64_t> control_;  // kControlWords per buffer; 64-bit words for the alignment of cmsghdr
  std::vector<ReceivedRun> runs_;
  int last_error_ = 0;
};

}  // namespace adit
