// When the machine's network changes under a tunnel: decides what is to be done about it and when. Pure: events and the
// time go in, actions come out; cli/network_monitor.h reads the events and carries the actions out.
//
//   something of ours was removed   repaired at once (leading edge), within a budget
//   the firewall changed            its owner looks at once, within the same budget
//   anything else                   one look at the whole after 50 ms of quiet, 250 ms at the latest; then the
//   observers events were lost                the same, at once a minute went by                the kernel is asked
//   where packets would go
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/time.h"
#include "routing/network_event.h"

namespace adit {

// Something of ours that somebody else removed.
struct Harm {
  std::string what;     // the operation as text
  std::string culprit;  // as NetworkEvent::culprit
};

// One program that removes what is ours.
struct Interference {
  std::string culprit;  // with the process id of the last time; empty if it is not known
  std::string what;     // of the last time
  std::uint64_t count = 0;
  Instant last_at;
  bool is_fight = false;  // it does so again and again
};

struct ReconcileActions {
  bool repair = false;                  // put back what was reported as harm
  bool repair_firewall = false;         // let the firewall's owner look
  bool reconcile = false;               // compare everything with what should be
  bool verify = false;                  // ask the kernel where packets would go
  std::optional<NetworkChange> notify;  // after the rest
  friend bool operator==(const ReconcileActions&, const ReconcileActions&) = default;
};

class ReconcilePolicy {
 public:
  static constexpr Duration kQuiet = 50ms;
  static constexpr Duration kLongestWait = 250ms;
  static constexpr Duration kVerifyEvery = 60s;
  // Repairs at once: so many in a row, and one more each so often. Past that they wait for the next token: in a fight
  // with somebody who never stops, the machine must stay usable.
  static constexpr unsigned kRepairBurst = 50;
  static constexpr Duration kRepairEvery = 200ms;
  // A look at the whole may take at most one part in so many of the time.
  static constexpr int kReconcileShare = 20;
  // So many removals by one program within the window are a fight.
  static constexpr unsigned kFightCount = 10;
  static constexpr Duration kFightWindow = 10s;
  static constexpr std::size_t kMaxInterferences = 32;  // the one longest ago goes

  explicit ReconcilePolicy(Instant now) : tokens_at_(now), verify_at_(now + kVerifyEvery) {}

  // `harm`: the event removed something of ours.
  void OnEvent(EventKind kind, const std::optional<Harm>& harm, Instant now);
  void OnLost(Instant now);
  // The firewall's owner looked, and found and mended this.
  void OnFirewallHarm(const Harm& harm, Instant now) { NoteHarm(harm, now); }
  // How long a look at the whole took, for the budget.
  void OnReconciled(Duration took, Instant now);

  // What is due. Asks are taken: the same will not come out again.
  ReconcileActions Take(Instant now);
  // When to call Take next at the latest.
  Instant next_at(Instant now) const;

  const std::vector<Interference>& interferences() const { return interferences_; }
  // Repairs wait because the budget is used up.
  bool is_limited() const { return is_limited_; }

 private:
  void NoteChange(Instant now);
  void NoteHarm(const Harm& harm, Instant now);
  void Refill(Instant now);
  bool WantsToken() const { return repair_ || repair_firewall_; }
  // A harm waits for the next token. So does the look at the whole, which would put it right without one.
  bool IsRationed() const { return repair_ && tokens_ == 0; }

  NetworkChange change_;
  std::optional<Instant> first_change_at_;
  Instant last_change_at_;
  bool is_urgent_ = false;  // events were lost: no waiting for quiet
  bool repair_ = false;
  bool repair_firewall_ = false;
  bool is_limited_ = false;
  unsigned tokens_ = kRepairBurst;
  Instant tokens_at_;
  Instant verify_at_;
  Instant reconcile_not_before_;

  struct Fight {
    Instant window_at;
    unsigned in_window = 0;
  };
  std::vector<Interference> interferences_;
  std::vector<Fight> fights_;  // beside it, by place
};

}  // namespace adit
