#include "dns/trample.h"

#include <algorithm>

namespace adit {

void TrampleGuard::OnEvent(Instant now) {
  if (!first_event_at_) first_event_at_ = now;
  look_at_ = std::min(now + kTrampleQuiet, *first_event_at_ + kTrampleMaxWait);
}

void TrampleGuard::Refill(Instant now) {
  while (refilled_at_ && now - *refilled_at_ >= kRepairEvery) {
    *refilled_at_ += kRepairEvery;
    if (++budget_ == kMaxRepairs) refilled_at_.reset();
  }
}

TrampleGuard::Verdict TrampleGuard::OnLook(bool is_ours, Instant now) {
  first_event_at_.reset();
  look_at_.reset();
  Refill(now);
  if (is_ours) {
    has_given_up_ = false;
    return Verdict::kFine;
  }
  if (budget_ == 0) {
    has_given_up_ = true;
    look_at_ = *refilled_at_ + kRepairEvery;
    return Verdict::kLeaveIt;
  }
  if (budget_-- == kMaxRepairs) refilled_at_ = now;
  return Verdict::kRepair;
}

void TrampleGuard::OnRepaired(bool worked, Instant now) {
  if (worked) {
    ++repair_count_;
    has_given_up_ = false;
  } else {
    look_at_ = now + kTrampleMaxWait;
  }
}

}  // namespace adit
