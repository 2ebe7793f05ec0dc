// Watches every message that leaves or reaches a host, keeps a plain model of what each host must know by now, and
// compares: the sessions in their three slots, which datagrams may be accepted, and when something must or must not be
// sent. It is a naive twin of the protocol core, written from the paper and the checklist and not from src/tunnel.
//
// It learns of a host's configuration from the host's own calls, of everything else from the wire and from snapshots of
// the core's peers before and after each step.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <unordered_map>
#include <vector>

#include "network.h"
#include "simulator.h"
#include "tunnel/keypair.h"
#include "tunnel/limits.h"
#include "tunnel/messages.h"
#include "tunnel/timers.h"
#include "violation.h"

namespace adit::sim {

// What can be seen of one peer of a host.
struct PeerSnapshot {
  HostId remote = kNobody;
  std::uint64_t rx_bytes = 0;
  std::optional<SocketAddress> endpoint;
  std::array<bool, kTimerCount> timers{};
  std::optional<Instant> deadline;
  // Our receiver indices of the three slots.
  std::optional<std::uint32_t> previous, current, next;
  std::size_t staged = 0;
  std::size_t staged_bytes = 0;
};
using Snapshot = std::vector<PeerSnapshot>;

// A datagram as it reached a host.
struct Arrived {
  std::vector<std::uint8_t> head;  // a handshake message: all of it; data: the header
  std::size_t bytes = 0;
  SocketAddress from;
  std::uint64_t id = 0;
  bool is_altered = false;
  bool is_mac2_altered = false;
};

class Observer {
 public:
  // `slack`: how late a host's threads may be.
  Observer(const Simulator& simulator, const ProtocolLimits& limits, std::size_t hosts, Duration slack);

  // ---- what a host is told
  void OnStarted(HostId host, const PublicKey& key);  // with no peers, and without memory of what was before
  void OnStopped(HostId host);
  void OnPeerAdded(HostId host, HostId remote, const PublicKey& key);
  void OnPeerRemoved(HostId host, HostId remote);
  void OnKeyChanged(HostId host, const PublicKey& key);
  void OnPresharedKey(HostId host, HostId remote, std::uint64_t version);
  void OnPersistentKeepalive(HostId host, HostId remote, Duration interval);
  void OnUp(HostId host);
  void OnDown(HostId host);
  void OnSuspended(HostId host);
  void OnResumed(HostId host);
  // An inner packet for `remote` is about to be given to the tunnel.
  void OnInnerPacket(HostId host, HostId remote, bool has_endpoint);
  void OnFlush(HostId host, HostId remote);  // a FlushRequest is carried out

  // ---- what leaves; each returns the datagram's id
  std::uint64_t OnDataLeaves(HostId host, HostId remote, Bytes message, Bytes send_key);
  // `wall`: the host's wall clock, which an initiation's stamp is made from.
  std::uint64_t OnHandshakeLeaves(HostId host, HostId remote, Bytes message, WallTime wall);

  // ---- what arrives
  void OnDataArrived(HostId host, std::span<const Arrived> arrived, const Snapshot& before, const Snapshot& after);
  // One handshake message was handled and `answers` are to be sent. `is_forced`: it was given as one of very many.
  void OnHandshakeHandled(HostId host, const Arrived& arrived, bool is_forced, std::span<const Bytes> answers,
                          bool is_cookie_taken, const Snapshot& before, const Snapshot& after);

  // ---- time
  void OnWakeup(HostId host);
  void OnTimeoutsHandled(HostId host, const Snapshot& before, const Snapshot& after);
  // After any step of a host.
  void OnStep(HostId host, const Snapshot& now, std::size_t sessions, std::size_t staged_bytes, bool is_inbox_empty);
  // From time to time: what should have happened by now.
  void Sweep(HostId host, const Snapshot& now);

  bool HasSession(HostId host, HostId remote) const;
  // For the attacker: whether `host` in its present state has already accepted this very message.
  bool IsStaleFor(HostId host, std::uint64_t id) const;
  std::uint64_t initiations() const { return initiations_; }
  std::uint64_t sessions() const { return sessions_.size(); }
  std::uint64_t digest() const { return digest_; }

 private:
  struct Side {
    std::optional<Instant> since;
    std::optional<Instant> gone_at;
    std::uint64_t greatest = 0;  // of the accepted counters
  };
  struct SessionModel {
    HostId initiator = kNobody, responder = kNobody;
    std::uint32_t initiator_index = 0, responder_index = 0;
    std::array<Side, 2> sides;  // initiator's, responder's
    Side& side(HostId host) { return sides[host == initiator ? 0 : 1]; }
    std::uint32_t local_index(HostId host) const { return host == initiator ? initiator_index : responder_index; }
    std::uint32_t remote_index(HostId host) const { return host == initiator ? responder_index : initiator_index; }
  };
  using SessionId = std::optional<std::size_t>;

