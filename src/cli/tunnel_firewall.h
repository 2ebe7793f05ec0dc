// The firewall's part of a tunnel's life, between the commands and routing/firewall.h.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/outcome.h"
#include "routing/firewall.h"

namespace adit {

// Null where no firewall is wanted, or where one that nobody asked for by a key is not possible; a warning says so. A
// KillSwitch that is not possible is the environment's failure.
OutcomeOf<std::unique_ptr<Firewall>> RaiseFirewall(const RoutingConfig& config, const Plan& plan,
                                                   const std::string& journal_path, std::vector<std::string>& warnings);

// What must be on the engine's sockets: the plan's mark, or the firewall's where no rule needs one. 0: none.
std::uint32_t MarkFor(const RoutingConfig& config, const Plan& plan);

// After the configuration changed, for a firewall that is still wanted.
Status ReloadFirewall(Firewall& firewall, const RoutingConfig& config, const Plan& plan);
// The LAN of this moment, after links or addresses changed.
Status RefreshLan(Firewall& firewall, const RoutingConfig& config);
Result<NetSnapshot> SnapshotNow();
// After somebody may have removed the table, or (`thoroughly`) changed it: makes it anew. What he did, if it was
// needed: "table inet adit-wg0, removed".
Result<std::optional<std::string>> RepairFirewall(Firewall& firewall, bool thoroughly);

// As `adit check` prints it; empty if there would be none.
OutcomeOf<std::string> FirewallText(const RoutingConfig& config, const Plan& plan);

}  // namespace adit
