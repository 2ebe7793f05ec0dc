#include "udp/socket.h"

#include <netinet/in.h>
#include <netinet/udp.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/check.h"

namespace adit {
namespace {

constexpr std::size_t Index(SocketFamily family) { return static_cast<std::size_t>(family); }
constexpr SocketFamily kFamilies[] = {SocketFamily::kV4, SocketFamily::kV6};
constexpr const char* Name(SocketFamily family) { return family == SocketFamily::kV4 ? "IPv4" : "IPv6"; }

SocketFamily FamilyOf(const IpAddress& ip) { return ip.is_v4() ? SocketFamily::kV4 : SocketFamily::kV6; }

bool SetOption(const UdpSyscalls& syscalls, int fd, int level, int option, int value) {
  return syscalls.setsockopt(fd, level, option, &value, sizeof value) == 0;
}

// Asks for kSocketBufferBytes. The first form ignores the administrator's limit and needs CAP_NET_ADMIN; the second is
// silently cut to net.core.{r,w}mem_max. With neither the sockets are only slower.
void SetBufferSize(const UdpSyscalls& syscalls, int fd, int force_option, int option) {
  if (!SetOption(syscalls, fd, SOL_SOCKET, force_option, kSocketBufferBytes)) {
    SetOption(syscalls, fd, SOL_SOCKET, option, kSocketBufferBytes);
  }
}

// What a failed send calls for. One table: what is not in it drops the message.
enum class SendAction {
  kRepeat,       // nothing was wrong with the message
  kWait,         // no room now
  kDropMessage,  // others of its run may pass
  kDropRun,      // the rest of the run would fail the same way
};

struct SendErrorRule {
  int error;
  SendAction action;
  // What else than the network may be at fault. A suspect is convicted only when the message passes without it: a
  // blackhole route also says EINVAL, and must cost us neither the offload nor the source.
  bool source = false;    // the sticky source: its address is gone, or no route leads from it
  bool segments = false;  // more than kMinGsoSegments of them
  bool gso = false;       // UDP_SEGMENT: no checksum offload (EIO), IPsec on the route, no kernel support
  bool path = false;      // segments larger than the path: UDP_SEGMENT never fragments, a plain send does
};

constexpr SendErrorRule kSendErrorRules[] = {
    {.error = EINTR, .action = SendAction::kRepeat},
    // A soft error of an earlier datagram, reported late and thereby cleared.
    {.error = ECONNREFUSED, .action = SendAction::kRepeat},
    {.error = EAGAIN, .action = SendAction::kWait},
    {.error = ENOBUFS, .action = SendAction::kWait},
    {.error = ENOMEM, .action = SendAction::kWait},
    {.error = EPERM, .action = SendAction::kDropMessage},  // a firewall rule, which may look at each datagram
    {.error = EMSGSIZE, .action = SendAction::kDropMessage, .path = true},
    {.error = EINVAL, .action = SendAction::kDropRun, .source = true, .segments = true, .gso = true},
    {.error = EIO, .action = SendAction::kDropRun, .gso = true},
    {.error = EOPNOTSUPP, .action = SendAction::kDropRun, .gso = true},
    {.error = ENOPROTOOPT, .action = SendAction::kDropRun, .gso = true},
    {.error = EADDRNOTAVAIL, .action = SendAction::kDropRun, .source = true},
    {.error = ENETUNREACH, .action = SendAction::kDropRun, .source = true},
    {.error = EHOSTUNREACH, .action = SendAction::kDropRun, .source = true},
    {.error = EACCES, .action = SendAction::kDropRun, .source = true},  // a prohibit rule or route
    {.error = ENODEV, .action = SendAction::kDropRun, .source = true},
    {.error = ENETDOWN, .action = SendAction::kDropRun},
};
static_assert(EAGAIN == EWOULDBLOCK && EOPNOTSUPP == ENOTSUP);

SendErrorRule RuleFor(int error) {
  const auto* rule = std::ranges::find(kSendErrorRules, error, &SendErrorRule::error);
  return rule != std::end(kSendErrorRules) ? *rule : SendErrorRule{.error = error, .action = SendAction::kDropMessage};
}

// How much of UDP_SEGMENT the message at the head of the queue is tried with.
enum class GsoAttempt { kAsAsked, kFewerSegments, kOff };

// One message for the kernel with everything it reads for it. It lives on the stack of one Send(), and no two messages
// share a destination: one that is reused or pooled sends to the wrong peer as soon as two threads or two families
// meet.
struct Message {
  sockaddr_storage to;
  alignas(cmsghdr) std::array<std::uint8_t, CMSG_SPACE(sizeof(in6_pktinfo)) + CMSG_SPACE(sizeof(int)) +
                                                CMSG_SPACE(sizeof(std::uint16_t))> control;
  iovec data;
  std::size_t segments;
};

// Writes control messages one after the other. The buffer is zeroed first: the kernel reads the padding between them.
class ControlWriter {
 public:
  ControlWriter(std::uint8_t* buffer, std::size_t capacity) : buffer_(buffer), capacity_(capacity) {
    std::memset(buffer, 0, capacity);
  }
  template <typename T>
  void Add(int level, int type, const T& value) {
    CHECK(used_ + CMSG_SPACE(sizeof(T)) <= capacity_);
    const cmsghdr header{.cmsg_len = CMSG_LEN(sizeof(T)), .cmsg_level = level, .cmsg_type = type};
    std::memcpy(buffer_ + used_, &header, sizeof header);
    std::memcpy(buffer_ + used_ + CMSG_LEN(0), &value, sizeof value);
    used_ += CMSG_SPACE(sizeof(T));
  }
  std::size_t used() const { return used_; }

