// Everything here happens in network namespaces that the test's own child process makes; they end with it.
//
//   client --- [a0] ==pump== [b0] --- server      a0 10.77.0.1 fd77::1    b0 10.77.0.2 fd77::2
//         namespace A                 namespace B
//
// The pump is what the engine does without the tunnel: read, split, coalesce, write.
#include "tun/device.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <linux/ipv6.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <functional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "tun/split.h"
#include "tun/test_packet.h"

namespace adit {
namespace {

// ---- errors without a kernel -------------------------------------------------------------------------------------

// What the injected system calls do next, and what they saw.
struct Script {
  int read_error = 0;
  int write_error = 0;        // for every write ...
  int super_write_error = 0;  // ... or only for those with a GSO type
  std::vector<VirtioHeader> headers;
  std::vector<test::Packet> packets;
};
Script* script = nullptr;

ssize_t ScriptedRead(int, const iovec*, int) {
  errno = script->read_error;
  return -1;
}

ssize_t ScriptedWrite(int, const iovec* parts, int count) {
  VirtioHeader header;
  std::memcpy(&header, parts[0].iov_base, sizeof(header));
  const int error = header.gso_type != kVirtioGsoNone && script->super_write_error != 0 ? script->super_write_error
                                                                                        : script->write_error;
  if (error != 0) {
    errno = error;
    return -1;
  }
  script->headers.push_back(header);
  test::Packet packet;
  for (int i = 1; i < count; ++i) {
    const auto* from = static_cast<const std::uint8_t*>(parts[i].iov_base);
    packet.insert(packet.end(), from, from + parts[i].iov_len);
  }
  script->packets.push_back(packet);
  return static_cast<ssize_t>(packet.size() + sizeof(header));
}

// ---- children in namespaces --------------------------------------------------------------------------------------

const char* WhyNoTun() {
  if (geteuid() != 0) return "needs root";
  const Fd fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  return fd ? nullptr : "needs /dev/net/tun";
}

void Require(bool ok, const std::string& what) {
  if (!ok) throw std::runtime_error(fmt::format("{} (errno {}: {})", what, errno, std::strerror(errno)));
}

template <typename T>
void RequireEqual(const T& got, const T& want, const std::string& what) {
  if (!(got == want)) throw std::runtime_error(what);
}

template <typename T>
T Take(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(*result);
}

void EnterNewNamespace() { Require(unshare(CLONE_NEWNET) == 0, "unshare"); }

// Runs `body` in a child in a network namespace of its own; fails the test with what the body threw.
void InNamespace(const std::function<void()>& body) {
  int report[2];
  ASSERT_EQ(pipe2(report, O_CLOEXEC), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::string failure;
    try {
      EnterNewNamespace();
      body();
    } catch (const std::exception& error) {
      failure = error.what();
    }
    if (!failure.empty()) (void)!write(report[1], failure.data(), failure.size());
    _exit(failure.empty() ? 0 : 1);
  }
  close(report[1]);
  std::string failure;
  char some[512];
  for (ssize_t got; (got = read(report[0], some, sizeof(some))) > 0;)
    failure.append(some, static_cast<std::size_t>(got));
  close(report[0]);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << failure << " (wait status " << status << ")";
}

ifreq Request(const std::string& name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), name.size());
  return request;
}

void SetLinkUp(const std::string& name, bool up) {
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = Request(name);
  request.ifr_flags = static_cast<short>(up ? IFF_UP : 0);
  Require(ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0, "SIOCSIFFLAGS");
}

