#include "tunnel/inbound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>
#include <tuple>
#include <vector>

#include "tunnel/ip_packet.h"
#include "tunnel/test_pair.h"

namespace adit {
namespace {

class InboundTest : public testing::Test {
 protected:
  InboundTest() { pair_.Connect(); }

  Core& alice() { return pair_.alice; }
  Core& bob() { return pair_.bob; }

  Datagram FromAlice(const Packet& packet = TestPair::ToBob()) {
    alice().Send(packet);
    return alice().TakeOne();
  }
  Datagram KeepaliveFromAlice() {
    alice().SendStaged(alice().peer(), /*keepalive_if_none=*/true);
    return alice().TakeOne();
  }
  // Sealed with Alice's key whatever it is, as a peer would do that means harm.
  Datagram SealedByAlice(const Packet& plaintext, const std::shared_ptr<Keypair>& keypair) {
    Datagram datagram;
    datagram.from = alice().address;
    datagram.to = bob().address;
    datagram.bytes.resize(sizeof(DataHeader) + plaintext.size() + kAeadTagBytes);
    const std::uint64_t counter = keypair->ReserveCounters(1, {}).value();
    Store(datagram.bytes.data(),
          DataHeader{static_cast<std::uint32_t>(MessageType::kData), keypair->remote_index, counter});
    Packet body = plaintext;
    body.reserve(body.size() + 16);
    SealJob job;
    job.body = body.data();
    job.body_bytes = body.size();
    job.counter = counter;
    job.out = datagram.bytes.data() + sizeof(DataHeader);
    alice().engine->Seal(keypair->send_key, std::span(&job, 1));
    return datagram;
  }
  Datagram SealedByAlice(const Packet& plaintext) { return SealedByAlice(plaintext, alice().peer()->keypairs.current); }

  // All that a datagram could change at Bob's, but for the drop counters.
  auto StateOfBob() {
    const auto peer = bob().peer();
    return std::tuple(peer->endpoint, peer->rx_bytes.load(), peer->tx_bytes.load(), peer->keypairs.previous,
                      peer->keypairs.current, peer->keypairs.next, peer->timers.NextDeadline(),
                      bob().tunnel.NextTimeout(), bob().received, bob().sent.size(), bob().exchange.sessions.size(),
                      bob().view().last_handshake);
  }

  TestPair pair_;
};

// ---- what is no message of ours

TEST_F(InboundTest, DropsWhatIsNoMessageSilently_CONF4_CONF9) {
  const auto before = StateOfBob();
  std::uint64_t count = 0;
  for (std::size_t bytes = 1; bytes <= 200; ++bytes) {
    for (const std::uint8_t type : std::initializer_list<std::uint8_t>{0, 1, 2, 3, 4, 5, 255}) {
      Packet datagram(bytes);
      datagram[0] = type;
      const bool has_its_length = (type == 1 && bytes == 148) || (type == 2 && bytes == 92) ||
                                  (type == 3 && bytes == 64) || (type == 4 && bytes >= 32);
      if (!has_its_length) bob().ReceiveBytes(datagram, alice().address), ++count;
      if (bytes < 4) continue;
      datagram[3] = 1;  // a reserved byte
      bob().ReceiveBytes(datagram, alice().address), ++count;
    }
  }
  EXPECT_EQ(bob().drops(DropReason::kUnknownMessage), count);
  EXPECT_EQ(bob().all_drops(), count);
  EXPECT_EQ(StateOfBob(), before);
}

TEST_F(InboundTest, DropsDataForAnIndexThatIsNotOurs) {
  Datagram datagram = FromAlice();
  const auto before = StateOfBob();
  datagram.bytes[4] ^= 1;
  bob().Receive(datagram);
  EXPECT_EQ(bob().drops(DropReason::kUnknownReceiver), 1u);
  EXPECT_EQ(StateOfBob(), before);
}

// ---- authentication

TEST_F(InboundTest, AnAlteredMessageChangesNothing_CONF77_CONF78) {
  const Datagram genuine = FromAlice();
  const auto before = StateOfBob();
  std::uint64_t altered = 0;
  for (std::size_t bit = 8 * 8; bit < genuine.bytes.size() * 8; ++bit) {  // from the counter on
    Datagram forged = genuine;
    forged.from = At("198.51.100.66:6666");
    forged.bytes[bit / 8] = static_cast<std::uint8_t>(forged.bytes[bit / 8] ^ 1 << bit % 8);
    bob().Receive(forged);
    ++altered;
  }
  for (std::size_t bytes = 32; bytes < genuine.bytes.size(); ++bytes) {
    Datagram cut = genuine;
    cut.bytes.resize(bytes);
    bob().Receive(cut);
    ++altered;
  }
  EXPECT_EQ(bob().drops(DropReason::kBadTag), altered);
  EXPECT_EQ(StateOfBob(), before);
  bob().Receive(genuine);  // the window did not move with the forged counters, of which some were huge
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob()});
}

