// What to do when somebody else writes the file that we wrote: a decision over time, without a file or a clock. Pure.
//
// A DHCP client that renews once in a while is put right each time. Somebody who insists is not fought: after
// kMaxRepairs in a row we stop, say so, and try once more each kRepairEvery.
#pragma once

#include <optional>

#include "base/time.h"

namespace adit {

inline constexpr unsigned kMaxRepairs = 5;        // in a row; then one each kRepairEvery
inline constexpr Duration kRepairEvery = 10min;   // a repair that was used up comes back after this
inline constexpr Duration kTrampleQuiet = 100ms;  // writers truncate first and write then: wait until they are done
inline constexpr Duration kTrampleMaxWait = 1s;   // but not for one who never is

class TrampleGuard {
 public:
  // Something happened to the file. Look at it at next_look().
  void OnEvent(Instant now);
  std::optional<Instant> next_look() const { return look_at_; }

  enum class Verdict {
    kFine,
    kRepair,   // write it again
    kLeaveIt,  // it is not ours, and stays so for now: the operator must know
  };
  // What was found at a look. After kRepair the caller writes and reports by OnRepaired.
  Verdict OnLook(bool is_ours, Instant now);
  // A repair that failed is tried again like any other.
  void OnRepaired(bool worked, Instant now);

  unsigned repair_count() const { return repair_count_; }
  bool has_given_up() const { return has_given_up_; }

 private:
  void Refill(Instant now);

  unsigned budget_ = kMaxRepairs;
  std::optional<Instant> refilled_at_;  // empty while the budget is full
  std::optional<Instant> first_event_at_;
  std::optional<Instant> look_at_;
  unsigned repair_count_ = 0;
  bool has_given_up_ = false;
};

}  // namespace adit
