#include "engine/engine.h"

#include <spdlog/spdlog.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <set>
#include <utility>

#include "base/check.h"
#include "engine/clock.h"
#include "engine/data_plane.h"
#include "engine/fd_watch.h"
#include "engine/link_watch.h"
#include "tunnel/messages.h"
#include "tunnel/tunnel.h"

namespace adit {
namespace {

// Handshake messages handled in one turn of the control thread, about a millisecond's worth: timers and configuration
// never wait longer behind a flood.
constexpr std::size_t kHandshakesPerTurn = 16;
// Between attempts to bind a port that was busy when the link came up.
constexpr Duration kBindRetryInterval = 2s;
// Between looks whether the data threads have let go of sockets that were given up.
constexpr Duration kCloseInterval = 2ms;

// A timer on the clock that goes on during suspend, so that a laptop's keys are dead when it wakes.
class BootTimer {
 public:
  static Result<BootTimer> Open() {
    Fd fd(timerfd_create(CLOCK_BOOTTIME, TFD_NONBLOCK | TFD_CLOEXEC));
    if (!fd) return FailDescriptor(errno, "a timerfd");
    return BootTimer(std::move(fd));
  }
  int fd() const { return fd_.get(); }
  void Set(std::optional<Instant> at) {
    if (at == set_to_) return;
    set_to_ = at;
    itimerspec spec{};
    if (at) {
      const auto since_boot = std::max(at->time_since_epoch(), Duration(1));
      spec.it_value.tv_sec = since_boot.count() / 1'000'000'000;
      spec.it_value.tv_nsec = since_boot.count() % 1'000'000'000;
    }
    CHECK(timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &spec, nullptr) == 0);
  }
  void Acknowledge() {
    std::uint64_t expirations;
    [[maybe_unused]] const auto got = read(fd_.get(), &expirations, sizeof expirations);
    set_to_.reset();
  }

 private:
  explicit BootTimer(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
  std::optional<Instant> set_to_;
};

}  // namespace

class Engine::Impl {
 public:
  Impl(boost::asio::io_context& control, std::unique_ptr<TunDevice> tun, const EngineOptions& options,
       AeadBackend backend, Bell control_bell, BootTimer timer, std::function<void(EngineEnd)> on_end)
      : control_(control),
        tun_(std::move(tun)),
        options_(options),
        on_end_(std::move(on_end)),
        plane_(options.limits, *tun_, backend, options.disturb, std::move(control_bell)),
        tunnel_(plane_.exchange, random_, BootNow()),
        timer_(std::move(timer)) {}

  ~Impl() {
    plane_.is_stopping.store(true);
    inbound_.reset();
    outbound_.clear();
  }

  Status Start() {
    if (Status status = WatchLink(); !status) return status;
    if (auto watch = NetworkWatch::Open()) {
      network_watch_ = std::move(*watch);
    } else {
      return std::unexpected(watch.error());
    }
    if (auto lookup = LinkLookup::Open()) {
      link_lookup_ = std::move(*lookup);
    } else {
      return std::unexpected(lookup.error());
    }
    const auto watch = [this](std::unique_ptr<FdWatch>& into, int fd, auto on_ready) -> Status {
      auto opened = FdWatch::Open(control_, fd, std::move(on_ready));
      if (!opened) return std::unexpected(opened.error());
      into = std::move(*opened);
      return {};
    };
    if (auto sleep_watch = SleepWatch::Open(options_.time_asleep)) {
      sleep_watch_.emplace(std::move(*sleep_watch));
    } else {
      return std::unexpected(sleep_watch.error());
    }
    // All that can fail comes before the first thread.
    if (Status status = watch(bell_fd_, plane_.control_bell.fd(), [this] { OnBell(); }); !status) return status;
    if (Status status = watch(timer_fd_, timer_.fd(), [this] { OnTimer(); }); !status) return status;
    if (Status status = watch(network_fd_, network_watch_->fd(), [this] { OnNetworkChanged(); }); !status)
      return status;
    if (Status status = watch(sleep_fd_, sleep_watch_->fd(), [this] { LookForSleep(); }); !status) return status;
    std::vector<Bed> beds;
    for (unsigned path = 0; path <= tun_->queue_count(); ++path) {
      auto bed = Bed::Open();
      if (!bed) return std::unexpected(bed.error());
      if (path < tun_->queue_count()) {
        if (Status status = bed->poller.Add(tun_->queue_fd(path)); !status) return status;
      }
      beds.push_back(std::move(*bed));
    }
    const unsigned threads =
        options_.threads != 0 ? options_.threads : DefaultThreads(std::thread::hardware_concurrency());
    for (unsigned queue = 0; queue < tun_->queue_count(); ++queue) {
      outbound_.push_back(std::make_unique<OutboundPath>(plane_, queue, std::max(1u, threads / tun_->queue_count()),
                                                         std::move(beds[queue])));
    }
    inbound_ = std::make_unique<InboundPath>(plane_, *outbound_.front(), threads, std::move(beds.back()));
    OnLinkNews();
    return {};
  }

