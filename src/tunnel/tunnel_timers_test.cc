// Two cores and what they do by themselves as time passes.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "tunnel/noise.h"
#include "tunnel/test_pair.h"

namespace adit {
namespace {

constexpr Duration kJitter = 333ms;

class TunnelTimers : public testing::Test {
 protected:
  Core& alice() { return pair_.alice; }
  Core& bob() { return pair_.bob; }
  Instant now() const { return pair_.clock.boot; }

  // When messages of this kind were sent, since the start of the test or the last Forget().
  static std::vector<Instant> TimesOf(const Core& core, MessageType type) {
    std::vector<Instant> times;
    for (const Datagram& datagram : core.sent) {
      if (datagram.is(type)) times.push_back(datagram.sent_at);
    }
    return times;
  }
  static std::vector<Instant> InitiationsOf(const Core& core) { return TimesOf(core, MessageType::kInitiation); }
  static std::vector<Instant> DataOf(const Core& core) { return TimesOf(core, MessageType::kData); }
  void Forget() {
    for (Core* const core : {&alice(), &bob()}) core->sent.clear(), core->next_to_take = 0;
  }

  TestPair pair_;
};

// ---- initiations without an answer

TEST_F(TunnelTimers, TwentyInitiationsThenSilence_CONF24_CONF25_CONF27_CONF38_CONF39) {
  alice().Send(TestPair::ToBob());
  pair_.PassInSilence(539s);
  const auto times = InitiationsOf(alice());
  ASSERT_EQ(times.size(), 20u);
  EXPECT_EQ(alice().sent.size(), 20u);
  EXPECT_EQ(times.front(), TestClock::kStart);
  std::set<Duration> gaps;
  for (std::size_t i = 1; i < times.size(); ++i) {
    gaps.insert(times[i] - times[i - 1]);
    EXPECT_GE(times[i] - times[i - 1], 5s);
    EXPECT_LE(times[i] - times[i - 1], 5s + kJitter);
  }
  EXPECT_GT(gaps.size(), 15u);
  EXPECT_LT(*gaps.begin(), 5s + 60ms);  // of 19 uniform draws; the seed is fixed
  EXPECT_GT(*gaps.rbegin(), 5s + 270ms);
  // Each of them is a handshake of its own.
  std::set<std::uint32_t> indices;
  std::set<ByteArray<32>> ephemerals;
  const StaticIdentity bobs(bob().tunnel.private_key());
  Handshake at_bob(bobs, alice().public_key(), bob().exchange.limits);
  for (const Datagram& datagram : alice().sent) {
    const auto message = LoadAs<InitiationMessage>(datagram.bytes.data());
    indices.insert(message.sender_index);
    ephemerals.insert(message.ephemeral);
    const auto opened = OpenInitiation(bobs, message);
    ASSERT_TRUE(opened);  // and its timestamp is newer than that of the one before:
    EXPECT_EQ(at_bob.ConsumeInitiation(*opened, datagram.sent_at), InitiationVerdict::kConsumed);
  }
  EXPECT_EQ(indices.size(), 20u);
  EXPECT_EQ(ephemerals.size(), 20u);
}

TEST_F(TunnelTimers, AfterGivingUpNothingWaitsAndTheNextPacketBeginsAnew_CONF37_CONF39) {
  alice().Send(TestPair::ToBob());
  alice().Send(TestPair::ToBob());
  for (int second = 0; second < 110 && InitiationsOf(alice()).size() < 20; ++second) pair_.PassInSilence(1s);
  ASSERT_EQ(InitiationsOf(alice()).size(), 20u);
  EXPECT_EQ(alice().peer()->staged.size(), 2u);
  const Instant given_up = *alice().peer()->timers.NextDeadline();
  EXPECT_GE(given_up - InitiationsOf(alice()).back(), 5s);
  EXPECT_LE(given_up - InitiationsOf(alice()).back(), 5s + kJitter);
  pair_.PassInSilence(given_up - now() - 1ns);
  EXPECT_EQ(alice().peer()->staged.size(), 2u);
  pair_.PassInSilence(1ns);
  EXPECT_TRUE(alice().peer()->staged.empty());
  EXPECT_EQ(alice().peer()->staged_bytes, 0u);
  EXPECT_EQ(alice().exchange.staged_bytes, 0u);
  EXPECT_EQ(alice().drops(DropReason::kStagedExpired), 2u);
  EXPECT_EQ(alice().peer()->timers.NextDeadline(), given_up + 540s);  // to forget the last handshake
  Forget();
  alice().Send(TestPair::ToBob(100, 3));
  pair_.PassInSilence(200s);
  EXPECT_EQ(InitiationsOf(alice()).size(), 20u);
  alice().Send(TestPair::ToBob(100, 4));
  pair_.Drive();
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob(100, 4)});
}

