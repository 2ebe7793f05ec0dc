// The naive twin of the AEAD kernel: ChaCha20-Poly1305 as RFC 8439 tells it, section by section, one message at a time.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <vector>

#include "base/bytes.h"

namespace adit::rfc8439 {

inline std::uint32_t Word(Bytes bytes, std::size_t i) {
  return bytes[4 * i] | std::uint32_t{bytes[4 * i + 1]} << 8 | std::uint32_t{bytes[4 * i + 2]} << 16 |
         std::uint32_t{bytes[4 * i + 3]} << 24;
}

// 2.1
inline void QuarterRound(std::uint32_t& a, std::uint32_t& b, std::uint32_t& c, std::uint32_t& d) {
  a += b, d ^= a, d = std::rotl(d, 16);
  c += d, b ^= c, b = std::rotl(b, 12);
  a += b, d ^= a, d = std::rotl(d, 8);
  c += d, b ^= c, b = std::rotl(b, 7);
}

// 2.3
inline std::array<std::uint8_t, 64> ChaCha20Block(Bytes key, std::uint32_t counter, Bytes nonce) {
  std::array<std::uint32_t, 16> state{0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
  for (std::size_t i = 0; i < 8; ++i) state[4 + i] = Word(key, i);
  state[12] = counter;
  for (std::size_t i = 0; i < 3; ++i) state[13 + i] = Word(nonce, i);
  auto x = state;
  for (int i = 0; i < 10; ++i) {
    QuarterRound(x[0], x[4], x[8], x[12]);
    QuarterRound(x[1], x[5], x[9], x[13]);
    QuarterRound(x[2], x[6], x[10], x[14]);
    QuarterRound(x[3], x[7], x[11], x[15]);
    QuarterRound(x[0], x[5], x[10], x[15]);
    QuarterRound(x[1], x[6], x[11], x[12]);
    QuarterRound(x[2], x[7], x[8], x[13]);
    QuarterRound(x[3], x[4], x[9], x[14]);
  }
  std::array<std::uint8_t, 64> block;
  for (std::size_t i = 0; i < 64; ++i) {
    block[i] = static_cast<std::uint8_t>((x[i / 4] + state[i / 4]) >> (i % 4 * 8));
  }
  return block;
}

// 2.4
inline std::vector<std::uint8_t> ChaCha20(Bytes key, std::uint32_t counter, Bytes nonce, Bytes text) {
  std::vector<std::uint8_t> out(text.begin(), text.end());
  for (std::size_t i = 0; i < out.size(); i += 64) {
    const auto stream = ChaCha20Block(key, counter + static_cast<std::uint32_t>(i / 64), nonce);
    for (std::size_t k = i; k < out.size() && k < i + 64; ++k)
      out[k] = static_cast<std::uint8_t>(out[k] ^ stream[k - i]);
  }
  return out;
}

// Numbers of 2.5 as 17 digits of base 256, the lowest first: slow, and as on paper.
using Number = std::array<std::uint32_t, 17>;

inline Number ReducedModP(std::array<std::uint64_t, 34> digits) {
  // 256^17 = 2^136 = 5 * 2^6 mod 2^130 - 5, until nothing is above bit 130.
  for (int pass = 0; pass < 4; ++pass) {
    for (std::size_t i = 0; i + 1 < digits.size(); ++i) digits[i + 1] += digits[i] >> 8, digits[i] &= 0xFF;
    for (std::size_t i = 17; i < digits.size(); ++i) digits[i - 17] += digits[i] * 320, digits[i] = 0;
    digits[0] += (digits[16] >> 2) * 5, digits[16] &= 3;
  }
  for (std::size_t i = 0; i < 17; ++i) digits[i + 1] += digits[i] >> 8, digits[i] &= 0xFF;
  // At most p is to be taken away once.
  bool is_p_or_more = digits[0] >= 0xFB && digits[16] == 3;
  for (std::size_t i = 1; i < 16; ++i) is_p_or_more = is_p_or_more && digits[i] == 0xFF;
  if (is_p_or_more) {
    digits[0] -= 0xFB;
    for (std::size_t i = 1; i < 17; ++i) digits[i] = 0;
  }
  Number number;
  for (std::size_t i = 0; i < 17; ++i) number[i] = static_cast<std::uint32_t>(digits[i]);
  return number;
}

// 2.5.1
inline std::array<std::uint8_t, 16> Poly1305(Bytes one_time_key, Bytes message) {
  Number r{}, a{};
  for (std::size_t i = 0; i < 16; ++i) r[i] = one_time_key[i];
  for (const std::size_t i : {3u, 7u, 11u, 15u}) r[i] &= 15;
  for (const std::size_t i : {4u, 8u, 12u}) r[i] &= 252;
  for (std::size_t at = 0; at < message.size(); at += 16) {
    std::size_t i = 0;
    for (; i < 16 && at + i < message.size(); ++i) a[i] += message[at + i];
    a[i] += 1;
    std::array<std::uint64_t, 34> product{};
    for (std::size_t j = 0; j < 17; ++j) {
      for (std::size_t k = 0; k < 17; ++k) product[j + k] += std::uint64_t{a[j]} * r[k];
    }
    a = ReducedModP(product);
  }
  std::array<std::uint8_t, 16> tag;
  std::uint32_t carry = 0;
  for (std::size_t i = 0; i < 16; ++i) {
    carry += a[i] + one_time_key[16 + i];
    tag[i] = static_cast<std::uint8_t>(carry);
    carry >>= 8;
  }
  return tag;
}

// 2.8, with the key of 2.6: ciphertext and tag.
inline std::vector<std::uint8_t> Seal(Bytes key, Bytes nonce, Bytes associated_data, Bytes plaintext) {
  const auto one_time_key = ChaCha20Block(key, 0, nonce);
  auto sealed = ChaCha20(key, 1, nonce, plaintext);
  std::vector<std::uint8_t> mac_data(associated_data.begin(), associated_data.end());
  mac_data.resize((mac_data.size() + 15) / 16 * 16);
  mac_data.insert(mac_data.end(), sealed.begin(), sealed.end());
  mac_data.resize((mac_data.size() + 15) / 16 * 16);
  for (const std::uint64_t length : {associated_data.size(), plaintext.size()}) {
    for (int i = 0; i < 8; ++i) mac_data.push_back(static_cast<std::uint8_t>(length >> (8 * i)));
  }
  const auto tag = Poly1305(Bytes(one_time_key).first(32), mac_data);
  sealed.insert(sealed.end(), tag.begin(), tag.end());
  return sealed;
}

}  // namespace adit::rfc8439
