// Whether the machine was suspended (door). The kernel tells nobody that it has resumed, but it cancels timers that
// hang on the time of day, and the clock that goes on during suspend has run ahead of the one that does not.
#pragma once

#include <functional>

#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"

namespace adit {

// How long the machine has been suspended since it booted.
Duration TimeAsleep();

// Control thread only. Idle it costs nothing.
class SleepWatch {
 public:
  // Shorter ones are no journey; and the two clocks are not read at the same moment.
  static constexpr Duration kShortestSleep = 1s;

  static Result<SleepWatch> Open(std::function<Duration()> time_asleep);

  // Readable when the machine may have slept (or its clock was set).
  int fd() const { return fd_.get(); }
  // True once for each sleep.
  bool HasSlept();

 private:
  SleepWatch(Fd fd, std::function<Duration()> time_asleep)
      : fd_(std::move(fd)), time_asleep_(std::move(time_asleep)), asleep_before_(time_asleep_()) {}

  Fd fd_;
  std::function<Duration()> time_asleep_;
  Duration asleep_before_;
};

}  // namespace adit
