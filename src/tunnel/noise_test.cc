#include "tunnel/noise.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "crypto/test_support.h"

namespace adit {
namespace {

constexpr Instant kStart = Instant(1000s);
constexpr WallTime kWall{.seconds = 1'700'000'000, .nanoseconds = 123'456'789};

// The points of small order: a Diffie-Hellman result with one of them is zero, whatever the private key.
constexpr const char* kLowOrderPoints[] = {
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
};

PublicKey PublicFromHex(std::string_view hex) {
  PublicKey key;
  std::ranges::copy(FromHex(hex), key.bytes.begin());
  return key;
}

// The one ephemeral that is asked for.
class FixedRandom final : public Random {
 public:
  explicit FixedRandom(std::string_view hex) : bytes_(FromHex(hex)) {}
  void Fill(MutableBytes out) override {
    CHECK(out.size() == bytes_.size());
    std::ranges::copy(bytes_, out.begin());
  }

 private:
  std::vector<std::uint8_t> bytes_;
};

// The obvious handshake: Noise's pattern written out with the primitives, no state machine and no checks. Lets a test
// make messages that the product would never make.
struct NaiveNoise {
  SecretArray<32> ck, h, key;

  explicit NaiveNoise(const PublicKey& responder) {
    const std::string construction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s", id = "WireGuard v1 zx2c4 Jason@zx2c4.com";
    ck = SecretArray<32>(Blake2s({Text(construction)}));
    h = SecretArray<32>(Blake2s({Blake2s({ck, Text(id)}), responder.bytes}));
  }
  static Bytes Text(const std::string& text) {
    return Bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
  }
  void E(const PublicKey& ephemeral) {
    h = SecretArray<32>(Blake2s({h, ephemeral.bytes}));
    Kdf1(ck, ephemeral.bytes, ck);
  }
  void Dh(const PrivateKey& ours, const PublicKey& theirs) {
    SecretArray<32> shared;
    (void)X25519(ours, theirs, shared);  // zero is as good as any other
    Kdf2(ck, shared, ck, key);
  }
  void Psk(const PresharedKey& psk) {
    SecretArray<32> t;
    Kdf3(ck, psk, ck, t, key);
    h = SecretArray<32>(Blake2s({h, t}));
  }
  void Payload(Bytes plaintext, MutableBytes out) {
    SealHandshake(key, 0, h, plaintext, out);
    h = SecretArray<32>(Blake2s({h, out}));
  }
};

struct Party {
  explicit Party(const PrivateKey& key) : identity(key) {}
  StaticIdentity identity;
  std::optional<Handshake> handshake;
};

class NoiseTest : public testing::Test {
 protected:
  NoiseTest() : alice_((InitializeCrypto(), PrivateKey::Generate(random_))), bob_(PrivateKey::Generate(random_)) {
    alice_.handshake.emplace(alice_.identity, bob_.identity.public_key(), limits_);
    bob_.handshake.emplace(bob_.identity, alice_.identity.public_key(), limits_);
  }

  InitiationMessage Initiate(WallTime wall = kWall, std::uint32_t index = 1) {
    InitiationMessage message;
    EXPECT_TRUE(alice_.handshake->CreateInitiation(index, wall, random_, message));
    return message;
  }
  InitiationVerdict Consume(const InitiationMessage& message, Instant now = kStart) {
    const auto opened = OpenInitiation(bob_.identity, message);
    return opened ? bob_.handshake->ConsumeInitiation(*opened, now) : InitiationVerdict::kInvalid;
  }
  ResponseMessage Respond(std::uint32_t index = 2) {
    ResponseMessage message;
    EXPECT_TRUE(bob_.handshake->CreateResponse(index, random_, message));
    return message;
  }
  // From a consumed initiation on: true if both get the same keys.
  bool Finish() {
    const auto bobs_response = Respond();
    const auto bobs = bob_.handshake->BeginSession();
    if (!alice_.handshake->ConsumeResponse(bobs_response)) return false;
    const auto alices = alice_.handshake->BeginSession();
    return alices && bobs && alices->send == bobs->receive && alices->receive == bobs->send;
  }

  SeededRandom random_{7};
  ProtocolLimits limits_;
  Party alice_;
  Party bob_;
};

WallTime Later(int milliseconds) {
  WallTime time = kWall;
  const auto total = kWall.nanoseconds + std::int64_t{milliseconds} * 1'000'000;
  time.seconds += total / 1'000'000'000;
  time.nanoseconds = static_cast<std::uint32_t>(total % 1'000'000'000);
  return time;
}

TEST_F(NoiseTest, GivesBothSidesTheSameKeysMirrored_CONF14) {
  const auto initiation = Initiate(kWall, 11);
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kCreatedInitiation);
  EXPECT_EQ(alice_.handshake->local_index(), 11u);
  ASSERT_EQ(Consume(initiation), InitiationVerdict::kConsumed);
  EXPECT_EQ(bob_.handshake->state(), HandshakeState::kConsumedInitiation);
  const auto response = Respond(22);
  EXPECT_EQ(bob_.handshake->state(), HandshakeState::kCreatedResponse);
  EXPECT_EQ(bob_.handshake->local_index(), 22u);
  ASSERT_TRUE(alice_.handshake->ConsumeResponse(response));
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kConsumedResponse);

  const auto alices = alice_.handshake->BeginSession();
  const auto bobs = bob_.handshake->BeginSession();
  ASSERT_TRUE(alices && bobs);
  EXPECT_TRUE(alices->is_initiator);
  EXPECT_FALSE(bobs->is_initiator);
  EXPECT_TRUE(alices->send == bobs->receive);
  EXPECT_TRUE(alices->receive == bobs->send);
  EXPECT_FALSE(alices->send == alices->receive);
  EXPECT_EQ(alices->local_index, 11u);
  EXPECT_EQ(alices->remote_index, 22u);
  EXPECT_EQ(bobs->local_index, 22u);
  EXPECT_EQ(bobs->remote_index, 11u);
}

TEST_F(NoiseTest, NamesThePeerBeforeItIsProved) {
  const auto opened = OpenInitiation(bob_.identity, Initiate());
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->remote_static, alice_.identity.public_key());
}

TEST_F(NoiseTest, CannotBeOpenedBySomebodyElse) {
  const StaticIdentity eve(PrivateKey::Generate(random_));
  EXPECT_FALSE(OpenInitiation(eve, Initiate()));
  EXPECT_FALSE(OpenInitiation(StaticIdentity(), Initiate()));
}

TEST_F(NoiseTest, IsNotConsumedByAnotherPeersHandshake) {
  const auto carol = PrivateKey::Generate(random_).ComputePublicKey();
  Handshake with_carol(bob_.identity, carol, limits_);
  const auto opened = OpenInitiation(bob_.identity, Initiate());
  ASSERT_TRUE(opened);
  EXPECT_EQ(with_carol.ConsumeInitiation(*opened, kStart), InitiationVerdict::kInvalid);
  EXPECT_EQ(with_carol.state(), HandshakeState::kZeroed);
}

// Who knows both public keys can claim to be Alice up to here; the static-static secret he does not have.
TEST_F(NoiseTest, RefusesAnInitiationInAnothersName) {
  const auto eve = PrivateKey::Generate(random_);
  InitiationMessage forged;
  forged.type = 1;
  const PrivateKey ephemeral = PrivateKey::Generate(random_);
  forged.ephemeral = ephemeral.ComputePublicKey().bytes;
  NaiveNoise noise(bob_.identity.public_key());
  noise.E(ephemeral.ComputePublicKey());
  noise.Dh(ephemeral, bob_.identity.public_key());
  noise.Payload(alice_.identity.public_key().bytes, forged.encrypted_static);
  noise.Dh(eve, bob_.identity.public_key());
  noise.Payload(ToTai64n(kWall).bytes, forged.encrypted_timestamp);
  ASSERT_TRUE(OpenInitiation(bob_.identity, forged));
  EXPECT_EQ(Consume(forged), InitiationVerdict::kInvalid);
  EXPECT_EQ(bob_.handshake->state(), HandshakeState::kZeroed);
}

TEST_F(NoiseTest, RefusesEveryAlteredBitOfAnInitiation) {
  const auto initiation = Initiate();
  const std::size_t end = offsetof(InitiationMessage, mac1);
  for (std::size_t byte = offsetof(InitiationMessage, ephemeral); byte < end; ++byte) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      // X25519 ignores the highest bit of a point, but the hash covers it.
      auto altered = initiation;
      MutableBytesOf(altered)[byte] ^= static_cast<std::uint8_t>(1u << bit);
      ASSERT_EQ(Consume(altered), InitiationVerdict::kInvalid) << byte << "." << bit;
    }
  }
  EXPECT_EQ(Consume(initiation), InitiationVerdict::kConsumed);
}

