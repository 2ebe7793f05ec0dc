// What a change of the configuration does to sessions, handshakes and what waits.
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "tunnel/test_pair.h"

namespace adit {
namespace {

class TunnelConfig : public testing::Test {
 protected:
  Core& alice() { return pair_.alice; }
  Core& bob() { return pair_.bob; }
  void Forget() {
    for (Core* const core : {&alice(), &bob()}) core->sent.clear(), core->next_to_take = 0;
  }

  TestPair pair_;
};

// ---- private key

TEST_F(TunnelConfig, ANewPrivateKeyEndsAllSessionsAndHandshakesGoOnAtOnce_CONF55_CONF95) {
  pair_.Connect();
  bob().Send(TestPair::ToAlice());
  const Datagram under_old_key = bob().TakeOne();
  const std::weak_ptr<Keypair> watch = alice().peer()->keypairs.current;
  const PublicKey old_key = alice().public_key();
  alice().SetKey(PrivateKey::Generate(alice().random));
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(alice().exchange.sessions.size(), 0u);
  alice().Receive(under_old_key);
  EXPECT_TRUE(alice().received.empty());
  bob().RemovePeer(old_key);
  bob().AddPeer(alice().public_key(), {"10.0.0.1/32"}, alice().address);
  alice().Send(TestPair::ToBob());  // no five seconds since the last handshake
  pair_.Drive();
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob()});
}

TEST_F(TunnelConfig, ANewPrivateKeyBeginsTheHandshakeThatSomethingWaitsFor_CONF55) {
  alice().Send(TestPair::ToBob());
  const Datagram useless = alice().TakeOne();
  const PublicKey old_key = alice().public_key();
  alice().SetKey(PrivateKey::Generate(alice().random));
  bob().RemovePeer(old_key);
  bob().AddPeer(alice().public_key(), {"10.0.0.1/32"}, alice().address);
  bob().Receive(useless);
  EXPECT_TRUE(bob().Take().empty());
  pair_.Drive();
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob()});
}

TEST_F(TunnelConfig, TheSamePrivateKeyAgainChangesNothing_CONF16_CONF55) {
  pair_.Connect();
  const auto current = alice().peer()->keypairs.current;
  alice().SetKey(alice().tunnel.private_key());
  EXPECT_EQ(alice().peer()->keypairs.current, current);
}

TEST_F(TunnelConfig, WithoutAPrivateKeyThereIsNoHandshakeInEitherRole_CONF55) {
  alice().SetKey(PrivateKey());
  alice().Send(TestPair::ToBob());
  pair_.PassInSilence(10s);
  EXPECT_TRUE(alice().sent.empty());
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  EXPECT_TRUE(alice().sent.empty());
  EXPECT_EQ(alice().peer()->staged.size(), 1u);
}

TEST_F(TunnelConfig, ThePeerWithOurOwnKeyIsRemovedAndRefused_CONF55_CONF101) {
  const PrivateKey bobs = bob().tunnel.private_key();
  EXPECT_FALSE(bob().tunnel.AddPeer(bob().public_key()));
  EXPECT_EQ(bob().tunnel.peer_count(), 1u);
  alice().Send(TestPair::ToBob());
  alice().SetKey(bobs);
  EXPECT_EQ(alice().tunnel.peer_count(), 0u);
  EXPECT_EQ(alice().exchange.staged_bytes, 0u);
  alice().Send(TestPair::ToBob());
  EXPECT_EQ(alice().drops(DropReason::kNoPeerForDestination), 1u);
}

// ---- preshared key

TEST_F(TunnelConfig, ANewPresharedKeyKeepsTheSessionAndCountsAtTheNextHandshake_CONF13_CONF56) {
  pair_.Connect();
  const auto current = alice().peer()->keypairs.current;
  const PresharedKey psk(Bytes(ByteArray<32>{1, 2, 3}));
  alice().tunnel.SetPresharedKey(bob().public_key(), psk);
  EXPECT_EQ(alice().peer()->keypairs.current, current);
  alice().Send(TestPair::ToBob());
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  EXPECT_EQ(bob().received.size(), 1u);
  EXPECT_EQ(alice().received.size(), 1u);

  pair_.clock.boot += 180s;  // a new session is needed, and Bob does not know the key
  Forget();
  alice().Send(TestPair::ToBob());
  pair_.Pass(10s);
  EXPECT_EQ(bob().received.size(), 1u);
  EXPECT_GE(alice().drops(DropReason::kHandshakeInvalid), 1u);
  EXPECT_EQ(alice().peer()->staged.size(), 1u);
  bob().tunnel.SetPresharedKey(alice().public_key(), psk);
  pair_.Pass(6s);
  EXPECT_EQ(bob().received.size(), 2u);
  EXPECT_EQ(alice().view().preshared_key, psk);
}

