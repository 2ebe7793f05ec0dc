// What a review found broken, each as the story that showed it.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tunnel/test_pair.h"

namespace adit {
namespace {

TEST(Regression, PersistentKeepaliveOfOneSecondNeverGivesUp_CONF37_CONF47) {
  TestPair pair;
  pair.alice.SetKeepalive(pair.bob.public_key(), 1s);
  pair.PassInSilence(600s);
  // One in at most 5.333 s, for ten minutes: it was 20, and then silence for ever.
  EXPECT_GE(pair.alice.CountSent(MessageType::kInitiation), 110u);
  pair.Pass(6s);
  EXPECT_TRUE(pair.alice.peer()->keypairs.current);
}

TEST(Regression, TrafficPutsOffGivingUp_CONF37) {
  TestPair pair;
  for (int i = 0; i < 40; ++i) {
    pair.alice.Send(TestPair::ToBob());
    pair.PassInSilence(7s);
  }
  EXPECT_EQ(pair.alice.drops(DropReason::kStagedExpired), 0u);
  pair.Pass(6s);
  EXPECT_FALSE(pair.bob.received.empty());
}

TEST(Regression, SimultaneousHandshakesOverASlowPathConverge_CONF54) {
  TestPair pair;
  pair.alice.Send(TestPair::ToBob());
  pair.bob.Send(TestPair::ToAlice());
  const auto from_alice = pair.alice.Take();
  const auto from_bob = pair.bob.Take();
  // Longer on the way than any jitter: each side's own retry comes less than 5 s after its response to the other.
  pair.PassInSilence(400ms);
  for (const Datagram& datagram : from_alice) pair.Deliver(datagram);
  for (const Datagram& datagram : from_bob) pair.Deliver(datagram);
  pair.Drive();
  pair.Pass(12s);
  EXPECT_EQ(pair.bob.received.size(), 1u);
  EXPECT_EQ(pair.alice.received.size(), 1u);
}

TEST(Regression, KeepaliveWithoutAnEndpointGoesOutOnceThereIsOne_CONF47) {
  InitializeCrypto();
  TestClock clock;
  Core core(clock, 1, At(TestPair::kAliceAt));
  SeededRandom random(2);
  const PublicKey key = PrivateKey::Generate(random).ComputePublicKey();
  core.AddPeer(key, {"10.0.0.2/32"}, std::nullopt);
  core.SetKeepalive(key, 25s);
  EXPECT_TRUE(core.Take().empty());
  core.tunnel.SetEndpoint(key, At(TestPair::kBobAt));
  core.tunnel.SendWaiting(key, core.outbox);
  core.Settle();
  EXPECT_EQ(core.CountSent(MessageType::kInitiation), 1u);
}

TEST(Regression, NewKeepaliveGoesOutOnceThoughPacketsWaitToo) {
  TestPair pair;
  pair.Connect();
  ControlOutbox out;
  pair.alice.tunnel.SetPersistentKeepalive(pair.bob.public_key(), 25s, pair.clock.now(), out);
  pair.alice.tunnel.SendWaiting(pair.bob.public_key(), out);
  EXPECT_EQ(out.to_flush.size(), 1u);
}

TEST(Regression, NothingToSendTellsTheTimersNothing_CONF43) {
  TestPair pair;
  pair.Connect();
  pair.bob.Send(TestPair::ToAlice());
  pair.Drive();
  ASSERT_TRUE(pair.alice.peer()->timers.IsSet(Timer::kPassiveKeepalive));
  const std::size_t before = pair.alice.sent.size();
  pair.alice.SendStaged(pair.alice.peer(), /*keepalive_if_none=*/false);
  EXPECT_EQ(pair.alice.sent.size(), before);
  EXPECT_TRUE(pair.alice.peer()->timers.IsSet(Timer::kPassiveKeepalive));
  EXPECT_EQ(pair.alice.peer()->keypairs.current->next_send_counter(), 1u);
}

// UDP from our port to the peer's endpoint, as the TUN gets it when a route leads it there.
Packet OwnDatagram(std::string_view from, std::string_view to, std::uint16_t from_port, std::uint16_t to_port) {
  Packet packet = MakePacket(from, to, 200);
  const std::size_t ports = packet[0] >> 4 == 4 ? 20 : 40;
  Store(&packet[ports], U16Be(from_port));
  Store(&packet[ports + 2], U16Be(to_port));
  return packet;
}

TEST(Regression, OwnDatagramsInTheTunEndThere) {
  TestPair pair;
  Core& alice = pair.alice;
  alice.tunnel.AllowIp(pair.bob.public_key(), Net("192.0.2.2/32"));
  alice.tunnel.Publish();
  alice.exchange.own_port = 1111;
  const Packet own = OwnDatagram("192.0.2.1", "192.0.2.2", 1111, 2222);
  alice.Send(own);  // the initiation itself, before there is a session
  EXPECT_EQ(alice.drops(DropReason::kLoop), 1u);
  EXPECT_EQ(alice.exchange.staged_bytes.load(), 0u);
  pair.Drive();
  pair.Connect();

  // To the same host, but not what we sent: another port on either side, a later fragment, another protocol.
  Packet fragment = own, tcp = own;
  fragment[7] = 1;
  tcp[9] = 6;
  const std::vector<Packet> others{OwnDatagram("192.0.2.1", "192.0.2.2", 1112, 2222), fragment,
                                   OwnDatagram("192.0.2.1", "192.0.2.2", 1111, 2223), tcp};
  std::vector<Packet> batch;
  for (const Packet& other : others) batch.push_back(own), batch.push_back(other);
  alice.next_to_take = alice.sent.size();
  alice.SendBatch(batch);
  EXPECT_EQ(alice.drops(DropReason::kLoop), 1u + others.size());
  EXPECT_EQ(alice.Take().size(), others.size());
}

TEST(Regression, OwnDatagramsOverIpv6EndInTheTunToo) {
  TestPair pair;
  Core& alice = pair.alice;
  alice.tunnel.SetEndpoint(pair.bob.public_key(), At("[2001:db8::2]:2222"));
  alice.tunnel.AllowIp(pair.bob.public_key(), Net("2001:db8::2/128"));
  alice.tunnel.Publish();
  alice.exchange.own_port = 1111;
  alice.Send(OwnDatagram("2001:db8::1", "2001:db8::2", 1111, 2222));
  EXPECT_EQ(alice.drops(DropReason::kLoop), 1u);
  alice.Send(OwnDatagram("2001:db8::1", "2001:db8::2", 1111, 53));
  EXPECT_EQ(alice.drops(DropReason::kLoop), 1u);
  EXPECT_GT(alice.exchange.staged_bytes.load(), 0u);
}

// The first peer has all addresses, and what we sent to the second is led to it.
TEST(Regression, OwnDatagramsToAnotherPeerEndInTheTunToo_SCENARIO3) {
  TestPair pair;
  Core& alice = pair.alice;
  alice.tunnel.AllowIp(pair.bob.public_key(), Net("0.0.0.0/0"));
  pair.Connect();
  SeededRandom random(4);
  const PublicKey carol = PrivateKey::Generate(random).ComputePublicKey();
  alice.AddPeer(carol, {"10.7.0.0/16"}, At("203.0.113.9:3333"));
  alice.exchange.own_port = 1111;
  const Packet own = OwnDatagram("192.0.2.1", "203.0.113.9", 1111, 3333);
  const Packet other = OwnDatagram("192.0.2.1", "203.0.113.9", 1111, 3334);
  alice.next_to_take = alice.sent.size();
  alice.SendBatch({own, other, own, own, other});
  EXPECT_EQ(alice.drops(DropReason::kLoop), 3u);
  EXPECT_EQ(alice.Take().size(), 2u);
  // Where it is now counts, not where it was a batch ago.
  alice.tunnel.SetEndpoint(carol, At("203.0.113.9:3334"));
  alice.SendBatch({own, other});
  EXPECT_EQ(alice.drops(DropReason::kLoop), 4u);
  EXPECT_EQ(alice.Take().size(), 1u);
}

// A data thread looks for a session, finds none, and stages: between the two the control thread or the other data
// thread may do anything. These run both at once, many times; `spin` moves one against the other.
// A timer that served a peer took its place in the inbox from it, though it still stood there: news put it there again.
TEST(Regression, APeerServedByItsTimerStandsInTheInboxOnce) {
  TestPair pair;
  Core& alice = pair.alice;
  const auto push = [&] {
    const std::scoped_lock lock(alice.peer()->mutex);
    alice.exchange.inbox.Push(alice.peer());
  };
  alice.Send(TestPair::ToBob());
  pair.Lose();
  push();
  pair.clock.boot += 6s;
  ControlOutbox out;
  alice.tunnel.HandleTimeouts(pair.clock.now(), out);
  EXPECT_EQ(out.to_network.size(), 1u);
  push();
  EXPECT_EQ(alice.exchange.inbox.Pop(), alice.peer());
  EXPECT_TRUE(alice.exchange.inbox.empty());
  push();
  EXPECT_FALSE(alice.exchange.inbox.empty());
}

class StagingRace : public ::testing::Test {
 protected:
  static constexpr int kRounds = 400;