TEST_F(NoiseTest, SurvivesEveryAlteredResponse_CONF53) {
  ASSERT_EQ(Consume(Initiate()), InitiationVerdict::kConsumed);
  const auto response = Respond();
  const std::size_t end = offsetof(ResponseMessage, mac1);
  for (std::size_t byte = offsetof(ResponseMessage, receiver_index); byte < end; ++byte) {
    for (unsigned bit = 0; bit < 8; ++bit) {
      auto altered = response;
      MutableBytesOf(altered)[byte] ^= static_cast<std::uint8_t>(1u << bit);
      ASSERT_FALSE(alice_.handshake->ConsumeResponse(altered)) << byte << "." << bit;
      ASSERT_EQ(alice_.handshake->state(), HandshakeState::kCreatedInitiation);
    }
  }
  EXPECT_TRUE(alice_.handshake->ConsumeResponse(response));
}

TEST_F(NoiseTest, TakesAResponseInOneStateOnly_CONF53) {
  ASSERT_EQ(Consume(Initiate()), InitiationVerdict::kConsumed);
  const auto response = Respond();

  Handshake fresh(alice_.identity, bob_.identity.public_key(), limits_);
  EXPECT_FALSE(fresh.ConsumeResponse(response));
  EXPECT_FALSE(bob_.handshake->ConsumeResponse(response));

  ASSERT_TRUE(alice_.handshake->ConsumeResponse(response));
  EXPECT_FALSE(alice_.handshake->ConsumeResponse(response));
  ASSERT_TRUE(alice_.handshake->BeginSession());
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kZeroed);
  EXPECT_FALSE(alice_.handshake->ConsumeResponse(response));
  EXPECT_FALSE(alice_.handshake->BeginSession());
}