// ---- up and down

TEST_F(TunnelConfig, DownForgetsSessionsHandshakesTimersAndWhatWaits_CONF57_CONF95) {
  pair_.Connect();
  alice().SetKeepalive(bob().public_key(), 25s);
  pair_.Drive();
  const std::weak_ptr<Keypair> watch = alice().peer()->keypairs.current;
  pair_.clock.boot += 200s;
  alice().Send(TestPair::ToBob());
  const Datagram initiation = alice().TakeOne();
  bob().Receive(initiation);
  const Datagram response = bob().TakeOne();
  alice().SetUp(false);
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(alice().exchange.sessions.size(), 0u);
  EXPECT_EQ(alice().tunnel.NextTimeout(), std::nullopt);
  EXPECT_TRUE(alice().peer()->staged.empty());
  EXPECT_EQ(alice().exchange.staged_bytes, 0u);
  EXPECT_EQ(alice().drops(DropReason::kStagedExpired), 1u);
  alice().Receive(response);
  EXPECT_FALSE(alice().peer()->keypairs.current);
  alice().Send(TestPair::ToBob());
  pair_.PassInSilence(100s);
  EXPECT_TRUE(alice().Take().empty());
  EXPECT_EQ(alice().view().persistent_keepalive, 25s);  // configuration stays
}

TEST_F(TunnelConfig, UpSendsKeepalivesAtOnce_CONF47_CONF57) {
  pair_.Connect();
  alice().SetKeepalive(bob().public_key(), 25s);
  pair_.Drive();
  alice().SetUp(false);
  pair_.clock.boot += 1s;
  Forget();
  alice().SetUp(true);
  ASSERT_EQ(alice().sent.size(), 1u);  // it needs a session first; that there was a handshake lately does not matter
  EXPECT_TRUE(alice().sent[0].is(MessageType::kInitiation));
  pair_.Drive();
  EXPECT_TRUE(alice().sent.back().is_keepalive());
  EXPECT_TRUE(bob().peer()->keypairs.current);
}

TEST_F(TunnelConfig, UpSendsWhatCameWhileDown_CONF57) {
  alice().SetUp(false);
  alice().Send(TestPair::ToBob());
  EXPECT_TRUE(alice().sent.empty());
  alice().SetUp(true);
  pair_.Drive();
  EXPECT_EQ(bob().received, Packets{TestPair::ToBob()});
}

TEST_F(TunnelConfig, UpIsSilentWithoutAReason_CONF57) {
  alice().SetUp(false);
  alice().SetUp(true);
  alice().SetUp(true);
  EXPECT_TRUE(alice().sent.empty());
}

// ---- peers

TEST_F(TunnelConfig, ARemovedPeerNeitherSendsNorReceives_CONF95) {
  pair_.Connect();
  alice().Send(TestPair::ToBob());
  const Datagram data = alice().TakeOne();
  const auto gone = bob().peer();
  const std::weak_ptr<Keypair> watch = gone->keypairs.current;
  bob().RemovePeer(alice().public_key());
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(bob().exchange.sessions.size(), 0u);
  EXPECT_EQ(bob().tunnel.NextTimeout(), std::nullopt);
  bob().Receive(data);
  EXPECT_EQ(bob().drops(DropReason::kUnknownReceiver), 1u);
  bob().Send(TestPair::ToAlice());
  EXPECT_EQ(bob().icmp_answers.size(), 1u);
  // Who still holds the peer gets nothing from it either.
  bob().SendStaged(gone, /*keepalive_if_none=*/true);
  EXPECT_TRUE(bob().Take().empty());
  pair_.clock.boot += 200s;
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  EXPECT_EQ(bob().drops(DropReason::kHandshakeInvalid), 1u);
  EXPECT_TRUE(bob().Take().empty());
  EXPECT_TRUE(bob().received.empty());
}

TEST_F(TunnelConfig, ARemovedPeersPacketsGoWithIt) {
  alice().Send(TestPair::ToBob());
  EXPECT_EQ(alice().exchange.staged_bytes, 84u);
  alice().RemovePeer(bob().public_key());
  EXPECT_EQ(alice().exchange.staged_bytes, 0u);
  alice().AddPeer(bob().public_key(), {"10.0.0.2/32"}, bob().address);
  EXPECT_TRUE(alice().peer()->staged.empty());
  EXPECT_EQ(alice().view().rx_bytes, 0u);
}

