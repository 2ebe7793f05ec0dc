// Sessions: how they begin, follow each other and end. Timers are in tunnel_timers_test.cc, cookies in
// tunnel_load_test.cc, configuration in tunnel_config_test.cc.
#include "tunnel/tunnel.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <vector>

#include "tunnel/test_pair.h"

namespace adit {
namespace {

class TunnelTest : public testing::Test {
 protected:
  Core& alice() { return pair_.alice; }
  Core& bob() { return pair_.bob; }
  void ExpectDataFlowsBothWays() {
    const std::size_t at_bob = bob().received.size(), at_alice = alice().received.size();
    alice().Send(TestPair::ToBob(200, 17));
    bob().Send(TestPair::ToAlice(200, 18));
    pair_.Drive();
    ASSERT_EQ(bob().received.size(), at_bob + 1);
    ASSERT_EQ(alice().received.size(), at_alice + 1);
    EXPECT_EQ(bob().received.back(), TestPair::ToBob(200, 17));
    EXPECT_EQ(alice().received.back(), TestPair::ToAlice(200, 18));
  }

  TestPair pair_;
};

// ---- the first handshake

TEST_F(TunnelTest, TheFirstPacketBeginsAHandshake_CONF5_CONF37_CONF84) {
  alice().Send(TestPair::ToBob());
  alice().Send(TestPair::ToBob());
  const Datagram initiation = alice().TakeOne();
  EXPECT_TRUE(initiation.is(MessageType::kInitiation));
  EXPECT_EQ(initiation.bytes.size(), 148u);
  EXPECT_EQ(initiation.to, bob().address);
  EXPECT_EQ(initiation.tos, 0x88);
}

TEST_F(TunnelTest, TheResponderAnswersWhereverTheInitiationCameFrom_CONF6_CONF79_CONF84) {
  alice().Send(TestPair::ToBob());
  Datagram initiation = alice().TakeOne();
  initiation.from = At("198.51.100.1:1");
  bob().Receive(initiation);
  const Datagram response = bob().TakeOne();
  EXPECT_TRUE(response.is(MessageType::kResponse));
  EXPECT_EQ(response.bytes.size(), 92u);
  EXPECT_EQ(response.to, At("198.51.100.1:1"));
  EXPECT_EQ(response.sent_from, (LocalSource{bob().address.ip, Core::kInterface}));
  EXPECT_EQ(response.tos, 0x88);
  EXPECT_EQ(bob().peer()->endpoint->remote, At("198.51.100.1:1"));
}

TEST_F(TunnelTest, TheInitiatorFollowsAResponse_CONF79) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  Datagram response = bob().TakeOne();
  response.from = At("198.51.100.2:2");
  alice().Receive(response);
  EXPECT_EQ(alice().peer()->endpoint->remote, At("198.51.100.2:2"));
  EXPECT_EQ(alice().TakeOne().to, At("198.51.100.2:2"));
}

TEST_F(TunnelTest, TheInitiatorSendsAtOnceWhatWaited_CONF49) {
  for (std::uint8_t i = 0; i < 3; ++i) alice().Send(TestPair::ToBob(100, i));
  bob().Receive(alice().TakeOne());
  alice().Receive(bob().TakeOne());
  EXPECT_TRUE(alice().peer()->keypairs.current);
  const auto sent = alice().Take();
  ASSERT_EQ(sent.size(), 3u);  // and no keepalive
  for (const Datagram& datagram : sent) EXPECT_TRUE(datagram.is_data() && !datagram.is_keepalive());
}

TEST_F(TunnelTest, TheInitiatorSendsAKeepaliveIfNothingWaited_CONF49) {
  alice().SendStaged(alice().peer(), /*keepalive_if_none=*/true);
  alice().Settle();
  bob().Receive(alice().TakeOne());
  alice().Receive(bob().TakeOne());
  EXPECT_TRUE(alice().TakeOne().is_keepalive());
}

TEST_F(TunnelTest, TheResponderSendsNothingBeforeItHeardFromTheInitiator_CONF50) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  const Datagram response = bob().TakeOne();
  EXPECT_TRUE(bob().peer()->keypairs.next);
  EXPECT_FALSE(bob().peer()->keypairs.current);
  bob().Send(TestPair::ToAlice());
  EXPECT_TRUE(bob().Take().empty());  // not even an initiation: it has just sent a response (CONF-36)
  alice().Receive(response);
  const Datagram first = alice().TakeOne();
  bob().Receive(first);
  EXPECT_TRUE(bob().peer()->keypairs.current);
  EXPECT_FALSE(bob().peer()->keypairs.next);
  const Datagram waited = bob().TakeOne();
  EXPECT_TRUE(waited.is_data());
  alice().Receive(waited);
  EXPECT_EQ(alice().received, Packets{TestPair::ToAlice()});
}

