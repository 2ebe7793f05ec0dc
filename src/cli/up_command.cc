// The way up, each step with the one that takes it back:
//
//   1. read and validate the file            -
//   2. lock the name, clean up a crash       release the lock
//   3. TUN device, engine, sockets           close them, which removes the device
//   4. PreUp                                 -
//   5. endpoint names to addresses           -
//   6. plan the routing, configure peers     -
//   6. firewall, with the kill switch        Firewall::Down, last, when the link is gone
//   7. addresses, MTU, link, routes, rules   Routing::Down, by the journal
//   8. DNS                                   TunnelDns::Remove
//   9. PostUp                                PreDown comes first on the way down, PostDown last
//
// Each wait runs the loop, so that hooks can use `wg` on the device and `adit down` is heard at any time.
#include "cli/up_command.h"

#include <net/if.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "cli/background.h"
#include "cli/conf_io.h"
#include "cli/control_socket.h"
#include "cli/descriptor_limit.h"
#include "cli/dns.h"
#include "cli/endpoint_keeper.h"
#include "cli/engine_settings.h"
#include "cli/firewall_question.h"
#include "cli/hooks.h"
#include "cli/log.h"
#include "cli/loop.h"
#include "cli/mtu_keeper.h"
#include "cli/network_monitor.h"
#include "cli/options.h"
#include "cli/resolve.h"
#include "cli/routing_config.h"
#include "cli/run_files.h"
#include "cli/status.h"
#include "cli/sync.h"
#include "cli/tunnel_firewall.h"
#include "cli/uplink_follower.h"
#include "config/environment.h"
#include "control/uapi_server.h"
#include "crypto/primitives.h"
#include "engine/engine.h"
#include "routing/old_flows.h"
#include "routing/routing.h"
#include "routing/table_names.h"
#include "routing/uplink_choice.h"

namespace adit {
namespace {

// The engine binds its sockets when it hears that the link is up; that takes milliseconds.
constexpr Duration kBindTimeout = 5s;
// How often --wait looks for a handshake.
constexpr Duration kHandshakePoll = 20ms;
// How long a flushed firewall, a new neighbour or a roamed endpoint may wait where no event tells of it.
constexpr Duration kLookInterval = 1s;
constexpr std::size_t kMaxFollowedPeers = 256;  // of more, the firewall knows the endpoints of the file only
// While --wait waits, this makes the engine start a handshake without any traffic. The value is wg's usual one.
constexpr std::uint16_t kWaitKeepaliveSeconds = 25;

class TunnelRun {
 public:
  TunnelRun(ConfTarget target, LoadedConf loaded, EngineSettings settings, std::optional<DnsKind> dns_kind,
            Duration stale_handshake)
      : file_(std::filesystem::absolute(target.file).lexically_normal().string()),
        name_(std::move(target.interface_name)),
        files_(RunFilesOf(name_)),
        conf_(std::move(loaded.conf)),
        settings_(std::move(settings)),
        dns_kind_(dns_kind),
        stale_handshake_(stale_handshake),
        loop_([this] { reload_is_wanted_ = true; }) {
    facts_.name = name_;
    facts_.file = file_;
    facts_.state = "starting";
    facts_.pid = getpid();
    facts_.since = std::time(nullptr);
    facts_.warnings = std::move(loaded.warnings);
    for (const ConfPeer& peer : conf_.peers) {
      if (!peer.name.empty()) facts_.peer_names[peer.public_key] = peer.name;
    }
  }

  Outcome BringUp(const std::optional<std::chrono::seconds>& wait);
  // Until something ends it.
  void Serve();
  // From any stage. Goes on after a failure and returns the first one.
  Status TakeDown();

  Loop& loop() { return loop_; }

 private:
  Outcome TakeName();
  Outcome OpenDevice();
  Outcome Configure();
  Outcome ApplyRouting(const Plan& plan);
  Outcome RaiseFirewallFor(const RoutingConfig& config, const Plan& plan);
  Status FollowFirewall(const RoutingConfig& config, const Plan& plan);
  void EndOldFlows(const RoutingConfig& config);
  // Without a monitor's event, only whether the table is there. What was mended: "table inet adit-wg0, removed".
  std::optional<std::string> LookAfterFirewall(bool thoroughly = false, bool looks_at_lan = true);
  ConfFile WithLinkStateNow(ConfFile conf) const;
  void FollowRoaming();
  void FollowEndpoints();
  void FollowPaths();
  Outcome WaitForHandshake(std::chrono::seconds wait);
  void ApplyDns();
  RoutingConfig Wanted() const;
  std::string OnPortalRequest(const std::string& words);
  Status SetPortal(std::optional<Portal> portal);
  Status Reload();
  Status SetMark(std::uint32_t mark);
  Status BindToUplink(const Plan& plan);
  void ReleaseUplink();
  Status PrepareSockets(const Plan& plan);
  std::uint32_t MarkBeforeEndpoints() const;
  std::uint32_t SocketMark(const Plan& plan) const;
  void OnEndpointChanged(const PublicKey& key, const SocketAddress& now);
  EndpointAddresses WhereItIs(const ConfPeer& peer) const;
  void Warn(const std::string& text);
  std::string StatusLine(bool show_keys) const;
  std::string JudgeLine(const std::string& question) const;
  Outcome CheckNotEnded() const;

