#include "tunnel/noise.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"

namespace adit {
namespace {

constexpr std::string_view kConstruction = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
constexpr std::string_view kIdentifier = "WireGuard v1 zx2c4 Jason@zx2c4.com";
static_assert(kConstruction.size() == 37 && kIdentifier.size() == 34);

Bytes BytesOfText(std::string_view text) {
  return Bytes(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
}

// The running state of Noise's symmetric part: C and H of the paper's 5.4, and the key of the last mixing.
struct Symmetric {
  SecretArray<kHashBytes> chaining_key;
  SecretArray<kHashBytes> hash;
  SecretArray<kKeyBytes> key;

  // C = HASH(CONSTRUCTION), H = HASH(HASH(C || IDENTIFIER) || S_responder)
  static Symmetric Start(const PublicKey& responder) {
    static const Hash initial_chaining_key = Blake2s({BytesOfText(kConstruction)});
    static const Hash initial_hash = Blake2s({initial_chaining_key, BytesOfText(kIdentifier)});
    Symmetric noise;
    noise.chaining_key = SecretArray<kHashBytes>(initial_chaining_key);
    noise.hash = SecretArray<kHashBytes>(initial_hash);
    noise.MixHash(responder.bytes);
    return noise;
  }

  void MixHash(Bytes data) {
    Hash mixed = Blake2s({hash, data});
    hash = SecretArray<kHashBytes>(mixed);
    sodium_memzero(mixed.data(), mixed.size());
  }

  // An ephemeral also goes into the chaining key, because of the preshared key (Noise, 9.2).
  void MixEphemeral(const PublicKey& ephemeral) {
    MixHash(ephemeral.bytes);
    Kdf1(chaining_key, ephemeral.bytes, chaining_key);
  }

  void MixSecret(const SecretArray<32>& shared) { Kdf2(chaining_key, shared, chaining_key, key); }

  // False if the result is all zeros: the other side's key contributes nothing.
  [[nodiscard]] bool MixDh(const PrivateKey& ours, const PublicKey& theirs) {
    SecretArray<32> shared;
    if (!X25519(ours, theirs, shared)) return false;
    MixSecret(shared);
    return true;
  }

  void MixPresharedKey(const PresharedKey& preshared_key) {
    SecretArray<kHashBytes> for_hash;
    Kdf3(chaining_key, preshared_key, chaining_key, for_hash, key);
    MixHash(for_hash);
  }

  void Seal(Bytes plaintext, MutableBytes sealed) {
    SealHandshake(key, 0, hash, plaintext, sealed);
    MixHash(sealed);
  }

  [[nodiscard]] bool Open(Bytes sealed, MutableBytes plaintext) {
    if (!OpenHandshake(key, 0, hash, sealed, plaintext)) return false;
    MixHash(sealed);
    return true;
  }
};

PublicKey KeyAt(const ByteArray<kKeyBytes>& bytes) { return PublicKey{.bytes = bytes}; }

}  // namespace

std::optional<OpenedInitiation> OpenInitiation(const StaticIdentity& identity, const InitiationMessage& message) {
  if (!identity.has_key()) return std::nullopt;
  OpenedInitiation opened;
  opened.remote_index = message.sender_index;
  opened.remote_ephemeral = KeyAt(message.ephemeral);
  opened.encrypted_timestamp = message.encrypted_timestamp;

  Symmetric noise = Symmetric::Start(identity.public_key());
  noise.MixEphemeral(opened.remote_ephemeral);                                                 // e
  if (!noise.MixDh(identity.private_key(), opened.remote_ephemeral)) return std::nullopt;      // es
  if (!noise.Open(message.encrypted_static, opened.remote_static.bytes)) return std::nullopt;  // s
  opened.hash = noise.hash;
  opened.chaining_key = noise.chaining_key;
  return opened;
}

Handshake::Handshake(const StaticIdentity& identity, const PublicKey& remote_static, const ProtocolLimits& limits)
    : identity_(&identity), limits_(&limits), remote_static_(remote_static) {
  OnIdentityChanged();
}

void Handshake::OnIdentityChanged() {
  Clear();
  static_static_.Wipe();
  // A result of zeros stays, and means that no handshake is possible.
  if (identity_->has_key() && !X25519(identity_->private_key(), remote_static_, static_static_)) static_static_.Wipe();
}

bool Handshake::CreateInitiation(std::uint32_t sender_index, WallTime wall_now, Random& random,
                                 InitiationMessage& message) {
  if (!is_possible()) return false;
  const PrivateKey ephemeral = PrivateKey::Generate(random);
  const Tai64n stamp = std::max(ToTai64n(wall_now), NextTai64n(latest_sent_));

  message = {};
  message.type = static_cast<std::uint32_t>(MessageType::kInitiation);
  message.sender_index = sender_index;
  message.ephemeral = ephemeral.ComputePublicKey().bytes;

  Symmetric noise = Symmetric::Start(remote_static_);
  noise.MixEphemeral(KeyAt(message.ephemeral));                         // e
  if (!noise.MixDh(ephemeral, remote_static_)) return false;            // es
  noise.Seal(identity_->public_key().bytes, message.encrypted_static);  // s
  noise.MixSecret(static_static_);                                      // ss
  noise.Seal(stamp.bytes, message.encrypted_timestamp);                 // {t}

  Clear();
  latest_sent_ = stamp;
  ephemeral_ = ephemeral;
  chaining_key_ = noise.chaining_key;
  hash_ = noise.hash;
  local_index_ = sender_index;
  state_ = HandshakeState::kCreatedInitiation;
  return true;
}

InitiationVerdict Handshake::ConsumeInitiation(const OpenedInitiation& initiation, Instant now) {
  if (!is_possible() || initiation.remote_static != remote_static_) return InitiationVerdict::kInvalid;
  Symmetric noise{.chaining_key = initiation.chaining_key, .hash = initiation.hash, .key = {}};
  noise.MixSecret(static_static_);  // ss
  Tai64n stamp;
  if (!noise.Open(initiation.encrypted_timestamp, stamp.bytes)) return InitiationVerdict::kInvalid;  // {t}

  if (stamp <= latest_received_) return InitiationVerdict::kReplayed;
  if (last_initiation_consumed_at_ && now - *last_initiation_consumed_at_ < limits_->min_initiation_interval) {
    return InitiationVerdict::kTooFrequent;
  }

  Clear();
  latest_received_ = stamp;
  last_initiation_consumed_at_ = now;
  remote_ephemeral_ = initiation.remote_ephemeral;
  remote_index_ = initiation.remote_index;
  chaining_key_ = noise.chaining_key;
  hash_ = noise.hash;
  state_ = HandshakeState::kConsumedInitiation;
  return InitiationVerdict::kConsumed;
}

bool Handshake::CreateResponse(std::uint32_t sender_index, Random& random, ResponseMessage& message) {
  if (state_ != HandshakeState::kConsumedInitiation) return false;
  const PrivateKey ephemeral = PrivateKey::Generate(random);

  message = {};
  message.type = static_cast<std::uint32_t>(MessageType::kResponse);
  message.sender_index = sender_index;
  message.receiver_index = remote_index_;
  message.ephemeral = ephemeral.ComputePublicKey().bytes;

  Symmetric noise{.chaining_key = chaining_key_, .hash = hash_, .key = {}};
  noise.MixEphemeral(KeyAt(message.ephemeral));                  // e
  if (!noise.MixDh(ephemeral, remote_ephemeral_)) return false;  // ee
  if (!noise.MixDh(ephemeral, remote_static_)) return false;     // se
  noise.MixPresharedKey(preshared_key_);                         // psk
  noise.Seal({}, message.encrypted_nothing);                     // {}

  ephemeral_ = ephemeral;
  chaining_key_ = noise.chaining_key;
  hash_ = noise.hash;
  local_index_ = sender_index;
  state_ = HandshakeState::kCreatedResponse;
  return true;
}

bool Handshake::ConsumeResponse(const ResponseMessage& message) {
  if (state_ != HandshakeState::kCreatedInitiation || message.receiver_index != local_index_) return false;
  const PublicKey remote_ephemeral = KeyAt(message.ephemeral);

  Symmetric noise{.chaining_key = chaining_key_, .hash = hash_, .key = {}};
  noise.MixEphemeral(remote_ephemeral);                                        // e
  if (!noise.MixDh(ephemeral_, remote_ephemeral)) return false;                // ee
  if (!noise.MixDh(identity_->private_key(), remote_ephemeral)) return false;  // se
  noise.MixPresharedKey(preshared_key_);                                       // psk
  if (!noise.Open(message.encrypted_nothing, {})) return false;                // {}

  remote_ephemeral_ = remote_ephemeral;
  remote_index_ = message.sender_index;
  chaining_key_ = noise.chaining_key;
  hash_ = noise.hash;
  state_ = HandshakeState::kConsumedResponse;
  return true;
}

std::optional<SessionKeys> Handshake::BeginSession() {
  const bool is_initiator = state_ == HandshakeState::kConsumedResponse;
  if (!is_initiator && state_ != HandshakeState::kCreatedResponse) return std::nullopt;

  SessionKeys keys;
  keys.local_index = local_index_;
  keys.remote_index = remote_index_;
  keys.is_initiator = is_initiator;
  if (is_initiator) {
    Kdf2(chaining_key_, {}, keys.send, keys.receive);
  } else {
    Kdf2(chaining_key_, {}, keys.receive, keys.send);
  }
  Clear();
  return keys;
}

void Handshake::Clear() {
  ephemeral_.Wipe();
  chaining_key_.Wipe();
  hash_.Wipe();
  remote_ephemeral_ = {};
  local_index_ = 0;
  remote_index_ = 0;
  state_ = HandshakeState::kZeroed;
}

}  // namespace adit
