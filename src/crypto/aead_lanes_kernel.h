// ChaCha20-Poly1305 (RFC 8439) of eight messages at once, under one key: what aead_lanes.cc is made of.
//
// A vector has 16 lanes of 32 bits for ChaCha20, or 8 of 64 bits for Poly1305. Message m is in lane m of Poly1305; of
// ChaCha20 it has the lanes m and 8 + m, which hold two consecutive blocks. One *step* makes 16 blocks:
//
//          lanes 0-7             lanes 8-15
//   step 0 block 0, the MAC key  block 1, for bytes 0-63 of each message
//   step s block 2s              block 2s + 1, for 128 bytes of each message: the *window* of this step
//
// On the way out of a step its keystream is turned, so that each message has its own in a row. The next step's double
// rounds are what a machine does meanwhile: between them stands, a piece each time, what is left of the step before,
// first the XOR into the messages, then the MAC over its window. Nothing about a message decides what the lanes of
// another do, and the only branches and addresses are those of lengths and of the messages' places, which are public.
//
// The template's parameter is the vector type: AVX-512 in aead_lanes_avx512.cc; plain arrays in the tests, which run
// the same source on any machine and under valgrind, where a branch or an address that depends on a secret is an error.
//
// Thread: any. Errors: none; the caller compares the tags. Bounds of the arithmetic stand at PolyBlock.
#pragma once

#include <cstddef>
#include <cstdint>

namespace adit::internal {

inline constexpr std::size_t kLanes = 8;  // messages of a group

// One message. Its input is `input_bytes` bytes, then zeros up to `bytes`: those before `start_bytes` (a multiple of
// 64) stand at `start`, the others at their place from `input` on, that is input[i] for the i-th. `bytes` bytes of
// output are written. Nothing else is read or written. An idle lane has 0 bytes.
struct Lane {
  const std::uint8_t* start = nullptr;
  std::ptrdiff_t start_bytes = 0;
  const std::uint8_t* input = nullptr;
  std::size_t input_bytes = 0;
  std::uint8_t* output = nullptr;
  std::size_t bytes = 0;
  std::uint64_t counter = 0;  // the nonce's last 8 bytes
  std::uint64_t tag[2] = {};  // result: the tag's bytes, as two little-endian words
};

struct LaneGroup {
  const std::uint8_t* key = nullptr;  // 32 bytes
  std::uint32_t nonce_head = 0;       // the nonce's first 4 bytes
  // Of every message; the data path has none.
  const std::uint8_t* associated_data = nullptr;
  std::size_t associated_data_bytes = 0;
  Lane lanes[kLanes];
};

// Where a group is worked on. What it holds afterwards is as secret as the key: the caller owns it, and wipes it.
template <class V>
struct alignas(64) LanesWork {
  V initial[16];         // ChaCha20's state before its rounds
  V turned[4][4];        // keystream on its way from lanes to rows
  V window[kLanes][2];   // 128 bytes of each message's ciphertext, for the MAC
  V r[3], r1_20, r2_20;  // Poly1305's r in limbs of 44, 44 and 42 bits; the upper two times 20
  V s[2];                // added to its result
  V final_h[3];          // a message's h after its last block
  V top_bit_times_r[3];  // 2^128 * r
  V mask_44, mask_42, factor_256, factor_5120, factor_5;
  // Bit m of ends[i]: block i of the window is the last of message m.
  std::uint8_t ends[8];
};

// Room for a LanesWork of 64-byte vectors.
struct alignas(64) LanesScratch {
  std::uint8_t bytes[4608];
};

#ifdef ADIT_HAVE_LANES
// The kernel over AVX-512. REQUIRES: the CPU has AVX-512 F, BW, VL, DQ, IFMA and VBMI2, and BMI2.
void SealLanesAvx512(LaneGroup& group, LanesScratch& scratch);
void OpenLanesAvx512(LaneGroup& group, LanesScratch& scratch);
#endif

template <class V>
class LanesKernel {
 public:
  using Work = LanesWork<V>;

