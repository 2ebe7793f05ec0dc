#include "cli/killswitch_command.h"

#include <cerrno>
#include <string>
#include <vector>

#include "cli/conf_io.h"
#include "cli/log.h"
#include "cli/routing_config.h"
#include "cli/run_files.h"
#include "cli/tunnel_firewall.h"
#include "crypto/primitives.h"
#include "routing/routing.h"

namespace adit {
namespace {

// Names are not looked up: at boot there is no network to ask. Sockets with our mark may ask later, through the switch.
Outcome Close(const ConfTarget& target) {
  InitializeCrypto();
  auto loaded = LoadConf(target.file);
  if (!loaded) return std::unexpected(loaded.error());
  std::vector<std::optional<SocketAddress>> endpoints;
  for (const ConfPeer& peer : loaded->conf.peers) {
    endpoints.push_back(peer.endpoint ? peer.endpoint->Numeric(nullptr) : std::nullopt);
  }
  RoutingConfig config = ToRoutingConfig(loaded->conf, endpoints, target.interface_name);
  if (config.kill_switch != KillSwitch::kAlways) {
    return FailWith(ExitCode::kConfiguration,
                    "{} does not say KillSwitch = always, so the next `adit down` would open it again: add that",
                    target.file);
  }
  const auto plan = PlanNow(config);
  if (!plan) return FailFrom(plan.error());
  const auto snapshot = SnapshotNow();
  if (!snapshot) return FailFrom(snapshot.error());
  if (Status closed = CloseKillSwitch(MakeFirewallConfig(config, *plan, *snapshot)); !closed) {
    return FailWith(ExitCode::kEnvironment, "{}", closed.error().message);
  }
  return {};
}

}  // namespace

Outcome RunKillSwitch(const KillSwitchCommand& command) {
  const auto target = ResolveTarget(command.target);
  if (!target) return std::unexpected(target.error());
  const std::string& name = target->interface_name;
  if (command.action == KillSwitchCommand::Action::kStatus) {
    const auto stands = HasFirewallTable(name);
    if (!stands) return FailFrom(stands.error());
    fmt::print("{}\n", *stands ? "on" : "off");
    return {};
  }
  // While a tunnel is up its process owns the table.
  const auto lock = TunnelLock::Take(RunFilesOf(name));
  if (!lock && lock.error().code == EWOULDBLOCK) {
    return FailWith(ExitCode::kFailure, "{} is up ({}) and holds its kill switch; `adit down {}` first", name,
                    lock.error().message, name);
  }
  if (!lock) return FailFrom(lock.error());
  if (command.action == KillSwitchCommand::Action::kOn) return Close(*target);

  const auto opened = OpenKillSwitch(name);
  if (!opened) return FailFrom(opened.error());
  fmt::print("{}\n", *opened ? fmt::format("the kill switch of {} is open", name)
                             : fmt::format("there is no kill switch of {}", name));
  return {};
}

}  // namespace adit
