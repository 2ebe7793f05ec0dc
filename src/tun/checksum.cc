#include "tun/checksum.h"

#include <algorithm>

namespace adit {
namespace {

// Below this length the vector loop does not pay for its horizontal sum.
constexpr std::size_t kVectorWorthBytes = 128;
// A lane takes four 16-bit words per pair of vectors, so its 32 bits hold 16384 pairs: 512 KiB at the least.
constexpr std::size_t kMaxPairsPerPass = 16384;

// Sums whole vectors of 32-bit words, even and odd 16-bit halves in lanes of their own, and advances `data`. Inlined
// into functions of different target attributes: one source, several instruction sets.
template <std::size_t kVectorBytes>
[[gnu::always_inline]] inline WordSum SumVectors(Bytes& data) {
  typedef std::uint32_t Lanes __attribute__((vector_size(kVectorBytes)));
  constexpr std::size_t kLanes = kVectorBytes / sizeof(std::uint32_t);
  Lanes low[2] = {};
  Lanes high[2] = {};
  const std::uint8_t* at = data.data();
  const std::size_t pairs = std::min(data.size() / (2 * kVectorBytes), kMaxPairsPerPass);
  for (std::size_t i = 0; i < pairs; ++i, at += 2 * kVectorBytes) {
    Lanes a;
    Lanes b;
    __builtin_memcpy(&a, at, kVectorBytes);
    __builtin_memcpy(&b, at + kVectorBytes, kVectorBytes);
    low[0] += a & 0xffff;
    high[0] += a >> 16;
    low[1] += b & 0xffff;
    high[1] += b >> 16;
  }
  const Lanes both = low[0] + low[1] + high[0] + high[1];
  std::uint32_t lanes[kLanes];
  __builtin_memcpy(lanes, &both, kVectorBytes);
  WordSum sum = 0;
  for (const std::uint32_t lane : lanes) sum += lane;
  data = data.subspan(pairs * 2 * kVectorBytes);
  return sum;
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] WordSum SumAvx2(Bytes& data) { return SumVectors<32>(data); }
#endif

WordSum SumBulk(Bytes& data) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return SumAvx2(data);
#endif
  return SumVectors<16>(data);
}

}  // namespace

WordSum SumWords(Bytes data) {
  WordSum sum = 0;
  while (data.size() >= kVectorWorthBytes) sum += SumBulk(data);

  const std::uint8_t* at = data.data();
  std::size_t left = data.size();
  for (; left >= 8; left -= 8, at += 8) {
    const auto word = LoadAs<std::uint64_t>(at);
    sum += (word & 0xffffffff) + (word >> 32);
  }
  if (left >= 4) {
    sum += LoadAs<std::uint32_t>(at);
    at += 4;
    left -= 4;
  }
  if (left >= 2) {
    sum += LoadAs<std::uint16_t>(at);
    at += 2;
    left -= 2;
  }
  if (left == 1) sum += MemoryWord(static_cast<std::uint16_t>(*at << 8));
  return sum;
}

}  // namespace adit