TEST_F(TunnelTimers, AHandshakeThatTrafficAsksForStartsTheCountAgain_CONF37) {
  for (int attempt = 0; attempt < 40; ++attempt) {
    alice().Send(TestPair::ToBob());
    alice().Take();
    pair_.clock.boot += 5s;  // before the retransmission, which is later by its jitter
  }
  EXPECT_EQ(InitiationsOf(alice()).size(), 40u);
}

TEST_F(TunnelTimers, OneInitiationInFiveSecondsHoweverMuchIsSent_CONF24_CONF36) {
  alice().Send(TestPair::ToBob());
  for (int i = 0; i < 49; ++i) {
    pair_.clock.boot += 100ms;
    alice().HandleTimeouts();
    alice().Send(TestPair::ToBob());
  }
  EXPECT_EQ(InitiationsOf(alice()).size(), 1u);
  pair_.clock.boot = TestClock::kStart + 5s;
  alice().Send(TestPair::ToBob());
  EXPECT_EQ(InitiationsOf(alice()).size(), 2u);
}

TEST_F(TunnelTimers, AResponseCountsAsAHandshakeSent_CONF36) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  bob().Take();  // the response is lost
  pair_.clock.boot += 5s - 1ns;
  bob().Send(TestPair::ToAlice());
  EXPECT_TRUE(InitiationsOf(bob()).empty());
  pair_.clock.boot += 1ns;
  bob().Send(TestPair::ToAlice());
  EXPECT_EQ(InitiationsOf(bob()).size(), 1u);
}

// Bob has responded, so he may not initiate; and what would confirm his session never comes.
TEST_F(TunnelTimers, APacketAfterAnUnconfirmedResponseWaitsFiveSecondsAndNotForever_CONF36_CONF37) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  pair_.Lose();
  const Instant responded = now();
  pair_.clock.boot += 1s;
  bob().Send(TestPair::ToAlice());
  alice().can_send = false;
  pair_.PassInSilence(4s - 1ns);
  EXPECT_TRUE(InitiationsOf(bob()).empty());
  pair_.PassInSilence(kJitter + 1ns);
  ASSERT_EQ(InitiationsOf(bob()).size(), 1u);
  EXPECT_GE(InitiationsOf(bob()).front(), responded + 5s);
  pair_.PassInSilence(200s);
  EXPECT_EQ(InitiationsOf(bob()).size(), 19u);  // the response was the first turn
  EXPECT_TRUE(bob().peer()->staged.empty());
}

TEST_F(TunnelTimers, AConfirmationInTimeMakesThatHandshakeNeedless) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  pair_.clock.boot += 1s;
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  pair_.Pass(8s);
  EXPECT_TRUE(InitiationsOf(bob()).empty());
  EXPECT_EQ(alice().received.size(), 1u);
}

TEST_F(TunnelTimers, ARetryLetsTheKernelChooseTheSource_CONF38_CONF89) {
  pair_.Connect();
  const Endpoint sticky = alice().peer()->endpoint.value();
  ASSERT_TRUE(sticky.source.is_set());
  pair_.clock.boot += 200s;
  alice().Send(TestPair::ToBob());
  EXPECT_EQ(alice().sent.back().sent_from, sticky.source);
  pair_.PassInSilence(6s);
  EXPECT_EQ(alice().sent.back().sent_from, LocalSource{});
  EXPECT_EQ(alice().sent.back().to, sticky.remote);
}

