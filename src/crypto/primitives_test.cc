#include "crypto/primitives.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <thread>

#include "crypto/test_support.h"

namespace adit {
namespace {

class Primitives : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitializeCrypto(); }
};

// HKDF by OpenSSL's own KDF, which shares no code of ours.
std::vector<std::uint8_t> OpenSslHkdf(Bytes salt, Bytes input, std::size_t size) {
  EVP_KDF* const algorithm = EVP_KDF_fetch(nullptr, "HKDF", nullptr);
  EVP_KDF_CTX* const context = EVP_KDF_CTX_new(algorithm);
  char digest[] = "BLAKE2S-256";
  std::vector<std::uint8_t> salt_copy(salt.begin(), salt.end()), input_copy(input.begin(), input.end());
  std::vector<OSSL_PARAM> parameters{
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, salt_copy.data(), salt_copy.size()),
      OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, input_copy.data(), input_copy.size()),
      OSSL_PARAM_construct_end()};
  std::vector<std::uint8_t> result(size);
  CHECK(EVP_KDF_derive(context, result.data(), result.size(), parameters.data()) == 1);
  EVP_KDF_CTX_free(context);
  EVP_KDF_free(algorithm);
  return result;
}

// The expected values are those of Python's hmac and hashlib: hmac.new(key, data, hashlib.blake2s), chained as in the
// paper, with chaining key 00 01 … 1f and input 64 65 … 83.
TEST_F(Primitives, KdfGivesTheKnownAnswers_CONF11) {
  const auto chaining_key = Ascending(32);
  const auto input = Ascending(32, 100);
  const std::string expected[] = {"e3b7e038799447459d13f6cc03b71555c0b32ee93354ebe4526ec98bc53b20a4",
                                  "ca06d8e46b509266c7c0594805ffb9c256348a33c642381348f047e452d239e2",
                                  "5ee952936bec1473c13db1cc92b8d8ba5ad2df7c77f07478731d48aa5530a000"};
  SecretArray<32> t1, t2, t3;
  Kdf1(chaining_key, input, t1);
  EXPECT_EQ(ToHex(t1), expected[0]);
  Kdf2(chaining_key, input, t1, t2);
  EXPECT_EQ(ToHex(t1), expected[0]);
  EXPECT_EQ(ToHex(t2), expected[1]);
  Kdf3(chaining_key, input, t1, t2, t3);
  EXPECT_EQ(ToHex(t1), expected[0]);
  EXPECT_EQ(ToHex(t2), expected[1]);
  EXPECT_EQ(ToHex(t3), expected[2]);
}

TEST_F(Primitives, DataKeysAreTheTwoOutputsOfTheKdfOverAnEmptyInput_CONF14) {
  SecretArray<32> send, receive;
  Kdf2(Ascending(32), {}, send, receive);
  EXPECT_EQ(ToHex(send), "7a38c34bf2b8738d7374ca77c44ecb309a11d2b2528304fa86052c365e722624");
  EXPECT_EQ(ToHex(receive), "1a17621f346abdc520746a9fb64d8eb03231d674fc15687537b0780fd9c060fd");
}

TEST_F(Primitives, KdfIsHkdfWithAnyInput_CONF11) {
  SeededRandom random(DrawSeed());
  for (int round = 0; round < 300; ++round) {
    const auto chaining_key = RandomBytes(random, 32);
    const auto input = RandomBytes(random, 1 + random.Below(200));
    const auto expected = OpenSslHkdf(chaining_key, input, 96);
    SecretArray<32> t1, t2, t3;
    Kdf3(chaining_key, input, t1, t2, t3);
    EXPECT_EQ(ToHex(t1) + ToHex(t2) + ToHex(t3), ToHex(expected));
  }
}

TEST_F(Primitives, KdfOutputsMayAliasTheChainingKeyAndTheInput) {
  for (int aliased = 0; aliased < 3; ++aliased) {
    SecretArray<32> chaining_key(Ascending(32)), t[3];
    SecretArray<32>* out[3] = {&t[0], &t[1], &t[2]};
    out[aliased] = &chaining_key;
    Kdf3(chaining_key, Ascending(32, 100), *out[0], *out[1], *out[2]);
    EXPECT_EQ(ToHex(*out[2]), "5ee952936bec1473c13db1cc92b8d8ba5ad2df7c77f07478731d48aa5530a000");
    EXPECT_EQ(ToHex(*out[0]), "e3b7e038799447459d13f6cc03b71555c0b32ee93354ebe4526ec98bc53b20a4");
  }
}

// Python's hashlib.blake2s(data, key=…, digest_size=16).
TEST_F(Primitives, MacIsKeyedBlake2sAndNotHmac_CONF11) {
  const auto message = Ascending(116);
  const auto key = Ascending(32);
  EXPECT_EQ(ToHex(KeyedBlake2s128(key, {message})), "072e94ffbfc684bd8ab2a1b9dade2fd5");
  EXPECT_EQ(ToHex(KeyedBlake2s128(Bytes(key).first(16), {message})), "b9b1bbba1b59e4349d1018f97d243fca");
  EXPECT_EQ(ToHex(KeyedBlake2s128(key, {})), "9536f9b267655743dee97b8a670f9f53");
  EXPECT_EQ(ToHex(KeyedBlake2s128(key, {Bytes(message).first(1), {}, Bytes(message).subspan(1)})),
            "072e94ffbfc684bd8ab2a1b9dade2fd5");
}