  const std::string file_;
  const std::string name_;
  const RunFiles files_;
  ConfFile conf_;
  EngineSettings settings_;
  const std::optional<DnsKind> dns_kind_;
  const Duration stale_handshake_;
  TunnelFacts facts_;
  bool reload_is_wanted_ = false;
  bool post_up_has_run_ = false;
  bool was_up_ = false;

  // In the order they come to be; the loop outlives what runs on it.
  Loop loop_;
  std::optional<TunnelLock> lock_;
  std::shared_ptr<UplinkChoice> uplinks_ = std::make_shared<UplinkChoice>(name_);
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<UapiServer> uapi_;
  std::unique_ptr<ControlSocket> control_;
  std::vector<std::optional<SocketAddress>> endpoints_;
  std::unique_ptr<UplinkFollower> uplink_follower_;  // while the sockets are bound
  std::unique_ptr<NetworkMonitor> monitor_;
  std::unique_ptr<Firewall> firewall_;
  std::unique_ptr<Routing> routing_;
  std::unique_ptr<TunnelDns> dns_;
  std::optional<Portal> portal_;
  boost::asio::steady_timer portal_end_{loop_.io()};
  EndpointNames names_;
  std::unique_ptr<EndpointKeeper> keeper_;
  std::unique_ptr<MtuKeeper> mtu_;
};

void TunnelRun::Warn(const std::string& text) {
  PrintWarning(text);
  // A reload finds the same again.
  if (std::ranges::find(facts_.warnings, text) == facts_.warnings.end()) facts_.warnings.push_back(text);
}

std::string TunnelRun::StatusLine(bool show_keys) const {
  if (!engine_) return nlohmann::ordered_json{{"name", name_}, {"state", facts_.state}}.dump();
  TunnelFacts facts = facts_;
  if (dns_) facts.dns = dns_->report();
  if (portal_) {
    facts.warnings.push_back(
        fmt::format("programs of user {} pass beside the tunnel (adit portal --close {})", portal_->uid, name_));
  }
  if (mtu_) std::ranges::copy(mtu_->Warnings(), std::back_inserter(facts.warnings));
  if (routing_) {
    facts.mtu = routing_->plan().mtu;
    const LoopAvoidance way = routing_->plan().loop_avoidance;
    if (way != LoopAvoidance::kAuto) facts.loop_avoidance = ToString(way);
    for (const Op& op : routing_->ops()) facts.routing.push_back(ToString(op));
    if (monitor_) facts.health = monitor_->health();
  }
  if (firewall_) {
    facts.firewall.table = firewall_->table().name;
    facts.firewall.kill_switch = ToString(firewall_->config().kill_switch);
    facts.firewall.is_owned = firewall_->is_owned();
    if (const auto counters = firewall_->Counters()) {
      for (const auto& [name, count] : *counters) {
        facts.firewall.packets.emplace_back(name, count.packets);
        facts.firewall.bytes.emplace_back(name, count.bytes);
      }
    }
  }
  return StatusToJson(facts, engine_->GetDevice(), engine_->GetEngine(), show_keys).dump();
}

std::string TunnelRun::JudgeLine(const std::string& question) const {
  const auto packet = ParseQuestion(question);
  if (!packet) return {};
  if (!firewall_) return ToAnswer({});
  return ToAnswer({firewall_->table().name, firewall_->Judge(*packet)});
}

Outcome TunnelRun::CheckNotEnded() const {
  switch (loop_.end()) {
    case End::kNone:
      return {};
    case End::kLinkRemoved:
      return FailWith(ExitCode::kFailure, "the link {} was removed while it was coming up", name_);
    case End::kSocketRemoved:
      return FailWith(ExitCode::kFailure, "the socket of {} was removed while it was coming up", name_);
    case End::kSignal:
    case End::kAsked:
      break;
  }
  return FailWith(ExitCode::kFailure, "stopped before {} was up; everything is undone", name_);
}

Outcome TunnelRun::TakeName() {
  auto lock = TunnelLock::Take(files_);
  if (!lock && lock.error().code == EWOULDBLOCK) {
    return FailWith(ExitCode::kFailure, "{} is already up ({}); `adit down {}` takes it down", name_,
                    lock.error().message, name_);
  }
  if (!lock) return FailFrom(lock.error());
  lock_.emplace(std::move(*lock));

  const bool had_journal = access(files_.journal.c_str(), F_OK) == 0;
  const bool had_dns = HasLeftDns(name_, files_);
  if (const auto removed = RemoveEarlierBoots(SystemResolvPaths()); !removed) {
    Warn(removed.error().message);
  } else if (*removed) {
    PrintWarning("the machine went down while a tunnel was up; resolv.conf is as it was before that tunnel");
  }
  if (!had_journal && !had_dns) return {};
  if (auto cleaned = Cleanup(files_.journal); !cleaned) {
    return FailWith(ExitCode::kFailure, "an earlier run of {} crashed and cannot be cleaned up: {}", name_,
                    cleaned.error().message);
  }
  if (auto cleaned = RemoveLeftDns(loop_, name_, files_); !cleaned) Warn(cleaned.error().message);
  PrintWarning(fmt::format("an earlier run of {} did not end cleanly; what it left behind is removed", name_));
  return {};
}

Outcome TunnelRun::OpenDevice() {
  auto tun = TunDevice::Create(name_, settings_.tun);
  if (!tun) return FailFrom(tun.error());
  settings_.engine.udp.choose_link = [uplinks = uplinks_](const IpAddress& to) { return uplinks->LinkTo(to); };
  auto engine = Engine::Start(loop_.io(), std::move(*tun), settings_.engine,
                              [this](EngineEnd) { loop_.Finish(End::kLinkRemoved); });
  if (!engine) return FailFrom(engine.error());
  engine_ = std::move(*engine);

  UapiServerOptions uapi_options;
  uapi_options.name = name_;
  uapi_options.on_removed = [this] { loop_.Finish(End::kSocketRemoved); };
  auto uapi = UapiServer::Start(loop_.io(), *engine_, std::move(uapi_options));
  if (!uapi) return FailWith(ExitCode::kFailure, "{}", uapi.error().message);
  uapi_ = std::move(*uapi);

  auto control = ControlSocket::Listen(
      loop_.io(), files_.socket,
      {[this](bool show_keys) { return StatusLine(show_keys); }, [this] { loop_.Finish(End::kAsked); },
       [this] { reload_is_wanted_ = true; }, [this](const std::string& packet) { return JudgeLine(packet); },
       [this](const std::string& words) { return OnPortalRequest(words); }});
  if (!control) return FailFrom(control.error());
  control_ = std::move(*control);

  auto monitor = NetworkMonitor::Start(loop_.io());
  if (!monitor) return FailFrom(monitor.error());
  monitor_ = std::move(*monitor);
  return {};
}

Outcome TunnelRun::Configure() {
  // Whatever keeps unmarked packets in (a kill switch of before) lets the questions out already.
  names_ = NamesBeforeTunnel(MarkBeforeEndpoints(), conf_.interface.dns_servers);
  names_.uplinks = uplinks_;
  std::vector<EndpointAddresses> found;
  auto endpoints = ResolveEndpoints(loop_, conf_.peers, ResolutionRetriesFromEnvironment(), names_, &found);
  if (!endpoints) return FailWith(ExitCode::kFailure, "{}", endpoints.error().message);
  endpoints_ = std::move(*endpoints);

  const RoutingConfig config = ToRoutingConfig(conf_, endpoints_, name_);
  const auto plan = PlanNow(config);
  if (!plan) return FailFrom(plan.error());
  if (auto done = RaiseFirewallFor(config, *plan); !done) return done;

  // The sockets carry the mark before any rule relies on it.
  DeviceUpdate update = ToDeviceUpdate(conf_, endpoints_);
  if (const std::uint32_t mark = MarkFor(config, *plan); mark != 0) update.fwmark = mark;
  if (const int error = engine_->SetDevice(update); error != 0) {
    return FailFrom({fmt::format("the device does not take what {} says: {}{}", file_, std::strerror(error),
                                 error == EADDRINUSE ? "; choose another ListenPort, or none" : ""),
                     error});
  }
  names_.fwmark = MarkFor(config, *plan);
  if (Status bound = BindToUplink(*plan); !bound) return FailFrom(bound.error());
  if (auto done = ApplyRouting(*plan); !done) return done;
  EndOldFlows(config);
  keeper_ = std::make_unique<EndpointKeeper>(
      loop_.io(), *engine_, names_, stale_handshake_,
      [this](const PublicKey& key, const SocketAddress&, const SocketAddress& now) { OnEndpointChanged(key, now); });
  keeper_->Watch(conf_.peers, found);
  mtu_ = std::make_unique<MtuKeeper>(loop_.io(), *engine_, conf_, name_, [this] { FollowEndpoints(); });
  mtu_->Follow(endpoints_, routing_->plan());
  monitor_->Subscribe([this](const NetworkChange& change) {
    FollowPaths();
    if (change.links || change.addresses || change.is_lost) LookAfterFirewall();  // another LAN
  });
  return {};
}

// The mark that the rules will go by, wherever the names lead.
std::uint32_t TunnelRun::MarkBeforeEndpoints() const {
  const RoutingConfig config = ToRoutingConfig(conf_, {}, name_);
  const auto plan = PlanNow(config);
  return plan ? MarkFor(config, *plan) : conf_.interface.fwmark.value_or(0);
}

// What the rules of `plan` go by; or else what the firewall that stands knows our packets by, whatever the file says
// by now.
std::uint32_t TunnelRun::SocketMark(const Plan& plan) const {
  if (plan.fwmark != 0) return plan.fwmark;
  return firewall_ && firewall_->config().has_deny() ? kFirewallMark : 0;
}

void TunnelRun::OnEndpointChanged(const PublicKey& key, const SocketAddress& now) {
  for (std::size_t i = 0; i < conf_.peers.size() && i < endpoints_.size(); ++i) {
    if (conf_.peers[i].public_key == key) endpoints_[i] = now;
  }
  FollowEndpoints();
}

// A peer that roamed is where its last authenticated packet came from. Peers that have no endpoint in the file come to
// us, and are not ours to lead to.
void TunnelRun::FollowRoaming() {
  if (conf_.peers.size() > kMaxFollowedPeers) return;
  bool has_roamed = false;
  for (std::size_t i = 0; i < conf_.peers.size() && i < endpoints_.size(); ++i) {
    if (!endpoints_[i]) continue;
    const auto at = engine_->GetReach(conf_.peers[i].public_key);
    if (!at || !at->endpoint || at->endpoint == endpoints_[i]) continue;
    has_roamed |= at->endpoint->ip != endpoints_[i]->ip;
    endpoints_[i] = at->endpoint;
  }
  if (has_roamed) FollowEndpoints();
}

// What leads past the tunnel leads to where the peers are, and no longer to where they were; the MTU is for the way
// there.
void TunnelRun::FollowEndpoints() {
  const auto reconcile = [this] {
    const RepairReport report =
        routing_->Reconcile(Wanted(), [this](const Plan& wanted) { return PrepareSockets(wanted); });
    for (const std::string& failure : report.failures) spdlog::warn("{}", failure);
  };
  reconcile();
  // What was measured on the way to where they were counts no longer; without it the ways are the same, so once is
  // enough.
  if (mtu_ && mtu_->Follow(endpoints_, routing_->plan())) reconcile();
  LookAfterFirewall();
}

// The network changed, or the file; the routing has followed.
void TunnelRun::FollowPaths() {
  if (mtu_ && mtu_->Follow(endpoints_, routing_->plan())) FollowEndpoints();
}

Outcome TunnelRun::RaiseFirewallFor(const RoutingConfig& config, const Plan& plan) {
  std::vector<std::string> warnings;
  auto firewall = RaiseFirewall(config, plan, files_.firewall, warnings);
  if (!firewall) return std::unexpected(firewall.error());
  firewall_ = std::move(*firewall);
  for (const std::string& warning : warnings) Warn(warning);
  if (firewall_ && monitor_) {
    monitor_->IgnorePort(firewall_->port_id());
    monitor_->OnFirewallChange([this] { return LookAfterFirewall(/*thoroughly=*/true); });
  }
  return {};
}

// Not before the routes: what is opened anew must find the tunnel.
void TunnelRun::EndOldFlows(const RoutingConfig& config) {
  if (!firewall_ || !config.cut_old_flows) return;
  const auto snapshot = SnapshotNow();
  const auto cut = snapshot ? CutOldFlows(firewall_->config(), *snapshot) : std::unexpected(snapshot.error());
  if (!cut) {
    Warn(fmt::format("connections from before the tunnel go on until they time out: {}", cut.error().message));
  } else if (*cut > 0) {
    spdlog::info("{} connections from before the tunnel are cut", *cut);
  }
}

// Somebody's flush, an address of the LAN that came or went, an endpoint that roamed.
std::optional<std::string> TunnelRun::LookAfterFirewall(bool thoroughly, bool looks_at_lan) {
  if (!firewall_) return std::nullopt;
  auto repaired = RepairFirewall(*firewall_, thoroughly);
  if (!repaired) {
    spdlog::error("the firewall is gone and cannot be put back: {}", repaired.error().message);
    return std::nullopt;
  }
  if (*repaired && !thoroughly) spdlog::warn("somebody harmed the firewall ({}); it is back", **repaired);
  if (looks_at_lan) {
    if (Status fresh = RefreshLan(*firewall_, Wanted()); !fresh) {
      spdlog::error("the firewall does not follow the LAN: {}", fresh.error().message);
    }
  }
  // What comes out of the tunnel is clamped to its MTU, which follows the network.
  if (routing_ && firewall_->config().mtu != routing_->plan().mtu) {
    FirewallConfig config = firewall_->config();
    config.mtu = routing_->plan().mtu;
    if (Status clamped = firewall_->Update(config); !clamped) {
      spdlog::error("the firewall does not follow the tunnel's MTU: {}", clamped.error().message);
    }
  }
  // Nobody's way is barred by the set without a kill switch; and a server of many peers has them come to it.
  if (!firewall_->config().has_deny() || conf_.peers.size() > kMaxFollowedPeers) return std::move(*repaired);
  std::vector<SocketAddress> endpoints;
  for (const auto& endpoint : endpoints_) {
    if (endpoint) endpoints.push_back(*endpoint);
  }
  for (const SocketAddress& endpoint : engine_->GetEndpoints()) {
    if (std::ranges::find(endpoints, endpoint) == endpoints.end()) endpoints.push_back(endpoint);
  }
  if (Status moved = firewall_->SetEndpoints(std::move(endpoints)); !moved) {
    spdlog::error("the firewall does not follow the endpoints: {}", moved.error().message);
  }
  return std::move(*repaired);
}

Outcome TunnelRun::ApplyRouting(const Plan& plan) {
  auto routing = Routing::Up(plan, files_.journal);
  if (!routing) return FailFrom(routing.error());
  routing_ = std::move(*routing);
  for (const std::string& warning : plan.warnings) Warn(warning);
  for (const std::string& finding : routing_->findings()) Warn(finding);
  WriteTableNames(name_, plan.specific_table, plan.catch_all_table);
  facts_.mtu = plan.mtu;
  for (const auto& address : conf_.interface.addresses) facts_.addresses.push_back(address.ToString());
  monitor_->Guard({.routing = routing_.get(),
                   .config = [this] { return Wanted(); },
                   .prepare_sockets = [this](const Plan& wanted) { return PrepareSockets(wanted); }});

  const auto is_bound = [this] { return engine_->GetEngine().is_up && engine_->GetDevice().listen_port != 0; };
  // The engine is told by netlink; between its messages the loop has to turn, hence the short naps.
  const auto deadline = std::chrono::steady_clock::now() + kBindTimeout;
  while (!is_bound() && !loop_.has_ended() && std::chrono::steady_clock::now() < deadline) {
    loop_.RunUntil(is_bound, kHandshakePoll);
  }
  if (auto fine = CheckNotEnded(); !fine) return fine;
  if (!is_bound()) {
    return FailWith(ExitCode::kFailure, "{}",
                    conf_.interface.listen_port.value_or(0) != 0
                        ? fmt::format("UDP port {} cannot be opened, another program has it; choose another ListenPort",
                                      *conf_.interface.listen_port)
                        : "no UDP port can be opened");
  }
  return {};
}

Outcome TunnelRun::WaitForHandshake(std::chrono::seconds wait) {
  // A peer without keepalives would stay silent until there is something to send.
  DeviceUpdate rouse, restore;
  for (const ConfPeer& peer : conf_.peers) {
    if (!peer.endpoint || peer.persistent_keepalive_seconds.value_or(0) != 0) continue;
    PeerUpdate update;
    update.public_key = peer.public_key;
    update.update_only = true;
    update.persistent_keepalive_seconds = kWaitKeepaliveSeconds;
    rouse.peers.push_back(update);
    update.persistent_keepalive_seconds = 0;
    restore.peers.push_back(update);
  }
  engine_->SetDevice(rouse);
  const auto has_handshake = [this] {
    return std::ranges::any_of(engine_->GetDevice().peers,
                               [](const PeerStatus& peer) { return peer.last_handshake.has_value(); });
  };
  const auto deadline = std::chrono::steady_clock::now() + wait;
  while (!has_handshake() && !loop_.has_ended() && std::chrono::steady_clock::now() < deadline) {
    loop_.RunUntil(has_handshake, kHandshakePoll);
  }
  engine_->SetDevice(restore);
  if (has_handshake()) return {};
  if (auto fine = CheckNotEnded(); !fine) return fine;
  return FailWith(ExitCode::kNoHandshake,
                  "no handshake within {} s: is the endpoint right, and does the peer know our key?", wait.count());
}

// The tunnel works without; what does not is in the status.
void TunnelRun::ApplyDns() {
  dns_ = std::make_unique<TunnelDns>(loop_, files_, ToDnsSettings(conf_, name_));
  dns_->Apply(dns_kind_, if_nametoindex(name_.c_str()));
  const DnsReport report = dns_->report();
  if (report.health == "degraded") PrintWarning(fmt::format("DNS: {}", report.detail));
}

RoutingConfig TunnelRun::Wanted() const {
  RoutingConfig config = ToRoutingConfig(conf_, endpoints_, name_);
  config.portal = portal_;
  if (mtu_) config.mtu_limit = mtu_->limit();
  return config;
}

// The way is there before the firewall opens, and the firewall closes before the way goes: packets of the user that
// meet only one of them are refused or go through the tunnel.
Status TunnelRun::SetPortal(std::optional<Portal> portal) {
  const std::optional<Portal> before = std::exchange(portal_, portal);
  const auto apply = [this]() -> Status {
    const auto plan = routing_->PlanAgain(Wanted());
    if (!plan) return std::unexpected(plan.error());
    const auto route = [&] { return routing_->Reload(*plan, [] { return Status(); }); };
    const auto filter = [&] { return firewall_ ? ReloadFirewall(*firewall_, Wanted(), *plan) : Status(); };
    if (portal_) {
      if (Status routed = route(); !routed) return routed;
      return filter();
    }
    const Status filtered = filter();
    const Status routed = route();
    return filtered ? routed : filtered;
  };
  const Status applied = apply();
  if (!applied && portal) {
    portal_ = before;
    if (Status back = apply(); !back) spdlog::error("the way past the tunnel: {}", back.error().message);
  }
  return applied;
}

// "" or " UID SECONDS".
std::string TunnelRun::OnPortalRequest(const std::string& words) {
  if (!was_up_ || loop_.has_ended()) return "the tunnel is not up yet";
  std::optional<Portal> wanted;
  if (!words.empty()) {
    std::istringstream in(words);
    Portal portal;
    if (!(in >> portal.uid >> portal.seconds) || portal.seconds == 0 || portal.seconds > kLongestPortalTime.count()) {
      return "that is no user id and number of seconds";
    }
    wanted = portal;
  }
  if (wanted && routing_->plan().loop_avoidance != LoopAvoidance::kRules) {
    return routing_->plan().loop_avoidance == LoopAvoidance::kAuto
               ? "this tunnel does not take all traffic: nothing needs to pass it by"
               : "a way past the tunnel for one user needs policy rules, which are not used here";
  }
  if (wanted) {
    // Answers come without the user's id, so a strict filter looks for the way back to their sender in the tunnel.
    const auto snapshot = SnapshotNow();
    const Route* const uplink = snapshot ? snapshot->Lookup(IpAddress(), kMainTable, name_) : nullptr;
    if (uplink != nullptr) {
      const auto filter_of = [&](const std::string& device) {
        return snapshot->Sysctl(fmt::format("net/ipv4/conf/{}/rp_filter", device), 0);
      };
      if (std::max(filter_of("all"), filter_of(uplink->device)) == 1) {
        return fmt::format(
            "the reverse path filter of {} drops the answers to who passes beside the tunnel: "
            "sysctl -w net.ipv4.conf.{}.rp_filter=2 makes it loose",
            uplink->device, uplink->device);
      }
    }
  }
  portal_end_.cancel();
  if (!wanted && !portal_) return "ok";
  if (const Status set = SetPortal(wanted); !set) return set.error().message;
  if (!wanted) {
    spdlog::info("the way past the tunnel is closed");
    return "ok";
  }
  spdlog::warn("programs of user {} pass beside the tunnel for {} s", wanted->uid, wanted->seconds);
  portal_end_.expires_after(std::chrono::seconds(wanted->seconds));
  portal_end_.async_wait([this](const boost::system::error_code& error) {
    if (error || loop_.has_ended()) return;
    if (const Status closed = SetPortal(std::nullopt); !closed) {
      spdlog::error("the way past the tunnel stays open: {}", closed.error().message);
    } else {
      spdlog::info("the way past the tunnel is closed: its time is over");
    }
  });
  std::string answer = "ok";
  for (const auto& server : names_.Settings().servers) answer += " " + server.ip.ToString();
  return answer;
}

Outcome TunnelRun::BringUp(const std::optional<std::chrono::seconds>& wait) {
  for (const std::string& warning : facts_.warnings) PrintWarning(warning);
  if (auto done = TakeName(); !done) return done;
  if (auto done = OpenDevice(); !done) return done;
  if (auto ran = RunHooks(loop_, HookPhase::kPreUp, conf_.interface.pre_up, name_); !ran) {
    if (auto fine = CheckNotEnded(); !fine) return fine;
    return FailWith(ExitCode::kFailure, "{}", ran.error().message);
  }
  if (auto done = Configure(); !done) {
    if (auto fine = CheckNotEnded(); !fine) return fine;
    return done;
  }
  ApplyDns();
  if (auto ran = RunHooks(loop_, HookPhase::kPostUp, conf_.interface.post_up, name_); !ran) {
    if (auto fine = CheckNotEnded(); !fine) return fine;
    return FailWith(ExitCode::kFailure, "{}", ran.error().message);
  }
  post_up_has_run_ = true;
  if (wait) {
    if (auto done = WaitForHandshake(*wait); !done) return done;
  }
  if (auto fine = CheckNotEnded(); !fine) return fine;
  was_up_ = true;
  facts_.state = "up";
  return {};
}

void TunnelRun::Serve() {
  while (!loop_.has_ended()) {
    const bool looks = firewall_ || routing_->plan().loop_avoidance != LoopAvoidance::kAuto || mtu_->WantsLooks();
    loop_.RunUntil([this] { return reload_is_wanted_; }, looks ? kLookInterval : Duration::max());
    if (!loop_.has_ended() && looks) FollowRoaming();
    // The LAN is looked at when an event says so.
    if (!loop_.has_ended()) LookAfterFirewall(/*thoroughly=*/false, /*looks_at_lan=*/false);
    if (!loop_.has_ended() && looks) mtu_->Look();
    if (!std::exchange(reload_is_wanted_, false) || loop_.has_ended()) continue;
    const Status reloaded = Reload();
    if (!reloaded) spdlog::error("{}", reloaded.error().message);
    control_->AnswerReloads(reloaded ? "ok" : reloaded.error().message);
  }
}

// For a name that cannot be looked up now: it is asked for again from where the peer is.
EndpointAddresses TunnelRun::WhereItIs(const ConfPeer& peer) const {
  const auto device = engine_->GetDevice();
  const auto at = std::ranges::find(device.peers, peer.public_key, &PeerStatus::public_key);
  if (at == device.peers.end() || !at->endpoint) return {};
  return {true, {at->endpoint->ip}, Duration(0)};
}

Status TunnelRun::SetMark(std::uint32_t mark) {
  DeviceUpdate update;
  update.fwmark = mark;
  if (const int error = engine_->SetDevice(update); error != 0) {
    return FailErrno(error, "cannot give the sockets the mark {:#x}: {}", mark, std::strerror(error));
  }
  if (keeper_) keeper_->SetMark(mark);
  return {};
}

// Before the tunnel's routes rely on it. Once bound the sockets stay so, which does no harm where nothing relies on it.
Status TunnelRun::BindToUplink(const Plan& plan) {
  if (plan.loop_avoidance != LoopAvoidance::kBind || uplink_follower_) return {};
  auto follower =
      UplinkFollower::Start(loop_.io(), uplinks_,
                            {.look = [this] { return routing_ ? routing_->NetworkWithoutUs() : SnapshotNow(); },
                             .on_changed = [this] { engine_->OnUplinksChanged(); }});
  if (!follower) return std::unexpected(follower.error());
  uplink_follower_ = std::move(*follower);
  monitor_->OnNetworkEvent([this] { uplink_follower_->OnNetworkEvent(); });
  return {};
}

void TunnelRun::ReleaseUplink() {
  monitor_->OnNetworkEvent({});
  uplink_follower_.reset();
  uplinks_->Release();
}

Status TunnelRun::PrepareSockets(const Plan& plan) {
  if (Status bound = BindToUplink(plan); !bound) return bound;
  return SetMark(SocketMark(plan));
}

// The firewall of a file read again: changed, or raised where there was none.
Status TunnelRun::FollowFirewall(const RoutingConfig& config, const Plan& plan) {
  if (firewall_) return ReloadFirewall(*firewall_, config, plan);
  if (auto raised = RaiseFirewallFor(config, plan); !raised) return Fail("{}", raised.error().message);
  return {};
}

// All of it, or nothing: the routing is planned before the device changes, and the device goes back if the routing
// cannot follow.
Status TunnelRun::Reload() {
  const auto stays = [](std::string_view why) { return Fail("not reloaded, everything stays as it is: {}", why); };
  auto loaded = LoadConf(file_);
  if (!loaded) return stays(loaded.error().message);
  // One name that does not resolve now must not keep the rest from being reloaded: that peer keeps its endpoint.
  std::vector<std::optional<SocketAddress>> endpoints;
  std::vector<EndpointAddresses> found;
  for (const ConfPeer& peer : loaded->conf.peers) {
    std::vector<EndpointAddresses> one;
    auto resolved = ResolveEndpoints(loop_, {peer}, 0, names_, &one);
    if (loop_.has_ended()) return Fail("stopped");
    if (!resolved) spdlog::warn("{}; the peer keeps the endpoint it has", resolved.error().message);
    endpoints.push_back(resolved ? resolved->front() : std::nullopt);
    found.push_back(resolved ? one.front() : WhereItIs(peer));
  }
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    const auto old = std::ranges::find(conf_.peers, loaded->conf.peers[i].public_key, &ConfPeer::public_key);
    if (!endpoints[i] && loaded->conf.peers[i].endpoint && old != conf_.peers.end()) {
      endpoints[i] = endpoints_[static_cast<std::size_t>(old - conf_.peers.begin())];
    }
  }

