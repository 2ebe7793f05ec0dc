// WireGuard's keys as types, and their text forms: base64 in .conf files, hex on the UAPI socket.
#pragma once

#include <compare>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/random.h"
#include "crypto/secret.h"

namespace adit {

inline constexpr std::size_t kKeyBytes = 32;

// A Curve25519 public key. Not a secret; ordered so that it can be a map key.
struct PublicKey {
  ByteArray<kKeyBytes> bytes{};
  friend auto operator<=>(const PublicKey&, const PublicKey&) = default;
};

// A Curve25519 private key, clamped when generated or set from outside. All zeros means "no key".
class PrivateKey : public SecretArray<kKeyBytes> {
 public:
  using SecretArray::SecretArray;
  static PrivateKey Generate(Random& random);
  PrivateKey Clamped() const;          // all zeros stay all zeros
  PublicKey ComputePublicKey() const;  // X25519 with the base point; "no key" has the all-zero public key
};

// The optional preshared key. All zeros means "none" and is mixed into the handshake all the same (paper, 5.2).
class PresharedKey : public SecretArray<kKeyBytes> {
 public:
  using SecretArray::SecretArray;
};

// Exactly 64 hex digits, either case; exactly 44 base64 characters with one '='. Empty on anything else. Decoding does
// not branch on the digits' values (libsodium).
std::optional<SecretArray<kKeyBytes>> ParseKeyHex(std::string_view text);
std::optional<SecretArray<kKeyBytes>> ParseKeyBase64(std::string_view text);
std::string KeyToHex(Bytes key);
std::string KeyToBase64(Bytes key);

inline PublicKey ToPublicKey(const SecretArray<kKeyBytes>& key) {
  PublicKey result;
  std::ranges::copy(key.bytes(), result.bytes.begin());
  return result;
}

}  // namespace adit
