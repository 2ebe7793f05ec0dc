#include "scenario.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace adit::sim {
namespace {

constexpr std::size_t kHostsOf[] = {2, 2, 2, 2, 2, 2, 3, 3, 4, 5};

ProtocolLimits LoweredLimits(Rng& rng) {
  ProtocolLimits limits;
  limits.rekey_after_messages = 20 + rng.Below(200);
  // Room for what is sent while a handshake is held back by REKEY_TIMEOUT, and for a full queue of waiting packets.
  limits.reject_after_messages = limits.rekey_after_messages + 400 + rng.Below(200);
  return limits;
}

}  // namespace

Scenario DrawScenario(Rng& rng) {
  Scenario scenario;
  scenario.hosts = kHostsOf[rng.Below(std::size(kHostsOf))];
  scenario.is_star = scenario.hosts > 2 && rng.Chance(0.6);
  scenario.weather = rng.Chance(0.1) ? Weather::kPerfect : rng.Chance(0.5) ? Weather::kFair : Weather::kFoul;
  const bool is_perfect = scenario.weather == Weather::kPerfect;
  scenario.is_mobile.assign(scenario.hosts, false);
  if (!is_perfect) {
    // Two mobile hosts could lose each other for good, so one of each pair stays where it is.
    for (HostId host = 1; host < scenario.hosts; ++host) {
      scenario.is_mobile[host] = rng.Chance(0.5) && (scenario.is_star || host == scenario.hosts - 1);
    }
  }
  scenario.has_lowered_limits = rng.Chance(0.25);
  if (scenario.has_lowered_limits) scenario.limits = LoweredLimits(rng);
  scenario.lag = std::array<Duration, 3>{Duration(0), 2ms, 20ms}[rng.Below(3)];
  scenario.has_attacker = !is_perfect && rng.Chance(0.5);
  scenario.has_long_idle = rng.Chance(0.15);

  // Of 3,600 s; more pairs, less traffic each.
  const auto pair_count =
      static_cast<Duration::rep>(scenario.is_star ? scenario.hosts - 1 : scenario.hosts * (scenario.hosts - 1) / 2);
  for (HostId b = 0; b < scenario.hosts; ++b) {
    for (HostId a = b + 1; a < scenario.hosts; ++a) {
      if (scenario.is_star && b != 0) continue;
      PairPlan pair;
      // The mobile one of the two, if there is one, is `a`: the other's address is fixed.
      pair.a = a;
      pair.b = b;
      pair.is_known_to_b = is_perfect || (!scenario.is_mobile[a] && rng.Chance(0.7));
      pair.is_v6 = rng.Chance(0.4);
      pair.has_psk = rng.Chance(0.5);
      if (rng.Chance(0.35) && !scenario.has_long_idle) {
        pair.keepalive = rng.Chance(0.7) ? Duration(25s) : Duration(std::chrono::seconds(1 + rng.Below(12)));
      }
      pair.mean_gap = pair_count * std::array<Duration, 3>{6s, 15s, 60s}[rng.Below(3)];
      scenario.pairs.push_back(pair);
    }
  }
  return scenario;
}

PathFaults DrawFaults(Rng& rng, Weather weather) {
  PathFaults faults;
  faults.delay = rng.Between(1ms, rng.Chance(0.2) ? Duration(400ms) : Duration(60ms));
  if (weather == Weather::kPerfect) return faults;
  const bool is_foul = weather == Weather::kFoul;
  const auto sometimes = [&rng](double probability, double most) { return rng.Chance(probability) ? most : 0.0; };
  faults.loss = std::array<double, 6>{0, 0, 0.01, 0.05, 0.2, 0.5}[rng.Below(is_foul ? 6 : 4)];
  faults.duplicate = sometimes(0.4, is_foul ? 0.2 : 0.02);
  faults.corrupt = sometimes(0.4, is_foul ? 0.1 : 0.02);
  faults.truncate = sometimes(0.2, 0.02);
  faults.reorder = sometimes(0.4, is_foul ? 0.3 : 0.05);
  faults.congest = sometimes(0.3, 0.3);
  faults.jitter = rng.Chance(0.5) ? rng.Between(0ms, 80ms) : Duration(0);
  faults.hold = rng.Chance(0.1) ? Duration(30s) : rng.Between(1ms, 800ms);
  if (rng.Chance(0.1)) faults.mtu = 600 + rng.Below(900);
  return faults;
}

std::string Scenario::ToString() const {
  static constexpr std::array<const char*, 3> kWeather = {"perfect", "fair", "foul"};
  return fmt::format("{} hosts, {}, {} weather, {} mobile, lag {} ms{}{}{}", hosts, is_star ? "star" : "mesh",
                     kWeather[static_cast<std::size_t>(weather)], std::ranges::count(is_mobile, true), lag / 1ms,
                     has_lowered_limits ? fmt::format(", rekey after {} messages", limits.rekey_after_messages) : "",
                     has_attacker ? ", attacker" : "", has_long_idle ? ", long idle" : "");
}

}  // namespace adit::sim