// Without a handshake every secret of it is zero and its index too, so that anyone could compute a response to it.
TEST_F(NoiseTest, TakesNoResponseMadeForAHandshakeThatIsNotThere_CONF53) {
  const PrivateKey eves = PrivateKey(Bytes(Ascending(32, 1))).Clamped();
  const PrivateKey no_ephemeral;
  ResponseMessage forged;
  forged.type = 2;
  forged.sender_index = 66;
  forged.receiver_index = 0;
  forged.ephemeral = eves.ComputePublicKey().bytes;
  NaiveNoise noise(bob_.identity.public_key());
  noise.ck.Wipe();
  noise.h.Wipe();
  noise.E(eves.ComputePublicKey());
  noise.Dh(no_ephemeral, eves.ComputePublicKey());
  noise.Dh(eves, alice_.identity.public_key());
  noise.Psk(PresharedKey());
  noise.Payload({}, forged.encrypted_nothing);
  EXPECT_FALSE(alice_.handshake->ConsumeResponse(forged));
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kZeroed);
}

TEST_F(NoiseTest, TakesNoResponseToAnEarlierInitiation_CONF53) {
  ASSERT_EQ(Consume(Initiate(kWall, 1)), InitiationVerdict::kConsumed);
  const auto response = Respond();
  Initiate(Later(5000), 1);  // even under the same index
  EXPECT_FALSE(alice_.handshake->ConsumeResponse(response));
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kCreatedInitiation);
}

TEST_F(NoiseTest, BeginsASessionFromAFinishedHandshakeOnly) {
  EXPECT_FALSE(bob_.handshake->BeginSession());
  const auto initiation = Initiate();
  EXPECT_FALSE(alice_.handshake->BeginSession());
  ASSERT_EQ(Consume(initiation), InitiationVerdict::kConsumed);
  EXPECT_FALSE(bob_.handshake->BeginSession());
  EXPECT_EQ(bob_.handshake->state(), HandshakeState::kConsumedInitiation);
}

TEST_F(NoiseTest, RespondsToAConsumedInitiationOnly) {
  ResponseMessage message;
  EXPECT_FALSE(bob_.handshake->CreateResponse(5, random_, message));
  Initiate();
  EXPECT_FALSE(alice_.handshake->CreateResponse(5, random_, message));
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kCreatedInitiation);
}

TEST_F(NoiseTest, UsesAFreshEphemeralEachTime) {
  const auto first = Initiate();
  const auto second = Initiate(Later(5000), 9);
  EXPECT_NE(first.ephemeral, second.ephemeral);
  EXPECT_EQ(second.sender_index, 9u);
}

