#include "simulator.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace adit::sim {

std::uint64_t Rng::Next() {
  state_ += 0x9e3779b97f4a7c15;
  std::uint64_t z = state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

bool Rng::Chance(double probability) { return static_cast<double>(Next() >> 11) * 0x1p-53 < probability; }

Duration Rng::Between(Duration low, Duration high) {
  return low + Duration(static_cast<Duration::rep>(Below(static_cast<std::uint64_t>((high - low).count()) + 1)));
}

Duration Rng::Around(Duration mean) {
  const double uniform = (static_cast<double>(Next() >> 11) + 1) * 0x1p-53;
  const double factor = std::min(8.0, -std::log(uniform));
  return Duration(static_cast<Duration::rep>(factor * static_cast<double>(mean.count())));
}

void Simulator::At(Instant when, Action action) {
  CHECK(when >= now_);
  heap_.push_back(Event{when, next_sequence_++, std::move(action)});
  std::push_heap(heap_.begin(), heap_.end());
}

void Simulator::RunUntil(Instant end) {
  while (!heap_.empty() && heap_.front().when <= end) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Event event = std::move(heap_.back());
    heap_.pop_back();
    now_ = event.when;
    ++events_;
    event.action();
  }
  now_ = end;
}

}  // namespace adit::sim
