#include "cli/network_monitor.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "engine/clock.h"
#include "engine/fd_watch.h"
#include "routing/network_events.h"

namespace adit {
namespace {

bool LeadsElsewhere(const NetworkEvent& event) {
  return event.kind == EventKind::kLink || event.kind == EventKind::kAddress || event.kind == EventKind::kRoute;
}

}  // namespace

class NetworkMonitor::Impl : public std::enable_shared_from_this<NetworkMonitor::Impl> {
 public:
  Impl(boost::asio::io_context& io, std::unique_ptr<NetworkEvents> events)
      : io_(io), timer_(io), events_(std::move(events)), policy_(BootNow()) {}

  Status Start() {
    auto route_watch = FdWatch::Open(io_, events_->route_fd(), [this] { OnReadable(); });
    if (!route_watch) return std::unexpected(route_watch.error());
    route_watch_ = std::move(*route_watch);
    if (events_->firewall_fd() >= 0) {
      auto firewall_watch = FdWatch::Open(io_, events_->firewall_fd(), [this] { OnReadable(); });
      if (!firewall_watch) return std::unexpected(firewall_watch.error());
      firewall_watch_ = std::move(*firewall_watch);
    }
    Arm();
    return {};
  }

  void Stop() {
    is_stopped_ = true;
    route_watch_.reset();
    firewall_watch_.reset();
    timer_.cancel();
  }

  void Guard(Guarded guarded) {
    guarded_ = {};
    if (guarded.routing != nullptr) {
      events_->IgnorePort(guarded.routing->port_id());
      // What is waiting happened before, the link's being down for example; it only says that things moved.
      for (;;) {
        const NetworkNews news = events_->Read();
        if (news.is_lost) policy_.OnLost(BootNow());
        for (const NetworkEvent& event : news.events) policy_.OnEvent(event.kind, std::nullopt, BootNow());
        if (!news.is_lost && news.events.empty()) break;
      }
      verified_at_ = BootNow();  // Routing::Up does not return before it is
    }
    guarded_ = std::move(guarded);
    Arm();
  }

  void OnReadable() {
    const NetworkNews news = events_->Read();
    const Instant now = BootNow();
    if (news.is_lost) policy_.OnLost(now);
    if (follow_network_ && (news.is_lost || std::ranges::any_of(news.events, LeadsElsewhere))) follow_network_();
    for (const NetworkEvent& event : news.events) {
      if (event.kind == EventKind::kFirewall) {
        if (!repair_firewall_) continue;
        firewall_culprit_ = event.culprit;
      }
      std::optional<Harm> harm;
      if (guarded_.routing != nullptr) {
        if (auto what = guarded_.routing->NoteHarm(event)) harm = Harm{std::move(*what), event.culprit};
      }
      policy_.OnEvent(event.kind, harm, now);
      if (harm) last_harm_ = std::move(*harm);
    }
    Act();
  }

  void Act() {
    const ReconcileActions actions = policy_.Take(BootNow());
    if (actions.repair_firewall && repair_firewall_) RepairFirewall();
    if (guarded_.routing != nullptr) LookAfterRouting(actions);
    if (actions.notify) {
      for (const Observer& observer : observers_) observer(*actions.notify);
    }
    Arm();
  }

  // Transactions of others are many on some machines: the last one before the look is blamed, which is right unless two
  // came within a millisecond.
  void RepairFirewall() {
    auto what = repair_firewall_();
    if (!what) return;
    RepairReport report;
    report.repaired = 1;
    Count(report);
    last_harm_ = {std::move(*what), firewall_culprit_};
    policy_.OnFirewallHarm(last_harm_, BootNow());
    if (!IsFight()) spdlog::warn("{} harmed the firewall ({}); it is back", Culprit(), last_harm_.what);
    TellOfFight();
  }

  std::string_view Culprit() const { return last_harm_.culprit.empty() ? "somebody" : last_harm_.culprit; }

  void TellOfFight() {
    if (IsFight() != std::exchange(was_fight_, IsFight()) && was_fight_) {
      spdlog::error("{} removes what is ours again and again; it is put back at most {} times a second", Culprit(),
                    1s / ReconcilePolicy::kRepairEvery);
    }
  }

