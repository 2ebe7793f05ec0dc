// Real sockets over the loopback of network namespaces that the tests make, and a kernel that answers differently where
// the real one cannot be made to.
#include "udp/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_packet.h>
#include <linux/ipv6.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <numeric>
#include <thread>

namespace adit {
namespace {

constexpr SocketFamily kBoth[] = {SocketFamily::kV4, SocketFamily::kV6};
constexpr Instant kNow{1h};

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }
IpAddress Loopback(SocketFamily family) { return Ip(family == SocketFamily::kV4 ? "127.0.0.1" : "::1"); }

Endpoint To(const IpAddress& ip, std::uint16_t port) {
  Endpoint to;
  to.remote = {ip, port, 0};
  return to;
}

// ----- a namespace of one's own

constexpr int kSkipped = 77;

void LoopbackRequest(unsigned long request, const std::function<void(ifreq&)>& fill) {
  const Fd fd(::socket(AF_INET, SOCK_DGRAM, 0));
  ifreq link{};
  std::strcpy(link.ifr_name, "lo");
  fill(link);
  ASSERT_EQ(::ioctl(fd.get(), request, &link), 0) << std::strerror(errno);
}

void SetLoopbackMtu(int mtu) {
  LoopbackRequest(SIOCSIFMTU, [&](ifreq& link) { link.ifr_mtu = mtu; });
}

// IPv6 only: the kernel makes no difference between the first and the second address there.
void ChangeV6Address(unsigned long request, const char* text) {
  struct {  // struct in6_ifreq of <linux/ipv6.h>
    in6_addr address;
    std::uint32_t prefix_bits;
    int index;
  } change{};
  std::memcpy(&change.address, Ip(text).bytes().data(), 16);
  change.prefix_bits = Ip(text).is_v6_link_local() ? 64 : 128;
  change.index = static_cast<int>(if_nametoindex("lo"));
  const Fd fd(::socket(AF_INET6, SOCK_DGRAM, 0));
  ASSERT_EQ(::ioctl(fd.get(), request, &change), 0) << std::strerror(errno);
}

// Returns when the address answers: the kernel gives it its route in the background.
void AddV6Address(const char* text) {
  ChangeV6Address(SIOCSIFADDR, text);
  sockaddr_storage name;
  socklen_t length = SocketAddress{Ip(text), 0, if_nametoindex("lo")}.ToSockaddr(name);
  for (int tries = 0; tries < 200; ++tries) {
    const Fd fd(::socket(AF_INET6, SOCK_DGRAM, 0));
    sockaddr_storage bound = name;
    pollfd ready{.fd = fd.get(), .events = POLLIN, .revents = 0};
    if (::bind(fd.get(), reinterpret_cast<sockaddr*>(&bound), length) == 0 &&
        ::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&bound), &length) == 0 &&
        ::sendto(fd.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&bound), length) == 1 && ::poll(&ready, 1, 10) == 1) {
      return;
    }
    std::this_thread::sleep_for(5ms);
  }
  FAIL() << text << " does not come up";
}

void RemoveV6Address(const char* text) { ChangeV6Address(SIOCDIFADDR, text); }

// One more IPv4 address, as lo:1.
void AddV4Address(const char* text) {
  LoopbackRequest(SIOCSIFADDR, [&](ifreq& link) {
    std::strcpy(link.ifr_name, "lo:1");
    sockaddr_storage address;
    SocketAddress{Ip(text), 0, 0}.ToSockaddr(address);
    std::memcpy(&link.ifr_addr, &address, sizeof link.ifr_addr);
  });
}
void RemoveV4Address() {
  LoopbackRequest(SIOCSIFFLAGS, [](ifreq& link) { std::strcpy(link.ifr_name, "lo:1"); });
}

void WriteSysctl(const std::string& path, const std::string& value) {
  std::ofstream file("/proc/sys/" + path);
  file << value << std::flush;
  ASSERT_TRUE(file.good()) << path;
}

// Runs `body` in a child process with a network namespace whose loopback is up.
void InNamespace(const std::function<void()>& body) {
  std::fflush(nullptr);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::unshare(CLONE_NEWNET) != 0) ::_exit(kSkipped);
    LoopbackRequest(SIOCSIFFLAGS, [](ifreq& link) { link.ifr_flags = IFF_UP | IFF_RUNNING; });
    body();
    std::fflush(nullptr);
    ::_exit(testing::Test::HasFailure() ? 1 : testing::Test::IsSkipped() ? kSkipped : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == kSkipped) {
    GTEST_SKIP() << "needs a network namespace of its own (root) and what the child names above";
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "the child failed, status " << status;
}

// ----- a kernel that answers differently

struct FakeKernel {
  std::function<int(const msghdr&)> send_error = [](const msghdr&) { return 0; };
  int send_calls = 0;
  int polls = 0;
  int poll_result = 1;
  int receive_error = 0;
  std::size_t receive_bytes = 0;  // buffer and control sizes the kernel sees, 0: as given
  std::size_t receive_control = 0;
  int missing_family = -1;
  int refused_option = -1;  // of level SOL_SOCKET or IPPROTO_UDP
} fake;

bool HasControl(const msghdr& message, int level, int type) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&message), c)) {
    if (c->cmsg_level == level && c->cmsg_type == type) return true;
  }
  return false;
}
bool HasGso(const msghdr& message) { return HasControl(message, IPPROTO_UDP, UDP_SEGMENT); }
bool HasSource(const msghdr& message) {
  return HasControl(message, IPPROTO_IP, IP_PKTINFO) || HasControl(message, IPPROTO_IPV6, IPV6_PKTINFO);
}

ssize_t FakeSendmsg(int fd, const msghdr* message, int flags) {
  ++fake.send_calls;
  errno = fake.send_error(*message);
  return errno != 0 ? -1 : ::sendmsg(fd, message, flags);
}

int FakeSendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  ++fake.send_calls;
  for (unsigned i = 0; i < count; ++i) {
    errno = fake.send_error(messages[i].msg_hdr);
    if (errno != 0 || ::sendmsg(fd, &messages[i].msg_hdr, flags) < 0) return i > 0 ? static_cast<int>(i) : -1;
  }
  return static_cast<int>(count);
}

int FakeRecvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  if (fake.receive_error != 0) {
    errno = fake.receive_error;
    return -1;
  }
  for (unsigned i = 0; i < count; ++i) {
    if (fake.receive_bytes != 0) messages[i].msg_hdr.msg_iov->iov_len = fake.receive_bytes;
    if (fake.receive_control != 0) messages[i].msg_hdr.msg_controllen = fake.receive_control;
  }
  return ::recvmmsg(fd, messages, count, flags, timeout);
}

int FakePoll(pollfd*, nfds_t, int) {
  ++fake.polls;
  return fake.poll_result;
}

int FakeSocket(int family, int type, int protocol) {
  if (family == fake.missing_family) {
    errno = EAFNOSUPPORT;
    return -1;
  }
  return ::socket(family, type, protocol);
}

int FakeSetsockopt(int fd, int level, int option, const void* value, socklen_t length) {
  if ((level == SOL_SOCKET || level == IPPROTO_UDP) && option == fake.refused_option) {
    errno = level == SOL_SOCKET ? EPERM : ENOPROTOOPT;
    return -1;
  }
  return ::setsockopt(fd, level, option, value, length);
}

UdpSyscalls FakeSyscalls() {
  UdpSyscalls syscalls;
  syscalls.socket = FakeSocket;
  syscalls.setsockopt = FakeSetsockopt;
  syscalls.sendmsg = FakeSendmsg;
  syscalls.sendmmsg = FakeSendmmsg;
  syscalls.recvmmsg = FakeRecvmmsg;
  syscalls.poll = FakePoll;
  return syscalls;
}

// ----- sending and receiving

