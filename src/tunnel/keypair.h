// One session: two keys, two counters, and the replay window of what was received (paper, 5.4.5 and 5.4.6).
//
// Shared between the control thread and the data threads through shared_ptr; the keys wipe themselves with the last
// reference. A data thread holds a reference only while it works on a batch.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>

#include "base/time.h"
#include "crypto/aead.h"
#include "tunnel/limits.h"
#include "tunnel/replay_window.h"

namespace adit {

class Keypair {
 public:
  Keypair(Bytes send, Bytes receive, std::uint32_t local, std::uint32_t remote, bool initiator, Instant created)
      : send_key(send),
        receive_key(receive),
        local_index(local),
        remote_index(remote),
        is_initiator(initiator),
        created_at(created) {}
  Keypair(const Keypair&) = delete;
  Keypair& operator=(const Keypair&) = delete;

  // Constant after construction.
  const AeadKey send_key;
  const AeadKey receive_key;
  const std::uint32_t local_index;   // the receiver index of what we get
  const std::uint32_t remote_index;  // the receiver index of what we send
  const bool is_initiator;
  const Instant created_at;

  // Reserves `count` consecutive send counters, each for one message and never again, sent or not. Empty if that would
  // pass the limit. Any thread.
  std::optional<std::uint64_t> ReserveCounters(std::uint64_t count, const ProtocolLimits& limits) {
    std::uint64_t first = send_counter_.load(std::memory_order_relaxed);
    do {
      if (first >= limits.reject_after_messages || count > limits.reject_after_messages - first) return std::nullopt;
    } while (!send_counter_.compare_exchange_weak(first, first + count, std::memory_order_relaxed));
    return first;
  }
  std::uint64_t next_send_counter() const { return send_counter_.load(std::memory_order_relaxed); }

  bool IsExpired(Instant now, const ProtocolLimits& limits) const {
    return now - created_at >= limits.reject_after_time;
  }

  // Only authenticated messages reach the window; locked once per batch.
  std::mutex replay_mutex;
  ReplayWindow replay;  // guarded by replay_mutex

 private:
  std::atomic<std::uint64_t> send_counter_{0};
};

}  // namespace adit
