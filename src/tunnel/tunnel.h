// The control half of the protocol: handshakes, cookies, timers, peers and their configuration (paper, sections 5 and
// 6). Pure: bytes, `now` and randomness come in, what is to be done goes into a ControlOutbox. The data half is
// outbound.h and inbound.h; both meet in Exchange.
//
// Control thread only. Inputs are Handle…, the one question about the future is NextTimeout().
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/random.h"
#include "base/time.h"
#include "crypto/keys.h"
#include "tunnel/allowed_ips.h"
#include "tunnel/cookie.h"
#include "tunnel/exchange.h"
#include "tunnel/handshake_queue.h"
#include "tunnel/noise.h"
#include "tunnel/rate_limiter.h"

namespace adit {

// Both clocks at one moment. WallTime only stamps initiations and tells users when a handshake was completed.
struct Now {
  Instant boot;
  WallTime wall;
};

// A handshake message to be sent. Its `peer` is empty for a cookie reply.
struct OutgoingHandshake {
  HandshakeDatagram datagram;  // `from` is unused
  Endpoint to;
  std::uint8_t tos = 0;
  std::shared_ptr<Peer> peer;
};

// Where the kernel would send from and to. 0: unknown, or nowhere.
struct LinksOfPath {
  std::uint32_t route = 0;  // the interface that the route to the peer leads to, asked with our source if there is one
  std::uint32_t home = 0;   // the interface that our source is an address of
};
using FindLinks = std::function<LinksOfPath(const Endpoint& path)>;

// A request to a data thread: send what waits for the peer; if nothing does and it is asked for, a keepalive.
struct FlushRequest {
  std::shared_ptr<Peer> peer;
  bool keepalive_if_none = false;
};

// A question for the kernel: by which link does the route to `path.remote` lead, from `path.source`? Answered by
// Tunnel::OnLinkFound; an answer that does not come costs nothing but certainty.
struct LinkQuestion {
  std::shared_ptr<Peer> peer;
  Endpoint path;
};

// What one call wants done. The caller owns it, carries it out, and empties it.
struct ControlOutbox {
  std::vector<OutgoingHandshake> to_network;
  std::vector<FlushRequest> to_flush;
  std::vector<LinkQuestion> to_find;  // one for each session that began
  void Clear() {
    to_network.clear();
    to_flush.clear();
    to_find.clear();
  }
};

// What a user may see of a peer.
struct PeerView {
  PublicKey public_key;
  PresharedKey preshared_key;
  std::optional<SocketAddress> endpoint;
  std::optional<WallTime> last_handshake;
  std::uint64_t rx_bytes = 0;
  std::uint64_t tx_bytes = 0;
  Duration persistent_keepalive{0};
  std::vector<Prefix> allowed_ips;
};

// How it stands with reaching a peer: what is cheap to ask for each second.
struct PeerReach {
  std::optional<WallTime> last_handshake;
  bool is_trying = false;  // an initiation is unanswered
  std::optional<SocketAddress> endpoint;
  std::uint64_t rx_bytes = 0;  // as PeerView's
  std::uint64_t tx_bytes = 0;
};

struct HandshakeCounts {
  std::uint64_t initiations_sent = 0;
  std::uint64_t responses_sent = 0;
  std::uint64_t cookie_replies_sent = 0;
  std::uint64_t cookies_received = 0;  // that belong to a message of ours
  std::uint64_t completed = 0;
};

class Tunnel {
 public:
  Tunnel(Exchange& exchange, Random& random, Instant now);
  ~Tunnel();

