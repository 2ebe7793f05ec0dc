// Datagrams to inner packets: the packet's way in (ARCHITECTURE.md, "inbound", steps 3 to 10).
//
//   3. parse: known type and the type's length, else drop kUnknownMessage
//   4. handshake messages go to the control thread's queue, as they are
//   5. receiver index → session, once a run; else kUnknownReceiver. Age, else kKeyExpired
//   6. open in place; else kBadTag, and nothing else changes
//   7. replay window, after authentication, in order; else kReplayed
//   8. roam to the sender, confirm the session, timers, rekeying: once a run
//   9. a keepalive ends here. Parse the inner packet, trim the padding, merge ECN
//  10. inner source → this very peer by longest prefix, else kSourceNotAllowed
//
// Pure but for the peers' mutexes. One per data thread; not thread-safe.
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
  Inbound(Exchange& exchange, HandshakeQueue& handshakes, AeadEngine& engine);

  // Takes what one receive call returned: datagrams of one sender, each `segment_bytes` long but for a shorter last.
  // Opens them in place; `data` is borrowed until Clear().
  void Process(MutableBytes data, std::size_t segment_bytes, const Endpoint& from, std::uint8_t ecn, Instant now);

  // Whole inner IP packets in the order they came, of exactly their own length, inside the data of Process().
  std::span<const MutableBytes> packets() const { return packets_; }
  // Peers whose session has just been confirmed and who have packets waiting.
  std::span<const std::shared_ptr<Peer>> to_flush() const { return to_flush_; }
  bool wake_control() const { return wake_control_; }
  void Clear();

  std::uint64_t packets_opened() const { return packets_opened_; }

 private:
  struct Opened {
    std::uint8_t* data = nullptr;
    std::size_t bytes = 0;
    bool keep = false;
  };

  void ProcessRun(std::uint32_t receiver_index, std::span<const MutableBytes> messages, const Endpoint& from,
                  std::uint8_t ecn, Instant now);
  void Drop(DropReason reason, std::size_t count = 1);

  Exchange& exchange_;
  HandshakeQueue& handshakes_;
  AeadEngine& engine_;
  Published<PeerTable>::Reader peers_;
  std::vector<MutableBytes> messages_;
  std::vector<OpenJob> jobs_;
  std::vector<MutableBytes> packets_;
  std::vector<std::shared_ptr<Peer>> to_flush_;
  bool wake_control_ = false;
  std::uint64_t packets_opened_ = 0;
};

}  // namespace adit
