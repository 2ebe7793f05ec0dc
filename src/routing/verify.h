// The verifier: asks the kernel where packets would go (RTM_GETROUTE), instead of trusting that what was applied does
// what was meant.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "routing/netlink.h"
#include "routing/plan.h"

namespace adit {

struct RouteAnswer {
  int refusal = 0;     // errno: ENETUNREACH, EHOSTUNREACH, EACCES, EINVAL; 0 if there is a route
  std::string device;  // the one it would leave by
  std::uint32_t table = 0;
  IpAddress source;
};

// A packet that is not sent. A locally made one, if `input_device` is empty.
struct RouteQuery {
  IpAddress destination;
  std::uint32_t mark = 0;
  std::uint32_t uid = 0;
  std::string input_device;
  std::optional<IpAddress> source;
  std::uint8_t protocol = 0;  // of IP; 0: any, and rules that ask for one do not match
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
  friend bool operator==(const RouteQuery&, const RouteQuery&) = default;
};

// Where it would go. Fails only if the kernel could not be asked.
Result<RouteAnswer> AskRoute(NetlinkSocket& socket, const RouteQuery& query);
// A locally made one of root's.
Result<RouteAnswer> AskRoute(NetlinkSocket& socket, const IpAddress& destination, std::uint32_t mark);

struct Findings {
  std::vector<std::string> sentences;  // one for each expectation that does not hold
  bool loops = false;                  // one of them is an endpoint that would be reached through its own tunnel
};
Result<Findings> VerifyPlan(NetlinkSocket& socket, const Plan& plan);

}  // namespace adit
