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
// Units in a row before the reader looks at its bell again.
constexpr unsigned kMaxUnitsPerWake = 64;
constexpr unsigned kMaxReceivesPerWake = 16;  // over both families, which take turns
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
  counter.fetch_add(by, std::memory_order_relaxed);
}

std::vector<std::unique_ptr<AeadEngine>> MakeEngines(AeadBackend backend, unsigned count) {
  std::vector<std::unique_ptr<AeadEngine>> engines;
  for (unsigned i = 0; i < count; ++i) engines.push_back(AeadEngine::Create(backend));
  return engines;
}

// One thread does one unit after the other; a second one under way would only push the first out of the cache.
std::size_t SlotCount(unsigned threads) { return threads == 1 ? 1 : threads * kSlotsPerThread; }

}  // namespace

// ---- outbound

OutboundPath::Slot::Slot(Exchange& exchange, Random& random)
    : outbound(exchange, random, kMaxGsoBytes),
      memory(std::make_unique_for_overwrite<std::uint8_t[]>(kReadArenaBytes)),
      arena(memory.get(), kReadArenaBytes) {}

std::vector<std::unique_ptr<OutboundPath::Slot>> OutboundPath::MakeSlots(Exchange& exchange, unsigned threads) {
  std::vector<std::unique_ptr<Slot>> slots;
  SystemRandom random;
  for (std::size_t i = 0; i < SlotCount(threads); ++i) slots.push_back(std::make_unique<Slot>(exchange, random));
  return slots;
}

OutboundPath::OutboundPath(DataPlane& plane, unsigned queue, unsigned threads, Bed bed)
    : plane_(plane),
      queue_(queue),
      bed_(std::move(bed)),
      pipeline_(MakeSlots(plane.exchange, threads)),
      engines_(MakeEngines(plane.aead, threads)) {
  for (const auto& engine : engines_) {
    threads_.push_back(StartThread("adit-out", [this, &engine = *engine] { Run(engine); }));
  }
}

OutboundPath::~OutboundPath() {
  CHECK(plane_.is_stopping.load());
  pipeline_.Close();
  bed_.bell.Ring();
  for (std::thread& thread : threads_) thread.join();
}

void OutboundPath::Request(std::span<const FlushRequest> requests) {
  if (requests.empty()) return;
  {
    const std::scoped_lock lock(mutex_);
    requests_.insert(requests_.end(), requests.begin(), requests.end());
  }
  bed_.bell.Ring();
}

void OutboundPath::Run(AeadEngine& engine) {
  while (Slot* const slot = pipeline_.BeginRead([&engine] { engine.ForgetKeys(); })) {
    bool has_slept = false;
    if (!Read(*slot, engine, has_slept)) return;  // stopping: the role goes with us, nobody else may read
    slot->outbound.Reserve(slot->now);
    pipeline_.EndRead(slot, /*calls_help=*/!has_slept);
    if (plane_.disturb) plane_.disturb();
    slot->outbound.Seal(engine);
    pipeline_.Finish(slot, [this](Slot& first) { Send(first); });
  }
}

// Fills `slot` with one unit, waiting for it if need be. False: we are stopping.
bool OutboundPath::Read(Slot& slot, AeadEngine& engine, bool& has_slept) {
  while (!plane_.is_stopping.load(std::memory_order_relaxed)) {
    if (ReadRequested(slot)) return true;
    if (is_readable_ && units_since_sleep_ < kMaxUnitsPerWake) {
      ++units_since_sleep_;
      if (ReadTun(slot, engine)) return true;
    }
    has_slept |= !is_readable_;
    Sleep(engine);
  }
  return false;
}

void OutboundPath::Sleep(AeadEngine& engine) {
  engine.ForgetKeys();
  units_since_sleep_ = 0;
  for (const epoll_event& event : bed_.poller.Wait()) {
    if (event.data.fd == bed_.bell.fd()) {
      bed_.bell.Silence();
      const std::scoped_lock lock(mutex_);
      // Last first, so that the next one is at the end.
      taken_.insert(taken_.begin(), requests_.rbegin(), requests_.rend());
      requests_.clear();
    } else {
      is_readable_ = true;
    }
  }
}

bool OutboundPath::ReadRequested(Slot& slot) {
  if (taken_.empty()) return false;
  const FlushRequest request = std::move(taken_.back());
  taken_.pop_back();
  slot.now = BootNow();
  slot.outbound.ReserveStaged(request.peer, request.keepalive_if_none, slot.now);
  return true;
}

