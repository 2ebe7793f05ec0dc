#include "tun/checksum.h"

#include <algorithm>

namespace adit {
namespace {

// Below this length the vector loop does not pay for its horizontal sum.
constexpr std::size_t kVectorWorthBytes = 128;
// A lane takes four 16-bit words per pair of vectors, so its 32 bits hold 16384 pairs: 512 KiB at the least. One vector
// more may follow: room for it is left.
constexpr std::size_t kMaxPairsPerPass = 16383;

struct Bulk {
  WordSum sum = 0;
  std::size_t bytes = 0;  // how many of the data it covers
};

// Sums whole vectors of 32-bit words, even and odd 16-bit halves by themselves. Inlined into functions of different
// target attributes: one source, several instruction sets. (64-byte vectors gain a third on bytes in the nearest cache
// and nothing on those behind it, where a super-packet is: measured on Zen 5, left out.)
template <std::size_t kVectorBytes>
[[gnu::always_inline]] inline Bulk SumVectors(const std::uint8_t* at, std::size_t bytes) {
  typedef std::uint32_t Lanes __attribute__((vector_size(kVectorBytes)));
  constexpr std::size_t kLanes = kVectorBytes / sizeof(std::uint32_t);
  Lanes low[2] = {};
  Lanes high[2] = {};
  const std::size_t pairs = std::min(bytes / (2 * kVectorBytes), kMaxPairsPerPass);
  std::size_t done = 0;
  for (const std::size_t end = pairs * 2 * kVectorBytes; done != end; done += 2 * kVectorBytes) {
    Lanes a;
    Lanes b;
    __builtin_memcpy(&a, at + done, kVectorBytes);
    __builtin_memcpy(&b, at + done + kVectorBytes, kVectorBytes);
    low[0] += a & 0xffff;
    high[0] += a >> 16;
    low[1] += b & 0xffff;
    high[1] += b >> 16;
  }
  if (bytes - done >= kVectorBytes) {
    Lanes a;
    __builtin_memcpy(&a, at + done, kVectorBytes);
    low[0] += a & 0xffff;
    high[0] += a >> 16;
    done += kVectorBytes;
  }
  const Lanes all = low[0] + low[1] + high[0] + high[1];
  std::uint32_t lanes[kLanes];
  __builtin_memcpy(lanes, &all, kVectorBytes);
  WordSum sum = 0;
  for (const std::uint32_t lane : lanes) sum += lane;
  return {sum, done};
}

#if defined(__x86_64__)
[[gnu::target("avx2")]] Bulk SumAvx2(const std::uint8_t* at, std::size_t bytes) { return SumVectors<32>(at, bytes); }
#endif

Bulk SumBulk(const std::uint8_t* at, std::size_t bytes) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return SumAvx2(at, bytes);
#endif
  return SumVectors<16>(at, bytes);
}

}  // namespace

WordSum SumWords(Bytes data) {
  WordSum sum = 0;
  const std::uint8_t* at = data.data();
  std::size_t left = data.size();
  while (left >= kVectorWorthBytes) {
    const Bulk bulk = SumBulk(at, left);
    sum += bulk.sum;
    at += bulk.bytes;
    left -= bulk.bytes;
  }
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