TEST_F(NoiseTest, RefusesAnInitiationTwice_CONF60) {
  const auto initiation = Initiate();
  EXPECT_EQ(Consume(initiation, kStart), InitiationVerdict::kConsumed);
  EXPECT_EQ(Consume(initiation, kStart + 10s), InitiationVerdict::kReplayed);
  EXPECT_EQ(bob_.handshake->state(), HandshakeState::kConsumedInitiation);
}

TEST_F(NoiseTest, RefusesAnEarlierInitiationAfterALaterOne_CONF60) {
  const auto earlier = Initiate(kWall);
  const auto later = Initiate(Later(5000));
  EXPECT_EQ(Consume(later, kStart), InitiationVerdict::kConsumed);
  EXPECT_EQ(Consume(earlier, kStart + 10s), InitiationVerdict::kReplayed);
}

TEST_F(NoiseTest, RefusesTheSameStampFromAFreshHandshake_CONF60) {
  ASSERT_EQ(Consume(Initiate()), InitiationVerdict::kConsumed);
  Handshake restarted(alice_.identity, bob_.identity.public_key(), limits_);
  InitiationMessage message;
  ASSERT_TRUE(restarted.CreateInitiation(1, kWall, random_, message));
  EXPECT_EQ(Consume(message, kStart + 1s), InitiationVerdict::kReplayed);
  ASSERT_TRUE(restarted.CreateInitiation(1, Later(17), random_, message));  // one step of the stamp
  EXPECT_EQ(Consume(message, kStart + 1s), InitiationVerdict::kConsumed);
}

TEST_F(NoiseTest, RemembersTheStampBeyondTheHandshake_CONF60) {
  const auto initiation = Initiate();
  ASSERT_EQ(Consume(initiation), InitiationVerdict::kConsumed);
  ASSERT_TRUE(Finish());
  EXPECT_EQ(Consume(initiation, kStart + 200s), InitiationVerdict::kReplayed);
  bob_.handshake->Clear();
  EXPECT_EQ(Consume(initiation, kStart + 600s), InitiationVerdict::kReplayed);
}

TEST_F(NoiseTest, TakesInitiations20MillisecondsApart_CONF29_CONF60) {
  ASSERT_EQ(Consume(Initiate(kWall), kStart), InitiationVerdict::kConsumed);
  const auto second = Initiate(Later(1000));
  EXPECT_EQ(Consume(second, kStart + 20ms - 1ns), InitiationVerdict::kTooFrequent);
  // What was refused did not count as the last one, and its stamp was not stored.
  EXPECT_EQ(Consume(second, kStart + 20ms), InitiationVerdict::kConsumed);
}

TEST_F(NoiseTest, JudgesStampAndRateAfterTheProofOnly_CONF60) {
  ASSERT_EQ(Consume(Initiate(kWall), kStart), InitiationVerdict::kConsumed);
  // A forgery with a greater stamp, and in the same instant: refused as a forgery, and it leaves nothing behind.
  auto forged = Initiate(Later(3'600'000));
  forged.encrypted_timestamp[0] ^= 1;
  EXPECT_EQ(Consume(forged, kStart + 30ms), InitiationVerdict::kInvalid);
  EXPECT_EQ(Consume(Initiate(Later(3'600'001)), kStart + 31ms), InitiationVerdict::kConsumed);
}

TEST_F(NoiseTest, StampsRiseAlsoWhenTheClockIsSetBack) {
  ASSERT_EQ(Consume(Initiate(kWall), kStart), InitiationVerdict::kConsumed);
  const WallTime yesterday{.seconds = kWall.seconds - 86'400, .nanoseconds = 0};
  for (int i = 1; i <= 100; ++i) {
    ASSERT_EQ(Consume(Initiate(yesterday), kStart + i * 5s), InitiationVerdict::kConsumed) << i;
  }
}

TEST_F(NoiseTest, MixesThePresharedKeyAndFailsSilentlyOnAMismatch_CONF13) {
  const PresharedKey key(Bytes(Ascending(32, 1)));
  bob_.handshake->SetPresharedKey(key);
  ASSERT_EQ(Consume(Initiate()), InitiationVerdict::kConsumed);  // the key comes in with the response only
  EXPECT_FALSE(alice_.handshake->ConsumeResponse(Respond()));
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kCreatedInitiation);

  alice_.handshake->SetPresharedKey(key);
  ASSERT_EQ(Consume(Initiate(Later(5000)), kStart + 5s), InitiationVerdict::kConsumed);
  EXPECT_TRUE(Finish());
}