std::shared_ptr<UdpSockets> MustOpen(const UdpOptions& options = {}, const UdpSyscalls& syscalls = {},
                                     std::uint16_t port = 0, std::uint32_t fwmark = 0) {
  auto sockets = UdpSockets::Open(port, fwmark, options, syscalls);
  EXPECT_TRUE(sockets.has_value()) << (sockets ? "" : sockets.error().message);
  return sockets.value_or(nullptr);
}

SendOutcome SendOne(UdpSockets& sockets, const SendRun& run, Instant now = kNow) {
  SendOutcome outcome;
  sockets.Send({&run, 1}, now, {&outcome, 1});
  return outcome;
}

// `count` datagrams one behind the other, the last with `last_bytes`; each begins with its number.
std::vector<std::uint8_t> Numbered(std::size_t count, std::size_t bytes, std::size_t last_bytes) {
  std::vector<std::uint8_t> data((count - 1) * bytes + last_bytes);
  std::iota(data.begin(), data.end(), std::uint8_t{0});
  for (std::size_t i = 0; i < count; ++i) {
    const auto number = static_cast<std::uint16_t>(i);
    std::memcpy(data.data() + i * bytes, &number, sizeof number);
  }
  return data;
}

// A run as it came, copied.
struct Arrived {
  std::vector<std::uint8_t> data;
  std::size_t segment_bytes;
  Endpoint from;
  std::uint8_t ecn;
  bool truncated;
};

// Receives until `bytes` have come or nothing more does for a second.
std::vector<Arrived> ReceiveBytes(UdpReceiver& receiver, const UdpSockets& sockets, SocketFamily family,
                                  std::size_t bytes) {
  std::vector<Arrived> arrived;
  std::size_t so_far = 0;
  while (so_far < bytes) {
    pollfd ready{.fd = sockets.fd(family), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, 1000) <= 0) break;
    std::span<ReceivedRun> runs;
    if (receiver.Receive(sockets, family, runs) != ReceiveStatus::kOk) continue;
    for (const ReceivedRun& run : runs) {
      so_far += run.data.size();
      arrived.push_back({{run.data.begin(), run.data.end()}, run.segment_bytes, run.from, run.ecn, run.truncated});
    }
  }
  return arrived;
}

std::vector<std::uint8_t> Joined(const std::vector<Arrived>& arrived) {
  std::vector<std::uint8_t> data;
  for (const Arrived& run : arrived) data.insert(data.end(), run.data.begin(), run.data.end());
  return data;
}

std::size_t CountDatagrams(const std::vector<Arrived>& arrived) {
  std::size_t count = 0;
  for (const Arrived& run : arrived) count += DatagramCount(run.data.size(), run.segment_bytes);
  return count;
}

// A socket as any program opens it: the other side of a conversation.
class PlainSocket {
 public:
  explicit PlainSocket(const IpAddress& ip, std::uint32_t scope_id = 0)
      : fd_(::socket(ip.is_v4() ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_storage name;
    socklen_t length = SocketAddress{ip, 0, scope_id}.ToSockaddr(name);
    EXPECT_EQ(::bind(fd_.get(), reinterpret_cast<sockaddr*>(&name), length), 0) << std::strerror(errno);
    length = sizeof name;
    ::getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&name), &length);
    address_ = *SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&name));
    const int on = 1;
    ::setsockopt(fd_.get(), IPPROTO_IP, IP_RECVTOS, &on, sizeof on);
    ::setsockopt(fd_.get(), IPPROTO_IPV6, IPV6_RECVTCLASS, &on, sizeof on);
    const int bytes = 8 << 20;
    ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
  }

  const SocketAddress& address() const { return address_; }
  int fd() const { return fd_.get(); }

  void Send(const SocketAddress& to, const std::string& text) const {
    sockaddr_storage name;
    const socklen_t length = to.ToSockaddr(name);
    ASSERT_EQ(::sendto(fd_.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&name), length),
              static_cast<ssize_t>(text.size()))
        << std::strerror(errno);
  }

  struct Datagram {
    std::string text;
    SocketAddress from;
    int tos = 0;
  };
  // Empty if nothing comes within `wait_ms`.
  std::optional<Datagram> Receive(int wait_ms = 1000) const {
    pollfd ready{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, wait_ms) <= 0) return std::nullopt;
    Datagram datagram;
    static std::array<char, 65536> buffer;
    sockaddr_storage name{};
    alignas(cmsghdr) char control[256];
    iovec data{buffer.data(), buffer.size()};
    msghdr message{};
    message.msg_name = &name;
    message.msg_namelen = sizeof name;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    const ssize_t got = ::recvmsg(fd_.get(), &message, 0);
    if (got < 0) return std::nullopt;
    datagram.text.assign(buffer.data(), static_cast<std::size_t>(got));
    datagram.from = *SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&name));
    for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
      if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TOS) datagram.tos = *CMSG_DATA(c);
      if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_TCLASS) std::memcpy(&datagram.tos, CMSG_DATA(c), 4);
    }
    return datagram;
  }

 private:
  Fd fd_;
  SocketAddress address_;
};

