// The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s in both roles (paper, 5.4.1 to 5.4.5).
//
//   initiator                                             responder
//   CreateInitiation  ── initiation: e, es, s, ss, {t} ─►  OpenInitiation, ConsumeInitiation
//   ConsumeResponse   ◄─ response: e, ee, se, psk, {} ──  CreateResponse
//   BeginSession                                          BeginSession
//
// mac1 and mac2 are cookie.h's: added after a message is created, checked before it comes here. Pure; control thread
// only. All secrets wipe themselves, and those of a handshake go as soon as the session is derived or on Clear().
#pragma once

#include <cstdint>
#include <optional>

#include "base/random.h"
#include "base/time.h"
#include "crypto/keys.h"
#include "crypto/primitives.h"
#include "tunnel/limits.h"
#include "tunnel/messages.h"
#include "tunnel/tai64n.h"

namespace adit {

// Who we are: one a device. All zeros: no key yet, and no handshake in either role.
class StaticIdentity {
 public:
  StaticIdentity() = default;
  // Clamps the key.
  explicit StaticIdentity(const PrivateKey& private_key)
      : private_key_(private_key.Clamped()), public_key_(private_key_.ComputePublicKey()) {}

  bool has_key() const { return !private_key_.is_zero(); }
  const PrivateKey& private_key() const { return private_key_; }
  const PublicKey& public_key() const { return public_key_; }

 private:
  PrivateKey private_key_;
  PublicKey public_key_;
};

// An initiation that was opened far enough to know who claims to have sent it. Nothing is proved yet: the sender's
// static key is authentic only once that peer's Handshake has consumed it.
struct OpenedInitiation {
  PublicKey remote_static;
  PublicKey remote_ephemeral;
  std::uint32_t remote_index = 0;
  ByteArray<kTimestampBytes + kTagBytes> encrypted_timestamp{};
  SecretArray<kHashBytes> hash;
  SecretArray<kHashBytes> chaining_key;
};

// Opens the part that only needs our own key; the caller then looks up the peer by remote_static. Costs one
// Diffie-Hellman. Empty if the message is not for us or was altered. REQUIRES: message.type is kInitiation.
std::optional<OpenedInitiation> OpenInitiation(const StaticIdentity& identity, const InitiationMessage& message);

// What both sides share when a handshake is done. `local_index` is the receiver index of what we get.
struct SessionKeys {
  SecretArray<kKeyBytes> send;
  SecretArray<kKeyBytes> receive;
  std::uint32_t local_index = 0;
  std::uint32_t remote_index = 0;
  bool is_initiator = false;
};

enum class HandshakeState {
  kZeroed,
  kCreatedInitiation,
  kConsumedInitiation,
  kCreatedResponse,
  kConsumedResponse,
};

enum class InitiationVerdict {
  kConsumed,
  kInvalid,      // not from the owner of that key, or we have no secret in common
  kReplayed,     // authentic, but not newer than the last one
  kTooFrequent,  // authentic and newer, but within kMinInitiationInterval of the last one
};

// The handshake with one peer. A function that fails leaves everything as it was, so a forged message cannot end a
// handshake that is under way.
class Handshake {
 public:
  // `identity` and `limits` outlive this. Costs one Diffie-Hellman.
  Handshake(const StaticIdentity& identity, const PublicKey& remote_static, const ProtocolLimits& limits);
  Handshake(const Handshake&) = delete;
  Handshake& operator=(const Handshake&) = delete;

  // Call after *identity was assigned a new key: recomputes what depends on it and drops the handshake under way.
  void OnIdentityChanged();
  // Counts from the next handshake on; one under way uses it too. Zeros: none (paper, 5.2).
  void SetPresharedKey(const PresharedKey& key) { preshared_key_ = key; }

  // False if we have no key, or if the peer's is of low order so that there is no shared secret: such a peer can be
  // configured, but no handshake is ever sent to it or accepted from it.
  bool is_possible() const { return !static_static_.is_zero(); }
  HandshakeState state() const { return state_; }
  // Our index in the handshake under way. REQUIRES: state() is neither kZeroed nor kConsumedInitiation.
  std::uint32_t local_index() const { return local_index_; }

  // Starts anew with a fresh ephemeral and a stamp that is greater than any before it, also if the clock was set
  // back. Fills all but the macs. `sender_index` is ours, unused so far. False, with `message` unspecified, if
  // there is no secret to share.
  [[nodiscard]] bool CreateInitiation(std::uint32_t sender_index, WallTime wall_now, Random& random,
                                      InitiationMessage& message);
  // From any state. Time stamp and interval are judged and stored in this one step, after the proof.
  [[nodiscard]] InitiationVerdict ConsumeInitiation(const OpenedInitiation& initiation, Instant now);
  // Only in kConsumedInitiation.
  [[nodiscard]] bool CreateResponse(std::uint32_t sender_index, Random& random, ResponseMessage& message);
  // Only in kCreatedInitiation and for its index. REQUIRES: message.type is kResponse.
  [[nodiscard]] bool ConsumeResponse(const ResponseMessage& message);
  // Only in kCreatedResponse and kConsumedResponse, else empty. Then the state is kZeroed.
  [[nodiscard]] std::optional<SessionKeys> BeginSession();

  // Forgets the handshake under way. Stamps and keys of the peer stay.
  void Clear();

 private:
  const StaticIdentity* identity_;
  const ProtocolLimits* limits_;
  const PublicKey remote_static_;
  PresharedKey preshared_key_;
  SecretArray<32> static_static_;  // zeros: none

  HandshakeState state_ = HandshakeState::kZeroed;
  std::uint32_t local_index_ = 0;
  std::uint32_t remote_index_ = 0;
  PrivateKey ephemeral_;
  PublicKey remote_ephemeral_;
  SecretArray<kHashBytes> hash_;
  SecretArray<kHashBytes> chaining_key_;

  // These outlive Clear(): they are what a replayed initiation is measured against.
  Tai64n latest_received_;
  Tai64n latest_sent_;
  std::optional<Instant> last_initiation_consumed_at_;
};

}  // namespace adit
