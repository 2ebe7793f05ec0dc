#include "engine/sleep_watch.h"

#include <sys/timerfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <limits>

#include "engine/poller.h"

namespace adit {
namespace {

Duration Read(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

}  // namespace

Duration TimeAsleep() {
  const Duration without = Read(CLOCK_MONOTONIC);
  return Read(CLOCK_BOOTTIME) - without;
}

Result<SleepWatch> SleepWatch::Open(std::function<Duration()> time_asleep) {
  Fd fd(timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC));
  if (!fd) return FailDescriptor(errno, "a timerfd");
  itimerspec never{};
  never.it_value.tv_sec = std::numeric_limits<std::int32_t>::max();  // a time that every kernel takes
  if (timerfd_settime(fd.get(), TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never, nullptr) != 0) {
    return FailErrno(errno, "cannot wait for the end of a suspend: {}", std::strerror(errno));
  }
  return SleepWatch(std::move(fd), std::move(time_asleep));
}

bool SleepWatch::HasSlept() {
  std::uint64_t ignored = 0;
  [[maybe_unused]] const auto got = read(fd_.get(), &ignored, sizeof ignored);  // ECANCELED, which settles it
  const Duration asleep = time_asleep_();
  if (asleep - asleep_before_ < kShortestSleep) return false;
  asleep_before_ = asleep;
  return true;
}

}  // namespace adit