void Configure(const std::string& name, int host) {
  const Fd v4(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = Request(name);
  auto* address = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(0x0a4d0000u + static_cast<unsigned>(host));
  Require(ioctl(v4.get(), SIOCSIFADDR, &request) == 0, "SIOCSIFADDR");
  address->sin_addr.s_addr = htonl(0xffffff00);
  Require(ioctl(v4.get(), SIOCSIFNETMASK, &request) == 0, "SIOCSIFNETMASK");
  SetLinkUp(name, true);
  const Fd v6(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!v6) return;
  in6_ifreq six{};
  inet_pton(AF_INET6, fmt::format("fd77::{}", host).c_str(), &six.ifr6_addr);
  six.ifr6_prefixlen = 64;
  six.ifr6_ifindex = static_cast<int>(if_nametoindex(name.c_str()));
  Require(ioctl(v6.get(), SIOCSIFADDR, &six) == 0, "SIOCSIFADDR of IPv6");
  // The kernel takes an address into use a moment later, on a work queue.
  sockaddr_in6 own{};
  own.sin6_family = AF_INET6;
  own.sin6_addr = six.ifr6_addr;
  for (int i = 0; bind(v6.get(), reinterpret_cast<sockaddr*>(&own), sizeof(own)) != 0; ++i) {
    Require(i < 500, "the IPv6 address does not come into use");
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
}

void DeleteLink(const std::string& name) {
  struct {
    nlmsghdr header;
    ifinfomsg link;
  } request{};
  request.header.nlmsg_len = sizeof(request);
  request.header.nlmsg_type = RTM_DELLINK;
  request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
  request.link.ifi_index = static_cast<int>(if_nametoindex(name.c_str()));
  const Fd socket(::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE));
  Require(send(socket.get(), &request, sizeof(request), 0) == sizeof(request), "send RTM_DELLINK");
  char answer[512];
  Require(recv(socket.get(), answer, sizeof(answer), 0) > 0, "answer to RTM_DELLINK");
  const auto* header = reinterpret_cast<const nlmsghdr*>(answer);
  const auto* error = static_cast<const nlmsgerr*>(NLMSG_DATA(header));
  errno = -error->error;
  Require(header->nlmsg_type == NLMSG_ERROR && error->error == 0, "RTM_DELLINK");
}

struct PumpCounts {
  std::atomic<std::uint64_t> super_reads = 0;  // reads with a GSO type
  std::atomic<std::uint64_t> packets = 0;      // after splitting
  std::atomic<std::uint64_t> writes = 0;       // after coalescing
  std::atomic<std::uint64_t> failed_splits = 0;
  std::atomic<std::uint64_t> failed_writes = 0;
};

// One direction, until `stop`.
void Pump(TunDevice& from, TunDevice& to, const std::atomic<bool>& stop, PumpCounts& counts) {
  constexpr std::size_t kHeadroom = 64;
  std::vector<std::uint8_t> in(kHeadroom + kMaxPacketBytes);
  std::vector<std::uint8_t> out(std::size_t{8} << 20);
  Coalescer coalescer({});
  while (!stop) {
    pollfd ready{.fd = from.queue_fd(0), .events = POLLIN, .revents = 0};
    poll(&ready, 1, 20);
    const TunRead read = from.Read(0, in, kHeadroom);
    if (read.status != IoStatus::kOk) continue;
    if (read.header.gso_type != kVirtioGsoNone) ++counts.super_reads;
    Splitter splitter(read.header, read.packet);
    if (splitter.error() != SplitError::kNone) ++counts.failed_splits;
    const auto offloads = to.offloads();
    coalescer.set_options({.tcp = offloads.tso, .udp = offloads.uso});
    std::size_t at = 0;
    while (const auto segment = splitter.Next()) {
      const MutableBytes packet = MutableBytes(out).subspan(at, segment->size());
      std::ranges::copy(segment->head, packet.begin());
      std::ranges::copy(segment->body, packet.begin() + static_cast<std::ptrdiff_t>(segment->head.size()));
      at += packet.size();
      coalescer.Add(packet);
      ++counts.packets;
    }
    for (TunWrite& write : coalescer.Finish()) {
      ++counts.writes;
      if (to.Write(0, write) != IoStatus::kOk) ++counts.failed_writes;
    }
    coalescer.Clear();
  }
}

// The byte at `position` of the stream that the client sends; the server knows it too.
std::uint8_t StreamByte(std::uint64_t position) {
  return static_cast<std::uint8_t>((position * 0x9e3779b97f4a7c15) >> 56);
}

Fd Socket(int family, int type) {
  Fd socket(::socket(family, type | SOCK_CLOEXEC, 0));
  Require(static_cast<bool>(socket), "socket");
  const timeval patience{.tv_sec = 10, .tv_usec = 0};
  setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  return socket;
}

socklen_t Address(int family, int host, sockaddr_storage& out) {
  out = {};
  if (family == AF_INET) {
    auto& v4 = reinterpret_cast<sockaddr_in&>(out);
    v4.sin_family = AF_INET;
    v4.sin_port = htons(5201);
    v4.sin_addr.s_addr = htonl(0x0a4d0000u + static_cast<unsigned>(host));
    return sizeof(v4);
  }
  auto& v6 = reinterpret_cast<sockaddr_in6&>(out);
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(5201);
  inet_pton(AF_INET6, fmt::format("fd77::{}", host).c_str(), &v6.sin6_addr);
  return sizeof(v6);
}

void SendStream(const Fd& socket, std::uint64_t bytes) {
  std::vector<std::uint8_t> chunk(1 << 18);
  for (std::uint64_t at = 0; at < bytes;) {
    const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), bytes - at));
    for (std::size_t i = 0; i < size; ++i) chunk[i] = StreamByte(at + i);
    for (std::size_t sent = 0; sent < size;) {
      const ssize_t now = send(socket.get(), chunk.data() + sent, size - sent, MSG_NOSIGNAL);
      Require(now > 0, "send");
      sent += static_cast<std::size_t>(now);
    }
    at += size;
  }
  shutdown(socket.get(), SHUT_WR);
}

