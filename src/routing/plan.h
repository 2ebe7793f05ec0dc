// The planner: a pure function from what the user wants and what the machine has to an ordered list of operations.
//
// Rule layout of a full tunnel (a /0 in AllowedIPs, Table = auto), B = base priority, M = mark:
//
//   B       fwmark M/mask lookup main                     the engine's own packets
//   B+1     fwmark M/mask unreachable                     no uplink: ENETUNREACH, never a loop
//   B+2     to EP ipproto udp dport P lookup main         only where strict rp_filter would drop the answers
//   B+4     lookup TU                                     specific allowed IPs; they win over the LAN
//   B+5     lookup TU                                     the same once more, see below
//   B+6...  to LAN-RANGE lookup main suppress_prefixlength N   N: no route that is wider than the range
//   B+14    lookup TD                                     default dev TUN, behind it an unreachable default
//   B+15    unreachable                                   if the tunnel takes everything; else lookup TD once more
//
// Behind each rule that holds traffic in the tunnel stands another, so that between the removal of any one of them, or
// of what is in TD, by somebody else and its repair nothing leaves beside the tunnel.
//
// Where the machine takes no rules (a kernel or container without them, no right to mark packets), or the user says so,
// the tunnel's routes stand in main, a default as two halves that are longer than the uplink's, each with the same
// route as unreachable behind it. What must stay outside of the tunnel then leaves by host routes that follow the
// uplink (LoopAvoidance = routes, routing/uplink.h), or the engine binds each of its datagrams to the uplink
// (LoopAvoidance = bind, routing/uplink_choice.h).
//
// The LAN follows table main without any event, a public prefix that a DHCP server pushes into main takes nothing out
// of the tunnel, and a TUN that went away leaves "unreachable", not the uplink.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/result.h"
#include "config/routing_keys.h"
#include "routing/op.h"
#include "routing/snapshot.h"
#include "routing/uplink.h"

namespace adit {

enum class TableMode {
  kAuto,    // main, or rules and two tables of ours where a default route or a covered endpoint asks for it
  kOff,     // no routes, no rules
  kNumber,  // the routes go into RoutingConfig::table, no rules
};

// What a tunnel that is up has chosen already, and keeps when it is planned anew. 0: nothing.
struct PlanAnchors {
  unsigned mtu = 0;  // where no route says anything
  std::uint32_t fwmark = 0;
  std::uint32_t base_priority = 0;
  std::uint32_t specific_table = 0;
  std::uint32_t catch_all_table = 0;
  friend bool operator==(const PlanAnchors&, const PlanAnchors&) = default;
};

// A window beside the tunnel for one user's programs, to log in to the network that one is in (a captive portal).
struct Portal {
  std::uint32_t uid = 0;
  unsigned seconds = 0;  // then the kernel closes it for itself
  friend bool operator==(const Portal&, const Portal&) = default;
};

// The part of a .conf file that concerns routing. Endpoints are resolved addresses.
struct RoutingConfig {
  std::string interface_name;
  std::vector<InterfaceAddress> addresses;
  unsigned mtu = 0;        // 0: from the routes to the endpoints
  unsigned mtu_limit = 0;  // what was found to get through although the routes say more (mtu_watch.h); 0: none
  TableMode table_mode = TableMode::kAuto;
  std::uint32_t table = 0;               // for kNumber
  std::uint32_t fwmark = 0;              // FwMark = ...; 0: none given, chosen where one is needed
  std::vector<Prefix> allowed_ips;       // of all peers
  std::vector<SocketAddress> endpoints;  // of all peers that have one
  PlanAnchors keep;

  // As in ConfInterface.
  KillSwitch kill_switch = KillSwitch::kOff;
  LanPolicy lan;
  std::vector<Prefix> excluded_ips;
  LoopAvoidance loop_avoidance = LoopAvoidance::kAuto;
  bool gateway = false;
  std::vector<PortForward> forwards;
  std::vector<IpAddress> dns_servers;
  bool dns_guard = false;
  bool cut_old_flows = false;
  std::optional<Portal> portal;  // REQUIRES: loop avoidance by rules
};

// A question for the kernel, which the verifier asks after the plan was applied.
enum class Expectation {
  kNotTunnel,        // must not leave by the TUN; no route at all is fine
  kTunnel,           // must leave by the TUN
  kTunnelOrNothing,  // may be refused, may not leave by another device
};
struct RouteQuestion {
  std::string subject;                  // "endpoint 203.0.113.10:51820", "allowed IPs 10.0.0.0/8"
  std::vector<IpAddress> destinations;  // kTunnel holds if it holds for one of them, the others must hold for all
  std::uint32_t mark = 0;
  Expectation expected = Expectation::kTunnel;
  friend bool operator==(const RouteQuestion&, const RouteQuestion&) = default;
};

// How packets to an endpoint leave the machine; without a device: not at all, now.
struct EndpointWay {
  IpAddress endpoint;
  std::string device;
  std::optional<IpAddress> gateway;
  friend bool operator==(const EndpointWay&, const EndpointWay&) = default;
};

struct Plan {
  std::string interface_name;
  unsigned mtu = 0;
  // Where the MTU is found out: what the routes say, without RoutingConfig::mtu_limit, and what it cannot be below. 0
  // where the user gave one.
  unsigned routes_mtu = 0;
  unsigned least_mtu = 0;
  std::vector<EndpointWay> ways;  // of RoutingConfig::endpoints, the first kMaxWays
  static constexpr std::size_t kMaxWays = 16;
  // What the engine's UDP sockets must carry (SO_MARK) before the plan is applied; 0: none needed.
  std::uint32_t fwmark = 0;
  std::uint32_t fwmark_mask = 0;
  // 0 where the plan has no rules.
  std::uint32_t base_priority = 0;    // B
  std::uint32_t specific_table = 0;   // TU
  std::uint32_t catch_all_table = 0;  // TD
  std::vector<Op> ops;                // in the order to apply; undone in reverse
  // How the tunnel's own packets stay out of it: kRules, kRoutes or kBind; kAuto: nothing is needed.
  LoopAvoidance loop_avoidance = LoopAvoidance::kAuto;
  std::vector<RouteQuestion> questions;
  std::vector<std::string> warnings;  // sentences for the operator

  std::string ToString() const;  // one op per line, as `adit check` prints it
};

// Whether the prefixes of `family` leave no address out, as 0.0.0.0/0 or 0.0.0.0/1 + 128.0.0.0/1: a full tunnel.
bool CoverAll(std::vector<Prefix> prefixes, Family family);

// Fails where no plan can be right: a bad interface name, an MTU outside 576..65535, no free priorities or tables. The
// interface need not exist yet (`adit check`).
Result<Plan> MakePlan(const RoutingConfig& config, const NetSnapshot& snapshot);

}  // namespace adit