TEST_F(InboundTest, DeliversAMessageOnce_CONF30_CONF78) {
  const Datagram datagram = FromAlice();
  bob().Receive(datagram);
  const auto after = StateOfBob();
  Datagram again = datagram;
  again.from = At("198.51.100.66:6666");
  pair_.clock.boot += 1s;
  bob().Receive(again);
  EXPECT_EQ(bob().drops(DropReason::kReplayed), 1u);
  EXPECT_EQ(StateOfBob(), after);
  EXPECT_EQ(bob().received.size(), 1u);
}

TEST_F(InboundTest, TakesWhatComesLateWithinTheWindowOnly_CONF30_CONF78) {
  const Datagram first = FromAlice(TestPair::ToBob(84, 1)), second = FromAlice(TestPair::ToBob(84, 2));
  auto& keypair = *alice().peer()->keypairs.current;
  ASSERT_TRUE(keypair.ReserveCounters(second.counter() + 8128 - keypair.next_send_counter(), {}));
  const Datagram late = FromAlice();
  ASSERT_EQ(late.counter() - first.counter(), 8129u);
  bob().Receive(late);
  bob().Receive(first);
  EXPECT_EQ(bob().drops(DropReason::kReplayed), 1u);
  bob().Receive(second);
  EXPECT_EQ(bob().received, (Packets{TestPair::ToBob(), TestPair::ToBob(84, 2)}));
}

TEST_F(InboundTest, KeepsAWindowForEachSession_CONF52_CONF78) {
  FromAlice();  // lost
  const Datagram under_old = FromAlice(TestPair::ToBob(84, 1));
  pair_.Rekey();
  FromAlice();
  const Datagram under_new = FromAlice(TestPair::ToBob(84, 3));
  ASSERT_NE(under_new.receiver_index(), under_old.receiver_index());
  ASSERT_EQ(under_new.counter(), under_old.counter());
  bob().Receive(under_new);
  bob().Receive(under_old);
  EXPECT_EQ(bob().received, (Packets{TestPair::ToBob(84, 3), TestPair::ToBob(84, 1)}));
  EXPECT_EQ(bob().all_drops(), 0u);
}

// ---- the end of a session

TEST_F(InboundTest, OpensNothingFrom180SecondsOn_CONF23_CONF42_CONF58) {
  const Datagram in_time = FromAlice(TestPair::ToBob(84, 1)), too_late = FromAlice(TestPair::ToBob(84, 2));
  pair_.clock.boot = TestClock::kStart + 180s - 1ns;
  bob().Receive(in_time);
  EXPECT_EQ(bob().received.size(), 1u);
  const auto endpoint = bob().peer()->endpoint;
  const auto rx = bob().view().rx_bytes;
  pair_.clock.boot = TestClock::kStart + 180s;
  Datagram from_elsewhere = too_late;
  from_elsewhere.from = At("198.51.100.66:6666");
  bob().Receive(from_elsewhere);
  EXPECT_EQ(bob().drops(DropReason::kKeyExpired), 1u);
  EXPECT_EQ(bob().received.size(), 1u);
  EXPECT_EQ(bob().peer()->endpoint, endpoint);
  EXPECT_EQ(bob().view().rx_bytes, rx);
}

