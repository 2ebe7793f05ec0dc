// A peer as the data threads know it: where it is, with which session we send, what waits for one, and its timers.
// The control thread's half (handshake, cookies, configuration) is in tunnel.h.
//
// One mutex a peer. A data thread takes it once per batch, for as long as it takes to copy a pointer and to move some
// deadlines; no cipher and no system call runs under it. Lock order: a peer's mutex, then the index table's or the
// inbox's; never two peers at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "base/address.h"
#include "base/time.h"
#include "crypto/keys.h"
#include "tunnel/allowed_ips.h"
#include "tunnel/keypair.h"
#include "tunnel/timers.h"

namespace adit {

// Bytes that wait for a session, per peer; the oldest packet goes. A full queue of packets at the usual MTU fits.
inline constexpr std::size_t kMaxStagedBytesPerPeer = 256 * 1024;

// An inner packet that waits for a session: its own copy, with the scratch behind it that SealJob asks for.
class StagedPacket {
 public:
  static constexpr std::size_t kScratchBytes = 16;
  explicit StagedPacket(std::size_t bytes) : memory_(bytes + kScratchBytes) {}
  std::uint8_t* data() { return memory_.data(); }
  std::size_t size() const { return memory_.size() - kScratchBytes; }

 private:
  std::vector<std::uint8_t> memory_;
};

// The three slots of a peer's sessions (paper, 5.4.5 and 6.2).
struct Keypairs {
  std::shared_ptr<Keypair> previous;  // still opens what was under way
  std::shared_ptr<Keypair> current;   // the one we send with
  std::shared_ptr<Keypair> next;      // responder only: not confirmed by the initiator yet, never sends

  // Puts a new session in place; appends those that fall out to `retired`.
  void Install(std::shared_ptr<Keypair> fresh, std::vector<std::shared_ptr<Keypair>>& retired);
  // `used` has opened a message. If it was `next` it becomes current: returns true.
  bool Promote(const std::shared_ptr<Keypair>& used, std::vector<std::shared_ptr<Keypair>>& retired);
  void TakeAll(std::vector<std::shared_ptr<Keypair>>& retired);
};

class Peer {
 public:
  Peer(PeerId peer_id, const PublicKey& key, const ProtocolLimits& peer_limits)
      : id(peer_id), public_key(key), limits(peer_limits), timers(peer_limits) {}
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  const PeerId id;
  const PublicKey public_key;
  const ProtocolLimits& limits;

  std::atomic<std::uint64_t> rx_bytes{0};
  std::atomic<std::uint64_t> tx_bytes{0};

  std::mutex mutex;
  // All below: guarded by mutex.
  Keypairs keypairs;
  std::optional<Endpoint> endpoint;
  std::deque<StagedPacket> staged;
  std::size_t staged_bytes = 0;
  PeerTimers timers;
  std::optional<Instant> last_handshake_sent_at;  // an initiation or a response
  std::optional<Instant> scheduled_at;            // when the control thread looks at the timers next
  bool is_removed = false;                        // no longer configured: sends and receives nothing
  // What the data threads ask of the control thread. `is_in_inbox`: the peer stands in the inbox; set and cleared
  // there.
  bool wants_handshake = false;
  bool is_newly_confirmed = false;
  bool is_in_inbox = false;
  std::vector<std::shared_ptr<Keypair>> retired;  // to be taken out of the index table
  // Ours, and not answered from until then: the route to the peer has left its link (tunnel.h).
  LocalSource abandoned_source;
  Instant abandoned_until{};
  // The link that the route to `route_to` leads by; 0: not known since the network changed.
  IpAddress route_to;
  std::uint32_t route_link = 0;

  // How a peer who writes from `from.remote` to `from.source` is answered.
  Endpoint AnswerTo(const Endpoint& from, Instant now) const {
    if (now < abandoned_until && from.source == abandoned_source) return {from.remote, {}};
    return {from.remote, from.source, IsRouteLink(from)};
  }
  bool IsRouteLink(const Endpoint& path) const {
    return route_link != 0 && path.source.interface_index == route_link && path.remote.ip == route_to;
  }
};

// Peers about which the data threads have something to say to the control thread. Bounded by the number of peers: each
// stands in it once.
class ControlInbox {
 public:
  // REQUIRES: peer->mutex is held. Returns true if the control thread must be woken.
  bool Push(const std::shared_ptr<Peer>& peer);
  // The one that stands in it for the longest time, and no longer; empty if none does.
  std::shared_ptr<Peer> Pop();
  bool empty() const;

 private:
  mutable std::mutex mutex_;
  std::deque<std::shared_ptr<Peer>> peers_;  // guarded by mutex_
};

// Jitter for deadlines set by data threads. Not a secret: a small generator, seeded once.
class Jitter {
 public:
  explicit Jitter(std::uint64_t seed) : state_(seed) {}
  // Uniform in [0, bound].
  Duration UpTo(Duration bound) {
    state_ += 0x9e3779b97f4a7c15;  // splitmix64
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    z ^= z >> 31;
    return Duration(static_cast<Duration::rep>(z % (static_cast<std::uint64_t>(bound.count()) + 1)));
  }

 private:
  std::uint64_t state_;
};

// What a data thread needs to seal a run of messages: taken under the lock, used without it.
struct SendGrant {
  std::shared_ptr<Keypair> keypair;
  std::uint64_t first_counter = 0;  // for the staged packets first, then for the `count` asked for
  Endpoint endpoint;
  std::vector<StagedPacket> staged;  // they go out first
};

enum class SendVerdict {
  kGranted,
  kNeedsHandshake,  // no usable session: one has been asked for; stage the packets
  kNoEndpoint,
  kRemoved,
};

// Reserves counters for what is staged and `count` more messages, and reports their sending to the timers.
// `is_data`: at least one of the `count` is not a keepalive. `wake_control` is set, never cleared. If there is nothing
// to send (`count` is 0 and nothing is staged) nothing happens, and the grant stays empty. The grant's endpoint is also
// filled with kNeedsHandshake.
SendVerdict BeginSend(const std::shared_ptr<Peer>& peer, std::size_t count, bool is_data, Instant now, Jitter& jitter,
                      ControlInbox& inbox, SendGrant& grant, bool& wake_control);

// The kernel refused to send from the address that `used` names: let it choose, until the peer shows us one again.
void ForgetSource(Peer& peer, const Endpoint& used);

// What a run of authenticated messages of one session, from one place, was.
struct ReceivedFacts {
  Endpoint from;
  bool has_data = false;  // one of them was not a keepalive
};

struct ReceiveVerdict {
  bool is_removed = false;
  bool flush_staged = false;  // the session has just been confirmed: what waits can go, else a keepalive is not owed
};

// Roaming, key confirmation and timers for one run, in the order of CONF-76. REQUIRES: every message counted here
// passed authentication and the replay window.
ReceiveVerdict OnReceived(const std::shared_ptr<Peer>& peer, const std::shared_ptr<Keypair>& keypair,
                          const ReceivedFacts& facts, Instant now, ControlInbox& inbox, bool& wake_control);

}  // namespace adit
