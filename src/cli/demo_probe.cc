#include "cli/demo_probe.h"

#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#include "base/endian.h"
#include "routing/netns.h"

namespace adit {
namespace {

using Clock = std::chrono::steady_clock;

Result<Fd> OpenSocket(int netns_fd, int family, int type, int protocol) {
  Fd fd;
  const Status opened = RunInNamespace(netns_fd, [&]() -> Status {
    fd = Fd(socket(family, type | SOCK_CLOEXEC, protocol));
    if (!fd) return FailErrno(errno, "cannot open a socket: {}", std::strerror(errno));
    return {};
  });
  if (!opened) return std::unexpected(opened.error());
  return fd;
}

struct EchoHeader {  // ICMP and ICMPv6 alike
  std::uint8_t type = 0;
  std::uint8_t code = 0;
  U16Be checksum, identifier, sequence;
};
static_assert(sizeof(EchoHeader) == 8);

constexpr std::size_t kEchoBytes = 64;  // as ping: 56 bytes of payload

std::uint16_t InternetChecksum(Bytes bytes) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i + 1 < bytes.size(); i += 2) sum += LoadAs<U16Be>(&bytes[i]);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

// False when the time is over.
bool WaitReadable(int fd, Clock::time_point deadline, const std::atomic<bool>& stop) {
  constexpr int kStopPollMilliseconds = 50;
  while (!stop) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return false;
    pollfd wait{fd, POLLIN, 0};
    if (poll(&wait, 1, static_cast<int>(std::min<long>(left, kStopPollMilliseconds))) > 0) return true;
  }
  return false;
}

// Whether the datagram is the answer; raw IPv4 sockets deliver the IP header as well.
bool IsEchoReply(Bytes datagram, bool is_v6, std::uint16_t identifier, std::uint16_t sequence) {
  if (!is_v6) {
    if (datagram.empty()) return false;
    const std::size_t header_bytes = static_cast<std::size_t>(datagram[0] & 0xf) * 4;
    if (datagram.size() < header_bytes) return false;
    datagram = datagram.subspan(header_bytes);
  }
  if (datagram.size() < sizeof(EchoHeader)) return false;
  const auto header = LoadAs<EchoHeader>(datagram.data());
  return header.type == (is_v6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY) && header.identifier == identifier &&
         header.sequence == sequence;
}

// A packet filter as a table: the first rule whose tests all hold decides, and a packet that none of them knows is
// picked. Compiled to classic BPF: each rule's tests in a row, a failing one jumps to the next rule.
struct FilterTest {
  std::uint16_t width;  // BPF_B, BPF_H or BPF_W
  std::uint32_t offset;
  std::uint32_t value;
};
struct FilterRule {
  std::vector<FilterTest> tests;
  bool pick;
};
constexpr std::uint32_t kPickBytes = 64;

FilterTest IsProtocol(std::uint32_t ether_type) {
  return {BPF_H, static_cast<std::uint32_t>(SKF_AD_OFF + SKF_AD_PROTOCOL), ether_type};
}

std::vector<sock_filter> Compile(std::span<const FilterRule> rules, bool pick_others) {
  std::vector<sock_filter> program;
  for (const FilterRule& rule : rules) {
    for (std::size_t i = 0; i < rule.tests.size(); ++i) {
      const FilterTest& test = rule.tests[i];
      // Behind this jump: two instructions for each test that follows, and the verdict.
      const auto to_next_rule = static_cast<std::uint8_t>(2 * (rule.tests.size() - i - 1) + 1);
      program.push_back(BPF_STMT(static_cast<std::uint16_t>(BPF_LD | BPF_ABS | test.width), test.offset));
      program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, test.value, 0, to_next_rule));
    }
    program.push_back(BPF_STMT(BPF_RET | BPF_K, rule.pick ? kPickBytes : 0));
  }
  program.push_back(BPF_STMT(BPF_RET | BPF_K, pick_others ? kPickBytes : 0));
  return program;
}

std::uint32_t HostOrder(const IpAddress& ip) { return LoadAs<U32Be>(ip.bytes().data()); }

}  // namespace