TEST_F(TunnelTimers, ALostResponseCostsOneRetransmission_CONF38) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  bob().Take();
  pair_.Pass(5s + kJitter);
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob()});
  EXPECT_EQ(InitiationsOf(alice()).size(), 2u);
}

// ---- passive keepalives

TEST_F(TunnelTimers, AnswersDataWithAKeepaliveAfterTenSeconds_CONF26_CONF43_CONF44) {
  pair_.Connect();
  pair_.clock.boot += 1s;
  bob().Send(TestPair::ToAlice());
  Forget();
  bob().Send(TestPair::ToAlice());
  pair_.clock.boot += 3s;  // under way; it counts from here on
  pair_.Drive();
  const Instant received = now();
  pair_.Pass(10s - 1ns);
  EXPECT_TRUE(alice().sent.empty());
  pair_.Pass(1ns);
  ASSERT_EQ(alice().sent.size(), 1u);
  EXPECT_TRUE(alice().sent[0].is_keepalive());
  EXPECT_EQ(alice().sent[0].sent_at, received + 10s);
}

TEST_F(TunnelTimers, OwesASecondKeepaliveForDataThatCameMeanwhile_CONF43) {
  pair_.Connect();
  Forget();
  const Instant first = now();
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  pair_.Pass(4s);
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  pair_.Pass(100s);
  EXPECT_EQ(DataOf(alice()), (std::vector{first + 10s, first + 20s}));
}

TEST_F(TunnelTimers, OwesNothingMoreOnceItSentSomething_CONF43_CONF46) {
  pair_.Connect();
  Forget();
  const Instant first = now();
  bob().Send(TestPair::ToAlice());
  bob().Send(TestPair::ToAlice());  // one more while a keepalive is owed
  pair_.Drive();
  pair_.Pass(4s);
  alice().Send(TestPair::ToBob());  // answers both
  pair_.Drive();
  pair_.Pass(50s);
  EXPECT_EQ(DataOf(alice()), std::vector{first + 4s});
  Forget();
  const Instant later = now();
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  pair_.Pass(50s);
  EXPECT_EQ(DataOf(alice()), std::vector{later + 10s});  // one, not two
}

TEST_F(TunnelTimers, AKeepaliveIsNotAnsweredByAKeepalive_CONF43) {
  pair_.Connect();
  Forget();
  alice().Send(TestPair::ToBob());
  pair_.Drive();
  pair_.Pass(100s);
  EXPECT_EQ(DataOf(alice()).size(), 1u);
  EXPECT_EQ(DataOf(bob()).size(), 1u);  // the keepalive, and then silence
}

TEST_F(TunnelTimers, AnythingSentIsAnswerEnough_CONF46) {
  pair_.Connect();
  Forget();
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  pair_.Pass(9s);
  alice().SendStaged(alice().peer(), /*keepalive_if_none=*/true);
  pair_.Drive();
  pair_.Pass(60s);
  EXPECT_EQ(DataOf(alice()).size(), 1u);
}

// ---- data without an answer

TEST_F(TunnelTimers, UnansweredDataBeginsAHandshakeAfterFifteenSeconds_CONF27_CONF45) {
  std::set<Duration> delays;
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    TestPair pair({}, seed);
    pair.Connect();
    pair.clock.boot += 1s;
    const Instant first = pair.clock.boot;
    pair.alice.sent.clear(), pair.alice.next_to_take = 0;
    pair.alice.Send(TestPair::ToBob());
    pair.PassInSilence(7s);
    pair.alice.Send(TestPair::ToBob());  // the first one counts
    pair.PassInSilence(9s);
    const auto times = InitiationsOf(pair.alice);
    ASSERT_EQ(times.size(), 1u) << "seed " << seed;
    delays.insert(times[0] - first);
    EXPECT_FALSE(pair.alice.peer()->endpoint->source.is_set());
  }
  EXPECT_GE(*delays.begin(), 15s);
  EXPECT_LE(*delays.rbegin(), 15s + kJitter);
  EXPECT_GT(*delays.rbegin() - *delays.begin(), 100ms);
}