void ReceiveStream(const Fd& socket, std::uint64_t bytes) {
  std::vector<std::uint8_t> chunk(1 << 18);
  std::uint64_t at = 0;
  for (;;) {
    const ssize_t got = recv(socket.get(), chunk.data(), chunk.size(), 0);
    Require(got >= 0, fmt::format("recv after {} bytes", at));
    if (got == 0) break;
    for (std::size_t i = 0; i < static_cast<std::size_t>(got); ++i) {
      if (chunk[i] != StreamByte(at + i)) throw std::runtime_error(fmt::format("byte {} differs", at + i));
    }
    at += static_cast<std::uint64_t>(got);
  }
  RequireEqual(at, bytes, fmt::format("the stream ended after {} bytes", at));
}

// Both devices, in namespaces of their own, with pumps running. Call in a fresh namespace; leaves the thread in B.
class Rig {
 public:
  explicit Rig(const TunOptions& options) : a_(Take(TunDevice::Create("a0", options))) {
    Configure("a0", 1);
    for (const int family : {AF_INET, AF_INET6}) {
      client_tcp_[family == AF_INET6] = Socket(family, SOCK_STREAM);
      client_udp_[family == AF_INET6] = Socket(family, SOCK_DGRAM);
    }
    EnterNewNamespace();
    b_ = Take(TunDevice::Create("b0", options));
    Configure("b0", 2);
    forth_thread_ = std::thread([this] { Pump(*a_, *b_, stop_, forth_); });
    back_thread_ = std::thread([this] { Pump(*b_, *a_, stop_, back_); });
  }
  ~Rig() {
    stop_ = true;
    forth_thread_.join();
    back_thread_.join();
  }

  // Client to server and, in the same connection, back.
  void Transfer(int family, std::uint64_t bytes) {
    const Fd listener = Socket(family, SOCK_STREAM);
    sockaddr_storage server;
    const socklen_t size = Address(family, 2, server);
    Require(bind(listener.get(), reinterpret_cast<sockaddr*>(&server), size) == 0, "bind");
    Require(listen(listener.get(), 1) == 0, "listen");
    const Fd client = std::move(client_tcp_[family == AF_INET6]);
    Require(connect(client.get(), reinterpret_cast<sockaddr*>(&server), size) == 0, "connect");
    const Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    Require(static_cast<bool>(accepted), "accept");
    std::array<std::string, 3> failures;
    const auto guard = [](std::string& failure, auto work) {
      return std::thread([&failure, work] {
        try {
          work();
        } catch (const std::exception& error) {
          failure = error.what();
        }
      });
    };
    std::thread threads[] = {guard(failures[0], [&] { SendStream(client, bytes); }),
                             guard(failures[1], [&] { SendStream(accepted, bytes / 4); }),
                             guard(failures[2], [&] { ReceiveStream(client, bytes / 4); })};
    std::string failure;
    try {
      ReceiveStream(accepted, bytes);
    } catch (const std::exception& error) {
      failure = error.what();
      shutdown(client.get(), SHUT_RDWR);
      shutdown(accepted.get(), SHUT_RDWR);
    }
    for (auto& thread : threads) thread.join();
    for (const auto& other : failures) failure += other;
    if (!failure.empty()) throw std::runtime_error(failure);
  }