TEST_F(NoiseTest, TakesZerosForNoPresharedKey_CONF13) {
  bob_.handshake->SetPresharedKey(PresharedKey());
  ASSERT_EQ(Consume(Initiate()), InitiationVerdict::kConsumed);
  EXPECT_TRUE(Finish());
}

TEST_F(NoiseTest, KeepsTheHandshakeUnderWayWhenThePresharedKeyChanges_CONF56) {
  const PresharedKey key(Bytes(Ascending(32, 1)));
  const auto initiation = Initiate();
  alice_.handshake->SetPresharedKey(key);
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kCreatedInitiation);
  bob_.handshake->SetPresharedKey(key);
  ASSERT_EQ(Consume(initiation), InitiationVerdict::kConsumed);
  EXPECT_TRUE(Finish());

  // And back to none, which is another key.
  alice_.handshake->SetPresharedKey(PresharedKey());
  ASSERT_EQ(Consume(Initiate(Later(5000)), kStart + 5s), InitiationVerdict::kConsumed);
  EXPECT_FALSE(Finish());
}

TEST_F(NoiseTest, HasNoHandshakeWithAKeyOfLowOrder_CONF17_CONF18) {
  for (const char* const point : kLowOrderPoints) {
    Handshake handshake(alice_.identity, PublicFromHex(point), limits_);
    EXPECT_FALSE(handshake.is_possible()) << point;
    InitiationMessage message;
    EXPECT_FALSE(handshake.CreateInitiation(1, kWall, random_, message)) << point;
    EXPECT_EQ(handshake.state(), HandshakeState::kZeroed);
  }
  EXPECT_TRUE(alice_.handshake->is_possible());
}

TEST_F(NoiseTest, AcceptsNoInitiationFromAKeyOfLowOrder_CONF17_CONF18) {
  for (const char* const point : kLowOrderPoints) {
    const PublicKey low = PublicFromHex(point);
    Handshake handshake(bob_.identity, low, limits_);
    // Anyone can compute the static-static secret with such a key: it is zero.
    InitiationMessage message;
    const PrivateKey ephemeral = PrivateKey::Generate(random_);
    message.ephemeral = ephemeral.ComputePublicKey().bytes;
    NaiveNoise noise(bob_.identity.public_key());
    noise.E(ephemeral.ComputePublicKey());
    noise.Dh(ephemeral, bob_.identity.public_key());
    noise.Payload(low.bytes, message.encrypted_static);
    noise.Dh(bob_.identity.private_key(), low);
    noise.Payload(ToTai64n(kWall).bytes, message.encrypted_timestamp);
    const auto opened = OpenInitiation(bob_.identity, message);
    ASSERT_TRUE(opened) << point;
    EXPECT_EQ(handshake.ConsumeInitiation(*opened, kStart), InitiationVerdict::kInvalid) << point;
  }
}

// Correct in every other way, so that nothing but the zero test refuses it.
TEST_F(NoiseTest, AbortsOnAnInitiationWhoseEphemeralIsOfLowOrder_CONF17) {
  for (const char* const point : kLowOrderPoints) {
    const PublicKey low = PublicFromHex(point);
    InitiationMessage message;
    message.ephemeral = low.bytes;
    NaiveNoise noise(bob_.identity.public_key());
    noise.E(low);
    noise.Dh(bob_.identity.private_key(), low);
    noise.Payload(alice_.identity.public_key().bytes, message.encrypted_static);
    EXPECT_FALSE(OpenInitiation(bob_.identity, message)) << point;
  }
}

