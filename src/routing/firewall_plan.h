// What the firewall is to hold for one tunnel, and the table that holds it. Pure.
//
// Each tunnel has a table of its own, owned by its own process, and yet several kill switches let each other's traffic
// pass. An accept in one table does not protect from another table's drop, so tables agree by one bit of the packet
// mark between four moments of the hooks output and forward:
//
//   filter - 2   forget    the bit is cleared: nobody outside can have a packet approved
//   filter - 1   approve   each tunnel marks what it lets pass: its own packets, what goes through it, and with a kill
//                          switch the LAN and what keeps a network alive (DHCP, neighbour discovery)
//   filter       deny      with a kill switch: what no tunnel has approved is refused. With the DNS guard: DNS that no
//                          tunnel carries is refused, also if it is the LAN's
//   filter + 1   settle    the bit is cleared; all other bits have not been touched
//
// So what one tunnel lets pass, passes: a kill switch with LAN = block beside one with LAN = allow leaves the LAN open.
// A mark is the only thing that two tables can share without one process ruling over both, and a crash of one process
// changes nothing for the other. A tunnel without a kill switch marks its own packets only.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/address.h"
#include "routing/nft_ruleset.h"
#include "routing/plan.h"
#include "routing/snapshot.h"

namespace adit {

// The mark by which engine sockets are known where no rule asked for one.
inline constexpr std::uint32_t kFirewallMark = 0x1000;
inline constexpr std::uint32_t kFirewallMarkMask = 0x3000;
// Not set in a mark of kube-proxy, podman and CNI (0x2000), Tailscale (0xff0000), NetBird, Mullvad, Nord, Firezone,
// mwan3 or wg-quick. Cilium keeps identities there and does not go with a kill switch.
inline constexpr std::uint32_t kApprovedBit = 0x02000000;

struct FirewallConfig {
  std::string interface_name;
  KillSwitch kill_switch = KillSwitch::kOff;
  std::uint32_t fwmark = kFirewallMark;
  std::uint32_t fwmark_mask = kFirewallMarkMask;
  std::vector<SocketAddress> endpoints;
  std::vector<IpAddress> own;  // the tunnel's addresses
  std::vector<Prefix> lan;     // may be reached beside the tunnel
  bool is_full = false;        // the tunnel takes all traffic, so only its own addresses may be sources in it
  bool dns_guard = false;
  bool masquerades = false;  // what is forwarded into the tunnel
  bool gateway = false;
  std::vector<PortForward> forwards;
  unsigned mtu = 0;
  std::optional<Portal> portal;
  // Off where the kernel lacks a part: then the kill switch stands alone.
  bool has_extras = true;

  bool has_deny() const { return kill_switch != KillSwitch::kOff || dns_guard; }
  friend bool operator==(const FirewallConfig&, const FirewallConfig&) = default;
};

// Whether this tunnel gets a table: a full tunnel does, and any other that a key asks for.
bool WantsFirewall(const RoutingConfig& config);

FirewallConfig MakeFirewallConfig(const RoutingConfig& config, const Plan& plan, const NetSnapshot& snapshot);
// What may be reached beside the tunnel: by the policy, and the excluded prefixes in any case. Sorted, none inside
// another.
std::vector<Prefix> ApprovedLan(const RoutingConfig& config, const NetSnapshot& snapshot);

std::string FirewallTableName(const std::string& interface_name);
nft::Table MakeFirewallTable(const FirewallConfig& config);
// The chain of the port forwardings alone, and the one that lets the LAN use them.
nft::Chain MakeForwardsChain(const FirewallConfig& config);
nft::Chain MakeHairpinChain(const FirewallConfig& config, bool is_v6);

}  // namespace adit