  DeviceStatus GetDevice() const {
    DeviceStatus status;
    status.private_key = tunnel_.private_key();
    status.listen_port = sockets_ ? sockets_->port() : wanted_port_;
    status.fwmark = fwmark_;
    for (PeerView& view : tunnel_.View()) {
      PeerStatus& peer = status.peers.emplace_back();
      peer.public_key = view.public_key;
      peer.preshared_key = view.preshared_key;
      peer.endpoint = view.endpoint;
      peer.last_handshake = view.last_handshake;
      peer.rx_bytes = view.rx_bytes;
      peer.tx_bytes = view.tx_bytes;
      peer.persistent_keepalive_seconds = static_cast<std::uint16_t>(view.persistent_keepalive / 1s);
      peer.allowed_ips = std::move(view.allowed_ips);
    }
    return status;
  }

  int SetDevice(const DeviceUpdate& update) {
    if (!FitsPeerLimit(update)) return ENOSPC;
    if (const int error = ApplySockets(update.listen_port, update.fwmark); error != 0) return error;
    // From here on nothing can fail.
    const Now now = BothNow();
    if (update.private_key) tunnel_.SetPrivateKey(*update.private_key, now, outbox_);
    if (update.replace_peers) RemovePeersNotIn(update);
    for (const PeerUpdate& peer : update.peers) ApplyPeer(peer, now);
    tunnel_.Publish();
    CarryOut();
    return 0;
  }

  std::optional<PeerReach> GetReach(const PublicKey& key) const {
    if (!tunnel_.HasPeer(key)) return std::nullopt;
    return tunnel_.ReachOf(key);
  }

  std::vector<SocketAddress> GetEndpoints() const { return tunnel_.Endpoints(); }

  void Redirect(const PublicKey& key, const SocketAddress& remote) {
    if (!tunnel_.HasPeer(key)) return;
    tunnel_.Redirect(key, remote, BothNow(), outbox_);
    CarryOut();
  }

  void OnUplinksChanged() { FollowNetwork(); }

  EngineStatus GetEngine() const {
    EngineStatus status;
    status.interface_name = tun_->name();
    status.is_up = tunnel_.is_up();
    status.aead = plane_.aead;
    status.tun_offloads = tun_->offloads();
    status.udp_gso = sockets_ && sockets_->gso_enabled();
    status.udp_gro = sockets_ && sockets_->gro_enabled();
    status.degrade_count = tun_->degrade_count() + (sockets_ ? sockets_->degrade_count() : 0);
    for (std::size_t i = 0; i < kDropReasonCount; ++i) {
      const auto reason = static_cast<DropReason>(i);
      if (const auto count = plane_.exchange.drops.Get(reason); count > 0) {
        status.drops.emplace_back(Name(reason), count);
      }
    }
    const auto add = [&status](const std::string& prefix, const DataCounters& counters) {
      status.counters.emplace_back(prefix + "_reads", counters.reads.load(std::memory_order_relaxed));
      status.counters.emplace_back(prefix + "_packets", counters.packets.load(std::memory_order_relaxed));
      status.counters.emplace_back(prefix + "_writes", counters.writes.load(std::memory_order_relaxed));
      status.counters.emplace_back(prefix + "_errors", counters.errors.load(std::memory_order_relaxed));
    };
    for (std::size_t i = 0; i < outbound_.size(); ++i) {
      add(outbound_.size() == 1 ? "outbound" : fmt::format("outbound{}", i), outbound_[i]->counters());
    }
    add("inbound", inbound_->counters());
    const HandshakeCounts& handshakes = tunnel_.handshake_counts();
    status.counters.emplace_back("handshake_initiations_sent", handshakes.initiations_sent);
    status.counters.emplace_back("handshake_responses_sent", handshakes.responses_sent);
    status.counters.emplace_back("handshake_cookie_replies_sent", handshakes.cookie_replies_sent);
    status.counters.emplace_back("handshake_cookies_received", handshakes.cookies_received);
    status.counters.emplace_back("handshakes_completed", handshakes.completed);
    return status;
  }