TEST_F(TunnelTimers, AnAnswerOfAnyKindIsEnough_CONF46) {
  pair_.Connect();
  Forget();
  alice().Send(TestPair::ToBob());
  pair_.Drive();
  pair_.Pass(60s);  // Bob's keepalive comes after ten seconds
  EXPECT_TRUE(InitiationsOf(alice()).empty());
}

TEST_F(TunnelTimers, AnUnansweredKeepaliveBeginsNoHandshake_CONF45) {
  pair_.Connect();
  Forget();
  alice().SendStaged(alice().peer(), /*keepalive_if_none=*/true);
  pair_.PassInSilence(60s);
  EXPECT_TRUE(InitiationsOf(alice()).empty());
}

// ---- persistent keepalives

TEST_F(TunnelTimers, TurningThePersistentKeepaliveOnSendsOneAtOnce_CONF47) {
  pair_.Connect();
  Forget();
  alice().SetKeepalive(bob().public_key(), 25s);
  ASSERT_EQ(alice().sent.size(), 1u);
  EXPECT_TRUE(alice().sent[0].is_keepalive());
  alice().SetKeepalive(bob().public_key(), 20s);  // it was on already
  EXPECT_EQ(alice().sent.size(), 1u);
}

// At once is as soon as the five seconds after our last handshake message are over (paper, 6.4).
TEST_F(TunnelTimers, APersistentKeepaliveAfterAnUnconfirmedResponseBeginsAHandshake_CONF36_CONF47) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  pair_.Lose();  // the response, and with it whatever would have confirmed it
  const Instant responded = now();
  pair_.clock.boot += 2s;
  bob().SetKeepalive(alice().public_key(), 25s);
  bob().SetKeepalive(alice().public_key(), 30s);  // is not a second beginning
  EXPECT_TRUE(InitiationsOf(bob()).empty());
  alice().can_send = false;
  pair_.PassInSilence(3s + kJitter);
  const auto times = InitiationsOf(bob());
  ASSERT_EQ(times.size(), 1u);
  EXPECT_GE(times.front(), responded + 5s);
}

TEST_F(TunnelTimers, KeepsSilenceNoLongerThanThePersistentKeepalive_CONF47) {
  pair_.Connect();
  Forget();
  const Instant start = now();
  alice().SetKeepalive(bob().public_key(), 25s);
  pair_.Drive();
  pair_.Pass(100s);
  EXPECT_EQ(DataOf(alice()), (std::vector{start, start + 25s, start + 50s, start + 75s, start + 100s}));
  EXPECT_TRUE(bob().sent.empty());
}

TEST_F(TunnelTimers, AnyPacketEitherWayPutsThePersistentKeepaliveOff_CONF47) {
  pair_.Connect();
  alice().SetKeepalive(bob().public_key(), 25s);
  pair_.Drive();
  Forget();
  const Instant start = now();
  pair_.Pass(20s);
  alice().Send(TestPair::ToBob());  // sent at 20; Bob's own keepalive for it comes at 30
  pair_.Drive();
  pair_.Pass(35s - 1ns);
  EXPECT_EQ(DataOf(alice()), std::vector{start + 20s});
  EXPECT_EQ(DataOf(bob()), std::vector{start + 30s});
  pair_.Pass(1ns);
  EXPECT_EQ(DataOf(alice()), (std::vector{start + 20s, start + 55s}));
}

TEST_F(TunnelTimers, TurningThePersistentKeepaliveOffEndsIt_CONF47) {
  alice().SetKeepalive(bob().public_key(), 25s);
  pair_.Drive();
  alice().SetKeepalive(bob().public_key(), 0s);
  Forget();
  pair_.Pass(500s);
  EXPECT_TRUE(alice().sent.empty());
}

TEST_F(TunnelTimers, ThePersistentKeepaliveAloneKeepsTheTunnelThroughRekeys_CONF22_CONF40_CONF47) {
  alice().SetKeepalive(bob().public_key(), 25s);
  pair_.Drive();
  pair_.Pass(1000s);
  EXPECT_GE(InitiationsOf(alice()).size(), 1000 / 145u);
  EXPECT_LE(InitiationsOf(alice()).size(), 1000 / 120u + 1);
  EXPECT_TRUE(InitiationsOf(bob()).empty());
  bob().Send(TestPair::ToAlice());
  EXPECT_TRUE(bob().sent.back().is_data());  // at any time
}

