// Bytes that wipe themselves. Every key, chaining value and Diffie-Hellman result lives in one of these.
#pragma once

#include <sodium.h>

#include <algorithm>
#include <cstddef>

#include "base/bytes.h"
#include "base/check.h"

namespace adit {

// Constant-time comparison of tags, macs and keys. REQUIRES: equal sizes. The sizes of a tag and of a key take 2 ns in
// libsodium's vector code; its general loop took 32 ns for a mac, which a flood would make us pay per packet.
inline bool EqualInConstantTime(Bytes a, Bytes b) {
  CHECK(a.size() == b.size());
  if (a.size() == crypto_verify_16_BYTES) return crypto_verify_16(a.data(), b.data()) == 0;
  if (a.size() == crypto_verify_32_BYTES) return crypto_verify_32(a.data(), b.data()) == 0;
  return sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

template <std::size_t N>
class SecretArray {
 public:
  SecretArray() = default;  // all zeros
  explicit SecretArray(Bytes from) {
    CHECK(from.size() == N);
    std::ranges::copy(from, bytes_.begin());
  }
  SecretArray(const SecretArray&) = default;
  SecretArray& operator=(const SecretArray&) = default;
  ~SecretArray() { Wipe(); }

  void Wipe() { sodium_memzero(bytes_.data(), N); }
  bool is_zero() const { return sodium_is_zero(bytes_.data(), N) == 1; }

  Bytes bytes() const { return bytes_; }
  MutableBytes mutable_bytes() { return bytes_; }
  operator Bytes() const { return bytes_; }
  const std::uint8_t* data() const { return bytes_.data(); }
  std::uint8_t* data() { return bytes_.data(); }
  static constexpr std::size_t size() { return N; }

  friend bool operator==(const SecretArray& a, const SecretArray& b) { return EqualInConstantTime(a.bytes_, b.bytes_); }

 private:
  ByteArray<N> bytes_{};
};

}  // namespace adit