TEST_F(NoiseTest, AbortsOnAResponseWhoseEphemeralIsOfLowOrder_CONF17) {
  const std::string alices_ephemeral = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
  const PrivateKey ephemeral = PrivateKey(Bytes(FromHex(alices_ephemeral))).Clamped();
  FixedRandom random(alices_ephemeral);
  InitiationMessage initiation;
  ASSERT_TRUE(alice_.handshake->CreateInitiation(1, kWall, random, initiation));

  const auto forge = [&](const PublicKey& responder_ephemeral) {
    NaiveNoise noise(bob_.identity.public_key());
    ByteArray<48> sealed_static;
    ByteArray<28> sealed_stamp;
    noise.E(ephemeral.ComputePublicKey());
    noise.Dh(ephemeral, bob_.identity.public_key());
    noise.Payload(alice_.identity.public_key().bytes, sealed_static);
    noise.Dh(alice_.identity.private_key(), bob_.identity.public_key());
    noise.Payload(ToTai64n(kWall).bytes, sealed_stamp);
    EXPECT_EQ(sealed_static, initiation.encrypted_static);
    EXPECT_EQ(sealed_stamp, initiation.encrypted_timestamp);
    ResponseMessage response;
    response.type = 2;
    response.sender_index = 2;
    response.receiver_index = 1;
    response.ephemeral = responder_ephemeral.bytes;
    noise.E(responder_ephemeral);
    noise.Dh(ephemeral, responder_ephemeral);
    noise.Dh(alice_.identity.private_key(), responder_ephemeral);
    noise.Psk(PresharedKey());
    noise.Payload({}, response.encrypted_nothing);
    return response;
  };
  for (const char* const point : kLowOrderPoints) {
    EXPECT_FALSE(alice_.handshake->ConsumeResponse(forge(PublicFromHex(point)))) << point;
    EXPECT_EQ(alice_.handshake->state(), HandshakeState::kCreatedInitiation);
  }
  // The same forgery with an honest point is taken: it was the point that was refused.
  EXPECT_TRUE(alice_.handshake->ConsumeResponse(forge(PrivateKey::Generate(random_).ComputePublicKey())));
}

TEST_F(NoiseTest, DropsTheHandshakeWhenTheIdentityChanges) {
  const auto initiation = Initiate();
  ASSERT_EQ(Consume(initiation), InitiationVerdict::kConsumed);
  const auto response = Respond();
  alice_.identity = StaticIdentity(PrivateKey::Generate(random_));
  alice_.handshake->OnIdentityChanged();
  EXPECT_EQ(alice_.handshake->state(), HandshakeState::kZeroed);
  EXPECT_FALSE(alice_.handshake->ConsumeResponse(response));

  Handshake with_new_alice(bob_.identity, alice_.identity.public_key(), limits_);
  const auto opened = OpenInitiation(bob_.identity, Initiate(Later(5000)));
  ASSERT_TRUE(opened);
  EXPECT_EQ(opened->remote_static, alice_.identity.public_key());
  EXPECT_EQ(with_new_alice.ConsumeInitiation(*opened, kStart), InitiationVerdict::kConsumed);

  alice_.identity = StaticIdentity();
  alice_.handshake->OnIdentityChanged();
  EXPECT_FALSE(alice_.handshake->is_possible());
}

TEST_F(NoiseTest, ForgetsItsSecretsWithTheHandshake_CONF53) {
  const std::string hex = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
  const auto clamped = PrivateKey(Bytes(FromHex(hex))).Clamped();
  const auto knows_ephemeral = [&] {
    const auto* const begin = reinterpret_cast<const std::uint8_t*>(&*alice_.handshake);
    const Bytes memory(begin, sizeof(Handshake));
    return !std::ranges::search(memory, clamped.bytes()).empty();
  };
  FixedRandom random(hex);
  InitiationMessage initiation;
  ASSERT_TRUE(alice_.handshake->CreateInitiation(1, kWall, random, initiation));
  EXPECT_TRUE(knows_ephemeral());
  ASSERT_EQ(Consume(initiation), InitiationVerdict::kConsumed);
  ASSERT_TRUE(alice_.handshake->ConsumeResponse(Respond()));
  ASSERT_TRUE(alice_.handshake->BeginSession());
  EXPECT_FALSE(knows_ephemeral());

  ASSERT_TRUE(alice_.handshake->CreateInitiation(1, Later(5000), random, initiation));
  EXPECT_TRUE(knows_ephemeral());
  alice_.handshake->Clear();
  EXPECT_FALSE(knows_ephemeral());
}

// A whole handshake with frozen keys and clock. The bytes were not made by this code: an independent implementation in
// Python (hashlib's BLAKE2s, hmac, python-cryptography's X25519 and ChaCha20-Poly1305), written from the Noise
// specification, first reproduced the Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s entry of the public cacophony vectors (both
// handshake messages and the first transport message each way), then produced these with the same keys and WireGuard's
// prologue and payloads. The wall clock stood at 1,700,000,000.123456789; indices 0x11223344 and 0xaabbccdd.
struct HandshakeVector {
  const char* psk;
  const char* response;
  const char* initiator_sends;
  const char* responder_sends;
};

