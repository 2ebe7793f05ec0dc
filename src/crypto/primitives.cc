#include "crypto/primitives.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <sodium.h>

#include <memory>

#include "crypto/internal.h"

// BLAKE2s comes from OpenSSL. A flood makes us pay the mac1 check (32-byte key, 116-byte message) per packet. It took
// 394 ns with EVP_MAC, the context reused and keyed again, and takes 425 ns with the wipe behind it; libb2's one-shot
// call took 373 ns without one (Zen 5, OpenSSL 3.0, libb2 0.98.1). At 60,000 packets a second the difference is 0.3 %
// of a core: not worth a second library. Fetching an algorithm costs microseconds, so each thread keeps its contexts.

namespace adit {
namespace {

struct Deleter {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
  void operator()(EVP_MAC_CTX* context) const { EVP_MAC_CTX_free(context); }
};
using DigestContext = std::unique_ptr<EVP_MD_CTX, Deleter>;
using MacContext = std::unique_ptr<EVP_MAC_CTX, Deleter>;

constexpr ByteArray<32> kNoKey{};

const EVP_MD* Blake2sAlgorithm() {
  static const EVP_MD* const algorithm = EVP_MD_fetch(internal::OpenSslContext(), "BLAKE2S-256", nullptr);
  CHECK(algorithm != nullptr);
  return algorithm;
}

EVP_MAC* KeyedBlake2sAlgorithm() {
  static EVP_MAC* const algorithm = EVP_MAC_fetch(internal::OpenSslContext(), "BLAKE2SMAC", nullptr);
  CHECK(algorithm != nullptr);
  return algorithm;
}

EVP_MAC* HmacAlgorithm() {
  static EVP_MAC* const algorithm = EVP_MAC_fetch(internal::OpenSslContext(), "HMAC", nullptr);
  CHECK(algorithm != nullptr);
  return algorithm;
}

DigestContext MakeDigestContext() {
  DigestContext context(EVP_MD_CTX_new());
  CHECK(context != nullptr && EVP_DigestInit_ex2(context.get(), Blake2sAlgorithm(), nullptr) == 1);
  return context;
}

MacContext MakeMacContext(EVP_MAC* algorithm, OSSL_PARAM parameter) {
  MacContext context(EVP_MAC_CTX_new(algorithm));
  const OSSL_PARAM parameters[] = {parameter, OSSL_PARAM_construct_end()};
  CHECK(context != nullptr && EVP_MAC_CTX_set_params(context.get(), parameters) == 1);
  return context;
}

MacContext MakeHmacContext() {
  char digest[] = "BLAKE2S-256";
  return MakeMacContext(HmacAlgorithm(), OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0));
}

// Starts a computation; without a key, one with the key of the one before.
void Start(EVP_MAC_CTX* context, Bytes key) { CHECK(EVP_MAC_init(context, key.data(), key.size(), nullptr) == 1); }

void Add(EVP_MAC_CTX* context, Bytes part) {
  if (!part.empty()) CHECK(EVP_MAC_update(context, part.data(), part.size()) == 1);
}

void Finish(EVP_MAC_CTX* context, MutableBytes result) {
  std::size_t written = 0;
  CHECK(EVP_MAC_final(context, result.data(), &written, result.size()) == 1 && written == result.size());
}

// One HKDF (RFC 5869, empty info): the extracted key, then outputs of 32 bytes each. All that depends on the secret
// is overwritten at the end of its life: the extracted key by its type, the two keyed states inside the context, which
// lives as long as the thread, by keying it with zeros.
class Expansion {
 public:
  Expansion(Bytes chaining_key, Bytes input) {
    SecretArray<32> extracted;
    Start(context_, chaining_key);
    Add(context_, input);
    Finish(context_, extracted.mutable_bytes());
    Start(context_, extracted);
  }
  ~Expansion() { Start(context_, kNoKey); }
  Expansion(const Expansion&) = delete;
  Expansion& operator=(const Expansion&) = delete;

  void Next(SecretArray<32>& output) {
    if (++count_ > 1) {
      Start(context_, {});
      Add(context_, previous_);
    }
    Add(context_, Bytes(&count_, 1));
    Finish(context_, previous_.mutable_bytes());
    output = previous_;
  }

 private:
  static EVP_MAC_CTX* ContextOfThread() {
    thread_local const MacContext context = MakeHmacContext();
    return context.get();
  }

  EVP_MAC_CTX* context_ = ContextOfThread();
  SecretArray<32> previous_;
  std::uint8_t count_ = 0;
};

}  // namespace