std::size_t OpenDescriptors() {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

// ----- offloads

TEST(UdpSockets, CarryASuperPacketWholeWithGsoAndGro) {
  InNamespace([] {
    const auto a = MustOpen();
    const auto b = MustOpen();
    ASSERT_TRUE(a->gso_enabled() && b->gro_enabled());
    UdpReceiver receiver;
    for (const SocketFamily family : kBoth) {
      const auto sent = Numbered(45, 1452, 700);
      for (int round = 0; round < 20; ++round) {  // control lengths are set anew for each call
        const SendOutcome outcome = SendOne(*a, {sent, 1452, To(Loopback(family), b->port()), 0});
        EXPECT_EQ(outcome.datagrams_sent, 45u);
        EXPECT_EQ(outcome.error, 0);
        EXPECT_FALSE(outcome.clear_source);
        const auto arrived = ReceiveBytes(receiver, *b, family, sent.size());
        ASSERT_EQ(arrived.size(), 1u) << "one run in, one run out";
        EXPECT_EQ(arrived[0].data, sent);
        EXPECT_EQ(arrived[0].segment_bytes, 1452u);
        EXPECT_EQ(arrived[0].from.remote, (SocketAddress{Loopback(family), a->port(), 0}));
        EXPECT_EQ(arrived[0].from.source.ip, Loopback(family));
        EXPECT_EQ(arrived[0].from.source.interface_index, if_nametoindex("lo"));
        EXPECT_FALSE(arrived[0].truncated);
      }
    }
    EXPECT_EQ(a->degrade_count(), 0u);
    EXPECT_EQ(a->last_degrade(), "");
  });
}

TEST(UdpSockets, TheLargestRunIsNotCutOnTheWay) {
  InNamespace([] {
    const auto a = MustOpen();
    const auto b = MustOpen();
    UdpReceiver receiver;
    for (const SocketFamily family : kBoth) {
      const auto sent = Numbered(46, 1452, kMaxGsoBytes - std::size_t{45} * 1452);
      ASSERT_EQ(sent.size(), kMaxGsoBytes);
      EXPECT_EQ(SendOne(*a, {sent, 1452, To(Loopback(family), b->port()), 0}).datagrams_sent, 46u);
      EXPECT_EQ(ReceiveBytes(receiver, *b, family, sent.size()).size(), 1u);
    }
  });
}

TEST(UdpSockets, CutRunsThatOneSendCannotCarry) {
  InNamespace([] {
    const auto a = MustOpen();
    const auto b = MustOpen();
    UdpReceiver receiver;
    for (const SocketFamily family : kBoth) {
      for (const auto& [count, bytes] : {std::pair<std::size_t, std::size_t>{100, 1452}, {1000, 64}, {3, 65507}}) {
        const auto sent = Numbered(count, bytes, bytes / 2);
        const SendOutcome outcome = SendOne(*a, {sent, bytes, To(Loopback(family), b->port()), 0});
        EXPECT_EQ(outcome.datagrams_sent, count);
        EXPECT_EQ(outcome.error, 0);
        const auto arrived = ReceiveBytes(receiver, *b, family, sent.size());
        EXPECT_EQ(Joined(arrived), sent);
        EXPECT_EQ(CountDatagrams(arrived), count);
      }
    }
    EXPECT_EQ(a->degrade_count(), 0u);
  });
}

TEST(UdpSockets, WorkWithoutAnyOffload) {
  InNamespace([] {
    for (const bool gso : {false, true}) {
      for (const bool gro : {false, true}) {
        const auto a = MustOpen({.gso = gso});
        const auto b = MustOpen({.gro = gro});
        EXPECT_EQ(a->gso_enabled(), gso);
        EXPECT_EQ(b->gro_enabled(), gro);
        UdpReceiver receiver(1);
        for (const SocketFamily family : kBoth) {
          const auto sent = Numbered(150, 1452, 9);
          EXPECT_EQ(SendOne(*a, {sent, 1452, To(Loopback(family), b->port()), 0}).datagrams_sent, 150u);
          const auto arrived = ReceiveBytes(receiver, *b, family, sent.size());
          EXPECT_EQ(Joined(arrived), sent);
          EXPECT_EQ(CountDatagrams(arrived), 150u);
          EXPECT_TRUE(gro || arrived.size() == 150u);
        }
      }
    }
  });
}

TEST(UdpSockets, WorkOnAKernelWithoutGsoAndGro) {
  InNamespace([] {
    for (const int option : {UDP_SEGMENT, UDP_GRO}) {
      fake.refused_option = option;
      const auto a = MustOpen({}, FakeSyscalls());
      EXPECT_EQ(a->gso_enabled(), option != UDP_SEGMENT);
      EXPECT_EQ(a->gro_enabled(), option != UDP_GRO);
      const auto sent = Numbered(45, 1452, 100);
      EXPECT_EQ(SendOne(*a, {sent, 1452, To(Loopback(SocketFamily::kV4), a->port()), 0}).datagrams_sent, 45u);
      UdpReceiver receiver;
      EXPECT_EQ(Joined(ReceiveBytes(receiver, *a, SocketFamily::kV4, sent.size())), sent);
    }
  });
}

TEST(UdpSockets, SmallMtuCostsSpeedAndNoDatagram) {
  InNamespace([] {
    const auto a = MustOpen();
    const auto b = MustOpen();
    UdpReceiver receiver;
    std::uint64_t degraded = 0;
    for (const SocketFamily family : kBoth) {
      const auto sent = Numbered(45, 1452, 1000);
      const auto small = Numbered(50, 1200, 1200);
      const SendRun run{sent, 1452, To(Loopback(family), b->port()), 0};
      const SendRun small_run{small, 1200, To(Loopback(family), b->port()), 0};

      SetLoopbackMtu(1280);
      for (int round = 0; round < 3; ++round) {
        const SendOutcome outcome = SendOne(*a, run);
        EXPECT_EQ(outcome.datagrams_sent, 45u);
        EXPECT_EQ(outcome.error, 0);
        const auto arrived = ReceiveBytes(receiver, *b, family, sent.size());
        EXPECT_EQ(Joined(arrived), sent);
        EXPECT_EQ(CountDatagrams(arrived), 45u);
      }
      EXPECT_EQ(a->degrade_count(), ++degraded) << "one event, not one a run";
      EXPECT_NE(a->last_degrade().find(Loopback(family).ToString()), std::string::npos) << a->last_degrade();
      EXPECT_TRUE(a->gso_enabled()) << "the other destinations keep it";
      SendOne(*a, small_run);
      EXPECT_EQ(ReceiveBytes(receiver, *b, family, small.size()).size(), 1u) << "and so do datagrams that fit";

      SetLoopbackMtu(65536);
      SendOne(*a, run, kNow + kOffloadRetryAfter - 1ns);
      EXPECT_GT(ReceiveBytes(receiver, *b, family, sent.size()).size(), 1u);
      SendOne(*a, run, kNow + kOffloadRetryAfter);
      EXPECT_EQ(ReceiveBytes(receiver, *b, family, sent.size()).size(), 1u) << "tried again after ten minutes";
    }
  });
}

TEST(UdpSockets, RememberABoundedNumberOfSmallPaths) {
  InNamespace([] {
    fake.send_error = [](const msghdr& m) { return HasGso(m) ? EMSGSIZE : 0; };
    const auto a = MustOpen({}, FakeSyscalls());
    const auto data = Numbered(4, 100, 100);
    const auto calls_for = [&](std::size_t host) {
      const ByteArray<4> ip = {127, 0, 1, static_cast<std::uint8_t>(host)};
      fake.send_calls = 0;
      EXPECT_EQ(SendOne(*a, {data, 100, To(IpAddress::V4(ip), 9), 0}, kNow + host * 1s).datagrams_sent, 4u);
      return fake.send_calls;
    };
    for (std::size_t host = 0; host < kMaxRefusedPaths; ++host) EXPECT_EQ(calls_for(host), 2);
    for (std::size_t host = 0; host < kMaxRefusedPaths; ++host) EXPECT_EQ(calls_for(host), 1) << "remembered";
    EXPECT_EQ(calls_for(kMaxRefusedPaths), 2) << "takes the place of the oldest";
    EXPECT_EQ(calls_for(kMaxRefusedPaths - 1), 1);
    EXPECT_EQ(calls_for(0), 2) << "forgotten, and tried again";
    EXPECT_EQ(a->degrade_count(), kMaxRefusedPaths + 2);
  });
}

TEST(UdpSockets, SwitchGsoOffForBothFamiliesWhenTheKernelRefusesIt) {
  InNamespace([] {
    for (const int error : {EIO, EINVAL, EOPNOTSUPP, ENOPROTOOPT}) {
      SCOPED_TRACE(std::strerror(error));
      fake.send_error = [error](const msghdr& m) { return HasGso(m) ? error : 0; };
      std::vector<std::string> lines;
      UdpOptions options;
      options.on_degrade = [&](std::string_view line) { lines.emplace_back(line); };
      const auto a = MustOpen(options, FakeSyscalls());
      const auto b = MustOpen();
      UdpReceiver receiver;
      const auto sent = Numbered(45, 1452, 1000);
      for (const SocketFamily family : kBoth) {
        const SendOutcome outcome = SendOne(*a, {sent, 1452, To(Loopback(family), b->port()), 0});
        EXPECT_EQ(outcome.datagrams_sent, 45u);
        EXPECT_EQ(outcome.error, 0);
        EXPECT_EQ(Joined(ReceiveBytes(receiver, *b, family, sent.size())), sent) << "no datagram is lost by it";
      }
      EXPECT_FALSE(a->gso_enabled());
      EXPECT_EQ(a->degrade_count(), 1u);
      EXPECT_NE(a->last_degrade().find(std::strerror(error)), std::string::npos);
      EXPECT_EQ(lines, std::vector{a->last_degrade()}) << "it is said once";

      fake.send_error = [](const msghdr&) { return 0; };
      const SendRun run{sent, 1452, To(Loopback(SocketFamily::kV4), b->port()), 0};
      fake.send_calls = 0;
      SendOne(*a, run, kNow + kOffloadRetryAfter - 1ns);
      EXPECT_FALSE(a->gso_enabled());
      SendOne(*a, run, kNow + kOffloadRetryAfter);
      EXPECT_TRUE(a->gso_enabled());
      EXPECT_EQ(fake.send_calls, 2);
      EXPECT_EQ(CountDatagrams(ReceiveBytes(receiver, *b, SocketFamily::kV4, 2 * sent.size())), 90u);
    }
  });
}

TEST(UdpSockets, LearnThatAnOlderKernelTakesOnly64Segments) {
  InNamespace([] {
    fake.send_error = [](const msghdr& m) { return HasGso(m) && m.msg_iov->iov_len > 64 * 100 ? EINVAL : 0; };
    const auto a = MustOpen({}, FakeSyscalls());
    const auto b = MustOpen();
    EXPECT_EQ(a->max_gso_segments(), 128u);
    UdpReceiver receiver;
    const auto sent = Numbered(300, 100, 50);
    EXPECT_EQ(SendOne(*a, {sent, 100, To(Loopback(SocketFamily::kV6), b->port()), 0}).datagrams_sent, 300u);
    EXPECT_EQ(Joined(ReceiveBytes(receiver, *b, SocketFamily::kV6, sent.size())), sent);
    EXPECT_EQ(a->max_gso_segments(), 64u);
    EXPECT_TRUE(a->gso_enabled());
    EXPECT_EQ(a->degrade_count(), 1u);
  });
}

// ----- errors of a send

TEST(UdpSockets, RepeatASendThatMetAPassingError) {
  InNamespace([] {
    for (const int error : {EINTR, EAGAIN, ENOBUFS, ENOMEM, ECONNREFUSED}) {
      SCOPED_TRACE(std::strerror(error));
      bool failed = false;
      fake.polls = 0;
      fake.send_error = [&](const msghdr&) { return std::exchange(failed, true) ? 0 : error; };
      const auto a = MustOpen({}, FakeSyscalls());
      const auto sent = Numbered(10, 500, 500);
      const SendOutcome outcome = SendOne(*a, {sent, 500, To(Loopback(SocketFamily::kV4), a->port()), 0});
      EXPECT_EQ(outcome.datagrams_sent, 10u);
      EXPECT_EQ(outcome.error, 0);
      EXPECT_EQ(fake.polls, error == EINTR || error == ECONNREFUSED ? 0 : 1);
      EXPECT_EQ(a->degrade_count(), 0u);
    }
  });
}

TEST(UdpSockets, ReportAnErrorThatLastsAndHealWithIt) {
  InNamespace([] {
    for (int error = 1; error < 134; ++error) {
      SCOPED_TRACE(std::strerror(error));
      fake.send_calls = 0;
      fake.polls = 0;
      fake.poll_result = 0;
      fake.send_error = [&](const msghdr&) { return error; };
      const auto a = MustOpen({}, FakeSyscalls());
      const auto b = MustOpen();
      const auto sent = Numbered(100, 1000, 10);
      Endpoint to = To(Loopback(SocketFamily::kV4), b->port());
      to.source.ip = Ip("127.0.0.1");
      const std::array<SendRun, 3> runs = {SendRun{sent, 1000, to, 1}, SendRun{sent, 1000, to, 2},
                                           SendRun{sent, 1000, to, 3}};
      std::array<SendOutcome, 3> outcomes;
      a->Send(runs, kNow, outcomes);
      for (const SendOutcome& outcome : outcomes) {
        EXPECT_EQ(outcome.datagrams_sent, 0u);
        EXPECT_EQ(outcome.error, error);
        EXPECT_FALSE(outcome.clear_source) << "without it the datagram did not pass either";
      }
      EXPECT_LE(fake.polls, 1) << "a full socket takes one wait of a call";
      EXPECT_LE(fake.send_calls, 3 * 200) << "bounded work";
      EXPECT_TRUE(a->gso_enabled()) << "innocent";
      EXPECT_EQ(a->degrade_count(), 0u);

      fake.send_error = [](const msghdr&) { return 0; };
      UdpReceiver receiver;
      EXPECT_EQ(SendOne(*a, runs[0]).datagrams_sent, 100u);
      EXPECT_EQ(Joined(ReceiveBytes(receiver, *b, SocketFamily::kV4, sent.size())), sent);
    }
  });
}

TEST(UdpSockets, AFullSocketBufferDelaysASendAndLosesNothingWhileItDrains) {
  InNamespace([] {
    const auto a = MustOpen({.gso = false});
    const int bytes = 16 << 10;
    ASSERT_EQ(::setsockopt(a->fd(SocketFamily::kV4), SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes), 0);
    const auto b = MustOpen();
    UdpReceiver receiver;
    const auto sent = Numbered(200, 1452, 1452);
    EXPECT_EQ(SendOne(*a, {sent, 1452, To(Loopback(SocketFamily::kV4), b->port()), 0}).datagrams_sent, 200u);
    EXPECT_EQ(Joined(ReceiveBytes(receiver, *b, SocketFamily::kV4, sent.size())), sent);
  });
}

TEST(UdpSockets, ARefusedDestinationDoesNotHarmItsNeighbours) {
  InNamespace([] {
    const auto a = MustOpen();
    const auto b = MustOpen();
    UdpReceiver receiver;
    const auto sent = Numbered(3, 200, 200);
    std::vector<SendRun> runs;
    for (int i = 0; i < 40; ++i) {
      // No route leads to the documentation prefixes here; the kernel says ENETUNREACH.
      const IpAddress ip = i % 4 == 0   ? Ip("127.0.0.1")
                           : i % 4 == 1 ? Ip("192.0.2.1")
                           : i % 4 == 2 ? Ip("::1")
                                        : Ip("2001:db8::1");
      runs.push_back({sent, 200, To(ip, b->port()), 0});
    }
    std::vector<SendOutcome> outcomes(runs.size());
    a->Send(runs, kNow, outcomes);
    for (std::size_t i = 0; i < runs.size(); ++i) {
      EXPECT_EQ(outcomes[i].error, i % 2 == 0 ? 0 : ENETUNREACH) << i;
      EXPECT_EQ(outcomes[i].datagrams_sent, i % 2 == 0 ? 3u : 0u) << i;
    }
    for (const SocketFamily family : kBoth) {
      EXPECT_EQ(CountDatagrams(ReceiveBytes(receiver, *b, family, 10 * sent.size())), 30u);
    }
  });
}

TEST(UdpSockets, ASourceThatIsGoneAndAnOffloadThatIsRefusedAreToldApart) {
  InNamespace([] {
    for (const int gso_error : {EIO, EINVAL, EMSGSIZE, 0}) {
      for (const int source_error : {EINVAL, EADDRNOTAVAIL, ENETUNREACH, EHOSTUNREACH, 0}) {
        SCOPED_TRACE(testing::Message() << "GSO " << gso_error << ", source " << source_error);
        fake.send_error = [&](const msghdr& m) {
          return HasSource(m) && source_error != 0 ? source_error : HasGso(m) ? gso_error : 0;
        };
        const auto a = MustOpen({}, FakeSyscalls());
        const auto b = MustOpen();
        UdpReceiver receiver;
        const auto sent = Numbered(100, 600, 600);
        Endpoint to = To(Ip("127.0.0.1"), b->port());
        to.source.ip = Ip("127.0.0.9");
        const SendOutcome outcome = SendOne(*a, {sent, 600, to, 0});
        EXPECT_EQ(outcome.datagrams_sent, 100u);
        EXPECT_EQ(outcome.error, 0);
        EXPECT_EQ(outcome.clear_source, source_error != 0);
        EXPECT_EQ(a->gso_enabled(), gso_error == 0 || gso_error == EMSGSIZE);
        EXPECT_EQ(a->degrade_count(), gso_error == 0 ? 0u : 1u);
        const auto arrived = ReceiveBytes(receiver, *b, SocketFamily::kV4, sent.size());
        ASSERT_EQ(Joined(arrived), sent);
        EXPECT_EQ(arrived.front().from.remote.ip, Ip(source_error != 0 ? "127.0.0.1" : "127.0.0.9"));
      }
    }
  });
}

// ----- addresses

TEST(UdpSockets, ReplyFromTheAddressThatWasWrittenTo_CONF88) {
  InNamespace([] {
    AddV4Address("10.9.0.1");
    AddV6Address("fd00::2");
    AddV6Address("fd00::3");
    const auto server = MustOpen();
    UdpReceiver receiver;
    for (const char* address : {"127.0.0.1", "127.0.0.2", "127.0.0.3", "10.9.0.1", "::1", "fd00::2", "fd00::3"}) {
      SCOPED_TRACE(address);
      const IpAddress ip = Ip(address);
      const SocketFamily family = ip.is_v4() ? SocketFamily::kV4 : SocketFamily::kV6;
      const PlainSocket client(Loopback(family));
      client.Send({ip, server->port(), 0}, "question");
      const auto arrived = ReceiveBytes(receiver, *server, family, 8);
      ASSERT_EQ(arrived.size(), 1u);
      EXPECT_EQ(arrived[0].from.remote, client.address());
      EXPECT_EQ(arrived[0].from.source.ip, ip);
      EXPECT_EQ(arrived[0].from.source.interface_index, if_nametoindex("lo"));
      const SendOutcome outcome = SendOne(*server, {arrived[0].data, 8, arrived[0].from, 0});
      EXPECT_EQ(outcome.datagrams_sent, 1u);
      EXPECT_FALSE(outcome.clear_source);
      const auto answer = client.Receive();
      ASSERT_TRUE(answer);
      EXPECT_EQ(answer->from.ip, ip);
      EXPECT_EQ(answer->text, "question");
    }
  });
}

TEST(UdpSockets, LetGoOfASourceAddressThatIsGone_CONF89) {
  InNamespace([] {
    const auto server = MustOpen();
    UdpReceiver receiver;
    for (const SocketFamily family : kBoth) {
      const bool v4 = family == SocketFamily::kV4;
      v4 ? AddV4Address("10.9.0.1") : AddV6Address("fd00::2");
      const PlainSocket client(Loopback(family));
      client.Send({Ip(v4 ? "10.9.0.1" : "fd00::2"), server->port(), 0}, "question");
      const auto arrived = ReceiveBytes(receiver, *server, family, 8);
      ASSERT_EQ(arrived.size(), 1u);
      v4 ? RemoveV4Address() : RemoveV6Address("fd00::2");

      const auto data = Numbered(45, 1000, 1000);
      for (const std::size_t size : {std::size_t{100}, data.size()}) {
        const Bytes part = Bytes(data).first(size);
        const SendOutcome outcome = SendOne(*server, {part, 1000, arrived[0].from, 0});
        EXPECT_EQ(outcome.datagrams_sent, DatagramCount(size, 1000));
        EXPECT_TRUE(outcome.clear_source);
        EXPECT_EQ(outcome.error, 0);
        for (std::size_t i = 0; i < DatagramCount(size, 1000); ++i) {
          const auto answer = client.Receive();
          ASSERT_TRUE(answer);
          EXPECT_EQ(answer->from.ip, Loopback(family));
        }
      }
      Endpoint without = arrived[0].from;
      without.source = {};
      const SendOutcome outcome = SendOne(*server, {data, 1000, without, 0});
      EXPECT_EQ(outcome.datagrams_sent, 45u);
      EXPECT_FALSE(outcome.clear_source);
      EXPECT_TRUE(server->gso_enabled());
      EXPECT_EQ(server->degrade_count(), 0u);
    }
  });
}

TEST(UdpSockets, ASourceOfTheOtherFamilyIsNotUsed) {
  InNamespace([] {
    const auto a = MustOpen();
    Endpoint to = To(Ip("127.0.0.1"), a->port());
    to.source.ip = Ip("::1");
    const auto data = Numbered(1, 64, 64);
    const SendOutcome outcome = SendOne(*a, {data, 64, to, 0});
    EXPECT_EQ(outcome.datagrams_sent, 1u);
    EXPECT_FALSE(outcome.clear_source);
  });
}

struct AskedLink {
  std::uint32_t link = 0;
  IpAddress source;
};
// What a message asks of the kernel by its PKTINFO; empty without one.
std::optional<AskedLink> AskedLinkOf(const msghdr& message) {
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&message), c)) {
    if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      in_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&info.ipi_spec_dst);
      return AskedLink{static_cast<std::uint32_t>(info.ipi_ifindex), IpAddress::V4({bytes, 4})};
    }
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      in6_pktinfo info;
      std::memcpy(&info, CMSG_DATA(c), sizeof info);
      return AskedLink{info.ipi6_ifindex, IpAddress::V6({info.ipi6_addr.s6_addr, 16})};
    }
  }
  return std::nullopt;
}