  // Seals: the input is plaintext; a tag is over the output.
  static void Seal(LaneGroup& group, Work& work) { Run<true>(group, work); }
  // Opens: the input is ciphertext, all of it given; a tag is over the input.
  static void Open(LaneGroup& group, Work& work) { Run<false>(group, work); }

 private:
#ifdef __AVX512F__
#define ADIT_INLINE [[gnu::always_inline]] static inline  // vectors stay in registers
#else
#define ADIT_INLINE static inline
#endif

  // What is read after this is read again: ChaCha20's state takes 16 of 32 registers, and left to itself a compiler
  // gives the others to r and the masks for good.
  ADIT_INLINE void FromMemory() { asm volatile("" : : : "memory"); }

  struct H {
    V limb[3];
  };

  template <bool kSeals>
  static void Run(LaneGroup& group, Work& work) {
    std::ptrdiff_t longest = 0, shortest = PTRDIFF_MAX, shortest_input = PTRDIFF_MAX;
    for (const Lane& lane : group.lanes) {
      const auto bytes = static_cast<std::ptrdiff_t>(lane.bytes);
      const auto input_bytes = static_cast<std::ptrdiff_t>(lane.input_bytes);
      longest = bytes > longest ? bytes : longest;
      shortest = bytes < shortest ? bytes : shortest;
      shortest_input = input_bytes < shortest_input ? input_bytes : shortest_input;
    }
    SetUp(group, work);

    V x[16];
    for (int i = 0; i < 16; ++i) x[i] = work.initial[i];
    for (int i = 0; i < 10; ++i) DoubleRound(x);
    for (int i = 0; i < 16; ++i) x[i] = V::Add32(x[i], work.initial[i]);
    TakeMacKey(x, work);
    H h = {{V::Zero(), V::Zero(), V::Zero()}};
    AbsorbAssociatedData(group, work, h);
    for (int i = 0; i < 3; ++i) work.final_h[i] = h.limb[i];  // for those that have no block
    Turn(x, work);

    // The window that waits begins at `at`; the first one's first half would be the key block's.
    std::ptrdiff_t at = -64;
    for (; at + 128 < longest; at += 128) {
      const bool is_whole = at >= 0 && at + 128 < shortest && at + 128 <= shortest_input;
      StartWindow(work);
      for (int i = 0; i < 16; ++i) x[i] = work.initial[i];
      for (int i = 0; i < 4; ++i) {
        DoubleRound(x);
        XorRows<kSeals>(group, work, at, i, is_whole);
      }
      for (int i = 0; i < 4; i += 2) {
        DoubleRound(x);
        if (at >= 0) {
          TakeBlock(work, i, h);
          TakeBlock(work, i + 1, h);
        }
      }
      for (int i = 4; i < 8; ++i) {
        DoubleRound(x);
        TakeBlock(work, i, h);
      }
      for (int i = 0; i < 16; ++i) x[i] = V::Add32(x[i], work.initial[i]);
      Turn(x, work);
    }
    StartWindow(work);
    for (int i = 0; i < 4; ++i) XorRows<kSeals>(group, work, at, i, false);
    for (int i = at < 0 ? 4 : 0; at + 16 * i < longest; ++i) TakeBlock(work, i, h);
    Finish(group, work);
  }

