#include "routing/links.h"

#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>

#include "routing/wire.h"

namespace adit {
namespace {

Result<ifinfomsg> HeaderOf(NetlinkSocket& socket, const std::string& name) {
  auto link = FindLink(socket, name);
  if (!link) return std::unexpected(link.error());
  ifinfomsg header{};
  header.ifi_index = static_cast<int>(link->index);
  return header;
}

// RTM_NEWLINK on an existing link with whatever `fill` adds.
template <typename Fill>
Status ChangeLink(NetlinkSocket& socket, const std::string& name, const char* what, Fill fill) {
  auto header = HeaderOf(socket, name);
  if (!header) return std::unexpected(header.error());
  NetlinkMessage message(RTM_NEWLINK, 0, *header);
  fill(message);
  Status status = socket.Request(std::move(message));
  if (!status) return FailErrno(status.error().code, "cannot {} {}: {}", what, name, status.error().message);
  return {};
}

Status Explained(Status status, const std::string& what) {
  if (!status) return FailErrno(status.error().code, "cannot {}: {}", what, status.error().message);
  return {};
}

}  // namespace

Result<Link> FindLink(NetlinkSocket& socket, const std::string& name) {
  NetlinkMessage message(RTM_GETLINK, 0, ifinfomsg{});
  message.PutString(IFLA_IFNAME, name);
  Link link;
  Status status = socket.Ask(std::move(message), [&](nlmsghdr* answer) { link = ReadLink(answer); });
  if (!status) return FailErrno(status.error().code, "no network interface {}: {}", name, status.error().message);
  return link;
}

Status CreateVethPair(const VethEnd& left, const VethEnd& right) {
  auto socket = NetlinkSocket::OpenIn(left.netns_fd);
  if (!socket) return std::unexpected(socket.error());
  NetlinkMessage message(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{});
  message.PutString(IFLA_IFNAME, left.name);
  nlattr* info = message.BeginNest(IFLA_LINKINFO);
  message.PutString(IFLA_INFO_KIND, "veth");
  nlattr* data = message.BeginNest(IFLA_INFO_DATA);
  nlattr* peer = message.BeginNest(VETH_INFO_PEER);
  const ifinfomsg peer_header{};
  message.Append(&peer_header, sizeof(peer_header));
  message.PutString(IFLA_IFNAME, right.name);
  message.PutU32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(right.netns_fd));
  message.EndNest(peer);
  message.EndNest(data);
  message.EndNest(info);
  return Explained(socket->Request(std::move(message)),
                   fmt::format("create the veth pair {} and {}", left.name, right.name));
}

Status SetLinkUp(NetlinkSocket& socket, const std::string& name, bool up) {
  auto header = HeaderOf(socket, name);
  if (!header) return std::unexpected(header.error());
  header->ifi_change = IFF_UP;
  header->ifi_flags = up ? static_cast<unsigned>(IFF_UP) : 0U;
  return Explained(socket.Request(NetlinkMessage(RTM_NEWLINK, 0, *header)),
                   fmt::format("set {} {}", name, up ? "up" : "down"));
}

Status SetLinkMtu(NetlinkSocket& socket, const std::string& name, std::uint32_t mtu) {
  return ChangeLink(socket, name, "set the MTU of", [&](NetlinkMessage& message) { message.PutU32(IFLA_MTU, mtu); });
}

Status SetAddressGeneration(NetlinkSocket& socket, const std::string& name, std::uint8_t mode) {
  return ChangeLink(socket, name, "set the address generation of", [&](NetlinkMessage& message) {
    nlattr* families = message.BeginNest(IFLA_AF_SPEC);
    nlattr* v6 = message.BeginNest(AF_INET6);
    message.PutU8(IFLA_INET6_ADDR_GEN_MODE, mode);
    message.EndNest(v6);
    message.EndNest(families);
  });
}

Status SetPromoteSecondaries(NetlinkSocket& socket, const std::string& name, bool on) {
  return ChangeLink(socket, name, "set the promotion of addresses of", [&](NetlinkMessage& message) {
    nlattr* families = message.BeginNest(IFLA_AF_SPEC);
    nlattr* v4 = message.BeginNest(AF_INET);
    nlattr* settings = message.BeginNest(IFLA_INET_CONF);
    message.PutU32(IPV4_DEVCONF_PROMOTE_SECONDARIES, on ? 1 : 0);
    message.EndNest(settings);
    message.EndNest(v4);
    message.EndNest(families);
  });
}

Status AddLinkAddress(NetlinkSocket& socket, const std::string& name, const InterfaceAddress& address) {
  auto link = FindLink(socket, name);
  if (!link) return std::unexpected(link.error());
  return Explained(socket.Request(AddressMessage(RTM_NEWADDR, address, link->index)),
                   fmt::format("add {} to {}", address.ToString(), name));
}

Status MoveLink(NetlinkSocket& socket, const std::string& name, int netns_fd) {
  return ChangeLink(socket, name, "move to another network namespace:", [&](NetlinkMessage& message) {
    message.PutU32(IFLA_NET_NS_FD, static_cast<std::uint32_t>(netns_fd));
  });
}

Status DeleteLink(NetlinkSocket& socket, const std::string& name) {
  auto header = HeaderOf(socket, name);
  if (!header) return std::unexpected(header.error());
  return Explained(socket.Request(NetlinkMessage(RTM_DELLINK, 0, *header)), fmt::format("delete {}", name));
}

Status AddKernelRoute(NetlinkSocket& socket, const Route& route) {
  std::uint32_t index = 0;
  if (!route.device.empty()) {
    auto link = FindLink(socket, route.device);
    if (!link) return std::unexpected(link.error());
    index = link->index;
  }
  return Explained(socket.Request(RouteMessage(RTM_NEWROUTE, route, index)), "add the route " + route.ToString());
}

Status DeleteKernelRoute(NetlinkSocket& socket, const Route& route) {
  std::uint32_t index = 0;
  if (!route.device.empty()) {
    auto link = FindLink(socket, route.device);
    if (!link) return std::unexpected(link.error());
    index = link->index;
  }
  return Explained(socket.Request(RouteMessage(RTM_DELROUTE, route, index)), "delete the route " + route.ToString());
}

Status TuneLink(NetlinkSocket& socket, const std::string& name, const LinkTuning& tuning) {
  return ChangeLink(socket, name, "tune", [&](NetlinkMessage& message) {
    if (tuning.transmit_queue_packets) message.PutU32(IFLA_TXQLEN, *tuning.transmit_queue_packets);
    if (tuning.gso_max_segments) message.PutU32(IFLA_GSO_MAX_SEGS, *tuning.gso_max_segments);
    if (tuning.gso_max_bytes) message.PutU32(IFLA_GSO_MAX_SIZE, *tuning.gso_max_bytes);
  });
}

}  // namespace adit