namespace internal {

template <std::size_t kResultBytes>
ByteArray<kResultBytes> KeyedBlake2s(Bytes key, std::initializer_list<Bytes> parts) {
  CHECK(!key.empty() && key.size() <= 32);
  thread_local const MacContext context = [] {
    std::size_t size = kResultBytes;
    return MakeMacContext(KeyedBlake2sAlgorithm(), OSSL_PARAM_construct_size_t(OSSL_MAC_PARAM_SIZE, &size));
  }();
  ByteArray<kResultBytes> result;
  Start(context.get(), key);
  for (const Bytes part : parts) Add(context.get(), part);
  Finish(context.get(), result);
  Start(context.get(), kNoKey);  // the context would keep the key, which may be a cookie secret
  return result;
}

template ByteArray<16> KeyedBlake2s<16>(Bytes key, std::initializer_list<Bytes> parts);
template ByteArray<32> KeyedBlake2s<32>(Bytes key, std::initializer_list<Bytes> parts);

}  // namespace internal

void InitializeCrypto() {
  CHECK(sodium_init() >= 0);
  // An OpenSSL without one of these ends the program here, and not in its first handshake.
  Blake2sAlgorithm();
  KeyedBlake2sAlgorithm();
  HmacAlgorithm();
}

bool X25519(const PrivateKey& private_key, const PublicKey& public_key, SecretArray<32>& shared) {
  // libsodium refuses points of small order, and a result of all zeros, in constant time.
  if (crypto_scalarmult_curve25519(shared.data(), private_key.data(), public_key.bytes.data()) == 0) return true;
  shared.Wipe();
  return false;
}

Hash Blake2s(std::initializer_list<Bytes> parts) {
  thread_local const DigestContext context = MakeDigestContext();
  Hash result;
  CHECK(EVP_DigestInit_ex2(context.get(), nullptr, nullptr) == 1);
  for (const Bytes part : parts) {
    if (!part.empty()) CHECK(EVP_DigestUpdate(context.get(), part.data(), part.size()) == 1);
  }
  CHECK(EVP_DigestFinal_ex(context.get(), result.data(), nullptr) == 1);  // wipes the state
  return result;
}

Mac KeyedBlake2s128(Bytes key, std::initializer_list<Bytes> parts) { return internal::KeyedBlake2s<16>(key, parts); }

void Kdf1(Bytes chaining_key, Bytes input, SecretArray<32>& t1) {
  Expansion expansion(chaining_key, input);
  expansion.Next(t1);
}

void Kdf2(Bytes chaining_key, Bytes input, SecretArray<32>& t1, SecretArray<32>& t2) {
  Expansion expansion(chaining_key, input);
  expansion.Next(t1);
  expansion.Next(t2);
}

void Kdf3(Bytes chaining_key, Bytes input, SecretArray<32>& t1, SecretArray<32>& t2, SecretArray<32>& t3) {
  Expansion expansion(chaining_key, input);
  expansion.Next(t1);
  expansion.Next(t2);
  expansion.Next(t3);
}

void SealHandshake(Bytes key, std::uint64_t counter, Bytes associated_data, Bytes plaintext, MutableBytes out) {
  CHECK(key.size() == kKeyBytes && out.size() == plaintext.size() + kTagBytes);
  const internal::CounterNonce nonce(counter);
  crypto_aead_chacha20poly1305_ietf_encrypt(out.data(), nullptr, plaintext.data(), plaintext.size(),
                                            associated_data.data(), associated_data.size(), nullptr, nonce.data(),
                                            key.data());
}

bool OpenHandshake(Bytes key, std::uint64_t counter, Bytes associated_data, Bytes sealed, MutableBytes out) {
  CHECK(key.size() == kKeyBytes && sealed.size() == out.size() + kTagBytes);
  const internal::CounterNonce nonce(counter);
  if (crypto_aead_chacha20poly1305_ietf_decrypt(out.data(), nullptr, nullptr, sealed.data(), sealed.size(),
                                                associated_data.data(), associated_data.size(), nonce.data(),
                                                key.data()) == 0) {
    return true;
  }
  sodium_memzero(out.data(), out.size());
  return false;
}

void SealCookie(Bytes key, const ByteArray<kXNonceBytes>& nonce, Bytes associated_data, Bytes plaintext,
                MutableBytes out) {
  CHECK(key.size() == kKeyBytes && out.size() == plaintext.size() + kTagBytes);
  crypto_aead_xchacha20poly1305_ietf_encrypt(out.data(), nullptr, plaintext.data(), plaintext.size(),
                                             associated_data.data(), associated_data.size(), nullptr, nonce.data(),
                                             key.data());
}

bool OpenCookie(Bytes key, const ByteArray<kXNonceBytes>& nonce, Bytes associated_data, Bytes sealed,
                MutableBytes out) {
  CHECK(key.size() == kKeyBytes && sealed.size() == out.size() + kTagBytes);
  if (crypto_aead_xchacha20poly1305_ietf_decrypt(out.data(), nullptr, nullptr, sealed.data(), sealed.size(),
                                                 associated_data.data(), associated_data.size(), nonce.data(),
                                                 key.data()) == 0) {
    return true;
  }
  sodium_memzero(out.data(), out.size());
  return false;
}

void SystemRandom::Fill(MutableBytes out) { randombytes_buf(out.data(), out.size()); }

}  // namespace adit