TEST(UdpSockets, NameTheLinkThatTheyAreBoundTo) {
  std::vector<std::optional<AskedLink>> asked;
  fake = {};
  fake.send_error = [&](const msghdr& message) {
    asked.push_back(AskedLinkOf(message));
    return 0;
  };
  const std::uint32_t lo = if_nametoindex("lo");
  std::optional<std::uint32_t> link = lo;
  const auto sockets = MustOpen({.choose_link = [&](const IpAddress&) { return link; }}, FakeSyscalls());
  const auto data = Numbered(3, 64, 64);
  const auto send_to = [&](const char* ip, const char* source, std::uint32_t source_link) {
    Endpoint to = To(Ip(ip), sockets->port());
    if (source != nullptr) to.source = {Ip(source), source_link};
    asked.clear();
    return SendOne(*sockets, {data, 64, to, 0});
  };
  for (const char* source : {static_cast<const char*>(nullptr), "127.0.0.2"}) {
    EXPECT_EQ(send_to("127.0.0.1", source, lo).datagrams_sent, 3u);
    for (const auto& one : asked) {
      ASSERT_TRUE(one);
      EXPECT_EQ(one->link, lo);
      EXPECT_EQ(one->source, Ip(source != nullptr ? source : "0.0.0.0"));
    }
  }
  EXPECT_EQ(send_to("127.0.0.1", "127.0.0.2", lo + 1).datagrams_sent, 3u);
  EXPECT_EQ(asked.at(0)->source, Ip("0.0.0.0")) << "an address of another link";
  // IPv6 holds on to the link only if it may choose the source.
  EXPECT_EQ(send_to("::1", "::1", lo).datagrams_sent, 3u);
  EXPECT_EQ(asked.at(0)->link, lo);
  EXPECT_EQ(asked.at(0)->source, Ip("::"));

  link = 0;
  for (const char* ip : {"127.0.0.1", "::1"}) {
    const SendOutcome refused = send_to(ip, nullptr, 0);
    EXPECT_EQ(refused.datagrams_sent, 0u);
    EXPECT_EQ(refused.error, ENETUNREACH);
    EXPECT_FALSE(refused.clear_source);
    EXPECT_TRUE(asked.empty()) << "not even asked for";
  }
  link = std::nullopt;
  EXPECT_EQ(send_to("127.0.0.1", nullptr, 0).datagrams_sent, 3u);
  EXPECT_FALSE(asked.at(0));
}