 private:
  std::uint8_t* buffer_;
  std::size_t capacity_;
  std::size_t used_ = 0;
};

// The link that a run leaves by, where the routing table is not to decide.
using ForcedLink = std::optional<std::uint32_t>;

// The source goes in by address. The interface stays open, so that the routing table remains in charge and a datagram
// follows a route that moves, but where the two agree and are to stay together (Endpoint::holds_link; in IPv6 the
// kernel would not hold on to it). A link-local address means nothing without its interface.
void AddSource(ControlWriter& control, const Endpoint& to) {
  const IpAddress& source = to.source.ip;
  if (source.is_v4()) {
    in_pktinfo info{};
    std::memcpy(&info.ipi_spec_dst, source.bytes().data(), 4);
    if (to.holds_link) info.ipi_ifindex = static_cast<int>(to.source.interface_index);
    control.Add(IPPROTO_IP, IP_PKTINFO, info);
  } else {
    in6_pktinfo info{};
    std::memcpy(&info.ipi6_addr, source.bytes().data(), 16);
    if (to.remote.ip.is_v6_link_local() || source.is_v6_link_local()) info.ipi6_ifindex = to.source.interface_index;
    control.Add(IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
}

// A link goes in by number, with a source of its own. Only IPv4 takes both: told a source, IPv6 treats the link as no
// more than a wish (ip6_route_output), and the tunnel's routes would have the datagram.
void AddLink(ControlWriter& control, const Endpoint& to, std::uint32_t link, bool with_source) {
  if (to.remote.ip.is_v4()) {
    in_pktinfo info{};
    info.ipi_ifindex = static_cast<int>(link);
    if (with_source) std::memcpy(&info.ipi_spec_dst, to.source.ip.bytes().data(), 4);
    control.Add(IPPROTO_IP, IP_PKTINFO, info);
  } else {
    in6_pktinfo info{};
    info.ipi6_ifindex = link;
    control.Add(IPPROTO_IPV6, IPV6_PKTINFO, info);
  }
}

bool HasUsableSource(const Endpoint& to, const ForcedLink& link) {
  if (!to.source.is_set() || to.source.ip.is_v6() != to.remote.ip.is_v6()) return false;
  return !link || (to.remote.ip.is_v4() && to.source.interface_index == *link);
}

}  // namespace

// One call of Send(): a queue of runs, of which the kernel takes messages from the head. The position is the first byte
// not yet handed over; after any failure the messages are built anew from there, by what has been learnt.
class UdpSockets::SendCall {
 public:
  SendCall(UdpSockets& sockets, std::span<const SendRun> runs, Instant now, std::span<SendOutcome> outcomes)
      : sockets_(sockets), runs_(runs), now_(now), outcomes_(outcomes) {}

  void Run() {
    while (run_ < runs_.size()) {
      const std::size_t count = Fill();
      if (count == 0) continue;
      const int sent = Submit(count);
      if (sent > 0) {
        Advance(static_cast<std::size_t>(sent));
      } else {
        HandleError(sent < 0 ? errno : EIO);
      }
    }
  }

 private:
  // 45 datagrams of a super-packet that goes out singly fit in one call; the stack holds it (20 KiB).
  static constexpr std::size_t kMaxMessages = 64;
  // A bound for what should not happen twice.
  static constexpr int kMaxRepeats = 8;

  void NextRun() {
    ++run_;
    offset_ = 0;
    source_refused_ = false;
    NextMessage();
  }

  void NextMessage() {
    without_source_ = false;
    gso_ = GsoAttempt::kAsAsked;
    waited_ = false;
    repeats_ = 0;
  }

  // Builds messages from the position on, up to kMaxMessages of one family. Zero if it only passed over runs.
  std::size_t Fill() {
    const SocketFamily family = FamilyOf(runs_[run_].to.remote.ip);
    head_link_ = sockets_.LinkTo(runs_[run_].to.remote.ip);
    if (runs_[run_].data.empty() || sockets_.fd(family) < 0 || head_link_ == 0U) {
      if (!runs_[run_].data.empty()) outcomes_[run_].error = sockets_.fd(family) < 0 ? EAFNOSUPPORT : ENETUNREACH;
      NextRun();
      return 0;
    }
    fd_ = sockets_.fd(family);
    std::size_t count = FillFrom(run_, head_link_, 0);
    for (std::size_t run = run_ + 1; run < runs_.size() && count < kMaxMessages; ++run) {
      if (runs_[run].data.empty() || FamilyOf(runs_[run].to.remote.ip) != family) break;
      const ForcedLink link = sockets_.LinkTo(runs_[run].to.remote.ip);
      if (link == 0U) break;
      count = FillFrom(run, link, count);
    }
    return count;
  }

  std::size_t FillFrom(std::size_t run_index, const ForcedLink& link, std::size_t count) {
    const SendRun& run = runs_[run_index];
    CHECK(run.segment_bytes > 0);
    const bool is_head = run_index == run_;
    const bool with_source = HasUsableSource(run.to, link) && !(is_head && (source_refused_ || without_source_));
    const bool with_gso = sockets_.MaySegment(run, now_) && !(is_head && gso_ == GsoAttempt::kOff);
    const std::size_t max_segments =
        is_head && gso_ == GsoAttempt::kFewerSegments ? kMinGsoSegments : sockets_.max_gso_segments();
    for (std::size_t offset = is_head ? offset_ : 0; offset < run.data.size() && count < kMaxMessages; ++count) {
      const Bytes data =
          run.data.subspan(offset, RunBytes(run.data.size() - offset, run.segment_bytes, with_gso ? max_segments : 1));
      FillMessage(messages_[count], headers_[count].msg_hdr, run, data, link, with_source);
      offset += data.size();
    }
    return count;
  }

  static void FillMessage(Message& message, msghdr& header, const SendRun& run, Bytes data, const ForcedLink& link,
                          bool with_source) {
    ControlWriter control(message.control.data(), message.control.size());
    if (link) {
      AddLink(control, run.to, *link, with_source);
    } else if (with_source) {
      AddSource(control, run.to);
    }
    if (run.tos != 0) {
      const int tos = run.tos;
      const bool v4 = run.to.remote.ip.is_v4();
      control.Add(v4 ? IPPROTO_IP : IPPROTO_IPV6, v4 ? IP_TOS : IPV6_TCLASS, tos);
    }
    message.segments = DatagramCount(data.size(), run.segment_bytes);
    if (message.segments > 1) {
      control.Add(IPPROTO_UDP, UDP_SEGMENT, static_cast<std::uint16_t>(run.segment_bytes));
    }
    message.data = {const_cast<std::uint8_t*>(data.data()), data.size()};
    header = {};
    header.msg_name = &message.to;
    header.msg_namelen = run.to.remote.ToSockaddr(message.to);
    header.msg_iov = &message.data;
    header.msg_iovlen = 1;
    header.msg_control = control.used() > 0 ? message.control.data() : nullptr;
    header.msg_controllen = control.used();
  }

  // How many of the first `count` messages the kernel took, or -1 with errno for the first.
  int Submit(std::size_t count) {
    if (count > 1) {
      return sockets_.syscalls_.sendmmsg(fd_, headers_.data(), static_cast<unsigned>(count), MSG_NOSIGNAL);
    }
    return sockets_.syscalls_.sendmsg(fd_, &headers_[0].msg_hdr, MSG_NOSIGNAL) < 0 ? -1 : 1;
  }

  void Advance(std::size_t sent) {
    Convict();
    NextMessage();
    for (std::size_t i = 0; i < sent; ++i) {
      outcomes_[run_].datagrams_sent += messages_[i].segments;
      SkipHead(messages_[i]);
    }
  }

  void SkipHead(const Message& message) {
    offset_ += message.data.iov_len;
    if (offset_ >= runs_[run_].data.size()) NextRun();
  }

  // The head passed: whatever was left out of it is what the kernel had refused.
  void Convict() {
    if (without_source_) {
      source_refused_ = true;
      outcomes_[run_].clear_source = true;
    }
    if (gso_ == GsoAttempt::kFewerSegments) sockets_.ManySegmentsRefused();
    if (gso_ == GsoAttempt::kOff) {
      if (gso_error_ == EMSGSIZE) {
        sockets_.GsoRefusedOnPath(runs_[run_], now_);
      } else {
        sockets_.GsoRefused(gso_error_, now_);
      }
    }
  }

  void HandleError(int error) {
    const SendErrorRule rule = RuleFor(error);
    switch (rule.action) {
      case SendAction::kRepeat:
        if (++repeats_ <= kMaxRepeats) return;
        break;
      case SendAction::kWait:
        if (Wait()) return;
        break;
      case SendAction::kDropMessage:
      case SendAction::kDropRun:
        if (NextAttempt(rule)) return;
        break;
    }
    outcomes_[run_].error = error;
    if (rule.action == SendAction::kDropRun) {
      NextRun();
    } else {
      NextMessage();
      SkipHead(messages_[0]);
    }
  }

  // True if the head is worth another try. A socket that had no room for kSendWaitMilliseconds gets no more of this
  // call's time: the rest is offered once each and dropped, as a full network card would.
  bool Wait() {
    if (waited_ || !patient_) return false;
    waited_ = true;
    pollfd ready{.fd = fd_, .events = POLLOUT, .revents = 0};
    patient_ = sockets_.syscalls_.poll(&ready, 1, kSendWaitMilliseconds) != 0;
    return patient_;
  }

  // Leaves out the next thing that `rule` suspects: first the source, then more of UDP_SEGMENT with the source back in.
  // False if all of them were left out.
  bool NextAttempt(const SendErrorRule& rule) {
    if (!without_source_ && gso_ == GsoAttempt::kAsAsked) {
      asked_segments_ = messages_[0].segments;
      asked_source_ = HasUsableSource(runs_[run_].to, head_link_) && !source_refused_;
    }
    if (rule.source && asked_source_ && !without_source_) {
      without_source_ = true;
      return true;
    }
    if (rule.segments && asked_segments_ > kMinGsoSegments && gso_ == GsoAttempt::kAsAsked) {
      gso_ = GsoAttempt::kFewerSegments;
    } else if ((rule.gso || rule.path) && asked_segments_ > 1 && gso_ != GsoAttempt::kOff) {
      gso_ = GsoAttempt::kOff;
      gso_error_ = rule.error;
    } else {
      return false;
    }
    without_source_ = false;
    return true;
  }

  UdpSockets& sockets_;
  const std::span<const SendRun> runs_;
  const Instant now_;
  const std::span<SendOutcome> outcomes_;

  // The position.
  std::size_t run_ = 0;
  std::size_t offset_ = 0;
  int fd_ = -1;

  // Of the run at the position.
  ForcedLink head_link_;
  bool source_refused_ = false;
  // Of the message at the position: what is left out of it, and what it was asked with.
  bool without_source_ = false;
  GsoAttempt gso_ = GsoAttempt::kAsAsked;
  std::size_t asked_segments_ = 0;
  bool asked_source_ = false;
  int gso_error_ = 0;
  bool waited_ = false;
  int repeats_ = 0;
  // Of the call.
  bool patient_ = true;

  std::array<mmsghdr, kMaxMessages> headers_;
  std::array<Message, kMaxMessages> messages_;
};

Result<std::shared_ptr<UdpSockets>> UdpSockets::Open(std::uint16_t port, std::uint32_t fwmark,
                                                     const UdpOptions& options, const UdpSyscalls& syscalls) {
  if (!options.ipv4 && !options.ipv6)
    return FailErrno(EINVAL, "IPv4 and IPv6 are both switched off: allow one of them");
  Status status;
  for (int tries = 0; tries < (port == 0 ? kMaxPortTries : 1); ++tries) {
    std::shared_ptr<UdpSockets> sockets(new UdpSockets(options, syscalls));
    status = sockets->OpenPair(port, fwmark, options);
    if (status) return sockets;
    // The port that was free in one family was taken in the other: the kernel may offer another one.
    if (status.error().code != EADDRINUSE) break;
  }
  return std::unexpected(status.error());
}

Status UdpSockets::OpenPair(std::uint16_t port, std::uint32_t fwmark, const UdpOptions& options) {
  gso_possible_ = options.gso;
  mark_ = fwmark;
  int unsupported = 0;
  for (const SocketFamily family : kFamilies) {
    if (!(family == SocketFamily::kV4 ? options.ipv4 : options.ipv6)) continue;
    const Status status = OpenOne(family, port_ != 0 ? port_ : port, fwmark, options);
    if (status) continue;
    const int code = status.error().code;
    // EAFNOSUPPORT: the family is not in the kernel. EADDRNOTAVAIL: it is, but was disabled at boot.
    if (code != EAFNOSUPPORT && code != EADDRNOTAVAIL) return status;
    unsupported = code;
  }
  if (!fds_[0] && !fds_[1]) return FailErrno(unsupported, "this kernel offers no address family that is switched on");
  return {};
}

Status UdpSockets::OpenOne(SocketFamily family, std::uint16_t port, std::uint32_t fwmark, const UdpOptions& options) {
  const bool v4 = family == SocketFamily::kV4;
  Fd fd(syscalls_.socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_UDP));
  if (!fd) {
    const int code = errno;
    return FailErrno(code, "cannot open a UDP socket for {}: {}", Name(family), std::strerror(code));
  }

  // What arrives tells us where it was sent to, and with which ECN bits. The outer packet may be fragmented, here or on
  // the way, as the kernel's WireGuard allows by ignore_df: a path smaller than the tunnel's MTU then costs speed, not
  // connectivity. PMTUDISC_DONT does that; INTERFACE and OMIT also clear DF, but ignore what the route knows about the
  // path, so IPv6 datagrams too large for it would vanish. ICMP errors stay away without IP_RECVERR.
  struct Option {
    int level, name, value;
  };
  static constexpr Option kV4Options[] = {
      {IPPROTO_IP, IP_PKTINFO, 1}, {IPPROTO_IP, IP_RECVTOS, 1}, {IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DONT}};
  static constexpr Option kV6Options[] = {{IPPROTO_IPV6, IPV6_RECVPKTINFO, 1},
                                          {IPPROTO_IPV6, IPV6_RECVTCLASS, 1},
                                          {IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_DONT}};
  if (!v4 && !SetOption(syscalls_, fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, 1)) {
    const int code = errno;
    return FailErrno(code, "cannot make the IPv6 socket IPv6 only: {}", std::strerror(code));
  }
  for (const Option& option : v4 ? std::span<const Option>(kV4Options) : std::span<const Option>(kV6Options)) {
    if (!SetOption(syscalls_, fd.get(), option.level, option.name, option.value)) {
      const int code = errno;
      return FailErrno(code, "this kernel refuses option {}/{} of the {} UDP socket: {}", option.level, option.name,
                       Name(family), std::strerror(code));
    }
  }
  if (fwmark != 0 && !SetOption(syscalls_, fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(fwmark))) {
    const int code = errno;
    return FailErrno(code, "cannot set the firewall mark {:#x}: {}; it needs CAP_NET_ADMIN", fwmark,
                     std::strerror(code));
  }
  SetBufferSize(syscalls_, fd.get(), SO_RCVBUFFORCE, SO_RCVBUF);
  SetBufferSize(syscalls_, fd.get(), SO_SNDBUFFORCE, SO_SNDBUF);
  // A size of 0 changes nothing, and fails where the option is unknown (before Linux 4.18).
  gso_possible_ = gso_possible_ && SetOption(syscalls_, fd.get(), IPPROTO_UDP, UDP_SEGMENT, 0);
  const bool gro_accepted = options.gro && SetOption(syscalls_, fd.get(), IPPROTO_UDP, UDP_GRO, 1);

  sockaddr_storage address;
  const IpAddress any = v4 ? IpAddress() : IpAddress::V6(ByteArray<16>{});
  socklen_t length = SocketAddress{any, port, 0}.ToSockaddr(address);
  if (syscalls_.bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    const int code = errno;
    const char* cure = code == EADDRINUSE ? "; end what uses it or choose another ListenPort"
                       : code == EACCES   ? "; ports below 1024 need CAP_NET_BIND_SERVICE"
                                          : "";
    return FailErrno(code, "cannot bind UDP port {} for {}: {}{}", port, Name(family), std::strerror(code), cure);
  }
  length = sizeof address;
  CHECK(getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &length) == 0);
  port_ = SocketAddress::FromSockaddr(reinterpret_cast<const sockaddr*>(&address))->port;
  gro_ = gro_ && gro_accepted;
  fds_[Index(family)] = std::move(fd);
  return {};
}

int UdpSockets::fd(SocketFamily family) const { return fds_[Index(family)].get(); }

Status UdpSockets::SetMark(std::uint32_t fwmark) {
  const std::lock_guard lock(mark_mutex_);
  for (const Fd& fd : fds_) {
    if (!fd || SetOption(syscalls_, fd.get(), SOL_SOCKET, SO_MARK, static_cast<int>(fwmark))) continue;
    const int code = errno;
    for (const Fd& changed : fds_) {
      if (changed) SetOption(syscalls_, changed.get(), SOL_SOCKET, SO_MARK, static_cast<int>(mark_));
    }
    return FailErrno(code, "cannot set the firewall mark {:#x}: {}; it needs CAP_NET_ADMIN", fwmark,
                     std::strerror(code));
  }
  mark_ = fwmark;
  return {};
}

void UdpSockets::Send(std::span<const SendRun> runs, Instant now, std::span<SendOutcome> outcomes) {
  CHECK(runs.size() == outcomes.size());
  std::ranges::fill(outcomes, SendOutcome{});
  ReprobeGso(now);
  SendCall(*this, runs, now, outcomes).Run();
}

bool UdpSockets::gso_enabled() const { return gso_possible_ && gso_off_until_.load(std::memory_order_relaxed) == 0; }

std::string UdpSockets::last_degrade() const {
  const std::lock_guard lock(mutex_);
  return last_degrade_;
}

void UdpSockets::ReprobeGso(Instant now) {
  Instant::rep until = gso_off_until_.load(std::memory_order_relaxed);
  if (until != 0 && now.time_since_epoch().count() >= until) gso_off_until_.compare_exchange_strong(until, 0);
}

bool UdpSockets::MaySegment(const SendRun& run, Instant now) {
  if (run.data.size() <= run.segment_bytes || !gso_enabled()) return false;
  if (refused_count_.load(std::memory_order_relaxed) == 0) return true;
  const std::lock_guard lock(mutex_);
  const auto path = std::ranges::find(refused_, run.to.remote.ip, &RefusedPath::to);
  if (path == refused_.end() || run.segment_bytes < path->segment_bytes) return true;
  if (now < path->until) return false;
  refused_.erase(path);
  refused_count_.store(refused_.size(), std::memory_order_relaxed);
  return true;
}

void UdpSockets::GsoRefused(int error, Instant now) {
  Instant::rep on = 0;
  // Only the thread that switches it off tells.
  if (!gso_off_until_.compare_exchange_strong(on, (now + kOffloadRetryAfter).time_since_epoch().count())) return;
  Degraded(fmt::format("UDP_SEGMENT is off for {} min: {}",
                       std::chrono::duration_cast<std::chrono::minutes>(kOffloadRetryAfter).count(),
                       std::strerror(error)));
}

void UdpSockets::GsoRefusedOnPath(const SendRun& run, Instant now) {
  {
    const std::lock_guard lock(mutex_);
    const Instant until = now + kOffloadRetryAfter;
    if (auto path = std::ranges::find(refused_, run.to.remote.ip, &RefusedPath::to); path != refused_.end()) {
      path->segment_bytes = std::min(path->segment_bytes, run.segment_bytes);
      path->until = until;
      return;
    }
    if (refused_.size() == kMaxRefusedPaths) {
      refused_.erase(std::ranges::min_element(refused_, {}, &RefusedPath::until));
    }
    refused_.push_back({run.to.remote.ip, run.segment_bytes, until});
    refused_count_.store(refused_.size(), std::memory_order_relaxed);
  }
  Degraded(fmt::format(
      "UDP_SEGMENT is off for {} for {} min: datagrams of {} bytes exceed its path MTU", run.to.remote.ip.ToString(),
      std::chrono::duration_cast<std::chrono::minutes>(kOffloadRetryAfter).count(), run.segment_bytes));
}

void UdpSockets::ManySegmentsRefused() {
  std::size_t many = kMaxGsoSegments;
  if (!max_segments_.compare_exchange_strong(many, kMinGsoSegments)) return;
  Degraded(fmt::format("UDP_SEGMENT takes only {} segments a send", kMinGsoSegments));
}

void UdpSockets::Degraded(std::string what) {
  if (on_degrade_) on_degrade_(what);
  const std::lock_guard lock(mutex_);
  last_degrade_ = std::move(what);
  degrade_count_.fetch_add(1, std::memory_order_relaxed);
}

// ---------------------------------------------------------------------------------------------------------------------

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kReceiveBytes = 65536;
// Every buffer begins on a page, its data on a cache line.
constexpr std::size_t kSlotBytes =
    (kReceiveHeadroom + kReceiveBytes + kReceiveTailroom + kPageBytes - 1) / kPageBytes * kPageBytes;
static_assert(kReceiveHeadroom % 64 == 0);

// Address and interface, TOS, segment size, and as much again: truncated control data costs a datagram.
constexpr std::size_t kControlBytes = 192;
static_assert(kControlBytes >= CMSG_SPACE(sizeof(in6_pktinfo)) + 2 * CMSG_SPACE(sizeof(int)));
constexpr std::size_t kControlWords = kControlBytes / sizeof(std::uint64_t);

template <typename T>
T ControlValue(const cmsghdr* control) {
  T value{};
  std::memcpy(&value, CMSG_DATA(control), std::min(sizeof value, control->cmsg_len - CMSG_LEN(0)));
  return value;
}

void ReadControl(const cmsghdr* control, ReceivedRun& run) {
  if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO) {
    // ipi_spec_dst, not ipi_addr: for unicast they are the same, the address written to; for broadcast and multicast it
    // is an address of ours that an answer can come from.
    const auto info = ControlValue<in_pktinfo>(control);
    run.from.source.ip = IpAddress::V4(Bytes(reinterpret_cast<const std::uint8_t*>(&info.ipi_spec_dst), 4));
    run.from.source.interface_index = static_cast<std::uint32_t>(info.ipi_ifindex);
  } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_PKTINFO) {
    const auto info = ControlValue<in6_pktinfo>(control);
    const IpAddress ip = IpAddress::V6(Bytes(reinterpret_cast<const std::uint8_t*>(&info.ipi6_addr), 16));
    if (!ip.is_multicast()) run.from.source = {ip, static_cast<std::uint32_t>(info.ipi6_ifindex)};
  } else if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_TOS) {
    run.ecn = ControlValue<std::uint8_t>(control) & 3;
  } else if (control->cmsg_level == IPPROTO_IPV6 && control->cmsg_type == IPV6_TCLASS) {
    run.ecn = static_cast<std::uint8_t>(ControlValue<int>(control) & 3);
  } else if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_GRO) {
    const int segment_bytes = ControlValue<int>(control);
    if (segment_bytes > 0) run.segment_bytes = std::min(run.data.size(), static_cast<std::size_t>(segment_bytes));
  }
}

}  // namespace

