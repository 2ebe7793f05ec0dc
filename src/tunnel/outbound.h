// Inner packets to sealed datagrams: the packet's way out (ARCHITECTURE.md, "outbound", steps 3 to 9).
//
//   Add    3. parse the inner header, else drop kMalformedIp
//          4. destination → peer by longest prefix, else drop kNoPeer and answer ICMP
//   Flush  5. one grant a run of packets to the same peer: session, counters, endpoint; without a session stage them
//          6. (in the grant) timers and rekeying by age and count
//          7. write the 16-byte header, pad, seal out of place into the datagram's final place
//          8. group equal sizes into runs that one GSO send can carry
//
// Pure but for the peers' mutexes: bytes and `now` in, datagrams out. One per data thread; not thread-safe.
// Memory: allocated at construction, never after, but for copies of packets that wait for a session.
#pragma once

#include <cstdint>
#include <memory>
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
  Outbound(Exchange& exchange, AeadEngine& engine, Random& random, std::size_t max_run_bytes);

  // Takes one inner packet: `head` (copied, may be empty) followed by `body`, borrowed until Flush() and used as
  // SealJob says. False, with nothing taken, when the batch is full: Flush() and hand over what it made first.
  bool Add(Bytes head, MutableBytes body, Instant now);
  // Seals what waits for `peer`; if nothing does and `keepalive_if_none`, a message without content. REQUIRES: empty().
  void SendStaged(const std::shared_ptr<Peer>& peer, bool keepalive_if_none, Instant now);

  // Seals all that was added. Afterwards runs() and icmp_answers() hold the results, until Clear().
  void Flush(Instant now);
  std::span<const SealedRun> runs() const { return runs_; }
  // Packets to be written into the TUN.
  std::span<const std::vector<std::uint8_t>> icmp_answers() const { return icmp_answers_; }
  // True if the control thread has something to do.
  bool wake_control() const { return wake_control_; }
  bool empty() const { return pending_.empty(); }
  void Clear();

  // What happened to a run: counts the bytes, forgets a source address that the kernel refused.
  void OnSent(const SealedRun& run, std::size_t datagrams_sent, bool clear_source);

  std::uint64_t packets_sealed() const { return packets_sealed_; }

 private:
  struct Pending {
    const std::shared_ptr<Peer>* peer = nullptr;  // in the snapshot
    Bytes head;
    std::uint8_t* body = nullptr;
    std::size_t body_bytes = 0;
    std::uint8_t tos = 0;
  };

  // Drops our own datagrams to this endpoint (kLoop) and returns the others, in their order.
  std::span<Pending> WithoutLoops(std::span<Pending> packets, const SocketAddress& endpoint);
  void SendWhatWaits(const std::shared_ptr<Peer>& peer, bool keepalive_if_none, Instant now);
  void SealStaged(const std::shared_ptr<Peer>& peer, SendGrant& grant);
  void SealRun(const std::shared_ptr<Peer>& peer, const Keypair& keypair, std::uint64_t first_counter,
               const Endpoint& endpoint, std::span<const Pending> packets);
  void AppendToRun(const std::shared_ptr<Peer>& peer, const Endpoint& endpoint, std::uint8_t tos, Bytes message);
  void ReleaseStaged(std::size_t bytes);
  void AnswerUnreachable(Bytes head, Bytes body, Instant now);
  // True if they need not wait: there is a session by now.
  [[nodiscard]] bool Stage(const std::shared_ptr<Peer>& peer, std::span<const Pending> packets, Instant now);
  void Drop(DropReason reason, std::size_t count = 1);

  Exchange& exchange_;
  AeadEngine& engine_;
  Published<PeerTable>::Reader peers_;
  Jitter jitter_;
  std::size_t max_run_bytes_;
  std::vector<Pending> pending_;
  std::vector<std::uint8_t> heads_;
  std::size_t heads_used_ = 0;
  std::vector<std::uint8_t> arena_;
  std::size_t arena_used_ = 0;
  std::size_t arena_promised_ = 0;
  std::vector<SealJob> jobs_;
  std::vector<SealedRun> runs_;
  std::vector<std::vector<std::uint8_t>> icmp_answers_;
  IcmpLimiter icmp_limiter_;
  bool wake_control_ = false;
  std::uint64_t packets_sealed_ = 0;
};

}  // namespace adit
