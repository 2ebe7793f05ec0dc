#include "routing/network_events.h"

#include <fcntl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/endian.h"
#include "base/fd.h"
#include "routing/wire.h"

namespace adit {
namespace {

// Room for a flush of some thousand routes while the control thread does something else.
constexpr int kReceiveBufferBytes = 4 << 20;
// libnl's ports carry the process id in the lower bits, so that a process may have many.
constexpr std::uint32_t kPidMask = 0x3fffff;
constexpr std::size_t kMaxOwnPorts = 64;  // sockets that change something; the oldest is forgotten

std::string ReadProc(std::uint32_t pid, const char* leaf) {
  const Fd fd(open(fmt::format("/proc/{}/{}", pid, leaf).c_str(), O_RDONLY | O_CLOEXEC));
  char buffer[512];
  const ssize_t size = fd ? read(fd.get(), buffer, sizeof(buffer)) : -1;
  return std::string(buffer, size > 0 ? static_cast<std::size_t>(size) : 0);
}

std::string CommandName(std::uint32_t pid) {
  std::string name = ReadProc(pid, "comm");
  while (!name.empty() && name.back() == '\n') name.pop_back();
  return name;
}

std::uint32_t ParentOf(std::uint32_t pid) {
  const std::string stat = ReadProc(pid, "stat");
  const auto name_end = stat.rfind(')');  // the name may hold anything
  std::uint32_t parent = 0;
  if (name_end != std::string::npos && name_end + 4 < stat.size()) {
    sscanf(stat.c_str() + name_end + 4, "%u", &parent);
  }
  return parent;
}

}  // namespace

std::string DescribeProcess(std::uint32_t port_id) {
  if (port_id == 0) return "";
  std::uint32_t pid = port_id;
  std::string name = CommandName(pid);
  if (name.empty()) {
    pid = port_id & kPidMask;
    name = CommandName(pid);
  }
  if (name.empty()) return port_id <= kPidMask ? fmt::format("pid {}", port_id) : "";
  const std::uint32_t parent = ParentOf(pid);
  const std::string parent_name = parent > 1 ? CommandName(parent) : "";
  if (parent_name.empty()) return fmt::format("{} (pid {})", name, pid);
  return fmt::format("{} (pid {}, started by {})", name, pid, parent_name);
}

Result<std::unique_ptr<NetworkEvents>> NetworkEvents::Open() {
  std::unique_ptr<NetworkEvents> events(new NetworkEvents);
  const auto listen = [](int protocol, std::initializer_list<int> groups) -> Result<Socket> {
    Socket socket(nl_socket_alloc());
    CHECK(socket != nullptr);
    errno = 0;
    if (const int error = nl_connect(socket.get(), protocol); error < 0) {
      return FailErrno(errno, "cannot open a netlink socket for changes of the network: {}", nl_geterror(error));
    }
    nl_socket_set_nonblocking(socket.get());
    const int fd = nl_socket_get_fd(socket.get());
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof(kReceiveBufferBytes));
    for (const int group : groups) {
      if (nl_socket_add_membership(socket.get(), group) < 0) {
        return FailErrno(errno, "cannot listen for changes of the network (group {}): {}", group, strerror(errno));
      }
    }
    return socket;
  };
  auto route = listen(NETLINK_ROUTE, {RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                                      RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE});
  if (!route) return std::unexpected(route.error());
  events->route_ = std::move(*route);
  if (auto firewall = listen(NETLINK_NETFILTER, {NFNLGRP_NFTABLES})) events->firewall_ = std::move(*firewall);

  // Events name devices by number.
  auto asking = NetlinkSocket::Open();
  if (!asking) return std::unexpected(asking.error());
  Status named = asking->Dump(
      NetlinkMessage(RTM_GETLINK, 0, ifinfomsg{}), [&] { events->device_names_.clear(); },
      [&](nlmsghdr* message) {
        const Link link = ReadLink(message);
        events->device_names_[link.index] = link.name;
      });
  if (!named) return std::unexpected(named.error());
  return events;
}

void NetworkEvents::IgnorePort(std::uint32_t port_id) {
  if (std::ranges::find(own_ports_, port_id) != own_ports_.end()) return;
  if (own_ports_.size() == kMaxOwnPorts) own_ports_.erase(own_ports_.begin());
  own_ports_.push_back(port_id);
}

NetworkNews NetworkEvents::Read() {
  NetworkNews news;
  ReadSocket(route_.get(), news);
  if (firewall_) ReadSocket(firewall_.get(), news);
  return news;
}

