#include "routing/old_flows.h"

#include <linux/inet_diag.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <span>
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

// An IPv4 flow of an IPv6 socket is an IPv4 flow.
IpAddress FromDiag(std::uint8_t family, const std::uint32_t (&words)[4]) {
  ByteArray<16> bytes;
  std::memcpy(bytes.data(), words, sizeof words);
  constexpr std::array<std::uint8_t, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  if (family == AF_INET) return IpAddress::V4(Bytes(bytes).first(4));
  if (std::ranges::equal(kMapped, Bytes(bytes).first(12))) return IpAddress::V4(Bytes(bytes).last(4));
  return IpAddress::V6(bytes);
}

class AskingSocket {
 public:
  static Result<AskingSocket> Open(int protocol) {
    Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol));
    if (!fd || setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kReceiveTimeout, sizeof kReceiveTimeout) != 0) {
      return FailErrno(errno, "cannot look at this machine's sockets: {}", strerror(errno));
    }
    return AskingSocket(std::move(fd));
  }

  // The kernel's answer to one request; `each` sees the messages of a dump.
  template <typename Each>
  int Ask(std::uint16_t type, std::uint16_t flags, Bytes body, Each each) {
    const nlmsghdr header{.nlmsg_len = static_cast<std::uint32_t>(sizeof(nlmsghdr) + body.size()),
                          .nlmsg_type = type,
                          .nlmsg_flags = static_cast<std::uint16_t>(NLM_F_REQUEST | flags),
                          .nlmsg_seq = ++sequence_,
                          .nlmsg_pid = 0};
    std::vector<std::uint8_t> request(header.nlmsg_len);
    std::memcpy(request.data(), &header, sizeof header);
    std::ranges::copy(body, request.begin() + sizeof header);
    if (send(fd_.get(), request.data(), request.size(), 0) < 0) return errno;
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
        each(message);
      }
    }
  }

 private:
  explicit AskingSocket(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
  std::uint32_t sequence_ = 0;
};

template <typename T>
Bytes BytesOf(const T& value) {
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof value};
}

// ---- conntrack

constexpr std::uint16_t ConntrackType(int message) {
  return static_cast<std::uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | message);
}

std::optional<IpAddress> AddressIn(nlattr* addresses, int v4, int v6) {
  if (addresses == nullptr) return std::nullopt;
  for (const auto& [type, size] : {std::pair{v4, 4}, std::pair{v6, 16}}) {
    nlattr* const found = nla_find(static_cast<nlattr*>(nla_data(addresses)), nla_len(addresses), type);
    if (found == nullptr || nla_len(found) < size) continue;
    const Bytes bytes(static_cast<const std::uint8_t*>(nla_data(found)), static_cast<std::size_t>(size));
    return size == 4 ? IpAddress::V4(bytes.first<4>()) : IpAddress::V6(bytes.first<16>());
  }
  return std::nullopt;
}

// An entry: what it is, and what names it to the kernel.
struct Tracked {
  ForwardedFlow flow;
  std::vector<std::uint8_t> name;  // a family, the original tuple, an identity
};
std::optional<Tracked> ReadTracked(nlmsghdr* message) {
  if (static_cast<std::size_t>(nlmsg_datalen(message)) < NLMSG_ALIGN(sizeof(nfgenmsg))) return std::nullopt;
  constexpr int kHeader = NLMSG_ALIGN(sizeof(nfgenmsg));
  const auto attribute = [&](int type) {
    return nla_find(nlmsg_attrdata(message, sizeof(nfgenmsg)), nlmsg_attrlen(message, sizeof(nfgenmsg)), type);
  };
  const auto addresses_of = [](nlattr* tuple) {
    return nla_find(static_cast<nlattr*>(nla_data(tuple)), nla_len(tuple), CTA_TUPLE_IP);
  };
  nlattr* const original = attribute(CTA_TUPLE_ORIG);
  nlattr* const reply = attribute(CTA_TUPLE_REPLY);
  nlattr* const identity = attribute(CTA_ID);
  if (original == nullptr || reply == nullptr || identity == nullptr) return std::nullopt;
  const auto from = AddressIn(addresses_of(original), CTA_IP_V4_SRC, CTA_IP_V6_SRC);
  const auto to = AddressIn(addresses_of(original), CTA_IP_V4_DST, CTA_IP_V6_DST);
  const auto seen_as = AddressIn(addresses_of(reply), CTA_IP_V4_DST, CTA_IP_V6_DST);
  if (!from || !to || !seen_as) return std::nullopt;
  Tracked tracked{.flow = {*from, *to, *seen_as}, .name = {}};
  const auto append = [&](const void* data, int size) {
    const auto* const bytes = static_cast<const std::uint8_t*>(data);
    tracked.name.insert(tracked.name.end(), bytes, bytes + size);
    tracked.name.resize(NLMSG_ALIGN(tracked.name.size()));
  };
  append(nlmsg_data(message), kHeader);
  append(original, nla_attr_size(nla_len(original)));
  append(identity, nla_attr_size(nla_len(identity)));
  return tracked;
}

