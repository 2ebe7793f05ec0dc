#include "routing/reconcile.h"

#include <algorithm>
#include <utility>

namespace adit {
namespace {

// "ip (pid 17, started by bash)" -> "ip": a loop that calls a program is one culprit, whatever its process ids.
std::string_view ProgramOf(std::string_view culprit) { return culprit.substr(0, culprit.find(" (")); }

}  // namespace

void ReconcilePolicy::NoteChange(Instant now) {
  if (!first_change_at_) first_change_at_ = now;
  last_change_at_ = now;
}

void ReconcilePolicy::OnEvent(EventKind kind, const std::optional<Harm>& harm, Instant now) {
  // On some machines the firewall changes all day; that moves no route.
  if (kind != EventKind::kFirewall) NoteChange(now);
  switch (kind) {
    case EventKind::kLink:
      change_.links = true;
      break;
    case EventKind::kAddress:
      change_.addresses = true;
      break;
    case EventKind::kRoute:
      change_.routes = true;
      break;
    case EventKind::kRule:
      change_.rules = true;
      break;
    case EventKind::kFirewall:
      change_.firewall = true;
      repair_firewall_ = true;
      break;
  }
  if (!harm) return;
  repair_ = true;
  NoteHarm(*harm, now);
}

void ReconcilePolicy::OnLost(Instant now) {
  NoteChange(now);
  change_.is_lost = true;
  is_urgent_ = true;
  repair_firewall_ = true;
}

void ReconcilePolicy::OnReconciled(Duration took, Instant now) { reconcile_not_before_ = now + took * kReconcileShare; }

void ReconcilePolicy::NoteHarm(const Harm& harm, Instant now) {
  auto found = std::ranges::find_if(
      interferences_, [&](const Interference& known) { return ProgramOf(known.culprit) == ProgramOf(harm.culprit); });
  if (found == interferences_.end()) {
    if (interferences_.size() == kMaxInterferences) {
      const auto oldest = std::ranges::min_element(interferences_, {}, &Interference::last_at);
      fights_.erase(fights_.begin() + (oldest - interferences_.begin()));
      interferences_.erase(oldest);
    }
    interferences_.emplace_back();
    fights_.push_back({now, 0});
    found = std::prev(interferences_.end());
  }
  Fight& fight = fights_[static_cast<std::size_t>(found - interferences_.begin())];
  if (now - fight.window_at > kFightWindow) {
    // Two full windows of peace end a fight.
    if (now - found->last_at > kFightWindow) found->is_fight = false;
    fight = {now, 0};
  }
  ++fight.in_window;
  found->is_fight |= fight.in_window >= kFightCount;
  found->culprit = harm.culprit;
  found->what = harm.what;
  ++found->count;
  found->last_at = now;
}

void ReconcilePolicy::Refill(Instant now) {
  if (now <= tokens_at_) return;
  const auto more = (now - tokens_at_) / kRepairEvery;
  tokens_at_ += more * kRepairEvery;
  tokens_ = static_cast<unsigned>(std::min<std::int64_t>(kRepairBurst, std::int64_t{tokens_} + more));
  if (tokens_ == kRepairBurst) tokens_at_ = now;
}

ReconcileActions ReconcilePolicy::Take(Instant now) {
  ReconcileActions actions;
  Refill(now);
  if (WantsToken()) {
    is_limited_ = tokens_ == 0;
    if (tokens_ > 0) {
      --tokens_;
      actions.repair = std::exchange(repair_, false);
      actions.repair_firewall = std::exchange(repair_firewall_, false);
    }
  }
  if (first_change_at_ && !IsRationed() && now >= reconcile_not_before_ &&
      (is_urgent_ || now >= last_change_at_ + kQuiet || now >= *first_change_at_ + kLongestWait)) {
    actions.reconcile = true;
    actions.notify = std::exchange(change_, NetworkChange());
    first_change_at_.reset();
    is_urgent_ = false;
  }
  if (now >= verify_at_) {
    actions.verify = true;
    verify_at_ = now + kVerifyEvery;
  }
  return actions;
}

Instant ReconcilePolicy::next_at(Instant now) const {
  Instant at = verify_at_;
  if (WantsToken()) at = std::min(at, tokens_ > 0 ? now : tokens_at_ + kRepairEvery);
  if (first_change_at_) {
    const Instant quiet = is_urgent_ ? now : std::min(last_change_at_ + kQuiet, *first_change_at_ + kLongestWait);
    Instant look = std::max(quiet, reconcile_not_before_);
    if (IsRationed()) look = std::max(look, tokens_at_ + kRepairEvery);
    at = std::min(at, look);
  }
  return at;
}

}  // namespace adit
