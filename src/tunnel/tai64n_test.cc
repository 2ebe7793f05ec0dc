#include "tunnel/tai64n.h"

#include <gtest/gtest.h>

#include "crypto/test_support.h"
#include "tunnel/limits.h"

namespace adit {
namespace {

std::string Hex(const Tai64n& stamp) { return ToHex(stamp.bytes); }

TEST(Tai64n, CountsFromTwoToThe62PlusTen_CONF59) {
  EXPECT_EQ(Hex(ToTai64n({.seconds = 0, .nanoseconds = 0})), "400000000000000a00000000");
  EXPECT_EQ(Hex(ToTai64n({.seconds = 1, .nanoseconds = 0})), "400000000000000b00000000");
  // 2021-01-01T00:00:00Z is 1,609,459,200.
  EXPECT_EQ(Hex(ToTai64n({.seconds = 1609459200, .nanoseconds = 0})), "400000005fee660a00000000");
}

TEST(Tai64n, RoundsDownToTwoToThe24Nanoseconds_CONF59) {
  const auto at = [](std::uint32_t nanoseconds) { return Hex(ToTai64n({.seconds = 0, .nanoseconds = nanoseconds})); };
  EXPECT_EQ(at(0x00ffffff), "400000000000000a00000000");
  EXPECT_EQ(at(0x01000000), "400000000000000a01000000");
  EXPECT_EQ(at(0x01ffffff), "400000000000000a01000000");
  EXPECT_EQ(at(999'999'999), "400000000000000a3b000000");
  EXPECT_LT(std::chrono::nanoseconds(kTai64nStep), kMinInitiationInterval);
  EXPECT_GT(std::chrono::nanoseconds(2 * std::uint64_t{kTai64nStep}), kMinInitiationInterval);
}

TEST(Tai64n, OrdersAsTheTimesDo_CONF59) {
  const WallTime times[] = {
      {-5, 0},         {-1, 999'000'000}, {0, 0},     {0, 100'000'000}, {0, 900'000'000}, {1, 0},
      {255, 0},        {256, 0},          {65535, 0}, {65536, 0},       {1700000000, 0},  {1700000000, 500'000'000},
      {4294967295, 0}, {4294967296, 0}};
  for (std::size_t i = 0; i + 1 < std::size(times); ++i) EXPECT_LT(ToTai64n(times[i]), ToTai64n(times[i + 1])) << i;
}

TEST(Tai64n, NextIsTheNextStepAndCarriesIntoTheSeconds) {
  Tai64n stamp = ToTai64n({.seconds = 7, .nanoseconds = 0});
  int steps = 0;
  for (; stamp < ToTai64n({.seconds = 8, .nanoseconds = 0}); ++steps) {
    const Tai64n next = NextTai64n(stamp);
    ASSERT_LT(stamp, next);
    stamp = next;
  }
  EXPECT_EQ(stamp, ToTai64n({.seconds = 8, .nanoseconds = 0}));
  EXPECT_EQ(steps, 60);  // 10^9 / 2^24, rounded up
}

}  // namespace
}  // namespace adit