void UdpReceiver::FreeArena::operator()(std::uint8_t* arena) const {
  ::operator delete(arena, std::align_val_t(kPageBytes));
}

UdpReceiver::UdpReceiver(std::size_t buffers)
    : headers_(buffers), iovecs_(buffers), names_(buffers), control_(buffers * kControlWords) {
  CHECK(buffers > 0);
  arena_.reset(static_cast<std::uint8_t*>(::operator new(buffers * kSlotBytes, std::align_val_t(kPageBytes))));
  runs_.reserve(buffers);
}

ReceiveStatus UdpReceiver::Receive(const UdpSockets& sockets, SocketFamily family, std::span<ReceivedRun>& runs) {
  runs_.clear();
  runs = {};
  if (sockets.fd(family) < 0) return ReceiveStatus::kWouldBlock;
  // Everything the kernel shortens is set anew.
  for (std::size_t i = 0; i < headers_.size(); ++i) {
    iovecs_[i] = {arena_.get() + i * kSlotBytes + kReceiveHeadroom, kReceiveBytes};
    headers_[i] = {};
    msghdr& header = headers_[i].msg_hdr;
    header.msg_name = &names_[i];
    header.msg_namelen = sizeof names_[i];
    header.msg_iov = &iovecs_[i];
    header.msg_iovlen = 1;
    header.msg_control = &control_[i * kControlWords];
    header.msg_controllen = kControlBytes;
  }
  const int count = sockets.syscalls().recvmmsg(sockets.fd(family), headers_.data(),
                                                static_cast<unsigned>(headers_.size()), MSG_DONTWAIT, nullptr);
  if (count < 0) {
    if (errno == EAGAIN) return ReceiveStatus::kWouldBlock;
    last_error_ = errno;
    return ReceiveStatus::kError;
  }

  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
    msghdr& header = headers_[i].msg_hdr;
    const auto remote = SocketAddress::FromSockaddr(reinterpret_cast<const sockaddr*>(&names_[i]));
    if (headers_[i].msg_len == 0 || header.msg_namelen == 0 || !remote) continue;
    ReceivedRun& run = runs_.emplace_back();
    run.data = MutableBytes(static_cast<std::uint8_t*>(iovecs_[i].iov_base), headers_[i].msg_len);
    run.segment_bytes = run.data.size();
    run.from.remote = *remote;
    // Without all of its control data we do not know where the datagrams of a run end.
    run.truncated = (header.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
    for (cmsghdr* control = CMSG_FIRSTHDR(&header); control != nullptr; control = CMSG_NXTHDR(&header, control)) {
      ReadControl(control, run);
    }
  }
  runs = runs_;
  return ReceiveStatus::kOk;
}

}  // namespace adit
