#include "tunnel/peer.h"

#include <iterator>
#include <utility>

namespace adit {
namespace {

// Puts the peer in front of the control thread if there is news for it, or a deadline before its next look.
// REQUIRES: the peer's mutex is held.
bool NotifyIfNeeded(const std::shared_ptr<Peer>& peer, ControlInbox& inbox) {
  const auto deadline = peer->timers.NextDeadline();
  const bool is_early = deadline && (!peer->scheduled_at || *deadline < *peer->scheduled_at);
  const bool has_news = peer->wants_handshake || peer->is_newly_confirmed || !peer->retired.empty();
  return (is_early || has_news) && inbox.Push(peer);
}

void RequestHandshake(Peer& peer, Instant now) {
  // As long as somebody has something to send, we do not give up (CONF-37).
  peer.timers.OnHandshakeRequested();
  // Asking again within REKEY_TIMEOUT would only wake the control thread for nothing (paper, 6.4).
  if (!peer.last_handshake_sent_at || now - *peer.last_handshake_sent_at >= peer.limits.rekey_timeout) {
    peer.wants_handshake = true;
  }
}

}  // namespace

void Keypairs::Install(std::shared_ptr<Keypair> fresh, std::vector<std::shared_ptr<Keypair>>& retired) {
  const auto retire = [&retired](std::shared_ptr<Keypair>& slot) {
    if (slot) retired.push_back(std::move(slot));
    slot.reset();
  };
  retire(previous);
  if (fresh->is_initiator) {
    // The response proved that the peer holds the keys: the new session sends at once. If one of our own
    // responses was still unconfirmed, it is kept for what may yet come in under it.
    if (next) {
      retire(current);
      previous = std::move(next);
      next.reset();
    } else {
      previous = std::move(current);
    }
    current = std::move(fresh);
  } else {
    retire(next);
    next = std::move(fresh);
  }
}

bool Keypairs::Promote(const std::shared_ptr<Keypair>& used, std::vector<std::shared_ptr<Keypair>>& retired) {
  if (!next || used != next) return false;
  if (previous) retired.push_back(std::move(previous));
  previous = std::move(current);
  current = std::move(next);
  next.reset();
  return true;
}

void Keypairs::TakeAll(std::vector<std::shared_ptr<Keypair>>& retired) {
  for (auto* slot : {&previous, &current, &next}) {
    if (*slot) retired.push_back(std::move(*slot));
    slot->reset();
  }
}

bool ControlInbox::Push(const std::shared_ptr<Peer>& peer) {
  if (peer->is_in_inbox) return false;
  peer->is_in_inbox = true;
  const std::scoped_lock lock(mutex_);
  peers_.push_back(peer);
  return peers_.size() == 1;
}

std::shared_ptr<Peer> ControlInbox::Pop() {
  std::shared_ptr<Peer> peer;
  {
    const std::scoped_lock lock(mutex_);
    if (peers_.empty()) return nullptr;
    peer = std::move(peers_.front());
    peers_.pop_front();
  }
  // What is said of it from here on puts it into the inbox again; what was said before is known to who takes it out.
  const std::scoped_lock lock(peer->mutex);
  peer->is_in_inbox = false;
  return peer;
}

bool ControlInbox::empty() const {
  const std::scoped_lock lock(mutex_);
  return peers_.empty();
}

SendVerdict BeginSend(const std::shared_ptr<Peer>& peer, std::size_t count, bool is_data, Instant now, Jitter& jitter,
                      ControlInbox& inbox, SendGrant& grant, bool& wake_control) {
  const std::scoped_lock lock(peer->mutex);
  const ProtocolLimits& limits = peer->limits;
  if (peer->is_removed) return SendVerdict::kRemoved;
  if (!peer->endpoint) return SendVerdict::kNoEndpoint;
  grant.endpoint = *peer->endpoint;
  if (count == 0 && peer->staged.empty()) return SendVerdict::kGranted;  // and the timers have nothing to hear

  const auto& current = peer->keypairs.current;
  std::optional<std::uint64_t> first;
  if (current && !current->IsExpired(now, limits)) {
    first = current->ReserveCounters(peer->staged.size() + count, limits);
  }
  if (!first) {
    RequestHandshake(*peer, now);
    // A response of ours may have been the last handshake message: if it is never confirmed, nobody else will try again
    // for what waits now.
    if (!peer->wants_handshake && !peer->timers.IsSet(Timer::kRetransmitHandshake)) {
      peer->timers.OnHandshakeInitiated(*peer->last_handshake_sent_at, jitter.UpTo(limits.handshake_jitter));
    }
    wake_control |= NotifyIfNeeded(peer, inbox);
    return SendVerdict::kNeedsHandshake;
  }

  grant.keypair = current;
  grant.first_counter = *first;
  if (!peer->staged.empty()) {  // seldom, and an empty deque allocates
    grant.staged.assign(std::move_iterator(peer->staged.begin()), std::move_iterator(peer->staged.end()));
    peer->staged.clear();
    peer->staged_bytes = 0;
  }

  if (is_data || !grant.staged.empty()) {
    if (!peer->timers.IsSet(Timer::kNewHandshake)) peer->timers.OnDataSent(now, jitter.UpTo(limits.handshake_jitter));
  }
  peer->timers.OnAuthenticatedPacketSent();
  peer->timers.OnAuthenticatedPacketEitherWay(now);
  const bool is_old = current->is_initiator && now - current->created_at >= limits.rekey_after_time;
  if (is_old || current->next_send_counter() > limits.rekey_after_messages) RequestHandshake(*peer, now);
  wake_control |= NotifyIfNeeded(peer, inbox);
  return SendVerdict::kGranted;
}

void ForgetSource(Peer& peer, const Endpoint& used) {
  const std::scoped_lock lock(peer.mutex);
  if (!peer.endpoint || peer.endpoint->remote != used.remote || peer.endpoint->source != used.source) return;
  peer.endpoint->source = {};
}

ReceiveVerdict OnReceived(const std::shared_ptr<Peer>& peer, const std::shared_ptr<Keypair>& keypair,
                          const ReceivedFacts& facts, Instant now, ControlInbox& inbox, bool& wake_control) {
  const std::scoped_lock lock(peer->mutex);
  ReceiveVerdict verdict;
  if (peer->is_removed) {
    verdict.is_removed = true;
    return verdict;
  }
  peer->endpoint = peer->AnswerTo(facts.from, now);
  if (peer->keypairs.Promote(keypair, peer->retired)) {
    peer->timers.OnHandshakeComplete();
    peer->is_newly_confirmed = true;
    verdict.flush_staged = !peer->staged.empty();
  }

  const ProtocolLimits& limits = peer->limits;
  PeerTimers& timers = peer->timers;
  const auto& current = peer->keypairs.current;
  if (!timers.sent_lastminute_handshake && current && current->is_initiator &&
      now - current->created_at >= limits.reject_after_time - limits.keepalive_timeout - limits.rekey_timeout) {
    timers.sent_lastminute_handshake = true;
    RequestHandshake(*peer, now);
  }
  timers.OnAuthenticatedPacketReceived();
  timers.OnAuthenticatedPacketEitherWay(now);
  if (facts.has_data) timers.OnDataReceived(now);
  wake_control |= NotifyIfNeeded(peer, inbox);
  return verdict;
}

}  // namespace adit