// Reads a super-packet, or small packets until there is none or there are enough. False: nothing was there.
bool OutboundPath::ReadTun(Slot& slot, AeadEngine& engine) {
  std::size_t used = 0;
  slot.now = BootNow();
  for (std::size_t gathered = 0; gathered < kMaxGatheredReads && used + kReadRoom <= slot.arena.size(); ++gathered) {
    const TunRead read = plane_.tun.Read(queue_, slot.arena.subspan(used, kReadRoom), /*headroom=*/0);
    if (read.status != IoStatus::kOk) {
      is_readable_ = false;
      if (read.status != IoStatus::kWouldBlock) Count(counters_.errors);
      if (read.status == IoStatus::kGone) {
        bed_.poller.Remove(plane_.tun.queue_fd(queue_));
        plane_.is_tun_gone.store(true);
        plane_.control_bell.Ring();
      }
      return gathered > 0;
    }
    Count(counters_.reads);
    Split(slot, read, engine);
    used += (read.packet.size() + StagedPacket::kScratchBytes + 63) / 64 * 64;
    if (read.packet.size() >= kSuperPacketBytes) break;
  }
  return true;
}

void OutboundPath::Split(Slot& slot, const TunRead& read, AeadEngine& engine) {
  Splitter splitter(read.header, read.packet);
  if (splitter.error() != SplitError::kNone) {
    plane_.exchange.drops.Add(DropReason::kMalformedIp);
    return;
  }
  while (const auto segment = splitter.Next()) {
    if (slot.outbound.Add(segment->head, segment->body, slot.now)) continue;
    // A full batch in the midst of a super-packet, which happens with tiny segments only: the rest must follow it, and
    // cannot before all earlier units have left.
    pipeline_.WaitUntilEmpty();
    slot.outbound.Flush(slot.now, engine);
    Send(slot);
    CHECK(slot.outbound.Add(segment->head, segment->body, slot.now));
  }
}

void OutboundPath::Send(Slot& slot) {
  const auto sealed = slot.outbound.runs();
  if (!sealed.empty()) {
    const auto sockets = plane_.sockets.Get()->sockets;
    slot.runs.clear();
    for (const SealedRun& run : sealed) slot.runs.push_back(SendRun{run.data, run.segment_bytes, run.to, run.tos});
    slot.outcomes.assign(slot.runs.size(), SendOutcome{});
    if (sockets) sockets->Send(slot.runs, slot.now, slot.outcomes);
    for (std::size_t i = 0; i < sealed.size(); ++i) {
      slot.outbound.OnSent(sealed[i], slot.outcomes[i].datagrams_sent, slot.outcomes[i].clear_source);
      if (slot.outcomes[i].error != 0) Count(counters_.errors);
    }
    Count(counters_.writes, sealed.size());
    Count(counters_.packets, slot.outbound.packet_count());
  }
  for (const auto& answer : slot.outbound.icmp_answers()) {
    TunWrite write;
    write.parts.push_back(iovec{const_cast<std::uint8_t*>(answer.data()), answer.size()});
    write.bytes = answer.size();
    plane_.tun.Write(queue_, write);
  }
  if (slot.outbound.wake_control()) plane_.control_bell.Ring();
  slot.outbound.Clear();
}

// ---- inbound

std::vector<std::unique_ptr<InboundPath::Slot>> InboundPath::MakeSlots(DataPlane& plane, unsigned threads) {
  std::vector<std::unique_ptr<Slot>> slots;
  // What one thread takes at a time, several share.
  const std::size_t buffers = threads == 1 ? kReceiveBuffers : 1;
  for (std::size_t i = 0; i < SlotCount(threads); ++i) slots.push_back(std::make_unique<Slot>(plane, buffers));
  return slots;
}

InboundPath::InboundPath(DataPlane& plane, OutboundPath& outbound, unsigned threads, Bed bed)
    : plane_(plane),
      outbound_(outbound),
      bed_(std::move(bed)),
      pipeline_(MakeSlots(plane, threads)),
      coalescer_(CoalesceOptions{}),
      engines_(MakeEngines(plane.aead, threads)) {
  FollowSockets();
  for (const auto& engine : engines_) {
    threads_.push_back(StartThread("adit-in", [this, &engine = *engine] { Run(engine); }));
  }
}

InboundPath::~InboundPath() {
  CHECK(plane_.is_stopping.load());
  pipeline_.Close();
  bed_.bell.Ring();
  for (std::thread& thread : threads_) thread.join();
}

void InboundPath::Run(AeadEngine& engine) {
  while (Slot* const slot = pipeline_.BeginRead([&engine] { engine.ForgetKeys(); })) {
    bool has_slept = false;
    if (!Read(*slot, engine, has_slept)) return;  // stopping: the role goes with us, nobody else may read
    pipeline_.EndRead(slot, /*calls_help=*/!has_slept);
    if (plane_.disturb) plane_.disturb();
    slot->inbound.Open(engine);
    pipeline_.Finish(slot, [this](Slot& first) { Deliver(first); });
  }
}

