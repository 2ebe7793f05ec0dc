// The Internet checksum (RFC 1071, RFC 1624). Pure.
//
// All 16-bit values here are "memory words": two packet bytes as a native load sees them. The ones' complement sum does
// not care about the byte order as long as words are loaded and stored the same way (RFC 1071 §2(B)), so nothing is
// swapped per word. MemoryWord() brings a host number into that form.
#pragma once

#include <bit>
#include <cstdint>

#include "base/bytes.h"
#include "base/endian.h"

namespace adit {

// A sum that is not folded yet. Any number of partial sums of one packet can be added without overflow.
using WordSum = std::uint64_t;

constexpr std::uint16_t MemoryWord(std::uint16_t host) {
  return std::endian::native == std::endian::little ? __builtin_bswap16(host) : host;
}

// Sum of `data`, which starts at an even offset of what is summed; an odd last byte counts as if a zero followed.
WordSum SumWords(Bytes data);

// The same for a length known at compile time: headers and addresses.
template <std::size_t kBytes>
WordSum SumFixed(const std::uint8_t* at) {
  static_assert(kBytes % 4 == 0);
  WordSum sum = 0;
  for (std::size_t i = 0; i < kBytes; i += 4) sum += LoadAs<std::uint32_t>(at + i);
  return sum;
}

// The ones' complement sum in 16 bits. The checksum is its complement; a range that contains its own right checksum
// folds to 0xffff.
constexpr std::uint16_t FoldSum(WordSum sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>((sum & 0xffff) + (sum >> 16));
}

constexpr std::uint16_t FinishChecksum(WordSum sum) { return static_cast<std::uint16_t>(~FoldSum(sum)); }

// Pseudo-header of TCP and UDP (RFC 9293 §3.1, RFC 8200 §8.1). `addresses` are source and destination as they stand
// together in both IP headers. `length` counts the transport header and what follows; at most 65535.
inline WordSum PseudoHeaderSum(const std::uint8_t* addresses, bool is_v6, std::uint8_t protocol, std::size_t length) {
  const WordSum sum = is_v6 ? SumFixed<32>(addresses) : SumFixed<8>(addresses);
  return sum + MemoryWord(protocol) + MemoryWord(static_cast<std::uint16_t>(length));
}

// The checksum after one word under it changed (RFC 1624, equation 3).
constexpr std::uint16_t UpdateChecksum(std::uint16_t checksum, std::uint16_t old_word, std::uint16_t new_word) {
  return FinishChecksum(WordSum{static_cast<std::uint16_t>(~checksum)} + static_cast<std::uint16_t>(~old_word) +
                        new_word);
}

}  // namespace adit