  // `count` datagrams of `bytes` and a shorter one, in one UDP_SEGMENT send; each must come out by itself.
  void SendDatagrams(int family, std::size_t bytes, std::size_t count) {
    const Fd server_socket = Socket(family, SOCK_DGRAM);
    sockaddr_storage server;
    const socklen_t size = Address(family, 2, server);
    Require(bind(server_socket.get(), reinterpret_cast<sockaddr*>(&server), size) == 0, "bind");
    const Fd& client = client_udp_[family == AF_INET6];
    const int segment = static_cast<int>(bytes);
    Require(setsockopt(client.get(), IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof(segment)) == 0, "UDP_SEGMENT");
    std::vector<std::uint8_t> data(bytes * count + bytes / 2);
    for (std::size_t i = 0; i < data.size(); ++i) data[i] = StreamByte(i);
    Require(sendto(client.get(), data.data(), data.size(), 0, reinterpret_cast<sockaddr*>(&server), size) ==
                static_cast<ssize_t>(data.size()),
            "sendto");
    std::vector<std::uint8_t> got(2048);
    for (std::size_t i = 0; i <= count; ++i) {
      const ssize_t now = recv(server_socket.get(), got.data(), got.size(), 0);
      const std::size_t want = i < count ? bytes : bytes / 2;
      Require(now == static_cast<ssize_t>(want), fmt::format("datagram {}: {} bytes", i, now));
      Require(std::equal(got.begin(), got.begin() + now, data.begin() + static_cast<std::ptrdiff_t>(i * bytes)),
              fmt::format("datagram {} differs", i));
    }
  }

  TunDevice& a() { return *a_; }
  TunDevice& b() { return *b_; }
  const PumpCounts& forth() const { return forth_; }

 private:
  std::unique_ptr<TunDevice> a_;
  std::unique_ptr<TunDevice> b_;
  Fd client_tcp_[2];
  Fd client_udp_[2];
  std::atomic<bool> stop_ = false;
  PumpCounts forth_;
  PumpCounts back_;
  std::thread forth_thread_;
  std::thread back_thread_;
};

void RequireClean(const Rig& rig) {
  RequireEqual<std::uint64_t>(rig.forth().failed_splits, 0, "the splitter refused what the kernel sent");
  RequireEqual<std::uint64_t>(rig.forth().failed_writes, 0, "the kernel refused what the coalescer made");
}

#define SKIP_WITHOUT_TUN() \
  if (const char* why = WhyNoTun()) GTEST_SKIP() << why

constexpr std::uint64_t kTransferBytes = std::uint64_t{48} << 20;

TEST(TunDevice, CarriesKernelTcpThroughSplitterAndCoalescer) {
  SKIP_WITHOUT_TUN();
  for (const int family : {AF_INET, AF_INET6}) {
    InNamespace([family] {
      Rig rig({.mtu = 1420});
      Require(rig.a().offloads().tso, "this kernel takes TSO");
      rig.Transfer(family, kTransferBytes);
      RequireClean(rig);
      const auto& counts = rig.forth();
      Require(counts.super_reads > 0, "no super-packet was read");
      Require(counts.packets > 8 * counts.writes,
              fmt::format("{} packets in {} writes: nothing was merged", counts.packets.load(), counts.writes.load()));
      RequireEqual<std::uint64_t>(rig.b().degrade_count(), 0, "degraded");
    });
  }
}

TEST(TunDevice, CarriesKernelTcpWithoutTso) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    Rig rig({.tso = false, .uso = false, .mtu = 1420});
    Require(!rig.a().offloads().tso && rig.a().offloads().checksum, "TSO was forbidden");
    rig.Transfer(AF_INET, kTransferBytes / 4);
    RequireClean(rig);
    RequireEqual<std::uint64_t>(rig.forth().super_reads, 0, "a super-packet was read");
  });
}

TEST(TunDevice, CarriesKernelTcpWithoutVnetHdr) {
  SKIP_WITHOUT_TUN();
  for (const int family : {AF_INET, AF_INET6}) {
    InNamespace([family] {
      Rig rig({.vnet_hdr = false, .mtu = 1420});
      const TunOffloads offloads = rig.a().offloads();
      Require(!offloads.vnet_hdr && !offloads.checksum && !offloads.tso && !offloads.uso, "vnet_hdr was forbidden");
      rig.Transfer(family, kTransferBytes / 4);
      RequireClean(rig);
    });
  }
}