  // ---- inputs
  // Handshake messages from the queue, oldest first; `queue_depth` is how many waited before these were taken, and
  // decides whether we are under load.
  void HandleHandshakes(std::span<const HandshakeDatagram> datagrams, std::size_t queue_depth, Now now,
                        ControlOutbox& out);
  // What the data threads have to say (Exchange::inbox), and what is due. Of thousands of peers at once only so many
  // (kPeersPerTurn, kInitiationsPerTurn) that whoever else waits for this thread is served in between: the others stay
  // in the inbox, and NextTimeout() stays in the past.
  void HandleInbox(Now now, ControlOutbox& out);
  void HandleTimeouts(Now now, ControlOutbox& out);
  // What became of a message of the outbox.
  void OnSent(const OutgoingHandshake& sent, bool was_sent, bool clear_source);
  // Valid after each input; the past only if something is due now.
  std::optional<Instant> NextTimeout() const;

  // ---- the device
  // Up: peers with a persistent keepalive send one. Down: sessions, handshakes and staged packets are forgotten.
  void SetUp(bool up, Now now, ControlOutbox& out);
  bool is_up() const { return is_up_; }
  // Zeros remove it. A peer with our own public key is removed; all sessions end, and handshakes start anew.
  void SetPrivateKey(const PrivateKey& key, Now now, ControlOutbox& out);
  const PrivateKey& private_key() const { return identity_.private_key(); }
  // Our addresses or routes changed: peers are answered from whatever address the kernel chooses, until they write
  // again.
  void ForgetSources();
  // The same; and peers that we hold a session with are told by a keepalive where we are now: one who is sending to us
  // would go on sending to where we were, as long as we have nothing to send. At once, but a change that comes within
  // kAnnounceInterval of the last telling is told at its end. Nothing is sent without a session, or under one that is
  // younger than the change; but an initiation that had no way out is made again, and does not wait for its turn.
  //
  // An address of a link that the route to the peer has just left is abandoned for kAbandonFor: what the peer sent
  // there before it heard from us must not make us answer from there again, with the old link's address on the new
  // link. `find_links` is asked about at most kJudgedPeers per kAnnounceInterval.
  void OnNetworkChanged(Now now, const FindLinks& find_links, ControlOutbox& out);
  // The machine was suspended, and may be anywhere now: peers that we have spoken with are sent an initiation, from
  // whatever address the kernel chooses. Of thousands the first kAnnouncedPeers.
  void OnResumed(Now now, ControlOutbox& out);
  // Rules changed: no source holds its link (Endpoint::holds_link) until somebody has asked again.
  void ForgetLinks();
  // The link that was asked for; 0: there is none, or nobody knows.
  void OnLinkFound(const LinkQuestion& question, std::uint32_t link);

  // ---- peers, by public key
  bool HasPeer(const PublicKey& key) const { return by_key_.contains(key); }
  std::size_t peer_count() const { return by_key_.size(); }
  // False if there are kMaxPeers already, or the key is our own.
  bool AddPeer(const PublicKey& key);
  void RemovePeer(const PublicKey& key);
  void RemoveAllPeers();
  // REQUIRES for all: HasPeer(key).
  void SetPresharedKey(const PublicKey& key, const PresharedKey& psk);
  void SetEndpoint(const PublicKey& key, const SocketAddress& remote);
  // As SetEndpoint; an initiation that is unanswered goes at once to the new place. The pause of 5 s between
  // initiations (paper, 6.4) spares a peer that is slow to answer, and this one was not asked yet; the caller sees to
  // it that it is not called in bursts.
  void Redirect(const PublicKey& key, const SocketAddress& remote, Now now, ControlOutbox& out);
  PeerReach ReachOf(const PublicKey& key) const;
  // Of all peers that have one.
  std::vector<SocketAddress> Endpoints() const;
  void SetPersistentKeepalive(const PublicKey& key, Duration interval, Now now, ControlOutbox& out);
  void AllowIp(const PublicKey& key, const Prefix& prefix);     // takes it from whoever has it
  void DisallowIp(const PublicKey& key, const Prefix& prefix);  // nothing if it is not this peer's
  void DisallowAllIps(const PublicKey& key);
  // Lets go what waited for what has just been configured: packets, and a persistent keepalive without an endpoint.
  void SendWaiting(const PublicKey& key, ControlOutbox& out);
  // Publishes the peers and allowed IPs to the data threads; after a group of changes.
  void Publish();

