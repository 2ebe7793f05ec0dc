#include "routing/mtu_search.h"

#include <algorithm>

#include "base/check.h"

namespace adit {

MtuSearch::MtuSearch(unsigned floor, unsigned full, std::size_t destination_count)
    : destination_count_(destination_count) {
  CHECK(kSmallBytes < floor && floor < full);
  CHECK(destination_count > 0 && destination_count <= kMaxDestinations);
  sizes_.push_back(floor);
  for (unsigned size = (floor / kStep + 1) * kStep; size < full; size += kStep) sizes_.push_back(size);
  sizes_.push_back(full);
  swallowed_ = static_cast<int>(sizes_.size());
}

std::optional<MtuSearch::Probe> MtuSearch::Advance(Instant now) {
  if (verdict_ != MtuVerdict::kSearching) return std::nullopt;
  if (is_waiting_) {
    if (now < next_at_) return std::nullopt;
    is_waiting_ = false;
    OnSilence();
    if (verdict_ != MtuVerdict::kSearching) return std::nullopt;
  }
  // A probe that the peer may not answer would tell nothing.
  const Instant may_answer_at = answers_full_at_ - (kAnswerBurst - 1) * kAnswerEvery;
  if (now < may_answer_at) {
    next_at_ = may_answer_at;
    return std::nullopt;
  }
  if (sent_.size() == kMaxProbes) {
    verdict_ = MtuVerdict::kUnknown;
    return std::nullopt;
  }
  const bool is_small = phase_ != Phase::kMeasuring;
  if (phase_ == Phase::kGreeting) destination_ = tries_ % destination_count_;
  const Probe probe{.id = static_cast<std::uint16_t>(sent_.size()),
                    .destination = destination_,
                    .bytes = is_small ? kSmallBytes : sizes_[static_cast<std::size_t>(asked_)]};
  sent_.push_back({.size = is_small ? -1 : asked_, .destination = destination_, .at = now});
  // A small one gets there, whether or not its answer gets back; of the large ones only an answer says so.
  if (is_small) Spend(now);
  is_waiting_ = true;
  next_at_ = now + timeout_;
  return probe;
}

void MtuSearch::OnSilence() {
  ++tries_;
  switch (phase_) {
    case Phase::kGreeting:
      // In turn, so that the silence of one costs the others little.
      if (tries_ == kTries * destination_count_) verdict_ = MtuVerdict::kUnknown;
      return;
    case Phase::kMeasuring:
      if (tries_ < kTries) return;
      phase_ = Phase::kConfirming;
      tries_ = 0;
      confirming_from_ = sent_.size();
      return;
    case Phase::kConfirming:
      if (tries_ == kTries) verdict_ = MtuVerdict::kUnknown;
      return;
  }
}

void MtuSearch::OnAnswer(std::uint16_t id, Instant now) {
  if (verdict_ != MtuVerdict::kSearching || id >= sent_.size() || sent_[id].is_answered) return;
  Sent& sent = sent_[id];
  sent.is_answered = true;
  if (sent.size < 0) {
    if (phase_ == Phase::kGreeting) {
      destination_ = sent.destination;
      timeout_ = std::clamp(kTimeoutRtts * (now - sent.at), kLeastTimeout, kLongestTimeout);
      Ask(static_cast<int>(sizes_.size()) - 1);
    } else if (phase_ == Phase::kConfirming && id >= confirming_from_) {
      swallowed_ = std::min(swallowed_, asked_);
      if (is_last_question_) {
        verdict_ = MtuVerdict::kLimited;
      } else {
        AskNext();
      }
    }
    return;
  }
  Spend(now);
  if (sent.size == static_cast<int>(sizes_.size()) - 1) {
    verdict_ = MtuVerdict::kClear;  // even if it took long
  } else if (sent.size >= swallowed_) {
    verdict_ = MtuVerdict::kUnknown;  // it was loss, or a delay beyond all that the first answer let expect
  } else if (sent.size > passed_) {
    passed_ = sent.size;
    if (passed_ >= asked_) AskNext();
  }
}

void MtuSearch::Ask(int size) {
  asked_ = size;
  phase_ = Phase::kMeasuring;
  tries_ = 0;
  is_waiting_ = false;
}

void MtuSearch::AskNext() {
  is_last_question_ = swallowed_ - passed_ == 1;
  Ask(is_last_question_ ? swallowed_ : passed_ + (swallowed_ - passed_) / 2);
}

void MtuSearch::Spend(Instant now) { answers_full_at_ = std::max(answers_full_at_, now) + kAnswerEvery; }

}  // namespace adit
