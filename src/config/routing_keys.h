// The values of the [Interface] keys that Adit has and wg-quick has not: how packets are kept inside the tunnel, and
// what a machine does for others. Each has a parser for what stands behind the "=" and the text that it reads back.
// A .conf may hold these keys behind "#adit:", where wg-quick sees a comment.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/result.h"

namespace adit {

// When the firewall lets nothing out but the tunnel, what carries it, and the LAN.
enum class KillSwitch : std::uint8_t {
  kOff,
  kUp,      // from before the tunnel is up until after it is down; a crash leaves it closed
  kAlways,  // also after `down`; with the boot unit, also before the first `up`
};

// Which networks may be reached beside a full tunnel.
struct LanPolicy {
  enum class Kind : std::uint8_t {
    kAllow,  // the private networks that an interface of this machine is connected to
    kBlock,  // none
    kList,   // these and no others
  };
  Kind kind = Kind::kAllow;
  std::vector<Prefix> prefixes;  // kList only

  std::string ToString() const;
  friend bool operator==(const LanPolicy&, const LanPolicy&) = default;
};

// How the tunnel's own packets are kept out of the tunnel.
enum class LoopAvoidance : std::uint8_t {
  kAuto,    // the first of the following that this machine allows
  kRules,   // a mark on the sockets, and policy rules
  kRoutes,  // host routes to the endpoints by the gateway of the moment
  kBind,    // each datagram bound to the link that leads past the tunnel
};

// What arrives at this machine from the tunnel for these ports goes on to another address.
struct PortForward {
  enum class Protocol : std::uint8_t { kTcp, kUdp };
  Protocol protocol = Protocol::kTcp;
  std::uint16_t first_port = 0;  // 1 or more
  std::uint16_t last_port = 0;   // not below the first
  IpAddress target;
  std::optional<std::uint16_t> target_port;  // empty: each port stays what it is; never with a range

  std::string ToString() const;
  friend auto operator<=>(const PortForward&, const PortForward&) = default;
};

std::string_view ToString(KillSwitch value);
std::string_view ToString(LoopAvoidance value);

// Errors say what to write instead.
Result<KillSwitch> ParseKillSwitch(std::string_view text);
Result<LanPolicy> ParseLanPolicy(std::string_view text);  // "allow", "block" or prefixes with commas between them
Result<LoopAvoidance> ParseLoopAvoidance(std::string_view text);
Result<PortForward> ParsePortForward(std::string_view text);  // "tcp 8000-8010 to 192.168.1.5"
Result<bool> ParseYesNo(std::string_view text);
// Prefixes with commas between them; host bits are masked.
Result<std::vector<Prefix>> ParsePrefixes(std::string_view text);

}  // namespace adit
