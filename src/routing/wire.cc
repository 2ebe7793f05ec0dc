#include "routing/wire.h"

#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>

#include "base/endian.h"

namespace adit {
namespace {

constexpr std::uint16_t kExclusive = NLM_F_CREATE | NLM_F_EXCL;

std::uint8_t FamilyNumber(Family family) { return family == Family::kV6 ? AF_INET6 : AF_INET; }
Family FamilyFrom(std::uint8_t number) { return number == AF_INET6 ? Family::kV6 : Family::kV4; }

Prefix AnyOf(Family family) {
  return Prefix(family == Family::kV6 ? IpAddress::V6(ByteArray<16>{}) : IpAddress::V4(ByteArray<4>{}), 0);
}

std::uint8_t ShortTable(std::uint32_t table) {
  return table < 256 ? static_cast<std::uint8_t>(table) : std::uint8_t{RT_TABLE_UNSPEC};
}

std::optional<PortRange> ReadPorts(const Attributes& attributes, int attribute) {
  const Bytes data = attributes.Data(attribute);
  if (data.size() < sizeof(fib_rule_port_range)) return std::nullopt;
  const auto range = LoadAs<fib_rule_port_range>(data.data());
  return PortRange{range.start, range.end};
}

void PutPorts(NetlinkMessage& message, int attribute, const std::optional<PortRange>& ports) {
  if (!ports) return;
  const fib_rule_port_range range{.start = ports->first, .end = ports->last};
  message.Put(attribute, {reinterpret_cast<const std::uint8_t*>(&range), sizeof(range)});
}

}  // namespace

NetlinkMessage AddressMessage(std::uint16_t type, const InterfaceAddress& address, std::uint32_t index) {
  ifaddrmsg header{};
  header.ifa_family = FamilyNumber(FamilyOf(address.ip));
  header.ifa_prefixlen = static_cast<std::uint8_t>(address.prefix_length);
  header.ifa_index = index;
  header.ifa_scope = address.ip.is_v6_link_local() ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  const bool adding = type == RTM_NEWADDR;
  // Nobody else can be on the other end of a point-to-point link with our address.
  if (adding && address.ip.is_v6()) header.ifa_flags = IFA_F_NODAD;
  NetlinkMessage message(type, adding ? kExclusive : std::uint16_t{0}, header);
  message.PutAddress(IFA_LOCAL, address.ip);
  message.PutAddress(IFA_ADDRESS, address.ip);
  return message;
}

NetlinkMessage RouteMessage(std::uint16_t type, const Route& route, std::uint32_t index) {
  const bool adding = type == RTM_NEWROUTE;
  rtmsg header{};
  header.rtm_family = FamilyNumber(route.family());
  header.rtm_dst_len = static_cast<std::uint8_t>(route.destination.length());
  header.rtm_table = ShortTable(route.table);
  header.rtm_type = static_cast<std::uint8_t>(route.type);
  header.rtm_protocol = route.protocol;
  const bool to_neighbour = route.type == RouteType::kUnicast && !route.gateway && route.family() == Family::kV4;
  header.rtm_scope = to_neighbour ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  if (!adding) header.rtm_scope = RT_SCOPE_NOWHERE;  // any
  NetlinkMessage message(type, adding ? kExclusive : std::uint16_t{0}, header);
  if (route.destination.length() > 0) message.PutAddress(RTA_DST, route.destination.address());
  message.PutU32(RTA_TABLE, route.table);
  if (route.metric != 0) message.PutU32(RTA_PRIORITY, route.metric);
  if (index != 0) message.PutU32(RTA_OIF, index);
  if (route.gateway) message.PutAddress(RTA_GATEWAY, *route.gateway);
  if (route.preferred_source) message.PutAddress(RTA_PREFSRC, *route.preferred_source);
  if (adding && route.mtu != 0) {
    nlattr* metrics = message.BeginNest(RTA_METRICS);
    message.PutU32(RTAX_MTU, route.mtu);
    message.EndNest(metrics);
  }
  return message;
}

NetlinkMessage RuleMessage(std::uint16_t type, const Rule& rule) {
  fib_rule_hdr header{};
  header.family = FamilyNumber(rule.family);
  header.dst_len = rule.destination ? static_cast<std::uint8_t>(rule.destination->length()) : std::uint8_t{0};
  header.src_len = rule.source ? static_cast<std::uint8_t>(rule.source->length()) : std::uint8_t{0};
  header.tos = rule.tos;
  header.table = ShortTable(rule.table);
  header.action = static_cast<std::uint8_t>(rule.action);
  header.flags = rule.invert ? FIB_RULE_INVERT : 0;
  NetlinkMessage message(type, type == RTM_NEWRULE ? kExclusive : std::uint16_t{0}, header);
  message.PutU32(FRA_PRIORITY, rule.priority);
  if (header.dst_len > 0) message.PutAddress(FRA_DST, rule.destination->address());
  if (header.src_len > 0) message.PutAddress(FRA_SRC, rule.source->address());
  if (rule.mark_mask != 0) {
    message.PutU32(FRA_FWMARK, rule.mark);
    message.PutU32(FRA_FWMASK, rule.mark_mask);
  }
  if (!rule.input_device.empty()) message.PutString(FRA_IIFNAME, rule.input_device);
  if (!rule.output_device.empty()) message.PutString(FRA_OIFNAME, rule.output_device);
  if (rule.ip_protocol != 0) message.PutU8(FRA_IP_PROTO, rule.ip_protocol);
  PutPorts(message, FRA_SPORT_RANGE, rule.source_ports);
  PutPorts(message, FRA_DPORT_RANGE, rule.destination_ports);
  if (rule.uids) {
    const fib_rule_uid_range range{.start = rule.uids->first, .end = rule.uids->second};
    message.Put(FRA_UID_RANGE, {reinterpret_cast<const std::uint8_t*>(&range), sizeof(range)});
  }
  if (rule.l3mdev) message.PutU8(FRA_L3MDEV, 1);
  if (rule.action == RuleAction::kLookup && !rule.l3mdev) message.PutU32(FRA_TABLE, rule.table);
  if (rule.action == RuleAction::kGoto) message.PutU32(FRA_GOTO, rule.goto_priority);
  if (rule.suppress_prefixlength >= 0) {
    message.PutU32(FRA_SUPPRESS_PREFIXLEN, static_cast<std::uint32_t>(rule.suppress_prefixlength));
  }
  if (rule.suppress_group >= 0) {
    message.PutU32(FRA_SUPPRESS_IFGROUP, static_cast<std::uint32_t>(rule.suppress_group));
  }
  message.PutU8(FRA_PROTOCOL, rule.protocol);
  return message;
}

Link ReadLink(nlmsghdr* message) {
  const auto* header = static_cast<const ifinfomsg*>(nlmsg_data(message));
  const auto attributes = Attributes::Of(message, sizeof(ifinfomsg));
  return {.index = static_cast<std::uint32_t>(header->ifi_index),
          .name = attributes.String(IFLA_IFNAME),
          .mtu = attributes.U32(IFLA_MTU),
          .is_up = (header->ifi_flags & IFF_UP) != 0,
          .address_generation = attributes.Nested(IFLA_AF_SPEC).Nested(AF_INET6).U8(IFLA_INET6_ADDR_GEN_MODE),
          .kind = attributes.Nested(IFLA_LINKINFO).String(IFLA_INFO_KIND)};
}

LinkAddress ReadAddress(nlmsghdr* message, const DeviceNames& names) {
  const auto* header = static_cast<const ifaddrmsg*>(nlmsg_data(message));
  const auto attributes = Attributes::Of(message, sizeof(ifaddrmsg));
  // On a point-to-point link with a named peer IFA_ADDRESS is the peer's.
  auto ip = attributes.Address(IFA_LOCAL);
  if (!ip) ip = attributes.Address(IFA_ADDRESS);
  return {names(header->ifa_index), {ip.value_or(IpAddress()), header->ifa_prefixlen}};
}

std::optional<Route> ReadRoute(nlmsghdr* message, const DeviceNames& names) {
  const auto* header = static_cast<const rtmsg*>(nlmsg_data(message));
  if (header->rtm_flags & RTM_F_CLONED) return std::nullopt;
  const auto attributes = Attributes::Of(message, sizeof(rtmsg));
  Route route;
  const auto destination = attributes.Address(RTA_DST);
  route.destination = destination ? Prefix(*destination, header->rtm_dst_len) : AnyOf(FamilyFrom(header->rtm_family));
  route.table = attributes.Has(RTA_TABLE) ? attributes.U32(RTA_TABLE) : header->rtm_table;
  route.type = static_cast<RouteType>(header->rtm_type);
  route.metric = attributes.U32(RTA_PRIORITY);
  route.protocol = header->rtm_protocol;
  std::uint32_t index = attributes.U32(RTA_OIF);
  route.gateway = attributes.Address(RTA_GATEWAY);
  if (const Bytes hops = attributes.Data(RTA_MULTIPATH); hops.size() >= sizeof(rtnexthop)) {
    const auto hop = LoadAs<rtnexthop>(hops.data());
    index = static_cast<std::uint32_t>(hop.rtnh_ifindex);
    if (hop.rtnh_len > sizeof(rtnexthop) && hop.rtnh_len <= hops.size()) {
      const auto* first = reinterpret_cast<const nlattr*>(hops.data() + sizeof(rtnexthop));
      route.gateway = Attributes(first, static_cast<int>(hop.rtnh_len - sizeof(rtnexthop))).Address(RTA_GATEWAY);
    }
  }
  // The kernel hangs IPv6's unreachable routes on "lo"; they leave by no device.
  const bool leaves = route.type != RouteType::kBlackhole && route.type != RouteType::kUnreachable &&
                      route.type != RouteType::kProhibit && route.type != RouteType::kThrow;
  if (index != 0 && leaves) route.device = names(index);
  route.preferred_source = attributes.Address(RTA_PREFSRC);
  route.mtu = attributes.Nested(RTA_METRICS).U32(RTAX_MTU);
  return route;
}

Rule ReadRule(nlmsghdr* message) {
  const auto* header = static_cast<const fib_rule_hdr*>(nlmsg_data(message));
  const auto attributes = Attributes::Of(message, sizeof(fib_rule_hdr));
  Rule rule;
  rule.family = FamilyFrom(header->family);
  rule.priority = attributes.U32(FRA_PRIORITY);
  rule.invert = (header->flags & FIB_RULE_INVERT) != 0;
  if (const auto source = attributes.Address(FRA_SRC)) rule.source = Prefix(*source, header->src_len);
  if (const auto destination = attributes.Address(FRA_DST)) rule.destination = Prefix(*destination, header->dst_len);
  rule.mark = attributes.U32(FRA_FWMARK);
  rule.mark_mask = attributes.U32(FRA_FWMASK);
  rule.input_device = attributes.String(FRA_IIFNAME);
  rule.output_device = attributes.String(FRA_OIFNAME);
  rule.ip_protocol = attributes.U8(FRA_IP_PROTO);
  rule.source_ports = ReadPorts(attributes, FRA_SPORT_RANGE);
  rule.destination_ports = ReadPorts(attributes, FRA_DPORT_RANGE);
  if (const Bytes uids = attributes.Data(FRA_UID_RANGE); uids.size() >= sizeof(fib_rule_uid_range)) {
    const auto range = LoadAs<fib_rule_uid_range>(uids.data());
    rule.uids = {range.start, range.end};
  }
  rule.tos = header->tos;
  rule.l3mdev = attributes.U8(FRA_L3MDEV) != 0;
  rule.action = static_cast<RuleAction>(header->action);
  rule.table = attributes.Has(FRA_TABLE) ? attributes.U32(FRA_TABLE) : header->table;
  rule.goto_priority = attributes.U32(FRA_GOTO);
  if (attributes.Has(FRA_SUPPRESS_PREFIXLEN)) {
    rule.suppress_prefixlength = static_cast<int>(attributes.U32(FRA_SUPPRESS_PREFIXLEN));
  }
  if (attributes.Has(FRA_SUPPRESS_IFGROUP)) {
    rule.suppress_group = static_cast<int>(attributes.U32(FRA_SUPPRESS_IFGROUP));
  }
  rule.protocol = attributes.U8(FRA_PROTOCOL);
  return rule;
}

}  // namespace adit
