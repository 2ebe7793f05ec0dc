#include "routing/old_flows.h"

#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netlink/msg.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/endian.h"
#include "base/fd.h"

namespace adit {
namespace {

constexpr std::uint16_t kDestroy = 21;  // SOCK_DESTROY, Linux 4.5; not in Debian 12's headers for user space
constexpr timeval kReceiveTimeout{.tv_sec = 5, .tv_usec = 0};
constexpr std::uint32_t StateBit(int state) { return 1U << state; }
constexpr std::uint32_t kOpen = StateBit(TCP_ESTABLISHED) | StateBit(TCP_SYN_SENT) | StateBit(TCP_SYN_RECV) |
                                StateBit(TCP_FIN_WAIT1) | StateBit(TCP_FIN_WAIT2) | StateBit(TCP_CLOSE_WAIT) |
                                StateBit(TCP_LAST_ACK) | StateBit(TCP_CLOSING);

struct Request {
  nlmsghdr header;
  inet_diag_req_v2 body;
};

// An IPv4 flow of an IPv6 socket is an IPv4 flow.
IpAddress FromDiag(std::uint8_t family, const std::uint32_t (&words)[4]) {
  ByteArray<16> bytes;
  std::memcpy(bytes.data(), words, sizeof words);
  constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (family == AF_INET) return IpAddress::V4(Bytes(bytes).first(4));
  if (std::ranges::equal(kMapped, Bytes(bytes).first(12))) return IpAddress::V4(Bytes(bytes).last(4));
  return IpAddress::V6(bytes);
}

class DiagSocket {
 public:
  static Result<DiagSocket> Open() {
    Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG));
    if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kReceiveTimeout, sizeof kReceiveTimeout) != 0) {
      return FailErrno(errno, "cannot look at this machine's sockets: {}", strerror(errno));
    }
    return DiagSocket(std::move(fd));
  }

  // The kernel's answer to one request; `each` sees the messages of a dump.
  template <typename Each>
  int Ask(std::uint16_t type, std::uint16_t flags, const inet_diag_req_v2& body, Each each) {
    Request request{.header = {.nlmsg_len = sizeof(Request),
                               .nlmsg_type = type,
                               .nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags),
                               .nlmsg_seq = ++sequence_,
                               .nlmsg_pid = 0},
                    .body = body};
    if (send(fd_.get(), &request, sizeof request, 0) < 0) return errno;
    alignas(nlmsghdr) std::uint8_t buffer[32 << 10];
    for (;;) {
      const ssize_t size = recv(fd_.get(), buffer, sizeof buffer, 0);
      if (size < 0 && errno == EINTR) continue;
      if (size <= 0) return size == 0 ? EIO : errno;
      int left = static_cast<int>(size);
      for (auto* message = reinterpret_cast<nlmsghdr*>(buffer); nlmsg_ok(message, left);
           message = nlmsg_next(message, &left)) {
        if (message->nlmsg_seq != sequence_) continue;
        if (message->nlmsg_type == NLMSG_DONE) return 0;
        if (message->nlmsg_type == NLMSG_ERROR) return -static_cast<const nlmsgerr*>(nlmsg_data(message))->error;
        if (static_cast<std::size_t>(nlmsg_datalen(message)) < sizeof(inet_diag_msg)) continue;
        each(LoadAs<inet_diag_msg>(static_cast<const std::uint8_t*>(nlmsg_data(message))));
      }
    }
  }

 private:
  explicit DiagSocket(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
  std::uint32_t sequence_ = 0;
};

bool IsLoopback(const IpAddress& ip) {
  return ip.is_v4() ? ip.bytes()[0] == 127 : std::ranges::all_of(ip.bytes().first(15), [](auto b) { return b == 0; });
}

}  // namespace

bool MustBeCut(const FirewallConfig& config, const NetSnapshot& snapshot, const IpAddress& local,
               const IpAddress& remote) {
  if (IsLoopback(local) || IsLoopback(remote) || remote.is_unspecified()) return false;
  if (std::ranges::find(config.own, local) != config.own.end()) return false;
  if (std::ranges::any_of(config.lan, [&](const Prefix& prefix) { return prefix.Contains(remote); })) return false;
  return std::ranges::none_of(snapshot.addresses, [&](const LinkAddress& own) {
    const Link* const link = snapshot.FindLink(own.device);
    if (link == nullptr) return false;
    // Our own addresses talk to each other over "lo", whatever device they stand on.
    if (own.address.ip == remote) return true;
    return own.address.ip == local && (link->kind == "tun" || link->kind == "wireguard");
  });
}

Result<std::size_t> CutOldFlows(const FirewallConfig& config, const NetSnapshot& snapshot) {
  auto diag = DiagSocket::Open();
  if (!diag) return std::unexpected(diag.error());
  std::size_t cut_count = 0;
  for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
    for (const std::uint8_t protocol : {std::uint8_t{IPPROTO_TCP}, std::uint8_t{IPPROTO_UDP}}) {
      inet_diag_req_v2 all{};
      all.sdiag_family = family;
      all.sdiag_protocol = protocol;
      all.idiag_states = kOpen;
      std::vector<inet_diag_msg> old;
      int code = diag->Ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, all, [&](const inet_diag_msg& flow) {
        if (flow.id.idiag_dport == 0) return;
        const IpAddress local = FromDiag(flow.idiag_family, flow.id.idiag_src);
        const IpAddress remote = FromDiag(flow.idiag_family, flow.id.idiag_dst);
        if (MustBeCut(config, snapshot, local, remote)) old.push_back(flow);
      });
      if (code != 0 && code != ENOENT)
        return FailErrno(code, "cannot look at this machine's sockets: {}", strerror(code));
      for (const inet_diag_msg& flow : old) {
        inet_diag_req_v2 one = all;
        one.id = flow.id;
        code = diag->Ask(kDestroy, NLM_F_ACK, one, [](const inet_diag_msg&) {});
        if (code == 0) ++cut_count;
        // It ended by itself meanwhile.
        if (code != 0 && code != ENOENT && code != ESTALE) {
          return FailErrno(code, "this kernel does not end other programs' connections: {}", strerror(code));
        }
      }
    }
  }
  return cut_count;
}

}  // namespace adit