Result<PingResult> Ping(int netns_fd, const IpAddress& to, unsigned count, std::chrono::milliseconds interval,
                        std::chrono::milliseconds timeout, const std::atomic<bool>& stop) {
  const bool is_v6 = to.is_v6();
  auto fd = is_v6 ? OpenSocket(netns_fd, AF_INET6, SOCK_RAW, IPPROTO_ICMPV6)
                  : OpenSocket(netns_fd, AF_INET, SOCK_RAW, IPPROTO_ICMP);
  if (!fd) return std::unexpected(fd.error());
  sockaddr_storage address;
  const socklen_t address_size = SocketAddress{to, 0, 0}.ToSockaddr(address);

  PingResult result;
  const auto identifier = static_cast<std::uint16_t>(getpid());
  for (unsigned i = 0; i < count && !stop; ++i) {
    ByteArray<kEchoBytes> packet{};
    EchoHeader header;
    header.type = is_v6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
    header.identifier = identifier;
    header.sequence = static_cast<std::uint16_t>(i);
    Store(packet.data(), header);
    header.checksum = is_v6 ? 0 : InternetChecksum(packet);  // the kernel fills in ICMPv6's
    Store(packet.data(), header);

    const auto sent_at = Clock::now();
    ++result.sent;
    if (sendto(fd->get(), packet.data(), packet.size(), 0, reinterpret_cast<const sockaddr*>(&address), address_size) <
        0) {
      return FailErrno(errno, "cannot send a ping to {}: {}", to.ToString(), std::strerror(errno));
    }
    while (WaitReadable(fd->get(), sent_at + timeout, stop)) {
      ByteArray<2048> buffer;
      const ssize_t size = recv(fd->get(), buffer.data(), buffer.size(), 0);
      if (size < 0) break;
      if (!IsEchoReply(Bytes(buffer).first(static_cast<std::size_t>(size)), is_v6, identifier,
                       static_cast<std::uint16_t>(i))) {
        continue;
      }
      result.round_trips.push_back(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - sent_at));
      break;
    }
    if (i + 1 < count) std::this_thread::sleep_until(sent_at + interval);
  }
  return result;
}

Result<TransferResult> TransferTcp(int from_fd, int to_fd, const SocketAddress& to, std::chrono::milliseconds time,
                                   const std::atomic<bool>& stop) {
  const int family = to.ip.is_v6() ? AF_INET6 : AF_INET;
  sockaddr_storage address;
  const socklen_t address_size = to.ToSockaddr(address);
  const auto* const name = reinterpret_cast<const sockaddr*>(&address);

  auto listener = OpenSocket(to_fd, family, SOCK_STREAM, 0);
  if (!listener) return std::unexpected(listener.error());
  if (bind(listener->get(), name, address_size) != 0 || listen(listener->get(), 1) != 0) {
    return FailErrno(errno, "cannot listen on {}: {}", to.ToString(), std::strerror(errno));
  }
  auto client = OpenSocket(from_fd, family, SOCK_STREAM, 0);
  if (!client) return std::unexpected(client.error());
  const timeval limit{2, 0};  // a tunnel that carries nothing must not hold the demo up
  setsockopt(client->get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(client->get(), name, address_size) != 0) {
    return FailErrno(errno, "cannot connect to {}: {}", to.ToString(), std::strerror(errno));
  }
  const Fd server(accept4(listener->get(), nullptr, nullptr, SOCK_CLOEXEC));
  if (!server) return FailErrno(errno, "nobody connected to {}: {}", to.ToString(), std::strerror(errno));
  setsockopt(server.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);

  constexpr std::size_t kChunkBytes = 256 << 10;
  const auto start = Clock::now();
  const auto deadline = start + time;
  std::thread sender([&client, &stop, deadline] {
    const std::vector<char> chunk(kChunkBytes, 'a');
    while (!stop && Clock::now() < deadline) {
      if (send(client->get(), chunk.data(), chunk.size(), MSG_NOSIGNAL) < 0 && errno != EINTR) break;
    }
    shutdown(client->get(), SHUT_WR);
  });
  TransferResult result;
  std::vector<char> chunk(kChunkBytes);
  for (;;) {
    // The bytes themselves are not looked at, so they need not be copied.
    const ssize_t size = recv(server.get(), chunk.data(), chunk.size(), MSG_TRUNC);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    result.bytes += static_cast<std::uint64_t>(size);
  }
  result.time = Clock::now() - start;
  sender.join();
  return result;
}

Result<PacketWatch> PacketWatch::Open(int netns_fd, const std::string& link, std::span<const sock_filter> filter) {
  Fd fd;
  const Status opened = RunInNamespace(netns_fd, [&]() -> Status {
    const unsigned index = if_nametoindex(link.c_str());
    if (index == 0) return FailErrno(ENODEV, "there is no link {}", link);
    // Protocol 0 receives nothing until the bind, when the filter is in place.
    fd = Fd(socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!fd) return FailErrno(errno, "cannot watch {}: {}", link, std::strerror(errno));
    std::vector<sock_filter> program(filter.begin(), filter.end());
    const sock_fprog attached{static_cast<unsigned short>(program.size()), program.data()};
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(ETH_P_ALL);
    address.sll_ifindex = static_cast<int>(index);
    if (setsockopt(fd.get(), SOL_SOCKET, SO_ATTACH_FILTER, &attached, sizeof attached) != 0 ||
        bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
      return FailErrno(errno, "cannot watch {}: {}", link, std::strerror(errno));
    }
    return {};
  });
  if (!opened) return std::unexpected(opened.error());
  return PacketWatch(std::move(fd));
}