void NetworkEvents::ReadSocket(nl_sock* socket, NetworkNews& news) {
  alignas(nlmsghdr) std::uint8_t buffer[32768];
  while (news.events.size() < kMaxEventsPerRead) {
    sockaddr_nl from{};
    socklen_t from_size = sizeof(from);
    const ssize_t size = recvfrom(nl_socket_get_fd(socket), buffer, sizeof(buffer), MSG_DONTWAIT,
                                  reinterpret_cast<sockaddr*>(&from), &from_size);
    if (size < 0 && errno == ENOBUFS) {
      news.is_lost = true;
      continue;
    }
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return;
    if (from.nl_pid != 0) continue;  // only the kernel counts
    int left = static_cast<int>(size);
    for (auto* message = reinterpret_cast<nlmsghdr*>(buffer); nlmsg_ok(message, left);
         message = nlmsg_next(message, &left)) {
      OnMessage(message, news);
    }
  }
}

const std::string& NetworkEvents::Culprit(std::uint32_t port_id) {
  // A flush is many events of one process, which may be gone before the last is read.
  if (port_id != last_port_) {
    last_port_ = port_id;
    last_culprit_ = DescribeProcess(port_id);
  }
  return last_culprit_;
}

void NetworkEvents::OnMessage(nlmsghdr* message, NetworkNews& news) {
  const bool is_own = message->nlmsg_pid != 0 && std::ranges::find(own_ports_, message->nlmsg_pid) != own_ports_.end();
  if (is_own && message->nlmsg_type != RTM_NEWLINK) return;  // the names must be kept up to date all the same
  const DeviceNames names = [&](std::uint32_t index) {
    const auto found = device_names_.find(index);
    return found != device_names_.end() ? found->second : fmt::format("#{}", index);
  };
  NetworkEvent event;
  event.port_id = message->nlmsg_pid;
  const auto has = [&](std::size_t header) { return nlmsg_valid_hdr(message, static_cast<int>(header)) != 0; };
  switch (message->nlmsg_type) {
    case RTM_NEWLINK:
    case RTM_DELLINK: {
      if (!has(sizeof(ifinfomsg))) return;
      const auto* header = static_cast<const ifinfomsg*>(nlmsg_data(message));
      if (header->ifi_family != AF_UNSPEC) return;  // a bridge speaks of its ports in another family
      Link link = ReadLink(message);
      event.is_removal = message->nlmsg_type == RTM_DELLINK;
      if (event.is_removal) {
        device_names_.erase(link.index);
      } else {
        device_names_[link.index] = link.name;
      }
      event.kind = EventKind::kLink;
      event.thing = std::move(link);
      break;
    }
    case RTM_NEWADDR:
    case RTM_DELADDR:
      if (!has(sizeof(ifaddrmsg))) return;
      event.kind = EventKind::kAddress;
      event.is_removal = message->nlmsg_type == RTM_DELADDR;
      if (event.is_removal) event.thing = ReadAddress(message, names);
      break;
    case RTM_NEWROUTE:
    case RTM_DELROUTE: {
      if (!has(sizeof(rtmsg))) return;
      event.kind = EventKind::kRoute;
      event.is_removal = message->nlmsg_type == RTM_DELROUTE;
      if (static_cast<const rtmsg*>(nlmsg_data(message))->rtm_flags & RTM_F_CLONED) return;
      if (event.is_removal) {
        if (auto route = ReadRoute(message, names)) event.thing = std::move(*route);
      }
      break;
    }
    case RTM_NEWRULE:
    case RTM_DELRULE:
      if (!has(sizeof(rtmsg))) return;
      event.kind = EventKind::kRule;
      event.is_removal = message->nlmsg_type == RTM_DELRULE;
      if (event.is_removal) event.thing = ReadRule(message);
      break;
    case (NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG_NEWGEN: {
      // The last message of each transaction; it names the process.
      if (!has(sizeof(nfgenmsg))) return;
      const auto attributes = Attributes::Of(message, sizeof(nfgenmsg));
      const Bytes pid = attributes.Data(NFTA_GEN_PROC_PID);
      event.kind = EventKind::kFirewall;
      event.culprit = fmt::format("{} (pid {})", attributes.String(NFTA_GEN_PROC_NAME),
                                  pid.size() == 4 ? std::uint32_t{LoadAs<U32Be>(pid.data())} : 0U);
      break;
    }
    default:
      return;
  }
  if (is_own) return;
  if (event.culprit.empty() && (event.is_removal || event.kind == EventKind::kLink)) {
    event.culprit = Culprit(event.port_id);
  }
  news.events.push_back(std::move(event));
}

}  // namespace adit
