// The kernel over AVX-512. Compiled for that instruction set, so nothing that another file may share (an inline
// function of a library, say) is used here.
#include "crypto/aead_lanes_kernel.h"

#ifdef ADIT_HAVE_LANES
#include <immintrin.h>

namespace adit::internal {
namespace {

struct Vector {
  __m512i v;

  static Vector Zero() { return {_mm512_setzero_si512()}; }
  static Vector Set32(std::uint32_t word) { return {_mm512_set1_epi32(static_cast<int>(word))}; }
  static Vector Set64(std::uint64_t word) { return {_mm512_set1_epi64(static_cast<long long>(word))}; }
  static std::uint32_t LoadWord(const std::uint8_t* at) {
    std::uint32_t word;
    __builtin_memcpy(&word, at, sizeof(word));
    return word;
  }

  static Vector Load(const void* at) { return {_mm512_loadu_si512(at)}; }
  static void Store(void* at, Vector a) { _mm512_storeu_si512(at, a.v); }
  // The first `count` bytes, 1 to 64; no other is touched.
  static Vector LoadSome(const void* at, std::size_t count) { return {_mm512_maskz_loadu_epi8(First(count), at)}; }
  static void StoreSome(void* at, Vector a, std::size_t count) { _mm512_mask_storeu_epi8(at, First(count), a.v); }
  static Vector FirstBytes(Vector a, std::size_t count) { return {_mm512_maskz_mov_epi8(First(count), a.v)}; }

  static Vector Xor(Vector a, Vector b) { return {_mm512_xor_si512(a.v, b.v)}; }
  static Vector And(Vector a, Vector b) { return {_mm512_and_si512(a.v, b.v)}; }
  static Vector Or(Vector a, Vector b) { return {_mm512_or_si512(a.v, b.v)}; }
  static Vector Add32(Vector a, Vector b) { return {_mm512_add_epi32(a.v, b.v)}; }
  static Vector Add64(Vector a, Vector b) { return {_mm512_add_epi64(a.v, b.v)}; }
  static Vector Sub64(Vector a, Vector b) { return {_mm512_sub_epi64(a.v, b.v)}; }
  template <int kBits>
  static Vector Rotate32(Vector a) {
    return {_mm512_rol_epi32(a.v, kBits)};
  }
  template <int kBits>
  static Vector ShiftLeft64(Vector a) {
    return {_mm512_slli_epi64(a.v, kBits)};
  }
  template <int kBits>
  static Vector ShiftRight64(Vector a) {
    return {_mm512_srli_epi64(a.v, kBits)};
  }
  // Of the 128 bits that are high and low, 64 from bit kBits on.
  template <int kBits>
  static Vector ShiftRightPair64(Vector low, Vector high) {
    return {_mm512_shrdi_epi64(low.v, high.v, kBits)};
  }
  static Vector MulLo52(Vector sum, Vector a, Vector b) { return {_mm512_madd52lo_epu64(sum.v, a.v, b.v)}; }
  static Vector MulHi52(Vector sum, Vector a, Vector b) { return {_mm512_madd52hi_epu64(sum.v, a.v, b.v)}; }

  static Vector Low32(Vector a, Vector b) { return {_mm512_unpacklo_epi32(a.v, b.v)}; }
  static Vector High32(Vector a, Vector b) { return {_mm512_unpackhi_epi32(a.v, b.v)}; }
  static Vector Low64(Vector a, Vector b) { return {_mm512_unpacklo_epi64(a.v, b.v)}; }
  static Vector High64(Vector a, Vector b) { return {_mm512_unpackhi_epi64(a.v, b.v)}; }
  template <int kPieces>
  static Vector Pieces(Vector a, Vector b) {
    return {_mm512_shuffle_i32x4(a.v, b.v, kPieces)};
  }
  // 16 bytes from each of these. Loads, so that they take no place where shuffles have to be done.
  static Vector FourPieces(const void* a, const void* b, const void* c, const void* d) {
    __m512i v = _mm512_castsi128_si512(_mm_load_si128(static_cast<const __m128i*>(a)));
    v = _mm512_inserti64x2(v, _mm_load_si128(static_cast<const __m128i*>(b)), 1);
    v = _mm512_inserti64x2(v, _mm_load_si128(static_cast<const __m128i*>(c)), 2);
    return {_mm512_inserti64x2(v, _mm_load_si128(static_cast<const __m128i*>(d)), 3)};
  }
  static Vector Widen(Vector a) { return {_mm512_cvtepu32_epi64(_mm512_castsi512_si256(a.v))}; }
  // Lane i of b where bit i of `which` is set, else of a.
  static Vector Choose64(std::uint8_t which, Vector a, Vector b) { return {_mm512_mask_mov_epi64(a.v, which, b.v)}; }

 private:
  static __mmask64 First(std::size_t count) { return _bzhi_u64(~0ull, static_cast<unsigned>(count)); }
};

using Kernel = LanesKernel<Vector>;
static_assert(sizeof(LanesWork<Vector>) <= sizeof(LanesScratch));

}  // namespace

void SealLanesAvx512(LaneGroup& group, LanesScratch& scratch) {
  Kernel::Seal(group, *reinterpret_cast<LanesWork<Vector>*>(scratch.bytes));
}

void OpenLanesAvx512(LaneGroup& group, LanesScratch& scratch) {
  Kernel::Open(group, *reinterpret_cast<LanesWork<Vector>*>(scratch.bytes));
}

}  // namespace adit::internal
#endif