TEST_F(TunnelTest, BothRolesCountTheBytesOfTheReference_CONF93) {
  for (int ping = 0; ping < 10; ++ping) {
    alice().Send(TestPair::ToBob(84));
    pair_.Drive();
    bob().Send(TestPair::ToAlice(84));
    pair_.Drive();
  }
  // Initiation 148, response 92, ten messages of 96 + 32 each way.
  EXPECT_EQ(alice().view().tx_bytes, 1428u);
  EXPECT_EQ(alice().view().rx_bytes, 1372u);
  EXPECT_EQ(bob().view().rx_bytes, 1428u);
  EXPECT_EQ(bob().view().tx_bytes, 1372u);
}

TEST_F(TunnelTest, ShowsWhenAHandshakeWasCompleted_CONF94) {
  EXPECT_EQ(alice().view().last_handshake, std::nullopt);
  alice().Send(TestPair::ToBob());
  pair_.clock.boot += 1s;
  bob().Receive(alice().TakeOne());
  EXPECT_EQ(alice().view().last_handshake, std::nullopt);
  pair_.clock.boot += 1s;
  alice().Receive(bob().TakeOne());
  EXPECT_EQ(alice().view().last_handshake, (WallTime{TestClock::kWallStart + 2, 0}));
  EXPECT_EQ(bob().view().last_handshake, std::nullopt);  // not complete for the responder before it is confirmed
  pair_.clock.boot += 1s + 5ns;
  pair_.Drive();
  EXPECT_EQ(bob().view().last_handshake, (WallTime{TestClock::kWallStart + 3, 5}));
  EXPECT_EQ(alice().tunnel.handshake_counts().completed, 1u);
  EXPECT_EQ(bob().tunnel.handshake_counts().completed, 1u);
}

// ---- messages at the wrong time

TEST_F(TunnelTest, AReplayedInitiationGetsNoAnswerAndMovesNothing_CONF60) {
  alice().Send(TestPair::ToBob());
  Datagram initiation = alice().TakeOne();
  bob().Receive(initiation);
  pair_.Drive();
  const auto keypairs_current = bob().peer()->keypairs.current;
  const auto rx = bob().view().rx_bytes;
  initiation.from = At("198.51.100.66:6666");
  pair_.clock.boot += 1s;
  for (int i = 0; i < 1000; ++i) bob().Receive(initiation);
  EXPECT_TRUE(bob().Take().empty());
  EXPECT_EQ(bob().drops(DropReason::kHandshakeInvalid), 1000u);
  EXPECT_EQ(bob().peer()->endpoint->remote, alice().address);
  EXPECT_EQ(bob().peer()->keypairs.current, keypairs_current);
  EXPECT_FALSE(bob().peer()->keypairs.next);
  EXPECT_EQ(bob().view().rx_bytes, rx);
  ExpectDataFlowsBothWays();
}