TEST_F(TunnelConfig, APeerAddedAgainWorksAtOnce) {
  pair_.Connect();
  bob().RemovePeer(alice().public_key());
  bob().AddPeer(alice().public_key(), {"10.0.0.1/32"}, alice().address);
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  EXPECT_EQ(alice().received, Packets{TestPair::ToAlice()});
}

TEST_F(TunnelConfig, TakesAsManyPeersAsItPromisesAndNoMore_CONF33) {
  Exchange exchange{ProtocolLimits{}};
  SeededRandom random(1);
  Tunnel tunnel(exchange, random, pair_.clock.boot);
  PublicKey key;
  const auto number = [&key](std::uint32_t i) -> const PublicKey& {
    for (std::size_t byte = 0; byte < 4; ++byte) key.bytes[byte] = static_cast<std::uint8_t>(i >> 8 * byte);
    return key;
  };
  for (std::uint32_t i = 1; i <= 65'536; ++i) ASSERT_TRUE(tunnel.AddPeer(number(i)));
  EXPECT_FALSE(tunnel.AddPeer(number(65'537)));
  EXPECT_TRUE(tunnel.AddPeer(number(1)));  // is there already
  EXPECT_EQ(tunnel.peer_count(), 65'536u);
  tunnel.RemovePeer(number(1));
  EXPECT_TRUE(tunnel.AddPeer(number(65'537)));
}

TEST_F(TunnelConfig, APeerWithAKeyOfLowOrderIsTakenAndNothingIsEverSentToIt_CONF18) {
  PublicKey zero, one, minus_one;
  one.bytes[0] = 1;
  minus_one.bytes.fill(0xff);
  minus_one.bytes[0] = 0xec;
  minus_one.bytes[31] = 0x7f;
  Core core(pair_.clock, 7, At("192.0.2.7:7"));
  core.AddPeer(zero, {"10.0.1.0/32"}, bob().address);
  core.AddPeer(one, {"10.0.1.1/32"}, bob().address);
  core.AddPeer(minus_one, {"10.0.1.2/32"}, bob().address);
  for (const auto* const destination : {"10.0.1.0", "10.0.1.1", "10.0.1.2"}) {
    core.Send(MakePacket("10.0.0.1", destination));
  }
  for (const PublicKey& key : {zero, one, minus_one}) core.SetKeepalive(key, 1s);
  for (int second = 0; second < 20; ++second) {
    pair_.clock.boot += 1s;
    core.HandleTimeouts();
  }
  EXPECT_TRUE(core.sent.empty());
}

TEST_F(TunnelConfig, AnAllowedIpMovesToWhoeverGotItLast_CONF75_CONF100) {
  pair_.Connect();
  Core carol(pair_.clock, 77, At("192.0.2.3:3333"));
  bob().AddPeer(carol.public_key(), {"10.0.0.1/32"}, carol.address);
  alice().Send(TestPair::ToBob());
  bob().Receive(alice().TakeOne());
  EXPECT_EQ(bob().drops(DropReason::kSourceNotAllowed), 1u);
  bob().Send(TestPair::ToAlice());
  EXPECT_EQ(bob().TakeOne().to, carol.address);
}

TEST_F(TunnelConfig, ANewEndpointIsUsedAtOnceAndForgetsTheSource) {
  pair_.Connect();
  alice().tunnel.SetEndpoint(bob().public_key(), bob().address);
  EXPECT_TRUE(alice().peer()->endpoint->source.is_set());  // it is no other
  alice().tunnel.SetEndpoint(bob().public_key(), At("[2001:db8::1]:1"));
  alice().Send(TestPair::ToBob());
  const Datagram datagram = alice().TakeOne();
  EXPECT_EQ(datagram.to, At("[2001:db8::1]:1"));
  EXPECT_EQ(datagram.sent_from, LocalSource{});
}

TEST_F(TunnelConfig, ForgetsSourcesWhenAddressesChange_CONF89) {
  pair_.Connect();
  alice().tunnel.ForgetSources();
  alice().Send(TestPair::ToBob());
  const Datagram datagram = alice().TakeOne();
  EXPECT_EQ(datagram.sent_from, LocalSource{});
  EXPECT_EQ(datagram.to, bob().address);
}

TEST_F(TunnelConfig, AFailedHandshakeSendIsTriedAgain_CONF82_CONF93) {
  alice().can_send = false;
  alice().Send(TestPair::ToBob());
  EXPECT_EQ(alice().drops(DropReason::kSendFailed), 1u);
  EXPECT_EQ(alice().view().tx_bytes, 0u);
  alice().can_send = true;
  pair_.Pass(6s);
  EXPECT_EQ(bob().received.size(), 1u);
}

}  // namespace
}  // namespace adit
