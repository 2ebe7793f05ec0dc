// Under load: when it begins and ends, who is asked for a cookie, and what a cookie reply may change.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "tunnel/test_pair.h"

namespace adit {
namespace {

class TunnelLoad : public testing::Test {
 protected:
  Core& alice() { return pair_.alice; }
  Core& bob() { return pair_.bob; }

  // So many handshake messages wait at `victim`, without the control thread having had a turn. They are forged.
  void Flood(Core& victim, std::size_t count) {
    Packet forged(148);
    forged[0] = 1;
    for (std::size_t i = 0; i < count; ++i) {
      Packet copy = forged;
      victim.inbound.Process(copy, copy.size(), Endpoint{At("203.0.113.1:1"), {}}, 0, pair_.clock.boot, *victim.engine);
      victim.inbound.Clear();
    }
  }
  void PutUnderLoad(Core& victim) {
    Flood(victim, kUnderLoadQueueLength);
    victim.Settle();
    ASSERT_TRUE(victim.tunnel.is_under_load(pair_.clock.boot));
  }
  static bool HasMac2(const Datagram& datagram) {
    return std::ranges::any_of(Bytes(datagram.bytes).last(16), [](std::uint8_t byte) { return byte != 0; });
  }
  // Alice's initiation, answered by a cookie that she has taken; then her next one, which carries mac2.
  Datagram InitiationWithCookie() {
    PutUnderLoad(bob());
    alice().Send(TestPair::ToBob());
    bob().Receive(alice().TakeOne());
    alice().Receive(bob().TakeOne());
    while (alice().sent.size() == alice().next_to_take) {
      pair_.clock.boot = alice().tunnel.NextTimeout().value();
      alice().HandleTimeouts();
    }
    PutUnderLoad(bob());
    return alice().TakeOne();
  }