  struct Original {
    HostId sender = kNobody, receiver = kNobody;
    MessageType type = MessageType::kData;
    PublicKey sender_key, receiver_key;  // the static keys it was made for
    std::uint64_t psk = 0;
    WallTime stamp;
    SessionId session;
    std::uint64_t counter = 0;
    bool has_data = false;
    std::uint64_t accepted_epoch = 0;
  };

  struct Pair {  // what a host knows of a peer
    bool is_configured = false;
    std::uint64_t epoch = 0;  // changes whenever the host forgets all about the peer
    PublicKey remote_key;
    std::uint64_t psk = 0;
    Duration keepalive{0};
    Instant keepalive_since;
    SessionId previous, current, next;
    std::optional<Instant> derived_at;        // the last session
    std::optional<Instant> installed_at;      // the last change of the slots
    std::optional<std::uint32_t> open_index;  // our initiation that waits for its answer
    WallTime accepted_stamp, sent_stamp;      // of the last initiation
    std::optional<Instant> accepted_initiation_at;
    bool is_attempting = false;                // an initiation was sent and no session confirmed since
    std::optional<Instant> handshake_sent_at;  // initiation or response
    Duration gives_way{0};          // how much longer than REKEY_TIMEOUT the next one waits, after two that crossed
    unsigned turns_in_attempt = 0;  // initiations, and responses that took a retry's turn
    unsigned initiations_since_stimulus = 0;
    unsigned allowed_initiations = 0;
    std::optional<Instant> owed_since;  // data came, nothing went back
    bool owes_more = false;             // and more than once
    Instant another_keepalive_from;     // so many more are allowed then
    unsigned other_keepalives = 0;
    std::optional<Instant> unanswered_since;  // data went, nothing came back
    std::optional<Instant> either_way_at;
    std::optional<Instant> confirmation_due;
    std::optional<Instant> handshake_due;
    std::optional<Instant> keepalive_due;  // turned on just now, or the interface came up
    Instant keepalive_excused_until;
  };

  struct HostModel {
    bool is_running = false, is_up = false, is_suspended = false;
    PublicKey key;
    std::uint64_t incarnation = 0;
    Instant awake_since;
    Instant under_load_until;
    std::set<std::uint32_t> indices;
    Instant last_wakeup_at;
    unsigned wakeups_at_once = 0;
    Instant minute_began;
    std::uint64_t wakeups = 0, activity = 0;
    Instant active_at;
  };

  // From when on the next initiation may be sent.
  Instant NextTurn(const Pair& p) const;
  Pair& pair(HostId host, HostId remote) { return pairs_[host * hosts_.size() + remote]; }
  const Pair& pair(HostId host, HostId remote) const { return pairs_[host * hosts_.size() + remote]; }
  Instant now() const { return simulator_.now(); }
  void Forget(HostId host, HostId remote);
  void EndSessions(HostId host, HostId remote);
  void Retire(HostId host, SessionId& slot);
  void InstallAsInitiator(HostId host, HostId remote, std::size_t session);
  void InstallAsResponder(HostId host, HostId remote, std::size_t session);
  void Promote(HostId host, HostId remote);
  bool IsCurrentValid(HostId host, const Pair& p) const;
  void OnStimulus(HostId host, Pair& p);
  void ExpectKeepaliveAtOnce(HostId host, Pair& p);
  Instant HandshakeDue(Pair& p);
  void OnAuthenticReceived(HostId host, Pair& p);
  void OnAuthenticSent(Pair& p);
  void ExcuseKeepalive(Pair& p);
  void OnInitiationLeaves(HostId host, HostId remote, const InitiationMessage& message, WallTime wall);
  void HandleInitiation(HostId host, const Arrived& arrived, bool is_under_load, std::span<const Bytes> answers);
  bool HandleResponse(HostId host, const Arrived& arrived, bool is_under_load, bool was_accepted);
  void RequireNoEffect(HostId host, const PeerSnapshot& before, const PeerSnapshot& after) const;
  void RequireWakeupRate(HostId host);
  void Activity(HostId host);
  void Digest(Bytes message);

  const Simulator& simulator_;
  const ProtocolLimits limits_;
  const Duration slack_;
  std::vector<HostModel> hosts_;
  std::vector<Pair> pairs_;
  std::vector<SessionModel> sessions_;
  std::vector<Original> originals_;                                                     // by id - 1
  std::vector<std::unordered_map<std::uint32_t, std::size_t>> session_by_local_index_;  // by host
  std::unordered_map<std::uint64_t, std::uint64_t> sealed_;  // the start of a send key → greatest counter
  std::set<ByteArray<kKeyBytes>> ephemerals_;
  std::uint64_t next_version_ = 1;
  std::uint64_t initiations_ = 0;
  std::uint64_t digest_ = 0xcbf29ce484222325;
};

}  // namespace adit::sim
