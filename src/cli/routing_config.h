// From a .conf file to what the routing module is told. Pure.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "base/address.h"
#include "config/conf_file.h"
#include "routing/plan.h"

namespace adit {

// `endpoints` as ToDeviceUpdate takes them.
RoutingConfig ToRoutingConfig(const ConfFile& conf, std::span<const std::optional<SocketAddress>> endpoints,
                              const std::string& interface_name);

}  // namespace adit