// A kernel that tracks nothing, or does not tell, has nothing to forget.
bool TracksNothing(int code) {
  return code == EOPNOTSUPP || code == EINVAL || code == ENOENT || code == EPROTONOSUPPORT;
}

Result<std::size_t> ForgetOldTranslations(const FirewallConfig& config, const NetSnapshot& snapshot) {
  auto conntrack = AskingSocket::Open(NETLINK_NETFILTER);
  if (!conntrack) return 0;
  std::vector<Tracked> old;  // no more than the kernel's own table: nf_conntrack_max
  const nfgenmsg all{.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = 0};
  int code = conntrack->Ask(ConntrackType(IPCTNL_MSG_CT_GET), NLM_F_DUMP, BytesOf(all), [&](nlmsghdr* message) {
    auto tracked = ReadTracked(message);
    if (tracked && MustBeForgotten(config, snapshot, tracked->flow)) old.push_back(std::move(*tracked));
  });
  if (TracksNothing(code)) return 0;
  if (code != 0) return FailErrno(code, "cannot look at the flows that are passed on: {}", strerror(code));
  std::size_t count = 0;
  for (const Tracked& tracked : old) {
    code = conntrack->Ask(ConntrackType(IPCTNL_MSG_CT_DELETE), NLM_F_ACK, tracked.name, [](const nlmsghdr*) {});
    if (code == 0) ++count;
    if (code != 0 && code != ENOENT) {
      return FailErrno(code, "the kernel does not forget flows that are passed on: {}", strerror(code));
    }
  }
  return count;
}

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

bool MustBeForgotten(const FirewallConfig& config, const NetSnapshot& snapshot, const ForwardedFlow& flow) {
  if (flow.seen_as == flow.from || IsLoopback(flow.from) || IsLoopback(flow.to)) return false;
  if (std::ranges::any_of(config.lan, [&](const Prefix& prefix) { return prefix.Contains(flow.to); })) return false;
  const auto stands_on = [&](const IpAddress& ip) -> const Link* {
    const auto own = std::ranges::find(snapshot.addresses, ip, [](const LinkAddress& a) { return a.address.ip; });
    return own == snapshot.addresses.end() ? nullptr : snapshot.FindLink(own->device);
  };
  if (stands_on(flow.from) != nullptr || stands_on(flow.to) != nullptr) return false;
  const Link* const link = stands_on(flow.seen_as);
  return link != nullptr && link->kind != "tun" && link->kind != "wireguard";
}

Result<std::size_t> CutOldFlows(const FirewallConfig& config, const NetSnapshot& snapshot) {
  auto diag = AskingSocket::Open(NETLINK_SOCK_DIAG);
  if (!diag) return std::unexpected(diag.error());
  const auto forgotten = ForgetOldTranslations(config, snapshot);
  if (!forgotten) return forgotten;
  std::size_t cut_count = *forgotten;
  for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
    for (const std::uint8_t protocol : {std::uint8_t{IPPROTO_TCP}, std::uint8_t{IPPROTO_UDP}}) {
      inet_diag_req_v2 all{};
      all.sdiag_family = family;
      all.sdiag_protocol = protocol;
      all.idiag_states = kOpen;
      std::vector<inet_diag_msg> old;
      int code = diag->Ask(SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, BytesOf(all), [&](nlmsghdr* message) {
        if (static_cast<std::size_t>(nlmsg_datalen(message)) < sizeof(inet_diag_msg)) return;
        const auto flow = LoadAs<inet_diag_msg>(static_cast<const std::uint8_t*>(nlmsg_data(message)));
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
        code = diag->Ask(kDestroy, NLM_F_ACK, BytesOf(one), [](const nlmsghdr*) {});
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
