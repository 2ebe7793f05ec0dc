#include "tunnel/rate_limiter.h"

#include <gtest/gtest.h>

#include <vector>

#include "crypto/test_support.h"

namespace adit {
namespace {

constexpr Instant kStart = Instant(1000s);

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

IpAddress V4Number(std::uint32_t number) {
  return IpAddress::V4(ByteArray<4>{static_cast<std::uint8_t>(number >> 24), static_cast<std::uint8_t>(number >> 16),
                                    static_cast<std::uint8_t>(number >> 8), static_cast<std::uint8_t>(number)});
}

// The schedule by which the reference implementation is tested: how long to wait, then what the answer is.
void ExpectTheReferenceSchedule(RateLimiter& limiter, const std::vector<IpAddress>& sources) {
  struct Step {
    Duration wait;
    bool is_allowed;
  };
  const Step steps[] = {{0ms, true},  {0ms, true},  {0ms, true},   {0ms, true}, {0ms, true}, {0ms, false},
                        {50ms, true}, {0ms, false}, {100ms, true}, {0ms, true}, {0ms, false}};
  Instant now = kStart;
  for (std::size_t i = 0; i < std::size(steps); ++i) {
    now += steps[i].wait;
    // Which address of one host asks makes no difference.
    EXPECT_EQ(limiter.Allow(sources[i % sources.size()], now), steps[i].is_allowed) << "step " << i;
  }
}

TEST(RateLimiter, GivesABurstOfFiveThenTwentyASecond_CONF69) {
  RateLimiter limiter;
  ExpectTheReferenceSchedule(limiter, {Ip("1.2.3.4")});
  ExpectTheReferenceSchedule(limiter, {Ip("1.2.3.5")});
}

TEST(RateLimiter, SavesUpNoMoreThanABurst_CONF69) {
  RateLimiter limiter;
  ASSERT_TRUE(limiter.Allow(Ip("1.2.3.4"), kStart));
  Instant now = kStart;
  for (int round = 0; round < 5; ++round) {
    now += 990ms;  // twenty tokens' worth, and not quiet long enough to be forgotten
    for (int i = 0; i < 5; ++i) EXPECT_TRUE(limiter.Allow(Ip("1.2.3.4"), now)) << round;
    EXPECT_FALSE(limiter.Allow(Ip("1.2.3.4"), now)) << round;
  }
}

TEST(RateLimiter, CountsAnIpv6Slash64AsOneSource_CONF69) {
  RateLimiter limiter;
  ExpectTheReferenceSchedule(limiter, {Ip("2001:db8:1:2::1"), Ip("2001:db8:1:2:ffff::"), Ip("2001:db8:1:2:8000::7")});
  EXPECT_EQ(limiter.size(), 1u);
  EXPECT_TRUE(limiter.Allow(Ip("2001:db8:1:3::1"), kStart));
  EXPECT_EQ(limiter.size(), 2u);
}

TEST(RateLimiter, KeepsTheFamiliesApart) {
  RateLimiter limiter;
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(limiter.Allow(Ip("0.0.0.1"), kStart));
  EXPECT_FALSE(limiter.Allow(Ip("0.0.0.1"), kStart));
  EXPECT_TRUE(limiter.Allow(Ip("0:0:0:1::"), kStart));
}

TEST(RateLimiter, RefusesTheSourceBeyondItsTableAndForgetsTheQuiet_CONF70) {
  RateLimiter limiter;
  for (std::uint32_t i = 0; i < 65536; ++i) ASSERT_TRUE(limiter.Allow(V4Number(i), kStart)) << i;
  EXPECT_EQ(limiter.size(), 65536u);
  EXPECT_FALSE(limiter.Allow(V4Number(65536), kStart));
  EXPECT_TRUE(limiter.Allow(V4Number(7), kStart));  // who is in has its bucket
  EXPECT_FALSE(limiter.Allow(Ip("::1"), kStart + 999ms));

  // Only 7 has asked within the second.
  ASSERT_TRUE(limiter.Allow(V4Number(7), kStart + 900ms));
  EXPECT_TRUE(limiter.Allow(V4Number(65536), kStart + 1001ms));
  EXPECT_EQ(limiter.size(), 2u);
  limiter.Sweep(kStart + 3s);
  EXPECT_EQ(limiter.size(), 0u);
}

TEST(RateLimiter, NeverAllowsMoreThanRateAndBurst_CONF69) {
  SeededRandom random(DrawSeed());
  for (int round = 0; round < 20; ++round) {
    RateLimiter limiter;
    Instant now = kStart;
    std::uint64_t allowed = 0;
    for (int i = 0; i < 5000; ++i) {
      now += Duration(random.Below(40'000'000));
      allowed += limiter.Allow(Ip("192.0.2.1"), now) ? 1 : 0;
    }
    const auto bound = 5 + static_cast<std::uint64_t>((now - kStart) / 50ms) + 1;
    EXPECT_LE(allowed, bound);
    EXPECT_GE(allowed, bound * 9 / 10);  // it was asked about 2.5 times as often as it allows
  }
}

}  // namespace
}  // namespace adit