TEST(TunDevice, CarriesKernelUdpSegmentsThroughSplitterAndCoalescer) {
  SKIP_WITHOUT_TUN();
  for (const int family : {AF_INET, AF_INET6}) {
    for (const bool uso : {true, false}) {
      InNamespace([family, uso] {
        Rig rig({.uso = uso, .mtu = 1420});
        const bool has_uso = rig.a().offloads().uso;
        for (int i = 0; i < 20; ++i) {
          rig.SendDatagrams(family, 1200, 20);
          rig.SendDatagrams(family, 100, 60);
        }
        RequireClean(rig);
        if (uso && has_uso) {
          Require(rig.forth().super_reads >= 40, "no super-packet was read");
          Require(rig.forth().packets > 8 * rig.forth().writes, "nothing was merged");
        } else {
          RequireEqual<std::uint64_t>(rig.forth().super_reads, 0, "a super-packet was read");
        }
      });
    }
  }
}

// The kernel refuses a super-packet (as Linux 6.6.44 did): nothing is lost, and the next ones are not merged.
ssize_t WriteNoSuperPackets(int fd, const iovec* parts, int count) {
  VirtioHeader header;
  std::memcpy(&header, parts[0].iov_base, sizeof(header));
  if (header.gso_type == kVirtioGsoNone) return ::writev(fd, parts, count);
  errno = EINVAL;
  return -1;
}

TEST(TunDevice, CarriesKernelTcpWhereSuperPacketsAreRefused) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    TunOptions options{.mtu = 1420};
    options.calls.writev = WriteNoSuperPackets;
    Rig rig(options);
    rig.Transfer(AF_INET, kTransferBytes / 4);
    RequireClean(rig);
    RequireEqual<std::uint64_t>(rig.b().degrade_count(), 1, "degraded once");
    Require(!rig.b().offloads().tso, "TSO is off");
  });
}

TEST(TunDevice, SaysGoneOnceTheLinkIsDeletedAndItsNameIsFreeAtOnce) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    for (int i = 0; i < 100; ++i) {
      auto device = Take(TunDevice::Create("a0", {}));
      SetLinkUp("a0", true);
      std::vector<std::uint8_t> buffer(kMaxPacketBytes + 64);
      DeleteLink("a0");
      pollfd ready{.fd = device->queue_fd(0), .events = POLLIN, .revents = 0};
      Require(poll(&ready, 1, 1000) == 1 && (ready.revents & POLLERR) != 0, "poll tells of the removal");
      Require(device->Read(0, buffer, 64).status == IoStatus::kGone, "read says gone");
      test::Packet packet = test::Build({});
      Coalescer coalescer({});
      coalescer.Add(packet);
      Require(device->Write(0, coalescer.Finish()[0]) == IoStatus::kGone, "write says gone");
      RequireEqual(device->name(), std::string("a0"), "the name it had");
      Require(!device->Mtu(), "no MTU any more");
    }
  });
}

TEST(TunDevice, WakesAWaiterWhenTheLinkIsDeletedUnderLoad) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    auto device = Take(TunDevice::Create("a0", {}));
    Configure("a0", 1);
    std::atomic<bool> is_gone = false;
    std::thread reader([&] {
      std::vector<std::uint8_t> buffer(kMaxPacketBytes + 64);
      for (;;) {
        pollfd ready{.fd = device->queue_fd(0), .events = POLLIN, .revents = 0};
        poll(&ready, 1, 5000);
        if (device->Read(0, buffer, 64).status == IoStatus::kGone) break;
      }
      is_gone = true;
    });
    const Fd socket = Socket(AF_INET, SOCK_DGRAM);
    sockaddr_storage peer;
    const socklen_t size = Address(AF_INET, 2, peer);
    for (int i = 0; i < 2000; ++i)
      (void)sendto(socket.get(), &i, sizeof(i), 0, reinterpret_cast<sockaddr*>(&peer), size);
    DeleteLink("a0");
    for (int i = 0; i < 100 && !is_gone; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    const bool was_gone = is_gone;
    if (!was_gone) _exit(2);
    reader.join();
  });
}

