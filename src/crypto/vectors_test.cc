// The public vectors, each through the code that the product runs.
#include "crypto/aead.h"
#include "crypto/internal.h"
#include "crypto/primitives.h"
#include "crypto/test_support.h"

namespace adit {
namespace {

template <std::size_t N>
ByteArray<N> ArrayOf(Bytes bytes) {
  CHECK(bytes.size() == N);
  ByteArray<N> array;
  std::ranges::copy(bytes, array.begin());
  return array;
}

struct AeadVector {
  std::vector<std::uint8_t> key, nonce, associated_data, plaintext, sealed;
  bool is_valid = false;
  std::string name;
};

std::vector<AeadVector> LoadAeadVectors(const std::string& file) {
  std::vector<AeadVector> vectors;
  const nlohmann::json all = LoadVectors(file);
  for (const auto& group : all.at("testGroups")) {
    for (const auto& test : group.at("tests")) {
      AeadVector v;
      v.key = FromHex(test, "key");
      v.nonce = FromHex(test, "iv");
      v.associated_data = FromHex(test, "aad");
      v.plaintext = FromHex(test, "msg");
      v.sealed = FromHex(test, "ct");
      const auto tag = FromHex(test, "tag");
      v.sealed.insert(v.sealed.end(), tag.begin(), tag.end());
      v.is_valid = test.at("result") == "valid";
      v.name = file + " tcId " + test.at("tcId").dump();
      vectors.push_back(std::move(v));
    }
  }
  return vectors;
}

class AeadVectors : public BackendTest {};

TEST_P(AeadVectors, WycheproofChaCha20Poly1305) {
  int valid = 0, invalid = 0, other_nonce_sizes = 0;
  for (const AeadVector& v : LoadAeadVectors("wycheproof_chacha20_poly1305.json")) {
    SCOPED_TRACE(v.name);
    if (v.nonce.size() != 12) {  // a nonce of another size cannot be expressed: it is a type
      ++other_nonce_sizes;
      continue;
    }
    const AeadKey key(v.key);
    const auto nonce = ArrayOf<12>(v.nonce);
    auto opened = v.sealed;
    EXPECT_EQ(engine_->OpenOne(key, nonce, v.associated_data, opened), v.is_valid);
    if (v.is_valid) {
      opened.resize(v.plaintext.size());
      EXPECT_EQ(opened, v.plaintext);
      std::vector<std::uint8_t> sealed(v.sealed.size());
      engine_->SealOne(key, nonce, v.associated_data, v.plaintext, sealed.data());
      EXPECT_EQ(sealed, v.sealed);
    }
    ++(v.is_valid ? valid : invalid);
  }
  EXPECT_EQ(valid, 256);
  EXPECT_EQ(invalid, 60);
  EXPECT_EQ(other_nonce_sizes, 9);
}

INSTANTIATE_TEST_SUITE_P(Backends, AeadVectors, kAllBackends, BackendTestName);

class Vectors : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitializeCrypto(); }
};

// The handshake's nonce begins with four zero bytes; ten of the vectors have such a one.
TEST_F(Vectors, WycheproofChaCha20Poly1305ThroughTheHandshakeFunctions) {
  int run = 0;
  for (const AeadVector& v : LoadAeadVectors("wycheproof_chacha20_poly1305.json")) {
    if (v.nonce.size() != 12 || v.nonce[0] != 0 || v.nonce[1] != 0 || v.nonce[2] != 0 || v.nonce[3] != 0) continue;
    SCOPED_TRACE(v.name);
    std::uint64_t counter = 0;
    for (std::size_t i = 12; i-- > 4;) counter = counter << 8 | v.nonce[i];
    std::vector<std::uint8_t> sealed(v.sealed.size()), opened(v.plaintext.size());
    ASSERT_TRUE(v.is_valid);
    SealHandshake(v.key, counter, v.associated_data, v.plaintext, sealed);
    EXPECT_EQ(sealed, v.sealed);
    EXPECT_TRUE(OpenHandshake(v.key, counter, v.associated_data, v.sealed, opened));
    EXPECT_EQ(opened, v.plaintext);
    ++run;
  }
  EXPECT_EQ(run, 10);
}