TEST(UdpSockets, HoldOnToTheLinkOfASourceThatTheRouteLeadsBy) {
  std::vector<std::optional<AskedLink>> asked;
  fake = {};
  fake.send_error = [&](const msghdr& message) {
    asked.push_back(AskedLinkOf(message));
    return asked.size() == 1 && asked[0]->link != 0 && asked[0]->source == Ip("127.0.0.9") ? ENETUNREACH : 0;
  };
  const std::uint32_t lo = if_nametoindex("lo");
  const auto sockets = MustOpen({}, FakeSyscalls());
  const auto data = Numbered(1, 64, 64);
  const auto send_to = [&](const char* ip, const char* source, bool holds_link) {
    asked.clear();
    Endpoint to = To(Ip(ip), sockets->port());
    to.source = {Ip(source), lo};
    to.holds_link = holds_link;
    return SendOne(*sockets, {data, 64, to, 0});
  };
  EXPECT_EQ(send_to("127.0.0.1", "127.0.0.2", true).datagrams_sent, 1u);
  EXPECT_EQ(asked.at(0)->link, lo);
  EXPECT_EQ(asked.at(0)->source, Ip("127.0.0.2"));
  EXPECT_EQ(send_to("127.0.0.1", "127.0.0.2", false).datagrams_sent, 1u);
  EXPECT_EQ(asked.at(0)->link, 0u);
  EXPECT_EQ(send_to("::1", "::1", true).datagrams_sent, 1u);
  EXPECT_EQ(asked.at(0)->link, 0u) << "IPv6 would take it for a wish";
  // The link is gone: the datagram follows the route, without what belonged to the link.
  const SendOutcome outcome = send_to("127.0.0.1", "127.0.0.9", true);
  EXPECT_EQ(outcome.datagrams_sent, 1u);
  EXPECT_TRUE(outcome.clear_source);
  EXPECT_FALSE(asked.at(1));
}

