#include "dns/endpoint_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace adit {
namespace {

using ::testing::ElementsAre;

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }
const IpAddress kSix = Ip("2001:db8::1"), kFour = Ip("192.0.2.1"), kNew = Ip("192.0.2.99");
constexpr Instant kStart{1000h};
constexpr PeerProgress kTrying{std::nullopt, true};
constexpr PeerProgress kIdle{std::nullopt, false};

PeerProgress HandshakeAgo(Duration age, bool is_trying = false) { return {age, is_trying}; }

TEST(OrderAddresses, AlternatesBeginningWithSix) {
  const std::vector v6{Ip("2001:db8::1"), Ip("2001:db8::2")}, v4{Ip("192.0.2.1"), Ip("192.0.2.2"), Ip("192.0.2.3")};
  EXPECT_THAT(OrderAddresses(v6, v4, true, true), ElementsAre(v6[0], v4[0], v6[1], v4[1], v4[2]));
  EXPECT_THAT(OrderAddresses(v6, v4, false, true), ElementsAre(v4[0], v4[1], v4[2], v6[0], v6[1]));
  EXPECT_THAT(OrderAddresses(v6, v4, true, false), ElementsAre(v6[0], v6[1], v4[0], v4[1], v4[2]));
  EXPECT_THAT(OrderAddresses({}, v4, true, true), ElementsAre(v4[0], v4[1], v4[2]));
}

class Watch : public ::testing::Test {
 protected:
  // What happens until `limit`, looked at every half second: the time of the first that `wanted` likes.
  template <typename Wanted>
  std::optional<Duration> Until(const PeerProgress& progress, Duration limit, Wanted wanted) {
    const Instant begin = now_;
    for (; now_ - begin <= limit; now_ += 500ms) {
      const EndpointWatch::Step step = watch_.Advance(progress, now_);
      if (wanted(step)) return now_ - begin;
      if (step.look_up) watch_.OnLookupFailed(now_);
    }
    return std::nullopt;
  }
  static bool LooksUp(const EndpointWatch::Step& step) { return step.look_up; }
  static bool Uses(const EndpointWatch::Step& step) { return step.use.has_value(); }

  Instant now_ = kStart;
  EndpointWatch watch_{{kSix, kFour}, 60s, kStaleHandshake, kStart};
};

// 43
TEST_F(Watch, TheOtherFamilyIsTriedInTime) {
  const auto after = Until(kTrying, 10s, Uses);
  ASSERT_TRUE(after);
  EXPECT_LE(*after, 5s - 2s);  // leaves the handshake two seconds
  EXPECT_EQ(watch_.current(), kFour);
}

TEST_F(Watch, AddressesGoRoundMoreAndMoreSlowly) {
  std::vector<Duration> gaps;
  for (int i = 0; i < 12; ++i) gaps.push_back(*Until(kTrying, 60s, Uses));
  EXPECT_LE(gaps.front(), 2500ms);
  EXPECT_GE(gaps.back(), kMaxAddressPatience);
  EXPECT_LE(gaps.back(), kMaxAddressPatience + 1s);
  EXPECT_TRUE(std::ranges::is_sorted(gaps, [](Duration a, Duration b) { return a + 1s < b; }));
}

TEST_F(Watch, NothingChangesWhileNothingIsTriedOrAllIsWell) {
  EXPECT_FALSE(Until(kIdle, 1h, Uses));
  EXPECT_FALSE(Until(HandshakeAgo(100s), 1h, Uses));
  EXPECT_FALSE(Until(HandshakeAgo(100s), 10h, LooksUp));
}

TEST_F(Watch, OneAddressIsNotTakenForAnother) {
  watch_ = EndpointWatch({kFour}, 60s, kStaleHandshake, now_);
  EXPECT_FALSE(Until(kTrying, 1h, Uses));
}

// 42
TEST_F(Watch, AStaleHandshakeAsksAgainAndANewAddressIsUsed) {
  now_ += 10min;
  EXPECT_FALSE(watch_.Advance(HandshakeAgo(134s, true), now_).look_up);
  EXPECT_TRUE(watch_.Advance(HandshakeAgo(136s, true), now_).look_up);
  EXPECT_FALSE(watch_.Advance(HandshakeAgo(137s, true), now_).look_up) << "it is asked already";
  EXPECT_EQ(watch_.OnAddresses({kNew}, 60s, HandshakeAgo(137s, true), now_), kNew);
  EXPECT_EQ(watch_.current(), kNew);
}

TEST_F(Watch, TheTimeToLiveIsWaitedForWithinBounds) {
  for (const auto& [ttl, expected] :
       {std::pair<Duration, Duration>{0s, kMinLookupInterval}, {60s, 60s}, {24h, kMaxLookupInterval}}) {
    now_ += 1h;
    watch_ = EndpointWatch({kFour}, ttl, kStaleHandshake, now_);
    EXPECT_EQ(Until(kTrying, 1h, LooksUp), expected);
  }
}

TEST_F(Watch, AnIdlePeerIsAskedForRarely) {
  watch_ = EndpointWatch({kFour}, 1s, kStaleHandshake, now_);
  EXPECT_EQ(Until(kIdle, 1h, LooksUp), kIdleLookupInterval);
}

TEST_F(Watch, ALookupThatFailsIsRepeatedMoreAndMoreSlowly) {
  ASSERT_TRUE(Until(kTrying, 1h, LooksUp));
  watch_.OnLookupFailed(now_);
  unsigned lookups = 0;
  const Instant begin = now_;
  for (; now_ < begin + 1h; now_ += 1s) {
    if (!watch_.Advance(kTrying, now_).look_up) continue;
    ++lookups;
    watch_.OnLookupFailed(now_);
  }
  EXPECT_GE(lookups, 12u);
  EXPECT_LE(lookups, 22u);
}

TEST_F(Watch, AnAddressThatWorksIsNotLeft) {
  watch_.OnNetworkChanged(now_);
  now_ += 10s;
  ASSERT_TRUE(watch_.Advance(HandshakeAgo(10s), now_).look_up);
  EXPECT_FALSE(watch_.OnAddresses({kNew}, 60s, HandshakeAgo(10s), now_));
  EXPECT_EQ(watch_.current(), kSix);
  // When it no longer does, the new one is next.
  const auto after = Until(HandshakeAgo(20s, true), 10s, Uses);
  ASSERT_TRUE(after);
  EXPECT_EQ(watch_.current(), kNew);
}

TEST_F(Watch, TheSameAnswerInAnotherOrderChangesNothing) {
  EXPECT_FALSE(watch_.OnAddresses({kFour, kSix}, 60s, kTrying, now_));
  EXPECT_EQ(watch_.current(), kSix);
}

TEST_F(Watch, AChangedNetworkAsksSoonButNotInBursts) {
  unsigned lookups = 0;
  const Instant begin = now_;
  for (; now_ < begin + 1min; now_ += 100ms) {
    watch_.OnNetworkChanged(now_);
    if (!watch_.Advance(HandshakeAgo(10s), now_).look_up) continue;
    ++lookups;
    watch_.OnAddresses({kSix, kFour}, 60s, HandshakeAgo(10s), now_);
  }
  EXPECT_GE(lookups, 10u);
  EXPECT_LE(lookups, 13u);
}

}  // namespace
}  // namespace adit
