#include "observer.h"

#include <algorithm>

#include "base/check.h"
#include "base/endian.h"

namespace adit::sim {
namespace {

const PeerSnapshot* Find(const Snapshot& snapshot, HostId remote) {
  const auto found = std::ranges::find(snapshot, remote, &PeerSnapshot::remote);
  return found == snapshot.end() ? nullptr : &*found;
}

bool HasMac2(const Arrived& arrived) {
  const Bytes mac2 = Bytes(arrived.head).last(sizeof(Mac));
  return !arrived.is_mac2_altered && std::ranges::any_of(mac2, [](std::uint8_t byte) { return byte != 0; });
}

// The stamp in an initiation (checklist, 59): rounded down to 2^24 ns, and never the same twice.
constexpr std::uint32_t kStampStep = 1u << 24;
WallTime Rounded(WallTime wall) { return {wall.seconds, wall.nanoseconds / kStampStep * kStampStep}; }
WallTime After(WallTime stamp) {
  stamp.nanoseconds += kStampStep;
  return stamp.nanoseconds < 1'000'000'000 ? stamp : WallTime{stamp.seconds + 1, 0};
}

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

Observer::Observer(const Simulator& simulator, const ProtocolLimits& limits, std::size_t hosts, Duration slack)
    : simulator_(simulator),
      limits_(limits),
      slack_(slack),
      hosts_(hosts),
      pairs_(hosts * hosts),
      session_by_local_index_(hosts) {}

// ---- what a host is told

void Observer::OnStarted(HostId host, const PublicKey& key) {
  HostModel& model = hosts_[host];
  model.key = key;
  model.is_running = true;
  model.is_up = model.is_suspended = false;
  ++model.incarnation;
  model.awake_since = now();
  model.under_load_until = Instant();
  Activity(host);
}

void Observer::OnStopped(HostId host) {
  for (HostId remote = 0; remote < hosts_.size(); ++remote) Forget(host, remote);
  hosts_[host].is_running = hosts_[host].is_up = false;
}

void Observer::OnPeerAdded(HostId host, HostId remote, const PublicKey& key) {
  Forget(host, remote);
  Pair& p = pair(host, remote);
  p.is_configured = true;
  p.remote_key = key;
  Activity(host);
}

void Observer::OnPeerRemoved(HostId host, HostId remote) {
  Forget(host, remote);
  Activity(host);
}

void Observer::OnKeyChanged(HostId host, const PublicKey& key) {
  hosts_[host].key = key;
  for (HostId remote = 0; remote < hosts_.size(); ++remote) {
    EndSessions(host, remote);
    Pair& p = pair(host, remote);
    p.handshake_sent_at.reset();
    p.unanswered_since.reset();
    OnStimulus(host, p);
  }
  Activity(host);
}

void Observer::OnPresharedKey(HostId host, HostId remote, std::uint64_t version) { pair(host, remote).psk = version; }

void Observer::OnPersistentKeepalive(HostId host, HostId remote, Duration interval) {
  Pair& p = pair(host, remote);
  p.keepalive = interval;
  p.keepalive_since = now();
  p.keepalive_excused_until = now() + slack_;
  ExpectKeepaliveAtOnce(host, p);
}

void Observer::OnUp(HostId host) {
  hosts_[host].is_up = true;
  for (HostId remote = 0; remote < hosts_.size(); ++remote) {
    pair(host, remote).keepalive_since = now();
    pair(host, remote).keepalive_excused_until = now() + slack_;
    ExpectKeepaliveAtOnce(host, pair(host, remote));
  }
  Activity(host);
}

// A keepalive, or the handshake that it needs first, as soon as that may be sent (checklist, 36 and 47).
void Observer::ExpectKeepaliveAtOnce(HostId host, Pair& p) {
  p.keepalive_due.reset();
  if (p.keepalive == Duration(0) || !p.is_configured || !hosts_[host].is_up) return;
  p.keepalive_due = IsCurrentValid(host, p) ? now() : HandshakeDue(p);
}

// When a handshake that something waits for must have begun: at once, or when our last handshake message is old enough.
// If that was a response, it is the first turn of an attempt.
Instant Observer::HandshakeDue(Pair& p) {
  if (now() >= NextTurn(p)) return now();
  if (!p.is_attempting) p.turns_in_attempt = 1;
  p.is_attempting = true;
  return NextTurn(p) + limits_.handshake_jitter;
}

void Observer::OnDown(HostId host) {
  hosts_[host].is_up = false;
  for (HostId remote = 0; remote < hosts_.size(); ++remote) {
    EndSessions(host, remote);
    Pair& p = pair(host, remote);
    p.handshake_sent_at.reset();
    p.is_attempting = false;
    p.handshake_due.reset();
    p.keepalive_due.reset();
    p.owed_since.reset();
    p.unanswered_since.reset();
  }
}

void Observer::OnSuspended(HostId host) { hosts_[host].is_suspended = true; }

void Observer::OnResumed(HostId host) {
  HostModel& model = hosts_[host];
  model.is_suspended = false;
  model.awake_since = now();
  for (HostId remote = 0; remote < hosts_.size(); ++remote) {
    Pair& p = pair(host, remote);
    p.keepalive_since = now();
    p.keepalive_excused_until = now() + slack_;
    p.handshake_due.reset();
    p.keepalive_due.reset();
  }
  Activity(host);
}

void Observer::OnInnerPacket(HostId host, HostId remote, bool has_endpoint) {
  Pair& p = pair(host, remote);
  Activity(host);
  if (!p.is_configured || !hosts_[host].is_up) return;
  OnStimulus(host, p);
  if (!IsCurrentValid(host, p) && has_endpoint && !p.handshake_due) p.handshake_due = HandshakeDue(p);
}

void Observer::OnFlush(HostId host, HostId remote) {
  if (remote == kNobody) return;
  OnStimulus(host, pair(host, remote));
}

Instant Observer::NextTurn(const Pair& p) const {
  return p.handshake_sent_at ? *p.handshake_sent_at + limits_.rekey_timeout + p.gives_way : Instant();
}

// Something that starts the count of initiations anew (checklist, 37).
void Observer::OnStimulus(HostId host, Pair& p) {
  p.initiations_since_stimulus = 0;
  // 15 s of silence start an attempt of their own, up to three initiations after this one.
  p.allowed_initiations = limits_.max_handshake_retries + 2 + (IsCurrentValid(host, p) || p.unanswered_since ? 4 : 0);
}

// ---- the slots

void Observer::Forget(HostId host, HostId remote) {
  EndSessions(host, remote);
  Pair& p = pair(host, remote);
  p = Pair();
  p.epoch = next_version_++;
}

void Observer::EndSessions(HostId host, HostId remote) {
  Pair& p = pair(host, remote);
  for (SessionId* slot : {&p.previous, &p.current, &p.next}) {
    // Taken out of the index table at once, unlike those that a data thread retires.
    if (*slot) sessions_[**slot].side(host).since.reset();
    slot->reset();
  }
  p.open_index.reset();
  p.confirmation_due.reset();
}

void Observer::Retire(HostId host, SessionId& slot) {
  if (slot) sessions_[*slot].side(host).gone_at = now();
  slot.reset();
}

void Observer::InstallAsInitiator(HostId host, HostId remote, std::size_t session) {
  Pair& p = pair(host, remote);
  Retire(host, p.previous);
  if (p.next) {
    Retire(host, p.current);
    p.previous = p.next;
    p.next.reset();
  } else {
    p.previous = p.current;
  }
  p.current = session;
  p.derived_at = p.installed_at = now();
}

void Observer::InstallAsResponder(HostId host, HostId remote, std::size_t session) {
  Pair& p = pair(host, remote);
  Retire(host, p.previous);
  Retire(host, p.next);
  p.next = session;
  p.derived_at = p.installed_at = now();
}

void Observer::Promote(HostId host, HostId remote) {
  Pair& p = pair(host, remote);
  Retire(host, p.previous);
  p.previous = p.current;
  p.current = p.next;
  p.next.reset();
  p.is_attempting = false;
  p.installed_at = now();
  p.handshake_due.reset();
  p.keepalive_due.reset();  // the peer's packet has set the timer
}

bool Observer::IsCurrentValid(HostId host, const Pair& p) const {
  if (!p.current) return false;
  const SessionModel& session = sessions_[*p.current];
  const Side& side = session.sides[host == session.initiator ? 0 : 1];
  return side.since && now() - *side.since < limits_.reject_after_time;
}

bool Observer::HasSession(HostId host, HostId remote) const { return IsCurrentValid(host, pair(host, remote)); }

bool Observer::IsStaleFor(HostId host, std::uint64_t id) const {
  const Original& original = originals_[id - 1];
  return original.receiver == host && original.accepted_epoch == pair(host, original.sender).epoch;
}

// ---- what leaves

std::uint64_t Observer::OnDataLeaves(HostId host, HostId remote, Bytes message, Bytes send_key) {
  const auto header = LoadAs<DataHeader>(message.data());
  const std::uint64_t counter = header.counter;
  const bool is_keepalive = message.size() == kKeepaliveBytes;
  Pair& p = pair(host, remote);
  Digest(message);
  Activity(host);

  if (!p.current || sessions_[*p.current].remote_index(host) != header.receiver_index) {
    const bool is_unconfirmed = p.next && sessions_[*p.next].remote_index(host) == header.receiver_index;
    Violate(Check::kSlots, host, "data to host {} with index {:08x}, {}", remote, std::uint32_t{header.receiver_index},
            is_unconfirmed ? "which the initiator has not confirmed" : "which is not the current session's");
  }
  SessionModel& session = sessions_[*p.current];
  const Duration age = now() - *session.side(host).since;
  if (age >= limits_.reject_after_time) {
    Violate(Check::kKeyAge, host, "data to host {} under a key of {:.3f} s", remote, Seconds(age));
  }
  if (counter >= limits_.reject_after_messages) {
    Violate(Check::kKeyAge, host, "data to host {} with counter {}", remote, counter);
  }
  const auto [sealed, is_first] = sealed_.try_emplace(LoadAs<U64Le>(send_key.data()), counter);
  if (!is_first) {
    if (counter <= sealed->second) {
      Violate(Check::kSealedOnce, host, "counter {} to host {}, after {}", counter, remote, sealed->second);
    }
    sealed->second = counter;
  }

  const bool is_passive = p.owed_since && now() - *p.owed_since >= limits_.keepalive_timeout - slack_;
  if (is_keepalive && now() > p.keepalive_excused_until && !is_passive && !p.confirmation_due) {
    const bool is_persistent = p.keepalive > Duration(0) && p.either_way_at && now() - *p.either_way_at >= p.keepalive;
    const bool is_another = p.other_keepalives > 0 && now() >= p.another_keepalive_from;
    if (is_another) {
      --p.other_keepalives;
      p.another_keepalive_from = now() + limits_.keepalive_timeout - slack_;
    }
    if (!is_persistent && !is_another)
      Violate(Check::kKeepaliveReason, host, "a keepalive to host {} that nobody asked for", remote);
  }
  // Data that came after the first may be acknowledged once more, KEEPALIVE_TIMEOUT later (checklist, 43); and again if
  // it came while the keepalive was on its way from one thread to another.
  if (is_keepalive && p.owed_since && (p.owes_more || !is_passive)) {
    p.another_keepalive_from = now() + limits_.keepalive_timeout - slack_;
    p.other_keepalives = 2;
  }
  if (p.confirmation_due) p.keepalive_excused_until = now() + slack_;
  p.confirmation_due.reset();
  OnAuthenticSent(p);
  if (!is_keepalive && !p.unanswered_since) p.unanswered_since = now();

  Original& original = originals_.emplace_back();
  original.sender = host;
  original.receiver = remote;
  original.session = p.current;
  original.counter = counter;
  original.has_data = !is_keepalive;
  return originals_.size();
}

std::uint64_t Observer::OnHandshakeLeaves(HostId host, HostId remote, Bytes message, WallTime wall) {
  Digest(message);
  Activity(host);
  Original original;
  original.sender = host;
  original.receiver = remote;
  original.type = *ParseMessage(message);
  original.sender_key = hosts_[host].key;
  if (remote != kNobody) {
    Pair& p = pair(host, remote);
    original.receiver_key = p.remote_key;
    original.psk = p.psk;
    if (original.type == MessageType::kInitiation) {
      OnInitiationLeaves(host, remote, LoadAs<InitiationMessage>(message.data()), wall);
      original.stamp = p.sent_stamp;
    } else {
      const auto response = LoadAs<ResponseMessage>(message.data());
      if (!ephemerals_.insert(response.ephemeral).second) {
        Violate(Check::kFreshInitiation, host, "a response with an ephemeral key that was used before");
      }
      original.session = session_by_local_index_[host].at(response.sender_index);
    }
    p.handshake_sent_at = now();
    // A response takes the turn of the initiation that was due.
    if (p.handshake_due) p.handshake_due = NextTurn(p) + limits_.handshake_jitter;
    OnAuthenticSent(p);
  }
  originals_.push_back(original);
  return originals_.size();
}

void Observer::OnInitiationLeaves(HostId host, HostId remote, const InitiationMessage& message, WallTime wall) {
  Pair& p = pair(host, remote);
  p.sent_stamp = std::max(Rounded(wall), After(p.sent_stamp));
  ++initiations_;
  if (!hosts_[host].is_up) Violate(Check::kInitiationReason, host, "an initiation to host {} while down", remote);
  if (p.handshake_sent_at && now() - *p.handshake_sent_at < limits_.rekey_timeout) {
    Violate(Check::kInitiationRate, host, "an initiation to host {} {:.3f} s after the last handshake message", remote,
            Seconds(now() - *p.handshake_sent_at));
  }
  if (!hosts_[host].indices.insert(message.sender_index).second) {
    Violate(Check::kFreshInitiation, host, "an initiation with an index that was used before");
  }
  if (!ephemerals_.insert(message.ephemeral).second) {
    Violate(Check::kFreshInitiation, host, "an initiation with an ephemeral key that was used before");
  }
  if (++p.initiations_since_stimulus > p.allowed_initiations) {
    Violate(Check::kAttemptLength, host, "initiation {} to host {} in one attempt, {} allowed",
            p.initiations_since_stimulus, remote, p.allowed_initiations);
  }

  // While a good session stands, only these are reasons (checklist, 38, 40, 41, 45).
  if (IsCurrentValid(host, p)) {
    SessionModel& session = sessions_[*p.current];
    const Duration age = now() - *session.side(host).since;
    const bool is_old = session.initiator == host && age >= limits_.rekey_after_time;
    // Counted from the last handshake message, because a response of ours may have taken a retry's turn.
    const bool is_retry = p.is_attempting && now() <= NextTurn(p) + limits_.handshake_jitter + slack_;
    const bool is_silent =
        p.unanswered_since && now() - *p.unanswered_since >= limits_.keepalive_timeout + limits_.rekey_timeout;
    // A thread asked for it, and another has completed a handshake since.
    const bool is_crossed = p.installed_at && now() - *p.installed_at <= slack_;
    const bool is_lowered = limits_.rekey_after_messages < kRekeyAfterMessages;
    if (!is_old && !is_retry && !is_silent && !is_crossed && !is_lowered && now() - hosts_[host].awake_since > slack_) {
      Violate(Check::kInitiationReason, host, "an initiation to host {} beside a session of {:.3f} s as {}", remote,
              Seconds(age), session.initiator == host ? "initiator" : "responder");
    }
  }
  p.gives_way = Duration(0);
  const Duration silence = limits_.keepalive_timeout + limits_.rekey_timeout;
  if (p.unanswered_since && now() - *p.unanswered_since >= silence) p.unanswered_since.reset();
  p.turns_in_attempt = p.is_attempting ? p.turns_in_attempt + 1 : 1;
  p.open_index = message.sender_index;
  p.is_attempting = true;
  p.handshake_due.reset();
}

// A keepalive that is due may cross, on its way between two threads, with whatever makes it unnecessary.
void Observer::ExcuseKeepalive(Pair& p) {
  const bool is_due = p.keepalive > Duration(0) && p.either_way_at && now() - *p.either_way_at >= p.keepalive;
  if (p.owed_since || is_due) p.keepalive_excused_until = now() + slack_;
}

void Observer::OnAuthenticSent(Pair& p) {
  ExcuseKeepalive(p);
  p.owed_since.reset();
  p.owes_more = false;
  p.keepalive_due.reset();
  p.either_way_at = now();
}

void Observer::OnAuthenticReceived(HostId host, Pair& p) {
  ExcuseKeepalive(p);
  p.unanswered_since.reset();
  p.either_way_at = now();
  OnStimulus(host, p);
}

// ---- what arrives

void Observer::RequireNoEffect(HostId host, const PeerSnapshot& before, const PeerSnapshot& after) const {
  if (before.endpoint != after.endpoint) {
    Violate(Check::kRoams, host, "the endpoint of host {} changed without an authentic packet", before.remote);
  }
  if (before.rx_bytes != after.rx_bytes) {
    Violate(Check::kNoEffect, host, "{} bytes more received from host {}", after.rx_bytes - before.rx_bytes,
            before.remote);
  }
  if (before.timers != after.timers || before.deadline != after.deadline) {
    Violate(Check::kNoEffect, host, "the timers of host {} changed without an authentic packet", before.remote);
  }
}

void Observer::OnDataArrived(HostId host, std::span<const Arrived> arrived, const Snapshot& before,
                             const Snapshot& after) {
  Activity(host);
  struct Expected {
    std::uint64_t must = 0, may = 0;
    bool has_data = false;
    std::vector<Original*> uncertain;
  };
  std::vector<Expected> expected(hosts_.size());
  for (const Arrived& datagram : arrived) {
    if (datagram.id == 0 || datagram.is_altered) continue;
    Original& original = originals_[datagram.id - 1];
    if (original.type != MessageType::kData || original.receiver != host || !original.session) continue;
    Pair& p = pair(host, original.sender);
    SessionModel& session = sessions_[*original.session];
    Side& side = session.side(host);
    if (!p.is_configured || !side.since || now() - *side.since >= limits_.reject_after_time ||
        original.counter >= limits_.reject_after_messages || original.accepted_epoch == p.epoch ||
        (side.greatest > original.counter && side.greatest - original.counter > kReplayWindowUsable)) {
      continue;
    }
    Expected& e = expected[original.sender];
    if (original.session == p.previous || original.session == p.current || original.session == p.next) {
      if (original.session == p.next) Promote(host, original.sender);
      e.must += datagram.bytes;
      e.has_data |= original.has_data;
      original.accepted_epoch = p.epoch;
      side.greatest = std::max(side.greatest, original.counter);
    } else if (side.gone_at && now() - *side.gone_at <= slack_) {
      // Retired, but the control thread may not have taken it out of the table yet.
      e.may += datagram.bytes;
      e.uncertain.push_back(&original);
    }
  }

  for (const PeerSnapshot& was : before) {
    const PeerSnapshot* is = Find(after, was.remote);
    CHECK(is != nullptr);
    Expected& e = expected[was.remote];
    const std::uint64_t received = is->rx_bytes - was.rx_bytes;
    if (received < e.must || received > e.must + e.may || (e.must + e.may == 0 && received != 0)) {
      Violate(Check::kAccepts, host, "accepted {} bytes from host {}, expected {}", received, was.remote, e.must);
    }
    if (received == 0) {
      RequireNoEffect(host, was, *is);
      continue;
    }
    if (received > e.must) {
      for (Original* original : e.uncertain) {
        original->accepted_epoch = pair(host, was.remote).epoch;
        e.has_data |= original->has_data;
      }
    }
    if (is->endpoint != arrived.front().from) {
      Violate(Check::kRoams, host, "an authentic packet of host {} came from {}, but its endpoint is {}", was.remote,
              arrived.front().from.ToString(), is->endpoint ? is->endpoint->ToString() : "none");
    }
    Pair& p = pair(host, was.remote);
    OnAuthenticReceived(host, p);
    if (e.has_data) {
      p.owes_more |= p.owed_since || arrived.size() > 1;
      if (!p.owed_since) p.owed_since = now();
    }
  }
}

void Observer::OnHandshakeHandled(HostId host, const Arrived& arrived, bool is_forced, std::span<const Bytes> answers,
                                  bool is_cookie_taken, const Snapshot& before, const Snapshot& after) {
  Activity(host);
  HostModel& model = hosts_[host];
  if (is_forced) model.under_load_until = now() + kUnderLoadHold;
  const bool is_under_load = now() < model.under_load_until;
  const MessageType type = *ParseMessage(arrived.head);

  // Who was believed, if anybody.
  HostId accepted_from = kNobody;
  for (const PeerSnapshot& was : before) {
    const PeerSnapshot* is = Find(after, was.remote);
    CHECK(is != nullptr);
    if (is->rx_bytes == was.rx_bytes) {
      RequireNoEffect(host, was, *is);
      continue;
    }
    if (is->rx_bytes != was.rx_bytes + arrived.bytes || accepted_from != kNobody) {
      Violate(Check::kNoEffect, host, "a handshake message counted wrongly for host {}", was.remote);
    }
    accepted_from = was.remote;
    if (type == MessageType::kCookieReply) {
      Violate(Check::kNoEffect, host, "a cookie reply was counted for host {}", was.remote);
    } else if (is->endpoint != arrived.from) {
      Violate(Check::kRoams, host, "a handshake message of host {} did not move it", was.remote);
    }
  }
  if (answers.size() > 1) Violate(Check::kCookie, host, "{} answers to one message", answers.size());
  const auto answer = answers.empty() ? std::nullopt : ParseMessage(answers.front());
  if (answer == MessageType::kCookieReply) {
    if (!is_under_load) Violate(Check::kCookie, host, "a cookie reply without load");
    if (answers.front().size() >= arrived.bytes) Violate(Check::kCookie, host, "a cookie reply that amplifies");
    if (accepted_from != kNobody) Violate(Check::kCookie, host, "a cookie reply to a message that was accepted");
  }
  const bool is_believed = accepted_from != kNobody || answer == MessageType::kResponse;
  if (is_believed && type != MessageType::kCookieReply && is_under_load && !HasMac2(arrived)) {
    Violate(Check::kCookie, host, "under load, and a message without mac2 was accepted");
  }

  switch (type) {
    case MessageType::kInitiation:
      HandleInitiation(host, arrived, is_under_load, answers);
      break;
    case MessageType::kResponse:
      if (answer && *answer != MessageType::kCookieReply) {
        Violate(Check::kResponseAccepted, host, "a response was answered with a message of type {}",
                static_cast<unsigned>(*answer));
      }
      HandleResponse(host, arrived, is_under_load, accepted_from != kNobody);
      break;
    case MessageType::kCookieReply:
      if (answer) Violate(Check::kCookie, host, "a cookie reply was answered at once");
      if (is_cookie_taken) {
        if (arrived.id == 0 || arrived.is_altered) Violate(Check::kNoEffect, host, "a forged cookie was accepted");
        Original& original = originals_[arrived.id - 1];
        if (original.accepted_epoch == model.incarnation)
          Violate(Check::kNoEffect, host, "a cookie was accepted twice");
        original.accepted_epoch = model.incarnation;
      }
      break;
    case MessageType::kData:
      CHECK(false);
  }
}

void Observer::HandleInitiation(HostId host, const Arrived& arrived, bool is_under_load,
                                std::span<const Bytes> answers) {
  const bool is_answered = !answers.empty() && ParseMessage(answers.front()) == MessageType::kResponse;
  const bool is_authentic = arrived.id != 0 && !arrived.is_altered && originals_[arrived.id - 1].receiver == host;
  if (!is_authentic) {
    if (is_answered) Violate(Check::kInitiationAnswer, host, "a forged or damaged initiation was answered");
    return;
  }
  Original& original = originals_[arrived.id - 1];
  const HostId remote = original.sender;
  Pair& p = pair(host, remote);
  const bool is_for_us = hosts_[host].is_up && p.is_configured && p.remote_key == original.sender_key &&
                         original.receiver_key == hosts_[host].key;
  const bool is_newer = original.stamp > p.accepted_stamp;
  const bool is_in_turn =
      !p.accepted_initiation_at || now() - *p.accepted_initiation_at >= limits_.min_initiation_interval;
  if (is_answered && !(is_for_us && is_newer && is_in_turn)) {
    Violate(Check::kInitiationAnswer, host, "an initiation of host {} was answered that is {}", remote,
            !is_for_us  ? "not for us"
            : !is_newer ? "stale"
                        : "too soon after the last");
  }
  if (!is_answered) {
    if (is_for_us && is_newer && is_in_turn && !is_under_load) {
      Violate(Check::kInitiationAnswer, host, "a good initiation of host {} was not answered", remote);
    }
    return;
  }
  p.accepted_stamp = original.stamp;
  p.accepted_initiation_at = now();
  original.accepted_epoch = p.epoch;

  const auto initiation = LoadAs<InitiationMessage>(arrived.head.data());
  const auto response = LoadAs<ResponseMessage>(answers.front().data());
  if (response.receiver_index != initiation.sender_index) {
    Violate(Check::kInitiationAnswer, host, "a response to another initiation");
  }
  if (!hosts_[host].indices.insert(response.sender_index).second) {
    Violate(Check::kFreshInitiation, host, "a response with an index that was used before");
  }
  const std::size_t id = sessions_.size();
  SessionModel& session = sessions_.emplace_back();
  session.initiator = remote;
  session.responder = host;
  session.initiator_index = initiation.sender_index;
  session.responder_index = response.sender_index;
  session.side(host).since = now();
  session_by_local_index_[host][response.sender_index] = id;
  InstallAsResponder(host, remote, id);
  ++p.turns_in_attempt;
  const bool have_crossed = p.open_index.has_value();
  p.gives_way = have_crossed && p.remote_key < hosts_[host].key ? kCrossedHandshakeDelay : Duration(0);
  p.open_index.reset();
  OnAuthenticReceived(host, p);
}

bool Observer::HandleResponse(HostId host, const Arrived& arrived, bool is_under_load, bool was_accepted) {
  const bool is_authentic = arrived.id != 0 && !arrived.is_altered && originals_[arrived.id - 1].receiver == host &&
                            originals_[arrived.id - 1].type == MessageType::kResponse;
  if (!is_authentic) {
    if (was_accepted) Violate(Check::kResponseAccepted, host, "a forged or damaged response was accepted");
    return false;
  }
  Original& original = originals_[arrived.id - 1];
  const HostId remote = original.sender;
  Pair& p = pair(host, remote);
  const auto response = LoadAs<ResponseMessage>(arrived.head.data());
  const bool is_expected =
      hosts_[host].is_up && p.is_configured && p.open_index == response.receiver_index && p.psk == original.psk;
  if (was_accepted && !is_expected) {
    Violate(Check::kResponseAccepted, host, "a response of host {} to no handshake of ours was accepted", remote);
  }
  if (!was_accepted) {
    if (is_expected && !is_under_load) {
      Violate(Check::kResponseAccepted, host, "the response of host {} was not accepted", remote);
    }
    return false;
  }
  original.accepted_epoch = p.epoch;
  SessionModel& session = sessions_[*original.session];
  session.side(host).since = now();
  session_by_local_index_[host][session.initiator_index] = *original.session;
  InstallAsInitiator(host, remote, *original.session);
  p.open_index.reset();
  p.is_attempting = false;
  p.handshake_due.reset();
  p.confirmation_due = now();
  OnAuthenticReceived(host, p);
  return true;
}

// ---- time

void Observer::OnWakeup(HostId host) {
  HostModel& model = hosts_[host];
  ++model.wakeups;
  model.wakeups_at_once = model.last_wakeup_at == now() ? model.wakeups_at_once + 1 : 1;
  model.last_wakeup_at = now();
  if (model.wakeups_at_once > 3) Violate(Check::kWakeups, host, "the timer goes off again and again");
}

void Observer::OnTimeoutsHandled(HostId host, const Snapshot& before, const Snapshot& after) {
  constexpr auto kZero = static_cast<std::size_t>(Timer::kZeroKeys);
  for (const PeerSnapshot& was : before) {
    const PeerSnapshot* is = Find(after, was.remote);
    CHECK(is != nullptr);
    if (!was.timers[kZero] || is->timers[kZero]) continue;
    Pair& p = pair(host, was.remote);
    if (p.derived_at && now() - *p.derived_at < 3 * limits_.reject_after_time) {
      Violate(Check::kZeroKeys, host, "the keys of host {} went after {:.3f} s", was.remote,
              Seconds(now() - *p.derived_at));
    }
    EndSessions(host, was.remote);
  }
}

void Observer::OnStep(HostId host, const Snapshot& snapshot, std::size_t sessions, std::size_t staged_bytes,
                      bool is_inbox_empty) {
  std::size_t in_slots = 0, waiting_bytes = 0;
  for (const PeerSnapshot& peer : snapshot) {
    const Pair& p = pair(host, peer.remote);
    const auto same = [&](const SessionId& model, const std::optional<std::uint32_t>& real) {
      in_slots += real.has_value();
      if (!model) return !real.has_value();
      return real == sessions_[*model].local_index(host);
    };
    if (!same(p.previous, peer.previous) || !same(p.current, peer.current) || !same(p.next, peer.next)) {
      Violate(Check::kSlots, host, "the sessions with host {} are not in the slots they should be in", peer.remote);
    }
    if (peer.staged > kMaxStagedPackets)
      Violate(Check::kStaged, host, "{} packets wait for host {}", peer.staged, peer.remote);
    waiting_bytes += peer.staged_bytes;
  }
  if (waiting_bytes != staged_bytes) {
    Violate(Check::kStaged, host, "{} bytes wait, {} are accounted for", waiting_bytes, staged_bytes);
  }
  if (is_inbox_empty ? sessions != in_slots : sessions < in_slots) {
    Violate(Check::kSessionCount, host, "{} sessions in the table, {} in slots", sessions, in_slots);
  }
}

void Observer::Sweep(HostId host, const Snapshot& snapshot) {
  HostModel& model = hosts_[host];
  if (!model.is_running || model.is_suspended) return;
  RequireWakeupRate(host);
  if (!model.is_up || now() - model.awake_since <= slack_) return;
  for (const PeerSnapshot& peer : snapshot) {
    Pair& p = pair(host, peer.remote);
    const auto is_late = [&](const std::optional<Instant>& since, Duration allowed) {
      return since && now() - *since > allowed + slack_ && now() - model.awake_since > slack_;
    };
    if (is_late(p.confirmation_due, Duration(0))) {
      Violate(Check::kKeyConfirmation, host, "nothing was sent to host {} under the new session", peer.remote);
    }
    if (is_late(p.handshake_due, Duration(0)) && peer.endpoint && !IsCurrentValid(host, p)) {
      Violate(Check::kHandshakeStarts, host, "a packet waits for host {} and no handshake was begun", peer.remote);
    }
    if (!peer.endpoint || IsCurrentValid(host, p)) p.handshake_due.reset();
    if (!peer.endpoint) p.keepalive_due.reset();
    const bool may_retry =
        p.is_attempting && p.handshake_sent_at && p.turns_in_attempt <= limits_.max_handshake_retries;
    if (may_retry && peer.endpoint && is_late(NextTurn(p), limits_.handshake_jitter)) {
      Violate(Check::kHandshakeStarts, host, "no answer of host {} to initiation {}, and no retry", peer.remote,
              p.turns_in_attempt);
    }
    if (is_late(p.keepalive_due, Duration(0)) && peer.endpoint) {
      Violate(Check::kPersistentKeepalive, host, "nothing was sent to host {} when its keepalive began", peer.remote);
    }
    if (is_late(p.owed_since, limits_.keepalive_timeout)) {
      const bool was_given_up = p.initiations_since_stimulus > limits_.max_handshake_retries;
      if (IsCurrentValid(host, p) && !was_given_up && limits_.reject_after_messages == kRejectAfterMessages) {
        Violate(Check::kPassiveKeepalive, host, "data of host {} is unacknowledged for {:.3f} s", peer.remote,
                Seconds(now() - *p.owed_since));
      }
      p.owed_since.reset();
    }
    const Duration silence = limits_.keepalive_timeout + limits_.rekey_timeout;
    if (is_late(p.unanswered_since, silence + limits_.handshake_jitter)) {
      // Within 5 s of another handshake message none is sent, and the timer is not set again.
      const bool is_excused = NextTurn(p) >= *p.unanswered_since + silence;
      if (!is_excused && peer.endpoint) {
        Violate(Check::kNoAnswer, host, "host {} is silent for {:.3f} s and no handshake was begun", peer.remote,
                Seconds(now() - *p.unanswered_since));
      }
      p.unanswered_since.reset();
    }
    if (p.keepalive > Duration(0) && peer.endpoint) {
      const Instant since = std::max(p.either_way_at.value_or(p.keepalive_since), p.keepalive_since);
      // Without a session the next one asks for a handshake, which may have to wait for its turn.
      const Duration wait =
          IsCurrentValid(host, p) ? Duration(0) : limits_.rekey_timeout + limits_.handshake_jitter + p.gives_way;
      const Duration allowed = p.keepalive + wait;
      if (now() - since > allowed + slack_) {
        Violate(Check::kPersistentKeepalive, host, "nothing sent to host {} for {:.3f} s, interval {:.0f} s",
                peer.remote, Seconds(now() - since), Seconds(p.keepalive));
      }
    }
    if ((p.previous || p.current || p.next) && is_late(p.derived_at, 3 * limits_.reject_after_time)) {
      Violate(Check::kZeroKeys, host, "the keys of host {} are {:.3f} s old", peer.remote,
              Seconds(now() - *p.derived_at));
    }
  }
}

// An idle tunnel must sleep. Whatever is sent or received may set a timer or two; beyond that only persistent
// keepalives and an attempt under way (one in five seconds) wake the control thread, and after 540 s and an attempt
// of silence nothing does.
void Observer::RequireWakeupRate(HostId host) {
  HostModel& model = hosts_[host];
  if (now() - model.minute_began < 60s) return;
  double allowed = 2 * static_cast<double>(model.activity);
  const bool is_deeply_idle = now() - model.active_at > 3 * limits_.reject_after_time + 180s;
  for (HostId remote = 0; remote < hosts_.size(); ++remote) {
    const Pair& p = pair(host, remote);
    if (!p.is_configured) continue;
    if (p.keepalive > Duration(0)) allowed += 2 * 60 / std::max(1.0, Seconds(p.keepalive));
    if (!is_deeply_idle) allowed += 16;
  }
  if (static_cast<double>(model.wakeups) > allowed) {
    Violate(Check::kWakeups, host, "{} wake-ups in a minute, {:.0f} allowed", model.wakeups, allowed);
  }
  model.minute_began = now();
  model.wakeups = model.activity = 0;
}

void Observer::Activity(HostId host) {
  ++hosts_[host].activity;
  hosts_[host].active_at = now();
}

void Observer::Digest(Bytes message) {
  digest_ = (digest_ ^ static_cast<std::uint64_t>(now().time_since_epoch().count())) * 0x100000001b3;
  for (const std::uint8_t byte : message.first(std::min<std::size_t>(message.size(), 48))) {
    digest_ = (digest_ ^ byte) * 0x100000001b3;
  }
}

}  // namespace adit::sim
