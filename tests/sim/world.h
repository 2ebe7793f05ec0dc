// One run: hosts, the network between them, traffic, faults, an attacker, and at the end a quiet stretch in which
// everything has to work again. Everything is drawn from the seed.
//
//   start ──── chaos: traffic, faults, configuration, attacks ──── quiet: liveness, a restart, two at once ──── end
//          hours × 3600 s − 300 s                                 300 s
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "host.h"

namespace adit::sim {

struct RunOptions {
  std::uint64_t seed = 1;
  double hours = 1;
  Defect defect = Defect::kNone;
  EventLog::Mode log = EventLog::Mode::kOff;
};

struct RunCounts {
  std::uint64_t events = 0, packets_sent = 0, packets_delivered = 0, datagrams = 0, lost = 0, altered = 0,
                duplicated = 0, held_back = 0, injected = 0, initiations = 0, sessions = 0, restarts = 0;
  Duration slowest_heal{0};          // after faults stopped
  Duration slowest_restart_heal{0};  // after one side restarted and the other sends
  Duration slowest_convergence{0};   // after two initiations at once
};

struct RunResult {
  std::optional<Violation> violation;
  Duration at{0};
  std::vector<std::string> last_events;
  std::string scenario;
  RunCounts counts;
  std::uint64_t digest = 0;
};

RunResult Run(const RunOptions& options, AeadEngine& aead);

}  // namespace adit::sim
