#include "tunnel/peer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string_view>
#include <vector>

#include "tunnel/test_pair.h"

namespace adit {
namespace {

constexpr Instant kStart = Instant(1000s);

std::shared_ptr<Keypair> MakeKeypair(std::uint32_t index, bool is_initiator, Instant created = kStart) {
  return std::make_shared<Keypair>(ByteArray<32>{}, ByteArray<32>{}, index, 100 + index, is_initiator, created);
}

// ---- the three slots

class KeypairSlots : public testing::Test {
 protected:
  using Retired = std::vector<std::shared_ptr<Keypair>>;

  void ExpectSlots(const std::shared_ptr<Keypair>& previous, const std::shared_ptr<Keypair>& current,
                   const std::shared_ptr<Keypair>& next) {
    EXPECT_EQ(slots_.previous, previous);
    EXPECT_EQ(slots_.current, current);
    EXPECT_EQ(slots_.next, next);
  }

  const std::shared_ptr<Keypair> none_;
  const std::shared_ptr<Keypair> old_ = MakeKeypair(1, true), present_ = MakeKeypair(2, true),
                                 unconfirmed_ = MakeKeypair(3, false);
  const std::shared_ptr<Keypair> initiated_ = MakeKeypair(4, true), responded_ = MakeKeypair(5, false);
  Keypairs slots_;
  Retired retired_;
};

TEST_F(KeypairSlots, InitiatorSendsWithTheNewSessionAtOnce_CONF49_CONF51) {
  slots_ = {.previous = old_, .current = present_, .next = nullptr};
  slots_.Install(initiated_, retired_);
  ExpectSlots(present_, initiated_, none_);
  EXPECT_EQ(retired_, (Retired{old_}));
}

TEST_F(KeypairSlots, InitiatorKeepsAnUnconfirmedSessionAsPrevious_CONF51) {
  slots_ = {.previous = old_, .current = present_, .next = unconfirmed_};
  slots_.Install(initiated_, retired_);
  ExpectSlots(unconfirmed_, initiated_, none_);
  EXPECT_EQ(retired_, (Retired{old_, present_}));
}

TEST_F(KeypairSlots, ResponderKeepsTheNewSessionAsNext_CONF50_CONF51) {
  slots_ = {.previous = old_, .current = present_, .next = unconfirmed_};
  slots_.Install(responded_, retired_);
  ExpectSlots(none_, present_, responded_);
  EXPECT_EQ(retired_, (Retired{old_, unconfirmed_}));
}

TEST_F(KeypairSlots, FirstSessionsRetireNothing_CONF51) {
  slots_.Install(responded_, retired_);
  ExpectSlots(none_, none_, responded_);
  slots_ = {};
  slots_.Install(initiated_, retired_);
  ExpectSlots(none_, initiated_, none_);
  EXPECT_EQ(retired_, Retired{});
}

TEST_F(KeypairSlots, UseConfirmsNextAndMovesTheOthersDown_CONF50) {
  slots_ = {.previous = old_, .current = present_, .next = unconfirmed_};
  EXPECT_TRUE(slots_.Promote(unconfirmed_, retired_));
  ExpectSlots(present_, unconfirmed_, none_);
  EXPECT_EQ(retired_, (Retired{old_}));
}

TEST_F(KeypairSlots, UseOfAnyOtherConfirmsNothing_CONF50_CONF52) {
  for (const auto& used : {old_, present_, initiated_}) {
    slots_ = {.previous = old_, .current = present_, .next = unconfirmed_};
    EXPECT_FALSE(slots_.Promote(used, retired_));
    ExpectSlots(old_, present_, unconfirmed_);
  }
  slots_ = {.previous = old_, .current = present_, .next = nullptr};
  EXPECT_FALSE(slots_.Promote(present_, retired_));
  ExpectSlots(old_, present_, none_);
  EXPECT_EQ(retired_, Retired{});
}

TEST_F(KeypairSlots, TakeAllEmptiesThem) {
  slots_ = {.previous = old_, .current = nullptr, .next = unconfirmed_};
  slots_.TakeAll(retired_);
  ExpectSlots(none_, none_, none_);
  EXPECT_EQ(retired_, (Retired{old_, unconfirmed_}));
}

// ---- sending and receiving

class PeerTest : public testing::Test {
 protected:
  PeerTest() { peer_->endpoint = Endpoint{At("192.0.2.7:7"), {}}; }

