#include "dns/trample.h"

#include <gtest/gtest.h>

namespace adit {
namespace {

using Verdict = TrampleGuard::Verdict;
constexpr Instant kStart{1000h};

class Trample : public ::testing::Test {
 protected:
  // Somebody writes at `now_`; what is done about it.
  Verdict Happens(bool is_ours = false) {
    guard_.OnEvent(now_);
    now_ = *guard_.next_look();
    const Verdict verdict = guard_.OnLook(is_ours, now_);
    if (verdict == Verdict::kRepair) guard_.OnRepaired(true, now_);
    return verdict;
  }
  TrampleGuard guard_;
  Instant now_ = kStart;
};

TEST_F(Trample, NothingIsLookedAtWithoutAnEvent) { EXPECT_FALSE(guard_.next_look()); }

TEST_F(Trample, AWriterIsWaitedForButNotForEver) {
  guard_.OnEvent(now_);
  EXPECT_EQ(guard_.next_look(), now_ + kTrampleQuiet);
  Instant last = now_;
  for (int i = 0; i < 100; ++i) guard_.OnEvent(last += 50ms);
  EXPECT_EQ(guard_.next_look(), now_ + kTrampleMaxWait);
}

TEST_F(Trample, OurOwnWritingCostsNothing) {
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Happens(true), Verdict::kFine);
  EXPECT_EQ(guard_.repair_count(), 0u);
  EXPECT_FALSE(guard_.next_look());
}

TEST_F(Trample, AFightEndsAfterABoundedNumberOfRepairs) {
  for (unsigned i = 0; i < kMaxRepairs; ++i) EXPECT_EQ(Happens(), Verdict::kRepair) << i;
  for (int i = 0; i < 100; ++i) EXPECT_EQ(Happens(), Verdict::kLeaveIt);
  EXPECT_TRUE(guard_.has_given_up());
  EXPECT_EQ(guard_.repair_count(), kMaxRepairs);
}

TEST_F(Trample, OnceInAWhileItIsTriedAgainWithoutAnEvent) {
  for (unsigned i = 0; i <= kMaxRepairs; ++i) Happens();
  ASSERT_TRUE(guard_.next_look());
  EXPECT_EQ(*guard_.next_look(), kStart + kTrampleQuiet + kRepairEvery);
  now_ = *guard_.next_look();
  EXPECT_EQ(guard_.OnLook(false, now_), Verdict::kRepair);
  guard_.OnRepaired(true, now_);
  EXPECT_FALSE(guard_.has_given_up());
  EXPECT_EQ(Happens(), Verdict::kLeaveIt);
}

TEST_F(Trample, ARareTramplerIsRepairedForEver) {
  for (int i = 0; i < 1000; ++i) {
    EXPECT_EQ(Happens(), Verdict::kRepair) << i;
    now_ += kRepairEvery;
  }
}

TEST_F(Trample, OneWhoGivesInIsForgotten) {
  for (unsigned i = 0; i <= kMaxRepairs; ++i) Happens();
  ASSERT_TRUE(guard_.has_given_up());
  EXPECT_EQ(Happens(true), Verdict::kFine);
  EXPECT_FALSE(guard_.has_given_up());
}

TEST_F(Trample, ARepairThatFailsIsTriedAgainWithinTheSameBound) {
  unsigned tries = 0;
  guard_.OnEvent(now_);
  while (guard_.next_look() && *guard_.next_look() < kStart + kRepairEvery) {
    now_ = *guard_.next_look();
    if (guard_.OnLook(false, now_) != Verdict::kRepair) continue;
    ++tries;
    guard_.OnRepaired(false, now_);
  }
  EXPECT_EQ(tries, kMaxRepairs);
  EXPECT_EQ(guard_.repair_count(), 0u);
}

}  // namespace
}  // namespace adit
