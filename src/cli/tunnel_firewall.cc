#include "cli/tunnel_firewall.h"

#include <linux/if_addr.h>
#include <linux/rtnetlink.h>

#include <algorithm>

#include "routing/old_flows.h"
#include "routing/take_snapshot.h"
#include "routing/wire.h"

namespace adit {
namespace {

bool TakesAll(const RoutingConfig& config) {
  return CoverAll(config.allowed_ips, Family::kV4) || CoverAll(config.allowed_ips, Family::kV6);
}

}  // namespace

Result<NetSnapshot> SnapshotNow() {
  auto socket = NetlinkSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  return TakeSnapshot(*socket);
}

std::uint32_t MarkFor(const RoutingConfig& config, const Plan& plan) {
  if (plan.fwmark != 0) return plan.fwmark;
  return config.kill_switch != KillSwitch::kOff || config.dns_guard ? kFirewallMark : 0;
}

OutcomeOf<std::unique_ptr<Firewall>> RaiseFirewall(const RoutingConfig& config, const Plan& plan,
                                                   const std::string& journal_path,
                                                   std::vector<std::string>& warnings) {
  const bool asked = config.kill_switch != KillSwitch::kOff || config.gateway || config.dns_guard;
  if (!WantsFirewall(config)) {
    if (auto cleaned = CleanupFirewall(journal_path); !cleaned) return FailFrom(cleaned.error());
    return nullptr;
  }
  auto snapshot = SnapshotNow();
  if (!snapshot) return FailFrom(snapshot.error());
  const FirewallConfig wanted = MakeFirewallConfig(config, plan, *snapshot);
  auto firewall = Firewall::Up(wanted, *snapshot, journal_path);
  if (!firewall && config.kill_switch != KillSwitch::kOff) {
    return FailWith(ExitCode::kEnvironment, "{}", firewall.error().message);
  }
  if (!firewall && asked) return FailFrom(firewall.error());
  if (!firewall) {
    warnings.push_back(fmt::format("there is no firewall around this tunnel: {}", firewall.error().message));
    return nullptr;
  }
  warnings.insert(warnings.end(), (*firewall)->warnings().begin(), (*firewall)->warnings().end());
  if (config.kill_switch != KillSwitch::kOff && !TakesAll(config)) {
    warnings.push_back(
        "KillSwitch is on, and AllowedIPs does not hold the whole internet: what it does not hold cannot be reached");
  }
  if (config.kill_switch != KillSwitch::kOff && !(*firewall)->is_owned()) {
    warnings.push_back(
        "this kernel does not keep a table for its owner (that came with Linux 6.9): who flushes nftables opens the "
        "kill "
        "switch until it is put back");
  }
  return std::move(*firewall);
}

Status ReloadFirewall(Firewall& firewall, const RoutingConfig& config, const Plan& plan) {
  auto snapshot = SnapshotNow();
  if (!snapshot) return std::unexpected(snapshot.error());
  return firewall.Reload(MakeFirewallConfig(config, plan, *snapshot), *snapshot);
}

Status RefreshLan(Firewall& firewall, const RoutingConfig& config) {
  auto socket = NetlinkSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  // Links and addresses alone: there may be many thousand routes, and none of them makes a LAN.
  NetSnapshot snapshot;
  Status read = socket->Dump(
      NetlinkMessage(RTM_GETLINK, 0, ifinfomsg{}), [&] { snapshot.links.clear(); },
      [&](nlmsghdr* message) { snapshot.links.push_back(ReadLink(message)); });
  if (!read) return read;
  const DeviceNames names = [&](std::uint32_t index) {
    const auto link = std::ranges::find(snapshot.links, index, &Link::index);
    return link == snapshot.links.end() ? std::string() : link->name;
  };
  read = socket->Dump(
      NetlinkMessage(RTM_GETADDR, 0, ifaddrmsg{}), [&] { snapshot.addresses.clear(); },
      [&](nlmsghdr* message) { snapshot.addresses.push_back(ReadAddress(message, names)); });
  if (!read) return read;
  return firewall.SetLan(ApprovedLan(config, snapshot));
}

Result<std::optional<std::string>> RepairFirewall(Firewall& firewall, bool thoroughly) {
  const auto harm = firewall.FindHarm(thoroughly);
  if (!harm) return std::unexpected(harm.error());
  if (!*harm) return std::nullopt;
  if (Status repaired = firewall.Reapply(); !repaired) return std::unexpected(repaired.error());
  return fmt::format("table inet {}, {}", firewall.table().name, **harm);
}

OutcomeOf<std::string> FirewallText(const RoutingConfig& config, const Plan& plan) {
  if (!WantsFirewall(config)) return std::string();
  auto snapshot = SnapshotNow();
  if (!snapshot) return FailFrom(snapshot.error());
  return nft::ToString(MakeFirewallTable(MakeFirewallConfig(config, plan, *snapshot)));
}

}  // namespace adit
