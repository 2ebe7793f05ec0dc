#include "world.h"

#include <algorithm>
#include <array>
#include <map>

#include "attacker.h"
#include "base/check.h"
#include "scenario.h"

namespace adit::sim {
namespace {

constexpr Duration kQuietTime = 300s;
constexpr Duration kHealBound = 200s;  // one rekey period and a little
constexpr Duration kRestartAt = 220s;  // into the quiet stretch
constexpr Duration kRestartBound = 16s;
constexpr Duration kSimultaneousAt = 250s;
constexpr Duration kSimultaneousBound = 8s;  // the second try, which is the last, and a tick
constexpr Duration kTick = 1s;

class World {
 public:
  World(const RunOptions& options, AeadEngine& aead);
  void Execute();
  void Report(RunResult& result) const;

 private:
  struct Flow {                             // one direction of a pair
    std::optional<Instant> first_delivery;  // of what was sent since `since`
    Instant since;
    bool is_muted = false;
  };

  Instant now() const { return simulator_.now(); }
  Host& host(HostId id) { return *hosts_[id]; }
  Flow& flow(HostId from, HostId to) { return flows_[from * hosts_.size() + to]; }
  Duration slack() const { return 4 * scenario_.lag + 10ms; }

  void Configure(const PairPlan& pair);
  PeerConfig ConfigOf(HostId of, HostId peer, const PairPlan& pair);
  // Chaos.
  void ScheduleBurst(std::size_t pair);
  void Burst(HostId from, HostId to, std::size_t count, bool may_spoof);
  void ScheduleTrouble();
  void Trouble();
  void Until(Duration delay, std::function<void()> action);  // not once it is quiet
  void Restart(Host& host, Duration down);
  void ChangeKey(HostId changed);
  void DrawPresharedKey(std::size_t pair);
  void ChangePresharedKey(std::size_t pair);
  void SweepForEver();
  // Quiet.
  void EndChaos();
  void RequireLossless();
  // Single packets from now on, one each interval.
  void Tick(HostId from, HostId to, Duration interval, Instant until);
  void RequireLiveness();
  void TestRestart();
  void TestSimultaneous();
  void Watch(HostId from, HostId to);
  Duration HealedAfter(HostId from, HostId to, Duration bound, Check check);
  void OnDelivered(const PacketRecord& packet);

