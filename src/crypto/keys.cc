#include "crypto/keys.h"

#include <sodium.h>

namespace adit {
namespace {

constexpr std::size_t kHexDigits = 2 * kKeyBytes;
constexpr std::size_t kBase64Characters = 44;

}  // namespace

PrivateKey PrivateKey::Generate(Random& random) {
  PrivateKey key;
  random.Fill(key.mutable_bytes());
  return key.Clamped();
}

PrivateKey PrivateKey::Clamped() const {
  PrivateKey key = *this;
  if (key.is_zero()) return key;
  // RFC 7748, 5: a multiple of the cofactor, with the highest bit at a fixed place.
  key.data()[0] = static_cast<std::uint8_t>(key.data()[0] & 0xF8);
  key.data()[31] = static_cast<std::uint8_t>((key.data()[31] & 0x7F) | 0x40);
  return key;
}

PublicKey PrivateKey::ComputePublicKey() const {
  PublicKey result;
  if (is_zero()) return result;
  CHECK(crypto_scalarmult_curve25519_base(result.bytes.data(), data()) == 0);
  return result;
}

std::optional<SecretArray<kKeyBytes>> ParseKeyHex(std::string_view text) {
  if (text.size() != kHexDigits) return std::nullopt;
  SecretArray<kKeyBytes> key;
  std::size_t written = 0;
  const char* end = nullptr;
  if (sodium_hex2bin(key.data(), key.size(), text.data(), text.size(), nullptr, &written, &end) != 0 ||
      written != kKeyBytes || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return key;
}

std::optional<SecretArray<kKeyBytes>> ParseKeyBase64(std::string_view text) {
  if (text.size() != kBase64Characters) return std::nullopt;
  // libsodium 1.0.18 takes some bytes above 127 for digits.
  unsigned seen = 0;
  for (const char c : text) seen |= static_cast<unsigned char>(c);
  if (seen > 127) return std::nullopt;
  SecretArray<kKeyBytes> key;
  std::size_t written = 0;
  const char* end = nullptr;
  if (sodium_base642bin(key.data(), key.size(), text.data(), text.size(), nullptr, &written, &end,
                        sodium_base64_VARIANT_ORIGINAL) != 0 ||
      written != kKeyBytes || end != text.data() + text.size()) {
    return std::nullopt;
  }
  return key;
}

// libsodium ends its text with a NUL: it lands on the one that the string has there anyway.
std::string KeyToHex(Bytes key) {
  CHECK(key.size() == kKeyBytes);
  std::string text(kHexDigits, '\0');
  sodium_bin2hex(text.data(), kHexDigits + 1, key.data(), key.size());
  return text;
}

std::string KeyToBase64(Bytes key) {
  CHECK(key.size() == kKeyBytes);
  std::string text(kBase64Characters, '\0');
  sodium_bin2base64(text.data(), kBase64Characters + 1, key.data(), key.size(), sodium_base64_VARIANT_ORIGINAL);
  return text;
}

}  // namespace adit