  RoutingConfig wanted = ToRoutingConfig(loaded->conf, endpoints, name_);
  wanted.portal = portal_;
  wanted.mtu_limit = mtu_->limit();  // until the new paths are known
  // Both ways at once, for the moment of a change, would be a third one.
  const LoopAvoidance in_force = routing_->plan().loop_avoidance;
  if (wanted.loop_avoidance != LoopAvoidance::kAuto && in_force != LoopAvoidance::kAuto &&
      wanted.loop_avoidance != in_force) {
    return stays(
        fmt::format("LoopAvoidance = {} is not possible while {} is in force; `adit down` and `adit up` apply it",
                    ToString(wanted.loop_avoidance), ToString(in_force)));
  }
  const auto plan = routing_->PlanAgain(wanted);
  if (!plan) return stays(plan.error().message);
  const std::uint32_t old_mark = SocketMark(routing_->plan());
  // What refuses more comes before anything else changes, what refuses less after it: at every moment only that leaves
  // which the old or the new file lets out. In between both stand.
  const bool had_firewall = firewall_ != nullptr;
  const FirewallConfig old_firewall = had_firewall ? firewall_->config() : FirewallConfig{};
  const bool closes = old_firewall.kill_switch == KillSwitch::kOff && wanted.kill_switch != KillSwitch::kOff;
  RoutingConfig strict = wanted;
  if (strict.kill_switch == KillSwitch::kOff) strict.kill_switch = old_firewall.kill_switch;
  strict.dns_guard |= old_firewall.dns_guard;
  const bool opens = strict.kill_switch != wanted.kill_switch || strict.dns_guard != wanted.dns_guard;
  if (WantsFirewall(strict)) {
    if (Status followed = FollowFirewall(strict, *plan); !followed) return stays(followed.error().message);
  }
  const auto firewall_goes_back = [&] {
    Status back;
    if (!had_firewall && firewall_) {
      back = firewall_->Discard();
      firewall_.reset();
    } else if (had_firewall) {
      const auto snapshot = SnapshotNow();
      back = snapshot ? firewall_->Reload(old_firewall, *snapshot) : std::unexpected(snapshot.error());
    }
    if (!back) spdlog::error("the firewall does not go back: {}", back.error().message);
  };
  const DeviceUpdate update = MakeSyncUpdate(ToDeviceUpdate(loaded->conf, endpoints), engine_->GetDevice());
  if (const int error = engine_->SetDevice(update); error != 0) {
    firewall_goes_back();
    return stays(std::strerror(error));
  }
  const std::uint32_t mark = SocketMark(*plan);
  // Neither unmarked sockets nor ones that go by the routing table may meet what counts on something else.
  Status routed = BindToUplink(*plan);
  if (routed && old_mark == 0 && mark != 0) routed = SetMark(mark);
  if (routed) {
    routed = routing_->Reload(*plan, [&]() -> Status { return mark == old_mark ? Status() : SetMark(mark); });
  }
  if (!routed) {
    DeviceUpdate back = MakeSyncUpdate(ToDeviceUpdate(conf_, endpoints_), engine_->GetDevice());
    back.fwmark = old_mark;
    engine_->SetDevice(back);
    if (in_force != LoopAvoidance::kBind) ReleaseUplink();
    firewall_goes_back();
    return stays(routed.error().message);
  }
  if (plan->loop_avoidance != LoopAvoidance::kBind) ReleaseUplink();
  for (const std::string& warning : plan->warnings) spdlog::warn("{}", warning);
  const bool has_other_dns = conf_.interface.dns_servers != loaded->conf.interface.dns_servers ||
                             conf_.interface.dns_search_domains != loaded->conf.interface.dns_search_domains;
  for (const ConfPeer& peer : loaded->conf.peers) {
    if (!peer.name.empty()) facts_.peer_names[peer.public_key] = peer.name;
  }
  conf_ = std::move(loaded->conf);
  endpoints_ = std::move(endpoints);
  if (has_other_dns) {
    if (Status removed = dns_->Remove(); !removed) spdlog::warn("the DNS from before: {}", removed.error().message);
    ApplyDns();
  }
  Status opened;
  if (firewall_ && !WantsFirewall(wanted)) {
    opened = firewall_->Discard();
    if (opened) firewall_.reset();
  } else if (opens) {
    opened = FollowFirewall(wanted, *plan);
  }
  if (closes) EndOldFlows(wanted);
  LookAfterFirewall();  // endpoints may have roamed from where the file says
  FollowPaths();
  keeper_->Watch(conf_.peers, found);
  WriteTableNames(name_, plan->specific_table, plan->catch_all_table);
  facts_.addresses.clear();
  for (const auto& address : conf_.interface.addresses) facts_.addresses.push_back(address.ToString());
  monitor_->Verify();
  for (const std::string& finding : routing_->findings()) spdlog::warn("{}", finding);
  if (!opened) return Fail("reloaded, but the firewall stays as it was: {}", opened.error().message);
  spdlog::info("reloaded {} peers from {}", conf_.peers.size(), file_);
  return {};
}

// What cannot be read stays as the file has it.
ConfFile TunnelRun::WithLinkStateNow(ConfFile conf) const {
  const auto snapshot = SnapshotNow();
  const Link* const link = snapshot ? snapshot->FindLink(name_) : nullptr;
  if (link == nullptr) return conf;
  std::vector<InterfaceAddress> addresses;
  for (const LinkAddress& one : snapshot->addresses) {
    if (one.device == name_) addresses.push_back(one.address);
  }
  return WithLinkState(std::move(conf), addresses, link->mtu);
}

Status TunnelRun::TakeDown() {
  facts_.state = "stopping";
  Status result;
  const auto note = [&result](const Status& status) {
    if (status) return;
    spdlog::error("{}", status.error().message);
    if (result) result = status;
  };
  const bool link_is_gone = loop_.end() == End::kLinkRemoved;
  // Also after a start that failed later, or what PostUp made would stay. As in wg-quick, a PostUp that fails cleans up
  // after itself.
  if (post_up_has_run_ && !link_is_gone) note(RunHooks(loop_, HookPhase::kPreDown, conf_.interface.pre_down, name_));
  if (was_up_ && conf_.interface.save_config) {
    DeviceStatus device = engine_->GetDevice();
    // A mark that the rules needed is not the file's.
    if (!conf_.interface.fwmark) device.fwmark = 0;
    note(SaveConf(WithLinkStateNow(WithDeviceStatus(conf_, device)), file_));
  }
  mtu_.reset();
  keeper_.reset();
  if (dns_) note(dns_->Remove());
  dns_.reset();
  monitor_.reset();
  uplink_follower_.reset();
  if (routing_) {
    note(routing_->Down());
    RemoveTableNames(name_);
  }
  routing_.reset();
  uapi_.reset();
  engine_.reset();
  if (firewall_) note(firewall_->Down());
  firewall_.reset();
  if (post_up_has_run_) note(RunHooks(loop_, HookPhase::kPostDown, conf_.interface.post_down, name_));
  if (control_) control_->AnswerStops(result ? "ok" : result.error().message);
  control_.reset();
  lock_.reset();
  return result;
}

}  // namespace