 private:
  // ---- configuration

  bool FitsPeerLimit(const DeviceUpdate& update) const {
    std::size_t added = 0;
    for (const PeerUpdate& peer : update.peers) {
      const bool is_there = !update.replace_peers && tunnel_.HasPeer(peer.public_key);
      added += !peer.remove && !peer.update_only && !is_there;
    }
    return (update.replace_peers ? 0 : tunnel_.peer_count()) + added <= kMaxPeers;
  }

  // The new sockets stand before the old ones go: a busy port leaves the device as it was.
  int ApplySockets(std::optional<std::uint16_t> port, std::optional<std::uint32_t> fwmark) {
    // A reload without ListenPort must not move a port that was ours to choose: NAT mappings hang on it. Nor is the
    // port busy if it is we who have it.
    const bool keeps_port = !port || (sockets_ && (*port == wanted_port_ || *port == sockets_->port()));
    const std::uint32_t mark = fwmark.value_or(fwmark_);
    if (!keeps_port) {
      auto opened = *port == 0 && wanted_port_ == 0 ? OpenAnyPort(mark) : OpenSockets(*port, mark);
      if (!opened) {
        spdlog::error("{}", opened.error().message);
        return opened.error().code != 0 ? opened.error().code : EADDRINUSE;
      }
      UseSockets(std::move(*opened));
    } else if (fwmark && mark != fwmark_ && sockets_) {
      if (const Status set = sockets_->SetMark(mark); !set) {
        spdlog::error("{}", set.error().message);
        return set.error().code != 0 ? set.error().code : EPERM;
      }
    }
    if (port) wanted_port_ = *port;
    if (mark != fwmark_) tunnel_.ForgetSources();
    fwmark_ = mark;
    return 0;
  }

  // The port we had last, if it is still free.
  Result<std::shared_ptr<UdpSockets>> OpenAnyPort(std::uint32_t mark) {
    if (last_port_ != 0) {
      if (auto opened = OpenSockets(last_port_, mark)) return opened;
    }
    return OpenSockets(0, mark);
  }

  Result<std::shared_ptr<UdpSockets>> OpenSockets(std::uint16_t port, std::uint32_t mark) {
    // Sockets we gave up stay open until the data threads have heard of it, which under load takes milliseconds: who
    // takes a link down and up again would find its port busy with ourselves.
    const auto ours = std::ranges::find_if(given_up_, [port](const auto& sockets) { return sockets->port() == port; });
    if (ours != given_up_.end()) {
      if (const Status set = (*ours)->SetMark(mark); !set) return std::unexpected(set.error());
      return *ours;
    }
    return UdpSockets::Open(port, mark, options_.udp, options_.udp_calls);
  }

  void UseSockets(std::shared_ptr<UdpSockets> sockets) {
    if (sockets_) given_up_.push_back(sockets_);
    sockets_ = std::move(sockets);
    std::erase(given_up_, sockets_);
    if (sockets_) last_port_ = sockets_->port();
    plane_.exchange.own_port.store(sockets_ ? sockets_->port() : 0, std::memory_order_relaxed);
    plane_.sockets.Publish(std::make_shared<SocketSet>(SocketSet{sockets_}));
    inbound_->Wake();
    for (const auto& path : outbound_) path->Wake();
    tunnel_.ForgetSources();
    SetTimer();
  }

