// Which counters of a session have been received: a sliding window without shifting (RFC 6479; paper, 5.4.6).
//
// The window is a ring of words. A counter's bit stands at counter modulo ring size; when a greater counter arrives,
// the words in between are cleared, never moved. The word of the greatest counter is being filled, so one word less
// than the ring counts as window: a counter is too old if it is more than kReplayWindowUsable behind the greatest.
//
// Only authenticated messages may come here. Not thread-safe.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "tunnel/limits.h"

namespace adit {

class ReplayWindow {
 public:
  // True the first time a counter is seen, and marks it; false if it was seen before, is too old to tell, or has
  // reached the limit, from which on nothing is received under this key.
  bool Accept(std::uint64_t counter, std::uint64_t reject_after_messages = kRejectAfterMessages) {
    if (counter >= reject_after_messages) return false;
    const std::uint64_t word = counter / kWordBits;
    if (counter > greatest_) {
      const std::uint64_t steps = std::min<std::uint64_t>(word - greatest_ / kWordBits, kWords);
      for (std::uint64_t i = 0; i < steps; ++i) ring_[(word - i) % kWords] = 0;
      greatest_ = counter;
    } else if (greatest_ - counter > kReplayWindowUsable) {
      return false;
    }
    const std::uint64_t bit = std::uint64_t{1} << (counter % kWordBits);
    std::uint64_t& bits = ring_[word % kWords];
    const bool is_new = (bits & bit) == 0;
    bits |= bit;
    return is_new;
  }

 private:
  static constexpr std::size_t kWordBits = 64;
  static constexpr std::size_t kWords = kReplayWindowBits / kWordBits;

  std::uint64_t greatest_ = 0;  // of the accepted; whether 0 itself was seen is its bit's matter
  std::array<std::uint64_t, kWords> ring_{};
};

}  // namespace adit