TEST(TunDevice, SaysRetryWhileTheLinkIsDown) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    auto device = Take(TunDevice::Create("a0", {}));
    std::vector<std::uint8_t> buffer(kMaxPacketBytes + 64);
    test::Packet packet = test::Build({});
    Coalescer coalescer({});
    coalescer.Add(packet);
    TunWrite& write = coalescer.Finish()[0];
    for (int i = 0; i < 2; ++i) {
      Require(device->Write(0, write) == IoStatus::kRetry, "write while down");
      // The second time round, what the kernel itself sent while the link was up (multicast listener reports) may wait.
      IoStatus status;
      do status = device->Read(0, buffer, 64).status;
      while (status == IoStatus::kOk);
      Require(status == IoStatus::kWouldBlock, "read while down");
      SetLinkUp("a0", true);
      Require(device->Write(0, write) == IoStatus::kOk, "write while up");
      SetLinkUp("a0", false);
    }
  });
}

TEST(TunDevice, SaysInvalidForAPacketThatTheKernelRefuses) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    auto device = Take(TunDevice::Create("a0", {}));
    SetLinkUp("a0", true);
    test::Packet packet(40, 0);  // IP version 0
    TunWrite write{.header = {}, .parts = {{.iov_base = packet.data(), .iov_len = packet.size()}}, .bytes = 40};
    Require(device->Write(0, write) == IoStatus::kInvalid, "write of no IP packet");
    RequireEqual<std::uint64_t>(device->degrade_count(), 0, "that is no reason to degrade");
  });
}

TEST(TunDevice, FollowsItsLinkWhenItIsRenamed) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    auto device = Take(TunDevice::Create("a0", {.mtu = 1380}));
    RequireEqual(device->name(), std::string("a0"), "name");
    RequireEqual(Take(device->Mtu()), 1380u, "MTU");
    const Fd socket = Socket(AF_INET, SOCK_DGRAM);
    ifreq request = Request("a0");
    std::memcpy(request.ifr_newname, "renamed0", 9);
    Require(ioctl(socket.get(), SIOCSIFNAME, &request) == 0, "SIOCSIFNAME");
    RequireEqual(device->name(), std::string("renamed0"), "name after");
    RequireEqual(Take(device->Mtu()), 1380u, "MTU after");
  });
}

TEST(TunDevice, FollowsItsLinkIntoAnotherNamespace) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    auto device = Take(TunDevice::Create("a0", {.mtu = 1380}));
    const Fd ours(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));
    EnterNewNamespace();  // now the link is in another namespace than this thread
    Require(if_nametoindex("a0") == 0, "a0 is not here");
    auto other = Take(TunDevice::Create("a0", {.mtu = 1400}));  // the same name, another link
    RequireEqual(Take(device->Mtu()), 1380u, "MTU over there");
    RequireEqual(Take(other->Mtu()), 1400u, "MTU here");
    const Fd found(Take(device->NetworkNamespaceFd()));
    Require(setns(found.get(), CLONE_NEWNET) == 0, "setns");
    Require(if_nametoindex("a0") != 0, "a0 is there");
    RequireEqual(Take(device->Mtu()), 1380u, "MTU from its own namespace");
    RequireEqual(Take(other->Mtu()), 1400u, "MTU of the other");
  });
}

TEST(TunDevice, OpensSeveralQueues) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    auto device = Take(TunDevice::Create("a0", {.queues = 3}));
    RequireEqual(device->queue_count(), 3u, "queues");
    Configure("a0", 1);
    std::vector<std::uint8_t> buffer(kMaxPacketBytes + 64);
    sockaddr_storage peer;
    const socklen_t size = Address(AF_INET, 2, peer);
    for (int i = 0; i < 60; ++i) {  // a flow each, so that the kernel's hash uses all queues
      const Fd socket = Socket(AF_INET, SOCK_DGRAM);
      Require(sendto(socket.get(), &i, sizeof(i), 0, reinterpret_cast<sockaddr*>(&peer), size) == sizeof(i), "sendto");
    }
    for (unsigned queue = 0; queue < 3; ++queue) {
      int got = 0;
      while (device->Read(queue, buffer, 64).status == IoStatus::kOk) ++got;
      Require(got > 0, fmt::format("queue {} got nothing", queue));
    }
  });
}

