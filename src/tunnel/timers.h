// The timers of one peer (paper, section 6). Five rules:
//
//  1. No answer to an initiation in 5 s (and up to 333 ms of jitter): send a new one, 20 in all; then give up.
//  2. Data came and nothing went back for 10 s: send one empty packet (passive keepalive).
//  3. Data went out and nothing came back for 15 s (and jitter): start a new handshake.
//  4. No new session for 540 s: forget all keys.
//  5. A persistent keepalive, if the operator asked for one, counted from the last authenticated packet either way.
//
// On… reports a fact, PopExpired says what is due. Nothing here reads a clock; the randomness of a deadline comes in as
// a ready duration. Not thread-safe: it lives under its peer's mutex.
#pragma once

#include <array>
#include <optional>

#include "base/time.h"
#include "tunnel/limits.h"

namespace adit {

enum class Timer : std::uint8_t {
  kRetransmitHandshake,
  kPassiveKeepalive,
  kNewHandshake,
  kZeroKeys,
  kPersistentKeepalive,
};
inline constexpr std::size_t kTimerCount = 5;

class PeerTimers {
 public:
  explicit PeerTimers(const ProtocolLimits& limits) : limits_(&limits) {}

  // Facts. `jitter` is uniform in [0, limits.handshake_jitter].
  void OnDataSent(Instant now, Duration jitter);
  void OnDataReceived(Instant now);
  void OnAuthenticatedPacketSent();
  void OnAuthenticatedPacketReceived();
  void OnAuthenticatedPacketEitherWay(Instant now);
  void OnHandshakeInitiated(Instant now, Duration jitter);
  // Begin a handshake when timers are next looked at.
  void OnHandshakeNeeded(Instant now);
  void OnHandshakeComplete();
  void OnSessionDerived(Instant now);

  // The initiation timer's bookkeeping: a handshake that is not a retry starts the count again.
  void OnHandshakeRequested() { handshake_attempts_ = 0; }
  // True while another retry is allowed; counts it.
  bool TakeRetry();
  // After the last retry: no passive keepalive is owed any more, and keys will be forgotten if nothing else happens.
  void OnGivenUp(Instant now);

  void SetPersistentKeepalive(Duration interval) { persistent_keepalive_ = interval; }
  Duration persistent_keepalive() const { return persistent_keepalive_; }

  // The passive keepalive goes out now, and will be reported as the next packet sent: owe another one if more data came
  // in the meantime.
  void OnPassiveKeepaliveSent(Instant now);

  void StopAll();
  // The earliest timer that is due at `now`, disarmed; empty if none is.
  std::optional<Timer> PopExpired(Instant now);
  std::optional<Instant> NextDeadline() const;
  bool IsSet(Timer timer) const { return Deadline(timer).has_value(); }

  bool sent_lastminute_handshake = false;

 private:
  std::optional<Instant>& Deadline(Timer timer) { return deadlines_[static_cast<std::size_t>(timer)]; }
  const std::optional<Instant>& Deadline(Timer timer) const { return deadlines_[static_cast<std::size_t>(timer)]; }

  const ProtocolLimits* limits_;
  std::array<std::optional<Instant>, kTimerCount> deadlines_;
  Duration persistent_keepalive_{0};
  unsigned handshake_attempts_ = 0;
  bool owes_another_keepalive_ = false;   // more data came while a passive keepalive was owed
  bool keepalive_is_on_its_way_ = false;  // the next packet sent is that keepalive, and answers nothing that came later
};

}  // namespace adit
