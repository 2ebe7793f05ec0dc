#include "cli/path_probe.h"

#include <linux/errqueue.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"

namespace adit {
namespace {

// Where traceroute begins: what a peer's firewall knows it by. One port a probe.
constexpr std::uint16_t kFirstPort = 33434;
constexpr unsigned kUdpHeaderBytes = 8;
// More than one search has; what is beyond waits for the next turn of the loop.
constexpr int kMaxAnswersAtOnce = 128;

bool SetOption(int fd, int level, int option, int value) {
  return setsockopt(fd, level, option, &value, sizeof value) == 0;
}

// What the far end says of a packet that reached it. Not "host unreachable" and "too big": those our own engine says of
// packets that it does not send.
bool IsFromTheEnd(const sock_extended_err& error) {
  if (error.ee_origin == SO_EE_ORIGIN_ICMP) {
    if (error.ee_type == ICMP_TIME_EXCEEDED) return true;
    return error.ee_type == ICMP_DEST_UNREACH &&
           (error.ee_code == ICMP_PORT_UNREACH || error.ee_code == ICMP_PKT_FILTERED || error.ee_code == ICMP_NET_ANO ||
            error.ee_code == ICMP_HOST_ANO);
  }
  if (error.ee_origin == SO_EE_ORIGIN_ICMP6) {
    if (error.ee_type == ICMP6_TIME_EXCEEDED) return true;
    return error.ee_type == ICMP6_DST_UNREACH &&
           (error.ee_code == ICMP6_DST_UNREACH_NOPORT || error.ee_code == ICMP6_DST_UNREACH_ADMIN);
  }
  return false;
}

std::optional<std::uint16_t> IdOf(const sockaddr_storage& from) {
  const auto address = SocketAddress::FromSockaddr(reinterpret_cast<const sockaddr*>(&from));
  if (!address || address->port < kFirstPort) return std::nullopt;
  return static_cast<std::uint16_t>(address->port - kFirstPort);
}

}  // namespace

Result<std::unique_ptr<PathProbe>> PathProbe::Open(boost::asio::io_context& io, const std::string& device, bool is_v6,
                                                   std::vector<IpAddress> own, OnAnswer on_answer) {
  Fd fd(socket(is_v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_UDP));
  if (!fd) return FailDescriptor(errno, "a socket that measures the path");
  const bool is_set =
      setsockopt(fd.get(), SOL_SOCKET, SO_BINDTODEVICE, device.c_str(), static_cast<socklen_t>(device.size())) == 0 &&
      // _PROBE: never a fragment, and no size that was learned before counts.
      (is_v6 ? SetOption(fd.get(), IPPROTO_IPV6, IPV6_UNICAST_HOPS, 1) &&
                   SetOption(fd.get(), IPPROTO_IPV6, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE) &&
                   SetOption(fd.get(), IPPROTO_IPV6, IPV6_RECVERR, 1)
             : SetOption(fd.get(), IPPROTO_IP, IP_TTL, 1) &&
                   SetOption(fd.get(), IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE) &&
                   SetOption(fd.get(), IPPROTO_IP, IP_RECVERR, 1));
  if (!is_set) return FailErrno(errno, "cannot set up a socket that measures the path: {}", std::strerror(errno));
  auto probe = std::unique_ptr<PathProbe>(new PathProbe(std::move(fd), is_v6, std::move(own), std::move(on_answer)));
  auto watch = FdWatch::Open(io, probe->fd_.get(), [raw = probe.get()] { raw->ReadAnswers(); });
  if (!watch) return std::unexpected(watch.error());
  probe->watch_ = std::move(*watch);
  return probe;
}

PathProbe::PathProbe(Fd fd, bool is_v6, std::vector<IpAddress> own, OnAnswer on_answer)
    : fd_(std::move(fd)), is_v6_(is_v6), own_(std::move(own)), on_answer_(std::move(on_answer)) {}

int PathProbe::Send(const IpAddress& to, std::uint16_t id, unsigned packet_bytes) {
  CHECK(to.is_v6() == is_v6_);
  const unsigned headers = (is_v6_ ? 40 : 20) + kUdpHeaderBytes;
  CHECK(packet_bytes >= headers);
  const std::vector<std::uint8_t> payload(packet_bytes - headers);
  sockaddr_storage address;
  const socklen_t length = SocketAddress{to, static_cast<std::uint16_t>(kFirstPort + id)}.ToSockaddr(address);
  int error = 0;
  // An answer that came since is told as the next call's error; the second call is for this packet.
  for (int attempt = 0; attempt < 2; ++attempt) {
    if (sendto(fd_.get(), payload.data(), payload.size(), 0, reinterpret_cast<const sockaddr*>(&address), length) >=
        0) {
      return 0;
    }
    error = errno;
  }
  return error;
}

void PathProbe::ReadAnswers() {
  for (int i = 0; i < kMaxAnswersAtOnce; ++i) {
    sockaddr_storage about{};  // where the probe went
    std::uint8_t ignored = 0;
    iovec data{&ignored, sizeof ignored};
    alignas(cmsghdr) std::array<std::uint8_t, 512> control{};
    msghdr message{};
    message.msg_name = &about;
    message.msg_namelen = sizeof about;
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    if (recvmsg(fd_.get(), &message, MSG_ERRQUEUE) < 0) break;
    for (cmsghdr* item = CMSG_FIRSTHDR(&message); item != nullptr; item = CMSG_NXTHDR(&message, item)) {
      const bool is_error = (item->cmsg_level == IPPROTO_IP && item->cmsg_type == IP_RECVERR) ||
                            (item->cmsg_level == IPPROTO_IPV6 && item->cmsg_type == IPV6_RECVERR);
      if (!is_error) continue;
      const auto* const error = reinterpret_cast<const sock_extended_err*>(CMSG_DATA(item));
      const auto who = SocketAddress::FromSockaddr(SO_EE_OFFENDER(error));
      if (!IsFromTheEnd(*error) || !who || std::ranges::find(own_, who->ip) != own_.end()) continue;
      if (const auto id = IdOf(about)) on_answer_(*id);
    }
  }
  // Somebody listens there after all, and says something.
  for (int i = 0; i < kMaxAnswersAtOnce; ++i) {
    sockaddr_storage from{};
    socklen_t length = sizeof from;
    std::uint8_t ignored = 0;
    if (recvfrom(fd_.get(), &ignored, sizeof ignored, 0, reinterpret_cast<sockaddr*>(&from), &length) < 0) break;
    if (const auto id = IdOf(from)) on_answer_(*id);
  }
}

}  // namespace adit
