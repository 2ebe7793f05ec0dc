// The handshake's primitives by name and size: X25519, BLAKE2s, HMAC, KDF, and the two AEADs of the handshake.
// The data path's AEAD is aead.h.
#pragma once

#include "base/bytes.h"
#include "base/random.h"
#include "crypto/keys.h"
#include "crypto/secret.h"

namespace adit {

// Call once before any other function of this folder; safe to repeat. Aborts if libsodium cannot start.
void InitializeCrypto();

inline constexpr std::size_t kHashBytes = 32;
inline constexpr std::size_t kMacBytes = 16;
inline constexpr std::size_t kTagBytes = 16;
inline constexpr std::size_t kXNonceBytes = 24;

using Hash = ByteArray<kHashBytes>;
using Mac = ByteArray<kMacBytes>;

// DH(private, public). False, with `shared` zeroed, when the result is all zeros: the caller aborts that handshake
// (paper, 5.4.1; RFC 7748, 6.1).
[[nodiscard]] bool X25519(const PrivateKey& private_key, const PublicKey& public_key, SecretArray<32>& shared);

// BLAKE2s-256 of the concatenation of the parts.
Hash Blake2s(std::initializer_list<Bytes> parts);
// Keyed BLAKE2s with a 16-byte result: mac1, mac2 and the cookie (paper, 5.4.4, 5.4.7). key.size() <= 32.
Mac KeyedBlake2s128(Bytes key, std::initializer_list<Bytes> parts);

// HMAC-BLAKE2s, and HKDF with it: KDF_n of the paper, 5.4. Outputs may alias `chaining_key`.
void Kdf1(Bytes chaining_key, Bytes input, SecretArray<32>& t1);
void Kdf2(Bytes chaining_key, Bytes input, SecretArray<32>& t1, SecretArray<32>& t2);
void Kdf3(Bytes chaining_key, Bytes input, SecretArray<32>& t1, SecretArray<32>& t2, SecretArray<32>& t3);

// ChaCha20-Poly1305 with the handshake's nonce (4 zero bytes, then the counter little-endian).
// out.size() == plaintext.size() + 16.
void SealHandshake(Bytes key, std::uint64_t counter, Bytes associated_data, Bytes plaintext, MutableBytes out);
// out.size() == sealed.size() - 16. False if the tag is wrong; `out` is then zeroed.
[[nodiscard]] bool OpenHandshake(Bytes key, std::uint64_t counter, Bytes associated_data, Bytes sealed,
                                 MutableBytes out);

// XChaCha20-Poly1305, for cookie replies.
void SealCookie(Bytes key, const ByteArray<kXNonceBytes>& nonce, Bytes associated_data, Bytes plaintext,
                MutableBytes out);
[[nodiscard]] bool OpenCookie(Bytes key, const ByteArray<kXNonceBytes>& nonce, Bytes associated_data, Bytes sealed,
                              MutableBytes out);

// The operating system's randomness, through libsodium. Stateless; any thread may use its own or a shared one.
class SystemRandom final : public Random {
 public:
  void Fill(MutableBytes out) override;
};

}  // namespace adit