TEST(InboundLimits, TakesNoCounterFromTheLimitOn_CONF21_CONF42) {
  ProtocolLimits low;
  low.reject_after_messages = 5;
  TestPair pair;  // Alice has the usual limits, so she goes on
  Core strict(pair.clock, 99, At("192.0.2.9:9"), low);
  pair.alice.RemovePeer(pair.bob.public_key());
  pair.alice.AddPeer(strict.public_key(), {"10.0.0.2/32"}, strict.address);
  strict.AddPeer(pair.alice.public_key(), {"10.0.0.1/32"}, pair.alice.address);
  pair.alice.BeginHandshake();
  strict.Receive(pair.alice.TakeOne());
  pair.alice.Receive(strict.TakeOne());
  strict.Receive(pair.alice.TakeOne());  // a keepalive with counter 0
  for (std::uint64_t counter = 1; counter < 8; ++counter) {
    pair.alice.Send(TestPair::ToBob());
    const Datagram datagram = pair.alice.TakeOne();
    ASSERT_EQ(datagram.counter(), counter);
    strict.Receive(datagram);
  }
  EXPECT_EQ(strict.received.size(), 4u);  // counters 1 to 4
  EXPECT_EQ(strict.drops(DropReason::kKeyExpired), 3u);
}

// ---- roaming

TEST_F(InboundTest, FollowsThePeerByDataAndByKeepalive_CONF79) {
  Datagram data = FromAlice();
  data.from = At("198.51.100.1:1");
  bob().Receive(data);
  const LocalSource here{bob().address.ip, Core::kInterface};
  EXPECT_EQ(bob().peer()->endpoint, (Endpoint{At("198.51.100.1:1"), here}));
  Datagram keepalive = KeepaliveFromAlice();
  keepalive.from = At("[2001:db8::1]:2");
  bob().Receive(keepalive);
  EXPECT_EQ(bob().peer()->endpoint, (Endpoint{At("[2001:db8::1]:2"), here}));
  bob().Send(TestPair::ToAlice());
  const Datagram answer = bob().TakeOne();
  EXPECT_EQ(answer.to, At("[2001:db8::1]:2"));
  EXPECT_EQ(answer.sent_from, here);
}

TEST_F(InboundTest, RoamsConfirmsAndCountsBeforeItLooksInside_CONF76) {
  pair_.clock.boot += 6s;
  alice().BeginHandshake();
  bob().Receive(alice().TakeOne());
  alice().Receive(bob().TakeOne());
  pair_.Lose();  // what would have confirmed the session
  const auto next = bob().peer()->keypairs.next;
  ASSERT_TRUE(next);
  const auto rx = bob().view().rx_bytes;
  Datagram rubbish = SealedByAlice(Packet(48, 0xee));
  rubbish.from = At("198.51.100.1:1");
  bob().Receive(rubbish);
  EXPECT_EQ(bob().peer()->keypairs.current, next);
  EXPECT_EQ(bob().peer()->endpoint->remote, At("198.51.100.1:1"));
  EXPECT_EQ(bob().view().rx_bytes - rx, rubbish.bytes.size());
  EXPECT_TRUE(bob().peer()->timers.IsSet(Timer::kPassiveKeepalive));
  EXPECT_EQ(bob().drops(DropReason::kMalformedInner), 1u);
  EXPECT_TRUE(bob().received.empty());
}

// ---- what is inside

TEST_F(InboundTest, DropsWhatIsNoIpPacketInside_CONF80) {
  Packet v4_short_total = TestPair::ToBob(), v4_long_total = TestPair::ToBob(), v4_short_header = TestPair::ToBob(),
         v4_long_header = MakePacket("10.0.0.1", "10.0.0.2", 20);
  v4_short_total[3] = 19;
  v4_long_total[3] = 97;  // 84 + 12 of padding are there
  v4_short_header[0] = 0x44;
  v4_long_header[0] = 0x46;
  Packet v6_long = MakePacket("fd00::1", "fd00::2", 48), v6_wraps = v6_long, v6_wraps_more = v6_long;
  v6_long[5] = 9;
  v6_wraps[4] = 0xff, v6_wraps[5] = 0xff;  // 65,535 + 40 is 39 in sixteen bits
  v6_wraps_more[4] = 0xff, v6_wraps_more[5] = 0xe0;
  std::vector<Packet> plaintexts = {Packet(1, 0x45),  Packet(16, 0x45), Packet(19, 0x45), Packet(39, 0x60),
                                    Packet(48, 0x00), Packet(48, 0x50), Packet(48, 0xf0), v4_short_total,
                                    v4_long_total,    v4_short_header,  v4_long_header,   v6_long,
                                    v6_wraps,         v6_wraps_more};
  for (const Packet& plaintext : plaintexts) bob().Receive(SealedByAlice(plaintext));
  EXPECT_EQ(bob().drops(DropReason::kMalformedInner), plaintexts.size());
  EXPECT_EQ(bob().all_drops(), plaintexts.size());
  EXPECT_TRUE(bob().received.empty());
}