TEST(UdpSockets, ADestinationWithoutALinkDoesNotHarmItsNeighbours) {
  fake = {};
  const auto to = [](const char* ip, std::uint16_t port) { return To(Ip(ip), port); };
  const auto sockets = MustOpen(
      {.choose_link = [](const IpAddress& ip) { return std::optional<std::uint32_t>(ip == Ip("127.0.0.2") ? 0 : 1); }},
      FakeSyscalls());
  const auto data = Numbered(1, 64, 64);
  std::vector<SendRun> runs;
  for (const char* ip : {"127.0.0.2", "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.2"}) {
    runs.push_back({data, 64, to(ip, sockets->port()), 0});
  }
  std::vector<SendOutcome> outcomes(runs.size());
  sockets->Send(runs, kNow, outcomes);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    const bool leads = i % 2 == 1;
    EXPECT_EQ(outcomes[i].datagrams_sent, leads ? 1u : 0u) << i;
    EXPECT_EQ(outcomes[i].error, leads ? 0 : ENETUNREACH) << i;
  }
}

TEST(UdpSockets, KeepTheScopeOfALinkLocalPeer_CONF90) {
  InNamespace([] {
    AddV6Address("fe80::1");
    AddV6Address("fe80::2");
    const std::uint32_t lo = if_nametoindex("lo");
    const auto server = MustOpen();
    UdpReceiver receiver;
    const PlainSocket client(Ip("fe80::2"), lo);
    client.Send({Ip("fe80::1"), server->port(), lo}, "question");
    const auto arrived = ReceiveBytes(receiver, *server, SocketFamily::kV6, 8);
    ASSERT_EQ(arrived.size(), 1u);
    EXPECT_EQ(arrived[0].from.remote, client.address());
    EXPECT_EQ(arrived[0].from.remote.scope_id, lo);
    EXPECT_EQ(arrived[0].from.source.ip, Ip("fe80::1"));

    Endpoint to = arrived[0].from;
    for (const bool with_source : {true, false}) {
      if (!with_source) to.source = {};
      EXPECT_EQ(SendOne(*server, {arrived[0].data, 8, to, 0}).datagrams_sent, 1u);
      const auto answer = client.Receive();
      ASSERT_TRUE(answer);
      EXPECT_TRUE(!with_source || answer->from.ip == Ip("fe80::1"));
    }
    to.remote.scope_id = lo + 1000;
    EXPECT_EQ(SendOne(*server, {arrived[0].data, 8, to, 0}).datagrams_sent, 0u) << "the scope decides";
  });
}

TEST(UdpSockets, SendEachDatagramToItsOwnDestination) {
  // wireguard-go once sent to a destination that another send had just filled in: many peers, both families in turn,
  // and two threads on one pair of sockets.
  InNamespace([] {
    constexpr std::size_t kPeers = 64;
    constexpr std::size_t kRounds = 300;
    constexpr std::size_t kThreads = 2;
    const auto sockets = MustOpen();
    std::vector<PlainSocket> peers;
    for (std::size_t i = 0; i < kPeers; ++i) peers.emplace_back(Loopback(kBoth[i % 2]));

    std::array<std::size_t, kThreads> sent{};
    std::vector<std::jthread> threads;
    for (std::size_t t = 0; t < kThreads; ++t) {
      threads.emplace_back([&, t] {
        std::vector<std::vector<std::uint8_t>> payloads;
        for (std::size_t i = 0; i < kPeers; ++i) {
          payloads.emplace_back(1 + i % 3 * 40, static_cast<std::uint8_t>(i));  // one to three datagrams of up to 40
        }
        std::vector<SendOutcome> outcomes(kPeers);
        for (std::size_t round = 0; round < kRounds; ++round) {
          std::vector<SendRun> runs;
          for (std::size_t i = 0; i < kPeers; ++i) {
            const std::size_t peer = (i * (t == 0 ? 1 : 5) + round) % kPeers;
            Endpoint to;
            to.remote = peers[peer].address();
            runs.push_back({payloads[peer], 40, to, static_cast<std::uint8_t>(peer % 4)});
          }
          sockets->Send(runs, kNow, outcomes);
          for (const SendOutcome& outcome : outcomes) sent[t] += outcome.datagrams_sent;
        }
      });
    }
    threads.clear();  // what is sent fits into the receive buffers
    std::size_t right = 0;
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < kPeers; ++i) {
      while (const auto datagram = peers[i].Receive(0)) {
        const bool ok = datagram->tos == static_cast<int>(i % 4) &&
                        datagram->text.find_first_not_of(static_cast<char>(i)) == std::string::npos;
        ++(ok ? right : wrong);
      }
    }
    EXPECT_EQ(wrong, 0u);
    EXPECT_EQ(right, sent[0] + sent[1]);
    std::size_t expected = 0;
    for (std::size_t i = 0; i < kPeers; ++i) expected += kThreads * kRounds * DatagramCount(1 + i % 3 * 40, 40);
    EXPECT_EQ(right, expected);
  });
}

// ----- the outer header

TEST(UdpSockets, SendTheTosAskedForAndReportTheEcnBits_CONF83_CONF84) {
  InNamespace([] {
    const auto a = MustOpen();
    const auto b = MustOpen();
    UdpReceiver receiver;
    for (const SocketFamily family : kBoth) {
      const PlainSocket plain(Loopback(family));
      const auto data = Numbered(5, 300, 300);
      for (const int tos_value : {0x88, 0, 1, 2, 3, 0xba, 0}) {
        const auto tos = static_cast<std::uint8_t>(tos_value);
        for (const std::size_t size : {std::size_t{300}, data.size()}) {
          const Bytes part = Bytes(data).first(size);
          SendOne(*a, {part, 300, To(Loopback(family), b->port()), tos});
          const auto arrived = ReceiveBytes(receiver, *b, family, size);
          ASSERT_EQ(arrived.size(), 1u);
          EXPECT_EQ(arrived[0].ecn, tos & 3);
          SendOne(*a, {part, 300, To(Loopback(family), plain.address().port), tos});
          for (std::size_t i = 0; i < DatagramCount(size, 300); ++i) {
            const auto datagram = plain.Receive();
            ASSERT_TRUE(datagram);
            EXPECT_EQ(datagram->tos, tos);
          }
        }
      }
    }
  });
}

