// The vector type of aead_lanes_kernel.h in plain C++: what a test runs where there is no AVX-512, and under valgrind,
// which does not know these instructions. Each function is the definition of the instruction that stands in its place
// in aead_lanes_avx512.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "crypto/aead_lanes_kernel.h"

namespace adit::internal {

struct PlainVector {
  std::uint64_t q[8];

  // f(lane) for each of 8 lanes of 64 bits.
  template <typename F>
  static PlainVector Each64(F&& f) {
    PlainVector result;
    for (std::size_t i = 0; i < 8; ++i) result.q[i] = f(i);
    return result;
  }
  // f(lane) for each of 16 lanes of 32 bits.
  template <typename F>
  static PlainVector Each32(F&& f) {
    return Each64([&](std::size_t i) { return std::uint64_t{f(2 * i)} | std::uint64_t{f(2 * i + 1)} << 32; });
  }
  std::uint32_t word(std::size_t i) const { return static_cast<std::uint32_t>(q[i / 2] >> (i % 2 * 32)); }

  static PlainVector Zero() { return Set64(0); }
  static PlainVector Set32(std::uint32_t w) {
    return Each32([&](std::size_t) { return w; });
  }
  static PlainVector Set64(std::uint64_t w) {
    return Each64([&](std::size_t) { return w; });
  }
  static std::uint32_t LoadWord(const std::uint8_t* at) {
    return at[0] | std::uint32_t{at[1]} << 8 | std::uint32_t{at[2]} << 16 | std::uint32_t{at[3]} << 24;
  }

  static PlainVector Load(const void* at) { return LoadSome(at, 64); }
  static void Store(void* at, const PlainVector& a) { StoreSome(at, a, 64); }
  static PlainVector LoadSome(const void* at, std::size_t count) {
    PlainVector a = Zero();
    std::memcpy(a.q, at, count);
    return a;
  }
  static void StoreSome(void* at, const PlainVector& a, std::size_t count) { std::memcpy(at, a.q, count); }
  static PlainVector FirstBytes(const PlainVector& a, std::size_t count) { return LoadSome(a.q, count); }

  static PlainVector Xor(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return a.q[i] ^ b.q[i]; });
  }
  static PlainVector And(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return a.q[i] & b.q[i]; });
  }
  static PlainVector Or(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return a.q[i] | b.q[i]; });
  }
  static PlainVector Add32(const PlainVector& a, const PlainVector& b) {
    return Each32([&](std::size_t i) { return a.word(i) + b.word(i); });
  }
  static PlainVector Add64(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return a.q[i] + b.q[i]; });
  }
  static PlainVector Sub64(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return a.q[i] - b.q[i]; });
  }
  template <int kBits>
  static PlainVector Rotate32(const PlainVector& a) {
    return Each32([&](std::size_t i) { return a.word(i) << kBits | a.word(i) >> (32 - kBits); });
  }
  template <int kBits>
  static PlainVector ShiftLeft64(const PlainVector& a) {
    return Each64([&](std::size_t i) { return a.q[i] << kBits; });
  }
  template <int kBits>
  static PlainVector ShiftRight64(const PlainVector& a) {
    return Each64([&](std::size_t i) { return a.q[i] >> kBits; });
  }
  template <int kBits>
  static PlainVector ShiftRightPair64(const PlainVector& low, const PlainVector& high) {
    return Each64([&](std::size_t i) { return low.q[i] >> kBits | high.q[i] << (64 - kBits); });
  }
  static PlainVector MulLo52(const PlainVector& sum, const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return sum.q[i] + static_cast<std::uint64_t>(Product(a.q[i], b.q[i]) & k52); });
  }
  static PlainVector MulHi52(const PlainVector& sum, const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return sum.q[i] + static_cast<std::uint64_t>(Product(a.q[i], b.q[i]) >> 52); });
  }

  // Within each piece of 128 bits.
  static PlainVector Low32(const PlainVector& a, const PlainVector& b) {
    return Each32([&](std::size_t i) { return (i % 2 == 0 ? a : b).word(i / 4 * 4 + i % 4 / 2); });
  }
  static PlainVector High32(const PlainVector& a, const PlainVector& b) {
    return Each32([&](std::size_t i) { return (i % 2 == 0 ? a : b).word(i / 4 * 4 + 2 + i % 4 / 2); });
  }
  static PlainVector Low64(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return (i % 2 == 0 ? a : b).q[i / 2 * 2]; });
  }
  static PlainVector High64(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return (i % 2 == 0 ? a : b).q[i / 2 * 2 + 1]; });
  }
  // Two pieces of a, two of b; two bits of kPieces for each.
  template <int kPieces>
  static PlainVector Pieces(const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return (i < 4 ? a : b).q[(kPieces >> (i / 2 * 2) & 3) * 2 + i % 2]; });
  }
  static PlainVector FourPieces(const void* a, const void* b, const void* c, const void* d) {
    PlainVector v;
    std::memcpy(v.q, a, 16);
    std::memcpy(v.q + 2, b, 16);
    std::memcpy(v.q + 4, c, 16);
    std::memcpy(v.q + 6, d, 16);
    return v;
  }
  static PlainVector Widen(const PlainVector& a) {
    return Each64([&](std::size_t i) { return std::uint64_t{a.word(i)}; });
  }
  static PlainVector Choose64(std::uint8_t which, const PlainVector& a, const PlainVector& b) {
    return Each64([&](std::size_t i) { return (which >> i & 1) != 0 ? b.q[i] : a.q[i]; });
  }

 private:
  __extension__ using Wide = unsigned __int128;
  static constexpr std::uint64_t k52 = (std::uint64_t{1} << 52) - 1;
  static Wide Product(std::uint64_t a, std::uint64_t b) { return Wide{a & k52} * (b & k52); }
};

inline void SealLanesPlain(LaneGroup& group, LanesScratch& scratch) {
  static_assert(sizeof(LanesWork<PlainVector>) <= sizeof(scratch));
  LanesKernel<PlainVector>::Seal(group, *reinterpret_cast<LanesWork<PlainVector>*>(scratch.bytes));
}

inline void OpenLanesPlain(LaneGroup& group, LanesScratch& scratch) {
  LanesKernel<PlainVector>::Open(group, *reinterpret_cast<LanesWork<PlainVector>*>(scratch.bytes));
}

}  // namespace adit::internal
