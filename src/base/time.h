// Two clocks, kept apart by type. Every age and every timer uses Instant, a clock that goes on while the machine
// sleeps, so that keys age in suspend. WallTime stands only in the TAI64N stamp and in what users read.
// Neither type can read a clock: `now` is an argument everywhere below the engine.
#pragma once

#include <chrono>
#include <cstdint>

namespace adit {

using Duration = std::chrono::nanoseconds;

struct BootClock {  // CLOCK_BOOTTIME; deliberately without now()
  using duration = Duration;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<BootClock>;
  static constexpr bool is_steady = true;
};
using Instant = BootClock::time_point;

struct WallTime {  // CLOCK_REALTIME, since the UNIX epoch
  std::int64_t seconds = 0;
  std::uint32_t nanoseconds = 0;
  friend auto operator<=>(const WallTime&, const WallTime&) = default;
};

using namespace std::chrono_literals;

}  // namespace adit