// Also one that is shorter than REKEY_TIMEOUT, within which asking for a handshake does nothing.
TEST_F(TunnelTimers, ThePersistentKeepaliveOutlivesAnOutage_CONF47) {
  for (const Duration interval : {Duration(1s), Duration(5s), Duration(25s)}) {
    TestPair pair;
    pair.alice.SetKeepalive(pair.bob.public_key(), interval);
    pair.Drive();
    pair.PassInSilence(1000s);
    pair.alice.sent.clear(), pair.alice.next_to_take = 0;
    pair.bob.received.clear();
    pair.Pass(35s);
    EXPECT_FALSE(DataOf(pair.alice).empty()) << interval.count();
    EXPECT_TRUE(pair.alice.peer()->keypairs.current) << interval.count();
  }
}

// ---- the end

TEST_F(TunnelTimers, ForgetsAllKeysAfterNineMinutes_CONF48_CONF95) {
  pair_.Connect();
  const std::weak_ptr<Keypair> at_alice = alice().peer()->keypairs.current, at_bob = bob().peer()->keypairs.current;
  pair_.Pass(540s - 1ns);
  EXPECT_FALSE(at_alice.expired());
  EXPECT_FALSE(at_bob.expired());
  pair_.Pass(1ns);
  EXPECT_TRUE(at_alice.expired());
  EXPECT_TRUE(at_bob.expired());
  EXPECT_EQ(alice().exchange.sessions.size(), 0u);
  EXPECT_EQ(bob().exchange.sessions.size(), 0u);
  EXPECT_EQ(alice().tunnel.NextTimeout(), std::nullopt);  // nothing left to do
  alice().Send(TestPair::ToBob());
  pair_.Drive();
  EXPECT_EQ(bob().received.size(), 1u);
}

TEST_F(TunnelTimers, ANewSessionPutsTheEndOfTheKeysOff_CONF48) {
  pair_.Connect();
  pair_.Pass(500s);
  alice().Send(TestPair::ToBob());
  pair_.Drive();
  const std::weak_ptr<Keypair> watch = alice().peer()->keypairs.current;
  pair_.Pass(540s - 1ns);
  EXPECT_FALSE(watch.expired());
  pair_.Pass(1ns);
  EXPECT_TRUE(watch.expired());
}

TEST_F(TunnelTimers, AHandshakeThatWasGivenUpIsForgottenToo_CONF39_CONF48) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  pair_.Lose();
  const Datagram answer = bob().sent.front();
  alice().peer()->staged.clear();
  pair_.PassInSilence(800s);
  alice().Receive(answer);
  EXPECT_FALSE(alice().peer()->keypairs.current);
  EXPECT_EQ(alice().tunnel.NextTimeout(), std::nullopt);
}

TEST_F(TunnelTimers, AnIdleTunnelIsSilent) {
  pair_.Connect();
  Forget();
  pair_.Pass(24h);
  EXPECT_TRUE(alice().sent.empty());
  EXPECT_TRUE(bob().sent.empty());
}

// ---- the network changed

TEST_F(TunnelTimers, AfterAChangeOfTheNetworkThePeerIsToldAtOnce) {
  pair_.Connect();
  Forget();
  alice().ChangeNetwork();
  ASSERT_EQ(alice().sent.size(), 1u);
  EXPECT_TRUE(alice().sent.front().is_keepalive());
  EXPECT_EQ(alice().sent.front().sent_from, LocalSource{});
  // From where the kernel sends it now; and the peer, who has only been sending, follows.
  Datagram moved = alice().TakeOne();
  moved.from = At("198.51.100.77:4242");
  bob().Receive(moved);
  bob().Send(TestPair::ToAlice());
  EXPECT_EQ(bob().TakeOne().to, At("198.51.100.77:4242"));
}

