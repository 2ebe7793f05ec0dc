// Randomness as an argument: the product passes crypto's SystemRandom, a test passes SeededRandom and prints the seed.
#pragma once

#include <cstdint>
#include <random>

#include "base/bytes.h"

namespace adit {

class Random {
 public:
  virtual ~Random() = default;
  virtual void Fill(MutableBytes out) = 0;

  std::uint32_t NextU32() {
    ByteArray<4> b;
    Fill(b);
    return static_cast<std::uint32_t>(b[0]) | static_cast<std::uint32_t>(b[1]) << 8 |
           static_cast<std::uint32_t>(b[2]) << 16 | static_cast<std::uint32_t>(b[3]) << 24;
  }
  // Uniform in [0, bound). REQUIRES: bound > 0. The bias is below bound / 2^32.
  std::uint32_t Below(std::uint32_t bound) {
    return static_cast<std::uint32_t>((std::uint64_t{NextU32()} * bound) >> 32);
  }
};

// For tests and benchmarks only: everything it yields follows from the seed.
class SeededRandom final : public Random {
 public:
  explicit SeededRandom(std::uint64_t seed) : engine_(seed) {}
  void Fill(MutableBytes out) override {
    for (auto& byte : out) byte = static_cast<std::uint8_t>(engine_() >> 24);
  }

 private:
  std::mt19937_64 engine_;
};

}  // namespace adit