constexpr const char* kInitiatorStatic = "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1";
constexpr const char* kInitiatorEphemeral = "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a";
constexpr const char* kResponderStatic = "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893";
constexpr const char* kResponderEphemeral = "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b";
// Up to mac1; mac1 and mac2 are cookie_test.cc's.
constexpr const char* kInitiation =
    "0100000044332211ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c7944001e21de9f98ddd8e2ad57527207feb562"
    "53c9c94a9e496782ecfcb2a75fbcaf752d6cf9956f6a4cc1a138d6de1e87238cbd2c462d6bf53d83c83619f17d594245e4f5662001d36718f4"
    "2ca3";

constexpr HandshakeVector kWithPsk = {
    .psk = "54686973206973206d7920417573747269616e20706572737065637469766521",
    .response =
        "02000000ddccbbaa4433221195ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f1448088437e1b5d3dba46fc"
        "4404925471bf44b966",
    .initiator_sends = "7a74d0adaa1882492a8eddc15272b5a5a230e111d86d430a5988596f2c4238ae",
    .responder_sends = "4dd78ec86daaa1034639ed326df9afecc3c47a881689e2a9f37a5e55a8131a2d",
};
constexpr HandshakeVector kWithoutPsk = {
    .psk = "0000000000000000000000000000000000000000000000000000000000000000",
    .response =
        "02000000ddccbbaa4433221195ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f14480884393f39e3a56693f"
        "3117703de061ca2041",
    .initiator_sends = "550e7ad836268eab13001e66b363ea04143f2912f4a5c863075546a513ae6740",
    .responder_sends = "fbd57e11a93044ea22da83105401d052396bcb009e59c445f63a82e8dac4e704",
};

void ExpectVector(const HandshakeVector& vector) {
  InitializeCrypto();
  const ProtocolLimits limits;
  const StaticIdentity initiator_identity{PrivateKey(Bytes(FromHex(kInitiatorStatic)))};
  const StaticIdentity responder_identity{PrivateKey(Bytes(FromHex(kResponderStatic)))};
  Handshake initiator(initiator_identity, responder_identity.public_key(), limits);
  Handshake responder(responder_identity, initiator_identity.public_key(), limits);
  initiator.SetPresharedKey(PresharedKey(Bytes(FromHex(vector.psk))));
  responder.SetPresharedKey(PresharedKey(Bytes(FromHex(vector.psk))));

  FixedRandom initiator_random(kInitiatorEphemeral);
  InitiationMessage initiation;
  ASSERT_TRUE(initiator.CreateInitiation(0x11223344, kWall, initiator_random, initiation));
  EXPECT_EQ(ToHex(BytesOf(initiation).first(116)), kInitiation);

  const auto opened = OpenInitiation(responder_identity, initiation);
  ASSERT_TRUE(opened);
  ASSERT_EQ(responder.ConsumeInitiation(*opened, kStart), InitiationVerdict::kConsumed);
  FixedRandom responder_random(kResponderEphemeral);
  ResponseMessage response;
  ASSERT_TRUE(responder.CreateResponse(0xaabbccdd, responder_random, response));
  EXPECT_EQ(ToHex(BytesOf(response).first(60)), vector.response);
  ASSERT_TRUE(initiator.ConsumeResponse(response));

  const auto initiators = initiator.BeginSession();
  const auto responders = responder.BeginSession();
  ASSERT_TRUE(initiators && responders);
  EXPECT_EQ(ToHex(initiators->send), vector.initiator_sends);
  EXPECT_EQ(ToHex(initiators->receive), vector.responder_sends);
  EXPECT_EQ(ToHex(responders->send), vector.responder_sends);
  EXPECT_EQ(ToHex(responders->receive), vector.initiator_sends);
}

TEST(HandshakeVector, WithPresharedKeyHoldsByteForByte_CONF1_CONF2_CONF10_CONF11_CONF12_CONF14) {
  ExpectVector(kWithPsk);
}
TEST(HandshakeVector, WithoutPresharedKeyHoldsByteForByte_CONF1_CONF2_CONF12_CONF13_CONF14) {
  ExpectVector(kWithoutPsk);
}

}  // namespace
}  // namespace adit