TEST_F(TunnelTest, AReplayedResponseChangesNothing_CONF53) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  Datagram response = bob().TakeOne();
  alice().Receive(response);
  pair_.Drive();
  const auto current = alice().peer()->keypairs.current;
  response.from = At("198.51.100.66:6666");
  alice().Receive(response);
  EXPECT_EQ(alice().drops(DropReason::kHandshakeInvalid), 1u);
  EXPECT_EQ(alice().peer()->keypairs.current, current);
  EXPECT_EQ(alice().peer()->endpoint->remote, bob().address);
  ExpectDataFlowsBothWays();
}

TEST_F(TunnelTest, AnAnswerToASupersededInitiationIsRefused_CONF53) {
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  const Datagram late = bob().TakeOne();
  pair_.Pass(6s, /*is_connected=*/true);  // Alice tried again, and that went through
  ASSERT_TRUE(alice().peer()->keypairs.current);
  const auto current = alice().peer()->keypairs.current;
  alice().Receive(late);
  EXPECT_EQ(alice().drops(DropReason::kHandshakeInvalid), 1u);
  EXPECT_EQ(alice().peer()->keypairs.current, current);
}

TEST_F(TunnelTest, AlteredHandshakesChangeNothing_CONF61) {
  alice().Send(TestPair::ToBob());
  const Datagram initiation = alice().TakeOne();
  for (std::size_t byte = 0; byte < 132; ++byte) {  // mac2 is not looked at without load
    Datagram forged = initiation;
    forged.bytes[byte] ^= 0x80;
    forged.from = At("198.51.100.66:6666");
    bob().Receive(forged);
  }
  EXPECT_EQ(bob().drops(DropReason::kBadMac1) + bob().drops(DropReason::kUnknownMessage), 132u);
  EXPECT_EQ(bob().drops(DropReason::kUnknownMessage), 4u);
  EXPECT_TRUE(bob().sent.empty());
  EXPECT_EQ(bob().view().rx_bytes, 0u);
  EXPECT_EQ(bob().peer()->endpoint->remote, alice().address);
  bob().Receive(initiation);
  const Datagram response = bob().TakeOne();
  for (std::size_t byte = 0; byte < 76; ++byte) {
    Datagram forged = response;
    forged.bytes[byte] ^= 0x80;
    alice().Receive(forged);
  }
  EXPECT_TRUE(alice().Take().empty());
  EXPECT_EQ(alice().view().rx_bytes, 0u);
  alice().Receive(response);
  EXPECT_TRUE(alice().peer()->keypairs.current);
}

TEST_F(TunnelTest, AStrangerGetsNoAnswer) {
  Core mallory(pair_.clock, 66, At("198.51.100.66:6666"));
  mallory.AddPeer(bob().public_key(), {"10.0.0.2/32"}, bob().address);
  mallory.Send(MakePacket("10.0.0.1", "10.0.0.2"));
  bob().Receive(mallory.TakeOne());
  EXPECT_EQ(bob().drops(DropReason::kHandshakeInvalid), 1u);
  EXPECT_TRUE(bob().sent.empty());
  EXPECT_EQ(bob().peer()->endpoint->remote, alice().address);
}

// ---- indices

TEST_F(TunnelTest, EveryHandshakeHasItsOwnRandomIndex_CONF15) {
  std::set<std::uint32_t> seen;
  std::vector<std::uint32_t> of_alice;
  for (int i = 0; i < 200; ++i) {
    pair_.Rekey();
    for (Core* const core : {&alice(), &bob()}) {
      for (const Datagram& datagram : core->sent) {
        if (!datagram.is(MessageType::kInitiation) && !datagram.is(MessageType::kResponse)) continue;
        EXPECT_TRUE(seen.insert(datagram.sender_index()).second);
        if (core == &alice()) of_alice.push_back(datagram.sender_index());
      }
      core->sent.clear(), core->next_to_take = 0;
    }
    EXPECT_LE(alice().exchange.sessions.size(), 3u);
    EXPECT_LE(bob().exchange.sessions.size(), 3u);
  }
  ASSERT_EQ(seen.size(), 400u);
  // Of 200 random numbers about 100 have each bit set; 60 to 140 is more than five standard deviations, and the seed
  // is fixed. A counter or a narrow generator falls out.
  for (unsigned bit = 0; bit < 32; ++bit) {
    const auto set = std::ranges::count_if(of_alice, [bit](std::uint32_t index) { return index >> bit & 1; });
    EXPECT_GE(set, 60) << bit;
    EXPECT_LE(set, 140) << bit;
  }
}