  // Closes what no data thread holds any more. Here and not in the thread that lets go last, so that a port is either
  // in given_up_ or free.
  void CloseGivenUp() {
    std::erase_if(given_up_, [](const auto& sockets) { return sockets.use_count() == 1; });
  }

  // Peers that stay keep their sessions: only those the update does not name go.
  void RemovePeersNotIn(const DeviceUpdate& update) {
    std::set<PublicKey> named;
    for (const PeerUpdate& peer : update.peers) named.insert(peer.public_key);
    for (const PeerView& view : tunnel_.View()) {
      if (!named.contains(view.public_key)) tunnel_.RemovePeer(view.public_key);
    }
    for (const PublicKey& key : named) {
      if (tunnel_.HasPeer(key)) ResetPeer(key);
    }
  }

  // What a peer that was replaced must not inherit.
  void ResetPeer(const PublicKey& key) {
    tunnel_.DisallowAllIps(key);
    tunnel_.SetPresharedKey(key, PresharedKey());
    tunnel_.SetPersistentKeepalive(key, Duration::zero(), BothNow(), outbox_);
  }

  void ApplyPeer(const PeerUpdate& update, Now now) {
    const PublicKey& key = update.public_key;
    if (update.remove) return tunnel_.RemovePeer(key);
    // Not added: our own key, which is ignored as the reference does it.
    if (!tunnel_.HasPeer(key) && (update.update_only || !tunnel_.AddPeer(key))) return;
    if (update.preshared_key) tunnel_.SetPresharedKey(key, *update.preshared_key);
    if (update.endpoint) tunnel_.SetEndpoint(key, *update.endpoint);
    if (update.replace_allowed_ips) tunnel_.DisallowAllIps(key);
    for (const AllowedIpChange& change : update.allowed_ips) {
      if (change.remove) {
        tunnel_.DisallowIp(key, change.prefix);
      } else {
        tunnel_.AllowIp(key, change.prefix);
      }
    }
    if (update.persistent_keepalive_seconds) {
      tunnel_.SetPersistentKeepalive(key, std::chrono::seconds(*update.persistent_keepalive_seconds), now, outbox_);
    }
    if (tunnel_.is_up()) tunnel_.SendWaiting(key, outbox_);
  }

  // ---- events of the control thread

  void OnBell() {
    plane_.control_bell.Silence();
    if (plane_.is_tun_gone.load()) OnLinkNews();
    const Now now = BothNow();
    tunnel_.HandleInbox(now, outbox_);
    handshakes_.clear();
    const std::size_t depth = plane_.handshakes.Take(kHandshakesPerTurn, handshakes_);
    tunnel_.HandleHandshakes(handshakes_, depth, now, outbox_);
    CarryOut();
    // The rest after whoever else waits.
    if (depth > handshakes_.size() || !plane_.exchange.inbox.empty()) plane_.control_bell.Ring();
  }

  // Whoever comes first after a sleep: the kernel does not promise an order.
  void LookForSleep() {
    if (!sleep_watch_->HasSlept()) return;
    spdlog::debug("{}: the machine was suspended", tun_->name());
    tunnel_.OnResumed(BothNow(), outbox_);
    CarryOut();
  }

  void OnTimer() {
    LookForSleep();
    timer_.Acknowledge();
    CloseGivenUp();
    const Now now = BothNow();
    if (bind_retry_at_ && *bind_retry_at_ <= now.boot) {
      bind_retry_at_.reset();
      if (tunnel_.is_up() && !sockets_) BindForUp();
    }
    tunnel_.HandleTimeouts(now, outbox_);
    CarryOut();
  }

  void OnNetworkChanged() {
    const WatchNews news = network_watch_->Process();
    LookForSleep();
    if (news.rules) tunnel_.ForgetLinks();
    if (news.places) FollowNetwork();
  }

