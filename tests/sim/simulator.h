// The virtual clock and the queue of what is going to happen. One thread; nothing here or above it reads a real clock,
// so a run follows from its seed alone.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "base/time.h"

namespace adit::sim {

// splitmix64: what the simulation itself draws from. The protocol's own randomness is a SeededRandom per host, so that
// a change in one does not shift the other.
class Rng {
 public:
  explicit Rng(std::uint64_t seed) : state_(seed) {}
  std::uint64_t Next();
  // Uniform in [0, bound). REQUIRES: bound > 0.
  std::uint64_t Below(std::uint64_t bound) { return Next() % bound; }
  bool Chance(double probability);
  // Uniform in [low, high].
  Duration Between(Duration low, Duration high);
  // Exponential, cut off at eight times the mean.
  Duration Around(Duration mean);
  Rng Fork() { return Rng(Next()); }

 private:
  std::uint64_t state_;
};

class Simulator {
 public:
  using Action = std::function<void()>;

  // Does not start at zero: certain code could take zero for "never".
  static constexpr Instant kStart = Instant(1000s);

  Instant now() const { return now_; }
  // Actions of one instant happen in the order they were asked for. REQUIRES: when >= now().
  void At(Instant when, Action action);
  void After(Duration delay, Action action) { At(now_ + delay, std::move(action)); }
  // Everything up to `end`, which is then the time.
  void RunUntil(Instant end);
  std::uint64_t events() const { return events_; }

 private:
  struct Event {
    Instant when;
    std::uint64_t sequence;
    Action action;
    // std::push_heap keeps the greatest in front: the earliest is the greatest.
    friend bool operator<(const Event& a, const Event& b) {
      return a.when != b.when ? a.when > b.when : a.sequence > b.sequence;
    }
  };

  Instant now_ = kStart;
  std::uint64_t next_sequence_ = 0;
  std::uint64_t events_ = 0;
  std::vector<Event> heap_;
};

}  // namespace adit::sim
