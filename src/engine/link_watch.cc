#include "engine/link_watch.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sched.h>
#include <sys/stat.h>

#include <cerrno>
#include <thread>

#include "base/check.h"
#include "engine/poller.h"

namespace adit {
namespace {

// A socket that only listens: no acknowledgements, no sequence check, never blocks.
Result<OwnedNetlinkSocket> OpenListener() {
  OwnedNetlinkSocket socket(nl_socket_alloc());
  if (!socket) return FailDescriptor(ENOMEM, "a netlink socket");
  nl_socket_disable_seq_check(socket.get());
  nl_socket_disable_auto_ack(socket.get());
  if (nl_connect(socket.get(), NETLINK_ROUTE) < 0 || nl_socket_set_nonblocking(socket.get()) < 0) {
    return FailDescriptor(errno, "a netlink socket");
  }
  nl_socket_set_buffer_size(socket.get(), 1 << 20, 0);
  return socket;
}

// Entering a namespace takes CAP_SYS_ADMIN even where it is our own; a container has CAP_NET_ADMIN alone.
bool IsOwnNamespace(int namespace_fd) {
  struct stat ours{};
  struct stat theirs{};
  return stat("/proc/thread-self/ns/net", &ours) == 0 && fstat(namespace_fd, &theirs) == 0 &&
         ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

}  // namespace

void FreeNetlinkSocket::operator()(nl_sock* socket) const { nl_socket_free(socket); }

Result<std::unique_ptr<LinkWatch>> LinkWatch::Open(int namespace_fd, const std::string& name) {
  std::unique_ptr<LinkWatch> watch(new LinkWatch);
  bool entered = true;
  Result<OwnedNetlinkSocket> opened;
  const auto open = [&] {
    opened = OpenListener();
    watch->index_ = static_cast<int>(if_nametoindex(name.c_str()));
  };
  if (namespace_fd < 0 || IsOwnNamespace(namespace_fd)) {
    open();
  } else {
    // A namespace belongs to a thread, and a socket to the namespace it was made in.
    std::thread([&] {
      entered = setns(namespace_fd, CLONE_NEWNET) == 0;
      if (entered) open();
    }).join();
  }
  if (!entered) return FailErrno(EPERM, "cannot enter the network namespace of {}: CAP_SYS_ADMIN is missing", name);
  if (!opened) return std::unexpected(opened.error());
  watch->socket_ = std::move(*opened);
  if (nl_socket_add_memberships(watch->socket_.get(), RTNLGRP_LINK, RTNLGRP_NONE) < 0) {
    return Fail("cannot listen for changes of links");
  }
  nl_socket_modify_cb(
      watch->socket_.get(), NL_CB_VALID, NL_CB_CUSTOM,
      [](nl_msg* message, void* self) { return static_cast<LinkWatch*>(self)->OnMessage(message); }, watch.get());
  watch->state_.exists = watch->index_ != 0;
  watch->Request();
  return watch;
}

int LinkWatch::fd() const { return nl_socket_get_fd(socket_.get()); }

void LinkWatch::Request() {
  ifinfomsg request{};
  request.ifi_family = AF_UNSPEC;
  request.ifi_index = index_;
  nl_send_simple(socket_.get(), RTM_GETLINK, NLM_F_REQUEST, &request, sizeof request);
}

void LinkWatch::Process() {
  for (;;) {
    const int result = nl_recvmsgs_default(socket_.get());
    if (result == -NLE_AGAIN) return;
    if (result == -NLE_NOMEM) {
      Request();
    } else if (result == -NLE_NODEV || result == -NLE_OBJ_NOTFOUND) {
      state_ = LinkState{};
    } else if (result == -NLE_DUMP_INTR || result == -NLE_INTR) {
      continue;
    } else if (result == -NLE_PERM || result == -NLE_OPNOTSUPP || result == -NLE_INVAL || result == -NLE_RANGE) {
      continue;  // the answer to LimitSegments()
    } else if (result < 0) {
      return;
    }
  }
}

void LinkWatch::LimitSegments(unsigned segments) {
  ifinfomsg link{};
  link.ifi_family = AF_UNSPEC;
  link.ifi_index = index_;
  nl_msg* message = nlmsg_alloc_simple(RTM_NEWLINK, NLM_F_REQUEST);
  CHECK(message != nullptr);
  CHECK(nlmsg_append(message, &link, sizeof link, NLMSG_ALIGNTO) == 0);
  CHECK(nla_put_u32(message, IFLA_GSO_MAX_SEGS, segments) == 0);
  nl_send_auto(socket_.get(), message);
  nlmsg_free(message);
}

int LinkWatch::OnMessage(nl_msg* message) {
  nlmsghdr* header = nlmsg_hdr(message);
  if (header->nlmsg_type != RTM_NEWLINK && header->nlmsg_type != RTM_DELLINK) return NL_OK;
  if (!nlmsg_valid_hdr(header, sizeof(ifinfomsg))) return NL_SKIP;
  const auto* info = static_cast<const ifinfomsg*>(nlmsg_data(header));
  // A bridge that loses the link as its port says RTM_DELLINK too, in another family.
  if (info->ifi_index != index_ || info->ifi_family != AF_UNSPEC) return NL_OK;
  if (header->nlmsg_type == RTM_DELLINK) {
    state_ = LinkState{};
    return NL_OK;
  }
  state_.exists = true;
  state_.is_up = (info->ifi_flags & IFF_UP) != 0;
  if (const nlattr* mtu = nlmsg_find_attr(header, sizeof(ifinfomsg), IFLA_MTU)) state_.mtu = nla_get_u32(mtu);
  return NL_OK;
}

Result<std::unique_ptr<LinkLookup>> LinkLookup::Open() {
  std::unique_ptr<LinkLookup> lookup(new LinkLookup);
  auto opened = OpenListener();
  if (!opened) return std::unexpected(opened.error());
  lookup->socket_ = std::move(*opened);
  return lookup;
}

std::uint32_t LinkLookup::RouteTo(const IpAddress& to, const IpAddress& from, std::uint32_t mark) {
  const auto put = [](nl_msg* message, int attribute, const IpAddress& ip) {
    CHECK(nla_put(message, attribute, static_cast<int>(ip.bits() / 8), ip.bytes().data()) == 0);
  };
  rtmsg route{};
  route.rtm_family = to.is_v4() ? AF_INET : AF_INET6;
  route.rtm_dst_len = static_cast<std::uint8_t>(to.bits());
  if (!from.is_unspecified()) route.rtm_src_len = static_cast<std::uint8_t>(from.bits());
  nl_msg* message = nlmsg_alloc_simple(RTM_GETROUTE, NLM_F_REQUEST);
  CHECK(message != nullptr);
  CHECK(nlmsg_append(message, &route, sizeof route, NLMSG_ALIGNTO) == 0);
  put(message, RTA_DST, to);
  if (!from.is_unspecified()) put(message, RTA_SRC, from);
  if (mark != 0) CHECK(nla_put_u32(message, RTA_MARK, mark) == 0);
  std::uint32_t link = 0;
  nl_socket_modify_cb(
      socket_.get(), NL_CB_VALID, NL_CB_CUSTOM,
      [](nl_msg* reply, void* into) -> int {
        nlmsghdr* header = nlmsg_hdr(reply);
        if (header->nlmsg_type != RTM_NEWROUTE || !nlmsg_valid_hdr(header, sizeof(rtmsg))) return NL_SKIP;
        const auto* answer = static_cast<const rtmsg*>(nlmsg_data(header));
        const nlattr* index = nlmsg_find_attr(header, sizeof(rtmsg), RTA_OIF);
        // IPv6 answers with the unreachable route itself.
        if (answer->rtm_type == RTN_UNICAST && index != nullptr) {
          *static_cast<std::uint32_t*>(into) = nla_get_u32(index);
        }
        return NL_OK;
      },
      &link);
  // The answer to a question about a route is there when the question has been sent.
  if (nl_send_auto(socket_.get(), message) >= 0) nl_recvmsgs_default(socket_.get());
  nlmsg_free(message);
  return link;
}

std::uint32_t LinkLookup::HomeOf(const IpAddress& ip) {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return 0;
  std::uint32_t link = 0;
  for (const ifaddrs* entry = list; entry != nullptr && link == 0; entry = entry->ifa_next) {
    if (entry->ifa_addr == nullptr) continue;
    const auto address = SocketAddress::FromSockaddr(entry->ifa_addr);
    if (address && address->ip == ip) link = if_nametoindex(entry->ifa_name);
  }
  freeifaddrs(list);
  return link;
}

Result<std::unique_ptr<NetworkWatch>> NetworkWatch::Open() {
  std::unique_ptr<NetworkWatch> watch(new NetworkWatch);
  auto opened = OpenListener();
  if (!opened) return std::unexpected(opened.error());
  watch->socket_ = std::move(*opened);
  if (nl_socket_add_memberships(watch->socket_.get(), RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV4_ROUTE,
                                RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_NONE) < 0) {
    return Fail("cannot listen for changes of addresses, routes and rules");
  }
  nl_socket_modify_cb(
      watch->socket_.get(), NL_CB_VALID, NL_CB_CUSTOM,
      [](nl_msg* message, void* self) -> int {
        const auto type = nlmsg_hdr(message)->nlmsg_type;
        WatchNews& news = static_cast<NetworkWatch*>(self)->news_;
        (type == RTM_NEWRULE || type == RTM_DELRULE ? news.rules : news.places) = true;
        return NL_OK;
      },
      watch.get());
  return watch;
}

int NetworkWatch::fd() const { return nl_socket_get_fd(socket_.get()); }

WatchNews NetworkWatch::Process() {
  news_ = {};
  for (;;) {
    const int result = nl_recvmsgs_default(socket_.get());
    if (result == -NLE_NOMEM) {
      news_ = {.places = true, .rules = true};  // messages were lost
    } else if (result < 0 && result != -NLE_INTR) {
      return news_;
    }
  }
}

}  // namespace adit
