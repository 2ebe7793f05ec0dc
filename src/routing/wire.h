// Route netlink messages <-> the structs of snapshot.h. No socket in sight. Rules are built attribute by attribute
// because libnl-route has no setter for inversion or suppress_prefixlength.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "routing/netlink.h"
#include "routing/snapshot.h"

namespace adit {

// `type` is RTM_NEW... or RTM_DEL...; new ones are exclusive (NLM_F_CREATE | NLM_F_EXCL), because without NLM_F_EXCL
// the kernel adds a rule a second time. `index` is the device's; 0 where there is none.
NetlinkMessage AddressMessage(std::uint16_t type, const InterfaceAddress& address, std::uint32_t index);
NetlinkMessage RouteMessage(std::uint16_t type, const Route& route, std::uint32_t index);
NetlinkMessage RuleMessage(std::uint16_t type, const Rule& rule);

// An index's device name.
using DeviceNames = std::function<std::string(std::uint32_t)>;

Link ReadLink(nlmsghdr* message);
LinkAddress ReadAddress(nlmsghdr* message, const DeviceNames& names);
// Empty for a cached entry (RTM_F_CLONED).
std::optional<Route> ReadRoute(nlmsghdr* message, const DeviceNames& names);
Rule ReadRule(nlmsghdr* message);

}  // namespace adit