Outcome RunUp(const UpCommand& command) {
  auto target = ResolveTarget(command.target);
  if (!target) return std::unexpected(target.error());
  const auto environment = ParseEnvironment([](const char* name) -> const char* { return std::getenv(name); });
  if (!environment) return FailWith(ExitCode::kUsage, "{}", environment.error().message);
  if (const auto ensured = EnsureDescriptors(); !ensured) {
    return FailWith(ExitCode::kEnvironment, "{}", ensured.error().message);
  }
  auto settings = EngineSettingsFromEnvironment();
  if (!settings) return FailWith(ExitCode::kUsage, "{}", settings.error().message);
  const auto dns_kind = DnsKindFromEnvironment();
  if (!dns_kind) return FailWith(ExitCode::kUsage, "{}", dns_kind.error().message);
  const auto stale_handshake = StaleHandshakeFromEnvironment();
  if (!stale_handshake) return FailWith(ExitCode::kUsage, "{}", stale_handshake.error().message);
  InitializeCrypto();
  auto loaded = LoadConf(target->file);
  if (!loaded) return std::unexpected(loaded.error());

  Readiness readiness;
  if (!command.foreground) {
    auto background = GoToBackground();
    if (!background) return FailFrom(background.error());
    readiness = std::move(*background);
  }
  SetUpLog(target->interface_name, environment->log_level);
  for (const std::string& warning : environment->warnings) spdlog::warn("{}", warning);

  TunnelRun run(std::move(*target), std::move(*loaded), std::move(*settings), *dns_kind, *stale_handshake);
  Outcome up = run.BringUp(command.wait);
  if (up) {
    const char* log_file = std::getenv("WG_LOG_FILE");
    if (const auto announced = readiness.Announce(log_file != nullptr ? log_file : ""); !announced) {
      up = FailWith(ExitCode::kFailure, "{}", announced.error().message);
    }
  }
  if (!up) {
    if (const auto down = run.TakeDown(); !down) {
      up.error().message += fmt::format("; and it could not all be undone: {}", down.error().message);
    }
    return up;
  }
  spdlog::info("{} is up", command.target);
  run.Serve();
  if (auto down = run.TakeDown(); !down) return FailWith(ExitCode::kFailure, "{}", down.error().message);
  return {};
}

}  // namespace adit