TEST(UdpSockets, LetTheOuterPacketBeFragmentedAndChecksumIt_CONF86) {
  InNamespace([] {
    const Fd sniffer(::socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL)));
    ASSERT_TRUE(sniffer) << std::strerror(errno);
    SetLoopbackMtu(1280);
    const auto a = MustOpen();
    const auto b = MustOpen();
    UdpReceiver receiver;
    for (const SocketFamily family : kBoth) {
      int off = -1;
      socklen_t length = sizeof off;
      ASSERT_EQ(::getsockopt(a->fd(family), SOL_SOCKET, SO_NO_CHECK, &off, &length), 0);
      EXPECT_EQ(off, 0);
      if (family == SocketFamily::kV6) {
        ASSERT_EQ(::getsockopt(a->fd(family), IPPROTO_UDP, 101 /* UDP_NO_CHECK6_TX */, &off, &length), 0);
        EXPECT_EQ(off, 0);
      }

      const auto small = Numbered(1, 600, 600);
      const auto large = Numbered(1, 1452, 1452);
      EXPECT_EQ(SendOne(*a, {small, 600, To(Loopback(family), b->port()), 0}).datagrams_sent, 1u);
      EXPECT_EQ(SendOne(*a, {large, 1452, To(Loopback(family), b->port()), 0}).datagrams_sent, 1u);
      EXPECT_EQ(ReceiveBytes(receiver, *b, family, 2052).size(), 2u);

      int whole = 0;
      int fragments = 0;
      std::array<std::uint8_t, 2048> packet;
      sockaddr_ll from{};
      for (;;) {
        length = sizeof from;
        const ssize_t got = ::recvfrom(sniffer.get(), packet.data(), packet.size(), MSG_DONTWAIT,
                                       reinterpret_cast<sockaddr*>(&from), &length);
        if (got < 0) break;
        if (from.sll_pkttype != PACKET_OUTGOING) continue;
        if (family == SocketFamily::kV4) {
          if (packet[0] != 0x45 || packet[9] != IPPROTO_UDP) continue;
          const int fragment_field = packet[6] << 8 | packet[7];
          EXPECT_EQ(fragment_field & 0x4000, 0) << "don't fragment";
          EXPECT_EQ(packet[8], 64) << "the host's default TTL";
          const bool is_fragment = (fragment_field & 0x3fff) != 0;
          ++(is_fragment ? fragments : whole);
          EXPECT_TRUE(is_fragment || (packet[26] | packet[27]) != 0) << "UDP checksum";
        } else {
          if (packet[0] >> 4 != 6 || (packet[6] != IPPROTO_UDP && packet[6] != IPPROTO_FRAGMENT)) continue;
          EXPECT_EQ(packet[7], 64) << "the host's default hop limit";
          ++(packet[6] == IPPROTO_FRAGMENT ? fragments : whole);
          EXPECT_TRUE(packet[6] != IPPROTO_UDP || (packet[46] | packet[47]) != 0) << "UDP checksum";
        }
      }
      EXPECT_EQ(whole, 1);
      EXPECT_EQ(fragments, 2);
    }
  });
}

TEST(UdpSockets, MarkEveryDatagramAndChangeTheMarkWhileOpen_CONF92) {
  InNamespace([] {
    // The local table moves behind a rule that refuses mark 42, so that the mark decides even about the loopback.
    if (std::system("ip rule add pref 10 lookup local && ip rule add pref 1 fwmark 42 unreachable && "
                    "ip rule del pref 0 && ip -6 rule add pref 10 lookup local && "
                    "ip -6 rule add pref 1 fwmark 42 unreachable && ip -6 rule del pref 0") != 0) {
      GTEST_SKIP() << "needs `ip`";
    }
    const auto sockets = MustOpen({}, {}, 0, 42);
    const auto b = MustOpen();
    UdpReceiver receiver;
    for (const std::uint32_t mark : {42u, 7u, 42u, 0u}) {
      ASSERT_TRUE(sockets->SetMark(mark));
      for (const SocketFamily family : kBoth) {
        std::uint32_t is = 0;
        socklen_t length = sizeof is;
        ASSERT_EQ(::getsockopt(sockets->fd(family), SOL_SOCKET, SO_MARK, &is, &length), 0);
        EXPECT_EQ(is, mark);
        const auto data = Numbered(20, 100, 100);
        for (const std::size_t size : {std::size_t{100}, data.size()}) {
          const SendOutcome outcome =
              SendOne(*sockets, {Bytes(data).first(size), 100, To(Loopback(family), b->port()), 0});
          const std::size_t expected = mark == 42 ? 0 : size / 100;
          EXPECT_EQ(outcome.datagrams_sent, expected);
          EXPECT_EQ(outcome.error != 0, mark == 42) << std::strerror(outcome.error);
          EXPECT_EQ(expected == 0 ? 0 : CountDatagrams(ReceiveBytes(receiver, *b, family, size)), expected);
        }
      }
    }
  });
}

// ----- opening

TEST(UdpSockets, BindOnePortInBothFamilies_CONF91) {
  InNamespace([] {
    const auto any = MustOpen();
    EXPECT_NE(any->port(), 0);
    const auto fixed = MustOpen({}, {}, 51820);
    EXPECT_EQ(fixed->port(), 51820);
    for (const SocketFamily family : kBoth) {
      for (const auto& sockets : {any, fixed}) {
        sockaddr_storage name;
        socklen_t length = sizeof name;
        ASSERT_EQ(::getsockname(sockets->fd(family), reinterpret_cast<sockaddr*>(&name), &length), 0);
        EXPECT_EQ(SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&name))->port, sockets->port());
        EXPECT_NE(::fcntl(sockets->fd(family), F_GETFL) & O_NONBLOCK, 0);
        EXPECT_NE(::fcntl(sockets->fd(family), F_GETFD) & FD_CLOEXEC, 0);
        int bytes = 0;
        length = sizeof bytes;
        ASSERT_EQ(::getsockopt(sockets->fd(family), SOL_SOCKET, SO_RCVBUF, &bytes, &length), 0);
        EXPECT_EQ(bytes, 2 * kSocketBufferBytes) << "the kernel reports twice what was asked for";
      }
    }
  });
}

TEST(UdpSockets, FindThePortThatIsFreeInBothFamilies_CONF91) {
  InNamespace([] {
    WriteSysctl("net/ipv4/ip_local_port_range", "40000 40003");
    std::vector<Fd> taken;
    const auto take = [&](int port) {
      Fd& fd = taken.emplace_back(::socket(AF_INET6, SOCK_DGRAM, 0));
      const int on = 1;
      ::setsockopt(fd.get(), IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
      sockaddr_storage name;
      const socklen_t length = SocketAddress{Ip("::"), static_cast<std::uint16_t>(port), 0}.ToSockaddr(name);
      ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&name), length), 0);
    };
    for (const int port : {40000, 40001, 40003}) take(port);
    EXPECT_EQ(MustOpen()->port(), 40002);  // missed by chance once in 3 * 10^12 runs: (3/4)^100

    take(40002);
    const std::size_t before = OpenDescriptors();
    const auto none = UdpSockets::Open(0, 0, {});
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, EADDRINUSE);
    EXPECT_EQ(OpenDescriptors(), before);
  });
}

TEST(UdpSockets, ABusyPortIsAnErrorAndLeavesNothingOpen) {
  InNamespace([] {
    for (const SocketFamily family : kBoth) {
      const PlainSocket other(Loopback(family));
      const std::size_t before = OpenDescriptors();
      const auto busy = UdpSockets::Open(other.address().port, 0, {});
      ASSERT_FALSE(busy);
      EXPECT_EQ(busy.error().code, EADDRINUSE);
      EXPECT_NE(busy.error().message.find(std::to_string(other.address().port)), std::string::npos);
      EXPECT_NE(busy.error().message.find("ListenPort"), std::string::npos) << "says what to change";
      EXPECT_EQ(OpenDescriptors(), before);
    }
  });
}

TEST(UdpSockets, GoOnWithOneFamilyWhereTheKernelHasNoOther_CONF91) {
  InNamespace([] {
    for (const SocketFamily family : kBoth) {
      const bool v4 = family == SocketFamily::kV4;
      const SocketFamily other = v4 ? SocketFamily::kV6 : SocketFamily::kV4;
      for (const bool by_option : {true, false}) {
        fake.missing_family = by_option ? -1 : v4 ? AF_INET6 : AF_INET;
        const UdpOptions options{.ipv4 = !by_option || v4, .ipv6 = !by_option || !v4};
        const auto sockets = MustOpen(options, FakeSyscalls());
        EXPECT_NE(sockets->port(), 0);
        EXPECT_GE(sockets->fd(family), 0);
        EXPECT_EQ(sockets->fd(other), -1);
        UdpReceiver receiver;
        std::span<ReceivedRun> runs;
        EXPECT_EQ(receiver.Receive(*sockets, other, runs), ReceiveStatus::kWouldBlock);
        const auto data = Numbered(3, 100, 100);
        const std::array<SendRun, 3> sent = {SendRun{data, 100, To(Loopback(family), sockets->port()), 0},
                                             SendRun{data, 100, To(Loopback(other), sockets->port()), 0},
                                             SendRun{data, 100, To(Loopback(family), sockets->port()), 0}};
        std::array<SendOutcome, 3> outcomes;
        sockets->Send(sent, kNow, outcomes);
        EXPECT_EQ(outcomes[0].datagrams_sent + outcomes[2].datagrams_sent, 6u);
        EXPECT_EQ(outcomes[1].error, EAFNOSUPPORT);
        EXPECT_EQ(CountDatagrams(ReceiveBytes(receiver, *sockets, family, 600)), 6u);
      }
    }
    EXPECT_FALSE(UdpSockets::Open(0, 0, {.ipv4 = false, .ipv6 = false}));
    fake.missing_family = AF_INET;
    const auto none = UdpSockets::Open(0, 0, {.ipv6 = false}, FakeSyscalls());
    ASSERT_FALSE(none);
    EXPECT_EQ(none.error().code, EAFNOSUPPORT);
  });
}

