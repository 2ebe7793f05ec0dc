// Bytes that wipe themselves. Every key, chaining value and Diffie-Hellman result lives in one of these.
#pragma once

#include <sodium.h>

#include <algorithm>
#include <cstddef>

#include "base/bytes.h"
#include "base/check.h"

namespace adit {

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

  friend bool operator==(const SecretArray& a, const SecretArray& b) {
    return sodium_memcmp(a.bytes_.data(), b.bytes_.data(), N) == 0;  // constant time
  }

 private:
  ByteArray<N> bytes_{};
};

// Constant-time comparison of tags and macs. REQUIRES: equal sizes.
inline bool EqualInConstantTime(Bytes a, Bytes b) {
  CHECK(a.size() == b.size());
  return sodium_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace adit