TEST_F(Primitives, ThreadsDoNotDisturbEachOther) {
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([] {
      for (int round = 0; round < 500; ++round) {
        SecretArray<32> t1;
        Kdf1(Ascending(32), Ascending(32, 100), t1);
        EXPECT_EQ(ToHex(t1), "e3b7e038799447459d13f6cc03b71555c0b32ee93354ebe4526ec98bc53b20a4");
        EXPECT_EQ(ToHex(KeyedBlake2s128(Ascending(32), {Ascending(116)})), "072e94ffbfc684bd8ab2a1b9dade2fd5");
        EXPECT_EQ(ToHex(Blake2s({})), "69217a3079908094e11121d042354a7c1f55b6482ca1a51e1b250dfd1ed0eef9");
      }
    });
  }
}

TEST_F(Primitives, DiffieHellmanAgrees) {
  SeededRandom random(DrawSeed());
  for (int round = 0; round < 20; ++round) {
    const PrivateKey a = PrivateKey::Generate(random), b = PrivateKey::Generate(random);
    SecretArray<32> ab, ba;
    ASSERT_TRUE(X25519(a, b.ComputePublicKey(), ab));
    ASSERT_TRUE(X25519(b, a.ComputePublicKey(), ba));
    EXPECT_EQ(ab, ba);
    EXPECT_FALSE(ab.is_zero());
  }
}

// The seven points of small order, with the high bit clear and set (RFC 7748 ignores it).
TEST_F(Primitives, SmallOrderPointsGiveNoSharedSecret_CONF17) {
  SeededRandom random(1);
  const PrivateKey key = PrivateKey::Generate(random);
  const std::string points[] = {
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000000",
      "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
      "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  };
  for (const std::string& hex : points) {
    for (const std::uint8_t high_bit : {std::uint8_t{0}, std::uint8_t{0x80}}) {
      PublicKey point;
      std::ranges::copy(FromHex(hex), point.bytes.begin());
      point.bytes[31] = static_cast<std::uint8_t>(point.bytes[31] | high_bit);
      SecretArray<32> shared(Ascending(32, 1));
      EXPECT_FALSE(X25519(key, point, shared)) << hex;
      EXPECT_TRUE(shared.is_zero()) << hex;
    }
  }
}

TEST_F(Primitives, HandshakeNonceIsFourZerosThenTheCounterAndTheHashIsAuthenticated_CONF10) {
  const auto key = Ascending(32), hash = Ascending(32, 50), plaintext = Ascending(12, 7);
  const auto reference = [&](const std::string& nonce) {
    std::vector<std::uint8_t> out(plaintext.size() + kTagBytes);
    crypto_aead_chacha20poly1305_ietf_encrypt(out.data(), nullptr, plaintext.data(), plaintext.size(), hash.data(),
                                              hash.size(), nullptr, FromHex(nonce).data(), key.data());
    return out;
  };
  std::vector<std::uint8_t> sealed(plaintext.size() + kTagBytes), opened(plaintext.size(), 0xAA);
  SealHandshake(key, 0x0102030405060708, hash, plaintext, sealed);
  EXPECT_EQ(sealed, reference("000000000807060504030201"));
  SealHandshake(key, 0, hash, plaintext, sealed);
  EXPECT_EQ(sealed, reference("000000000000000000000000"));

  EXPECT_TRUE(OpenHandshake(key, 0, hash, sealed, opened));
  EXPECT_EQ(opened, plaintext);
  EXPECT_FALSE(OpenHandshake(key, 1, hash, sealed, opened));
  EXPECT_EQ(opened, std::vector<std::uint8_t>(plaintext.size(), 0));
  EXPECT_FALSE(OpenHandshake(key, 0, Bytes(hash).first(31), sealed, opened));
  for (std::size_t bit = 0; bit < 8 * sealed.size(); ++bit) {
    auto forged = sealed;
    forged[bit / 8] = static_cast<std::uint8_t>(forged[bit / 8] ^ (1 << bit % 8));
    EXPECT_FALSE(OpenHandshake(key, 0, hash, forged, opened)) << "bit " << bit;
  }
}

TEST_F(Primitives, EmptyPlaintextHasATagOfItsOwn) {
  const auto key = Ascending(32), hash = Ascending(32, 50);
  ByteArray<kTagBytes> tag;
  SealHandshake(key, 0, hash, {}, tag);
  EXPECT_TRUE(OpenHandshake(key, 0, hash, tag, {}));
  tag[15] ^= 1;
  EXPECT_FALSE(OpenHandshake(key, 0, hash, tag, {}));
}

TEST_F(Primitives, SystemRandomFillsAllOfTheBuffer) {
  SystemRandom random;
  ByteArray<64> seen{};
  // Each byte stays zero in one draw with probability 1/256; in 32 draws with 2^-256.
  for (int i = 0; i < 32; ++i) {
    ByteArray<64> drawn{};
    random.Fill(drawn);
    for (std::size_t j = 0; j < drawn.size(); ++j) seen[j] = static_cast<std::uint8_t>(seen[j] | drawn[j]);
  }
  EXPECT_TRUE(std::ranges::none_of(seen, [](std::uint8_t byte) { return byte == 0; }));
  EXPECT_NE(random.NextU32() | std::uint64_t{random.NextU32()} << 32,
            random.NextU32() | std::uint64_t{random.NextU32()} << 32);
}

}  // namespace
}  // namespace adit
