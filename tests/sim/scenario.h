// What kind of run a seed is.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "network.h"
#include "simulator.h"
#include "tunnel/limits.h"

namespace adit::sim {

enum class Weather : std::uint8_t {
  kPerfect,  // nothing is lost or late, nobody fails: rekeying must lose nothing
  kFair,
  kFoul,
};

struct PairPlan {
  HostId a = 0, b = 0;        // b's address is always known to a
  bool is_known_to_b = true;  // a's address to b
  bool is_v6 = false;         // outside
  bool has_psk = false;
  Duration keepalive{0};  // of a
  Duration mean_gap{0};   // between bursts
};

struct Scenario {
  std::size_t hosts = 2;
  bool is_star = false;  // host 0 in the middle
  Weather weather = Weather::kFair;
  std::vector<bool> is_mobile;  // by host: behind a NAT that forgets
  std::vector<PairPlan> pairs;
  ProtocolLimits limits;
  bool has_lowered_limits = false;
  Duration lag{0};
  bool has_attacker = false;
  bool has_long_idle = false;  // a spell of 15 minutes without traffic

  std::string ToString() const;
};

Scenario DrawScenario(Rng& rng);
// The faults of one direction of a path.
PathFaults DrawFaults(Rng& rng, Weather weather);

}  // namespace adit::sim
