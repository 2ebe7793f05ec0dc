#include "crypto/keys.h"

#include <gtest/gtest.h>

#include "crypto/primitives.h"

namespace adit {
namespace {

SecretArray<32> Key(std::string_view hex) {
  const auto key = ParseKeyHex(hex);
  EXPECT_TRUE(key.has_value()) << hex;
  return key.value_or(SecretArray<32>());
}

// RFC 7748, 6.1.
constexpr std::string_view kAlicePrivate = "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a";

class Keys : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitializeCrypto(); }
};

TEST_F(Keys, PrivateKeyFromOutsideIsClamped_CONF16) {
  PrivateKey key;
  std::ranges::fill(key.mutable_bytes(), std::uint8_t{0xFF});
  const PrivateKey clamped = key.Clamped();
  EXPECT_EQ(KeyToHex(clamped), "f8" + std::string(60, 'f') + "7f");
  std::ranges::fill(key.mutable_bytes(), std::uint8_t{0});
  key.data()[15] = 1;
  EXPECT_EQ(KeyToHex(key.Clamped()), std::string(30, '0') + "01" + std::string(30, '0') + "40");
  EXPECT_EQ(clamped.Clamped(), clamped);
}

TEST_F(Keys, GeneratedPrivateKeyIsClampedAndFollowsTheRandomness_CONF16) {
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    SeededRandom random(seed), again(seed), other(seed + 1000);
    const PrivateKey key = PrivateKey::Generate(random);
    EXPECT_EQ(key.data()[0] & 0x07, 0) << "seed " << seed;
    EXPECT_EQ(key.data()[31] & 0xC0, 0x40) << "seed " << seed;
    EXPECT_EQ(key, PrivateKey::Generate(again));
    EXPECT_FALSE(key == PrivateKey::Generate(other));
  }
}

TEST_F(Keys, NoKeyStaysNoKey) {
  const PrivateKey none;
  EXPECT_TRUE(none.Clamped().is_zero());
  EXPECT_EQ(none.ComputePublicKey(), PublicKey());
}

TEST_F(Keys, PublicKeyIsTheOneOfRfc7748) {
  const PrivateKey alice(Key(kAlicePrivate).bytes());
  EXPECT_EQ(KeyToHex(alice.ComputePublicKey().bytes),
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
  EXPECT_EQ(alice.ComputePublicKey(), alice.Clamped().ComputePublicKey());
}

TEST_F(Keys, TextFormsRoundTrip) {
  SeededRandom random(7);
  for (int i = 0; i < 200; ++i) {
    SecretArray<32> key;
    random.Fill(key.mutable_bytes());
    const auto from_hex = ParseKeyHex(KeyToHex(key));
    const auto from_base64 = ParseKeyBase64(KeyToBase64(key));
    ASSERT_TRUE(from_hex && from_base64);
    EXPECT_EQ(*from_hex, key);
    EXPECT_EQ(*from_base64, key);
    EXPECT_EQ(KeyToHex(key).size(), 64u);
    EXPECT_EQ(KeyToBase64(key).size(), 44u);
    EXPECT_EQ(ToPublicKey(key).bytes, ToPublicKey(*from_hex).bytes);
  }
  EXPECT_EQ(KeyToBase64(Key(kAlicePrivate)), "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=");
}

TEST_F(Keys, HexAcceptsEitherCaseAndNothingElse) {
  const std::string good(kAlicePrivate);
  std::string upper = good;
  for (char& c : upper) c = static_cast<char>(std::toupper(c));
  EXPECT_EQ(Key(upper), Key(good));
  EXPECT_FALSE(ParseKeyHex(""));
  EXPECT_FALSE(ParseKeyHex(good.substr(1)));
  EXPECT_FALSE(ParseKeyHex(good + "0"));
  EXPECT_FALSE(ParseKeyHex(good + "00"));
  EXPECT_FALSE(ParseKeyHex(good.substr(0, 62) + "0\n"));
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (const char bad : {'g', ' ', ':', '\0', '-', '/', '@', '`', '\x80'}) {
      std::string text = good;
      text[i] = bad;
      EXPECT_FALSE(ParseKeyHex(text)) << text;
    }
  }
}

TEST_F(Keys, Base64AcceptsOneCanonicalFormOnly) {
  const std::string good = "dwdtCnMYpX08FsFyUbJmRcbbJaKvisii2Na1uw+0taU=";
  ASSERT_TRUE(ParseKeyBase64(good));
  EXPECT_FALSE(ParseKeyBase64(""));
  EXPECT_FALSE(ParseKeyBase64(good.substr(0, 43)));
  EXPECT_FALSE(ParseKeyBase64(good + "="));
  EXPECT_FALSE(ParseKeyBase64(good.substr(0, 42) + "=="));                       // 31 bytes
  EXPECT_FALSE(ParseKeyBase64(good.substr(0, 43) + "A"));                        // 33 bytes
  EXPECT_FALSE(ParseKeyBase64(good.substr(0, 42) + "V="));                       // bits behind the last byte are set
  EXPECT_FALSE(ParseKeyBase64("dwdtCnMYpX08FsFyUbJmRcbbJaKvisii2Na1uw-0taU="));  // the URL alphabet
  // Every byte at every place: only the alphabet decodes, and the last digit carries two bits only.
  const std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (std::size_t i = 0; i < good.size(); ++i) {
    for (int byte = 0; byte < 256; ++byte) {
      std::string text = good;
      text[i] = static_cast<char>(byte);
      const std::size_t digit = alphabet.find(text[i]);
      const bool is_valid = i == 43   ? text[i] == '='
                            : i == 42 ? digit != alphabet.npos && digit % 4 == 0
                                      : digit != alphabet.npos;
      EXPECT_EQ(ParseKeyBase64(text).has_value(), is_valid) << "byte " << byte << " at " << i;
    }
  }
}

}  // namespace
}  // namespace adit
