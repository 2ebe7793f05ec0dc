#include "routing/explain.h"

#include <algorithm>
#include <cerrno>

#include "routing/take_snapshot.h"

namespace adit {
namespace {

// What locally made packets have as input device.
constexpr std::string_view kLoopback = "lo";

bool Matches(const Rule& rule, const RouteQuery& query) {
  const auto takes = [](const std::optional<Prefix>& prefix, const std::optional<IpAddress>& ip) {
    return !prefix || prefix->length() == 0 || (ip && prefix->Contains(*ip));
  };
  const auto takes_port = [](const std::optional<PortRange>& ports, std::uint16_t port) {
    return !ports || (ports->first <= port && port <= ports->last);
  };
  const std::string_view input = query.input_device.empty() ? kLoopback : std::string_view(query.input_device);
  const bool matches = takes(rule.source, query.source) && takes(rule.destination, query.destination) &&
                       (query.mark & rule.mark_mask) == rule.mark &&
                       (rule.input_device.empty() || rule.input_device == input) && rule.output_device.empty() &&
                       (rule.ip_protocol == 0 || rule.ip_protocol == query.protocol) &&
                       takes_port(rule.source_ports, query.source_port) &&
                       takes_port(rule.destination_ports, query.destination_port) && rule.tos == 0 && !rule.l3mdev &&
                       (!rule.uids || (rule.uids->first <= query.uid && query.uid <= rule.uids->second));
  return matches != rule.invert;
}

// The longest prefix, then the lowest metric.
const Route* LookupIn(const NetSnapshot& snapshot, std::uint32_t table, const IpAddress& ip) {
  const Route* best = nullptr;
  for (const Route& route : snapshot.routes) {
    if (route.table != table || route.family() != FamilyOf(ip) || !route.destination.Contains(ip)) continue;
    if (route.type == RouteType::kMulticast && !ip.is_multicast()) continue;
    const bool better = best == nullptr || route.destination.length() > best->destination.length() ||
                        (route.destination.length() == best->destination.length() && route.metric < best->metric);
    if (better) best = &route;
  }
  return best;
}

std::string TableName(std::uint32_t table) {
  switch (table) {
    case 255:
      return "local";
    case kMainTable:
      return "main";
    case kDefaultTable:
      return "default";
    default:
      return std::to_string(table);
  }
}

bool Refuses(RouteType type) {
  return type == RouteType::kBlackhole || type == RouteType::kUnreachable || type == RouteType::kProhibit;
}

bool Agree(const Walk& walk, const RouteAnswer& kernel) {
  if (kernel.refusal != 0) {
    return !walk.rule || !walk.route || Refuses(walk.route->type);
  }
  if (!walk.route || Refuses(walk.route->type)) return false;
  if (walk.route->type == RouteType::kLocal || walk.route->type == RouteType::kBroadcast) return true;
  return walk.route->device == kernel.device && walk.route->table == kernel.table;
}

// Somebody who lives on the device's network.
std::optional<IpAddress> NeighbourOn(const NetSnapshot& snapshot, const std::string& device, Family family) {
  for (const LinkAddress& own : snapshot.addresses) {
    const IpAddress& ip = own.address.ip;
    if (own.device != device || FamilyOf(ip) != family || ip.is_v6_link_local()) continue;
    if (own.address.prefix_length + 1 >= ip.bits()) continue;
    ByteArray<16> bytes{};
    std::ranges::copy(ip.bytes(), bytes.begin());
    // Another last bit or two: inside the network, not ours, not its first address.
    for (const std::uint8_t flip : {std::uint8_t{3}, std::uint8_t{1}, std::uint8_t{2}}) {
      ByteArray<16> other = bytes;
      other[ip.bits() / 8 - 1] = static_cast<std::uint8_t>(other[ip.bits() / 8 - 1] ^ flip);
      if ((other[ip.bits() / 8 - 1] & 3) == 0 || (other[ip.bits() / 8 - 1] & 3) == 3) continue;
      return family == Family::kV6 ? IpAddress::V6(other) : IpAddress::V4(Bytes(other).first(4));
    }
  }
  return std::nullopt;
}

}  // namespace

Walk WalkRules(const NetSnapshot& snapshot, const RouteQuery& query) {
  Walk walk;
  std::uint32_t skip_to = 0;
  for (const Rule& rule : snapshot.rules) {
    if (rule.family != FamilyOf(query.destination) || rule.priority < skip_to || !Matches(rule, query)) continue;
    const auto pass = [&](std::string why) { walk.passed.push_back({rule, std::move(why)}); };
    switch (rule.action) {
      case RuleAction::kNop:
        pass("it does nothing");
        continue;
      case RuleAction::kGoto:
        skip_to = rule.goto_priority;
        pass(fmt::format("it goes on at {}", skip_to));
        continue;
      case RuleAction::kLookup:
        break;
      default:
        walk.rule = rule;
        return walk;
    }
    const Route* route = LookupIn(snapshot, rule.table, query.destination);
    if (route == nullptr) {
      pass(fmt::format("table {} has no route to it", TableName(rule.table)));
    } else if (route->type == RouteType::kThrow) {
      pass(fmt::format("table {} passes it on ({})", TableName(rule.table), route->ToString()));
    } else if (static_cast<int>(route->destination.length()) <= rule.suppress_prefixlength && !Refuses(route->type)) {
      pass(fmt::format("table {} has only \"{}\", which the rule does not accept", TableName(rule.table),
                       route->ToString()));
    } else {
      walk.rule = rule;
      walk.route = *route;
      return walk;
    }
  }
  return walk;
}

Result<Explanation> ExplainRoute(NetlinkSocket& socket, RouteQuery query) {
  auto snapshot = TakeSnapshot(socket);
  if (!snapshot) return std::unexpected(snapshot.error());
  if (!query.input_device.empty()) {
    if (snapshot->FindLink(query.input_device) == nullptr) {
      return FailErrno(ENODEV, "there is no interface {}", query.input_device);
    }
    if (!query.source) query.source = NeighbourOn(*snapshot, query.input_device, FamilyOf(query.destination));
    if (!query.source) {
      return FailErrno(EADDRNOTAVAIL, "{} has no address of that family, so no packet of it can come in by it",
                       query.input_device);
    }
  }
  auto answer = AskRoute(socket, query);
  if (!answer) return std::unexpected(answer.error());
  Explanation explanation{.query = query, .kernel = *answer, .walk = WalkRules(*snapshot, query), .agrees = false};
  explanation.agrees = Agree(explanation.walk, explanation.kernel);
  return explanation;
}

}  // namespace adit
