// One value that the control thread replaces as a whole and data threads read: a snapshot. A reader takes it once per
// wake-up, asks once per batch whether there is a newer one, and lets go before it sleeps, so that a thread at rest
// keeps nothing alive.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

namespace adit {

template <typename T>
class Published {
 public:
  explicit Published(std::shared_ptr<const T> initial) : value_(std::move(initial)) {}

  void Publish(std::shared_ptr<const T> value) {
    std::shared_ptr<const T> old;  // destroyed outside the lock
    {
      const std::scoped_lock lock(mutex_);
      old = std::exchange(value_, std::move(value));
      version_.fetch_add(1, std::memory_order_release);
    }
  }

  std::shared_ptr<const T> Get() const {
    const std::scoped_lock lock(mutex_);
    return value_;
  }

  // A reader's own view; one per thread.
  class Reader {
   public:
    explicit Reader(const Published& from) : from_(&from) {}
    // The current value; a lock only if it changed since the last call, or after Release().
    const T& Refresh() {
      if (!value_ || version_ != from_->version_.load(std::memory_order_acquire)) {
        const std::scoped_lock lock(from_->mutex_);
        value_ = from_->value_;
        version_ = from_->version_.load(std::memory_order_relaxed);
      }
      return *value_;
    }
    // The value of the last Refresh(). REQUIRES: no Release() since.
    const T& Current() const { return *value_; }
    void Release() { value_.reset(); }

   private:
    const Published* from_;
    std::shared_ptr<const T> value_;
    std::uint64_t version_ = 0;
  };

 private:
  mutable std::mutex mutex_;
  std::shared_ptr<const T> value_;         // guarded by mutex_
  std::atomic<std::uint64_t> version_{1};  // written under mutex_
};

}  // namespace adit
