// Ends connections that were opened before the tunnel (door: sock_diag). Their source is an address of the LAN; the
// kernel would send them on into the tunnel, where the far side could see it, or a kill switch would let them hang.
#pragma once

#include <cstddef>

#include "base/address.h"
#include "base/result.h"
#include "routing/firewall_plan.h"
#include "routing/snapshot.h"

namespace adit {

// Whether a flow between these addresses cannot go on beside or through the tunnel. Not so: loopback, the tunnel's own
// addresses and those of other tunnels, the approved LAN.
bool MustBeCut(const FirewallConfig& config, const NetSnapshot& snapshot, const IpAddress& local,
               const IpAddress& remote);

// TCP and connected UDP sockets of this network namespace; their next call fails with ECONNABORTED. Returns how many
// were cut. Fails where the kernel cannot do it (CONFIG_INET_DIAG_DESTROY).
Result<std::size_t> CutOldFlows(const FirewallConfig& config, const NetSnapshot& snapshot);

}  // namespace adit
