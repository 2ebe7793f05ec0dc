// The clocks (door). The only place where the product reads one.
#pragma once

#include <ctime>

#include "base/time.h"
#include "tunnel/tunnel.h"

namespace adit {

inline Instant BootNow() {
  timespec ts;
  clock_gettime(CLOCK_BOOTTIME, &ts);
  return Instant(Duration(std::int64_t{ts.tv_sec} * 1'000'000'000 + ts.tv_nsec));
}

inline WallTime WallNow() {
  timespec ts;
  clock_gettime(CLOCK_REALTIME, &ts);
  return WallTime{ts.tv_sec, static_cast<std::uint32_t>(ts.tv_nsec)};
}

inline Now BothNow() { return Now{BootNow(), WallNow()}; }

}  // namespace adit