  TestPair pair_;
};

// ---- when

TEST_F(TunnelLoad, BeginsAtAnEighthOfTheQueue_CONF32_CONF62) {
  alice().Send(TestPair::ToBob());
  const Datagram initiation = alice().TakeOne();
  Flood(bob(), 4096 / 8 - 2);
  bob().Receive(initiation);  // the 511th
  EXPECT_FALSE(bob().tunnel.is_under_load(pair_.clock.boot));
  EXPECT_TRUE(bob().TakeOne().is(MessageType::kResponse));

  TestPair other;
  other.alice.Send(TestPair::ToBob());
  Packet forged(148);
  forged[0] = 1;
  for (int i = 0; i < 4096 / 8 - 1; ++i) {
    Packet copy = forged;
    other.bob.inbound.Process(copy, copy.size(), Endpoint{}, 0, other.clock.boot, *other.bob.engine);
    other.bob.inbound.Clear();
  }
  other.bob.Receive(other.alice.TakeOne());  // the 512th
  EXPECT_TRUE(other.bob.tunnel.is_under_load(other.clock.boot));
  EXPECT_TRUE(other.bob.TakeOne().is(MessageType::kCookieReply));
}

TEST_F(TunnelLoad, LastsOneSecondLongerThanTheFlood_CONF62_CONF72) {
  PutUnderLoad(bob());
  pair_.clock.boot += 1s - 1ns;
  alice().Send(TestPair::ToBob());
  const Datagram initiation = alice().TakeOne();
  bob().Receive(initiation);
  EXPECT_TRUE(bob().TakeOne().is(MessageType::kCookieReply));
  pair_.clock.boot += 1ns;
  bob().Receive(initiation);
  EXPECT_TRUE(bob().TakeOne().is(MessageType::kResponse));
}

TEST_F(TunnelLoad, DoesNotTouchSessions_CONF71_CONF72) {
  pair_.Connect();
  PutUnderLoad(bob());
  alice().Send(TestPair::ToBob());
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  EXPECT_EQ(bob().received.size(), 1u);
  EXPECT_EQ(alice().received.size(), 1u);
}

// ---- the cookie reply

TEST_F(TunnelLoad, AnswersAValidMac1WithACookieAndKeepsNothing_CONF7_CONF63_CONF84) {
  PutUnderLoad(bob());
  alice().Send(TestPair::ToBob());
  Datagram initiation = alice().TakeOne();
  initiation.from = At("198.51.100.1:1");
  const auto deadline = bob().tunnel.NextTimeout();
  bob().Receive(initiation);
  const Datagram reply = bob().TakeOne();
  EXPECT_TRUE(reply.is(MessageType::kCookieReply));
  EXPECT_EQ(reply.bytes.size(), 64u);
  EXPECT_EQ(reply.to, At("198.51.100.1:1"));
  EXPECT_EQ(reply.sent_from, (LocalSource{bob().address.ip, Core::kInterface}));
  EXPECT_EQ(reply.tos, 0);
  EXPECT_EQ(bob().drops(DropReason::kCookieRequired), 1u);
  EXPECT_EQ(bob().exchange.sessions.size(), 0u);
  EXPECT_EQ(bob().peer()->endpoint->remote, alice().address);
  EXPECT_EQ(bob().view().rx_bytes, 0u);
  EXPECT_EQ(bob().view().tx_bytes, 0u);
  EXPECT_EQ(bob().tunnel.NextTimeout(), deadline);
}

TEST_F(TunnelLoad, AnswersAWrongMac1WithNothing_CONF61) {
  PutUnderLoad(bob());
  EXPECT_EQ(bob().drops(DropReason::kBadMac1), kUnderLoadQueueLength);
  EXPECT_TRUE(bob().sent.empty());
}

TEST_F(TunnelLoad, AWrongMac2IsNoMac2_CONF63_CONF68) {
  Datagram initiation = InitiationWithCookie();
  initiation.bytes.back() ^= 1;
  bob().Receive(initiation);
  EXPECT_TRUE(bob().TakeOne().is(MessageType::kCookieReply));
}

TEST_F(TunnelLoad, ACookieFromElsewhereIsNoCookie_CONF64) {
  Datagram initiation = InitiationWithCookie();
  const SocketAddress home = initiation.from;
  for (const auto* const elsewhere : {"192.0.2.1:1112", "192.0.2.99:1111"}) {
    initiation.from = At(elsewhere);
    bob().Receive(initiation);
    EXPECT_TRUE(bob().TakeOne().is(MessageType::kCookieReply)) << elsewhere;
  }
  initiation.from = home;
  bob().Receive(initiation);
  EXPECT_TRUE(bob().TakeOne().is(MessageType::kResponse));
}

TEST_F(TunnelLoad, TheCookieWaitsForTheNextRetransmission_CONF67_CONF68_CONF73) {
  PutUnderLoad(bob());
  alice().Send(TestPair::ToBob());
  const Datagram first = alice().TakeOne();
  EXPECT_FALSE(HasMac2(first));
  bob().Receive(first);
  Datagram reply = bob().TakeOne();
  reply.from = At("198.51.100.66:6666");
  const auto deadline = alice().tunnel.NextTimeout();
  alice().Receive(reply);
  EXPECT_TRUE(alice().Take().empty());  // no answer to it
  EXPECT_EQ(alice().peer()->endpoint->remote, bob().address);
  EXPECT_EQ(alice().tunnel.NextTimeout(), deadline);
  EXPECT_EQ(alice().peer()->staged.size(), 1u);
  pair_.clock.boot = deadline.value();
  alice().HandleTimeouts();
  const Datagram second = alice().TakeOne();
  EXPECT_TRUE(HasMac2(second));
  PutUnderLoad(bob());
  bob().Receive(second);
  pair_.Drive();
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob()});
}

TEST_F(TunnelLoad, ACookieIsTakenOncePerMessage_CONF66) {
  PutUnderLoad(bob());
  alice().Send(TestPair::ToBob());
  const Datagram initiation = alice().TakeOne();
  bob().Receive(initiation);
  bob().Receive(initiation);
  const auto replies = bob().Take();
  ASSERT_EQ(replies.size(), 2u);
  alice().Receive(replies[0]);
  EXPECT_EQ(alice().all_drops(), 0u);
  alice().Receive(replies[0]);
  alice().Receive(replies[1]);
  EXPECT_EQ(alice().drops(DropReason::kHandshakeInvalid), 2u);
}

