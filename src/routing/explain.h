// Why a packet goes where it goes: walks the rules and tables of a snapshot as the kernel does (pure), beside which the
// kernel's own answer stands.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "routing/netlink.h"
#include "routing/snapshot.h"
#include "routing/verify.h"

namespace adit {

// A rule that matched and did not decide.
struct PassedRule {
  Rule rule;
  std::string why;  // "table main has no route to it"
  friend bool operator==(const PassedRule&, const PassedRule&) = default;
};

struct Walk {
  std::vector<PassedRule> passed;
  std::optional<Rule> rule;    // the one that decided; none: no rule had a route
  std::optional<Route> route;  // none where the rule itself refuses
  friend bool operator==(const Walk&, const Walk&) = default;
};

// Rules that ask for a source address, a protocol or a port match no such question, as for RTM_GETROUTE. Among rules of
// one priority the kernel goes by age, which a snapshot does not know.
Walk WalkRules(const NetSnapshot& snapshot, const RouteQuery& query);

struct Explanation {
  RouteQuery query;
  RouteAnswer kernel;
  Walk walk;
  // The walk found what the kernel says. If not, something that a snapshot does not show decided (VRF, nexthop
  // objects, rules of one priority).
  bool agrees = false;
};

// For a packet that comes in by a device a source address is needed; without one, a neighbour's is made up.
Result<Explanation> ExplainRoute(NetlinkSocket& socket, RouteQuery query);

}  // namespace adit
