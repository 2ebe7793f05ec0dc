#include "engine/data_plane.h"

#include <pthread.h>
#include <signal.h>
#include <spdlog/spdlog.h>

#include <chrono>
#include <utility>

#include "base/check.h"
#include "engine/clock.h"
#include "tun/split.h"

namespace adit {
namespace {

// Room for a whole super-packet behind what has been gathered already. 256 KiB stays in an L2 cache together with
// what it is sealed into.
constexpr std::size_t kReadArenaBytes = 256 * 1024;
constexpr std::size_t kReadRoom = kMaxPacketBytes + StagedPacket::kScratchBytes;
// A read of this size is worth a send of its own: what follows it would only push it out of the cache.
constexpr std::size_t kSuperPacketBytes = 16 * 1024;
// Small packets gathered before they are sealed and sent, if more keep coming: 64 are one GSO send.
constexpr std::size_t kMaxGatheredReads = 64;
// Batches in a row before the thread looks at its bell again.
constexpr unsigned kMaxBatchesPerWake = 64;
constexpr unsigned kMaxReceivesPerWake = 16;  // per family, so that one cannot starve the other
constexpr unsigned kErrorsBeforePause = 10;
constexpr auto kErrorPause = std::chrono::milliseconds(10);

// Signals are the control thread's.
std::thread StartThread(const char* name, auto&& function) {
  sigset_t all, old;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &old);
  std::thread thread(std::forward<decltype(function)>(function));
  pthread_sigmask(SIG_SETMASK, &old, nullptr);
  pthread_setname_np(thread.native_handle(), name);
  return thread;
}

void Count(std::atomic<std::uint64_t>& counter, std::uint64_t by = 1) {
  counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);  // one writer
}

}  // namespace

// ---- outbound

OutboundThread::OutboundThread(DataPlane& plane, unsigned queue)
    : plane_(plane),
      queue_(queue),
      engine_(AeadEngine::Create(plane.aead)),
      outbound_(plane.exchange, *engine_, random_, kMaxGsoBytes),
      sockets_(plane.sockets),
      arena_(kReadArenaBytes),
      thread_(StartThread("adit-out", [this] { Run(); })) {}

OutboundThread::~OutboundThread() {
  CHECK(plane_.is_stopping.load());
  bell_.Ring();
  thread_.join();
}

void OutboundThread::Request(std::span<const FlushRequest> requests) {
  if (requests.empty()) return;
  {
    const std::scoped_lock lock(mutex_);
    requests_.insert(requests_.end(), requests.begin(), requests.end());
  }
  bell_.Ring();
}

void OutboundThread::Run() {
  Poller poller;
  poller.Add(bell_.fd());
  poller.Add(plane_.tun.queue_fd(queue_));
  while (!plane_.is_stopping.load(std::memory_order_relaxed)) {
    for (const epoll_event& event : poller.Wait()) {
      if (event.data.fd == bell_.fd()) {
        bell_.Silence();
        SendRequested();
      } else if (!DrainTun()) {
        poller.Remove(plane_.tun.queue_fd(queue_));
        plane_.is_tun_gone.store(true);
        plane_.control_bell.Ring();
      }
    }
    engine_->ForgetKeys();
    sockets_.Release();
  }
}

void OutboundThread::SendRequested() {
  std::vector<FlushRequest> requests;
  {
    const std::scoped_lock lock(mutex_);
    requests = std::exchange(requests_, {});
  }
  now_ = BootNow();
  for (const FlushRequest& request : requests) {
    outbound_.SendStaged(request.peer, request.keepalive_if_none, now_);
    FlushAndSend();
  }
}

// Reads until there is nothing more. False: the device is gone.
bool OutboundThread::DrainTun() {
  std::size_t used = 0, gathered = 0;
  now_ = BootNow();
  for (unsigned batches = 0; batches < kMaxBatchesPerWake;) {
    const TunRead read = plane_.tun.Read(queue_, MutableBytes(arena_).subspan(used, kReadRoom), /*headroom=*/0);
    if (read.status != IoStatus::kOk) {
      FlushAndSend();
      if (read.status != IoStatus::kWouldBlock) Count(counters_.errors);
      return read.status != IoStatus::kGone;
    }
    Count(counters_.reads);
    AddPacket(read);
    ++gathered;
    used += (read.packet.size() + StagedPacket::kScratchBytes + 63) / 64 * 64;
    if (read.packet.size() >= kSuperPacketBytes || gathered == kMaxGatheredReads || used + kReadRoom > arena_.size()) {
      FlushAndSend();
      used = gathered = 0;
      ++batches;
      now_ = BootNow();
    }
  }
  FlushAndSend();
  return true;
}

void OutboundThread::AddPacket(const TunRead& read) {
  Splitter splitter(read.header, read.packet);
  if (splitter.error() != SplitError::kNone) {
    plane_.exchange.drops.Add(DropReason::kMalformedIp);
    return;
  }
  while (const auto segment = splitter.Next()) {
    if (outbound_.Add(segment->head, segment->body, now_)) continue;
    FlushAndSend();
    CHECK(outbound_.Add(segment->head, segment->body, now_));
  }
}