TEST_F(TunnelTimers, AfterASleepPeersThatWereSpokenWithAreSentAnInitiation) {
  alice().Resume();
  EXPECT_TRUE(alice().sent.empty()) << "nobody was";
  pair_.Connect();
  for (const Duration asleep : {Duration(30s), Duration(20min)}) {
    pair_.clock.boot += asleep;
    Forget();
    alice().Resume();
    ASSERT_EQ(alice().CountSent(MessageType::kInitiation), 1u);
    EXPECT_EQ(alice().sent.front().sent_from, LocalSource{}) << "which may be another address's link by now";
    pair_.Drive();
    bob().Send(TestPair::ToAlice());
    pair_.Drive();
    EXPECT_EQ(alice().received.size(), 1u) << "under the new session";
    alice().received.clear();
  }
  alice().SetUp(false);
  Forget();
  alice().Resume();
  EXPECT_TRUE(alice().sent.empty());
}

// The pause between initiations is for the peer's sake, and one that did not leave was no burden.
TEST_F(TunnelTimers, AnInitiationWithoutAWayOutGoesWhenTheNetworkIsBack) {
  alice().can_send = false;
  alice().Send(TestPair::ToBob());
  EXPECT_EQ(alice().CountSent(MessageType::kInitiation), 0u);
  alice().ChangeNetwork();  // the address, before its route
  pair_.Pass(1s);
  alice().can_send = true;
  alice().ChangeNetwork();
  EXPECT_EQ(alice().CountSent(MessageType::kInitiation), 1u);
  alice().ChangeNetwork();
  pair_.Pass(1s);
  EXPECT_EQ(alice().CountSent(MessageType::kInitiation), 1u) << "that one left";
  pair_.Drive();
  EXPECT_EQ(bob().received.size(), 1u);

  // Nobody wants to speak any more.
  pair_.PassInSilence(10min);
  alice().can_send = false;
  alice().Send(TestPair::ToBob());
  pair_.PassInSilence(3min);  // given up
  alice().can_send = true;
  Forget();
  alice().ChangeNetwork();
  EXPECT_EQ(alice().CountSent(MessageType::kInitiation), 0u);
}

// Another uplink comes and takes the route, while what the peer sent to the first still arrives.
TEST_F(TunnelTimers, AnAddressOfTheLinkThatTheRouteHasLeftIsNotAnsweredFrom) {
  constexpr std::uint32_t kOld = Core::kInterface, kNew = 8;
  const auto source_after_hearing = [this] {
    bob().Send(TestPair::ToAlice());
    pair_.Drive();
    return alice().peer()->endpoint->source;
  };
  pair_.Connect();
  alice().links = {.route = kOld, .home = kOld};
  alice().ChangeNetwork();  // the address, before its route
  EXPECT_TRUE(source_after_hearing().is_set());
  alice().ChangeNetwork();
  alice().links.route = kNew;
  alice().ChangeNetwork();  // the peer has shown nothing since the last change
  EXPECT_FALSE(source_after_hearing().is_set());
  pair_.Pass(kAbandonFor - 1s);
  EXPECT_FALSE(source_after_hearing().is_set());
  pair_.Pass(2s);
  EXPECT_TRUE(source_after_hearing().is_set()) << "the peer does not hear us otherwise";
  alice().ChangeNetwork();
  EXPECT_TRUE(source_after_hearing().is_set()) << "the route has not moved";

  alice().links.route = kOld;
  alice().ChangeNetwork();
  alice().links.route = kNew;
  alice().ChangeNetwork();
  EXPECT_FALSE(source_after_hearing().is_set());
  alice().links.route = kOld;
  alice().ChangeNetwork();
  EXPECT_TRUE(source_after_hearing().is_set()) << "the route is back";
}

