#include "tunnel/timers.h"

#include <gtest/gtest.h>

#include <vector>

namespace adit {
namespace {

constexpr Instant kStart = Instant(1000s);
constexpr Duration kTick = 1ns;

class Timers : public testing::Test {
 protected:
  // Nothing is due a nanosecond before, this one is at the time itself, and it is disarmed by that.
  void ExpectDueAt(Timer timer, Instant when) {
    EXPECT_EQ(timers_.NextDeadline(), when);
    EXPECT_EQ(timers_.PopExpired(when - kTick), std::nullopt);
    EXPECT_EQ(timers_.PopExpired(when), timer);
    EXPECT_FALSE(timers_.IsSet(timer));
  }

  ProtocolLimits limits_;
  PeerTimers timers_{limits_};
};

TEST_F(Timers, RestAtFirst) {
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
  EXPECT_EQ(timers_.PopExpired(Instant::max()), std::nullopt);
}

TEST_F(Timers, RetransmitFiveSecondsAndTheJitterAfterAnInitiation_CONF24_CONF27_CONF38) {
  timers_.OnHandshakeInitiated(kStart, 0ns);
  ExpectDueAt(Timer::kRetransmitHandshake, kStart + 5s);
  timers_.OnHandshakeInitiated(kStart, 333ms);
  ExpectDueAt(Timer::kRetransmitHandshake, kStart + 5s + 333ms);
}

TEST_F(Timers, DoNotRetransmitACompletedHandshake) {
  timers_.OnHandshakeInitiated(kStart, 0ns);
  timers_.OnHandshakeComplete();
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
}

TEST_F(Timers, AllowNineteenRetriesAfterTheFirstInitiation_CONF25_CONF39) {
  timers_.OnHandshakeRequested();
  for (int retry = 1; retry <= 19; ++retry) EXPECT_TRUE(timers_.TakeRetry()) << retry;
  EXPECT_FALSE(timers_.TakeRetry());
  EXPECT_FALSE(timers_.TakeRetry());
}

TEST_F(Timers, CountRetriesAnewForANewHandshakeAndAfterASuccess_CONF37) {
  for (const auto begin_anew : {&PeerTimers::OnHandshakeRequested, &PeerTimers::OnHandshakeComplete}) {
    while (timers_.TakeRetry()) {
    }
    (timers_.*begin_anew)();
    int retries = 0;
    while (timers_.TakeRetry()) ++retries;
    EXPECT_EQ(retries, 19);
  }
}

TEST_F(Timers, OweAKeepaliveTenSecondsAfterTheFirstData_CONF26_CONF43_CONF44) {
  timers_.OnDataReceived(kStart);
  timers_.OnDataReceived(kStart + 4s);  // does not move it
  ExpectDueAt(Timer::kPassiveKeepalive, kStart + 10s);
}

// The control thread takes the timer, and some time later a data thread reports that the keepalive is out.
TEST_F(Timers, OweOneMoreKeepaliveForDataThatCameMeanwhile_CONF43) {
  timers_.OnDataReceived(kStart);
  timers_.OnDataReceived(kStart + 4s);
  ExpectDueAt(Timer::kPassiveKeepalive, kStart + 10s);
  timers_.OnPassiveKeepaliveSent(kStart + 10s);
  timers_.OnAuthenticatedPacketSent();  // that very keepalive
  ExpectDueAt(Timer::kPassiveKeepalive, kStart + 20s);
  timers_.OnPassiveKeepaliveSent(kStart + 20s);
  timers_.OnAuthenticatedPacketSent();
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
}

TEST_F(Timers, WhatIsSentInBetweenPaysForBoth_CONF43_CONF46) {
  timers_.OnDataReceived(kStart);
  timers_.OnDataReceived(kStart + 4s);
  timers_.OnAuthenticatedPacketSent();
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
  timers_.OnDataReceived(kStart + 20s);
  ExpectDueAt(Timer::kPassiveKeepalive, kStart + 30s);
  timers_.OnPassiveKeepaliveSent(kStart + 30s);
  timers_.OnAuthenticatedPacketSent();
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
}

TEST_F(Timers, OweNoKeepaliveAfterAnySend_CONF46) {
  timers_.OnDataReceived(kStart);
  timers_.OnAuthenticatedPacketSent();
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
}

// 15 s: KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, the time in which a living peer would have answered twice.
TEST_F(Timers, AskForAHandshakeFifteenSecondsAndTheJitterAfterUnansweredData_CONF27_CONF45) {
  timers_.OnDataSent(kStart, 0ns);
  ExpectDueAt(Timer::kNewHandshake, kStart + 15s);
  timers_.OnDataSent(kStart, 333ms);
  timers_.OnDataSent(kStart + 9s, 0ns);  // the first unanswered packet counts
  ExpectDueAt(Timer::kNewHandshake, kStart + 15s + 333ms);
}

TEST_F(Timers, AskForNoHandshakeOnceAnythingCameBack_CONF46) {
  timers_.OnDataSent(kStart, 0ns);
  timers_.OnAuthenticatedPacketReceived();
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
}

TEST_F(Timers, ForgetKeysNineMinutesAfterTheLastSession_CONF48) {
  timers_.OnSessionDerived(kStart);
  timers_.OnSessionDerived(kStart + 100s);
  ExpectDueAt(Timer::kZeroKeys, kStart + 640s);
}

TEST_F(Timers, GivenUpOweNoKeepaliveAndForgetKeysInTheEnd_CONF39) {
  timers_.OnDataReceived(kStart);
  timers_.OnGivenUp(kStart + 1s);
  EXPECT_FALSE(timers_.IsSet(Timer::kPassiveKeepalive));
  ExpectDueAt(Timer::kZeroKeys, kStart + 541s);
}

TEST_F(Timers, GivingUpDoesNotPutOffTheEndOfTheKeys_CONF39) {
  timers_.OnSessionDerived(kStart);
  timers_.OnGivenUp(kStart + 100s);
  ExpectDueAt(Timer::kZeroKeys, kStart + 540s);
}

TEST_F(Timers, CountThePersistentKeepaliveFromTheLastPacketEitherWay_CONF47) {
  timers_.OnAuthenticatedPacketEitherWay(kStart);
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);  // it is off
  timers_.SetPersistentKeepalive(25s);
  timers_.OnAuthenticatedPacketEitherWay(kStart);
  timers_.OnAuthenticatedPacketEitherWay(kStart + 20s);
  ExpectDueAt(Timer::kPersistentKeepalive, kStart + 45s);
}

TEST_F(Timers, FireInTheOrderOfTheirDeadlines) {
  timers_.SetPersistentKeepalive(12s);
  timers_.OnSessionDerived(kStart);
  timers_.OnDataSent(kStart, 0ns);
  timers_.OnAuthenticatedPacketEitherWay(kStart);
  timers_.OnDataReceived(kStart);
  timers_.OnHandshakeInitiated(kStart, 0ns);
  std::vector<Timer> fired;
  while (const auto timer = timers_.PopExpired(kStart + 1h)) fired.push_back(*timer);
  EXPECT_EQ(fired, (std::vector{Timer::kRetransmitHandshake, Timer::kPassiveKeepalive, Timer::kPersistentKeepalive,
                                Timer::kNewHandshake, Timer::kZeroKeys}));
}

TEST_F(Timers, StopAllAtOnce_CONF57) {
  timers_.SetPersistentKeepalive(12s);
  timers_.OnSessionDerived(kStart);
  timers_.OnDataSent(kStart, 0ns);
  timers_.OnAuthenticatedPacketEitherWay(kStart);
  timers_.OnDataReceived(kStart);
  timers_.OnHandshakeInitiated(kStart, 0ns);
  timers_.sent_lastminute_handshake = true;
  timers_.StopAll();
  EXPECT_EQ(timers_.NextDeadline(), std::nullopt);
  EXPECT_FALSE(timers_.sent_lastminute_handshake);
}

TEST_F(Timers, FollowTheLimitsTheyAreGiven) {
  limits_.rekey_timeout = 1s;
  limits_.keepalive_timeout = 2s;
  limits_.reject_after_time = 10s;
  limits_.max_handshake_retries = 1;
  timers_.OnHandshakeInitiated(kStart, 0ns);
  ExpectDueAt(Timer::kRetransmitHandshake, kStart + 1s);
  timers_.OnDataReceived(kStart);
  ExpectDueAt(Timer::kPassiveKeepalive, kStart + 2s);
  timers_.OnDataSent(kStart, 0ns);
  ExpectDueAt(Timer::kNewHandshake, kStart + 3s);
  timers_.OnSessionDerived(kStart);
  ExpectDueAt(Timer::kZeroKeys, kStart + 30s);
  EXPECT_TRUE(timers_.TakeRetry());
  EXPECT_TRUE(timers_.TakeRetry());
  EXPECT_FALSE(timers_.TakeRetry());
}

}  // namespace
}  // namespace adit