void OutboundThread::FlushAndSend() {
  outbound_.Flush(now_);
  const auto sealed = outbound_.runs();
  if (!sealed.empty()) {
    const auto& sockets = sockets_.Refresh().sockets;
    runs_.clear();
    for (const SealedRun& run : sealed) runs_.push_back(SendRun{run.data, run.segment_bytes, run.to, run.tos});
    outcomes_.assign(runs_.size(), SendOutcome{});
    if (sockets) sockets->Send(runs_, now_, outcomes_);
    for (std::size_t i = 0; i < sealed.size(); ++i) {
      outbound_.OnSent(sealed[i], outcomes_[i].datagrams_sent, outcomes_[i].clear_source);
      if (outcomes_[i].error != 0) Count(counters_.errors);
    }
    Count(counters_.writes, sealed.size());
    counters_.packets.store(outbound_.packets_sealed(), std::memory_order_relaxed);
  }
  for (const auto& answer : outbound_.icmp_answers()) {
    TunWrite write;
    write.parts.push_back(iovec{const_cast<std::uint8_t*>(answer.data()), answer.size()});
    write.bytes = answer.size();
    plane_.tun.Write(queue_, write);
  }
  if (outbound_.wake_control()) plane_.control_bell.Ring();
  outbound_.Clear();
}

// ---- inbound

InboundThread::InboundThread(DataPlane& plane, OutboundThread& outbound)
    : plane_(plane),
      outbound_(outbound),
      engine_(AeadEngine::Create(plane.aead)),
      inbound_(plane.exchange, plane.handshakes, *engine_),
      coalescer_(CoalesceOptions{}),
      thread_(StartThread("adit-in", [this] { Run(); })) {}

InboundThread::~InboundThread() {
  CHECK(plane_.is_stopping.load());
  bell_.Ring();
  thread_.join();
}

void InboundThread::Run() {
  Poller poller;
  poller.Add(bell_.fd());
  FollowSockets(poller);
  while (!plane_.is_stopping.load(std::memory_order_relaxed)) {
    for (const epoll_event& event : poller.Wait()) {
      if (event.data.fd == bell_.fd()) {
        bell_.Silence();
        FollowSockets(poller);
        break;  // the events behind this one may be of sockets that are closed now
      }
      if (!sockets_) continue;
      for (const SocketFamily family : {SocketFamily::kV4, SocketFamily::kV6}) {
        if (event.data.fd == sockets_->fd(family)) Drain(family);
      }
    }
    engine_->ForgetKeys();
  }
}

// The old sockets stay open for as long as we hold them, so their descriptors can be taken out of the poller.
void InboundThread::FollowSockets(Poller& poller) {
  std::shared_ptr<UdpSockets> next = plane_.sockets.Get()->sockets;
  if (next == sockets_) return;
  for (const SocketFamily family : {SocketFamily::kV4, SocketFamily::kV6}) {
    if (sockets_ && sockets_->fd(family) >= 0) poller.Remove(sockets_->fd(family));
    if (next && next->fd(family) >= 0) poller.Add(next->fd(family));
  }
  sockets_ = std::move(next);
}

void InboundThread::Drain(SocketFamily family) {
  for (unsigned receives = 0; receives < kMaxReceivesPerWake; ++receives) {
    std::span<ReceivedRun> runs;
    switch (receiver_.Receive(*sockets_, family, runs)) {
      case ReceiveStatus::kWouldBlock:
        return;
      case ReceiveStatus::kError:
        // The socket stays usable whatever it said; but a condition that lasts must not become a busy loop.
        Count(counters_.errors);
        if (++errors_in_a_row_ >= kErrorsBeforePause) std::this_thread::sleep_for(kErrorPause);
        return;
      case ReceiveStatus::kOk:
        break;
    }
    errors_in_a_row_ = 0;
    Count(counters_.reads);
    const Instant now = BootNow();
    for (const ReceivedRun& run : runs) {
      if (run.truncated) {
        plane_.exchange.drops.Add(DropReason::kTruncated);
      } else {
        inbound_.Process(run.data, run.segment_bytes, run.from, run.ecn, now);
      }
    }
    Deliver();
  }
}

void InboundThread::Deliver() {
  const TunOffloads offloads = plane_.tun.offloads();
  coalescer_.set_options(CoalesceOptions{offloads.tso, offloads.uso});
  for (const MutableBytes packet : inbound_.packets()) coalescer_.Add(packet);
  for (TunWrite& write : coalescer_.Finish()) {
    const std::size_t packets = write.packet_count;
    switch (plane_.tun.Write(/*queue=*/0, write)) {
      case IoStatus::kOk:
        break;
      case IoStatus::kGone:
        plane_.is_tun_gone.store(true);
        plane_.control_bell.Ring();
        [[fallthrough]];
      default:
        Count(counters_.errors);
        plane_.exchange.drops.Add(DropReason::kTunWriteFailed, packets);
    }
    Count(counters_.writes);
  }
  coalescer_.Clear();
  for (const auto& peer : inbound_.to_flush()) {
    const FlushRequest request{peer, /*keepalive_if_none=*/false};
    outbound_.Request(std::span(&request, 1));
  }
  if (inbound_.wake_control()) plane_.control_bell.Ring();
  counters_.packets.store(inbound_.packets_opened(), std::memory_order_relaxed);
  inbound_.Clear();
}

}  // namespace adit