TEST(UdpSockets, WorkOverIPv4WhereIPv6IsDisabledAtRunTime_CONF91) {
  InNamespace([] {
    WriteSysctl("net/ipv6/conf/all/disable_ipv6", "1");
    const auto sockets = MustOpen();
    UdpReceiver receiver;
    const auto data = Numbered(30, 1000, 100);
    const std::array<SendRun, 2> sent = {SendRun{data, 1000, To(Ip("2001:db8::1"), sockets->port()), 0},
                                         SendRun{data, 1000, To(Ip("127.0.0.1"), sockets->port()), 0}};
    std::array<SendOutcome, 2> outcomes;
    sockets->Send(sent, kNow, outcomes);
    EXPECT_NE(outcomes[0].error, 0);
    EXPECT_EQ(outcomes[1].datagrams_sent, 30u);
    EXPECT_EQ(Joined(ReceiveBytes(receiver, *sockets, SocketFamily::kV4, data.size())), data);
    EXPECT_TRUE(sockets->gso_enabled());
  });
}

TEST(UdpSockets, AMarkWithoutPrivilegeIsAnErrorThatNamesTheCapability) {
  InNamespace([] {
    fake.refused_option = SO_MARK;
    const std::size_t before = OpenDescriptors();
    const auto refused = UdpSockets::Open(0, 42, {}, FakeSyscalls());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, EPERM);
    EXPECT_NE(refused.error().message.find("CAP_NET_ADMIN"), std::string::npos);
    EXPECT_EQ(OpenDescriptors(), before);
    const auto sockets = MustOpen({}, FakeSyscalls());
    const Status status = sockets->SetMark(42);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, EPERM);
  });
}

TEST(UdpSockets, SmallBuffersAreNoErrorWithoutPrivilege) {
  InNamespace([] {
    fake.refused_option = SO_RCVBUFFORCE;
    EXPECT_TRUE(UdpSockets::Open(0, 0, {}, FakeSyscalls()));
    fake.refused_option = SO_SNDBUF;
    EXPECT_TRUE(UdpSockets::Open(0, 0, {}, FakeSyscalls()));
  });
}

// ----- receiving

TEST(UdpReceiver, AThousandErrorsDoNotEndReceiving) {
  InNamespace([] {
    const auto sockets = MustOpen({}, FakeSyscalls());
    UdpReceiver receiver;
    std::span<ReceivedRun> runs;
    for (int i = 0; i < 1000; ++i) {
      fake.receive_error = 1 + i % 133;
      const bool is_empty = fake.receive_error == EAGAIN;
      ASSERT_EQ(receiver.Receive(*sockets, SocketFamily::kV4, runs),
                is_empty ? ReceiveStatus::kWouldBlock : ReceiveStatus::kError);
      ASSERT_TRUE(runs.empty());
      ASSERT_TRUE(is_empty || receiver.last_error() == fake.receive_error);
    }
    fake.receive_error = 0;
    const auto data = Numbered(10, 1000, 100);
    SendOne(*sockets, {data, 1000, To(Ip("127.0.0.1"), sockets->port()), 0});
    EXPECT_EQ(Joined(ReceiveBytes(receiver, *sockets, SocketFamily::kV4, data.size())), data);
  });
}

TEST(UdpReceiver, IcmpErrorsDoNotReachTheSockets) {
  InNamespace([] {
    const auto sockets = MustOpen();
    UdpReceiver receiver;
    std::span<ReceivedRun> runs;
    for (const SocketFamily family : kBoth) {
      std::uint16_t closed;
      {
        const PlainSocket gone(Loopback(family));
        closed = gone.address().port;
      }
      const auto data = Numbered(2, 100, 100);
      for (int i = 0; i < 10; ++i) {  // each is answered by "port unreachable"
        const SendOutcome outcome = SendOne(*sockets, {data, 100, To(Loopback(family), closed), 0});
        EXPECT_EQ(outcome.datagrams_sent, 2u);
        EXPECT_EQ(outcome.error, 0);
        EXPECT_EQ(receiver.Receive(*sockets, family, runs), ReceiveStatus::kWouldBlock);
      }
    }
  });
}

TEST(UdpReceiver, FlagsWhatWasCutShort) {
  InNamespace([] {
    const auto sockets = MustOpen({}, FakeSyscalls());
    UdpReceiver receiver;
    const auto data = Numbered(10, 1000, 1000);
    const SendRun run{data, 1000, To(Ip("127.0.0.1"), sockets->port()), 0};
    const auto truncated = [&](std::size_t bytes, std::size_t control, std::size_t expected) {
      fake.receive_bytes = bytes;
      fake.receive_control = control;
      SendOne(*sockets, run);
      const auto arrived = ReceiveBytes(receiver, *sockets, SocketFamily::kV4, expected);
      EXPECT_EQ(arrived.size(), 1u);
      return arrived.size() == 1 && arrived[0].truncated;
    };
    EXPECT_TRUE(truncated(4000, 0, 4000)) << "larger than the buffer";
    EXPECT_TRUE(truncated(0, CMSG_SPACE(sizeof(in_pktinfo)), data.size())) << "the segment size is missing";
    EXPECT_FALSE(truncated(0, 0, data.size()));
  });
}

TEST(UdpReceiver, LeavesOutEmptyDatagrams) {
  InNamespace([] {
    const auto sockets = MustOpen();
    UdpReceiver receiver;
    const PlainSocket client(Ip("127.0.0.1"));
    const SocketAddress to{Ip("127.0.0.1"), sockets->port(), 0};
    client.Send(to, "");
    client.Send(to, "x");
    client.Send(to, "");
    std::span<ReceivedRun> runs;
    ASSERT_EQ(receiver.Receive(*sockets, SocketFamily::kV4, runs), ReceiveStatus::kOk);
    ASSERT_EQ(runs.size(), 1u);
    EXPECT_EQ(runs[0].data.size(), 1u);
    EXPECT_EQ(receiver.Receive(*sockets, SocketFamily::kV4, runs), ReceiveStatus::kWouldBlock);
    EXPECT_TRUE(runs.empty());
  });
}

TEST(UdpReceiver, LeavesRoomAroundEveryRun) {
  InNamespace([] {
    const auto sockets = MustOpen();
    UdpReceiver receiver;
    const auto data = Numbered(1, 65507, 65507);
    const SendRun run{data, data.size(), To(Ip("127.0.0.1"), sockets->port()), 0};
    for (std::size_t i = 0; i < kReceiveBuffers; ++i) ASSERT_EQ(SendOne(*sockets, run).datagrams_sent, 1u);
    std::span<ReceivedRun> runs;
    ASSERT_EQ(receiver.Receive(*sockets, SocketFamily::kV4, runs), ReceiveStatus::kOk);
    ASSERT_EQ(runs.size(), kReceiveBuffers);
    for (const ReceivedRun& received : runs) {
      std::memset(received.data.data() - kReceiveHeadroom, 0xee, kReceiveHeadroom);
      std::memset(received.data.data() + received.data.size(), 0xee, kReceiveTailroom);
    }
    for (const ReceivedRun& received : runs) EXPECT_TRUE(std::ranges::equal(received.data, data));
  });
}

}  // namespace
}  // namespace adit
