#include "host.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/check.h"
#include "tunnel/messages.h"

namespace adit::sim {
namespace {

constexpr std::int64_t kWallStart = 1'700'000'000;
constexpr std::int64_t kNanosecondsPerSecond = 1'000'000'000;
constexpr std::size_t kHandshakesPerTurn = 16;  // as the engine does it
constexpr std::size_t kKeptGroups = 64;         // what a socket's buffer holds while nobody reads
constexpr std::size_t kMaxRunBytes = 65507;

}  // namespace

void EventLog::AddLine(HostId host, std::string text) {
  const double seconds = std::chrono::duration<double>(simulator_.now() - Simulator::kStart).count();
  std::string line = fmt::format("{:12.6f}  {}  {}", seconds, host == kNobody ? "-" : std::to_string(host), text);
  if (mode_ == Mode::kAll) std::puts(line.c_str());
  last_.push_back(std::move(line));
  if (last_.size() > kKept) last_.pop_front();
}

Host::Core::Core(const ProtocolLimits& limits, Random& random, Instant now)
    : exchange(limits),
      outbound(exchange, random, kMaxRunBytes),
      inbound(exchange, handshakes),
      tunnel(exchange, random, now) {
  exchange.mtu = kDefaultMtu;
}

namespace {

ProtocolLimits WithDefect(ProtocolLimits limits, Defect defect) {
  if (defect == Defect::kEndlessAttempt) limits.max_handshake_retries *= 3;
  if (defect == Defect::kOldKeys) {
    limits.rekey_after_time *= 2;
    limits.reject_after_time *= 2;
  }
  return limits;
}

}  // namespace

Host::Host(HostId id, const HostServices& services, const ProtocolLimits& limits, Duration lag, std::uint64_t seed,
           Defect defect, OnDelivered on_delivered)
    : id_(id),
      services_(services),
      limits_(WithDefect(limits, defect)),
      lag_(lag),
      defect_(defect),
      on_delivered_(std::move(on_delivered)),
      rng_(seed),
      random_(rng_.Next()),
      private_key_(PrivateKey::Generate(random_)) {}

// ---- clocks

Now Host::BothNow() {
  const Instant boot = services_.simulator.now();
  const std::int64_t since = (boot.time_since_epoch() + wall_offset_).count();
  std::int64_t seconds = since / kNanosecondsPerSecond, nanoseconds = since % kNanosecondsPerSecond;
  if (nanoseconds < 0) {
    nanoseconds += kNanosecondsPerSecond;
    --seconds;
  }
  const WallTime wall{kWallStart + seconds, static_cast<std::uint32_t>(nanoseconds)};
  greatest_wall_ = std::max(greatest_wall_, wall);
  return Now{boot, wall};
}

void Host::CorrectWallClock() {
  const WallTime wall = BothNow().wall;
  // A minute more, for stamps that were counted up while the clock was back.
  if (wall < greatest_wall_) wall_offset_ += std::chrono::seconds(greatest_wall_.seconds - wall.seconds + 60);
}

// ---- configuration

void Host::AddToCore(HostId remote, const PeerConfig& config) {
  Tunnel& tunnel = core_->tunnel;
  // The stamps of a peer that is new to us start from the wall clock.
  CorrectWallClock();
  CHECK(tunnel.AddPeer(config.key));
  remote_of_[config.key] = remote;
  present_[remote] = config.key;
  services_.observer.OnPeerAdded(id_, remote, config.key);
  tunnel.SetPresharedKey(config.key, config.psk);
  services_.observer.OnPresharedKey(id_, remote, config.psk_version);
  if (config.endpoint) tunnel.SetEndpoint(config.key, *config.endpoint);
  for (const Prefix& prefix : config.allowed_ips) tunnel.AllowIp(config.key, prefix);
  if (defect_ == Defect::kAllowSpoofedSource) {
    for (const char* all : {"0.0.0.0/0", "::/0"}) tunnel.AllowIp(config.key, *Prefix::Parse(all, false));
  }
  if (config.keepalive > Duration(0)) {
    const Duration interval = defect_ == Defect::kSlowPersistentKeepalive ? 3 * config.keepalive : config.keepalive;
    services_.observer.OnPersistentKeepalive(id_, remote, config.keepalive);
    tunnel.SetPersistentKeepalive(config.key, interval, BothNow(), outbox_);
  }
}

void Host::Configure(HostId remote, const PeerConfig& config) {
  configured_[remote] = config;
  if (!core_) return;
  if (HasPeer(remote)) Remove(remote);
  services_.log.Add(id_, "adds peer {}", remote);
  AddToCore(remote, config);
  core_->tunnel.Publish();
  CarryOut();
  AfterStep();
}

void Host::Remove(HostId remote) {
  if (!core_ || !HasPeer(remote)) return;
  services_.log.Add(id_, "removes peer {}", remote);
  core_->tunnel.RemovePeer(present_.at(remote));
  present_.erase(remote);
  services_.observer.OnPeerRemoved(id_, remote);
  core_->tunnel.Publish();
  CarryOut();
  AfterStep();
}

void Host::Unconfigure(HostId remote) {
  Remove(remote);
  configured_.erase(remote);
}

void Host::ChangeKey() {
  private_key_ = PrivateKey::Generate(random_);
  if (!core_) return;
  services_.log.Add(id_, "changes its private key");
  services_.observer.OnKeyChanged(id_, public_key());
  core_->tunnel.SetPrivateKey(private_key_, BothNow(), outbox_);
  CarryOut();
  AfterStep();
}

void Host::SetPresharedKey(HostId remote, const PresharedKey& psk, std::uint64_t version) {
  PeerConfig& config = configured_.at(remote);
  config.psk = psk;
  config.psk_version = version;
  if (!core_ || !HasPeer(remote)) return;
  services_.log.Add(id_, "changes the preshared key with {}", remote);
  core_->tunnel.SetPresharedKey(present_.at(remote), psk);
  services_.observer.OnPresharedKey(id_, remote, version);
}

void Host::SetPersistentKeepalive(HostId remote, Duration interval) {
  configured_.at(remote).keepalive = interval;
  if (!core_ || !HasPeer(remote)) return;
  services_.log.Add(id_, "sets a persistent keepalive of {} s to {}", interval / 1s, remote);
  services_.observer.OnPersistentKeepalive(id_, remote, interval);
  core_->tunnel.SetPersistentKeepalive(present_.at(remote), interval, BothNow(), outbox_);
  CarryOut();
  AfterStep();
}

void Host::SetEndpoint(HostId remote, const SocketAddress& endpoint) {
  if (!core_ || !HasPeer(remote)) return;
  services_.log.Add(id_, "sets the endpoint of {} to {}", remote, endpoint.ToString());
  core_->tunnel.SetEndpoint(present_.at(remote), endpoint);
  core_->tunnel.SendWaiting(present_.at(remote), outbox_);
  CarryOut();
  AfterStep();
}

void Host::SetUp(bool up) {
  if (!core_ || core_->tunnel.is_up() == up) return;
  services_.log.Add(id_, "goes {}", up ? "up" : "down");
  if (up) services_.observer.OnUp(id_);
  core_->tunnel.SetUp(up, BothNow(), outbox_);
  if (!up) services_.observer.OnDown(id_);
  CarryOut();
  AfterStep();
}

// ---- life

void Host::Start() {
  CHECK(!core_);
  services_.log.Add(id_, "starts");
  CorrectWallClock();
  ++incarnation_;
  core_ = std::make_unique<Core>(limits_, random_, services_.simulator.now());
  is_control_woken_ = is_flush_woken_ = false;
  timer_at_.reset();
  services_.observer.OnStarted(id_, public_key());
  core_->tunnel.SetPrivateKey(private_key_, BothNow(), outbox_);
  for (const auto& [remote, config] : configured_) AddToCore(remote, config);
  core_->tunnel.Publish();
  SetUp(true);
}

void Host::Stop() {
  if (!core_) return;
  services_.log.Add(id_, "stops");
  is_suspended_ = false;
  postponed_.clear();
  kept_.clear();
  to_flush_.clear();
  queued_.clear();
  outbox_.Clear();
  present_.clear();
  services_.observer.OnStopped(id_);
  core_.reset();
}

void Host::Suspend(bool keeps_datagrams) {
  if (!core_ || is_suspended_) return;
  services_.log.Add(id_, "{}", keeps_datagrams ? "is stopped" : "falls asleep");
  is_suspended_ = true;
  keeps_datagrams_ = keeps_datagrams;
  services_.observer.OnSuspended(id_);
}

void Host::Resume() {
  if (!core_ || !is_suspended_) return;
  services_.log.Add(id_, "wakes up");
  is_suspended_ = false;
  services_.observer.OnResumed(id_);
  for (auto action : std::exchange(postponed_, {})) Later(action);
  for (std::vector<Datagram>& group : std::exchange(kept_, {})) Receive(group);
}

void Host::Later(void (Host::*action)()) {
  if (is_suspended_) {
    postponed_.push_back(action);
    return;
  }
  services_.simulator.After(rng_.Between(Duration(0), lag_), [this, action, incarnation = incarnation_] {
    if (!core_ || incarnation != incarnation_) return;
    if (is_suspended_) {
      postponed_.push_back(action);
    } else {
      (this->*action)();
    }
  });
}

// ---- the control thread

void Host::WakeControl() {
  if (is_control_woken_) return;
  is_control_woken_ = true;
  Later(&Host::ControlTurn);
}

void Host::ControlTurn() {
  is_control_woken_ = false;
  PlantInControl();
  const Snapshot before = Snap();
  core_->tunnel.HandleInbox(BothNow(), outbox_);
  services_.observer.OnTimeoutsHandled(id_, before, Snap());  // a peer that has news is asked for its timers too
  CarryOut();
  ForEachPeer([&](HostId remote, Peer& peer) {
    if (peer.is_in_inbox) Violate(Check::kTimeouts, id_, "host {} is still in the inbox", remote);
  });
  // The product hands over up to 16 at once; one by one is the same to the core, and each can be judged alone.
  const bool is_forced = is_under_load_ && !queued_.empty();
  std::size_t depth = queued_.size();
  if (is_forced && defect_ != Defect::kIgnoreLoad) depth = std::max(depth, kUnderLoadQueueLength);
  for (std::size_t i = 0; i < kHandshakesPerTurn && !queued_.empty(); ++i) HandleOneHandshake(depth);
  ScheduleTimer();
  if (!queued_.empty()) WakeControl();
  AfterStep();
}

void Host::HandleOneHandshake(std::size_t depth) {
  taken_.clear();
  const std::size_t waited = core_->handshakes.Take(1, taken_);
  CHECK(waited == queued_.size());
  const Arrived arrived = std::move(queued_.front());
  queued_.pop_front();
  CHECK(std::ranges::equal(taken_.front().message(), arrived.head));

  const Snapshot before = Snap();
  const std::size_t first_answer = outbox_.to_network.size();
  const std::uint64_t cookies = core_->tunnel.handshake_counts().cookies_received;
  core_->tunnel.HandleHandshakes(taken_, depth, BothNow(), outbox_);
  const bool is_cookie_taken = core_->tunnel.handshake_counts().cookies_received != cookies;

  std::vector<std::uint8_t> planted;
  const MessageType type = *ParseMessage(arrived.head);
  const bool was_answered = outbox_.to_network.size() > first_answer;
  if (defect_ == Defect::kAnswerReplays && type == MessageType::kInitiation && !was_answered && arrived.id != 0 &&
      services_.observer.IsStaleFor(id_, arrived.id)) {
    planted = last_response_;
  }
  if (defect_ == Defect::kAcceptBadResponses && type == MessageType::kResponse) {
    ForEachPeer([&](HostId remote, Peer& peer) {
      if (RemoteOf(peer.public_key) != remote ||
          std::ranges::find(before, remote, &PeerSnapshot::remote)->rx_bytes != peer.rx_bytes)
        return;
      if (arrived.id == 0 || services_.network.OwnerOf(arrived.from) != remote) return;
      peer.rx_bytes += arrived.bytes;
      peer.endpoint = Endpoint{arrived.from, {}};
    });
  }
  if (defect_ == Defect::kSendUnconfirmed) {
    ForEachPeer([&](HostId, Peer& peer) { peer.keypairs.Promote(peer.keypairs.next, peer.retired); });
  }

  std::vector<Bytes> answers;
  for (std::size_t i = first_answer; i < outbox_.to_network.size(); ++i) {
    answers.push_back(outbox_.to_network[i].datagram.message());
  }
  if (!planted.empty()) answers.emplace_back(planted);
  services_.log.Add(id_, "handles message {} ({}{}): {}", arrived.id, static_cast<unsigned>(type),
                    arrived.is_altered ? ", altered" : "", answers.empty() ? "no answer" : "answers");
  services_.observer.OnHandshakeHandled(id_, arrived, depth >= kUnderLoadQueueLength || is_under_load_, answers,
                                        is_cookie_taken, before, Snap());
  CarryOut();
}

void Host::CarryOut() {
  // Nothing that is called here adds to the outbox.
  const ControlOutbox outbox = std::exchange(outbox_, {});
  for (const OutgoingHandshake& outgoing : outbox.to_network) {
    const HostId remote = outgoing.peer ? RemoteOf(outgoing.peer->public_key) : kNobody;
    const Bytes message = outgoing.datagram.message();
    Datagram datagram;
    datagram.bytes.assign(message.begin(), message.end());
    datagram.to = outgoing.to.remote;
    datagram.tos = outgoing.tos;
    datagram.id = services_.observer.OnHandshakeLeaves(id_, remote, message, BothNow().wall);
    const bool fails = rng_.Chance(send_failures_);
    core_->tunnel.OnSent(outgoing, !fails, /*clear_source=*/fails);
    services_.log.Add(id_, "sends message {} (type {}) to {} at {}{}", datagram.id, message[0],
                      remote == kNobody ? "somebody" : std::to_string(remote), datagram.to.ToString(),
                      fails ? ", refused" : "");
    if (message[0] == static_cast<std::uint8_t>(MessageType::kResponse)) last_response_ = datagram.bytes;
    if (fails) continue;
    const unsigned copies = defect_ == Defect::kAmplify && remote == kNobody ? 100 : 1;
    services_.network.Send(id_, std::vector<Datagram>(copies, datagram));
  }
  for (const FlushRequest& request : outbox.to_flush) RequestFlush(request);
  ScheduleTimer();
}

void Host::ScheduleTimer() {
  const auto next = core_->tunnel.NextTimeout();
  if (next == timer_at_) return;
  timer_at_ = next;
  ++timer_generation_;
  if (!next) return;
  services_.simulator.At(std::max(*next, services_.simulator.now()),
                         [this, generation = timer_generation_, incarnation = incarnation_] {
                           if (!core_ || generation != timer_generation_ || incarnation != incarnation_) return;
                           Later(&Host::TimerTurn);
                         });
}

void Host::TimerTurn() {
  if (!timer_at_ || *timer_at_ > services_.simulator.now()) return;  // it was set anew while this was on its way
  timer_at_.reset();
  services_.observer.OnWakeup(id_);
  PlantInControl();
  const Snapshot before = Snap();
  if (defect_ != Defect::kSkipTimeouts || !rng_.Chance(0.01)) core_->tunnel.HandleTimeouts(BothNow(), outbox_);
  services_.observer.OnTimeoutsHandled(id_, before, Snap());
  CarryOut();
  if (const auto next = core_->tunnel.NextTimeout(); next && *next <= services_.simulator.now()) {
    Violate(Check::kTimeouts, id_, "the next timeout is {:.3f} s past",
            std::chrono::duration<double>(services_.simulator.now() - *next).count());
  }
  AfterStep();
}

// ---- the outbound thread

void Host::RequestFlush(const FlushRequest& request) {
  to_flush_.push_back(request);
  if (is_flush_woken_) return;
  is_flush_woken_ = true;
  Later(&Host::FlushTurn);
}

void Host::FlushTurn() {
  is_flush_woken_ = false;
  for (const FlushRequest& request : std::exchange(to_flush_, {})) {
    const HostId remote = RemoteOf(request.peer->public_key);
    if (defect_ == Defect::kNoKeyConfirmation) continue;
    if (defect_ == Defect::kNoPassiveKeepalive && request.keepalive_if_none && rng_.Chance(0.5) &&
        request.peer->keypairs.current && services_.simulator.now() - request.peer->keypairs.current->created_at > 1s) {
      continue;
    }
    services_.observer.OnFlush(id_, remote);
    core_->outbound.ReserveStaged(request.peer, request.keepalive_if_none, services_.simulator.now());
    FlushAndSend();
  }
  AfterStep();
}

void Host::SendInner(HostId remote, std::vector<std::vector<std::uint8_t>> packets) {
  if (!is_up() || is_suspended_) return;
  bool has_endpoint = false;
  if (HasPeer(remote)) {
    for (const PeerSnapshot& peer : Snap()) has_endpoint |= peer.remote == remote && peer.endpoint;
  }
  services_.log.Add(id_, "{} inner packets for {}", packets.size(), remote);
  services_.observer.OnInnerPacket(id_, remote, has_endpoint);
  for (std::vector<std::uint8_t>& packet : packets) {
    const std::size_t bytes = packet.size();
    packet.resize(bytes + StagedPacket::kScratchBytes);
    const MutableBytes body = MutableBytes(packet).first(bytes);
    if (core_->outbound.Add({}, body, services_.simulator.now())) continue;
    FlushAndSend();
    CHECK(core_->outbound.Add({}, body, services_.simulator.now()));
  }
  FlushAndSend();
  AfterStep();
}

void Host::FlushAndSend() {
  Outbound& outbound = core_->outbound;
  outbound.Flush(services_.simulator.now(), services_.aead);
  for (const SealedRun& run : outbound.runs()) {
    const HostId remote = RemoteOf(run.peer->public_key);
    const Peer& peer = *run.peer;
    CHECK(peer.keypairs.current != nullptr);
    std::vector<Datagram> datagrams;
    for (std::size_t at = 0; at < run.data.size(); at += run.segment_bytes) {
      const Bytes message = run.data.subspan(at, std::min(run.segment_bytes, run.data.size() - at));
      Datagram& datagram = datagrams.emplace_back();
      datagram.bytes.assign(message.begin(), message.end());
      datagram.to = run.to.remote;
      datagram.tos = run.tos;
      if (defect_ == Defect::kReuseCounter && rng_.Chance(0.02)) {
        auto header = LoadAs<DataHeader>(datagram.bytes.data());
        if (header.counter > 0) header.counter = header.counter - 1;
        Store(datagram.bytes.data(), header);
      }
      datagram.id =
          services_.observer.OnDataLeaves(id_, remote, datagram.bytes, peer.keypairs.current->send_key.bytes());
    }
    const bool fails = rng_.Chance(send_failures_);
    services_.log.Add(id_, "sends data {}..{} to {} at {}{}", datagrams.front().id, datagrams.back().id, remote,
                      run.to.remote.ToString(), fails ? ", refused" : "");
    outbound.OnSent(run, fails ? 0 : datagrams.size(), /*clear_source=*/fails);
    if (!fails) services_.network.Send(id_, std::move(datagrams));
  }
  if (outbound.wake_control()) WakeControl();
  outbound.Clear();
  services_.aead.ForgetKeys();
}

// ---- the inbound thread

void Host::Receive(std::span<Datagram> group) {
  if (!is_up() || is_deaf_) return;  // the product's sockets are closed while it is down
  if (is_suspended_) {
    if (keeps_datagrams_ && kept_.size() < kKeptGroups) kept_.emplace_back(group.begin(), group.end());
    return;
  }
  const std::size_t segment_bytes = std::max<std::size_t>(1, group.front().bytes.size());
  std::vector<std::uint8_t> data;
  std::vector<Arrived> arrived_data;
  for (const Datagram& datagram : group) {
    data.insert(data.end(), datagram.bytes.begin(), datagram.bytes.end());
    const auto type = ParseMessage(datagram.bytes);
    if (!type) continue;
    Arrived arrived;
    const std::size_t head = *type == MessageType::kData ? sizeof(DataHeader) : datagram.bytes.size();
    arrived.head.assign(datagram.bytes.begin(), datagram.bytes.begin() + static_cast<std::ptrdiff_t>(head));
    arrived.bytes = datagram.bytes.size();
    arrived.from = datagram.from;
    arrived.id = datagram.id;
    arrived.is_altered = datagram.is_altered;
    arrived.is_mac2_altered = datagram.is_mac2_altered;
    if (*type == MessageType::kData) {
      arrived_data.push_back(std::move(arrived));
    } else if (queued_.size() < kHandshakeQueueLength) {
      queued_.push_back(std::move(arrived));
    }
  }
  services_.log.Add(id_, "receives {} datagrams ({}..{}) from {}{}", group.size(), group.front().id, group.back().id,
                    group.front().from.ToString(), group.front().is_altered ? ", altered" : "");

  Inbound& inbound = core_->inbound;
  const Snapshot before = Snap();
  const bool is_congested = (group.front().tos & 3) == 3;
  inbound.Process(data, segment_bytes, Endpoint{group.front().from, {}}, group.front().tos & 3,
                  services_.simulator.now(), services_.aead);
  PlantInData(before, group);
  const Snapshot after = Snap();
  services_.observer.OnDataArrived(id_, arrived_data, before, after);
  if (defect_ == Defect::kLoseAtRekey) {
    loses_delivery_ |= !std::ranges::equal(before, after, {}, &PeerSnapshot::current, &PeerSnapshot::current);
  }
  for (const MutableBytes packet : inbound.packets()) {
    if (std::exchange(loses_delivery_, false)) continue;
    if (defect_ == Defect::kAlterPayload && rng_.Chance(0.01)) packet.back() ^= 1;
    const HostId where = defect_ == Defect::kDeliverElsewhere && rng_.Chance(0.01) ? id_ ^ 1 : id_;
    on_delivered_(services_.ledger.OnDelivered(where, packet, is_congested, services_.simulator.now()));
    if (defect_ == Defect::kDeliverTwice && rng_.Chance(0.01)) {
      services_.ledger.OnDelivered(id_, packet, is_congested, services_.simulator.now());
    }
  }
  for (const auto& peer : inbound.to_flush()) RequestFlush(FlushRequest{peer, /*keepalive_if_none=*/false});
  if (defect_ == Defect::kKeepaliveEcho && group.front().bytes.size() == kKeepaliveBytes) {
    for (const auto& peer : core_->exchange.peers.Get()->peers) {
      if (peer && rng_.Chance(0.2)) RequestFlush(FlushRequest{peer, /*keepalive_if_none=*/true});
    }
  }
  if (inbound.wake_control()) WakeControl();
  inbound.Clear();
  services_.aead.ForgetKeys();
  AfterStep();
}

// ---- what can be seen from outside

void Host::ForEachPeer(const std::function<void(HostId, Peer&)>& visit) const {
  for (const auto& peer : core_->exchange.peers.Get()->peers) {
    if (peer) visit(RemoteOf(peer->public_key), *peer);
  }
}

Snapshot Host::Snap() const {
  Snapshot snapshot;
  const auto index_of = [](const std::shared_ptr<Keypair>& keypair) {
    return keypair ? std::optional(keypair->local_index) : std::nullopt;
  };
  for (const auto& peer : core_->exchange.peers.Get()->peers) {
    if (!peer) continue;
    PeerSnapshot& view = snapshot.emplace_back();
    view.remote = RemoteOf(peer->public_key);
    view.rx_bytes = peer->rx_bytes;
    if (peer->endpoint) view.endpoint = peer->endpoint->remote;
    for (std::size_t i = 0; i < kTimerCount; ++i) view.timers[i] = peer->timers.IsSet(static_cast<Timer>(i));
    view.deadline = peer->timers.NextDeadline();
    view.previous = index_of(peer->keypairs.previous);
    view.current = index_of(peer->keypairs.current);
    view.next = index_of(peer->keypairs.next);
    view.staged = peer->staged.size();
    view.staged_bytes = peer->staged_bytes;
  }
  return snapshot;
}

HostId Host::RemoteOf(const PublicKey& key) const { return remote_of_.at(key); }

std::optional<std::uint32_t> Host::CurrentIndexOf(HostId remote) const {
  if (!core_) return std::nullopt;
  for (const PeerSnapshot& peer : Snap()) {
    if (peer.remote == remote) return peer.current;
  }
  return std::nullopt;
}

void Host::AfterStep() {
  bool is_inbox_empty = true;
  ForEachPeer([&](HostId, Peer& peer) { is_inbox_empty &= !peer.is_in_inbox; });
  services_.observer.OnStep(id_, Snap(), core_->exchange.sessions.size(), core_->exchange.staged_bytes, is_inbox_empty);
}

void Host::Sweep() {
  if (!core_) return;
  if (defect_ == Defect::kBusyTimer) {
    for (int i = 0; i < 3; ++i) services_.observer.OnWakeup(id_);
  }
  if (defect_ == Defect::kLeakStaged && rng_.Chance(0.001)) core_->exchange.staged_bytes += 100;
  if (defect_ == Defect::kLeakSession && rng_.Chance(0.001)) {
    const auto peers = core_->exchange.peers.Get();
    const auto keypair =
        std::make_shared<Keypair>(ByteArray<32>{}, ByteArray<32>{}, 1, 1, true, services_.simulator.now());
    core_->exchange.sessions.Insert(keypair, nullptr);
  }
  AfterStep();
  services_.observer.Sweep(id_, Snap());
}

void Host::RequireCleanExit() {
  if (!core_) return;
  core_->tunnel.RemoveAllPeers();
  core_->tunnel.Publish();
  const Exchange& exchange = core_->exchange;
  if (exchange.sessions.size() != 0) {
    Violate(Check::kSessionCount, id_, "{} sessions without peers", exchange.sessions.size());
  }
  if (exchange.staged_bytes != 0) {
    Violate(Check::kStaged, id_, "{} bytes wait without peers", exchange.staged_bytes.load());
  }
  if (core_->tunnel.NextTimeout()) Violate(Check::kTimeouts, id_, "a timeout without peers");
  Stop();
}

// ---- defects

void Host::PlantInControl() {
  switch (defect_) {
    case Defect::kSameEphemeral:
      random_ = SeededRandom(1);
      break;
    case Defect::kEagerInitiations:
      ForEachPeer([](HostId, Peer& peer) { peer.last_handshake_sent_at.reset(); });
      break;
    case Defect::kNeedlessHandshakes:
      ForEachPeer([&](HostId, Peer& peer) {
        if (rng_.Chance(0.05)) peer.wants_handshake = peer.is_in_inbox;
      });
      break;
    case Defect::kNoHandshakes:
      ForEachPeer([&](HostId, Peer& peer) {
        if (rng_.Chance(0.3)) peer.wants_handshake = false;
      });
      break;
    case Defect::kNoAnswerTimer:
      ForEachPeer([](HostId, Peer& peer) { peer.timers.OnAuthenticatedPacketReceived(); });
      break;
    case Defect::kKeepKeys:
      ForEachPeer([&](HostId, Peer& peer) { peer.timers.OnSessionDerived(services_.simulator.now()); });
      break;
    default:
      break;
  }
}

void Host::PlantInData(const Snapshot& before, std::span<const Datagram> group) {
  ForEachPeer([&](HostId remote, Peer& peer) {
    const auto was = std::ranges::find(before, remote, &PeerSnapshot::remote);
    CHECK(was != before.end());
    const bool is_rejected = was->rx_bytes == peer.rx_bytes;
    switch (defect_) {
      case Defect::kForgetReplays:
        if (peer.keypairs.current) peer.keypairs.current->replay = ReplayWindow();
        break;
      case Defect::kLoseSession:
        if (peer.keypairs.current && rng_.Chance(0.01)) {
          core_->exchange.sessions.Remove(peer.keypairs.current->local_index);
        }
        break;
      case Defect::kTouchTimers:
        if (is_rejected && ParseMessage(group.front().bytes) == MessageType::kData)
          peer.timers.OnDataReceived(services_.simulator.now());
        break;
      case Defect::kRoamOnBadPackets:
        if (is_rejected && group.front().is_altered) peer.endpoint = Endpoint{group.front().from, {}};
        break;
      default:
        break;
    }
  });
}

}  // namespace adit::sim
