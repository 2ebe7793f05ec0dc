#include "routing/reconcile.h"

#include <gtest/gtest.h>

#include <random>
#include <utility>

namespace adit {
namespace {

constexpr Instant kStart = Instant(1000s);
const Harm kHarm{"ip -4 rule add pref 10514 lookup 30568 protocol kernel", "ip (pid 7, started by bash)"};

ReconcileActions Nothing() { return {}; }

TEST(ReconcilePolicy, SleepsUntilTheMinuteIsOver) {
  ReconcilePolicy policy(kStart);
  EXPECT_EQ(policy.next_at(kStart), kStart + 60s);
  EXPECT_EQ(policy.Take(kStart + 59s), Nothing());
  EXPECT_TRUE(policy.Take(kStart + 60s).verify);
  EXPECT_EQ(policy.next_at(kStart + 60s), kStart + 120s);
}

TEST(ReconcilePolicy, RepairsWhatIsOursAtOnceAndLooksAtTheRestLater) {
  ReconcilePolicy policy(kStart);
  policy.OnEvent(EventKind::kRule, kHarm, kStart);
  EXPECT_EQ(policy.next_at(kStart), kStart);
  ReconcileActions actions = policy.Take(kStart);
  EXPECT_TRUE(actions.repair);
  EXPECT_FALSE(actions.reconcile);
  EXPECT_EQ(policy.next_at(kStart), kStart + 50ms);
  EXPECT_EQ(policy.Take(kStart + 49ms), Nothing());
  actions = policy.Take(kStart + 50ms);
  EXPECT_FALSE(actions.repair);
  EXPECT_TRUE(actions.reconcile);
  NetworkChange rules;
  rules.rules = true;
  EXPECT_EQ(actions.notify, rules);
  EXPECT_EQ(policy.Take(kStart + 10s), Nothing());
}

TEST(ReconcilePolicy, ForeignChangesWaitForQuiet) {
  ReconcilePolicy policy(kStart);
  policy.OnEvent(EventKind::kRoute, std::nullopt, kStart);
  policy.OnEvent(EventKind::kAddress, std::nullopt, kStart + 40ms);
  EXPECT_EQ(policy.Take(kStart + 60ms), Nothing());
  const ReconcileActions actions = policy.Take(kStart + 90ms);
  EXPECT_TRUE(actions.reconcile);
  ASSERT_TRUE(actions.notify);
  EXPECT_TRUE(actions.notify->routes && actions.notify->addresses);
  EXPECT_FALSE(actions.notify->links || actions.notify->rules || actions.notify->firewall);
}

TEST(ReconcilePolicy, AStormThatNeverEndsIsLookedAtAllTheSame) {
  ReconcilePolicy policy(kStart);
  int looks = 0;
  for (Instant now = kStart; now < kStart + 10s; now += 10ms) {
    policy.OnEvent(EventKind::kRoute, std::nullopt, now);
    looks += policy.Take(now).reconcile;
  }
  EXPECT_GE(looks, 38);
  EXPECT_LE(looks, 40);
}

TEST(ReconcilePolicy, ASlowLookIsPaidFor) {
  ReconcilePolicy policy(kStart);
  policy.OnReconciled(100ms, kStart);
  policy.OnEvent(EventKind::kRoute, std::nullopt, kStart);
  EXPECT_EQ(policy.next_at(kStart), kStart + 2s);
  EXPECT_EQ(policy.Take(kStart + 1999ms), Nothing());
  EXPECT_TRUE(policy.Take(kStart + 2s).reconcile);
}

TEST(ReconcilePolicy, LostEventsMeanALookAtEverythingAtOnce) {
  ReconcilePolicy policy(kStart);
  policy.OnLost(kStart);
  const ReconcileActions actions = policy.Take(kStart);
  EXPECT_TRUE(actions.reconcile);
  EXPECT_TRUE(actions.repair_firewall);
  ASSERT_TRUE(actions.notify);
  EXPECT_TRUE(actions.notify->is_lost);
}

TEST(ReconcilePolicy, AFirewallChangeIsLookedAtOnTheLeadingEdge) {
  ReconcilePolicy policy(kStart);
  policy.OnEvent(EventKind::kFirewall, std::nullopt, kStart);
  EXPECT_TRUE(policy.Take(kStart).repair_firewall);
  EXPECT_EQ(policy.Take(kStart + 1s), Nothing()) << "routes are not looked at for it";
}

TEST(ReconcilePolicy, AFightIsRationedAndTheCulpritIsNamed) {
  ReconcilePolicy policy(kStart);
  unsigned repairs = 0;
  Instant now = kStart;
  for (int i = 0; i < 1000; ++i, now += 10ms) {  // 100 a second for 10 s, each time by another process
    policy.OnEvent(EventKind::kRule, Harm{"rule", fmt::format("ip (pid {}, started by bash)", i)}, now);
    repairs += policy.Take(now).repair;
  }
  EXPECT_TRUE(policy.is_limited());
  EXPECT_GE(repairs, 50U + 48U);
  EXPECT_LE(repairs, 50U + 51U);
  ASSERT_EQ(policy.interferences().size(), 1U);
  const Interference& who = policy.interferences()[0];
  EXPECT_EQ(who.culprit, "ip (pid 999, started by bash)");
  EXPECT_EQ(who.count, 1000U);
  EXPECT_TRUE(who.is_fight);

  // What was not repaired is not forgotten.
  EXPECT_LE(policy.next_at(now), now + 200ms);
  now += 200ms;
  EXPECT_TRUE(policy.Take(now).repair);
  // A minute later it is a single event again.
  now += 60s;
  policy.OnEvent(EventKind::kRule, kHarm, now);
  EXPECT_TRUE(policy.Take(now).repair);
  EXPECT_FALSE(policy.is_limited());
  EXPECT_FALSE(policy.interferences()[0].is_fight);
}

// A look at the whole puts back what is missing, too: in the quiet after each removal, it was a second ration.
TEST(ReconcilePolicy, ALookAtTheWholeIsNoWayAroundTheRation) {
  ReconcilePolicy policy(kStart);
  bool stands = true;
  unsigned put_back = 0;
  for (Instant now = kStart; now < kStart + 20s; now += 5ms) {
    if (stands) policy.OnEvent(EventKind::kRule, kHarm, now);  // removed as soon as it is there
    stands = false;
    const ReconcileActions actions = policy.Take(now);
    stands = actions.repair || actions.reconcile;
    put_back += stands;
  }
  EXPECT_LE(put_back, 50U + 101U);
  EXPECT_GE(put_back, 50U + 80U);
}

TEST(ReconcilePolicy, AFlushIsNoFightByItself) {
  ReconcilePolicy policy(kStart);
  for (unsigned i = 0; i + 1 < ReconcilePolicy::kFightCount; ++i) policy.OnEvent(EventKind::kRule, kHarm, kStart);
  EXPECT_FALSE(policy.interferences()[0].is_fight);
}

TEST(ReconcilePolicy, RemembersABoundedNumberOfCulprits) {
  ReconcilePolicy policy(kStart);
  for (int i = 0; i < 1000; ++i) {
    policy.OnEvent(EventKind::kRoute, Harm{"route", fmt::format("program{} (pid 1)", i)}, kStart + i * 1ms);
  }
  ASSERT_EQ(policy.interferences().size(), ReconcilePolicy::kMaxInterferences);
  EXPECT_EQ(policy.interferences().front().culprit, "program968 (pid 1)");
}

// Whatever happens when: nothing is left undone for longer than its bound, and next_at never lies.
TEST(ReconcilePolicy, EverythingIsDoneInTime) {
  const std::uint32_t seed = std::random_device()();
  std::mt19937 random(seed);
  SCOPED_TRACE(fmt::format("seed {}", seed));
  ReconcilePolicy policy(kStart);
  Instant now = kStart;
  bool is_changed = false;
  Instant changed_at;
  for (int i = 0; i < 20000; ++i) {
    now += std::chrono::milliseconds(random() % 4 == 0 ? random() % 400 : random() % 10);
    const Instant next = policy.next_at(now);
    if (random() % 2 == 0) {
      const auto kind = static_cast<EventKind>(random() % 5);
      policy.OnEvent(kind, random() % 8 == 0 ? std::optional(kHarm) : std::nullopt, now);
      if (kind != EventKind::kFirewall && !std::exchange(is_changed, true)) changed_at = now;
    } else if (next > now) {
      ASSERT_EQ(policy.Take(now), Nothing()) << "something is due before next_at";
    }
    const ReconcileActions actions = policy.Take(now);
    if (actions.reconcile) is_changed = false;
    if (is_changed) {
      ASSERT_LE(policy.next_at(now), changed_at + ReconcilePolicy::kLongestWait);
    }
    ASSERT_GT(policy.next_at(now), now);
  }
}

}  // namespace
}  // namespace adit