  SendVerdict Send(Instant now, std::size_t count = 1, bool is_data = true) {
    wake_ = false;
    grant_ = {};
    return BeginSend(peer_, count, is_data, now, jitter_, inbox_, grant_, wake_);
  }
  ReceiveVerdict Receive(const std::shared_ptr<Keypair>& keypair, Instant now, bool has_data = true) {
    wake_ = false;
    return OnReceived(peer_, keypair, ReceivedFacts{.from = from_, .has_data = has_data}, now, inbox_, wake_);
  }
  // Whether a handshake was asked for since the last call.
  bool TakeWish() {
    while (inbox_.Pop()) continue;
    return std::exchange(peer_->wants_handshake, false);
  }
  void Stage(std::size_t bytes) {
    peer_->staged.emplace_back(bytes);
    peer_->staged_bytes += bytes;
  }

  ProtocolLimits limits_;
  std::shared_ptr<Peer> peer_ = std::make_shared<Peer>(0, PublicKey{}, limits_);
  Endpoint from_{At("192.0.2.8:8"), LocalSource{Ip("192.0.2.1"), 2}};
  ControlInbox inbox_;
  Jitter jitter_{1};
  SendGrant grant_;
  bool wake_ = false;
};

TEST_F(PeerTest, WithoutASessionAsksForAHandshake_CONF37) {
  EXPECT_EQ(Send(kStart), SendVerdict::kNeedsHandshake);
  EXPECT_TRUE(wake_);
  EXPECT_TRUE(TakeWish());
}

TEST_F(PeerTest, AsksOnceInFiveSeconds_CONF24_CONF36) {
  peer_->last_handshake_sent_at = kStart;
  EXPECT_EQ(Send(kStart + 5s - 1ns), SendVerdict::kNeedsHandshake);
  EXPECT_FALSE(TakeWish());
  EXPECT_EQ(Send(kStart + 5s), SendVerdict::kNeedsHandshake);
  EXPECT_TRUE(TakeWish());
}

TEST_F(PeerTest, NeverSendsWithAnUnconfirmedSession_CONF50) {
  peer_->keypairs.next = MakeKeypair(1, false);
  EXPECT_EQ(Send(kStart), SendVerdict::kNeedsHandshake);
  peer_->keypairs.previous = MakeKeypair(2, true);
  EXPECT_EQ(Send(kStart), SendVerdict::kNeedsHandshake);
}

TEST_F(PeerTest, StopsSendingAt180Seconds_CONF23_CONF42) {
  peer_->keypairs.current = MakeKeypair(1, false);
  EXPECT_EQ(Send(kStart + 180s - 1ns), SendVerdict::kGranted);
  EXPECT_EQ(Send(kStart + 180s), SendVerdict::kNeedsHandshake);
}

TEST_F(PeerTest, InitiatorAsksForANewSessionFrom120SecondsOn_CONF22_CONF40) {
  peer_->keypairs.current = MakeKeypair(1, true);
  EXPECT_EQ(Send(kStart + 120s - 1ns), SendVerdict::kGranted);
  EXPECT_FALSE(TakeWish());
  EXPECT_EQ(Send(kStart + 120s), SendVerdict::kGranted);
  EXPECT_TRUE(TakeWish());
}

TEST_F(PeerTest, ResponderNeverAsksForANewSessionByAge_CONF40) {
  peer_->keypairs.current = MakeKeypair(1, false);
  for (const Duration age : {Duration(0s), Duration(120s), Duration(165s), Duration(180s - 1ns)}) {
    EXPECT_EQ(Send(kStart + age), SendVerdict::kGranted);
    EXPECT_FALSE(TakeWish());
  }
}

TEST_F(PeerTest, EitherRoleAsksForANewSessionAfterTwoToThe60Messages_CONF20_CONF40) {
  for (const bool is_initiator : {true, false}) {
    peer_->keypairs.current = MakeKeypair(1, is_initiator);
    ASSERT_TRUE(peer_->keypairs.current->ReserveCounters((std::uint64_t{1} << 60) - 1, limits_));
    EXPECT_EQ(Send(kStart), SendVerdict::kGranted);
    EXPECT_FALSE(TakeWish());
    EXPECT_EQ(Send(kStart), SendVerdict::kGranted);
    EXPECT_TRUE(TakeWish());
  }
}

TEST_F(PeerTest, StopsSendingAtTheLastCounter_CONF21_CONF42) {
  peer_->keypairs.current = MakeKeypair(1, true);
  ASSERT_TRUE(peer_->keypairs.current->ReserveCounters(UINT64_MAX - 8193, limits_));
  EXPECT_EQ(Send(kStart), SendVerdict::kGranted);
  EXPECT_EQ(grant_.first_counter, UINT64_MAX - 8193);
  TakeWish();
  EXPECT_EQ(Send(kStart), SendVerdict::kNeedsHandshake);
  EXPECT_TRUE(TakeWish());
}

TEST_F(PeerTest, SendsWhatWaitsFirst_CONF31) {
  peer_->keypairs.current = MakeKeypair(1, true);
  Stage(10), Stage(20);
  EXPECT_EQ(Send(kStart, 3), SendVerdict::kGranted);
  EXPECT_EQ(grant_.staged.size(), 2u);
  EXPECT_EQ(grant_.first_counter, 0u);
  EXPECT_EQ(peer_->keypairs.current->next_send_counter(), 5u);
  EXPECT_TRUE(peer_->staged.empty());
  EXPECT_EQ(peer_->staged_bytes, 0u);
}

TEST_F(PeerTest, KnowsNothingToSendWithFromNowhereToSend) {
  peer_->keypairs.current = MakeKeypair(1, true);
  peer_->endpoint.reset();
  EXPECT_EQ(Send(kStart), SendVerdict::kNoEndpoint);
  peer_->is_removed = true;
  EXPECT_EQ(Send(kStart), SendVerdict::kRemoved);
  EXPECT_EQ(peer_->keypairs.current->next_send_counter(), 0u);
}

TEST_F(PeerTest, DataSentWaitsForAnAnswerAndAKeepaliveDoesNot_CONF45) {
  peer_->keypairs.current = MakeKeypair(1, true);
  Send(kStart, 1, /*is_data=*/false);
  EXPECT_FALSE(peer_->timers.IsSet(Timer::kNewHandshake));
  Send(kStart, 1, /*is_data=*/true);
  ASSERT_TRUE(peer_->timers.IsSet(Timer::kNewHandshake));
  EXPECT_GE(peer_->timers.NextDeadline(), kStart + 15s);
  EXPECT_LE(peer_->timers.NextDeadline(), kStart + 15s + 333ms);
}

TEST_F(PeerTest, DataReceivedOwesAnAnswerAndAKeepaliveDoesNot_CONF43) {
  peer_->keypairs.current = MakeKeypair(1, true);
  Receive(peer_->keypairs.current, kStart, /*has_data=*/false);
  EXPECT_EQ(peer_->timers.NextDeadline(), std::nullopt);
  Receive(peer_->keypairs.current, kStart + 1s, /*has_data=*/true);
  EXPECT_EQ(peer_->timers.NextDeadline(), kStart + 11s);
}

TEST_F(PeerTest, MovesToWhereverItWasHeardFrom_CONF79) {
  peer_->keypairs.current = MakeKeypair(1, true);
  Receive(peer_->keypairs.current, kStart, /*has_data=*/false);
  EXPECT_EQ(peer_->endpoint, from_);
}

TEST_F(PeerTest, FirstUseOfTheNextSessionConfirmsIt_CONF50) {
  const auto old = MakeKeypair(1, true), current = MakeKeypair(2, true), next = MakeKeypair(3, false);
  peer_->keypairs = {.previous = old, .current = current, .next = next};
  Stage(10);
  const ReceiveVerdict verdict = Receive(next, kStart);
  EXPECT_TRUE(verdict.flush_staged);
  EXPECT_TRUE(peer_->is_newly_confirmed);
  EXPECT_TRUE(wake_);
  EXPECT_EQ(peer_->keypairs.current, next);
  EXPECT_EQ(peer_->keypairs.previous, current);
  EXPECT_EQ(peer_->retired, (std::vector{old}));
  EXPECT_FALSE(Receive(next, kStart).flush_staged);
}

TEST_F(PeerTest, LastMinuteHandshakeAt165SecondsOnce_CONF41) {
  peer_->keypairs.current = MakeKeypair(1, true);
  Receive(peer_->keypairs.current, kStart + 165s - 1ns);
  EXPECT_FALSE(TakeWish());
  Receive(peer_->keypairs.current, kStart + 165s);
  EXPECT_TRUE(TakeWish());
  Receive(peer_->keypairs.current, kStart + 170s);
  EXPECT_FALSE(TakeWish());
  peer_->timers.OnHandshakeComplete();
  Receive(peer_->keypairs.current, kStart + 170s);
  EXPECT_TRUE(TakeWish());
}

TEST_F(PeerTest, ResponderMakesNoLastMinuteHandshake_CONF41) {
  peer_->keypairs.current = MakeKeypair(1, false);
  Receive(peer_->keypairs.current, kStart + 179s);
  EXPECT_FALSE(TakeWish());
}

TEST_F(PeerTest, RemovedReceivesNothing) {
  peer_->keypairs.current = MakeKeypair(1, true);
  const auto endpoint = peer_->endpoint;
  peer_->is_removed = true;
  EXPECT_TRUE(Receive(peer_->keypairs.current, kStart).is_removed);
  EXPECT_EQ(peer_->endpoint, endpoint);
  EXPECT_EQ(peer_->timers.NextDeadline(), std::nullopt);
}

TEST_F(PeerTest, WakesTheControlThreadForAnEarlierDeadlineOnly) {
  peer_->keypairs.current = MakeKeypair(1, false);
  Send(kStart);  // a deadline where there was none
  EXPECT_TRUE(wake_);
  TakeWish();
  peer_->scheduled_at = peer_->timers.NextDeadline();
  Send(kStart + 1s);
  EXPECT_FALSE(wake_);
  Receive(peer_->keypairs.current, kStart + 2s);  // 12 s instead of 15
  EXPECT_TRUE(wake_);
}

TEST_F(PeerTest, ForgetsARefusedSourceButNotANewerOne_CONF89) {
  peer_->endpoint = from_;
  Endpoint stale = from_;
  stale.source.interface_index = 9;
  ForgetSource(*peer_, stale);
  EXPECT_EQ(peer_->endpoint, from_);
  ForgetSource(*peer_, from_);
  EXPECT_EQ(peer_->endpoint, (Endpoint{from_.remote, {}}));
}

TEST_F(PeerTest, StandsInTheInboxOnce) {
  const auto other = std::make_shared<Peer>(1, PublicKey{}, limits_);
  EXPECT_TRUE(inbox_.Push(peer_));
  EXPECT_FALSE(inbox_.Push(peer_));
  EXPECT_FALSE(inbox_.Push(other));  // somebody has rung already
  EXPECT_EQ(inbox_.Pop(), peer_);
  EXPECT_FALSE(peer_->is_in_inbox);
  EXPECT_FALSE(inbox_.empty());
  EXPECT_EQ(inbox_.Pop(), other);
  EXPECT_TRUE(inbox_.empty());
  EXPECT_EQ(inbox_.Pop(), nullptr);
}

TEST(StagedPacket, HasRoomForPaddingBehindIt) {
  StagedPacket packet(100);
  EXPECT_EQ(packet.size(), 100u);
  std::fill_n(packet.data(), 100 + StagedPacket::kScratchBytes, std::uint8_t{1});  // AddressSanitizer watches
  EXPECT_GE(StagedPacket::kScratchBytes, kPaddingMultiple - 1);
}

TEST(Jitter, IsUniformFromZeroToItsBound_CONF27) {
  Jitter jitter(42);
  constexpr Duration kBound = 333ms;
  constexpr int kDraws = 30'000, kBuckets = 10;
  std::array<int, kBuckets> counts{};
  for (int i = 0; i < kDraws; ++i) {
    const Duration drawn = jitter.UpTo(kBound);
    ASSERT_GE(drawn, 0ns);
    ASSERT_LE(drawn, kBound);
    ++counts[static_cast<std::size_t>(drawn * kBuckets / (kBound + 1ns))];
  }
  // 3000 each; 52 is one standard deviation, and the seed is fixed.
  for (const int count : counts) EXPECT_NEAR(count, kDraws / kBuckets, 300);
  EXPECT_EQ(jitter.UpTo(0ns), 0ns);
}

}  // namespace
}  // namespace adit