// Yields the given numbers where four bytes are asked for, and anything else by seed.
class ScriptedRandom final : public Random {
 public:
  void Fill(MutableBytes out) override {
    if (out.size() != 4 || script.empty()) return seeded_.Fill(out);
    for (std::size_t i = 0; i < 4; ++i) out[i] = static_cast<std::uint8_t>(script.front() >> 8 * i);
    script.erase(script.begin());
  }
  std::vector<std::uint32_t> script;

 private:
  SeededRandom seeded_{5};
};

TEST_F(TunnelTest, AnIndexInUseIsNotTakenAgain_CONF15) {
  ScriptedRandom random;
  Exchange exchange{ProtocolLimits{}};
  Tunnel tunnel(exchange, random, pair_.clock.boot);
  ControlOutbox out;
  tunnel.SetPrivateKey(PrivateKey::Generate(random), pair_.clock.now(), out);
  tunnel.SetUp(true, pair_.clock.now(), out);
  std::vector<std::shared_ptr<Peer>> peers;
  for (int i = 0; i < 2; ++i) {
    const PublicKey key = PrivateKey::Generate(random).ComputePublicKey();
    ASSERT_TRUE(tunnel.AddPeer(key));
    tunnel.SetEndpoint(key, At("192.0.2.9:9"));
  }
  tunnel.Publish();
  // 7 stands for a session, then 8 for a handshake under way.
  const auto session = std::make_shared<Keypair>(ByteArray<32>{}, ByteArray<32>{}, 7, 0, true, pair_.clock.boot);
  exchange.sessions.Insert(session, exchange.peers.Get()->peers[0]);
  random.script = {7, 8, /*jitter*/ 0, 8, 7, 9, /*jitter*/ 0};
  for (const auto& peer : exchange.peers.Get()->peers) {
    const std::scoped_lock lock(peer->mutex);
    peer->wants_handshake = true;
    exchange.inbox.Push(peer);
  }
  tunnel.HandleInbox(pair_.clock.now(), out);
  ASSERT_EQ(out.to_network.size(), 2u);
  std::vector<std::uint32_t> indices;
  for (const auto& sent : out.to_network) {
    indices.push_back(LoadAs<InitiationMessage>(sent.datagram.bytes.data()).sender_index);
  }
  EXPECT_EQ(indices, (std::vector<std::uint32_t>{8, 9}));
  EXPECT_TRUE(random.script.empty());
}

// ---- one session after another

TEST_F(TunnelTest, ThePreviousSessionStillOpens_CONF52) {
  pair_.Connect();
  alice().Send(TestPair::ToBob(100, 1));
  const Datagram to_bob = alice().TakeOne();
  bob().Send(TestPair::ToAlice(100, 2));
  const Datagram to_alice = bob().TakeOne();
  pair_.Rekey();
  bob().Receive(to_bob);
  alice().Receive(to_alice);
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob(100, 1)});
  EXPECT_EQ(bob().all_drops(), 0u);
}

TEST_F(TunnelTest, TheOneBeforeThePreviousIsGone_CONF51_CONF52) {
  pair_.Connect();
  alice().Send(TestPair::ToBob(100, 1));
  const Datagram old = alice().TakeOne();
  const std::weak_ptr<Keypair> watch = bob().peer()->keypairs.current;
  pair_.Rekey();
  EXPECT_FALSE(watch.expired());
  pair_.Rekey();
  EXPECT_TRUE(watch.expired());
  bob().Receive(old);
  EXPECT_TRUE(bob().received.empty());
  EXPECT_EQ(bob().drops(DropReason::kUnknownReceiver), 1u);
}

