// What `adit status` shows: one JSON object per tunnel, made by the process that runs it, and its text form, made by
// the process that asks. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/time.h"
#include "cli/dns.h"
#include "config/device.h"
#include "engine/engine.h"

namespace adit {

// How the routing fares while it is up. Times are UNIX seconds, 0: never.
struct RoutingHealth {
  struct Interference {
    std::string culprit;  // "ip (pid 17, started by bash)"; empty if nobody knows
    std::string what;     // removed the last time
    std::uint64_t count = 0;
    std::int64_t last_at = 0;
    bool is_fight = false;
  };
  std::int64_t verified_at = 0;
  std::vector<std::string> findings;  // what the kernel does otherwise than planned
  std::vector<std::string> failures;  // what could not be put right
  std::uint64_t repairs = 0;
  std::int64_t last_repair_at = 0;
  bool is_limited = false;  // repairs wait for their budget
  std::vector<Interference> interferences;
};

// The firewall as it stands; the table's name is empty where there is none.
struct FirewallFacts {
  std::string table;
  std::string kill_switch;                                     // "off", "up", "always"
  bool is_owned = false;                                       // nobody else can change it
  std::vector<std::pair<std::string, std::uint64_t>> packets;  // by counter
  std::vector<std::pair<std::string, std::uint64_t>> bytes;
};

// What neither the device nor the engine knows.
struct TunnelFacts {
  std::string name;
  std::string file;
  std::string state;  // "starting", "up", "stopping"
  std::int64_t pid = 0;
  std::int64_t since = 0;  // UNIX seconds
  unsigned mtu = 0;
  std::vector<std::string> addresses;
  std::string loop_avoidance;        // "rules" or "routes"; empty: none is needed
  std::vector<std::string> routing;  // the operations in force, as `adit check` prints them
  DnsReport dns;
  FirewallFacts firewall;
  std::vector<std::string> warnings;
  std::map<PublicKey, std::string> peer_names;
  RoutingHealth health;
};

nlohmann::ordered_json StatusToJson(const TunnelFacts& facts, const DeviceStatus& device, const EngineStatus& engine,
                                    bool show_keys);

// In the spirit of `wg show`. `now` is UNIX seconds; with `colour` the terminal's escape codes.
std::string StatusToText(const nlohmann::ordered_json& status, std::int64_t now, bool colour);

// "1 hour, 2 minutes, 3 seconds ago", as wg says it.
std::string AgoText(std::int64_t seconds);
// "1.50 KiB"
std::string BytesText(std::uint64_t bytes);

}  // namespace adit
