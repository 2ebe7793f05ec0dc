#include "routing/uplink.h"

#include <algorithm>
#include <set>

namespace adit {
namespace {

bool Overlap(const Prefix& a, const Prefix& b) {
  if (a.address().is_v6() != b.address().is_v6()) return false;
  return a.length() <= b.length() ? a.Contains(b.address()) : b.Contains(a.address());
}

}  // namespace

std::optional<Uplink> FindUplink(const NetSnapshot& snapshot, const IpAddress& ip, std::string_view tunnel) {
  for (const std::uint32_t table : {kMainTable, kDefaultTable}) {
    const Route* route = snapshot.Lookup(ip, table, tunnel);
    if (route == nullptr) continue;
    const Link* link = snapshot.FindLink(route->device);
    if (link == nullptr || !link->is_up) continue;
    return Uplink{.device = route->device,
                  .index = link->index,
                  .gateway = route->gateway,
                  .preferred_source = route->preferred_source,
                  .mtu = route->mtu != 0 ? route->mtu : link->mtu};
  }
  return std::nullopt;
}

std::vector<Route> UplinkRoutes(const UplinkNeeds& needs, std::span<const SocketAddress> endpoints,
                                const NetSnapshot& snapshot) {
  std::set<Prefix> destinations;
  const auto is_held = [&](const Prefix& prefix) {
    return std::ranges::any_of(needs.allowed, [&](const Prefix& allowed) { return Overlap(allowed, prefix); });
  };
  if (needs.endpoints) {
    for (const SocketAddress& endpoint : endpoints) {
      // A link-local address means nothing without its link, which the socket names.
      if (endpoint.ip.is_v6_link_local()) continue;
      if (const Prefix host(endpoint.ip, endpoint.ip.bits()); is_held(host)) destinations.insert(host);
    }
  }
  for (const Prefix& prefix : needs.excluded) {
    if (is_held(prefix)) destinations.insert(prefix);
  }

  std::vector<Route> routes;
  for (const Prefix& destination : destinations) {
    const bool is_v6 = destination.address().is_v6();
    if (is_v6 && !needs.has_ipv6) continue;
    Route route;
    route.destination = destination;
    route.metric = is_v6 ? kIpv6Metric : 0;
    const bool is_routed = std::ranges::any_of(snapshot.routes, [&](const Route& other) {
      return other.table == kMainTable && other.destination == destination && other.device != needs.tunnel;
    });
    if (const auto uplink = FindUplink(snapshot, destination.address(), needs.tunnel); uplink && !is_routed) {
      route.device = uplink->device;
      route.gateway = uplink->gateway;
      route.preferred_source = uplink->preferred_source;
      routes.push_back(route);
    }
    Route refused;
    refused.destination = destination;
    refused.type = RouteType::kUnreachable;
    refused.metric = kLastMetric;
    routes.push_back(refused);
  }
  return routes;
}

}  // namespace adit