TEST_F(Vectors, WycheproofXChaCha20Poly1305) {
  int valid = 0, invalid = 0, other_nonce_sizes = 0;
  for (const AeadVector& v : LoadAeadVectors("wycheproof_xchacha20_poly1305.json")) {
    SCOPED_TRACE(v.name);
    if (v.nonce.size() != kXNonceBytes) {
      ++other_nonce_sizes;
      continue;
    }
    const auto nonce = ArrayOf<kXNonceBytes>(v.nonce);
    std::vector<std::uint8_t> opened(v.sealed.size() - kTagBytes, 0xAA);
    EXPECT_EQ(OpenCookie(v.key, nonce, v.associated_data, v.sealed, opened), v.is_valid);
    if (v.is_valid) {
      EXPECT_EQ(opened, v.plaintext);
      std::vector<std::uint8_t> sealed(v.sealed.size());
      SealCookie(v.key, nonce, v.associated_data, v.plaintext, sealed);
      EXPECT_EQ(sealed, v.sealed);
    } else {
      EXPECT_TRUE(std::ranges::all_of(opened, [](std::uint8_t byte) { return byte == 0; }));
    }
    ++(v.is_valid ? valid : invalid);
  }
  EXPECT_EQ(valid, 246);
  EXPECT_EQ(invalid, 60);
  EXPECT_EQ(other_nonce_sizes, 9);
}

TEST_F(Vectors, WycheproofX25519AndZeroResultsAreRefused_CONF17) {
  int shared_secrets = 0, refused = 0;
  const nlohmann::json all = LoadVectors("wycheproof_x25519.json");
  for (const auto& group : all.at("testGroups")) {
    for (const auto& test : group.at("tests")) {
      SCOPED_TRACE("tcId " + test.at("tcId").dump());
      const auto expected = FromHex(test, "shared");
      const bool is_zero = std::ranges::all_of(expected, [](std::uint8_t byte) { return byte == 0; });
      SecretArray<32> shared;
      std::ranges::fill(shared.mutable_bytes(), std::uint8_t{0xAA});
      EXPECT_EQ(X25519(PrivateKey(FromHex(test, "private")), PublicKey{ArrayOf<32>(FromHex(test, "public"))}, shared),
                !is_zero);
      EXPECT_EQ(ToVector(shared), expected);
      ++(is_zero ? refused : shared_secrets);
    }
  }
  EXPECT_EQ(shared_secrets, 487);
  EXPECT_EQ(refused, 31);
}

TEST_F(Vectors, Blake2sKnownAnswers) {
  int unkeyed = 0, keyed = 0;
  for (const auto& test : LoadVectors("blake2s_kat.json")) {
    const auto input = FromHex(test, "in");
    const auto key = FromHex(test, "key");
    SCOPED_TRACE(input.size());
    const std::string expected = test.at("out");
    // In one part, and in three.
    const Bytes whole = input;
    const Bytes a = whole.first(whole.size() / 3), b = whole.subspan(a.size(), whole.size() / 2);
    const Bytes c = whole.subspan(a.size() + b.size());
    if (key.empty()) {
      EXPECT_EQ(ToHex(Blake2s({whole})), expected);
      EXPECT_EQ(ToHex(Blake2s({a, b, c})), expected);
    } else {
      EXPECT_EQ(ToHex(internal::KeyedBlake2s<32>(key, {whole})), expected);
      EXPECT_EQ(ToHex(internal::KeyedBlake2s<32>(key, {a, b, c})), expected);
    }
    ++(key.empty() ? unkeyed : keyed);
  }
  EXPECT_EQ(unkeyed, 256);
  EXPECT_EQ(keyed, 256);
}

}  // namespace
}  // namespace adit
