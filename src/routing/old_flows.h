// Ends connections that were opened before the tunnel (doors: sock_diag, conntrack). Their source is an address of the
// LAN; the kernel would send them on into the tunnel, where the far side could see it, or a kill switch would let them
// hang.
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

// A flow of somebody else's that this machine passes on, as conntrack has it.
struct ForwardedFlow {
  IpAddress from;
  IpAddress to;
  IpAddress seen_as;  // whom the far side answers: `from`, or what its address was translated to
};
// Whether its translation, which stays what it is as long as the flow does, carries an address of the LAN to where the
// tunnel's is due. What is not translated, or by an address of a tunnel, needs nothing.
bool MustBeForgotten(const FirewallConfig& config, const NetSnapshot& snapshot, const ForwardedFlow& flow);

// TCP and connected UDP sockets of this network namespace, whose next call fails with ECONNABORTED; and translations of
// forwarded flows, which get another with their next packet. Returns how many. Fails where the kernel cannot do it
// (CONFIG_INET_DIAG_DESTROY).
Result<std::size_t> CutOldFlows(const FirewallConfig& config, const NetSnapshot& snapshot);

}  // namespace adit