TEST_F(TunnelTest, RekeysByAgeWithoutLosingAPacket_CONF22_CONF40) {
  pair_.Connect();
  pair_.clock.boot = TestClock::kStart + 120s - 1ns;
  alice().Send(TestPair::ToBob(100, 1));
  EXPECT_EQ(alice().Take().size(), 1u);
  pair_.clock.boot = TestClock::kStart + 120s;
  alice().Send(TestPair::ToBob(100, 2));
  const auto sent = alice().Take();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_TRUE(sent[0].is_data());  // goes out under the old session
  EXPECT_TRUE(sent[1].is(MessageType::kInitiation));
  alice().Send(TestPair::ToBob(100, 3));
  EXPECT_EQ(alice().Take().size(), 1u);  // not asked for again
  const auto before = alice().peer()->keypairs.current;
  bob().Receive(sent[1]);
  pair_.Drive();
  EXPECT_NE(alice().peer()->keypairs.current, before);
  EXPECT_EQ(alice().peer()->keypairs.previous, before);
  ExpectDataFlowsBothWays();
}

TEST_F(TunnelTest, TheResponderLeavesRekeyingToTheInitiator_CONF40) {
  pair_.Connect();
  for (const Duration age : {Duration(120s), Duration(150s), Duration(180s - 1ns)}) {
    pair_.clock.boot = TestClock::kStart + age;
    bob().Send(TestPair::ToAlice());
    EXPECT_TRUE(bob().TakeOne().is_data());
  }
  pair_.clock.boot = TestClock::kStart + 180s;
  bob().Send(TestPair::ToAlice());
  EXPECT_TRUE(bob().TakeOne().is(MessageType::kInitiation));  // now it has no session
}

TEST_F(TunnelTest, LastMinuteHandshakeOfWhoOnlyReceives_CONF41) {
  pair_.Connect();
  const auto receive_at = [&](Duration age) {
    pair_.clock.boot = TestClock::kStart + age;
    bob().Send(TestPair::ToAlice());
    const auto data = bob().Take();
    const auto before = alice().CountSent(MessageType::kInitiation);
    for (const Datagram& datagram : data) alice().Receive(datagram);
    alice().Take();
    return alice().CountSent(MessageType::kInitiation) - before;
  };
  EXPECT_EQ(receive_at(165s - 1ns), 0u);
  EXPECT_EQ(receive_at(165s), 1u);
  EXPECT_EQ(receive_at(166s), 0u);
  EXPECT_EQ(receive_at(171s), 0u);  // once; the retransmission is the timer's matter
}

TEST_F(TunnelTest, TheResponderMakesNoLastMinuteHandshake_CONF41) {
  pair_.Connect();
  // Data that Alice sealed early arrives late, so that she has no reason to rekey.
  alice().Send(TestPair::ToBob());
  const Datagram data = alice().TakeOne();
  pair_.clock.boot = TestClock::kStart + 179s;
  bob().Receive(data);
  EXPECT_EQ(bob().received.size(), 1u);
  EXPECT_TRUE(bob().Take().empty());
}

TEST(TunnelLimits, RekeysByCountInBothRoles_CONF20_CONF40) {
  ProtocolLimits limits;
  limits.rekey_after_messages = 10;
  TestPair pair(limits);
  pair.Connect();
  const auto initiations_after = [&pair](Core& sender, const Packet& packet, int messages) {
    const auto before = sender.CountSent(MessageType::kInitiation);
    for (int i = 0; i < messages; ++i) sender.Send(packet);
    pair.Drive();
    return sender.CountSent(MessageType::kInitiation) - before;
  };
  pair.clock.boot += 6s;
  EXPECT_EQ(initiations_after(pair.bob, TestPair::ToAlice(), 10), 0u);  // the responder: counters 0 to 9
  EXPECT_EQ(initiations_after(pair.bob, TestPair::ToAlice(), 1), 1u);
  pair.clock.boot += 6s;
  EXPECT_EQ(initiations_after(pair.bob, TestPair::ToAlice(), 9), 0u);  // its confirming keepalive was counter 0
  EXPECT_EQ(initiations_after(pair.bob, TestPair::ToAlice(), 1), 1u);  // now as initiator
  EXPECT_EQ(pair.alice.received.size(), 21u);
}

