// Inner packets to sealed datagrams: the packet's way out (ARCHITECTURE.md, "outbound", steps 3 to 9).
//
//   Add      3. parse the inner header, else drop kMalformedIp
//            4. destination → peer by longest prefix, else drop kNoPeer and answer ICMP
//   Reserve  5. one grant a run of packets to the same peer: session, counters, endpoint; without a session stage them
//            6. (in the grant) timers and rekeying by age and count
//            7. write the 16-byte header and settle the padding and the datagram's final place
//            8. group equal sizes into runs that one GSO send can carry
//   Seal     9. seal out of place into those places
//
// One batch at a time. Add and Reserve of several batches follow each other in the order of the packets, so that
// counters rise in that order; Seal of one batch may run beside any call for another.
//
// Pure but for the peers' mutexes: bytes and `now` in, datagrams out. One per batch in work; not thread-safe.
// Memory: allocated at construction, never after, but for copies of packets that wait for a session.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/random.h"
#include "crypto/aead.h"
#include "tunnel/exchange.h"
#include "tunnel/icmp.h"

namespace adit {

// Packets of one batch. 1024 is more than a super-packet of 64 KiB holds at the smallest MSS in use (536).
inline constexpr std::size_t kMaxOutboundPackets = 1024;
// Sealed bytes of one batch: several super-packets' worth, and L2-friendly.
inline constexpr std::size_t kOutboundArenaBytes = 512 * 1024;
// Bytes of stamped headers of one batch; at most 256 a packet, 40 to 120 in practice.
inline constexpr std::size_t kOutboundHeadBytes = 128 * 1024;

// Datagrams for one endpoint, lying one behind the other, all `segment_bytes` long but for a shorter last one.
struct SealedRun {
  Bytes data;
  std::size_t segment_bytes = 0;
  Endpoint to;
  std::uint8_t tos = 0;
  std::shared_ptr<Peer> peer;
};

class Outbound {
 public:
  Outbound(Exchange& exchange, Random& random, std::size_t max_run_bytes);

  // Takes one inner packet: `head` (copied, may be empty) followed by `body`, borrowed until Seal() and used as
  // SealJob says. False, with nothing taken, when the batch is full: finish it and hand over what it made first.
  bool Add(Bytes head, MutableBytes body, Instant now);
  // Makes what waits for `peer` the batch; if nothing does and `keepalive_if_none`, a message without content. In the
  // place of Add() and Reserve(). REQUIRES: empty().
  void ReserveStaged(const std::shared_ptr<Peer>& peer, bool keepalive_if_none, Instant now);

  // Settles what becomes of all that was added. Afterwards runs() are final but for the bytes, until Clear().
  void Reserve(Instant now);
  // Makes the bytes of runs().
  void Seal(AeadEngine& engine);
  // Both at once, for who does one batch after the other.
  void Flush(Instant now, AeadEngine& engine) {
    Reserve(now);
    Seal(engine);
  }
  std::span<const SealedRun> runs() const { return runs_; }
  // Packets to be written into the TUN.
  std::span<const std::vector<std::uint8_t>> icmp_answers() const { return icmp_answers_; }
  // True if the control thread has something to do.
  bool wake_control() const { return wake_control_; }
  bool empty() const { return pending_.empty(); }
  void Clear();

  // What happened to a run: counts the bytes, forgets a source address that the kernel refused.
  void OnSent(const SealedRun& run, std::size_t datagrams_sent, bool clear_source);

  // Messages of the batch.
  std::size_t packet_count() const { return jobs_.size(); }

 private:
  struct Pending {
    const std::shared_ptr<Peer>* peer = nullptr;  // in the snapshot
    Bytes head;
    std::uint8_t* body = nullptr;
    std::size_t body_bytes = 0;
    std::uint8_t tos = 0;
  };

  // The jobs of one grant. Holds the key and the staged packets until the cipher has seen them.
  struct Grant {
    std::shared_ptr<Keypair> keypair;
    std::vector<StagedPacket> staged;
    // Where these are sealed when a session appears while the batch is nearly full: the arena has no room for them, and
    // nothing that waited so long is dropped for that.
    std::unique_ptr<std::uint8_t[]> overflow;
    std::size_t end = 0;  // its jobs end here, and begin where the grant before ends
  };

  // Who owns the destination of packets that come one behind the other, without a look-up each.
  struct LastOwner {
    bool is_v4 = false;
    ByteArray<16> address{};
    const std::shared_ptr<Peer>* peer = nullptr;  // in the snapshot of the batch; null: none yet
  };

  // Drops our own datagrams, to this endpoint or any peer's (kLoop), and returns the others, in their order.
  std::span<Pending> WithoutLoops(std::span<Pending> packets, const SocketAddress& endpoint);
  bool LeadsToAPeer(const SocketAddress& to);
  void SendWhatWaits(const std::shared_ptr<Peer>& peer, bool keepalive_if_none, Instant now);
  // Jobs and places for what was staged, and then for `packets`.
  void Place(const std::shared_ptr<Peer>& peer, SendGrant& grant, std::span<const Pending> packets);
  // Returns how many bytes of `memory` it took.
  std::size_t PlaceRun(const std::shared_ptr<Peer>& peer, const Keypair& keypair, std::uint64_t first_counter,
                       const Endpoint& endpoint, std::span<const Pending> packets, MutableBytes memory);
  static std::vector<Pending> PendingOf(std::span<StagedPacket> staged);
  MutableBytes FreeArena() const { return arena_.subspan(arena_used_); }
  void ReleaseStaged(std::size_t bytes);
  using BuildAnswer = std::optional<std::vector<std::uint8_t>> (*)(Bytes packet,
                                                                   const std::optional<IpAddress>& source);
  // Within the limits for ICMP.
  void Answer(Bytes head, Bytes body, Instant now, BuildAnswer build);
  // True if they need not wait: there is a session by now.
  [[nodiscard]] bool Stage(const std::shared_ptr<Peer>& peer, std::span<const Pending> packets, Instant now);
  void Drop(DropReason reason, std::size_t count = 1);

  Exchange& exchange_;
  Published<PeerTable>::Reader peers_;
  Jitter jitter_;
  std::size_t max_run_bytes_;
  std::vector<Pending> pending_;
  LastOwner last_owner_;
  // Whether a peer is where a datagram from our port went that was in the TUN; of this batch.
  struct LastPlace {
    SocketAddress to;
    bool is_endpoint = false;
  };
  std::optional<LastPlace> last_place_;
  // Not filled: memory that no batch needed is not resident.
  const std::unique_ptr<std::uint8_t[]> heads_memory_;
  const std::unique_ptr<std::uint8_t[]> arena_memory_;
  const MutableBytes heads_;
  std::size_t heads_used_ = 0;
  const MutableBytes arena_;
  std::size_t arena_used_ = 0;
  std::size_t arena_promised_ = 0;
  std::vector<SealJob> jobs_;
  std::vector<Grant> grants_;
  std::vector<SealedRun> runs_;
  std::vector<std::vector<std::uint8_t>> icmp_answers_;
  bool wake_control_ = false;
};

}  // namespace adit
