// What the files of this folder, their tests and their benchmark share. Nobody else includes it.
#pragma once

#include <openssl/types.h>

#include <initializer_list>
#include <memory>

#include "base/bytes.h"
#include "crypto/aead.h"

namespace adit::internal {

// A library context of our own with OpenSSL's built-in provider. The machine's openssl.cnf does not apply to it: a
// policy there (FIPS only, say) would take BLAKE2s and ChaCha20 away. Never freed; any thread.
OSSL_LIB_CTX* OpenSslContext();

// Keyed BLAKE2s with a result of 16 or 32 bytes. The known answers exist for 32 bytes only, so both sizes are one code.
// REQUIRES: 1 <= key.size() <= 32.
template <std::size_t kResultBytes>
ByteArray<kResultBytes> KeyedBlake2s(Bytes key, std::initializer_list<Bytes> parts);

using AeadNonce = ByteArray<12>;

// The data path's nonce (paper, 5.4.6).
AeadNonce NonceOf(std::uint64_t counter);

// One message with any nonce and associated data, through the same code as the engine's Seal and Open. The product has
// no use for it; the public test vectors need it.
class AeadEngineForVectors : public AeadEngine {
 public:
  // `out` receives plaintext.size() + 16 bytes.
  virtual void SealOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, Bytes plaintext,
                       std::uint8_t* out) = 0;
  // In place. REQUIRES: sealed.size() >= 16.
  virtual bool OpenOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, MutableBytes sealed) = 0;
};

std::unique_ptr<AeadEngineForVectors> CreateForVectors(AeadBackend backend);

}  // namespace adit::internal