// In the moment between a change of the route and our hearing of it, what we send stays where its address belongs.
TEST_F(TunnelTimers, ASourceHoldsItsLinkWhereTheRouteLeadsByIt) {
  constexpr std::uint32_t kHere = Core::kInterface, kElsewhere = 8;
  const auto holds_after_hearing = [this] {
    bob().Send(TestPair::ToAlice());
    pair_.Drive();
    return alice().peer()->endpoint->source.is_set() && alice().peer()->endpoint->holds_link;
  };
  alice().links = {.route = kHere, .home = kHere};
  pair_.Connect();
  EXPECT_TRUE(alice().peer()->endpoint->holds_link) << "asked when the session began";
  EXPECT_TRUE(holds_after_hearing());
  alice().tunnel.ForgetSources();
  EXPECT_FALSE(holds_after_hearing()) << "sockets or marks are others now, and nobody has asked";
  alice().ChangeNetwork();
  EXPECT_TRUE(holds_after_hearing());
  alice().tunnel.ForgetLinks();
  EXPECT_FALSE(alice().peer()->endpoint->holds_link);
  EXPECT_FALSE(holds_after_hearing());
  alice().ChangeNetwork();
  EXPECT_TRUE(holds_after_hearing());
  // The peer is somewhere else; the route to there is another one.
  bob().address = At("198.51.100.77:4242");
  EXPECT_FALSE(holds_after_hearing());
  alice().ChangeNetwork();
  EXPECT_TRUE(holds_after_hearing());
  // A server that is reached by one link and answers by another goes on doing so.
  pair_.Pass(kAbandonFor);
  alice().links = {.route = kElsewhere, .home = 1};
  alice().ChangeNetwork();
  EXPECT_FALSE(holds_after_hearing());
  EXPECT_TRUE(alice().peer()->endpoint->source.is_set());
}

TEST_F(TunnelTimers, AnAddressThatIsOfNoLinkOfItsOwnIsKeptWhereverTheRouteLeads) {
  pair_.Connect();
  alice().links = {.route = Core::kInterface, .home = 1};  // a service address on lo
  alice().ChangeNetwork();
  alice().links.route = 8;
  alice().ChangeNetwork();
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  EXPECT_TRUE(alice().peer()->endpoint->source.is_set());
}

TEST_F(TunnelTimers, AHandshakeIsNotAnsweredFromAnAbandonedAddressEither) {
  pair_.Connect();
  alice().links = {.route = 8, .home = Core::kInterface};
  alice().ChangeNetwork();
  pair_.Pass(6s);  // the last handshake is too young
  Forget();
  bob().BeginHandshake();
  pair_.Drive();
  bool has_answered = false;
  for (const Datagram& datagram : alice().sent) {
    has_answered |= datagram.is(MessageType::kResponse);
    EXPECT_FALSE(datagram.sent_from.is_set());
  }
  EXPECT_TRUE(has_answered);
}

TEST_F(TunnelTimers, ABurstOfChangesIsToldAtItsBeginningAndItsEnd) {
  pair_.Connect();
  Forget();
  const Instant start = now();
  for (int i = 0; i < 100; ++i) {
    alice().ChangeNetwork();
    pair_.clock.boot += 1ms;
  }
  EXPECT_EQ(DataOf(alice()), (std::vector<Instant>{start}));
  pair_.PassInSilence(5s);
  EXPECT_EQ(DataOf(alice()), (std::vector<Instant>{start, start + kAnnounceInterval}));
  for (int i = 0; i < 100; ++i) {  // a network that never comes to rest
    alice().ChangeNetwork();
    pair_.PassInSilence(10ms);
  }
  EXPECT_LE(DataOf(alice()).size(), 2u + 1u + 4u);
}

TEST_F(TunnelTimers, AChangeOfTheNetworkWakesNobodyWithoutASession) {
  for (int i = 0; i < 2; ++i) {  // the second one is to be told later
    alice().ChangeNetwork();
    pair_.clock.boot += 10ms;
  }
  EXPECT_TRUE(alice().sent.empty());
  pair_.Connect();
  Forget();
  pair_.PassInSilence(1s);
  EXPECT_TRUE(alice().sent.empty()) << "the handshake came from the new place";
  pair_.PassInSilence(185s);  // the session is too old
  Forget();
  alice().ChangeNetwork();
  pair_.PassInSilence(1s);
  EXPECT_TRUE(DataOf(alice()).empty());
  EXPECT_TRUE(InitiationsOf(alice()).empty());
  alice().SetUp(false);
  alice().ChangeNetwork();
  EXPECT_TRUE(alice().sent.empty());
}

}  // namespace
}  // namespace adit
