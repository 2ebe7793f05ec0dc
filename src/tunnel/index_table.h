// Receiver index → session. The control thread writes, inbound threads look up once per run of messages.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "tunnel/keypair.h"

namespace adit {

class Peer;

// What a receiver index stands for: both are empty if it is unknown.
struct Session {
  std::shared_ptr<Keypair> keypair;
  std::shared_ptr<Peer> peer;
};

// Bounded by three keypairs per peer and kMaxPeers. Indices are our own random choice, so nobody can aim at a bucket.
class IndexTable {
 public:
  void Insert(const std::shared_ptr<Keypair>& keypair, const std::shared_ptr<Peer>& peer) {
    const std::scoped_lock lock(mutex_);
    sessions_.insert_or_assign(keypair->local_index, Session{keypair, peer});
  }
  void Remove(std::uint32_t index) {
    Session gone;  // destroyed outside the lock
    const std::scoped_lock lock(mutex_);
    if (const auto it = sessions_.find(index); it != sessions_.end()) {
      gone = std::move(it->second);
      sessions_.erase(it);
    }
  }
  Session Find(std::uint32_t index) const {
    const std::scoped_lock lock(mutex_);
    const auto it = sessions_.find(index);
    return it == sessions_.end() ? Session{} : it->second;
  }
  bool Contains(std::uint32_t index) const {
    const std::scoped_lock lock(mutex_);
    return sessions_.contains(index);
  }
  std::size_t size() const {
    const std::scoped_lock lock(mutex_);
    return sessions_.size();
  }

 private:
  mutable std::mutex mutex_;
  std::unordered_map<std::uint32_t, Session> sessions_;  // guarded by mutex_
};

}  // namespace adit