TEST(TunDevice, RefusesANameThatExists) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    const auto expect_refused = [](const std::string& name, int code, const std::string& says) {
      const auto device = TunDevice::Create(name, {});
      Require(!device, name + " was accepted");
      RequireEqual(device.error().code, code, fmt::format("{}: code {}", name, device.error().code));
      Require(device.error().message.find(says) != std::string::npos, device.error().message);
    };
    const auto first = Take(TunDevice::Create("a0", {}));
    expect_refused("a0", EBUSY, "in use");
    expect_refused("lo", EEXIST, "exists");
    expect_refused("sixteen-letters0", ENAMETOOLONG, "15");
    expect_refused("a/b", EINVAL, "slashes");
    expect_refused("a b", EINVAL, "spaces");
    expect_refused("..", EINVAL, "cannot be");
    expect_refused("x%s", EINVAL, "choose another");
    Require(!TunDevice::Create("b0", {.queues = 0}), "no queues");
    Require(!TunDevice::Create("b0", {.mtu = 70000}), "MTU 70000");
    Require(if_nametoindex("b0") == 0, "a refused device stayed");
    const auto chosen = Take(TunDevice::Create("a%d", {}));
    RequireEqual(chosen->name(), std::string("a1"), "a name of the kernel's choice");
  });
}

TEST(TunDevice, AttachesToAPersistentDevice) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    {
      const auto maker = Take(TunDevice::Create("a0", {.vnet_hdr = false}));
      Require(ioctl(maker->queue_fd(0), TUNSETPERSIST, 1) == 0, "TUNSETPERSIST");
    }
    const auto device = Take(TunDevice::Create("a0", {}));
    Require(device->offloads().tso, "with offloads of its own");
    Require(ioctl(device->queue_fd(0), TUNSETPERSIST, 0) == 0, "TUNSETPERSIST");
  });
}

TEST(TunDevice, NamesTheCureWithoutPermission) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    Require(setresuid(65534, 65534, 65534) == 0, "setresuid");
    const auto device = TunDevice::Create("a0", {});
    Require(!device, "created without permission");
    Require(device.error().code == EPERM || device.error().code == EACCES, "code");
    Require(device.error().message.find("root") != std::string::npos, device.error().message);
  });
}

Fd OpenRaw(const std::string& name, short flags) {
  Fd fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
  ifreq request = Request(name);
  request.ifr_flags = flags;
  Require(ioctl(fd.get(), TUNSETIFF, &request) == 0, "TUNSETIFF");
  return fd;
}

TEST(TunDevice, AdoptsAnInheritedDescriptor) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    const auto plain = Take(TunDevice::FromFd(OpenRaw("a0", IFF_TUN | IFF_NO_PI), {.mtu = 1400}));
    RequireEqual(plain->name(), std::string("a0"), "name");
    RequireEqual(Take(plain->Mtu()), 1400u, "MTU");
    Require(!plain->offloads().vnet_hdr && !plain->offloads().tso, "without vnet_hdr");
    std::vector<std::uint8_t> buffer(kMaxPacketBytes + 64);
    Require(plain->Read(0, buffer, 64).status == IoStatus::kWouldBlock, "made non-blocking");

    Fd raw = OpenRaw("a1", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
    int header_bytes = 12;
    Require(ioctl(raw.get(), TUNSETVNETHDRSZ, &header_bytes) == 0, "TUNSETVNETHDRSZ");
    const auto full = Take(TunDevice::FromFd(std::move(raw), {}));
    Require(full->offloads().vnet_hdr && full->offloads().tso, "with vnet_hdr");
    Require(ioctl(full->queue_fd(0), TUNGETVNETHDRSZ, &header_bytes) == 0 && header_bytes == 10, "header of 10 bytes");

    const auto forbidden =
        Take(TunDevice::FromFd(OpenRaw("a2", IFF_TUN | IFF_NO_PI | IFF_VNET_HDR), {.vnet_hdr = false}));
    Require(forbidden->offloads().vnet_hdr && !forbidden->offloads().checksum, "the header stays, the offloads do not");

    Require(!TunDevice::FromFd(OpenRaw("a4", IFF_TAP | IFF_NO_PI), {}), "TAP was accepted");
    Require(!TunDevice::FromFd(Fd(open("/dev/null", O_RDWR | O_CLOEXEC)), {}), "/dev/null was accepted");
  });
}

