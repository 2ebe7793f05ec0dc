#include "cli/routing_config.h"

namespace adit {

RoutingConfig ToRoutingConfig(const ConfFile& conf, std::span<const std::optional<SocketAddress>> endpoints,
                              const std::string& interface_name) {
  RoutingConfig result;
  result.interface_name = interface_name;
  result.addresses = conf.interface.addresses;
  result.mtu = conf.interface.mtu.value_or(0);
  switch (conf.interface.table.kind) {
    case ConfTable::Kind::kAuto:
      result.table_mode = TableMode::kAuto;
      break;
    case ConfTable::Kind::kOff:
      result.table_mode = TableMode::kOff;
      break;
    case ConfTable::Kind::kNumber:
      result.table_mode = TableMode::kNumber;
      break;
  }
  result.table = conf.interface.table.number;
  result.fwmark = conf.interface.fwmark.value_or(0);
  for (const ConfPeer& peer : conf.peers) {
    result.allowed_ips.insert(result.allowed_ips.end(), peer.allowed_ips.begin(), peer.allowed_ips.end());
  }
  for (const auto& endpoint : endpoints) {
    if (endpoint) result.endpoints.push_back(*endpoint);
  }
  result.kill_switch = conf.interface.kill_switch;
  result.lan = conf.interface.lan;
  result.excluded_ips = conf.interface.excluded_ips;
  result.loop_avoidance = conf.interface.loop_avoidance;
  result.gateway = conf.interface.gateway;
  result.forwards = conf.interface.forwards;
  result.dns_servers = conf.interface.dns_servers;
  result.dns_guard = conf.interface.WantsDnsGuard();
  result.cut_old_flows = conf.interface.WantsOldFlowsCut();
  return result;
}

}  // namespace adit