  static void SetUp(const LaneGroup& group, Work& work) {
    static constexpr std::uint32_t kConstants[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    for (int i = 0; i < 4; ++i) work.initial[i] = V::Set32(kConstants[i]);
    for (int i = 0; i < 8; ++i) work.initial[4 + i] = V::Set32(V::LoadWord(group.key + 4 * i));
    alignas(64) std::uint32_t words[3][16];
    for (unsigned i = 0; i < 16; ++i) {
      const std::uint64_t counter = group.lanes[i % 8].counter;
      words[0][i] = i / 8;
      words[1][i] = static_cast<std::uint32_t>(counter);
      words[2][i] = static_cast<std::uint32_t>(counter >> 32);
    }
    work.initial[12] = V::Load(words[0]);
    work.initial[13] = V::Set32(group.nonce_head);
    work.initial[14] = V::Load(words[1]);
    work.initial[15] = V::Load(words[2]);
    work.mask_44 = V::Set64(k44);
    work.mask_42 = V::Set64(k42);
    work.factor_256 = V::Set64(256);
    work.factor_5120 = V::Set64(5120);
    work.factor_5 = V::Set64(5);
  }

  // ---- ChaCha20 (RFC 8439, 2.1 to 2.3) ----

  ADIT_INLINE void QuarterRounds(V& a, V& b, V& c, V& d, V& e, V& f, V& g, V& h, V& i, V& j, V& k, V& l, V& m, V& n,
                                 V& o, V& p) {
    // Four, (a, b, c, d) to (m, n, o, p), step by step, so that no operation waits for the one before it.
#define ADIT_ONE(n, x, y, z, rotation) \
  x##n = V::Add32(x##n, y##n), z##n = V::template Rotate32<rotation>(V::Xor(z##n, x##n))
#define ADIT_FOUR(...) \
  ADIT_ONE(0, __VA_ARGS__), ADIT_ONE(1, __VA_ARGS__), ADIT_ONE(2, __VA_ARGS__), ADIT_ONE(3, __VA_ARGS__)
    V &a0 = a, &b0 = b, &c0 = c, &d0 = d, &a1 = e, &b1 = f, &c1 = g, &d1 = h;
    V &a2 = i, &b2 = j, &c2 = k, &d2 = l, &a3 = m, &b3 = n, &c3 = o, &d3 = p;
    ADIT_FOUR(a, b, d, 16);
    ADIT_FOUR(c, d, b, 12);
    ADIT_FOUR(a, b, d, 8);
    ADIT_FOUR(c, d, b, 7);
#undef ADIT_FOUR
#undef ADIT_ONE
  }

  ADIT_INLINE void DoubleRound(V (&x)[16]) {
    QuarterRounds(x[0], x[4], x[8], x[12], x[1], x[5], x[9], x[13], x[2], x[6], x[10], x[14], x[3], x[7], x[11], x[15]);
    QuarterRounds(x[0], x[5], x[10], x[15], x[1], x[6], x[11], x[12], x[2], x[7], x[8], x[13], x[3], x[4], x[9], x[14]);
  }

  // ---- between lanes and rows ----

  // Four vectors of four 128-bit pieces, transposed.
  ADIT_INLINE void Transpose128(V& a, V& b, V& c, V& d) {
    const V ab = V::template Pieces<0x44>(a, b), ab_upper = V::template Pieces<0xEE>(a, b);
    const V cd = V::template Pieces<0x44>(c, d), cd_upper = V::template Pieces<0xEE>(c, d);
    a = V::template Pieces<0x88>(ab, cd);
    b = V::template Pieces<0xDD>(ab, cd);
    c = V::template Pieces<0x88>(ab_upper, cd_upper);
    d = V::template Pieces<0xDD>(ab_upper, cd_upper);
  }

  // x[w] has word w of every block, one a lane. Afterwards turned[j][w] has, in its four pieces, words 4w to 4w + 3 of
  // the lanes j, 4 + j, 8 + j and 12 + j.
  ADIT_INLINE void Turn(V (&x)[16], Work& work) {
    for (int w = 0; w < 4; ++w) {
      const V ab = V::Low32(x[4 * w], x[4 * w + 1]), ab_upper = V::High32(x[4 * w], x[4 * w + 1]);
      const V cd = V::Low32(x[4 * w + 2], x[4 * w + 3]), cd_upper = V::High32(x[4 * w + 2], x[4 * w + 3]);
      work.turned[0][w] = V::Low64(ab, cd);
      work.turned[1][w] = V::High64(ab, cd);
      work.turned[2][w] = V::Low64(ab_upper, cd_upper);
      work.turned[3][w] = V::High64(ab_upper, cd_upper);
    }
    // For the next blocks.
    work.initial[12] = V::Add32(work.initial[12], V::Set32(2));
  }

  ADIT_INLINE void StartWindow(Work& work) {
    for (int i = 0; i < 8; ++i) work.ends[i] = 0;
  }

  // Those of the window that begins at `at` whose keystream is in turned[j]: both halves of the messages j and 4 + j.
  template <bool kSeals>
  ADIT_INLINE void XorRows(const LaneGroup& group, Work& work, std::ptrdiff_t at, int j, bool is_whole) {
    V a = work.turned[j][0], b = work.turned[j][1], c = work.turned[j][2], d = work.turned[j][3];
    Transpose128(a, b, c, d);
    if (is_whole) {
      XorWhole<kSeals>(group, work, at, j, 0, a);
      XorWhole<kSeals>(group, work, at, j + 4, 0, b);
      XorWhole<kSeals>(group, work, at + 64, j, 1, c);
      XorWhole<kSeals>(group, work, at + 64, j + 4, 1, d);
    } else {
      const V rows[2][2] = {{a, b}, {c, d}};
      for (int half = 0; half < 2; ++half) {
        for (int k = 0; k < 2; ++k) XorEdge<kSeals>(group, work, at + 64 * half, j + 4 * k, half, rows[half][k]);
      }
    }
  }

  // Bytes `at` to `at` + 64 of message i, which has more, into its half of the window.
  template <bool kSeals>
  ADIT_INLINE void XorWhole(const LaneGroup& group, Work& work, std::ptrdiff_t at, int i, int half, V keystream) {
    const Lane& lane = group.lanes[i];
    const V in = V::Load((at < lane.start_bytes ? lane.start : lane.input) + at);
    const V out = V::Xor(in, keystream);
    V::Store(lane.output + at, out);
    work.window[i][half] = kSeals ? out : in;
  }

  // The same where a message begins or ends, or is not.
  template <bool kSeals>
  ADIT_INLINE void XorEdge(const LaneGroup& group, Work& work, std::ptrdiff_t at, int i, int half, V keystream) {
    const Lane& lane = group.lanes[i];
    const auto part = [&](std::size_t bytes) {
      const std::ptrdiff_t rest = at < 0 ? 0 : static_cast<std::ptrdiff_t>(bytes) - at;
      return static_cast<std::size_t>(rest < 0 ? 0 : rest < 64 ? rest : 64);
    };
    const std::size_t in_bytes = part(lane.input_bytes), out_bytes = part(lane.bytes);
    const V in =
        in_bytes == 0 ? V::Zero() : V::LoadSome((at < lane.start_bytes ? lane.start : lane.input) + at, in_bytes);
    const V out = V::FirstBytes(V::Xor(in, keystream), out_bytes);
    if (out_bytes > 0) V::StoreSome(lane.output + at, out, out_bytes);
    work.window[i][half] = kSeals ? out : in;
    if (out_bytes > 0 && static_cast<std::ptrdiff_t>(lane.bytes) <= at + 64) {
      std::uint8_t& ends = work.ends[4 * half + static_cast<int>((out_bytes - 1) / 16)];
      ends = static_cast<std::uint8_t>(ends | 1u << i);
    }
  }

  // ---- Poly1305 (RFC 8439, 2.5), on numbers of three limbs: 44, 44 and 42 bits ----

  static constexpr std::uint64_t k44 = (std::uint64_t{1} << 44) - 1;
  static constexpr std::uint64_t k42 = (std::uint64_t{1} << 42) - 1;

  ADIT_INLINE void Limbs(const Work& work, V low, V high, V (&limb)[3]) {
    limb[0] = V::And(low, work.mask_44);
    limb[1] = V::And(V::template ShiftRightPair64<44>(low, high), work.mask_44);
    limb[2] = V::template ShiftRight64<24>(high);
  }

  // x holds block 0 of each message in its lanes 0 to 7.
  static void TakeMacKey(const V (&x)[16], Work& work) {
    const auto word = [&](int i) { return V::Or(V::Widen(x[i]), V::template ShiftLeft64<32>(V::Widen(x[i + 1]))); };
    Limbs(work, V::And(word(0), V::Set64(0x0ffffffc0fffffff)), V::And(word(2), V::Set64(0x0ffffffc0ffffffc)), work.r);
    const auto times_20 = [](V v) { return V::Add64(V::template ShiftLeft64<4>(v), V::template ShiftLeft64<2>(v)); };
    work.r1_20 = times_20(work.r[1]);
    work.r2_20 = times_20(work.r[2]);
    work.s[0] = word(4);
    work.s[1] = word(6);
    H top = {{V::Zero(), V::Zero(), V::Set64(std::uint64_t{1} << 40)}};
    for (V& limb : work.top_bit_times_r) limb = V::Zero();
    PolyBlock(work, top, V::Zero(), V::Zero());
    for (int i = 0; i < 3; ++i) work.top_bit_times_r[i] = top.limb[i];
  }

  // h = (h + m + 2^128) * r mod 2^130 - 5, not reduced to the end. A product of limbs is lo + 2^52 hi, as the
  // multiplication instructions give it; they also shift and add where a carry needs both. Limb 3 would have the weight
  // 2^132 = 4 * 5 mod p, hence the 20. 2^128 * r is where the sums begin.
  //
  // With r0, r1 < 2^44, r2 < 2^36 (clamped), and h0 < 2^51, h1 < 2^45, h2 < 2^43 after the message was added:
  //   20 r1 < 2^48.4, 20 r2 < 2^40.4, so that every factor has at most 52 bits;
  //   hi0, hi1 < 2^43.2, hi2 < 2^37.6; lo0, lo1, lo2 < 4 * 2^52; with hi0 and hi1 shifted, x1, x2 < 2^54.4;
  //   new h1 < 2^44 + 2^11, new h2 < 2^42 + 2^11, new h0 < 2^44 + 5 * (2^13 + 2^47.6) < 2^50;
  //   factors and products of a carry: 256 hi0, 256 hi1, 5 * 1024 hi2 and 5 (x2 >> 42) have at most 52 bits.
  // Message limbs are below 2^44, 2^44 and 2^40, so that the bounds hold again.
  ADIT_INLINE void PolyBlock(const Work& work, H& h, V low, V high) {
    V m[3];
    Limbs(work, low, high, m);
    const V h0 = V::Add64(h.limb[0], m[0]);
    const V h1 = V::Add64(h.limb[1], m[1]);
    const V h2 = V::Add64(h.limb[2], m[2]);
    V lo0 = work.top_bit_times_r[0], lo1 = work.top_bit_times_r[1], lo2 = work.top_bit_times_r[2];
    V hi0 = V::Zero(), hi1 = hi0, hi2 = hi0;
    const auto add_products = [&](V limb, const V& times0, const V& times1, const V& times2) {
      lo0 = V::MulLo52(lo0, limb, times0), hi0 = V::MulHi52(hi0, limb, times0);
      lo1 = V::MulLo52(lo1, limb, times1), hi1 = V::MulHi52(hi1, limb, times1);
      lo2 = V::MulLo52(lo2, limb, times2), hi2 = V::MulHi52(hi2, limb, times2);
      FromMemory();
    };
    add_products(h1, work.r2_20, work.r[0], work.r[1]);
    add_products(h2, work.r1_20, work.r2_20, work.r[0]);
    add_products(h0, work.r[0], work.r[1], work.r[2]);
    // hi0 has the weight 2^52 = 2^44 * 2^8, hi2 the weight 2^140 = 2^130 * 2^10, and 2^130 = 5.
    const V x1 = V::MulLo52(lo1, hi0, work.factor_256);
    const V x2 = V::MulLo52(lo2, hi1, work.factor_256);
    const V x0 = V::MulLo52(V::And(lo0, work.mask_44), hi2, work.factor_5120);
    h.limb[0] = V::MulLo52(x0, V::template ShiftRight64<42>(x2), work.factor_5);
    h.limb[1] = V::Add64(V::And(x1, work.mask_44), V::template ShiftRight64<44>(lo0));
    h.limb[2] = V::Add64(V::And(x2, work.mask_42), V::template ShiftRight64<44>(x1));
  }

  // Block i of the window that waits. A message that ended earlier goes on with what is no longer looked at.
  ADIT_INLINE void TakeBlock(Work& work, int i, H& h) {
    FromMemory();
    const auto piece = [&](int lane) { return reinterpret_cast<const std::uint8_t*>(work.window[lane]) + 16 * i; };
    const V even = V::FourPieces(piece(0), piece(2), piece(4), piece(6));
    const V odd = V::FourPieces(piece(1), piece(3), piece(5), piece(7));
    PolyBlock(work, h, V::Low64(even, odd), V::High64(even, odd));
    if (work.ends[i] != 0) Keep(work, work.ends[i], h);
  }

  ADIT_INLINE void Keep(Work& work, std::uint8_t which, const H& h) {
    for (int i = 0; i < 3; ++i) work.final_h[i] = V::Choose64(which, work.final_h[i], h.limb[i]);
  }

  static void AbsorbAssociatedData(const LaneGroup& group, const Work& work, H& h) {
    for (std::size_t at = 0; at < group.associated_data_bytes; at += 16) {
      std::uint64_t block[2] = {0, 0};
      for (std::size_t i = at; i < at + 16 && i < group.associated_data_bytes; ++i) {
        block[(i - at) / 8] |= std::uint64_t{group.associated_data[i]} << (i % 8 * 8);
      }
      PolyBlock(work, h, V::Set64(block[0]), V::Set64(block[1]));
    }
  }

  // The block of lengths (RFC 8439, 2.8), then the whole carry, h mod 2^130 - 5, and h + s mod 2^128.
  static void Finish(LaneGroup& group, Work& work) {
    alignas(64) std::uint64_t words[2][8];
    for (std::size_t i = 0; i < kLanes; ++i) words[0][i] = group.lanes[i].bytes;
    H h = {{work.final_h[0], work.final_h[1], work.final_h[2]}};
    PolyBlock(work, h, V::Set64(group.associated_data_bytes), V::Load(words[0]));

    const auto carry = [](V& from, V& to, std::uint64_t mask, auto shift) {
      to = V::Add64(to, shift(from));
      from = V::And(from, V::Set64(mask));
    };
    const auto over_44 = [](V v) { return V::template ShiftRight64<44>(v); };
    const auto over_42_times_5 = [](V v) {
      const V over = V::template ShiftRight64<42>(v);
      return V::Add64(over, V::template ShiftLeft64<2>(over));
    };
    V h0 = h.limb[0], h1 = h.limb[1], h2 = h.limb[2];
    for (int i = 0; i < 2; ++i) {
      carry(h0, h1, k44, over_44);
      carry(h1, h2, k44, over_44);
      carry(h2, h0, k42, over_42_times_5);
    }
    carry(h0, h1, k44, over_44);
    // g = h + 5 has bit 130 exactly when h >= p; then h mod p is g without that bit.
    V g0 = V::Add64(h0, V::Set64(5)), g1 = h1, g2 = h2;
    carry(g0, g1, k44, over_44);
    carry(g1, g2, k44, over_44);
    const V is_over = V::Sub64(V::Zero(), V::template ShiftRight64<42>(g2));  // all ones or all zeros
    const auto choose = [&](V below, V over) { return V::Xor(below, V::And(is_over, V::Xor(below, over))); };
    h0 = choose(h0, g0);
    h1 = choose(h1, g1);
    h2 = choose(h2, g2);

    const V low = V::Or(h0, V::template ShiftLeft64<44>(h1));
    const V high = V::Or(V::template ShiftRight64<20>(h1), V::template ShiftLeft64<24>(h2));
    const V sum = V::Add64(low, work.s[0]);
    // The carry out of the highest bit: both had it, or one had it and the sum has not.
    const V either = V::Or(low, work.s[0]);
    const V carried = V::template ShiftRight64<63>(V::Or(V::And(low, work.s[0]), V::Xor(either, V::And(either, sum))));
    V::Store(words[0], sum);
    V::Store(words[1], V::Add64(V::Add64(high, work.s[1]), carried));
    for (std::size_t i = 0; i < kLanes; ++i) {
      group.lanes[i].tag[0] = words[0][i];
      group.lanes[i].tag[1] = words[1][i];
    }
  }
#undef ADIT_INLINE
};

}  // namespace adit::internal
