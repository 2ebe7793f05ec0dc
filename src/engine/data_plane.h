// The data threads: they move packets in one direction, from system call to system call.
//
//   OutboundPath   TUN queue → Splitter → Outbound (seal) → UDP sockets     one per TUN queue
//   InboundPath    UDP sockets → Inbound (open) → Coalescer → TUN           one
//
// The unit of work is one read: a super-packet, or as many small packets as are there. One clock reading, one lock per
// peer and one send a unit. A path has one thread, or several that share its work by the rules of pipeline.h: they read
// one at a time, run the cipher side by side, and hand on what they made in the order in which it was read. A thread
// sleeps in epoll, or because another one reads, and holds no session, no snapshot and no socket for sending meanwhile.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "crypto/aead.h"
#include "crypto/primitives.h"
#include "engine/pipeline.h"
#include "engine/poller.h"
#include "tun/device.h"
#include "tunnel/exchange.h"
#include "tunnel/handshake_queue.h"
#include "tunnel/inbound.h"
#include "tunnel/outbound.h"
#include "tunnel/tunnel.h"
#include "udp/socket.h"

namespace adit {

// The sockets of the moment: empty while the link is down.
struct SocketSet {
  std::shared_ptr<UdpSockets> sockets;
};

// Read by any thread.
struct DataCounters {
  std::atomic<std::uint64_t> reads{0};    // from the TUN, or receive calls
  std::atomic<std::uint64_t> packets{0};  // inner packets sealed or opened
  std::atomic<std::uint64_t> writes{0};   // send runs, or writes to the TUN
  std::atomic<std::uint64_t> errors{0};   // system calls that failed
};

// What the data threads share with the control thread. Outlives them.
struct DataPlane {
  DataPlane(const ProtocolLimits& limits, TunDevice& device, AeadBackend backend, std::function<void()> disturbance,
            Bell bell)
      : exchange(limits),
        tun(device),
        aead(backend),
        disturb(std::move(disturbance)),
        sockets(std::make_shared<SocketSet>()),
        control_bell(std::move(bell)) {}

  Exchange exchange;
  HandshakeQueue handshakes;
  TunDevice& tun;
  const AeadBackend aead;
  const std::function<void()> disturb;  // may be empty: EngineOptions
  Published<SocketSet> sockets;
  Bell control_bell;                     // rung when the control thread has something to do
  std::atomic<bool> is_stopping{false};  // then ring every thread's bell
  std::atomic<bool> is_tun_gone{false};  // a read or write said so; the control thread finds out
};

// Units under way per thread of a path: the one it works on, and one that waits for its turn to leave.
inline constexpr std::size_t kSlotsPerThread = 2;
inline constexpr unsigned kMaxThreadsPerPath = 64;
// Each direction may use half of the cores: who has that much to carry in one direction has little in the other.
// Threads that are not needed sleep. With fewer than four cores, one thread each: more only pass the packets around
// (measured).
constexpr unsigned DefaultThreads(unsigned cores) { return std::clamp(cores / 2, 1u, 8u); }

class OutboundPath {
 public:
  // `bed` watches the queue already.
  OutboundPath(DataPlane& plane, unsigned queue, unsigned threads, Bed bed);
  ~OutboundPath();  // REQUIRES: plane.is_stopping

  // Any thread: send what waits for these peers.
  void Request(std::span<const FlushRequest> requests);
  void Wake() { bed_.bell.Ring(); }
  const DataCounters& counters() const { return counters_; }

 private:
  // One unit of work.
  struct Slot {
    explicit Slot(Exchange& exchange, Random& random);
    Outbound outbound;
    const std::unique_ptr<std::uint8_t[]> memory;  // not filled: what is not needed is not resident
    const MutableBytes arena;
    Instant now{};
    // For the sender.
    std::vector<SendRun> runs;
    std::vector<SendOutcome> outcomes;
  };

  static std::vector<std::unique_ptr<Slot>> MakeSlots(Exchange& exchange, unsigned threads);
  void Run(AeadEngine& engine);
  bool Read(Slot& slot, AeadEngine& engine, bool& has_slept);
  bool ReadRequested(Slot& slot);
  bool ReadTun(Slot& slot, AeadEngine& engine);
  void Split(Slot& slot, const TunRead& read, AeadEngine& engine);
  void Sleep(AeadEngine& engine);
  void Send(Slot& slot);

  DataPlane& plane_;
  const unsigned queue_;
  Bed bed_;  // the bell is anybody's, the poller the reader's
  DataCounters counters_;
  std::mutex mutex_;
  std::vector<FlushRequest> requests_;  // guarded by mutex_; bounded by callers' peers: one each per event
  Pipeline<Slot> pipeline_;

  // The reader's.
  std::vector<FlushRequest> taken_;  // of requests_, last first
  bool is_readable_ = false;         // the TUN, as far as we know
  unsigned units_since_sleep_ = 0;

  std::vector<std::unique_ptr<AeadEngine>> engines_;  // one a thread
  std::vector<std::thread> threads_;                  // last: they start when all else stands
};

class InboundPath {
 public:
  // `outbound` gets the packets that waited for a session which the peer has just confirmed.
  InboundPath(DataPlane& plane, OutboundPath& outbound, unsigned threads, Bed bed);
  ~InboundPath();  // REQUIRES: plane.is_stopping

  void Wake() { bed_.bell.Ring(); }
  const DataCounters& counters() const { return counters_; }

 private:
  struct Slot {
    Slot(DataPlane& plane, std::size_t buffers) : inbound(plane.exchange, plane.handshakes), receiver(buffers) {}
    Inbound inbound;
    UdpReceiver receiver;
  };

  static std::vector<std::unique_ptr<Slot>> MakeSlots(DataPlane& plane, unsigned threads);
  void Run(AeadEngine& engine);
  bool Read(Slot& slot, AeadEngine& engine, bool& has_slept);
  bool Receive(Slot& slot, SocketFamily family);
  void Sleep(AeadEngine& engine);
  void FollowSockets();
  void Deliver(Slot& slot);

  DataPlane& plane_;
  OutboundPath& outbound_;
  Bed bed_;  // the bell is anybody's, the poller the reader's
  DataCounters counters_;
  Pipeline<Slot> pipeline_;

  // The reader's.
  std::shared_ptr<UdpSockets> sockets_;
  std::array<bool, 2> is_readable_{};  // by SocketFamily, as far as we know
  SocketFamily turn_ = SocketFamily::kV4;
  unsigned units_since_sleep_ = 0;
  unsigned errors_in_a_row_ = 0;

  Coalescer coalescer_;  // of whoever delivers

  std::vector<std::unique_ptr<AeadEngine>> engines_;  // one a thread
  std::vector<std::thread> threads_;                  // last: they start when all else stands
};

}  // namespace adit
