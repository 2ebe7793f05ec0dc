// What the files of this folder, their tests and their benchmark share. Nobody else includes it.
#pragma once

#include <openssl/types.h>

#include <bit>
#include <cstring>
#include <initializer_list>
#include <memory>

#include "base/bytes.h"
#include "base/check.h"
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

// The nonce of a counter (paper, 5.4.6): 4 zero bytes, then the counter little-endian. Two aligned words, so that the
// cipher's loads find what was just stored.
class CounterNonce {
 public:
  explicit CounterNonce(std::uint64_t counter)
      : words_{0, std::endian::native == std::endian::little ? counter : std::byteswap(counter)} {}
  const std::uint8_t* data() const { return reinterpret_cast<const std::uint8_t*>(words_) + 4; }

 private:
  std::uint64_t words_[2];
};

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

// REQUIRES: backend is available.
std::unique_ptr<AeadEngineForVectors> CreateForVectors(AeadBackend backend);

// Best first, of those whose condition is not known at compile time.
std::vector<AeadBackend> ChooseBackends(bool runs_lanes, bool runs_ipsec_mb);

bool CpuRunsIpsecMb();
// It has the instructions, and the kernel has passed its self-test.
bool CpuRunsLanes();
std::unique_ptr<AeadEngineForVectors> MakeIpsecMbEngine();
std::unique_ptr<AeadEngineForVectors> MakeLanesEngine();
std::unique_ptr<AeadEngineForVectors> MakeOpenSslEngine();
std::unique_ptr<AeadEngineForVectors> MakeSodiumEngine();

// Calls seal(plaintext, out) with the job's plaintext laid out contiguously, as SealJob describes.
template <typename Seal>
void SealContiguously(const SealJob& job, Seal&& seal) {
  const std::size_t size = job.plaintext_bytes();
  if (size == 0) return seal(Bytes(), job.out);
  CHECK(job.body != nullptr && job.padding_bytes < 16);
  std::uint8_t* const plaintext = job.body - job.head.size();
  if (!job.head.empty()) std::memmove(plaintext, job.head.data(), job.head.size());
  if (job.padding_bytes == 0) return seal(Bytes(plaintext, size), job.out);

  std::uint8_t* const behind = job.body + job.body_bytes;
  ByteArray<16> saved;
  std::memcpy(saved.data(), behind, job.padding_bytes);
  std::memset(behind, 0, job.padding_bytes);
  seal(Bytes(plaintext, size), job.out);
  // In place, what stands behind the body is ciphertext now.
  if (plaintext != job.out) std::memcpy(behind, saved.data(), job.padding_bytes);
}

}  // namespace adit::internal
