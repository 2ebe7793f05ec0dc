// The way past the tunnel: where table main would send a packet if our tunnel were not there, and the routes that keep
// packets on that way on a machine that takes no policy rules. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "routing/snapshot.h"

namespace adit {

// What the kernel gives its own unreachable defaults: behind every real route.
inline constexpr std::uint32_t kLastMetric = 4278198272;
inline constexpr std::uint32_t kIpv6Metric = 1024;  // IP6_RT_PRIO_USER; written out, so a route can be named exactly

struct Uplink {
  std::string device;
  std::uint32_t index = 0;
  std::optional<IpAddress> gateway;
  std::optional<IpAddress> preferred_source;
  std::uint32_t mtu = 0;  // the route's, or the link's
  friend bool operator==(const Uplink&, const Uplink&) = default;
};

// Empty where main and default have no route to `ip` over a link that is up and not `tunnel`: then nobody may send.
std::optional<Uplink> FindUplink(const NetSnapshot& snapshot, const IpAddress& ip, std::string_view tunnel);

// What must not go into the tunnel although the tunnel's routes in main hold it.
struct UplinkNeeds {
  std::string tunnel;
  bool endpoints = false;        // host routes to them; else the sockets see to it
  std::vector<Prefix> allowed;   // what the tunnel's routes hold
  std::vector<Prefix> excluded;  // leaves by the uplink
  bool has_ipv6 = true;
};

// For each such destination a route by the uplink of the moment, and behind it an unreachable one: without an uplink
// the packets are refused, and do not loop. What somebody else routes in main already keeps that route. `snapshot` is
// without our own routes.
std::vector<Route> UplinkRoutes(const UplinkNeeds& needs, std::span<const SocketAddress> endpoints,
                                const NetSnapshot& snapshot);

}  // namespace adit