  template <typename Other>
  static void Race(Core& core, int round, Other&& other) {
    std::atomic<bool> go{false};
    std::thread thread([&] {
      while (!go.load(std::memory_order_acquire)) {
      }
      for (std::atomic<int> spin = round * 37 % 20'000; spin > 0; --spin) {
      }
      other();
    });
    std::vector<Packet> packets;
    for (int i = 0; i < 120; ++i) packets.push_back(TestPair::ToBob(1420));
    go.store(true, std::memory_order_release);
    for (Packet& packet : packets) {
      packet.reserve(packet.size() + StagedPacket::kScratchBytes);
      ASSERT_TRUE(core.outbound.Add({}, packet, TestClock::kStart));
    }
    core.outbound.Flush(TestClock::kStart, *core.engine);
    core.outbound.Clear();
    thread.join();
  }
};

TEST_F(StagingRace, LeavesNoBytesCountedForARemovedPeer) {
  InitializeCrypto();
  TestClock clock;
  Core core(clock, 1, At(TestPair::kAliceAt));
  SeededRandom random(2);
  for (int round = 0; round < kRounds; ++round) {
    const PublicKey key = PrivateKey::Generate(random).ComputePublicKey();
    core.AddPeer(key, {"10.0.0.2/32"}, At(TestPair::kBobAt));
    Race(core, round, [&] { core.tunnel.RemovePeer(key); });
    core.tunnel.Publish();
    core.tunnel.HandleInbox(clock.now(), core.outbox);
    core.outbox.Clear();
    ASSERT_EQ(core.exchange.staged_bytes.load(), 0u) << "round " << round;
  }
}

TEST_F(StagingRace, LeavesNothingWaitingForASessionThatIsThere_CONF50) {
  InitializeCrypto();
  TestClock clock;
  Core core(clock, 1, At(TestPair::kAliceAt));
  SeededRandom random(2);
  for (int round = 0; round < kRounds; ++round) {
    const PublicKey key = PrivateKey::Generate(random).ComputePublicKey();
    core.AddPeer(key, {"10.0.0.2/32"}, At(TestPair::kBobAt));
    const auto peer = core.peer();
    const SecretArray<32> zeros;
    const auto next = std::make_shared<Keypair>(zeros, zeros, 1u, 2u, /*initiator=*/false, clock.boot);
    {
      const std::scoped_lock lock(peer->mutex);
      peer->keypairs.Install(next, peer->retired);
    }
    ReceiveVerdict verdict;
    Race(core, round, [&] {
      bool wake = false;
      const ReceivedFacts facts{Endpoint{At(TestPair::kBobAt), {}}, /*has_data=*/false};
      verdict = OnReceived(peer, next, facts, clock.boot, core.exchange.inbox, wake);
    });
    if (!verdict.flush_staged) {
      ASSERT_TRUE(peer->staged.empty()) << "round " << round;
    }
    core.RemovePeer(key);
    core.next_to_take = core.sent.size();
  }
}

}  // namespace
}  // namespace adit