TEST_F(TunnelLoad, ACookieForAnotherIndexIsNotTaken_CONF65_CONF66_CONF77) {
  PutUnderLoad(bob());
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  const Datagram reply = bob().TakeOne();
  const auto rx = alice().view().rx_bytes;
  for (std::size_t byte = 4; byte < 64; ++byte) {
    Datagram altered = reply;
    altered.bytes[byte] ^= 1;
    alice().Receive(altered);
  }
  EXPECT_EQ(alice().drops(DropReason::kHandshakeInvalid), 60u);
  EXPECT_EQ(alice().view().rx_bytes, rx);
  alice().Receive(reply);  // and the genuine one still is
  EXPECT_EQ(alice().drops(DropReason::kHandshakeInvalid), 60u);
  EXPECT_EQ(alice().tunnel.handshake_counts().cookies_received, 1u);
  EXPECT_EQ(alice().view().rx_bytes, rx);  // as with the kernel and wireguard-go
}

// The index names a peer; the cookie was made for another one, with another key.
TEST_F(TunnelLoad, ACookieReachesOnlyThePeerThatOwnsTheIndex_CONF66) {
  Core carol(pair_.clock, 77, At("192.0.2.3:3333"));
  alice().AddPeer(carol.public_key(), {"10.0.0.3/32"}, carol.address);
  PutUnderLoad(bob());
  alice().Send(TestPair::ToBob());
  const Datagram to_bob = alice().TakeOne();
  alice().Send(MakePacket("10.0.0.1", "10.0.0.3"));
  const Datagram to_carol = alice().TakeOne();
  bob().Receive(to_bob);
  Datagram reply = bob().TakeOne();
  std::copy_n(to_carol.bytes.begin() + 4, 4, reply.bytes.begin() + 4);
  alice().Receive(reply);
  EXPECT_EQ(alice().drops(DropReason::kHandshakeInvalid), 1u);
}

TEST_F(TunnelLoad, AResponseIsAskedForACookieToo_CONF63_CONF66) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  PutUnderLoad(alice());
  alice().Receive(bob().TakeOne());
  const Datagram reply = alice().TakeOne();
  ASSERT_TRUE(reply.is(MessageType::kCookieReply));
  EXPECT_FALSE(alice().peer()->keypairs.current);
  bob().Receive(reply);
  EXPECT_EQ(bob().all_drops(), 0u);
  EXPECT_TRUE(bob().Take().empty());
  pair_.clock.boot = alice().tunnel.NextTimeout().value();  // Alice tries again
  alice().HandleTimeouts();
  bob().Receive(alice().TakeOne());
  const Datagram second = bob().TakeOne();
  EXPECT_TRUE(HasMac2(second));
  PutUnderLoad(alice());
  alice().Receive(second);
  EXPECT_TRUE(alice().peer()->keypairs.current);
}

// ---- many peers at once

class TunnelCrowd : public testing::Test {
 protected:
  static constexpr std::size_t kCrowd = 10'000;

  TunnelCrowd() {
    for (std::size_t i = 0; i < kCrowd; ++i) {
      const PublicKey key = PrivateKey::Generate(keys_).ComputePublicKey();
      CHECK(core_.tunnel.AddPeer(key));
      core_.tunnel.SetEndpoint(key, At("192.0.2.9:9"));
    }
    core_.tunnel.Publish();
  }
  Tunnel& tunnel() { return core_.tunnel; }
  std::vector<std::shared_ptr<Peer>> peers() const { return core_.exchange.peers.Get()->peers; }
  // Turns until nobody waits; each must be short, and leave something to do only if there is.
  std::size_t TakeTurns(void (Tunnel::*turn)(Now, ControlOutbox&), const std::function<bool()>& is_somebody_waiting) {
    std::size_t turns = 0, initiations = 0;
    do {
      ControlOutbox out;
      (tunnel().*turn)(clock_.now(), out);
      EXPECT_LE(out.to_network.size(), kInitiationsPerTurn);
      EXPECT_LE(out.to_flush.size(), kPeersPerTurn);
      EXPECT_GT(out.to_network.size() + out.to_flush.size(), 0u);
      initiations += out.to_network.size();
      flushes_ += out.to_flush.size();
      ++turns;
    } while (is_somebody_waiting() && turns < 2 * kCrowd);
    EXPECT_FALSE(is_somebody_waiting());
    return initiations;
  }
  bool IsDue() { return tunnel().NextTimeout() && *tunnel().NextTimeout() <= clock_.boot; }

