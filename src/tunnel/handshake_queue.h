// Handshake messages on their way from the data threads to the control thread: bounded, with its own memory, so that a
// flood of them costs the data path a copy of 148 bytes each and nothing else.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/check.h"
#include "tunnel/limits.h"
#include "tunnel/messages.h"

namespace adit {

struct HandshakeDatagram {
  ByteArray<sizeof(InitiationMessage)> bytes;  // the longest of the three kinds
  std::uint8_t size = 0;
  Endpoint from;
  Bytes message() const { return Bytes(bytes).first(size); }
};

class HandshakeQueue {
 public:
  enum class PushResult { kQueued, kQueuedFirst, kDropped };

  HandshakeQueue() : ring_(kHandshakeQueueLength) {}

  // Any thread. kQueuedFirst: the queue was empty, wake the control thread. kDropped: it is full, or it is more than
  // half full and another thread is at it (the data path never waits for handshakes, CONF-71).
  PushResult Push(Bytes message, const Endpoint& from) {
    CHECK(message.size() <= sizeof(InitiationMessage));
    std::unique_lock lock(mutex_, std::defer_lock);
    if (size_.load(std::memory_order_relaxed) > kHandshakeQueueLength / 2) {
      if (!lock.try_lock()) return PushResult::kDropped;
    } else {
      lock.lock();
    }
    const std::size_t size = size_.load(std::memory_order_relaxed);
    if (size == ring_.size()) return PushResult::kDropped;
    HandshakeDatagram& slot = ring_[(first_ + size) % ring_.size()];
    std::ranges::copy(message, slot.bytes.begin());
    slot.size = static_cast<std::uint8_t>(message.size());
    slot.from = from;
    size_.store(size + 1, std::memory_order_relaxed);
    return size == 0 ? PushResult::kQueuedFirst : PushResult::kQueued;
  }

  // Appends up to `count` of the oldest to `out`; returns how many waited before.
  std::size_t Take(std::size_t count, std::vector<HandshakeDatagram>& out) {
    const std::scoped_lock lock(mutex_);
    const std::size_t size = size_.load(std::memory_order_relaxed);
    const std::size_t taken = std::min(count, size);
    for (std::size_t i = 0; i < taken; ++i) out.push_back(ring_[(first_ + i) % ring_.size()]);
    first_ = (first_ + taken) % ring_.size();
    size_.store(size - taken, std::memory_order_relaxed);
    return size;
  }

 private:
  std::mutex mutex_;
  std::vector<HandshakeDatagram> ring_;  // guarded by mutex_
  std::size_t first_ = 0;                // guarded by mutex_
  std::atomic<std::size_t> size_{0};     // written under mutex_
};

}  // namespace adit