TEST(TunnelLimits, AtTheLastCounterPacketsWaitForANewSession_CONF21_CONF42) {
  ProtocolLimits limits;
  limits.reject_after_messages = 5;
  TestPair pair(limits);
  pair.Connect();  // counter 0
  pair.clock.boot += 6s;
  const auto first = pair.alice.peer()->keypairs.current;
  for (std::uint8_t i = 1; i <= 4; ++i) {
    pair.alice.Send(TestPair::ToBob(100, i));
    EXPECT_TRUE(pair.alice.TakeOne().is_data());
  }
  pair.alice.Send(TestPair::ToBob(100, 5));
  const Datagram initiation = pair.alice.TakeOne();
  EXPECT_TRUE(initiation.is(MessageType::kInitiation));
  EXPECT_EQ(pair.alice.peer()->staged.size(), 1u);
  pair.bob.Receive(initiation);
  pair.Drive();
  EXPECT_NE(pair.alice.peer()->keypairs.current, first);
  EXPECT_EQ(pair.bob.received, Packets{TestPair::ToBob(100, 5)});
}

// ---- both at once

TEST_F(TunnelTest, SimultaneousInitiationsConverge_CONF54) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    TestPair pair({}, seed);
    pair.alice.Send(TestPair::ToBob());
    pair.bob.Send(TestPair::ToAlice());
    const Datagram from_alice = pair.alice.TakeOne(), from_bob = pair.bob.TakeOne();
    pair.bob.Receive(from_alice);
    pair.alice.Receive(from_bob);
    pair.Drive();
    pair.Pass(16s);  // three more attempts at most
    EXPECT_EQ(pair.bob.received, Packets{TestPair::ToBob()}) << "seed " << seed;
    EXPECT_EQ(pair.alice.received, Packets{TestPair::ToAlice()}) << "seed " << seed;
    ASSERT_TRUE(pair.alice.peer()->keypairs.current && pair.bob.peer()->keypairs.current);
    EXPECT_EQ(pair.alice.peer()->keypairs.current->remote_index, pair.bob.peer()->keypairs.current->local_index);
  }
}

TEST_F(TunnelTest, AnInitiationOvertakenByAResponseDisturbsNothing_CONF54) {
  alice().Send(TestPair::ToBob(100, 1));
  bob().Send(TestPair::ToAlice(100, 2));
  const Datagram from_alice = alice().TakeOne(), from_bob = bob().TakeOne();
  bob().Receive(from_alice);
  pair_.Drive();  // Alice's handshake completes
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob(100, 1)});
  EXPECT_EQ(alice().received, Packets{TestPair::ToAlice(100, 2)});
  alice().Receive(from_bob);  // and only then Bob's initiation arrives
  pair_.Drive();
  ExpectDataFlowsBothWays();
  pair_.Pass(30s);
  ExpectDataFlowsBothWays();
}

TEST_F(TunnelTest, ALostConfirmationIsMadeUpForByTheNextMessage_CONF50) {
  alice().Send(TestPair::ToBob(100, 1));
  bob().Receive(alice().TakeOne());
  alice().Receive(bob().TakeOne());
  pair_.Lose();
  bob().Send(TestPair::ToAlice(100, 2));
  EXPECT_TRUE(bob().Take().empty());
  alice().Send(TestPair::ToBob(100, 3));
  pair_.Drive();
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob(100, 3)});
  EXPECT_EQ(alice().received, Packets{TestPair::ToAlice(100, 2)});
}

