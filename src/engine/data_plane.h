// The data threads: each moves packets in one direction, from system call to system call, and never waits for another.
//
//   OutboundThread   TUN queue → Splitter → Outbound (seal) → UDP sockets     one per TUN queue
//   InboundThread    UDP sockets → Inbound (open) → Coalescer → TUN           one
//
// The unit of work is one read: a super-packet, or as many small packets as are there. One clock reading, one lock per
// peer and one send a batch. A thread sleeps in epoll and holds no session, no snapshot and no socket while it does.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "crypto/aead.h"
#include "crypto/primitives.h"
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

// Written by one thread each, read by any.
struct DataCounters {
  std::atomic<std::uint64_t> reads{0};    // from the TUN, or receive calls
  std::atomic<std::uint64_t> packets{0};  // inner packets sealed or opened
  std::atomic<std::uint64_t> writes{0};   // send runs, or writes to the TUN
  std::atomic<std::uint64_t> errors{0};   // system calls that failed
};

class OutboundThread;

// What the data threads share with the control thread. Outlives them.
struct DataPlane {
  DataPlane(const ProtocolLimits& limits, TunDevice& device, AeadBackend backend)
      : exchange(limits), tun(device), aead(backend), sockets(std::make_shared<SocketSet>()) {}

  Exchange exchange;
  HandshakeQueue handshakes;
  TunDevice& tun;
  const AeadBackend aead;
  Published<SocketSet> sockets;
  Bell control_bell;                     // rung when the control thread has something to do
  std::atomic<bool> is_stopping{false};  // then ring every thread's bell
  std::atomic<bool> is_tun_gone{false};  // a read or write said so; the control thread finds out
};

class OutboundThread {
 public:
  OutboundThread(DataPlane& plane, unsigned queue);
  ~OutboundThread();  // REQUIRES: plane.is_stopping

  // Any thread: send what waits for these peers.
  void Request(std::span<const FlushRequest> requests);
  void Wake() { bell_.Ring(); }
  const DataCounters& counters() const { return counters_; }

 private:
  void Run();
  void SendRequested();
  bool DrainTun();
  void AddPacket(const TunRead& read);
  void FlushAndSend();

  DataPlane& plane_;
  const unsigned queue_;
  Bell bell_;
  DataCounters counters_;
  std::mutex mutex_;
  std::vector<FlushRequest> requests_;  // guarded by mutex_; bounded by callers' peers: one each per event

  // The thread's own.
  std::unique_ptr<AeadEngine> engine_;
  SystemRandom random_;
  Outbound outbound_;
  Published<SocketSet>::Reader sockets_;
  std::vector<std::uint8_t> arena_;
  std::vector<SendRun> runs_;
  std::vector<SendOutcome> outcomes_;
  Instant now_{};
  std::thread thread_;  // last: starts when all else stands
};

class InboundThread {
 public:
  // `outbound` gets the packets that waited for a session which the peer has just confirmed.
  InboundThread(DataPlane& plane, OutboundThread& outbound);
  ~InboundThread();  // REQUIRES: plane.is_stopping

  void Wake() { bell_.Ring(); }
  const DataCounters& counters() const { return counters_; }

 private:
  void Run();
  void FollowSockets(Poller& poller);
  void Drain(SocketFamily family);
  void Deliver();

  DataPlane& plane_;
  OutboundThread& outbound_;
  Bell bell_;
  DataCounters counters_;

  // The thread's own.
  std::unique_ptr<AeadEngine> engine_;
  Inbound inbound_;
  Coalescer coalescer_;
  UdpReceiver receiver_;
  std::shared_ptr<UdpSockets> sockets_;
  unsigned errors_in_a_row_ = 0;
  std::thread thread_;  // last: starts when all else stands
};

}  // namespace adit
