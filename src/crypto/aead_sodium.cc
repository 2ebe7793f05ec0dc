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
      const CounterNonce nonce(job.counter);
      SealContiguously(job,
                       [&](Bytes plaintext, std::uint8_t* out) { SealMessage(key, nonce.data(), {}, plaintext, out); });
    }
  }

  void Open(const AeadKey& key, std::span<OpenJob> jobs) override {
    for (OpenJob& job : jobs) {
      job.is_authentic = OpenMessage(key, CounterNonce(job.counter).data(), {}, MutableBytes(job.data, job.bytes));
    }
  }

  void ForgetKeys() override {}  // libsodium keeps nothing between calls

  void SealOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, Bytes plaintext,
               std::uint8_t* out) override {
    SealMessage(key, nonce.data(), associated_data, plaintext, out);
  }

  bool OpenOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, MutableBytes sealed) override {
    return OpenMessage(key, nonce.data(), associated_data, sealed);
  }

 private:
  static void SealMessage(const AeadKey& key, const std::uint8_t* nonce, Bytes associated_data, Bytes plaintext,
                          std::uint8_t* out) {
    crypto_aead_chacha20poly1305_ietf_encrypt(out, nullptr, plaintext.data(), plaintext.size(), associated_data.data(),
                                              associated_data.size(), nullptr, nonce, key.bytes().data());
  }

  static bool OpenMessage(const AeadKey& key, const std::uint8_t* nonce, Bytes associated_data, MutableBytes sealed) {
    return crypto_aead_chacha20poly1305_ietf_decrypt(sealed.data(), nullptr, nullptr, sealed.data(), sealed.size(),
                                                     associated_data.data(), associated_data.size(), nonce,
                                                     key.bytes().data()) == 0;
  }
};

}  // namespace

std::unique_ptr<AeadEngineForVectors> MakeSodiumEngine() { return std::make_unique<SodiumEngine>(); }

}  // namespace adit::internal
