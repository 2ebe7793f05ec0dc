#include "routing/snapshot.h"

#include <fmt/format.h>
#include <netinet/in.h>

#include <charconv>

namespace adit {
namespace {

constexpr std::string_view kUnreachableKinds[] = {"blackhole", "unreachable", "prohibit", "throw"};

std::string DestinationText(const Prefix& prefix) {
  if (prefix.length() == 0) return "default";
  return prefix.length() == prefix.address().bits() ? prefix.address().ToString() : prefix.ToString();
}

std::string ProtocolText(std::uint8_t protocol) {
  switch (protocol) {
    case 2:
      return "kernel";
    case 3:
      return "boot";
    case 4:
      return "static";
    default:
      return std::to_string(protocol);
  }
}

std::string TableText(std::uint32_t table) {
  switch (table) {
    case kDefaultTable:
      return "default";
    case kMainTable:
      return "main";
    case 255:
      return "local";
    default:
      return std::to_string(table);
  }
}

std::string PortsText(const PortRange& ports) {
  return ports.first == ports.last ? std::to_string(ports.first) : fmt::format("{}-{}", ports.first, ports.last);
}

std::string ActionText(const Rule& rule) {
  switch (rule.action) {
    case RuleAction::kLookup:
      return rule.l3mdev ? "l3mdev" : "lookup " + TableText(rule.table);
    case RuleAction::kGoto:
      return fmt::format("goto {}", rule.goto_priority);
    case RuleAction::kNop:
      return "nop";
    case RuleAction::kBlackhole:
      return "blackhole";
    case RuleAction::kUnreachable:
      return "unreachable";
    case RuleAction::kProhibit:
      return "prohibit";
  }
  return fmt::format("action {}", static_cast<unsigned>(rule.action));
}

bool IsAll(const std::optional<Prefix>& prefix) { return !prefix || prefix->length() == 0; }

}  // namespace

std::optional<InterfaceAddress> ParseInterfaceAddress(std::string_view text) {
  const auto slash = text.find('/');
  const auto ip = IpAddress::Parse(text.substr(0, slash));
  if (!ip) return std::nullopt;
  InterfaceAddress address{.ip = *ip, .prefix_length = ip->bits()};
  if (slash != std::string_view::npos) {
    const char* digits = text.data() + slash + 1;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(digits, end, address.prefix_length);
    if (error != std::errc() || stop != end || address.prefix_length > ip->bits()) return std::nullopt;
  }
  return address;
}

std::string Route::ToString() const {
  std::string text;
  switch (type) {
    case RouteType::kUnicast:
      break;
    case RouteType::kLocal:
      text = "local ";
      break;
    case RouteType::kBroadcast:
      text = "broadcast ";
      break;
    case RouteType::kMulticast:
      text = "multicast ";
      break;
    case RouteType::kBlackhole:
    case RouteType::kUnreachable:
    case RouteType::kProhibit:
    case RouteType::kThrow:
      text = kUnreachableKinds[static_cast<unsigned>(type) - static_cast<unsigned>(RouteType::kBlackhole)];
      text += ' ';
      break;
  }
  text += DestinationText(destination);
  if (gateway) text += " via " + gateway->ToString();
  if (!device.empty()) text += " dev " + device;
  if (table != kMainTable) text += " table " + TableText(table);
  text += " proto " + ProtocolText(protocol);
  if (metric != 0) text += fmt::format(" metric {}", metric);
  if (preferred_source) text += " src " + preferred_source->ToString();
  if (mtu != 0) text += fmt::format(" mtu {}", mtu);
  return text;
}

bool Rule::TakesEveryPacketMarked(std::uint32_t packet_mark) const {
  const bool other_selectors = !IsAll(source) || !IsAll(destination) || !input_device.empty() ||
                               !output_device.empty() || ip_protocol != 0 || source_ports || destination_ports ||
                               uids || tos != 0 || l3mdev;
  if (other_selectors) return false;
  const bool matches = (packet_mark & mark_mask) == mark;
  return matches != invert;
}

std::string Rule::ToString() const {
  std::string text = fmt::format("pref {}", priority);
  if (invert) text += " not";
  if (!IsAll(source)) text += " from " + DestinationText(*source);
  if (!IsAll(destination)) text += " to " + DestinationText(*destination);
  if (mark_mask == 0xffffffff) {
    text += fmt::format(" fwmark {:#x}", mark);
  } else if (mark_mask != 0) {
    text += fmt::format(" fwmark {:#x}/{:#x}", mark, mark_mask);
  }
  if (!input_device.empty()) text += " iif " + input_device;
  if (!output_device.empty()) text += " oif " + output_device;
  if (ip_protocol == IPPROTO_UDP) {
    text += " ipproto udp";
  } else if (ip_protocol != 0) {
    text += fmt::format(" ipproto {}", ip_protocol);
  }
  if (source_ports) text += " sport " + PortsText(*source_ports);
  if (destination_ports) text += " dport " + PortsText(*destination_ports);
  if (uids) text += fmt::format(" uidrange {}-{}", uids->first, uids->second);
  if (tos != 0) text += fmt::format(" tos {:#x}", tos);
  text += " " + ActionText(*this);
  if (suppress_prefixlength >= 0) text += fmt::format(" suppress_prefixlength {}", suppress_prefixlength);
  if (suppress_group >= 0) text += fmt::format(" suppress_ifgroup {}", suppress_group);
  text += " protocol " + ProtocolText(protocol);
  return text;
}

const Link* NetSnapshot::FindLink(std::string_view name) const {
  for (const Link& link : links) {
    if (link.name == name) return &link;
  }
  return nullptr;
}

int NetSnapshot::Sysctl(std::string_view key, int fallback) const {
  const auto found = sysctls.find(key);
  if (found == sysctls.end()) return fallback;
  int value = fallback;
  std::from_chars(found->second.data(), found->second.data() + found->second.size(), value);
  return value;
}

const Route* NetSnapshot::Lookup(const IpAddress& ip, std::uint32_t table, std::string_view except_device) const {
  const Route* best = nullptr;
  for (const Route& route : routes) {
    if (route.table != table || route.device.empty() || route.device == except_device) continue;
    if (route.device == kLoopback) continue;
    if (route.family() != FamilyOf(ip) || !route.destination.Contains(ip)) continue;
    const bool better = best == nullptr || route.destination.length() > best->destination.length() ||
                        (route.destination.length() == best->destination.length() && route.metric < best->metric);
    if (better) best = &route;
  }
  return best;
}

}  // namespace adit