// Fills `slot` with what one call receives, waiting for it if need be. False: we are stopping.
bool InboundPath::Read(Slot& slot, AeadEngine& engine, bool& has_slept) {
  while (!plane_.is_stopping.load(std::memory_order_relaxed)) {
    for (int tries = 0; tries < 2 && units_since_sleep_ < kMaxReceivesPerWake; ++tries) {
      const SocketFamily family = turn_;
      turn_ = family == SocketFamily::kV4 ? SocketFamily::kV6 : SocketFamily::kV4;
      if (!is_readable_[static_cast<std::size_t>(family)]) continue;
      ++units_since_sleep_;
      if (Receive(slot, family)) return true;
    }
    has_slept |= !is_readable_[0] && !is_readable_[1];
    Sleep(engine);
  }
  return false;
}

void InboundPath::Sleep(AeadEngine& engine) {
  engine.ForgetKeys();
  units_since_sleep_ = 0;
  for (const epoll_event& event : bed_.poller.Wait()) {
    if (event.data.fd == bed_.bell.fd()) {
      bed_.bell.Silence();
      FollowSockets();
      return;  // the events behind this one may be of sockets that are closed now
    }
    if (!sockets_) continue;
    for (const SocketFamily family : {SocketFamily::kV4, SocketFamily::kV6}) {
      if (event.data.fd == sockets_->fd(family)) is_readable_[static_cast<std::size_t>(family)] = true;
    }
  }
}

// The old sockets stay open for as long as we hold them, so their descriptors can be taken out of the poller.
void InboundPath::FollowSockets() {
  std::shared_ptr<UdpSockets> next = plane_.sockets.Get()->sockets;
  if (next == sockets_) return;
  for (const SocketFamily family : {SocketFamily::kV4, SocketFamily::kV6}) {
    if (sockets_ && sockets_->fd(family) >= 0) bed_.poller.Remove(sockets_->fd(family));
    // Without a watch nothing comes in by this socket, until the link or the port is set anew.
    if (next && next->fd(family) >= 0) {
      if (const Status added = bed_.poller.Add(next->fd(family)); !added) spdlog::error("{}", added.error().message);
    }
    is_readable_[static_cast<std::size_t>(family)] = false;  // the poller says
  }
  sockets_ = std::move(next);
}

// False: there is nothing more.
bool InboundPath::Receive(Slot& slot, SocketFamily family) {
  std::span<ReceivedRun> runs;
  const ReceiveStatus status = sockets_ ? slot.receiver.Receive(*sockets_, family, runs) : ReceiveStatus::kWouldBlock;
  if (status != ReceiveStatus::kOk) {
    is_readable_[static_cast<std::size_t>(family)] = false;
    if (status == ReceiveStatus::kError) {
      // The socket stays usable whatever it said; but a condition that lasts must not become a busy loop.
      Count(counters_.errors);
      if (++errors_in_a_row_ >= kErrorsBeforePause) std::this_thread::sleep_for(kErrorPause);
    }
    return false;
  }
  errors_in_a_row_ = 0;
  Count(counters_.reads);
  const Instant now = BootNow();
  for (const ReceivedRun& run : runs) {
    if (run.truncated) {
      plane_.exchange.drops.Add(DropReason::kTruncated);
    } else {
      slot.inbound.Add(run.data, run.segment_bytes, run.from, run.ecn, now);
    }
  }
  return true;
}

void InboundPath::Deliver(Slot& slot) {
  Inbound& inbound = slot.inbound;
  inbound.Accept();
  const TunOffloads offloads = plane_.tun.offloads();
  coalescer_.set_options(CoalesceOptions{offloads.tso, offloads.uso});
  for (const MutableBytes packet : inbound.packets()) coalescer_.Add(packet);
  for (const TunWrite& write : coalescer_.Finish()) {
    // The kernel sends a flow's packets to the queue that its packets last came from: this spreads them.
    const std::size_t packets = write.packet_count;
    switch (plane_.tun.Write(write.flow_hash % plane_.tun.queue_count(), write)) {
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
  for (const auto& peer : inbound.to_flush()) {
    const FlushRequest request{peer, /*keepalive_if_none=*/false};
    outbound_.Request(std::span(&request, 1));
  }
  if (inbound.wake_control()) plane_.control_bell.Ring();
  Count(counters_.packets, inbound.packet_count());
  inbound.Clear();
}

}  // namespace adit