TEST_F(InboundTest, TrimsThePaddingAndTouchesNothingElse_CONF80_CONF85) {
  std::vector<Packet> packets;
  for (std::size_t bytes = 20; bytes < 60; ++bytes) packets.push_back(TestPair::ToBob(bytes));
  for (std::size_t bytes = 40; bytes < 80; ++bytes) packets.push_back(MakePacket("fd00::1", "fd00::2", bytes, 0xb8));
  for (const Packet& packet : packets) bob().Receive(FromAlice(packet));
  EXPECT_EQ(bob().received, packets);  // the TTL too
}

TEST_F(InboundTest, TakesAsSourceOnlyWhatThisVeryPeerOwns_CONF75) {
  Core carol(pair_.clock, 77, At("192.0.2.3:3333"));
  bob().tunnel.AllowIp(alice().public_key(), Net("10.1.0.0/24"));
  bob().tunnel.AllowIp(alice().public_key(), Net("fd01::/64"));
  bob().AddPeer(carol.public_key(), {"10.1.0.5/32", "fd01::5/128"}, carol.address);
  const auto from_alice = [&](std::string_view source, std::string_view destination) {
    bob().Receive(FromAlice(MakePacket(source, destination)));
    return bob().drops(DropReason::kSourceNotAllowed);
  };
  EXPECT_EQ(from_alice("10.1.0.4", "10.0.0.2"), 0u);
  EXPECT_EQ(from_alice("10.1.0.5", "10.0.0.2"), 1u);  // inside Alice's prefix, but Carol's
  EXPECT_EQ(from_alice("10.2.0.1", "10.0.0.2"), 2u);  // nobody's
  EXPECT_EQ(from_alice("10.0.0.2", "10.0.0.2"), 3u);
  EXPECT_EQ(from_alice("fd01::4", "fd00::2"), 3u);
  EXPECT_EQ(from_alice("fd01::5", "fd00::2"), 4u);
  EXPECT_EQ(from_alice("::", "fd00::2"), 5u);
  EXPECT_EQ(bob().received.size(), 2u);
}

TEST_F(InboundTest, PassesCongestionOnToWhatUnderstandsIt_CONF83) {
  const auto deliver = [&](std::uint8_t inner, std::uint8_t outer) {
    Datagram datagram = FromAlice(MakePacket("10.0.0.1", "10.0.0.2", 84, inner));
    datagram.tos = outer;
    bob().Receive(datagram);
    return bob().received.back();
  };
  EXPECT_EQ(deliver(0xb8 | 2, 3), MakePacket("10.0.0.1", "10.0.0.2", 84, 0xb8 | 3));  // checksum included
  EXPECT_EQ(deliver(0xb8 | 2, 2), MakePacket("10.0.0.1", "10.0.0.2", 84, 0xb8 | 2));
  EXPECT_EQ(deliver(0xb8, 3), MakePacket("10.0.0.1", "10.0.0.2", 84, 0xb8));  // not dropped, as the kernel
  EXPECT_EQ(deliver(0xb8 | 2, 0xfc | 3), MakePacket("10.0.0.1", "10.0.0.2", 84, 0xb8 | 3));  // no outer DSCP
}

// ---- batches

TEST_F(InboundTest, DeliversABatchInItsOrder_CONF78) {
  std::vector<Packet> packets;
  for (std::uint8_t i = 0; i < 45; ++i) packets.push_back(TestPair::ToBob(1420, i));
  packets.push_back(TestPair::ToBob(100, 45));  // shorter, so the last of the run
  alice().SendBatch(packets);
  std::vector<std::uint8_t> run;
  for (const Datagram& datagram : alice().Take()) run.insert(run.end(), datagram.bytes.begin(), datagram.bytes.end());
  bob().ReceiveBytes(run, alice().address, 0, 1452);
  EXPECT_EQ(bob().received, packets);
}

