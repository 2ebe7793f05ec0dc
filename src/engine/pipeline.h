// Work side by side that comes in one by one and leaves in the order in which it came in.
//
//   BeginRead … EndRead   one thread at a time: it fills a slot, which then has the next place in the line
//   (between)             any number of threads, each with its own slot: the cipher
//   Finish                whoever finishes the head of the line carries it out, and what is finished behind it; one
//                         thread at a time, the others go on at once
//
// Nobody waits for a place in the line, and nobody spins: a thread sleeps only where there is nothing to read, no slot
// left, or another thread reading. A slot is one unit of work, a super-packet, with the memory it needs; their number
// is the bound of what is under way, and without a free one nothing is read.
//
// Who reads calls for help only when it found work without having had to wait for it, so a sparse stream of packets
// costs one thread and no wake-up, and idle threads stay asleep.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/check.h"

namespace adit {

template <typename Slot>
class Pipeline {
 public:
  explicit Pipeline(std::vector<std::unique_ptr<Slot>> slots) : slots_(std::move(slots)), line_(slots_.size()) {
    CHECK(!slots_.empty());
    for (auto& slot : slots_) free_.push_back(slot.get());
  }

  // The reader's role and a free slot, or null once closed. Calls `before_sleep` first if it has to wait for another
  // reader.
  template <typename BeforeSleep>
  Slot* BeginRead(BeforeSleep before_sleep) {
    std::unique_lock lock(mutex_);
    if (is_reading_ && !is_closed_) {
      ++idle_;
      before_sleep();
      may_read_.wait(lock, [this] { return !is_reading_ || is_closed_; });
      --idle_;
    }
    if (is_closed_) return nullptr;
    is_reading_ = true;
    slot_left_.wait(lock, [this] { return !free_.empty(); });  // the line moves on whatever we do
    Slot* const slot = free_.back();                           // the one used last: its memory is in the cache
    free_.pop_back();
    return slot;
  }

  // The reader is done: `slot` has the next place in the line. With `calls_help`, a sleeping thread reads on.
  void EndRead(Slot* slot, bool calls_help) {
    bool wakes = false;
    {
      const std::scoped_lock lock(mutex_);
      CHECK(is_reading_);
      line_[tail_++ % line_.size()] = Place{slot, false};
      is_reading_ = false;
      wakes = calls_help && idle_ > 0;
    }
    if (wakes) may_read_.notify_one();
  }

  // For the reader: waits until the line is empty. Then nothing else is under way, and the reader may do all by itself.
  void WaitUntilEmpty() {
    std::unique_lock lock(mutex_);
    CHECK(is_reading_);
    slot_left_.wait(lock, [this] { return head_ == tail_; });
  }

  // `slot` is ready to leave: carries out `leave` for all that can, in order.
  template <typename Leave>
  void Finish(Slot* slot, Leave leave) {
    std::unique_lock lock(mutex_);
    for (std::uint64_t place = head_; place != tail_; ++place) {
      if (line_[place % line_.size()].slot == slot) line_[place % line_.size()].is_finished = true;
    }
    if (is_leaving_) return;  // whoever carries out the head will see this one when it gets there
    is_leaving_ = true;
    while (head_ != tail_ && line_[head_ % line_.size()].is_finished) {
      Slot* const first = line_[head_ % line_.size()].slot;
      lock.unlock();
      leave(*first);
      lock.lock();
      ++head_;
      free_.push_back(first);
      slot_left_.notify_one();  // one reader at a time can wait for it
    }
    is_leaving_ = false;
  }

  // All who read or would read get null from now on.
  void Close() {
    {
      const std::scoped_lock lock(mutex_);
      is_closed_ = true;
    }
    may_read_.notify_all();
  }

 private:
  struct Place {
    Slot* slot = nullptr;
    bool is_finished = false;
  };

  const std::vector<std::unique_ptr<Slot>> slots_;
  std::mutex mutex_;
  std::condition_variable may_read_;   // nobody reads, and help was called for
  std::condition_variable slot_left_;  // a slot became free
  // All below: guarded by mutex_.
  std::vector<Slot*> free_;
  std::vector<Place> line_;  // a ring: places head_ to before tail_
  std::uint64_t head_ = 0;
  std::uint64_t tail_ = 0;
  std::size_t idle_ = 0;
  bool is_reading_ = false;
  bool is_leaving_ = false;  // a thread carries out the head
  bool is_closed_ = false;
};

}  // namespace adit
