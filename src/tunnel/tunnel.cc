#include "tunnel/tunnel.h"

#include <algorithm>

#include "base/check.h"
#include "tunnel/messages.h"

namespace adit {
namespace {

Duration DrawJitter(Random& random, Duration bound) {
  if (bound <= Duration::zero()) return Duration::zero();
  const auto microseconds = std::chrono::duration_cast<std::chrono::microseconds>(bound).count();
  return std::chrono::microseconds(random.Below(static_cast<std::uint32_t>(microseconds) + 1));
}

// The pause between initiations (paper, 6.4) is over for a handshake that still waits for its answer. False if none
// does.
bool TakesTurnAgain(Peer& peer) {
  const std::scoped_lock lock(peer.mutex);
  if (!peer.timers.IsSet(Timer::kRetransmitHandshake)) return false;
  peer.last_handshake_sent_at.reset();
  return true;
}

}  // namespace

Tunnel::Tunnel(Exchange& exchange, Random& random, Instant now)
    : exchange_(exchange), random_(random), cookie_checker_(exchange.limits), under_load_until_(now) {}

Tunnel::~Tunnel() { RemoveAllPeers(); }

// ---- inputs: handshake messages

void Tunnel::HandleHandshakes(std::span<const HandshakeDatagram> datagrams, std::size_t queue_depth, Now now,
                              ControlOutbox& out) {
  if (queue_depth >= kUnderLoadQueueLength) under_load_until_ = now.boot + kUnderLoadHold;
  for (const HandshakeDatagram& datagram : datagrams) {
    const auto type = ParseMessage(datagram.message());
    CHECK(type && *type != MessageType::kData);
    if (!is_up_ || !identity_.has_key()) {
      exchange_.drops.Add(DropReason::kHandshakeInvalid);
      continue;
    }
    if (*type == MessageType::kCookieReply) {
      HandleCookieReply(datagram, now);
      continue;
    }
    // Cheapest test first: a hash, then (under load) another one and a table, then Diffie-Hellman.
    const bool is_under_load = now.boot < under_load_until_;
    const SocketAddress& from = datagram.from.remote;
    const MacVerdict macs = cookie_checker_.Check(datagram.message(), from, is_under_load, now.boot, random_);
    if (macs == MacVerdict::kInvalid) {
      exchange_.drops.Add(DropReason::kBadMac1);
      continue;
    }
    if (is_under_load && macs != MacVerdict::kValidMac1AndCookie) {
      exchange_.drops.Add(DropReason::kCookieRequired);
      const auto reply = cookie_checker_.CreateReply(datagram.message(), from, now.boot, random_);
      Send(BytesOf(reply), datagram.from, /*tos=*/0, nullptr, out);
      ++counts_.cookie_replies_sent;
      continue;
    }
    if (is_under_load && !rate_limiter_.Allow(from.ip, now.boot)) {
      exchange_.drops.Add(DropReason::kRateLimited);
      continue;
    }
    if (*type == MessageType::kInitiation) {
      HandleInitiation(datagram, now, out);
    } else {
      HandleResponse(datagram, now, out);
    }
  }
}

void Tunnel::HandleInitiation(const HandshakeDatagram& datagram, Now now, ControlOutbox& out) {
  const auto message = LoadAs<InitiationMessage>(datagram.bytes.data());
  const auto opened = OpenInitiation(identity_, message);
  const auto found = opened ? by_key_.find(opened->remote_static) : by_key_.end();
  if (found == by_key_.end() ||
      found->second->handshake.ConsumeInitiation(*opened, now.boot) != InitiationVerdict::kConsumed) {
    exchange_.drops.Add(DropReason::kHandshakeInvalid);
    return;
  }
  Record& record = *found->second;
  // The handshake we may have begun ourselves is superseded: its answer will find no state.
  const bool have_crossed = record.handshake_index.has_value();
  ForgetHandshakeIndex(record);
  const Endpoint answer_to = OnHandshakePacketReceived(record, datagram, now);

  ResponseMessage response;
  const std::uint32_t index = PickIndex();
  if (!record.handshake.CreateResponse(index, random_, response)) {
    exchange_.drops.Add(DropReason::kHandshakeInvalid);
    return;
  }
  record.cookies.AddMacs(MutableBytesOf(response), now.boot);
  if (!InstallSession(record, now, out)) return;
  {
    const std::scoped_lock lock(record.peer->mutex);
    const bool gives_way = have_crossed && record.peer->public_key < identity_.public_key();
    record.peer->last_handshake_sent_at = now.boot + (gives_way ? kCrossedHandshakeDelay : Duration::zero());
    record.peer->timers.OnAuthenticatedPacketSent();
    record.peer->timers.OnAuthenticatedPacketEitherWay(now.boot);
  }
  Send(BytesOf(response), answer_to, kHandshakeTos, record.peer, out);
  ++counts_.responses_sent;
  Reschedule(record);
}

void Tunnel::HandleResponse(const HandshakeDatagram& datagram, Now now, ControlOutbox& out) {
  const auto message = LoadAs<ResponseMessage>(datagram.bytes.data());
  const auto found = handshakes_by_index_.find(message.receiver_index);
  if (found == handshakes_by_index_.end() || !found->second->handshake.ConsumeResponse(message)) {
    exchange_.drops.Add(DropReason::kHandshakeInvalid);
    return;
  }
  Record& record = *found->second;
  ForgetHandshakeIndex(record);
  OnHandshakePacketReceived(record, datagram, now);
  if (!InstallSession(record, now, out)) return;
  {
    const std::scoped_lock lock(record.peer->mutex);
    record.peer->timers.OnHandshakeComplete();
  }
  record.last_handshake = now.wall;
  ++counts_.completed;
  // What waits goes out now; if nothing does, a keepalive lets the responder use the session (paper, 6.2).
  out.to_flush.push_back(FlushRequest{record.peer, /*keepalive_if_none=*/true});
  Reschedule(record);
}

void Tunnel::HandleCookieReply(const HandshakeDatagram& datagram, Now now) {
  const auto message = LoadAs<CookieReplyMessage>(datagram.bytes.data());
  // It answers one of our initiations, or a response whose session is already in the table.
  Record* record = nullptr;
  if (const auto found = handshakes_by_index_.find(message.receiver_index); found != handshakes_by_index_.end()) {
    record = found->second;
  } else if (const Session session = exchange_.sessions.Find(message.receiver_index); session.peer) {
    record = FindById(session.peer->id);
  }
  if (record == nullptr || !record->cookies.ConsumeReply(message, now.boot)) {
    exchange_.drops.Add(DropReason::kHandshakeInvalid);
    return;
  }
  // Not one of the peer's rx_bytes, as nowhere else either: it carries no word of the peer's.
  ++counts_.cookies_received;
}

Endpoint Tunnel::OnHandshakePacketReceived(Record& record, const HandshakeDatagram& datagram, Now now) {
  record.peer->rx_bytes.fetch_add(datagram.size, std::memory_order_relaxed);
  const std::scoped_lock lock(record.peer->mutex);
  record.peer->endpoint = record.peer->AnswerTo(datagram.from, now.boot);
  record.peer->timers.OnAuthenticatedPacketReceived();
  record.peer->timers.OnAuthenticatedPacketEitherWay(now.boot);
  return *record.peer->endpoint;
}

bool Tunnel::InstallSession(Record& record, Now now, ControlOutbox& out) {
  auto keys = record.handshake.BeginSession();
  if (!keys) return false;
  const auto keypair = std::make_shared<Keypair>(keys->send, keys->receive, keys->local_index, keys->remote_index,
                                                 keys->is_initiator, now.boot);
  // Known to the table before the peer can learn of it, and so before anything can arrive under it.
  exchange_.sessions.Insert(keypair, record.peer);
  std::vector<std::shared_ptr<Keypair>> retired;
  {
    const std::scoped_lock lock(record.peer->mutex);
    record.peer->keypairs.Install(keypair, retired);
    record.peer->timers.OnSessionDerived(now.boot);
    const auto& path = record.peer->endpoint;
    if (path && path->source.is_set()) out.to_find.push_back({record.peer, *path});
  }
  for (const auto& old : retired) exchange_.sessions.Remove(old->local_index);
  return true;
}

// ---- inputs: what the data threads and the clock say

void Tunnel::HandleInbox(Now now, ControlOutbox& out) {
  const std::size_t most_to_send = out.to_network.size() + kInitiationsPerTurn;
  for (std::size_t i = 0; i < kPeersPerTurn && out.to_network.size() < most_to_send; ++i) {
    const auto peer = exchange_.inbox.Pop();
    if (!peer) return;
    if (Record* record = FindById(peer->id); record != nullptr && record->peer == peer) Service(*record, now, out);
  }
}

void Tunnel::HandleTimeouts(Now now, ControlOutbox& out) {
  const std::size_t most_to_send = out.to_network.size() + kInitiationsPerTurn;
  for (std::size_t i = 0; i < kPeersPerTurn && out.to_network.size() < most_to_send; ++i) {
    if (timeouts_.empty() || timeouts_.begin()->first > now.boot) break;
    Service(*by_sequence_.at(timeouts_.begin()->second), now, out);
  }
  if (announce_at_ && *announce_at_ <= now.boot) Announce(now, out);
  rate_limiter_.Sweep(now.boot);
}

std::optional<Instant> Tunnel::NextTimeout() const {
  if (timeouts_.empty()) return announce_at_;
  const Instant next = timeouts_.begin()->first;
  return announce_at_ ? std::min(next, *announce_at_) : next;
}

void Tunnel::Service(Record& record, Now now, ControlOutbox& out) {
  Peer& peer = *record.peer;
  bool start_handshake = false, retry_handshake = false, send_keepalive = false, zero_keys = false;
  bool is_newly_confirmed = false;
  std::vector<std::shared_ptr<Keypair>> retired;
  std::size_t given_up = 0;
  {
    const std::scoped_lock lock(peer.mutex);
    start_handshake = std::exchange(peer.wants_handshake, false);
    is_newly_confirmed = std::exchange(peer.is_newly_confirmed, false);
    retired = std::exchange(peer.retired, {});
    while (const auto timer = peer.timers.PopExpired(now.boot)) {
      switch (*timer) {
        case Timer::kRetransmitHandshake:
          if (peer.timers.TakeRetry()) {
            retry_handshake = true;
            if (peer.endpoint) peer.endpoint->source = {};
          } else {
            peer.timers.OnGivenUp(now.boot);
            given_up = PurgeStaged(peer);
          }
          break;
        case Timer::kPassiveKeepalive:
          send_keepalive = true;
          peer.timers.OnPassiveKeepaliveSent(now.boot);
          break;
        case Timer::kNewHandshake:
          start_handshake = true;
          if (peer.endpoint) peer.endpoint->source = {};
          break;
        case Timer::kZeroKeys:
          zero_keys = true;
          break;
        case Timer::kPersistentKeepalive:
          if (peer.timers.persistent_keepalive() == Duration::zero()) break;
          send_keepalive = true;
          peer.timers.OnAuthenticatedPacketEitherWay(now.boot);  // one that cannot be sent is not the last one
          break;
      }
    }
  }
  for (const auto& old : retired) exchange_.sessions.Remove(old->local_index);
  if (given_up > 0) exchange_.drops.Add(DropReason::kStagedExpired, given_up);
  if (is_newly_confirmed) {
    record.last_handshake = now.wall;
    ++counts_.completed;
  }
  if (zero_keys) EndSessions(record);
  if (is_up_) {
    if (retry_handshake || start_handshake) SendInitiation(record, !start_handshake, now, out);
    if (send_keepalive) out.to_flush.push_back(FlushRequest{record.peer, /*keepalive_if_none=*/true});
  }
  Reschedule(record);
}

std::size_t Tunnel::PurgeStaged(Peer& peer) {
  exchange_.staged_bytes.fetch_sub(peer.staged_bytes, std::memory_order_relaxed);
  peer.staged_bytes = 0;
  return std::exchange(peer.staged, {}).size();
}

void Tunnel::Reschedule(Record& record) {
  std::optional<Instant> next;
  {
    const std::scoped_lock lock(record.peer->mutex);
    next = record.peer->timers.NextDeadline();
    record.peer->scheduled_at = next;
  }
  if (record.scheduled_at == next) return;
  if (record.scheduled_at) timeouts_.erase({*record.scheduled_at, record.sequence});
  if (next) timeouts_.insert({*next, record.sequence});
  record.scheduled_at = next;
}

void Tunnel::SendInitiation(Record& record, bool is_retry, Now now, ControlOutbox& out) {
  Peer& peer = *record.peer;
  Endpoint endpoint;
  {
    const std::scoped_lock lock(peer.mutex);
    if (!is_retry) peer.timers.OnHandshakeRequested();
    // Once in five seconds, a response counting too (paper, 6.4).
    if (peer.last_handshake_sent_at && now.boot - *peer.last_handshake_sent_at < exchange_.limits.rekey_timeout) {
      // A response of ours took the retry's turn. If it comes to nothing (both sides began at once, and each dropped
      // its own handshake for the other's) there is nobody else to try again; if it is confirmed, the timer is stopped.
      if (is_retry) {
        const Duration jitter = DrawJitter(random_, exchange_.limits.handshake_jitter);
        peer.timers.OnHandshakeInitiated(*peer.last_handshake_sent_at, jitter);
      }
      return;
    }
    if (!peer.endpoint || !record.handshake.is_possible()) return;
    endpoint = *peer.endpoint;
  }
  InitiationMessage message;
  const std::uint32_t index = PickIndex();
  ForgetHandshakeIndex(record);
  if (!record.handshake.CreateInitiation(index, now.wall, random_, message)) return;
  record.handshake_index = index;
  record.is_initiation_unsent = false;
  handshakes_by_index_.emplace(index, &record);
  record.cookies.AddMacs(MutableBytesOf(message), now.boot);
  {
    const std::scoped_lock lock(peer.mutex);
    peer.last_handshake_sent_at = now.boot;
    peer.timers.OnAuthenticatedPacketSent();
    peer.timers.OnAuthenticatedPacketEitherWay(now.boot);
    peer.timers.OnHandshakeInitiated(now.boot, DrawJitter(random_, exchange_.limits.handshake_jitter));
  }
  Send(BytesOf(message), endpoint, kHandshakeTos, record.peer, out);
  ++counts_.initiations_sent;
}

void Tunnel::Send(Bytes message, const Endpoint& to, std::uint8_t tos, const std::shared_ptr<Peer>& peer,
                  ControlOutbox& out) {
  OutgoingHandshake& outgoing = out.to_network.emplace_back();
  outgoing.datagram.size = static_cast<std::uint8_t>(message.size());
  std::ranges::copy(message, outgoing.datagram.bytes.begin());
  outgoing.to = to;
  outgoing.tos = tos;
  outgoing.peer = peer;
}

void Tunnel::OnSent(const OutgoingHandshake& sent, bool was_sent, bool clear_source) {
  if (!sent.peer) return;
  if (was_sent) {
    sent.peer->tx_bytes.fetch_add(sent.datagram.size, std::memory_order_relaxed);
  } else {
    exchange_.drops.Add(DropReason::kSendFailed);
    Record* const record = FindById(sent.peer->id);
    const bool is_initiation = ParseMessage(sent.datagram.message()) == MessageType::kInitiation;
    if (record != nullptr && record->peer == sent.peer && is_initiation) record->is_initiation_unsent = true;
  }
  if (clear_source) ForgetSource(*sent.peer, sent.to);
}

std::uint32_t Tunnel::PickIndex() {
  for (;;) {
    const std::uint32_t index = random_.NextU32();
    if (!handshakes_by_index_.contains(index) && !exchange_.sessions.Contains(index)) return index;
  }
}

// ---- the device

void Tunnel::SetUp(bool up, Now now, ControlOutbox& out) {
  if (up == is_up_) return;
  is_up_ = up;
  for (const auto& [sequence, record] : by_sequence_) {
    Peer& peer = *record->peer;
    if (up) {
      const std::scoped_lock lock(peer.mutex);
      const bool keep_alive = peer.timers.persistent_keepalive() > Duration::zero();
      if (keep_alive || !peer.staged.empty()) out.to_flush.push_back(FlushRequest{record->peer, keep_alive});
    } else {
      EndSessions(*record);
      const std::scoped_lock lock(peer.mutex);
      const Duration persistent = peer.timers.persistent_keepalive();
      peer.timers.StopAll();
      peer.timers.SetPersistentKeepalive(persistent);
      peer.last_handshake_sent_at.reset();
      exchange_.drops.Add(DropReason::kStagedExpired, PurgeStaged(peer));
    }
    if (!up) Reschedule(*record);
  }
  static_cast<void>(now);
}

void Tunnel::SetPrivateKey(const PrivateKey& key, Now now, ControlOutbox& out) {
  if (key.Clamped() == identity_.private_key()) return;
  identity_ = StaticIdentity(key);
  cookie_checker_.SetPublicKey(identity_.public_key());
  if (identity_.has_key() && HasPeer(identity_.public_key())) {
    RemovePeer(identity_.public_key());
    Publish();
  }
  const std::size_t most_to_send = out.to_network.size() + kInitiationsPerTurn;
  for (const auto& [sequence, record] : by_sequence_) {
    EndSessions(*record);
    record->handshake.OnIdentityChanged();
    const bool is_full = out.to_network.size() >= most_to_send;
    bool is_needed = false;
    {
      const std::scoped_lock lock(record->peer->mutex);
      PeerTimers& timers = record->peer->timers;
      record->peer->last_handshake_sent_at.reset();
      is_needed = is_up_ && (!record->peer->staged.empty() || timers.persistent_keepalive() > Duration::zero());
      if (is_needed && is_full) timers.OnHandshakeNeeded(now.boot);
    }
    if (is_needed && !is_full) SendInitiation(*record, /*is_retry=*/false, now, out);
    Reschedule(*record);
  }
}

void Tunnel::ForgetSources() {
  for (const auto& [sequence, record] : by_sequence_) {
    const std::scoped_lock lock(record->peer->mutex);
    record->peer->route_link = 0;
    if (record->peer->endpoint) record->peer->endpoint->source = {};
  }
}

// Only a change of the route's link abandons: who has always answered from an address of one link by another goes on,
// as does an address that stands on no link of its own (a service address on lo). A source that was forgotten already
// is judged as the peer showed it last, because a new uplink comes in several changes, the route after the address.
void Tunnel::JudgeSource(Record& record, Instant now, const FindLinks& find_links) {
  Peer& peer = *record.peer;
  Endpoint path;
  {
    const std::scoped_lock lock(peer.mutex);
    if (!peer.endpoint) return;
    path = *peer.endpoint;
  }
  if (path.source.is_set()) record.shown_source = path.source;
  const bool is_same_family = record.shown_source.ip.is_v4() == path.remote.ip.is_v4();
  path.source = is_same_family ? record.shown_source : LocalSource{};
  const LinksOfPath links = find_links(path);
  record.judged_route = RouteFound{path.remote.ip, links.route};
  if (links.route == 0) return;
  const bool route_moved = std::exchange(record.route_link, links.route) != links.route;
  if (!path.source.is_set()) return;
  const std::scoped_lock lock(peer.mutex);
  if (links.route == path.source.interface_index) {
    peer.abandoned_until = {};  // it is back
  } else if (route_moved && links.home == path.source.interface_index) {
    peer.abandoned_source = path.source;
    peer.abandoned_until = now + kAbandonFor;
  }
}

void Tunnel::SettleRoute(Record& record) {
  const RouteFound found = std::exchange(record.judged_route, {});
  if (found.link == 0) return;
  const std::scoped_lock lock(record.peer->mutex);
  record.peer->route_to = found.to;
  record.peer->route_link = found.link;
}

void Tunnel::OnResumed(Now now, ControlOutbox& out) {
  ForgetSources();
  if (!is_up_) return;
  const std::size_t most_to_send = out.to_network.size() + kInitiationsPerTurn;
  std::size_t left = kAnnouncedPeers;
  for (const auto& [sequence, record] : by_sequence_) {
    if (!record->last_handshake) continue;
    if (left-- == 0) return;
    if (out.to_network.size() < most_to_send) {
      SendInitiation(*record, /*is_retry=*/false, now, out);
    } else {
      const std::scoped_lock lock(record->peer->mutex);
      record->peer->timers.OnHandshakeNeeded(now.boot);
    }
    Reschedule(*record);
  }
}

void Tunnel::ForgetLinks() {
  for (const auto& [sequence, record] : by_sequence_) {
    const std::scoped_lock lock(record->peer->mutex);
    record->peer->route_link = 0;
    if (record->peer->endpoint) record->peer->endpoint->holds_link = false;
  }
}

void Tunnel::OnLinkFound(const LinkQuestion& question, std::uint32_t link) {
  Peer& peer = *question.peer;
  const std::scoped_lock lock(peer.mutex);
  peer.route_to = question.path.remote.ip;
  peer.route_link = link;
  if (peer.endpoint) peer.endpoint->holds_link = peer.endpoint->source.is_set() && peer.IsRouteLink(*peer.endpoint);
}

void Tunnel::OnNetworkChanged(Now now, const FindLinks& find_links, ControlOutbox& out) {
  if (now.boot - judging_since_ >= kAnnounceInterval) judging_since_ = now.boot, judged_ = 0;
  for (const auto& [sequence, record] : by_sequence_) {
    if (judged_ >= kJudgedPeers) break;
    ++judged_;
    JudgeSource(*record, now.boot, find_links);
  }
  ForgetSources();
  for (const auto& [sequence, record] : by_sequence_) SettleRoute(*record);
  network_changed_at_ = now.boot;
  if (announced_at_ && now.boot - *announced_at_ < kAnnounceInterval) {
    announce_at_ = *announced_at_ + kAnnounceInterval;
  } else {
    Announce(now, out);
  }
}

void Tunnel::Announce(Now now, ControlOutbox& out) {
  announced_at_ = now.boot;
  announce_at_.reset();
  if (!is_up_) return;
  std::size_t left = kAnnouncedPeers;
  for (const auto& [sequence, record] : by_sequence_) {
    if (left == 0) return;
    if (record->is_initiation_unsent && TakesTurnAgain(*record->peer)) {
      SendInitiation(*record, /*is_retry=*/true, now, out);
      Reschedule(*record);
      --left;
      continue;
    }
    const std::scoped_lock lock(record->peer->mutex);
    const auto& current = record->peer->keypairs.current;
    if (!current || current->IsExpired(now.boot, exchange_.limits)) continue;
    if (current->created_at > network_changed_at_) continue;  // its handshake came from where we are
    out.to_flush.push_back(FlushRequest{record->peer, /*keepalive_if_none=*/true});
    --left;
  }
}

void Tunnel::EndSessions(Record& record) {
  std::vector<std::shared_ptr<Keypair>> retired;
  {
    const std::scoped_lock lock(record.peer->mutex);
    record.peer->keypairs.TakeAll(retired);
    for (auto& old : record.peer->retired) retired.push_back(std::move(old));
    record.peer->retired.clear();
  }
  for (const auto& old : retired) exchange_.sessions.Remove(old->local_index);
  ForgetHandshakeIndex(record);
  record.handshake.Clear();
}

void Tunnel::ForgetHandshakeIndex(Record& record) {
  if (!record.handshake_index) return;
  handshakes_by_index_.erase(*record.handshake_index);
  record.handshake_index.reset();
}

// ---- peers

bool Tunnel::AddPeer(const PublicKey& key) {
  if (by_key_.contains(key)) return true;
  if (by_key_.size() >= kMaxPeers || (identity_.has_key() && key == identity_.public_key())) return false;
  if (free_ids_.empty()) {
    free_ids_.push_back(static_cast<PeerId>(by_id_.size()));
    by_id_.push_back(nullptr);
  }
  const PeerId id = free_ids_.back();
  free_ids_.pop_back();
  auto record = std::make_unique<Record>(std::make_shared<Peer>(id, key, exchange_.limits), next_sequence_++, identity_,
                                         exchange_.limits);
  by_id_[id] = record.get();
  by_sequence_.emplace(record->sequence, record.get());
  by_key_.emplace(key, std::move(record));
  return true;
}

void Tunnel::RemovePeer(const PublicKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return;
  Record& record = *found->second;
  EndSessions(record);
  {
    const std::scoped_lock lock(record.peer->mutex);
    record.peer->is_removed = true;
    record.peer->timers.StopAll();
    PurgeStaged(*record.peer);
  }
  if (record.scheduled_at) timeouts_.erase({*record.scheduled_at, record.sequence});
  allowed_ips_.RemovePeer(record.peer->id);
  by_id_[record.peer->id] = nullptr;
  free_ids_.push_back(record.peer->id);
  by_sequence_.erase(record.sequence);
  by_key_.erase(found);
}

void Tunnel::RemoveAllPeers() {
  while (!by_key_.empty()) RemovePeer(PublicKey(by_key_.begin()->first));
}

void Tunnel::SetPresharedKey(const PublicKey& key, const PresharedKey& psk) {
  Record& record = FindByKey(key);
  record.preshared_key = psk;
  record.handshake.SetPresharedKey(psk);
}

void Tunnel::SetEndpoint(const PublicKey& key, const SocketAddress& remote) {
  Peer& peer = *FindByKey(key).peer;
  const std::scoped_lock lock(peer.mutex);
  if (!peer.endpoint || peer.endpoint->remote != remote) peer.endpoint = Endpoint{remote, {}};
}

void Tunnel::Redirect(const PublicKey& key, const SocketAddress& remote, Now now, ControlOutbox& out) {
  SetEndpoint(key, remote);
  Record& record = FindByKey(key);
  if (!TakesTurnAgain(*record.peer)) return;
  SendInitiation(record, true, now, out);
  Reschedule(record);
}

PeerReach Tunnel::ReachOf(const PublicKey& key) const {
  const Record& record = *by_key_.at(key);
  PeerReach reach;
  reach.last_handshake = record.last_handshake;
  reach.rx_bytes = record.peer->rx_bytes.load(std::memory_order_relaxed);
  reach.tx_bytes = record.peer->tx_bytes.load(std::memory_order_relaxed);
  const std::scoped_lock lock(record.peer->mutex);
  reach.is_trying = record.peer->timers.IsSet(Timer::kRetransmitHandshake);
  if (record.peer->endpoint) reach.endpoint = record.peer->endpoint->remote;
  return reach;
}

std::vector<SocketAddress> Tunnel::Endpoints() const {
  std::vector<SocketAddress> endpoints;
  for (const auto& [key, record] : by_key_) {
    const std::scoped_lock lock(record->peer->mutex);
    if (record->peer->endpoint) endpoints.push_back(record->peer->endpoint->remote);
  }
  return endpoints;
}

void Tunnel::SetPersistentKeepalive(const PublicKey& key, Duration interval, Now now, ControlOutbox& out) {
  Record& record = FindByKey(key);
  bool was_off = false;
  {
    const std::scoped_lock lock(record.peer->mutex);
    was_off = record.peer->timers.persistent_keepalive() == Duration::zero();
    record.peer->timers.SetPersistentKeepalive(interval);
  }
  if (was_off && interval > Duration::zero() && is_up_) out.to_flush.push_back(FlushRequest{record.peer, true});
  Reschedule(record);
  static_cast<void>(now);
}

void Tunnel::AllowIp(const PublicKey& key, const Prefix& prefix) {
  allowed_ips_.Insert(prefix, FindByKey(key).peer->id);
}

void Tunnel::DisallowIp(const PublicKey& key, const Prefix& prefix) {
  allowed_ips_.Remove(prefix, FindByKey(key).peer->id);
}

void Tunnel::DisallowAllIps(const PublicKey& key) { allowed_ips_.RemovePeer(FindByKey(key).peer->id); }

void Tunnel::SendWaiting(const PublicKey& key, ControlOutbox& out) {
  const auto& peer = FindByKey(key).peer;
  if (!out.to_flush.empty() && out.to_flush.back().peer == peer) return;  // it goes already
  const std::scoped_lock lock(peer->mutex);
  // Neither timer runs: the persistent keepalive fell due when there was nowhere to send it.
  const bool owes_keepalive = peer->timers.persistent_keepalive() > Duration::zero() && peer->endpoint &&
                              !peer->timers.IsSet(Timer::kPersistentKeepalive) &&
                              !peer->timers.IsSet(Timer::kRetransmitHandshake);
  if (owes_keepalive || !peer->staged.empty()) out.to_flush.push_back(FlushRequest{peer, owes_keepalive});
}

void Tunnel::Publish() {
  auto table = std::make_shared<PeerTable>();
  table->allowed_ips = allowed_ips_.Build();
  table->peers.resize(by_id_.size());
  for (const auto& [sequence, record] : by_sequence_) table->peers[record->peer->id] = record->peer;
  exchange_.peers.Publish(std::move(table));
}

std::vector<PeerView> Tunnel::View() const {
  std::vector<PeerView> views;
  views.reserve(by_sequence_.size());
  for (const auto& [sequence, record] : by_sequence_) {
    PeerView& view = views.emplace_back();
    view.public_key = record->peer->public_key;
    view.preshared_key = record->preshared_key;
    view.last_handshake = record->last_handshake;
    view.rx_bytes = record->peer->rx_bytes.load(std::memory_order_relaxed);
    view.tx_bytes = record->peer->tx_bytes.load(std::memory_order_relaxed);
    view.allowed_ips = allowed_ips_.PrefixesOf(record->peer->id);
    const std::scoped_lock lock(record->peer->mutex);
    if (record->peer->endpoint) view.endpoint = record->peer->endpoint->remote;
    view.persistent_keepalive = record->peer->timers.persistent_keepalive();
  }
  return views;
}

Tunnel::Record* Tunnel::FindById(PeerId id) { return id < by_id_.size() ? by_id_[id] : nullptr; }

Tunnel::Record& Tunnel::FindByKey(const PublicKey& key) {
  const auto found = by_key_.find(key);
  CHECK(found != by_key_.end());
  return *found->second;
}

}  // namespace adit
