// The oracle that the other backends are tested against, and what is left when they are not there.
#include <sodium.h>

#include "crypto/internal.h"

namespace adit::internal {
namespace {

class SodiumEngine final : public AeadEngineForVectors {
 public:
  AeadBackend backend() const override { return AeadBackend::kSodium; }

  void Seal(const AeadKey& key, std::span<const SealJob> jobs) override {
    for (const SealJob& job : jobs) {
      const AeadNonce nonce = NonceOf(job.counter);
      SealContiguously(job, [&](Bytes plaintext, std::uint8_t* out) { SealOne(key, nonce, {}, plaintext, out); });
    }
  }

  void Open(const AeadKey& key, std::span<OpenJob> jobs) override {
    for (OpenJob& job : jobs) {
      job.is_authentic = OpenOne(key, NonceOf(job.counter), {}, MutableBytes(job.data, job.bytes));
    }
  }

  void ForgetKeys() override {}  // libsodium keeps nothing between calls

  void SealOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, Bytes plaintext,
               std::uint8_t* out) override {
    crypto_aead_chacha20poly1305_ietf_encrypt(out, nullptr, plaintext.data(), plaintext.size(), associated_data.data(),
                                              associated_data.size(), nullptr, nonce.data(), key.bytes().data());
  }

  bool OpenOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, MutableBytes sealed) override {
    return crypto_aead_chacha20poly1305_ietf_decrypt(sealed.data(), nullptr, nullptr, sealed.data(), sealed.size(),
                                                     associated_data.data(), associated_data.size(), nonce.data(),
                                                     key.bytes().data()) == 0;
  }
};

}  // namespace

std::unique_ptr<AeadEngineForVectors> MakeSodiumEngine() { return std::make_unique<SodiumEngine>(); }

}  // namespace adit::internal
