#include <openssl/evp.h>

#include "base/check.h"
#include "crypto/internal.h"

namespace adit::internal {
namespace {

struct Deleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, Deleter>;

// A fetch costs microseconds and a lock.
const EVP_CIPHER* Algorithm() {
  static const EVP_CIPHER* const algorithm = EVP_CIPHER_fetch(OpenSslContext(), "ChaCha20-Poly1305", nullptr);
  CHECK(algorithm != nullptr);
  return algorithm;
}

// One direction: a context that remembers its key, so that a message sets the nonce only.
class Direction {
 public:
  explicit Direction(int encrypts) : encrypts_(encrypts) { Forget(); }

  // Keys are told apart by their bytes: a new key may stand at the address of one that was freed. Once per batch.
  void Use(const AeadKey& key) {
    const Bytes bytes = key.bytes();
    if (has_key_ && EqualInConstantTime(key_, bytes)) return;
    CHECK(EVP_CipherInit_ex2(context_.get(), nullptr, bytes.data(), nullptr, encrypts_, nullptr) == 1);
    key_ = SecretArray<32>(bytes);
    has_key_ = true;
  }

  void Forget() {
    if (context_ == nullptr) context_.reset(EVP_CIPHER_CTX_new());
    CHECK(context_ != nullptr && EVP_CIPHER_CTX_reset(context_.get()) == 1);  // wipes the key schedule
    CHECK(EVP_CipherInit_ex2(context_.get(), Algorithm(), nullptr, nullptr, encrypts_, nullptr) == 1);
    key_.Wipe();
    has_key_ = false;
  }

  void Start(const std::uint8_t* nonce, Bytes associated_data) {
    CHECK(EVP_CipherInit_ex2(context_.get(), nullptr, nullptr, nonce, encrypts_, nullptr) == 1);
    if (!associated_data.empty()) Update(nullptr, associated_data);
  }

  void Update(std::uint8_t* out, Bytes in) {
    int written = 0;
    CHECK(EVP_CipherUpdate(context_.get(), out, &written, in.data(), static_cast<int>(in.size())) == 1);
  }

  bool Finish() {
    ByteArray<16> nothing;  // a stream cipher has nothing left
    int written = 0;
    return EVP_CipherFinal_ex(context_.get(), nothing.data(), &written) == 1;
  }

  void Tag(int get_or_set, std::uint8_t* tag) {
    CHECK(EVP_CIPHER_CTX_ctrl(context_.get(), get_or_set, kAeadTagBytes, tag) == 1);
  }

 private:
  int encrypts_;
  CipherContext context_;
  SecretArray<32> key_;
  bool has_key_ = false;
};

class OpenSslEngine final : public AeadEngineForVectors {
 public:
  AeadBackend backend() const override { return AeadBackend::kOpenSsl; }

  void Seal(const AeadKey& key, std::span<const SealJob> jobs) override {
    seal_.Use(key);
    for (const SealJob& job : jobs) {
      const CounterNonce nonce(job.counter);
      SealContiguously(job, [&](Bytes plaintext, std::uint8_t* out) { SealMessage(nonce.data(), {}, plaintext, out); });
    }
  }

  void Open(const AeadKey& key, std::span<OpenJob> jobs) override {
    open_.Use(key);
    for (OpenJob& job : jobs) {
      job.is_authentic = OpenMessage(CounterNonce(job.counter).data(), {}, MutableBytes(job.data, job.bytes));
    }
  }

  void ForgetKeys() override {
    seal_.Forget();
    open_.Forget();
  }

  void SealOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, Bytes plaintext,
               std::uint8_t* out) override {
    seal_.Use(key);
    SealMessage(nonce.data(), associated_data, plaintext, out);
  }

  bool OpenOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, MutableBytes sealed) override {
    open_.Use(key);
    return OpenMessage(nonce.data(), associated_data, sealed);
  }

 private:
  void SealMessage(const std::uint8_t* nonce, Bytes associated_data, Bytes plaintext, std::uint8_t* out) {
    seal_.Start(nonce, associated_data);
    if (!plaintext.empty()) seal_.Update(out, plaintext);
    CHECK(seal_.Finish());
    seal_.Tag(EVP_CTRL_AEAD_GET_TAG, out + plaintext.size());
  }

  bool OpenMessage(const std::uint8_t* nonce, Bytes associated_data, MutableBytes sealed) {
    const MutableBytes body = sealed.first(sealed.size() - kAeadTagBytes);
    open_.Start(nonce, associated_data);
    open_.Tag(EVP_CTRL_AEAD_SET_TAG, body.data() + body.size());
    if (!body.empty()) open_.Update(body.data(), body);
    return open_.Finish();  // compares in constant time
  }

  Direction seal_{1};
  Direction open_{0};
};

}  // namespace

std::unique_ptr<AeadEngineForVectors> MakeOpenSslEngine() { return std::make_unique<OpenSslEngine>(); }

}  // namespace adit::internal