  TestClock clock_;
  SeededRandom keys_{7};
  Core core_{(InitializeCrypto(), clock_), 1, At("192.0.2.1:1111")};
  std::size_t flushes_ = 0;
};

TEST_F(TunnelCrowd, ThatAsksForHandshakesIsServedInManyShortTurns) {
  for (const auto& peer : peers()) {
    const std::scoped_lock lock(peer->mutex);
    peer->wants_handshake = true;
    core_.exchange.inbox.Push(peer);
  }
  EXPECT_EQ(TakeTurns(&Tunnel::HandleInbox, [this] { return !core_.exchange.inbox.empty(); }), kCrowd);
  // Nobody answers: all of them are due at once when the machine wakes from suspend.
  clock_.boot += 60s;
  EXPECT_EQ(TakeTurns(&Tunnel::HandleTimeouts, [this] { return IsDue(); }), kCrowd);
}

TEST_F(TunnelCrowd, ThatOwesKeepalivesIsServedInManyShortTurns) {
  for (const auto& peer : peers()) {
    const std::scoped_lock lock(peer->mutex);
    peer->timers.OnDataReceived(clock_.boot);
    core_.exchange.inbox.Push(peer);
  }
  std::size_t turns = 0;
  for (; !core_.exchange.inbox.empty(); ++turns) {
    ControlOutbox out;
    tunnel().HandleInbox(clock_.now(), out);
  }
  EXPECT_EQ(turns, (kCrowd + kPeersPerTurn - 1) / kPeersPerTurn);
  clock_.boot += 10s;
  EXPECT_EQ(TakeTurns(&Tunnel::HandleTimeouts, [this] { return IsDue(); }), 0u);
  EXPECT_EQ(flushes_, kCrowd);
}

TEST_F(TunnelCrowd, GetsItsHandshakesUnderANewKeyInTurns_CONF55) {
  ControlOutbox out;
  for (const auto& peer : peers()) tunnel().SetPersistentKeepalive(peer->public_key, 25s, clock_.now(), out);
  out.Clear();
  tunnel().SetPrivateKey(PrivateKey::Generate(keys_), clock_.now(), out);
  EXPECT_EQ(out.to_network.size(), kInitiationsPerTurn);
  EXPECT_EQ(TakeTurns(&Tunnel::HandleTimeouts, [this] { return IsDue(); }), kCrowd - kInitiationsPerTurn);
}

// ---- with a cookie

TEST_F(TunnelLoad, LimitsASourceThatHasACookie_CONF69) {
  const Datagram initiation = InitiationWithCookie();
  for (int i = 0; i < 5; ++i) bob().Receive(initiation);  // one is answered, four are replays; each costs a token
  EXPECT_EQ(bob().drops(DropReason::kRateLimited), 0u);
  EXPECT_EQ(bob().drops(DropReason::kHandshakeInvalid), 4u);
  bob().Receive(initiation);
  EXPECT_EQ(bob().drops(DropReason::kRateLimited), 1u);
  pair_.clock.boot += 50ms;
  bob().Receive(initiation);
  bob().Receive(initiation);
  EXPECT_EQ(bob().drops(DropReason::kRateLimited), 2u);
  EXPECT_EQ(bob().Take().size(), 1u);
}

TEST_F(TunnelLoad, DoesNotLimitWithoutLoad_CONF69) {
  const Datagram initiation = InitiationWithCookie();
  pair_.clock.boot += 1s;
  for (int i = 0; i < 100; ++i) bob().Receive(initiation);
  EXPECT_EQ(bob().drops(DropReason::kRateLimited), 0u);
}

}  // namespace
}  // namespace adit