// ---- the world around

TEST_F(TunnelTest, HealsWhenThePeerForgotEverything_CONF45) {
  pair_.Connect();
  Core reborn(pair_.clock, 4242, bob().address);
  reborn.SetKey(bob().tunnel.private_key());
  reborn.AddPeer(alice().public_key(), {"10.0.0.1/32"}, std::nullopt);
  const Instant start = pair_.clock.boot += 6s;
  alice().Send(TestPair::ToBob());
  for (const Datagram& datagram : alice().Take()) reborn.Receive(datagram);
  EXPECT_EQ(reborn.drops(DropReason::kUnknownReceiver), 1u);
  while (alice().CountSent(MessageType::kInitiation) < 2) {
    pair_.clock.boot = alice().tunnel.NextTimeout().value();
    alice().HandleTimeouts();
  }
  EXPECT_GE(pair_.clock.boot - start, 15s);
  EXPECT_LE(pair_.clock.boot - start, 15s + 333ms);
  reborn.Receive(alice().TakeOne());
  alice().Receive(reborn.TakeOne());
  for (const Datagram& datagram : alice().Take()) reborn.Receive(datagram);
  alice().Send(TestPair::ToBob());
  reborn.Receive(alice().TakeOne());
  EXPECT_EQ(reborn.received.size(), 1u);
}

TEST_F(TunnelTest, AfterAnHourAsleepTheNextPacketMakesANewSession_CONF58) {
  pair_.Connect();
  ExpectDataFlowsBothWays();
  const std::weak_ptr<Keypair> watch = alice().peer()->keypairs.current;
  alice().sent.clear(), alice().next_to_take = 0;
  pair_.clock.boot += 1h;
  alice().HandleTimeouts();
  bob().HandleTimeouts();
  EXPECT_LE(alice().sent.size(), 1u);  // no storm of timers
  EXPECT_TRUE(watch.expired());
  pair_.Lose();
  pair_.clock.boot += 6s;
  alice().Send(TestPair::ToBob(100, 9));
  EXPECT_TRUE(alice().sent.back().is(MessageType::kInitiation));
  pair_.Drive();
  EXPECT_EQ(bob().received.back(), TestPair::ToBob(100, 9));
}

TEST_F(TunnelTest, AWallClockSetBackBreaksNothing_CONF59) {
  pair_.Connect();
  pair_.clock.wall_shift -= 24h;
  ExpectDataFlowsBothWays();
  pair_.Rekey();
  ExpectDataFlowsBothWays();
  pair_.clock.wall_shift += 48h;
  pair_.Rekey();
  ExpectDataFlowsBothWays();
}

TEST_F(TunnelTest, TwoInitiationsWithinTwentyMillisecondsAreOne_CONF29) {
  // Alice's twin has her key and a clock that is a second ahead, so that its stamp is newer.
  TestClock ahead = pair_.clock;
  ahead.wall_shift = 1s;
  Core twin(ahead, 4242, At("192.0.2.5:5555"));
  twin.SetKey(alice().tunnel.private_key());
  twin.AddPeer(bob().public_key(), {"10.0.0.2/32"}, bob().address);
  alice().Send(TestPair::ToBob());
  twin.Send(TestPair::ToBob());
  const Datagram second = twin.TakeOne();
  bob().Receive(alice().TakeOne());
  EXPECT_EQ(bob().Take().size(), 1u);
  pair_.clock.boot += 20ms - 1ns;
  bob().Receive(second);
  EXPECT_EQ(bob().Take().size(), 0u);
  EXPECT_EQ(bob().peer()->endpoint->remote, alice().address);
  pair_.clock.boot += 1ns;
  bob().Receive(second);
  EXPECT_EQ(bob().Take().size(), 1u);
  EXPECT_EQ(bob().peer()->endpoint->remote, twin.address);
}

}  // namespace
}  // namespace adit
