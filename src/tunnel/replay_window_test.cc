#include "tunnel/replay_window.h"

#include <gtest/gtest.h>

#include <set>

#include "crypto/test_support.h"

namespace adit {
namespace {

// The greatest distance that is too far.
constexpr std::uint64_t kTooFar = kReplayWindowUsable + 1;

TEST(ReplayWindow, RejectsTheSameCounterTwice_CONF30) {
  ReplayWindow window;
  EXPECT_TRUE(window.Accept(5));
  EXPECT_FALSE(window.Accept(5));
}

TEST(ReplayWindow, AcceptsUpToTheUsableWidthBehindAndNothingOlder_CONF30) {
  for (const std::uint64_t greatest : {8128u, 8129u, 8191u, 8192u, 8193u, 100'000u}) {
    ReplayWindow window;
    ASSERT_TRUE(window.Accept(greatest));
    EXPECT_TRUE(window.Accept(greatest - 8128)) << greatest;
    EXPECT_FALSE(window.Accept(greatest - 8128)) << greatest;
    if (greatest > 8128) {
      EXPECT_FALSE(window.Accept(greatest - 8129)) << greatest;
    }
  }
}

// The cases by which the reference implementation pins its window, in their order: each depends on those before it.
TEST(ReplayWindow, HoldsTheReferenceCases_CONF21_CONF30) {
  struct Case {
    std::uint64_t counter;
    bool is_accepted;
  };
  constexpr std::uint64_t kLimit = kRejectAfterMessages;
  const Case cases[] = {
      {0, true},
      {1, true},
      {1, false},
      {9, true},
      {8, true},
      {7, true},
      {7, false},
      {kTooFar, true},
      {kTooFar - 1, true},
      {kTooFar - 1, false},
      {kTooFar - 2, true},
      {2, true},
      {2, false},
      {kTooFar + 16, true},
      {3, false},
      {kTooFar + 16, false},
      {kTooFar * 4, true},
      {kTooFar * 4 - (kTooFar - 1), true},
      {10, false},
      {kTooFar * 4 - kTooFar, false},
      {kTooFar * 4 - (kTooFar + 1), false},
      {kTooFar * 4 - (kTooFar - 2), true},
      {kTooFar * 4 + 1 - kTooFar, false},
      {0, false},
      {kLimit, false},
      {kLimit - 1, true},
      {kLimit, false},
      {kLimit - 1, false},
      {kLimit - 2, true},
      {kLimit + 1, false},
      {kLimit + 2, false},
      {kLimit - 2, false},
      {kLimit - 3, true},
      {0, false},
  };
  static_assert(std::size(cases) == 34);
  ReplayWindow window;
  for (std::size_t i = 0; i < std::size(cases); ++i) {
    EXPECT_EQ(window.Accept(cases[i].counter), cases[i].is_accepted) << "case " << i + 1;
  }
}

// Whole windows, forwards and backwards: [from, to] in steps of one, then single counters.
TEST(ReplayWindow, HoldsTheReferenceSweeps_CONF30) {
  constexpr std::uint64_t kWidth = kReplayWindowUsable;
  const auto forwards = [](ReplayWindow& window, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t i = from; i <= to; ++i) ASSERT_TRUE(window.Accept(i)) << i;
  };
  const auto backwards = [](ReplayWindow& window, std::uint64_t from, std::uint64_t to) {
    for (std::uint64_t i = from + 1; i-- > to;) ASSERT_TRUE(window.Accept(i)) << i;
  };
  {
    ReplayWindow window;
    forwards(window, 1, kWidth);
    EXPECT_TRUE(window.Accept(0));
    EXPECT_FALSE(window.Accept(0));
  }
  {
    ReplayWindow window;
    forwards(window, 2, kWidth + 1);
    EXPECT_TRUE(window.Accept(1));
    EXPECT_FALSE(window.Accept(0));
  }
  {
    ReplayWindow window;
    backwards(window, kWidth, 0);
  }
  {
    ReplayWindow window;
    backwards(window, kWidth + 1, 1);
    EXPECT_FALSE(window.Accept(0));
  }
  {
    ReplayWindow window;
    backwards(window, kWidth, 1);
    EXPECT_TRUE(window.Accept(kWidth + 1));
    EXPECT_FALSE(window.Accept(0));
  }
  {
    ReplayWindow window;
    backwards(window, kWidth, 1);
    EXPECT_TRUE(window.Accept(0));
    EXPECT_TRUE(window.Accept(kWidth + 1));
  }
}

TEST(ReplayWindow, ForgetsEverythingOnAJumpPastTheRing) {
  ReplayWindow window;
  for (std::uint64_t i = 0; i < kReplayWindowBits; ++i) ASSERT_TRUE(window.Accept(i));
  const std::uint64_t far = std::uint64_t{1} << 40;
  ASSERT_TRUE(window.Accept(far));
  for (std::uint64_t i = far - kReplayWindowUsable; i < far; ++i) ASSERT_TRUE(window.Accept(i)) << i;
}

TEST(ReplayWindow, StopsAtTheLimitItIsGiven_CONF21) {
  ReplayWindow window;
  EXPECT_TRUE(window.Accept(99, 100));
  EXPECT_FALSE(window.Accept(100, 100));
  EXPECT_FALSE(window.Accept(101, 100));
  EXPECT_FALSE(window.Accept(UINT64_MAX));
  EXPECT_TRUE(window.Accept(98, 100));
}

// The obvious window: every counter ever accepted.
class NaiveWindow {
 public:
  bool Accept(std::uint64_t counter) {
    if (counter >= kRejectAfterMessages) return false;
    if (!seen_.empty() && counter < *seen_.rbegin() && *seen_.rbegin() - counter > kReplayWindowUsable) return false;
    return seen_.insert(counter).second;
  }

 private:
  std::set<std::uint64_t> seen_;
};

TEST(ReplayWindow, AgreesWithASetOfAllCounters_CONF30) {
  SeededRandom random(DrawSeed());
  for (int round = 0; round < 40; ++round) {
    ReplayWindow window;
    NaiveWindow naive;
    std::uint64_t around = round % 4 == 3 ? kRejectAfterMessages - 30'000 : 0;
    for (int i = 0; i < 20'000; ++i) {
      switch (random.Below(200)) {
        case 0:
          around += random.Below(3 * kReplayWindowBits);
          break;
        case 1:
          around += kReplayWindowUsable - 1 + random.Below(4);
          break;
        default:
          around += random.Below(3);
      }
      const std::uint64_t back = random.Below(4) == 0 ? random.Below(kReplayWindowBits + 200) : random.Below(64);
      const std::uint64_t counter = around - std::min<std::uint64_t>(around, back);
      ASSERT_EQ(window.Accept(counter), naive.Accept(counter)) << "round " << round << ", counter " << counter;
    }
  }
}

}  // namespace
}  // namespace adit
