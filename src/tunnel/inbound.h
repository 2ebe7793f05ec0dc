// Datagrams to inner packets: the packet's way in (ARCHITECTURE.md, "inbound", steps 3 to 10).
//
// Add
//   3. parse: known type and the type's length, else drop kUnknownMessage
//   4. handshake messages go to the control thread's queue, as they are
//   5. receiver index → session, once a run; else kUnknownReceiver. Age, else kKeyExpired
// Open
//   6. open in place; else kBadTag, and nothing else changes
// Accept
//   7. replay window, after authentication, in order; else kReplayed
//   8. roam to the sender, confirm the session, timers, rekeying: once a run
//   9. a keepalive ends here. Parse the inner packet, trim the padding, merge ECN
//  10. inner source → this very peer by longest prefix, else kSourceNotAllowed
//
// One batch at a time. Accept of several batches follows the order in which their datagrams came; Add and Open of one
// may run beside any call for another.
//
// Pure but for the peers' mutexes. One per batch in work; not thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "crypto/aead.h"
#include "tunnel/exchange.h"
#include "tunnel/handshake_queue.h"

namespace adit {

class Inbound {
 public:
  Inbound(Exchange& exchange, HandshakeQueue& handshakes);

  // Takes one run of a receive call: datagrams of one sender, each `segment_bytes` long but for a shorter last. They
  // will be opened in place; `data` is borrowed until Clear().
  void Add(MutableBytes data, std::size_t segment_bytes, const Endpoint& from, std::uint8_t ecn, Instant now);
  void Open(AeadEngine& engine);
  void Accept();
  // All at once, for who does one batch after the other.
  void Process(MutableBytes data, std::size_t segment_bytes, const Endpoint& from, std::uint8_t ecn, Instant now,
               AeadEngine& engine) {
    Add(data, segment_bytes, from, ecn, now);
    Open(engine);
    Accept();
  }

  // Whole inner IP packets in the order they came, of exactly their own length, inside the data of Add().
  std::span<const MutableBytes> packets() const { return packets_; }
  // Peers whose session has just been confirmed and who have packets waiting.
  std::span<const std::shared_ptr<Peer>> to_flush() const { return to_flush_; }
  bool wake_control() const { return wake_control_; }
  void Clear();

  // Authentic messages of the batch with something in them.
  std::size_t packet_count() const { return packet_count_; }

 private:
  // Messages that came one behind the other for one session.
  struct Run {
    Session session;
    Endpoint from;
    Instant at;
    std::uint8_t ecn = 0;
    std::size_t end = 0;  // its jobs end here, and begin where the run before ends
  };

  // Who owns the source of packets that come one behind the other, without a look-up each.
  struct LastOwner {
    bool is_v4 = false;
    ByteArray<16> address{};
    const Peer* peer = nullptr;  // null: none yet
  };

  // True if a run for this session is open now, at the end of runs_.
  bool BeginRun(std::uint32_t receiver_index, const Endpoint& from, std::uint8_t ecn, Instant now, DropReason& reason);
  void AcceptRun(const Run& run, std::span<OpenJob> jobs);
  const PeerTable& Snapshot();
  bool IsAllowed(const PeerTable& table, const std::uint8_t* source, bool is_v4, const Peer& peer);
  void Drop(DropReason reason, std::size_t count = 1);

  Exchange& exchange_;
  HandshakeQueue& handshakes_;
  Published<PeerTable>::Reader peers_;
  std::vector<OpenJob> jobs_;
  std::vector<Run> runs_;
  std::size_t opened_runs_ = 0;    // of runs_, by Open()
  std::size_t accepted_runs_ = 0;  // by Accept()
  LastOwner last_owner_;
  bool has_snapshot_ = false;
  std::vector<MutableBytes> packets_;
  std::vector<std::shared_ptr<Peer>> to_flush_;
  bool wake_control_ = false;
  std::size_t packet_count_ = 0;
};

}  // namespace adit