TEST_F(InboundTest, SortsOutABatchOfEverything_CONF9_CONF78) {
  const auto data_of = [](std::vector<Datagram> datagrams) { return datagrams.front().bytes; };
  std::vector<std::vector<std::uint8_t>> messages;
  alice().Send(TestPair::ToBob(116, 1));
  messages.push_back(data_of(alice().Take()));
  ASSERT_EQ(messages[0].size(), 160u);
  Packet garbage(160, 0x77);
  messages.push_back(garbage);
  alice().Send(TestPair::ToBob(116, 2));
  messages.push_back(data_of(alice().Take()));
  messages.push_back(messages[0]);  // replayed
  messages.push_back(messages[2]);
  messages.back()[20] ^= 1;  // forged
  alice().Send(TestPair::ToBob(116, 3));
  messages.push_back(data_of(alice().Take()));
  messages.back()[4] ^= 1;  // to another index
  Packet initiation(148);
  initiation[0] = 1;
  messages.push_back(initiation);  // mac1 is wrong
  std::vector<std::uint8_t> run;
  for (const auto& message : messages) run.insert(run.end(), message.begin(), message.end());
  bob().ReceiveBytes(run, alice().address, 0, 160);
  EXPECT_EQ(bob().received, (Packets{TestPair::ToBob(116, 1), TestPair::ToBob(116, 2)}));
  for (const auto reason : {DropReason::kUnknownMessage, DropReason::kReplayed, DropReason::kBadTag,
                            DropReason::kUnknownReceiver, DropReason::kBadMac1}) {
    EXPECT_EQ(bob().drops(reason), 1u) << Name(reason);
  }
  EXPECT_EQ(bob().all_drops(), 5u);
}

TEST_F(InboundTest, CountsAuthenticMessagesAsTheyCame_CONF93) {
  const auto before = bob().view().rx_bytes;
  bob().Receive(FromAlice(TestPair::ToBob(84)));  // 96 with padding
  EXPECT_EQ(bob().view().rx_bytes - before, 128u);
  bob().Receive(KeepaliveFromAlice());
  EXPECT_EQ(bob().view().rx_bytes - before, 160u);
}

TEST_F(InboundTest, AFullHandshakeQueueStopsNoData_CONF32_CONF71) {
  Packet initiation(148);
  initiation[0] = 1;
  for (std::size_t i = 0; i < kHandshakeQueueLength + 10; ++i) {
    Packet copy = initiation;
    bob().inbound.Process(copy, copy.size(), Endpoint{At("203.0.113.1:1"), {}}, 0, pair_.clock.boot, *bob().engine);
    EXPECT_EQ(bob().inbound.wake_control(), i == 0);
    bob().inbound.Clear();
  }
  EXPECT_EQ(bob().drops(DropReason::kHandshakeQueueFull), 10u);
  Datagram data = FromAlice();
  bob().inbound.Process(data.bytes, data.bytes.size(), Endpoint{data.from, {}}, 0, pair_.clock.boot, *bob().engine);
  ASSERT_EQ(bob().inbound.packets().size(), 1u);
  EXPECT_EQ(Packet(bob().inbound.packets()[0].begin(), bob().inbound.packets()[0].end()), TestPair::ToBob());
  bob().inbound.Clear();
}

TEST_F(InboundTest, AsksForWhatWaitsToBeSentOnceTheSessionIsConfirmed_CONF50) {
  TestPair fresh({}, 5);
  fresh.alice.Send(TestPair::ToBob());
  fresh.bob.Receive(fresh.alice.TakeOne());
  const Datagram response = fresh.bob.TakeOne();
  fresh.bob.Send(TestPair::ToAlice(100, 1));
  fresh.bob.Send(TestPair::ToAlice(100, 2));
  EXPECT_TRUE(fresh.bob.Take().empty());
  EXPECT_EQ(fresh.bob.peer()->staged.size(), 2u);
  fresh.alice.Receive(response);
  fresh.Drive();
  EXPECT_EQ(fresh.alice.received, (Packets{TestPair::ToAlice(100, 1), TestPair::ToAlice(100, 2)}));
  EXPECT_EQ(fresh.bob.received, Packets{TestPair::ToBob()});
}

}  // namespace
}  // namespace adit
