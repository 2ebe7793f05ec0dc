#include "tunnel/timers.h"

#include <utility>

namespace adit {

void PeerTimers::OnDataSent(Instant now, Duration jitter) {
  auto& deadline = Deadline(Timer::kNewHandshake);
  if (!deadline) deadline = now + limits_->keepalive_timeout + limits_->rekey_timeout + jitter;
}

void PeerTimers::OnDataReceived(Instant now) {
  auto& deadline = Deadline(Timer::kPassiveKeepalive);
  if (deadline) {
    owes_another_keepalive_ = true;
  } else {
    deadline = now + limits_->keepalive_timeout;
  }
}

void PeerTimers::OnAuthenticatedPacketSent() {
  if (std::exchange(keepalive_is_on_its_way_, false)) return;
  Deadline(Timer::kPassiveKeepalive).reset();
  owes_another_keepalive_ = false;
}

void PeerTimers::OnAuthenticatedPacketReceived() { Deadline(Timer::kNewHandshake).reset(); }

void PeerTimers::OnAuthenticatedPacketEitherWay(Instant now) {
  if (persistent_keepalive_ > Duration::zero()) Deadline(Timer::kPersistentKeepalive) = now + persistent_keepalive_;
}

void PeerTimers::OnHandshakeInitiated(Instant now, Duration jitter) {
  Deadline(Timer::kRetransmitHandshake) = now + limits_->rekey_timeout + jitter;
}

void PeerTimers::OnHandshakeNeeded(Instant now) { Deadline(Timer::kNewHandshake) = now; }

void PeerTimers::OnHandshakeComplete() {
  Deadline(Timer::kRetransmitHandshake).reset();
  handshake_attempts_ = 0;
  sent_lastminute_handshake = false;
}

void PeerTimers::OnSessionDerived(Instant now) { Deadline(Timer::kZeroKeys) = now + 3 * limits_->reject_after_time; }

bool PeerTimers::TakeRetry() {
  if (handshake_attempts_ > limits_->max_handshake_retries) return false;
  ++handshake_attempts_;
  return true;
}

void PeerTimers::OnGivenUp(Instant now) {
  Deadline(Timer::kPassiveKeepalive).reset();
  owes_another_keepalive_ = false;
  keepalive_is_on_its_way_ = false;
  auto& zero = Deadline(Timer::kZeroKeys);
  if (!zero) zero = now + 3 * limits_->reject_after_time;
}

void PeerTimers::OnPassiveKeepaliveSent(Instant now) {
  if (!owes_another_keepalive_) return;
  owes_another_keepalive_ = false;
  keepalive_is_on_its_way_ = true;
  Deadline(Timer::kPassiveKeepalive) = now + limits_->keepalive_timeout;
}

void PeerTimers::StopAll() {
  deadlines_.fill(std::nullopt);
  handshake_attempts_ = 0;
  owes_another_keepalive_ = false;
  keepalive_is_on_its_way_ = false;
  sent_lastminute_handshake = false;
}

std::optional<Timer> PeerTimers::PopExpired(Instant now) {
  std::optional<std::size_t> earliest;
  for (std::size_t i = 0; i < kTimerCount; ++i) {
    if (!deadlines_[i] || *deadlines_[i] > now) continue;
    if (!earliest || *deadlines_[i] < *deadlines_[*earliest]) earliest = i;
  }
  if (!earliest) return std::nullopt;
  deadlines_[*earliest].reset();
  return static_cast<Timer>(*earliest);
}

std::optional<Instant> PeerTimers::NextDeadline() const {
  std::optional<Instant> next;
  for (const auto& deadline : deadlines_) {
    if (deadline && (!next || *deadline < *next)) next = deadline;
  }
  return next;
}

}  // namespace adit
