// What `adit status` shows: one JSON object per tunnel, made by the process that runs it, and its text form, made by
// the process that asks. Pure.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/time.h"
#include "cli/dns.h"
#include "config/device.h"
#include "engine/engine.h"

namespace adit {

// What neither the device nor the engine knows.
struct TunnelFacts {
  std::string name;
  std::string file;
  std::string state;  // "starting", "up", "stopping"
  std::int64_t pid = 0;
  std::int64_t since = 0;  // UNIX seconds
  unsigned mtu = 0;
  std::vector<std::string> addresses;
  std::vector<std::string> routing;  // the operations in force, as `adit check` prints them
  DnsReport dns;
  std::vector<std::string> warnings;
  std::map<PublicKey, std::string> peer_names;
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
