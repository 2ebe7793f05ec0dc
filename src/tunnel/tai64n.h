// TAI64N: the time stamp in an initiation, by which the responder refuses old ones (paper, 5.1 and 5.4.2).
#pragma once

#include <compare>

#include "base/bytes.h"
#include "base/time.h"

namespace adit {

// 8 bytes of seconds since 1970 TAI, offset by 2^62, and 4 bytes of nanoseconds; both big-endian, so that comparing
// the bytes compares the times.
struct Tai64n {
  ByteArray<12> bytes{};
  friend auto operator<=>(const Tai64n&, const Tai64n&) = default;
};

// Stamps are rounded down to this many nanoseconds, 16.8 ms: a precise clock on the wire would give away how long a
// handshake took to compute. It is the largest power of two below kMinInitiationInterval.
inline constexpr std::uint32_t kTai64nStep = std::uint32_t{1} << 24;

// The stamp for `now`, rounded down. Leap seconds do not count: the offset to UTC stays the 10 s of 1970, as in
// the reference implementation. Times before 1970 are valid too and order correctly.
Tai64n ToTai64n(WallTime now);

// The smallest rounded stamp that is greater than `stamp`. REQUIRES: `stamp` came from these two functions.
Tai64n NextTai64n(const Tai64n& stamp);

}  // namespace adit