  // Addresses or routes changed: what we know of our own addresses may be wrong, what we know of the peers' is not.
  void FollowNetwork() {
    // Most peers write to the same address of ours.
    const auto find_links = [this, asked = IpAddress(), home = std::uint32_t{0}](const Endpoint& path) mutable {
      const IpAddress& source = path.source.ip;
      const auto forced = options_.udp.choose_link ? options_.udp.choose_link(path.remote.ip) : std::nullopt;
      LinksOfPath links{.route = forced ? *forced : link_lookup_->RouteTo(path.remote.ip, source, fwmark_)};
      // Where nothing is out of the ordinary one question is enough.
      if (path.source.is_set() && links.route != path.source.interface_index) {
        if (source != asked) home = link_lookup_->HomeOf(source), asked = source;
        links.home = home;
      }
      return links;
    };
    tunnel_.OnNetworkChanged(BothNow(), find_links, outbox_);
    CarryOut();
  }

  void CarryOut() {
    send_runs_.clear();
    for (const OutgoingHandshake& handshake : outbox_.to_network) {
      const Bytes message = handshake.datagram.message();
      send_runs_.push_back(SendRun{message, message.size(), handshake.to, handshake.tos});
    }
    send_outcomes_.assign(send_runs_.size(), SendOutcome{});
    if (sockets_ && !send_runs_.empty()) sockets_->Send(send_runs_, BootNow(), send_outcomes_);
    for (std::size_t i = 0; i < send_outcomes_.size(); ++i) {
      tunnel_.OnSent(outbox_.to_network[i], send_outcomes_[i].datagrams_sent == 1, send_outcomes_[i].clear_source);
    }
    for (const LinkQuestion& question : outbox_.to_find) {
      const Endpoint& path = question.path;
      tunnel_.OnLinkFound(question, link_lookup_->RouteTo(path.remote.ip, path.source.ip, fwmark_));
    }
    outbound_.front()->Request(outbox_.to_flush);
    outbox_.Clear();
    SetTimer();
  }

  void SetTimer() {
    if (has_ended_) return timer_.Set(std::nullopt);
    auto next = tunnel_.NextTimeout();
    const auto not_later_than = [&next](Instant at) { next = next ? std::min(*next, at) : at; };
    if (bind_retry_at_) not_later_than(*bind_retry_at_);
    if (!given_up_.empty()) not_later_than(BootNow() + kCloseInterval);
    timer_.Set(next);
  }

  // ---- the link

  // The link may live in another network namespace than we do, and a netlink socket hears of one only.
  Status WatchLink() {
    Fd other;
    if (auto fd = tun_->NetworkNamespaceFd()) other = Fd(*fd);
    auto watch = LinkWatch::Open(other.get(), tun_->name());
    if (!watch) return std::unexpected(watch.error());
    link_fd_.reset();
    link_watch_ = std::move(*watch);
    link_watch_->Process();
    auto link_fd = FdWatch::Open(control_, link_watch_->fd(), [this] {
      // Not within the watch's own handler: OnLinkNews may replace it.
      boost::asio::post(control_, [this, alive = std::weak_ptr<int>(alive_)] {
        if (!alive.expired()) OnLinkNews();
      });
      link_watch_->Process();
    });
    if (!link_fd) return std::unexpected(link_fd.error());
    link_fd_ = std::move(*link_fd);
    return {};
  }

  void OnLinkNews() {
    if (has_ended_) return;
    link_watch_->Process();
    if (!link_watch_->state().exists || plane_.is_tun_gone.load()) {
      // Gone from where it was: deleted, or moved to another network namespace.
      const auto mtu = tun_->Mtu();
      if (!mtu || plane_.is_tun_gone.load() || !WatchLink()) return End();
      if (!link_watch_->state().exists) return End();
      spdlog::debug("{} was moved to another network namespace", tun_->name());
    }
    const LinkState& state = link_watch_->state();
    if (state.mtu != plane_.exchange.mtu.exchange(state.mtu, std::memory_order_relaxed) && state.mtu > 0) {
      // One super-packet read is then one send, one receive and one write at the other end: a larger one would leave a
      // runt of two or three segments behind each time.
      link_watch_->LimitSegments(std::max(1u, static_cast<unsigned>(kMaxGsoBytes / (state.mtu + kDataOverhead))));
    }
    if (state.is_up != tunnel_.is_up()) SetUp(state.is_up);
  }

  void SetUp(bool up) {
    spdlog::debug("{} is {}", tun_->name(), up ? "up" : "down");
    if (up && !sockets_) BindForUp();
    tunnel_.SetUp(up, BothNow(), outbox_);
    CarryOut();
    if (!up && sockets_) UseSockets(nullptr);
  }