  void LookAfterRouting(const ReconcileActions& actions) {
    if (actions.repair) {
      const RepairReport report = guarded_.routing->Repair();
      Count(report);
      // A fight must not fill the log.
      if (report.repaired > 0 && !IsFight()) {
        spdlog::warn("{} removed what is ours, the last \"{}\"; {} put back", Culprit(), last_harm_.what,
                     report.repaired);
      }
      TellOfFight();
    }
    if (actions.reconcile) {
      const Instant begin = BootNow();
      const RepairReport report = guarded_.routing->Reconcile(guarded_.config(), guarded_.prepare_sockets);
      const Instant end = BootNow();
      policy_.OnReconciled(end - begin, end);
      Count(report);
      if (report.changed > 0) spdlog::info("the network changed: {} routing changes followed", report.changed);
      // Each once, or a failure that stays would be told with every event.
      for (const std::string& failure : report.failures) {
        if (std::ranges::find(failures_, failure) == failures_.end()) spdlog::error("{}", failure);
      }
      failures_ = report.failures;
      if (report.repaired + report.changed > 0) Verify();
    }
    if (actions.verify) {
      Verify();
      // The kernel goes otherwise than planned although no event said so: a look at everything.
      if (!guarded_.routing->findings().empty()) policy_.OnLost(BootNow());
    }
  }

  void Count(const RepairReport& report) {
    if (report.repaired == 0) return;
    repairs_ += report.repaired;
    last_repair_at_ = BootNow();
  }

  bool IsFight() const { return std::ranges::any_of(policy_.interferences(), &Interference::is_fight); }

  void Verify() {
    if (guarded_.routing == nullptr) return;
    const auto before = guarded_.routing->findings();
    const auto findings = guarded_.routing->Verify();
    if (!findings) {
      spdlog::error("{}", findings.error().message);
      return;
    }
    verified_at_ = BootNow();
    for (const std::string& finding : *findings) {
      if (std::ranges::find(before, finding) == before.end()) spdlog::warn("{}", finding);
    }
  }

  RoutingHealth Health() const {
    RoutingHealth health;
    if (guarded_.routing == nullptr) return health;
    const Instant now = BootNow();
    const std::int64_t wall = WallNow().seconds;
    const auto to_wall = [&](Instant at) { return wall - (now - at) / 1s; };
    if (verified_at_) health.verified_at = to_wall(*verified_at_);
    health.findings = guarded_.routing->findings();
    health.failures = failures_;
    health.repairs = repairs_;
    if (last_repair_at_) health.last_repair_at = to_wall(*last_repair_at_);
    health.is_limited = policy_.is_limited();
    for (const Interference& one : policy_.interferences()) {
      health.interferences.push_back({.culprit = one.culprit,
                                      .what = one.what,
                                      .count = one.count,
                                      .last_at = to_wall(one.last_at),
                                      .is_fight = one.is_fight});
    }
    return health;
  }

  void Arm() {
    const Instant now = BootNow();
    timer_.expires_after(
        std::chrono::ceil<std::chrono::milliseconds>(std::max(policy_.next_at(now) - now, Duration())));
    timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error && !self->is_stopped_) self->Act();
    });
  }

  boost::asio::io_context& io_;
  boost::asio::steady_timer timer_;
  std::unique_ptr<NetworkEvents> events_;
  ReconcilePolicy policy_;
  std::unique_ptr<FdWatch> route_watch_;
  std::unique_ptr<FdWatch> firewall_watch_;
  std::vector<Observer> observers_;
  std::function<void()> follow_network_;
  std::function<std::optional<std::string>()> repair_firewall_;
  std::string firewall_culprit_;  // of the last transaction
  Guarded guarded_;
  Harm last_harm_;
  bool was_fight_ = false;
  std::uint64_t repairs_ = 0;
  std::optional<Instant> last_repair_at_;
  std::optional<Instant> verified_at_;
  std::vector<std::string> failures_;  // of the last look at everything
  bool is_stopped_ = false;
};

Result<std::unique_ptr<NetworkMonitor>> NetworkMonitor::Start(boost::asio::io_context& io) {
  auto events = NetworkEvents::Open();
  if (!events) return std::unexpected(events.error());
  auto impl = std::make_shared<Impl>(io, std::move(*events));
  if (const Status started = impl->Start(); !started) return std::unexpected(started.error());
  return std::unique_ptr<NetworkMonitor>(new NetworkMonitor(std::move(impl)));
}

NetworkMonitor::NetworkMonitor(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
NetworkMonitor::~NetworkMonitor() { impl_->Stop(); }
void NetworkMonitor::Subscribe(Observer observer) { impl_->observers_.push_back(std::move(observer)); }
void NetworkMonitor::OnNetworkEvent(std::function<void()> follow) { impl_->follow_network_ = std::move(follow); }
void NetworkMonitor::OnFirewallChange(std::function<std::optional<std::string>()> repair) {
  impl_->repair_firewall_ = std::move(repair);
}
void NetworkMonitor::Guard(Guarded guarded) { impl_->Guard(std::move(guarded)); }
RoutingHealth NetworkMonitor::health() const { return impl_->Health(); }
void NetworkMonitor::Verify() { impl_->Verify(); }
void NetworkMonitor::IgnorePort(std::uint32_t port_id) { impl_->events_->IgnorePort(port_id); }

}  // namespace adit