Result<std::uint64_t> PacketWatch::TakeCount() {
  // tp_packets holds those that the socket's buffer had no room for as well, and reading it sets it back to 0.
  tpacket_stats statistics{};
  socklen_t size = sizeof statistics;
  if (getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &statistics, &size) != 0) {
    return FailErrno(errno, "cannot read a packet count: {}", std::strerror(errno));
  }
  return statistics.tp_packets;
}

// Offsets from the start of the IP header.
constexpr std::uint32_t kProtocolAt = 9, kSourceAt = 12, kDestinationAt = 16, kSourcePortAt = 20,
                        kDestinationPortAt = 22, kV6SourceAt = 8, kV6DestinationAt = 24;

std::vector<sock_filter> FilterForeignPackets(const IpAddress& local, const SocketAddress& endpoint) {
  const std::uint32_t us = HostOrder(local);
  const std::uint32_t them = HostOrder(endpoint.ip);
  // Our packets carry no IP options, so a header of another length is foreign.
  const FilterTest v4 = IsProtocol(ETH_P_IP), v6 = IsProtocol(ETH_P_IPV6), plain_header = {BPF_B, 0, 0x45},
                   udp = {BPF_B, kProtocolAt, IPPROTO_UDP};
  const FilterRule rules[] = {
      {{IsProtocol(ETH_P_ARP)}, false},
      {{v6, {BPF_B, kV6DestinationAt, 0xff}}, false},  // multicast
      {{v6, {BPF_H, kV6SourceAt, 0xfe80}}, false},     // from a link-local address
      {{v4,
        plain_header,
        udp,
        {BPF_W, kSourceAt, us},
        {BPF_W, kDestinationAt, them},
        {BPF_H, kDestinationPortAt, endpoint.port}},
       false},
      {{v4,
        plain_header,
        udp,
        {BPF_W, kSourceAt, them},
        {BPF_W, kDestinationAt, us},
        {BPF_H, kSourcePortAt, endpoint.port}},
       false},
  };
  return Compile(rules, true);
}

std::vector<sock_filter> FilterLoopedPackets(const SocketAddress& endpoint) {
  const FilterRule rules[] = {{{IsProtocol(ETH_P_IP),
                                {BPF_B, kProtocolAt, IPPROTO_UDP},
                                {BPF_W, kDestinationAt, HostOrder(endpoint.ip)},
                                {BPF_H, kDestinationPortAt, endpoint.port}},
                               true}};
  return Compile(rules, false);
}

Status SendDatagram(int netns_fd, const SocketAddress& to) {
  auto fd = OpenSocket(netns_fd, to.ip.is_v6() ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
  if (!fd) return std::unexpected(fd.error());
  sockaddr_storage address;
  const socklen_t size = to.ToSockaddr(address);
  const ByteArray<16> payload{};
  if (sendto(fd->get(), payload.data(), payload.size(), 0, reinterpret_cast<const sockaddr*>(&address), size) < 0) {
    return FailErrno(errno, "cannot send to {}: {}", to.ToString(), std::strerror(errno));
  }
  return {};
}

Result<LinkCounters> ReadLinkCounters(int netns_fd, const std::string& link) {
  LinkCounters counters;
  const Status read = RunInNamespace(netns_fd, [&]() -> Status {
    std::ifstream file("/proc/thread-self/net/dev");
    std::string line;
    while (std::getline(file, line)) {
      const auto colon = line.find(':');
      if (colon == line.npos || line.substr(0, colon).find_first_not_of(' ') == line.npos) continue;
      if (line.substr(line.find_first_not_of(' '), colon - line.find_first_not_of(' ')) != link) continue;
      std::istringstream fields(line.substr(colon + 1));
      std::uint64_t skipped = 0;
      fields >> counters.rx_bytes >> counters.rx_packets;
      for (int i = 0; i < 6; ++i) fields >> skipped;
      fields >> counters.tx_bytes >> counters.tx_packets;
      return fields ? Status() : Fail("/proc/net/dev has an unknown form");
    }
    return FailErrno(ENODEV, "there is no link {}", link);
  });
  if (!read) return std::unexpected(read.error());
  return counters;
}

}  // namespace adit