  void BindForUp() {
    auto opened = wanted_port_ == 0 ? OpenAnyPort(fwmark_) : OpenSockets(wanted_port_, fwmark_);
    if (opened) {
      bind_error_.clear();
      return UseSockets(std::move(*opened));
    }
    // One line, not one every attempt.
    if (bind_error_ != opened.error().message) {
      bind_error_ = opened.error().message;
      spdlog::error("{}; trying again every {} s", bind_error_, kBindRetryInterval / 1s);
    }
    bind_retry_at_ = BootNow() + kBindRetryInterval;
  }

  void End() {
    has_ended_ = true;
    tunnel_.SetUp(false, BothNow(), outbox_);
    outbox_.Clear();
    SetTimer();
    boost::asio::post(control_, [on_end = on_end_] { on_end(EngineEnd::kLinkRemoved); });
  }

  boost::asio::io_context& control_;
  const std::unique_ptr<TunDevice> tun_;
  const EngineOptions options_;
  const std::function<void(EngineEnd)> on_end_;
  SystemRandom random_;
  DataPlane plane_;
  Tunnel tunnel_;
  ControlOutbox outbox_;
  std::vector<HandshakeDatagram> handshakes_;
  std::vector<SendRun> send_runs_;  // one each of the outbox's messages
  std::vector<SendOutcome> send_outcomes_;
  std::vector<std::unique_ptr<OutboundPath>> outbound_;
  std::unique_ptr<InboundPath> inbound_;

  std::shared_ptr<UdpSockets> sockets_;
  std::uint16_t wanted_port_ = 0;  // 0: any
  std::uint16_t last_port_ = 0;    // the one we had last
  std::uint32_t fwmark_ = 0;
  std::optional<Instant> bind_retry_at_;
  std::string bind_error_;                             // of the last attempt that failed
  std::vector<std::shared_ptr<UdpSockets>> given_up_;  // until the data threads let go of them

  BootTimer timer_;
  std::unique_ptr<LinkWatch> link_watch_;
  std::unique_ptr<NetworkWatch> network_watch_;
  std::unique_ptr<LinkLookup> link_lookup_;
  std::optional<SleepWatch> sleep_watch_;
  bool has_ended_ = false;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
  std::unique_ptr<FdWatch> bell_fd_, timer_fd_, link_fd_, network_fd_,
      sleep_fd_;  // last: their handlers use all of the above
};

Result<std::unique_ptr<Engine>> Engine::Start(boost::asio::io_context& control, std::unique_ptr<TunDevice> tun,
                                              const EngineOptions& options, std::function<void(EngineEnd)> on_end) {
  InitializeCrypto();
  const auto backends = AvailableAeadBackends();
  const AeadBackend backend = options.aead.value_or(backends.front());
  if (std::ranges::find(backends, backend) == backends.end()) {
    return Fail("the cipher backend {} is not available on this machine", Name(backend));
  }
  auto bell = Bell::Open();
  if (!bell) return std::unexpected(bell.error());
  auto timer = BootTimer::Open();
  if (!timer) return std::unexpected(timer.error());
  auto impl = std::make_unique<Impl>(control, std::move(tun), options, backend, std::move(*bell), std::move(*timer),
                                     std::move(on_end));
  if (const Status started = impl->Start(); !started) return std::unexpected(started.error());
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

DeviceStatus Engine::GetDevice() const { return impl_->GetDevice(); }
int Engine::SetDevice(const DeviceUpdate& update) { return impl_->SetDevice(update); }
EngineStatus Engine::GetEngine() const { return impl_->GetEngine(); }
std::optional<PeerReach> Engine::GetReach(const PublicKey& key) const { return impl_->GetReach(key); }
std::vector<SocketAddress> Engine::GetEndpoints() const { return impl_->GetEndpoints(); }
void Engine::Redirect(const PublicKey& key, const SocketAddress& remote) { impl_->Redirect(key, remote); }
void Engine::OnUplinksChanged() { impl_->OnUplinksChanged(); }

}  // namespace adit