TEST(TunDevice, SortsEveryErrorByWhatTheEngineMustDo) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    Script injected;
    script = &injected;
    TunOptions options;
    options.calls = {.readv = ScriptedRead, .writev = ScriptedWrite};
    const auto device = Take(TunDevice::Create("a0", options));
    struct Row {
      int error;
      IoStatus read, write;
    };
    const Row rows[] = {{EAGAIN, IoStatus::kWouldBlock, IoStatus::kWouldBlock},
                        {EINTR, IoStatus::kRetry, IoStatus::kRetry},
                        {EIO, IoStatus::kRetry, IoStatus::kRetry},
                        {ENOBUFS, IoStatus::kRetry, IoStatus::kRetry},
                        {ENOMEM, IoStatus::kRetry, IoStatus::kRetry},
                        {EFAULT, IoStatus::kRetry, IoStatus::kInvalid},
                        {EINVAL, IoStatus::kRetry, IoStatus::kInvalid},
                        {EMSGSIZE, IoStatus::kRetry, IoStatus::kInvalid},
                        {EBADFD, IoStatus::kGone, IoStatus::kGone},
                        {EBADF, IoStatus::kGone, IoStatus::kGone},
                        {ENODEV, IoStatus::kGone, IoStatus::kGone},
                        {ENXIO, IoStatus::kGone, IoStatus::kGone}};
    std::vector<std::uint8_t> buffer(kMaxPacketBytes + 64);
    for (const Row& row : rows) {
      injected.read_error = injected.write_error = row.error;
      test::Packet packet = test::Build({});
      TunWrite write{
          .header = {}, .parts = {{.iov_base = packet.data(), .iov_len = packet.size()}}, .bytes = packet.size()};
      RequireEqual(device->Read(0, buffer, 64).status, row.read, fmt::format("read, errno {}", row.error));
      RequireEqual(device->Write(0, write), row.write, fmt::format("write, errno {}", row.error));
    }
  });
}

TEST(TunDevice, GivesUpOnlyTheKindOfMergingThatTheKernelRefuses) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    Script injected;
    script = &injected;
    std::vector<std::string> lines;
    TunOptions options;
    options.calls = {.readv = ScriptedRead, .writev = ScriptedWrite};
    options.on_degrade = [&](std::string_view line) { lines.emplace_back(line); };
    const auto device = Take(TunDevice::Create("a0", options));
    Require(device->offloads().tso && device->offloads().uso, "this kernel takes TSO and USO");

    const auto write_train = [&](bool is_tcp) {
      test::PacketSpec spec;
      spec.is_tcp = is_tcp;
      spec.payload.assign(3000, 9);
      auto packets = test::NaiveSplit(spec, 1000);
      const auto pristine = packets;
      Coalescer coalescer({});
      for (auto& packet : packets) coalescer.Add(packet);
      injected.packets.clear();
      const IoStatus status = device->Write(0, coalescer.Finish()[0]);
      return std::pair(status, injected.packets == pristine);
    };

    injected.super_write_error = EINVAL;
    auto [status, same] = write_train(true);
    Require(status == IoStatus::kOk && same, "the packets of a refused TCP super-packet, one by one");
    Require(!device->offloads().tso && device->offloads().uso, "TSO only");
    Require(write_train(true).second, "again");
    RequireEqual<std::size_t>(lines.size(), 1, "one line");
    Require(write_train(false).second, "UDP one by one");
    Require(!device->offloads().uso, "USO too");
    RequireEqual<std::uint64_t>(device->degrade_count(), 2, "two kinds");
    RequireEqual<std::size_t>(lines.size(), 2, "two lines");
  });
}

TEST(TunDevice, KeepsMergingWhenThePacketsThemselvesAreRefused) {
  SKIP_WITHOUT_TUN();
  InNamespace([] {
    Script injected;
    script = &injected;
    TunOptions options;
    options.calls = {.readv = ScriptedRead, .writev = ScriptedWrite};
    const auto device = Take(TunDevice::Create("a0", options));
    for (const auto& [error, status] : {std::pair(EINVAL, IoStatus::kInvalid), {EIO, IoStatus::kRetry}}) {
      injected.write_error = error;
      test::PacketSpec spec;
      spec.payload.assign(3000, 9);
      auto packets = test::NaiveSplit(spec, 1000);
      Coalescer coalescer({});
      for (auto& packet : packets) coalescer.Add(packet);
      RequireEqual(device->Write(0, coalescer.Finish()[0]), status, "status");
      Require(device->offloads().tso, "TSO stays");
    }
  });
}

}  // namespace
}  // namespace adit