  Simulator simulator_;
  Rng rng_;
  Scenario scenario_;
  const RunOptions options_;
  EventLog log_;
  PacketLedger ledger_;
  Observer observer_;
  Network network_;
  std::vector<std::unique_ptr<Host>> hosts_;
  Attacker attacker_;
  std::vector<Flow> flows_;
  std::vector<PresharedKey> psks_;           // by pair
  std::vector<std::uint64_t> psk_versions_;  // by pair
  std::uint64_t next_psk_version_ = 1;
  SeededRandom keys_;
  bool is_quiet_ = false;
  Instant idle_from_, idle_until_;
  std::uint64_t restarts_ = 0;
  Duration slowest_heal_{0}, slowest_restart_heal_{0}, slowest_convergence_{0};
};

World::World(const RunOptions& options, AeadEngine& aead)
    : rng_(options.seed),
      scenario_(DrawScenario(rng_)),
      options_(options),
      log_(simulator_, options.log),
      observer_(simulator_, scenario_.limits, scenario_.hosts, slack()),
      network_(simulator_, rng_.Fork(), scenario_.hosts,
               [this](HostId to, std::span<Datagram> group) {
                 attacker_.Capture(group);
                 host(to).Receive(group);
               }),
      attacker_(rng_.Fork(), network_, observer_, scenario_.has_attacker),
      flows_(scenario_.hosts * scenario_.hosts),
      keys_(rng_.Next()) {
  const HostServices services{simulator_, network_, observer_, ledger_, aead, log_};
  for (HostId id = 0; id < scenario_.hosts; ++id) {
    // Only the first host is defective, so that its peers' rules are the observer's.
    const Defect defect = id == 0 ? options.defect : Defect::kNone;
    hosts_.push_back(std::make_unique<Host>(id, services, scenario_.limits, scenario_.lag, rng_.Next(), defect,
                                            [this](const PacketRecord& packet) { OnDelivered(packet); }));
  }
}

// ---- configuration

PeerConfig World::ConfigOf(HostId of, HostId peer, const PairPlan& pair) {
  PeerConfig config;
  const auto index = static_cast<std::size_t>(&pair - scenario_.pairs.data());
  config.key = host(peer).public_key();
  config.psk = psks_[index];
  config.psk_version = psk_versions_[index];
  if (peer == pair.b || pair.is_known_to_b) config.endpoint = network_.AddressOf(peer, pair.is_v6);
  if (of == pair.a) config.keepalive = pair.keepalive;
  for (const bool is_v6 : {false, true}) {
    const IpAddress address = InnerAddress(peer, is_v6);
    config.allowed_ips.emplace_back(address, address.bits());
  }
  return config;
}

void World::Configure(const PairPlan& pair) {
  host(pair.a).Configure(pair.b, ConfigOf(pair.a, pair.b, pair));
  host(pair.b).Configure(pair.a, ConfigOf(pair.b, pair.a, pair));
}

// ---- chaos

void World::Until(Duration delay, std::function<void()> action) {
  simulator_.After(delay, [this, todo = std::move(action)] {
    if (!is_quiet_) todo();
  });
}

void World::ScheduleBurst(std::size_t index) {
  const PairPlan& pair = scenario_.pairs[index];
  Duration gap = rng_.Around(pair.mean_gap);
  if (rng_.Chance(0.02)) gap += rng_.Between(100s, 300s);
  Until(gap, [this, index] {
    const PairPlan& p = scenario_.pairs[index];
    ScheduleBurst(index);
    if (now() >= idle_from_ && now() < idle_until_) return;
    const bool is_perfect = scenario_.weather == Weather::kPerfect;
    const std::size_t count = rng_.Chance(0.02) ? (is_perfect ? 60 : 200) : rng_.Chance(0.1) ? 40 : 1 + rng_.Below(8);
    const auto direction = rng_.Below(4);
    if (direction != 0) Burst(p.a, p.b, count, !is_perfect);
    if (direction != 1) Burst(p.b, p.a, direction == 0 ? count : 1 + rng_.Below(4), !is_perfect);
  });
}

void World::Burst(HostId from, HostId to, std::size_t count, bool may_spoof) {
  if (!host(from).is_up() || host(from).is_suspended()) return;
  std::vector<std::vector<std::uint8_t>> packets;
  const bool is_bulk = count > 8;  // a super-packet's segments
  const bool is_v6 = rng_.Chance(0.4);
  const std::size_t bulk_bytes = 200 + rng_.Below(1221);
  for (std::size_t i = 0; i < count; ++i) {
    PacketRecord record;
    record.from = from;
    record.to = to;
    record.source = InnerAddress(from, is_v6);
    record.destination = InnerAddress(to, is_v6);
    if (may_spoof && rng_.Chance(0.01)) {
      record.source = InnerAddress(rng_.Chance(0.5) ? from + 100 : to, is_v6);
      record.may_arrive = false;
    }
    record.bytes = is_bulk ? (i + 1 < count ? bulk_bytes : PacketLedger::kMinBytes + rng_.Below(100))
                           : PacketLedger::kMinBytes + rng_.Below(rng_.Chance(0.3) ? 1373 : 200);
    record.tos = static_cast<std::uint8_t>(is_bulk ? 2 : rng_.Below(256));
    record.sent_at = now();
    packets.push_back(ledger_.Create(record));
  }
  host(from).SendInner(to, std::move(packets));
}

void World::ScheduleTrouble() {
  Until(rng_.Around(scenario_.weather == Weather::kFoul ? 40s : 90s), [this] {
    ScheduleTrouble();
    Trouble();
  });
}

void World::Restart(Host& restarted, Duration down) {
  if (!restarted.is_running()) return;
  ++restarts_;
  restarted.Stop();
  Until(down, [&restarted] {
    if (!restarted.is_running()) restarted.Start();
  });
}

void World::ChangeKey(HostId changed) {
  host(changed).ChangeKey();
  for (const PairPlan& pair : scenario_.pairs) {
    if (pair.a != changed && pair.b != changed) continue;
    const HostId other = pair.a == changed ? pair.b : pair.a;
    Until(rng_.Chance(0.5) ? Duration(0) : rng_.Between(0s, 20s),
          [this, other, changed, &pair] { host(other).Configure(changed, ConfigOf(other, changed, pair)); });
  }
}

void World::DrawPresharedKey(std::size_t index) {
  ByteArray<kKeyBytes> bytes;
  keys_.Fill(bytes);
  psks_[index] = PresharedKey(bytes);
  psk_versions_[index] = next_psk_version_++;
}

void World::ChangePresharedKey(std::size_t index) {
  DrawPresharedKey(index);
  const PairPlan& pair = scenario_.pairs[index];
  for (const auto& [of, peer] : {std::pair(pair.a, pair.b), std::pair(pair.b, pair.a)}) {
    Until(rng_.Chance(0.5) ? Duration(0) : rng_.Between(0s, 10s),
          [this, of, peer, index] { host(of).SetPresharedKey(peer, psks_[index], psk_versions_[index]); });
  }
}

void World::Trouble() {
  const PairPlan& pair = scenario_.pairs[rng_.Below(scenario_.pairs.size())];
  const auto index = static_cast<std::size_t>(&pair - scenario_.pairs.data());
  const bool is_forward = rng_.Chance(0.5);
  const HostId one = is_forward ? pair.a : pair.b, other = is_forward ? pair.b : pair.a;
  Host& troubled = host(one);
  switch (rng_.Below(scenario_.has_attacker ? 22 : 18)) {
    case 0:
    case 1:
    case 2:
    case 3:
      network_.faults(one, other) = DrawFaults(rng_, scenario_.weather);
      break;
    case 4:
    case 5: {
      const bool is_both = rng_.Chance(0.5);
      network_.faults(one, other).is_cut = true;
      if (is_both) network_.faults(other, one).is_cut = true;
      log_.Add(kNobody, "the path {} -> {} is cut", one, other);
      Until(rng_.Around(60s),
            [this, one, other] { network_.faults(one, other).is_cut = network_.faults(other, one).is_cut = false; });
      break;
    }
    case 6:
    case 7: {
      const HostId mobile = pair.a;
      if (!scenario_.is_mobile[mobile]) break;
      network_.Rebind(mobile);
      log_.Add(mobile, "has a new address");
      break;
    }
    case 8:
      Restart(troubled, rng_.Between(1s, 60s));
      break;
    case 9: {
      troubled.Suspend(/*keeps_datagrams=*/false);
      Until(rng_.Chance(0.3) ? rng_.Between(180s, 600s) : rng_.Around(60s), [&troubled] { troubled.Resume(); });
      break;
    }
    case 10: {
      troubled.Suspend(/*keeps_datagrams=*/true);
      Until(rng_.Chance(0.2) ? Duration(200s) : rng_.Around(20s), [&troubled] { troubled.Resume(); });
      break;
    }
    case 11: {
      const Duration by = std::array<Duration, 4>{1h, 24h, 24h * 365, 24h * 3650}[rng_.Below(4)];
      log_.Add(one, "its wall clock jumps");
      troubled.JumpWallClock(rng_.Chance(0.5) ? by : -by);
      break;
    }
    case 12:
      troubled.Remove(other);
      Until(rng_.Around(30s), [this, one, other, &pair] {
        if (!host(one).HasPeer(other)) host(one).Configure(other, ConfigOf(one, other, pair));
      });
      break;
    case 13:
      if (rng_.Chance(0.5)) {
        ChangeKey(one);
      } else if (pair.has_psk) {
        ChangePresharedKey(index);
      }
      break;
    case 14:
      troubled.SetUp(false);
      Until(rng_.Around(20s), [&troubled] { troubled.SetUp(true); });
      break;
    case 15:
      if (!scenario_.has_long_idle) {
        // On or off: another interval counts from the next packet on only.
        const bool is_on = troubled.configured().at(other).keepalive > Duration(0);
        troubled.SetPersistentKeepalive(other, is_on ? Duration(0) : Duration(20s));
      }
      break;
    case 16:
      log_.Add(one, "is under load");
      troubled.set_under_load(true);
      Until(rng_.Around(60s), [&troubled] { troubled.set_under_load(false); });
      for (std::uint64_t shots = scenario_.has_attacker ? 20 : 0; shots > 0; --shots) {
        Until(rng_.Around(10s), [this, one] { attacker_.Shoot(host(one)); });
      }
      break;
    case 17:
      troubled.set_send_failures(rng_.Chance(0.5) ? 1 : 0.3);
      Until(rng_.Around(20s), [&troubled] { troubled.set_send_failures(0); });
      break;
    default:
      for (std::uint64_t shots = 1 + rng_.Below(20); shots > 0; --shots) {
        Until(rng_.Around(2s), [this, one] { attacker_.Shoot(host(one)); });
      }
  }
}

void World::SweepForEver() {
  for (const auto& each : hosts_) each->Sweep();
  if (network_.bytes_to_stranger() > network_.bytes_from_stranger()) {
    Violate(Check::kAmplification, kNobody, "{} bytes to a stranger who sent {}", network_.bytes_to_stranger(),
            network_.bytes_from_stranger());
  }
  simulator_.After(1s, [this] { SweepForEver(); });
}

// ---- quiet

void World::EndChaos() {
  log_.Add(kNobody, "faults stop");
  is_quiet_ = true;
  for (HostId from = 0; from < hosts_.size(); ++from) {
    for (HostId to = 0; to < hosts_.size(); ++to) {
      network_.faults(from, to) = PathFaults{.delay = rng_.Between(1ms, 80ms)};
    }
  }
  for (const auto& each : hosts_) {
    each->set_under_load(false);
    each->set_send_failures(0);
    each->CorrectWallClock();
    if (!each->is_running()) each->Start();
    each->Resume();
    each->SetUp(true);
  }
  for (std::size_t i = 0; i < scenario_.pairs.size(); ++i) {
    const PairPlan& pair = scenario_.pairs[i];
    for (const auto& [of, peer] : {std::pair(pair.a, pair.b), std::pair(pair.b, pair.a)}) {
      const PeerConfig& config = host(of).configured().at(peer);
      if (!host(of).HasPeer(peer) || config.key != host(peer).public_key()) {
        host(of).Configure(peer, ConfigOf(of, peer, pair));
      } else if (config.psk_version != psk_versions_[i]) {
        host(of).SetPresharedKey(peer, psks_[i], psk_versions_[i]);
      }
    }
  }
  if (options_.defect == Defect::kDeafWhenQuiet) host(0).set_deaf(true);
  for (const PairPlan& pair : scenario_.pairs) {
    for (const auto& [from, to] : {std::pair(pair.a, pair.b), std::pair(pair.b, pair.a)}) {
      Watch(from, to);
      simulator_.After(rng_.Between(0s, kTick), [this, from, to] { Tick(from, to, kTick, Instant::max()); });
    }
  }
}

void World::Watch(HostId from, HostId to) {
  flow(from, to).since = now();
  flow(from, to).first_delivery.reset();
}

void World::Tick(HostId from, HostId to, Duration interval, Instant until) {
  if (now() >= until) return;
  if (!flow(from, to).is_muted) Burst(from, to, 1, /*may_spoof=*/false);
  simulator_.After(interval, [this, from, to, interval, until] { Tick(from, to, interval, until); });
}

void World::OnDelivered(const PacketRecord& packet) {
  Flow& f = flow(packet.from, packet.to);
  if (!f.first_delivery && packet.sent_at >= f.since) f.first_delivery = now();
}

Duration World::HealedAfter(HostId from, HostId to, Duration bound, Check check) {
  const Flow& f = flow(from, to);
  if (!f.first_delivery || *f.first_delivery - f.since > bound) {
    Violate(check, to, "no packet of host {} within {} s{}", from, bound / 1s,
            f.first_delivery ? fmt::format(", but after {:.3f} s",
                                           std::chrono::duration<double>(*f.first_delivery - f.since).count())
                             : "");
  }
  return *f.first_delivery - f.since;
}

void World::RequireLossless() {
  if (scenario_.weather != Weather::kPerfect) return;
  const Instant settled = now() - 20s;
  for (const PacketRecord& packet : ledger_.records()) {
    if (packet.sent_at < settled && !packet.delivered_at) {
      Violate(Check::kLossless, packet.to, "the packet that host {} sent at {:.3f} s never came", packet.from,
              std::chrono::duration<double>(packet.sent_at - Simulator::kStart).count());
    }
  }
}

void World::RequireLiveness() {
  for (const PairPlan& pair : scenario_.pairs) {
    for (const auto& [from, to] : {std::pair(pair.a, pair.b), std::pair(pair.b, pair.a)}) {
      slowest_heal_ = std::max(slowest_heal_, HealedAfter(from, to, kHealBound, Check::kLiveness));
    }
  }
}

// One side loses its state and has nothing to say; the other sends (reliability F14).
void World::TestRestart() {
  const PairPlan& pair = scenario_.pairs[rng_.Below(scenario_.pairs.size())];
  const bool is_forward = options_.defect != Defect::kNone ? pair.a == 0 : rng_.Chance(0.5);
  const HostId restarted = is_forward ? pair.a : pair.b, sender = is_forward ? pair.b : pair.a;
  ++restarts_;
  flow(restarted, sender).is_muted = true;
  host(restarted).Stop();
  host(restarted).Start();
  if (options_.defect == Defect::kDeafAfterRestart) host(0).set_deaf(true);
  Watch(sender, restarted);
  Tick(sender, restarted, 100ms, now() + kRestartBound);
  simulator_.After(kRestartBound + slack() + 200ms, [this, restarted, sender] {
    const Duration bound = kRestartBound + slack() + 160ms;  // and a round trip
    slowest_restart_heal_ = HealedAfter(sender, restarted, bound, Check::kRestartHeals);
    flow(restarted, sender).is_muted = false;
    host(0).set_deaf(false);
  });
}

// Both sides start at once and write at once (checklist, 54).
void World::TestSimultaneous() {
  const auto both_know = std::ranges::find_if(scenario_.pairs, [](const PairPlan& p) { return p.is_known_to_b; });
  if (both_know == scenario_.pairs.end()) return;
  const HostId a = both_know->a, b = both_know->b;
  restarts_ += 2;
  for (const HostId id : {a, b}) host(id).Stop();
  for (const HostId id : {a, b}) host(id).Start();
  if (options_.defect == Defect::kDeafWhenSimultaneous) host(0).set_deaf(true);
  Watch(a, b);
  Watch(b, a);
  Burst(a, b, 1, /*may_spoof=*/false);
  Burst(b, a, 1, /*may_spoof=*/false);
  simulator_.After(kSimultaneousBound + 1s, [this, a, b] {
    for (const auto& [from, to] : {std::pair(a, b), std::pair(b, a)}) {
      slowest_convergence_ =
          std::max(slowest_convergence_, HealedAfter(from, to, kSimultaneousBound, Check::kSimultaneous));
    }
  });
}

// ---- the run

void World::Execute() {
  const auto total =
      std::max(Duration(kQuietTime + 60s),
               std::chrono::duration_cast<Duration>(std::chrono::duration<double>(options_.hours * 3600)));
  const Duration chaos = total - kQuietTime;
  psks_.resize(scenario_.pairs.size());
  psk_versions_.resize(scenario_.pairs.size(), 0);
  for (HostId id = 0; id < hosts_.size(); ++id) {
    if (scenario_.is_mobile[id]) network_.Rebind(id);
    for (HostId to = 0; to < hosts_.size(); ++to) network_.faults(id, to) = DrawFaults(rng_, scenario_.weather);
  }
  for (std::size_t i = 0; i < scenario_.pairs.size(); ++i) {
    if (scenario_.pairs[i].has_psk) DrawPresharedKey(i);
  }
  for (const PairPlan& pair : scenario_.pairs) Configure(pair);
  for (const auto& each : hosts_) each->Start();
  for (std::size_t i = 0; i < scenario_.pairs.size(); ++i) ScheduleBurst(i);
  if (scenario_.weather != Weather::kPerfect) ScheduleTrouble();
  if (scenario_.has_long_idle) {
    idle_from_ = now() + chaos / 3;
    idle_until_ = idle_from_ + 1200s;
  }
  SweepForEver();

  simulator_.RunUntil(Simulator::kStart + chaos);
  EndChaos();
  simulator_.RunUntil(now() + 100s);
  RequireLossless();
  simulator_.RunUntil(Simulator::kStart + chaos + kHealBound);
  RequireLiveness();
  simulator_.RunUntil(Simulator::kStart + chaos + kRestartAt);
  TestRestart();
  simulator_.RunUntil(Simulator::kStart + chaos + kSimultaneousAt);
  TestSimultaneous();
  simulator_.RunUntil(Simulator::kStart + total);
  for (const auto& each : hosts_) each->RequireCleanExit();
}

void World::Report(RunResult& result) const {
  result.at = simulator_.now() - Simulator::kStart;
  result.scenario = scenario_.ToString();
  result.last_events.assign(log_.last().begin(), log_.last().end());
  result.digest = observer_.digest();
  const NetworkCounts& network = network_.counts();
  result.counts = RunCounts{.events = simulator_.events(),
                            .packets_sent = ledger_.records().size(),
                            .packets_delivered = ledger_.delivered(),
                            .datagrams = network.sent,
                            .lost = network.lost,
                            .altered = network.altered,
                            .duplicated = network.duplicated,
                            .held_back = network.held_back,
                            .injected = attacker_.shots(),
                            .initiations = observer_.initiations(),
                            .sessions = observer_.sessions(),
                            .restarts = restarts_,
                            .slowest_heal = slowest_heal_,
                            .slowest_restart_heal = slowest_restart_heal_,
                            .slowest_convergence = slowest_convergence_};
}

}  // namespace

RunResult Run(const RunOptions& options, AeadEngine& aead) {
  World world(options, aead);
  RunResult result;
  try {
    world.Execute();
  } catch (const Violation& violation) {
    result.violation = violation;
  }
  world.Report(result);
  return result;
}

}  // namespace adit::sim