  std::vector<PeerView> View() const;  // in the order of creation
  const HandshakeCounts& handshake_counts() const { return counts_; }
  bool is_under_load(Instant now) const { return now < under_load_until_; }

 private:
  struct RouteFound {
    IpAddress to;
    std::uint32_t link = 0;
  };
  // The control thread's half of a peer.
  struct Record {
    Record(std::shared_ptr<Peer> shared, std::uint64_t created_as, const StaticIdentity& identity,
           const ProtocolLimits& limits)
        : peer(std::move(shared)),
          sequence(created_as),
          handshake(identity, peer->public_key, limits),
          cookies(peer->public_key, limits) {}

    const std::shared_ptr<Peer> peer;
    const std::uint64_t sequence;  // order of creation
    Handshake handshake;
    CookieJar cookies;
    PresharedKey preshared_key;
    std::optional<WallTime> last_handshake;
    // What the last changes of the network showed: the address of ours that the peer wrote to, and the link of its
    // route.
    LocalSource shown_source;
    std::uint32_t route_link = 0;
    RouteFound judged_route;                       // by the change that is being looked at
    bool is_initiation_unsent = false;             // the last one: the kernel had no way for it
    std::optional<Instant> scheduled_at;           // its entry in timeouts_
    std::optional<std::uint32_t> handshake_index;  // its entry in handshakes_by_index_
  };

  void Service(Record& record, Now now, ControlOutbox& out);
  void JudgeSource(Record& record, Instant now, const FindLinks& find_links);
  void SettleRoute(Record& record);
  void Announce(Now now, ControlOutbox& out);
  void Reschedule(Record& record);
  void SendInitiation(Record& record, bool is_retry, Now now, ControlOutbox& out);
  void HandleInitiation(const HandshakeDatagram& datagram, Now now, ControlOutbox& out);
  void HandleResponse(const HandshakeDatagram& datagram, Now now, ControlOutbox& out);
  void HandleCookieReply(const HandshakeDatagram& datagram, Now now);
  bool InstallSession(Record& record, Now now, ControlOutbox& out);
  // Returns where the answer goes.
  Endpoint OnHandshakePacketReceived(Record& record, const HandshakeDatagram& datagram, Now now);
  void EndSessions(Record& record);
  void ForgetHandshakeIndex(Record& record);
  std::size_t PurgeStaged(Peer& peer);  // REQUIRES: peer.mutex is held
  std::uint32_t PickIndex();
  void Send(Bytes message, const Endpoint& to, std::uint8_t tos, const std::shared_ptr<Peer>& peer, ControlOutbox& out);
  Record* FindById(PeerId id);
  Record& FindByKey(const PublicKey& key);

  Exchange& exchange_;
  Random& random_;
  bool is_up_ = false;
  StaticIdentity identity_;
  CookieChecker cookie_checker_;
  RateLimiter rate_limiter_;
  Instant under_load_until_;
  AllowedIps allowed_ips_;

  std::map<PublicKey, std::unique_ptr<Record>> by_key_;
  std::map<std::uint64_t, Record*> by_sequence_;
  std::vector<Record*> by_id_;  // empty where the id is free
  std::vector<PeerId> free_ids_;
  std::map<std::uint32_t, Record*> handshakes_by_index_;
  std::set<std::pair<Instant, std::uint64_t>> timeouts_;  // and the record's sequence
  std::uint64_t next_sequence_ = 0;
  HandshakeCounts counts_;
  Instant network_changed_at_{};
  std::optional<Instant> announced_at_;
  std::optional<Instant> announce_at_;  // the network changed again since
  Instant judging_since_{};
  std::size_t judged_ = 0;  // since then
};

}  // namespace adit
