#include "tunnel/outbound.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "tunnel/ip_packet.h"
#include "tunnel/test_pair.h"

namespace adit {
namespace {

class OutboundTest : public testing::Test {
 protected:
  Core& alice() { return pair_.alice; }
  Core& bob() { return pair_.bob; }

  // What Alice sealed, with its padding. The message was not delivered.
  Packet OpenAtBob(const Datagram& datagram) {
    Packet bytes(datagram.bytes.begin() + sizeof(DataHeader), datagram.bytes.end());
    OpenJob job{.data = bytes.data(), .bytes = bytes.size(), .counter = datagram.counter()};
    bob().engine->Open(bob().peer()->keypairs.current->receive_key, std::span(&job, 1));
    EXPECT_TRUE(job.is_authentic);
    bytes.resize(bytes.size() - kAeadTagBytes);
    return bytes;
  }

  TestPair pair_;
};

// ---- to whom

TEST_F(OutboundTest, SendsToTheOwnerOfTheLongestPrefix_CONF74) {
  Core carol(pair_.clock, 77, At("192.0.2.3:3333"));
  alice().AddPeer(carol.public_key(), {"10.0.0.0/24", "0.0.0.0/0", "fd00::/64"}, carol.address);
  carol.AddPeer(alice().public_key(), {"0.0.0.0/0", "::/0"}, alice().address);
  const auto to_bob = alice().peer(bob().public_key()), to_carol = alice().peer(carol.public_key());
  alice().Send(MakePacket("10.0.0.1", "10.0.0.2"));
  alice().Send(MakePacket("fd00::1", "fd00::2"));
  EXPECT_EQ(to_bob->staged.size(), 2u);
  EXPECT_EQ(to_carol->staged.size(), 0u);
  alice().Send(MakePacket("10.0.0.1", "10.0.0.3"));
  alice().Send(MakePacket("10.0.0.1", "203.0.113.1"));
  alice().Send(MakePacket("fd00::1", "fd00::3"));
  EXPECT_EQ(to_bob->staged.size(), 2u);
  EXPECT_EQ(to_carol->staged.size(), 3u);
}

TEST_F(OutboundTest, OneBatchServesSeveralPeersInOrder) {
  Core carol(pair_.clock, 77, At("192.0.2.3:3333"));
  alice().AddPeer(carol.public_key(), {"10.0.0.3/32"}, carol.address);
  carol.AddPeer(alice().public_key(), {"10.0.0.1/32"}, alice().address);
  const auto deliver = [&] {
    for (bool moved = true; moved;) {
      moved = false;
      for (Core* const sender : {&alice(), &bob(), &carol}) {
        for (const Datagram& datagram : sender->Take()) {
          for (Core* const receiver : {&alice(), &bob(), &carol}) {
            if (receiver->address == datagram.to) receiver->Receive(datagram);
          }
          moved = true;
        }
      }
    }
  };
  std::vector<Packet> batch;
  for (std::uint8_t i = 0; i < 12; ++i)
    batch.push_back(MakePacket("10.0.0.1", i % 3 ? "10.0.0.2" : "10.0.0.3", 100, 0, i));
  alice().SendBatch(batch);  // staged
  deliver();
  alice().SendBatch(batch);  // at once
  deliver();
  std::vector<Packet> for_bob, for_carol;
  for (int round = 0; round < 2; ++round) {
    for (std::size_t i = 0; i < batch.size(); ++i) (i % 3 ? for_bob : for_carol).push_back(batch[i]);
  }
  EXPECT_EQ(bob().received, for_bob);
  EXPECT_EQ(carol.received, for_carol);
}

// ---- to nobody

TEST_F(OutboundTest, AnswersWhatNoPeerTakes_CONF87) {
  alice().Send(MakePacket("10.0.0.1", "10.9.9.9"));
  alice().Send(MakePacket("fd00::1", "fd99::9"));
  EXPECT_EQ(alice().drops(DropReason::kNoPeerForDestination), 2u);
  ASSERT_EQ(alice().icmp_answers.size(), 2u);
  const auto v4 = ParseIp(alice().icmp_answers[0]), v6 = ParseIp(alice().icmp_answers[1]);
  ASSERT_TRUE(v4 && v6);
  EXPECT_EQ(v4->destination_address(), Ip("10.0.0.1"));
  EXPECT_EQ(alice().icmp_answers[0][20], 3);  // destination unreachable
  EXPECT_EQ(alice().icmp_answers[0][21], 1);  // host
  EXPECT_EQ(v6->destination_address(), Ip("fd00::1"));
  EXPECT_EQ(alice().icmp_answers[1][40], 1);  // destination unreachable
  EXPECT_EQ(alice().icmp_answers[1][41], 3);  // address
  EXPECT_TRUE(alice().sent.empty());
}

TEST_F(OutboundTest, AnswersForAPeerWhoseAddressIsUnknown_CONF87) {
  Core carol(pair_.clock, 77, At("192.0.2.3:3333"));
  alice().AddPeer(carol.public_key(), {"10.0.0.3/32", "fd00::3/128"}, std::nullopt);
  alice().Send(MakePacket("10.0.0.1", "10.0.0.3"));
  alice().Send(MakePacket("fd00::1", "fd00::3"));
  EXPECT_EQ(alice().drops(DropReason::kNoEndpoint), 2u);
  EXPECT_EQ(alice().icmp_answers.size(), 2u);
  EXPECT_TRUE(alice().peer(carol.public_key())->staged.empty());
}

TEST_F(OutboundTest, AnswersWhatNoDatagramCanHold) {
  alice().Send(TestPair::ToBob(kMaxInnerBytes));
  EXPECT_EQ(alice().drops(DropReason::kTooLong), 0u);
  EXPECT_TRUE(alice().icmp_answers.empty());
  alice().Send(TestPair::ToBob(kMaxInnerBytes + 1));
  EXPECT_EQ(alice().drops(DropReason::kTooLong), 1u);
  ASSERT_EQ(alice().icmp_answers.size(), 1u);
  const Packet& answer = alice().icmp_answers[0];
  EXPECT_EQ(answer[20], 3);  // destination unreachable
  EXPECT_EQ(answer[21], 4);  // fragmentation needed
  EXPECT_EQ(LoadAs<U16Be>(&answer[26]), kMaxInnerBytes);
}

TEST_F(OutboundTest, DropsWhatIsNoIpPacketWithoutAnAnswer_CONF87) {
  Packet wrong_version = TestPair::ToBob(), too_long = TestPair::ToBob();
  wrong_version[0] = 0x55;
  too_long[3] = static_cast<std::uint8_t>(too_long[3] + 1);
  alice().SendBatch({Packet(84, 0xee), Packet{0x45}, wrong_version, too_long});
  EXPECT_EQ(alice().drops(DropReason::kMalformedIp), 4u);
  EXPECT_TRUE(alice().icmp_answers.empty());
  EXPECT_TRUE(alice().sent.empty());
}

TEST_F(OutboundTest, LimitsItsAnswers_CONF87) {
  alice().SendBatch(std::vector<Packet>(500, MakePacket("10.0.0.1", "10.9.9.9")));
  EXPECT_EQ(alice().icmp_answers.size(), kIcmpAnswersBurst);
  EXPECT_EQ(alice().drops(DropReason::kNoPeerForDestination), 500u);
  pair_.clock.boot += 10ms;
  alice().SendBatch(std::vector<Packet>(500, MakePacket("10.0.0.1", "10.9.9.9")));
  EXPECT_EQ(alice().icmp_answers.size(), kIcmpAnswersBurst + 10);
}

// ---- what waits for a session

TEST_F(OutboundTest, KeepsTheNewest128InOrder_CONF31) {
  std::vector<Packet> packets;
  for (std::uint8_t i = 0; i < 131; ++i) packets.push_back(TestPair::ToBob(100, i));
  for (const Packet& packet : packets) alice().Send(packet);
  EXPECT_EQ(alice().peer()->staged.size(), 128u);
  EXPECT_EQ(alice().drops(DropReason::kStagedFull), 3u);
  EXPECT_EQ(alice().exchange.staged_bytes, 12'800u);
  EXPECT_EQ(alice().peer()->staged_bytes, 12'800u);
  pair_.Drive();
  packets.erase(packets.begin(), packets.begin() + 3);  // the oldest
  EXPECT_EQ(bob().received, packets);
  EXPECT_EQ(alice().exchange.staged_bytes, 0u);
  EXPECT_EQ(alice().peer()->staged_bytes, 0u);
}

TEST_F(OutboundTest, KeepsTheNewest128OfOneBatch_CONF31) {
  std::vector<Packet> packets;
  for (std::uint8_t i = 0; i < 200; ++i) packets.push_back(TestPair::ToBob(100, i));
  alice().SendBatch(packets);
  EXPECT_EQ(alice().drops(DropReason::kStagedFull), 72u);
  pair_.Drive();
  packets.erase(packets.begin(), packets.begin() + 72);
  EXPECT_EQ(bob().received, packets);
}

TEST_F(OutboundTest, BoundsTheBytesThatWaitForOnePeer) {
  for (std::uint8_t i = 0; i < 40; ++i) alice().Send(TestPair::ToBob(9000, i));
  const std::size_t fit = kMaxStagedBytesPerPeer / 9000;
  EXPECT_EQ(alice().peer()->staged.size(), fit);
  EXPECT_EQ(alice().exchange.staged_bytes, fit * 9000);
  EXPECT_EQ(alice().drops(DropReason::kStagedFull), 40 - fit);
  pair_.Drive();
  ASSERT_EQ(bob().received.size(), fit);
  EXPECT_EQ(bob().received.back(), TestPair::ToBob(9000, 39));
}

TEST_F(OutboundTest, BoundsTheBytesThatWaitForAllPeers) {
  alice().exchange.staged_bytes = kMaxStagedBytes - 100;  // other peers'
  alice().Send(TestPair::ToBob(101));
  EXPECT_EQ(alice().drops(DropReason::kNoMemory), 1u);
  EXPECT_TRUE(alice().peer()->staged.empty());
  EXPECT_EQ(alice().exchange.staged_bytes, kMaxStagedBytes - 100);
  alice().Send(TestPair::ToBob(100));
  EXPECT_EQ(alice().peer()->staged.size(), 1u);
  EXPECT_EQ(alice().exchange.staged_bytes, kMaxStagedBytes);
}

TEST_F(OutboundTest, WhatWaitedGoesBeforeWhatCameLater_CONF78) {
  alice().Send(TestPair::ToBob(100, 1));
  alice().Send(TestPair::ToBob(100, 2));
  const auto initiation = alice().TakeOne();
  bob().Receive(initiation);
  // The response is in, the flush that it asks for has not been carried out when more comes from the TUN.
  const auto response = bob().TakeOne();
  Packet bytes = response.bytes;
  alice().inbound.Process(bytes, bytes.size(), Endpoint{response.from, {}}, 0, pair_.clock.boot, *alice().engine);
  std::vector<HandshakeDatagram> datagrams;
  alice().queue.Take(1, datagrams);
  alice().inbound.Clear();
  alice().tunnel.HandleHandshakes(datagrams, 1, pair_.clock.now(), alice().outbox);
  alice().SendBatch({TestPair::ToBob(100, 3), TestPair::ToBob(100, 4)});
  pair_.Drive();
  ASSERT_EQ(bob().received.size(), 4u);
  for (std::uint8_t i = 0; i < 4; ++i)
    EXPECT_EQ(bob().received[i], TestPair::ToBob(100, static_cast<std::uint8_t>(i + 1)));
}

TEST_F(OutboundTest, NothingToSendIsNothingSent_CONF43_CONF46) {
  pair_.Connect();
  bob().Send(TestPair::ToAlice());
  pair_.Drive();
  const auto owed = alice().peer()->timers.NextDeadline();
  ASSERT_TRUE(alice().peer()->timers.IsSet(Timer::kPassiveKeepalive));
  alice().SendStaged(alice().peer(), /*keepalive_if_none=*/false);
  EXPECT_TRUE(alice().Take().empty());
  EXPECT_TRUE(alice().peer()->timers.IsSet(Timer::kPassiveKeepalive));
  EXPECT_EQ(alice().peer()->timers.NextDeadline(), owed);
  // Nor is a session needed for it.
  pair_.clock.boot += 181s;
  alice().SendStaged(alice().peer(), /*keepalive_if_none=*/false);
  alice().Settle();
  EXPECT_TRUE(alice().Take().empty());
}

// ---- what it looks like

TEST_F(OutboundTest, PadsToSixteenWithinTheMtu_CONF35_CONF81) {
  pair_.Connect();
  for (std::size_t bytes = 20; bytes <= 1420; ++bytes) {
    const Packet packet = TestPair::ToBob(bytes, 0xff);
    alice().Send(packet);
    const Datagram datagram = alice().TakeOne();
    const std::size_t padded = std::min<std::size_t>((bytes + 15) / 16 * 16, 1420);
    ASSERT_EQ(datagram.bytes.size(), 16 + padded + 16) << bytes;
    Packet expected = packet;
    expected.resize(padded);  // zeros
    ASSERT_EQ(OpenAtBob(datagram), expected) << bytes;
  }
}

TEST_F(OutboundTest, PadsBeyondTheMtuByTheLastPieceAndWithoutAnMtuPlainly_CONF81) {
  pair_.Connect();
  const auto padding_of = [&](std::size_t bytes) {
    alice().Send(TestPair::ToBob(bytes));
    return alice().TakeOne().bytes.size() - 32 - bytes;
  };
  EXPECT_EQ(padding_of(1421), 15u);  // 1 → 16
  EXPECT_EQ(padding_of(2820), 8u);   // 1400 → 1408
  EXPECT_EQ(padding_of(2830), 10u);  // 1410 → 1420, the MTU
  EXPECT_EQ(padding_of(2839), 1u);   // 1419 → 1420
  EXPECT_EQ(padding_of(2840), 0u);
  alice().exchange.mtu = 0;
  EXPECT_EQ(padding_of(1419), 5u);
  EXPECT_EQ(padding_of(1425), 15u);
}

TEST_F(OutboundTest, KeepaliveIsAnEmptyUnpaddedMessage_CONF8_CONF81) {
  pair_.Connect();
  alice().SendStaged(alice().peer(), /*keepalive_if_none=*/true);
  const Datagram datagram = alice().TakeOne();
  EXPECT_EQ(datagram.bytes.size(), 32u);
  EXPECT_TRUE(OpenAtBob(datagram).empty());
  EXPECT_EQ(datagram.tos, 0);
}

TEST_F(OutboundTest, ShowsTheInnerEcnAndNoDscp_CONF83) {
  pair_.Connect();
  for (unsigned tos = 0; tos < 256; ++tos) {
    for (const bool is_v6 : {false, true}) {
      alice().Send(MakePacket(is_v6 ? "fd00::1" : "10.0.0.1", is_v6 ? "fd00::2" : "10.0.0.2", 100,
                              static_cast<std::uint8_t>(tos)));
      EXPECT_EQ(alice().TakeOne().tos, tos & 3) << tos << is_v6;
    }
  }
}

TEST_F(OutboundTest, ShowsTheInnerEcnOfWhatWaited_CONF83) {
  alice().Send(MakePacket("10.0.0.1", "10.0.0.2", 100, 0xb9));
  pair_.Drive();
  EXPECT_EQ(alice().sent.back().tos, 1);
  EXPECT_TRUE(alice().sent.back().is_data());
}

TEST_F(OutboundTest, JoinsHeadAndBody_CONF80) {
  pair_.Connect();
  const Packet packet = TestPair::ToBob(700, 9);
  for (const std::size_t head : {20u, 40u, 60u, 120u}) {
    Packet body(packet.begin() + static_cast<std::ptrdiff_t>(head), packet.end());
    // The head's bytes in front of the body are the engine's to use.
    Packet memory(head + body.size() + StagedPacket::kScratchBytes);
    std::ranges::copy(body, memory.begin() + static_cast<std::ptrdiff_t>(head));
    ASSERT_TRUE(alice().outbound.Add(Bytes(packet).first(head), MutableBytes(memory).subspan(head, body.size()),
                                     pair_.clock.boot));
    alice().SendBatch({});
    pair_.Drive();
    EXPECT_EQ(bob().received.back(), packet) << head;
  }
  EXPECT_EQ(bob().received.size(), 4u);
}

TEST_F(OutboundTest, JoinsHeadAndBodyOfWhatWaits) {
  const Packet packet = TestPair::ToBob(300, 9);
  Packet memory(packet.size() + StagedPacket::kScratchBytes);
  std::copy(packet.begin() + 40, packet.end(), memory.begin() + 40);
  ASSERT_TRUE(alice().outbound.Add(Bytes(packet).first(40), MutableBytes(memory).subspan(40, 260), pair_.clock.boot));
  alice().SendBatch({});
  std::ranges::fill(memory, std::uint8_t{0});  // it was copied
  pair_.Drive();
  EXPECT_EQ(bob().received, Packets{packet});
}

// ---- counters

TEST_F(OutboundTest, NeverUsesACounterAgainAfterAFailedSend_CONF82) {
  pair_.Connect();
  alice().Send(TestPair::ToBob());
  const std::uint64_t first = alice().TakeOne().counter();
  const auto tx = alice().view().tx_bytes;
  alice().can_send = false;
  for (int i = 0; i < 3; ++i) alice().Send(TestPair::ToBob());
  EXPECT_EQ(alice().drops(DropReason::kSendFailed), 3u);
  EXPECT_EQ(alice().view().tx_bytes, tx);
  alice().can_send = true;
  alice().Send(TestPair::ToBob());
  EXPECT_EQ(alice().TakeOne().counter(), first + 4);
}

TEST_F(OutboundTest, CountsUpByOneInTheOrderSent_CONF82) {
  for (std::uint8_t i = 0; i < 10; ++i) alice().Send(TestPair::ToBob(100, i));
  pair_.Drive();
  alice().SendBatch(std::vector<Packet>(300, TestPair::ToBob()));
  alice().SendStaged(alice().peer(), /*keepalive_if_none=*/true);
  std::vector<std::uint64_t> counters;
  for (const Datagram& datagram : alice().sent) {
    if (datagram.is_data()) counters.push_back(datagram.counter());
  }
  ASSERT_EQ(counters.size(), 311u);
  EXPECT_TRUE(std::ranges::is_sorted(counters));
  EXPECT_EQ(std::ranges::adjacent_find(counters), counters.end());
  EXPECT_EQ(counters.front(), 0u);
}

// ---- batches and runs

TEST_F(OutboundTest, GroupsEqualSizesIntoRuns) {
  pair_.Connect();
  std::vector<Packet> packets(5, TestPair::ToBob(1000));
  packets.push_back(TestPair::ToBob(500));                                 // shorter: the last of its run
  packets.push_back(TestPair::ToBob(1000));                                // begins another one
  packets.push_back(MakePacket("10.0.0.1", "10.0.0.2", 1000, /*tos=*/2));  // another TOS
  for (Packet& packet : packets) {
    packet.reserve(packet.size() + StagedPacket::kScratchBytes);
    ASSERT_TRUE(alice().outbound.Add({}, packet, pair_.clock.boot));
  }
  alice().outbound.Flush(pair_.clock.boot, *alice().engine);
  const auto runs = alice().outbound.runs();
  ASSERT_EQ(runs.size(), 3u);
  EXPECT_EQ(runs[0].segment_bytes, 1008u + 32);
  EXPECT_EQ(runs[0].data.size(), 5 * 1040u + 512 + 32);
  EXPECT_EQ(runs[1].data.size(), 1040u);
  EXPECT_EQ(runs[1].tos, 0);
  EXPECT_EQ(runs[2].data.size(), 1040u);
  EXPECT_EQ(runs[2].tos, 2);
  for (const SealedRun& run : runs) EXPECT_EQ(run.to.remote, bob().address);
  alice().outbound.Clear();
}

TEST_F(OutboundTest, KeepsRunsWithinTheirBound) {
  pair_.Connect();
  std::vector<Packet> packets(100, TestPair::ToBob(1420));
  for (Packet& packet : packets) {
    packet.reserve(packet.size() + StagedPacket::kScratchBytes);
    ASSERT_TRUE(alice().outbound.Add({}, packet, pair_.clock.boot));
  }
  alice().outbound.Flush(pair_.clock.boot, *alice().engine);
  std::size_t bytes = 0;
  for (const SealedRun& run : alice().outbound.runs()) {
    EXPECT_LE(run.data.size(), 65473u);
    bytes += run.data.size();
  }
  EXPECT_EQ(bytes, 100 * 1452u);
  EXPECT_EQ(alice().outbound.runs().size(), 3u);  // 45 of 1452 bytes each
  alice().outbound.Clear();
}

TEST_F(OutboundTest, TakesABatchUntilItIsFullAndNothingOfTheNext) {
  pair_.Connect();
  for (const std::size_t bytes : {std::size_t{40}, std::size_t{9000}}) {
    Packet packet = TestPair::ToBob(bytes);
    packet.reserve(packet.size() + StagedPacket::kScratchBytes);
    std::size_t taken = 0;
    while (alice().outbound.Add({}, packet, pair_.clock.boot)) ++taken;
    if (bytes == 40) {
      EXPECT_EQ(taken, kMaxOutboundPackets);
    } else {
      EXPECT_GE(taken, kOutboundArenaBytes / (bytes + 47));
    }
    bob().received.clear();
    alice().SendBatch({});
    pair_.Drive();
    EXPECT_EQ(bob().received.size(), taken);
  }
  EXPECT_EQ(alice().all_drops() + bob().all_drops(), 0u);
}

// The session appears between the last Add() and the Flush(), as it does when the control thread completes a handshake
// while the batch is read; or between two packets of a super-packet.
TEST_F(OutboundTest, WhatWaitedGoesOutWithABatchThatIsFullAlready) {
  for (const std::size_t bytes : {std::size_t{100}, std::size_t{1420}, std::size_t{2000}, std::size_t{60'000}}) {
    TestPair pair;
    Core& alice = pair.alice;
    Packets packets;
    for (std::uint8_t i = 0; i < 128; ++i) alice.Send(packets.emplace_back(TestPair::ToBob(bytes, i)));
    packets.erase(packets.begin(), packets.end() - static_cast<std::ptrdiff_t>(alice.peer()->staged.size()));
    Packets batch;
    for (std::uint8_t i = 128; batch.size() < kMaxOutboundPackets; ++i) {
      Packet packet = TestPair::ToBob(bytes, i);
      packet.reserve(packet.size() + StagedPacket::kScratchBytes);
      if (!alice.outbound.Add({}, packet, pair.clock.boot)) break;
      batch.push_back(std::move(packet));
    }
    packets.insert(packets.end(), batch.begin(), batch.end());
    pair.bob.Receive(alice.Take().at(0));
    HandshakeDatagram response;
    const Datagram sent = pair.bob.TakeOne();
    std::ranges::copy(sent.bytes, response.bytes.begin());
    response.size = static_cast<std::uint8_t>(sent.bytes.size());
    response.from = Endpoint{sent.from, {}};
    ControlOutbox not_yet;
    alice.tunnel.HandleHandshakes(std::span(&response, 1), 1, pair.clock.now(), not_yet);
    ASSERT_EQ(not_yet.to_flush.size(), 1u);
    const std::uint64_t full = alice.drops(DropReason::kStagedFull);
    alice.SendBatch({});
    pair.Drive();
    EXPECT_EQ(pair.bob.received, packets) << bytes;
    EXPECT_EQ(alice.drops(DropReason::kStagedFull), full);
    EXPECT_EQ(alice.exchange.staged_bytes, 0u);
    EXPECT_TRUE(alice.outbound.empty());
    std::uint64_t counter = 0;
    for (const Datagram& datagram : alice.sent) {
      if (datagram.is_data()) {
        EXPECT_EQ(datagram.counter(), counter++);
      }
    }
  }
}

TEST_F(OutboundTest, TakesThePacketOfGreatestLength) {
  pair_.Connect();
  for (const std::size_t bytes : {kMaxInnerBytes - 17, kMaxInnerBytes - 1, kMaxInnerBytes}) {
    const Packet packet = TestPair::ToBob(bytes);
    alice().Send(packet);
    pair_.Drive();
    EXPECT_EQ(bob().received.back(), packet);
    EXPECT_LE(alice().sent.back().bytes.size(), 65'507u) << "or UDP cannot carry it";
  }
}

TEST_F(OutboundTest, CountsTheBytesOfWhatWasSent_CONF93) {
  pair_.Connect();
  const auto before = alice().view().tx_bytes;
  alice().SendBatch(std::vector<Packet>(3, TestPair::ToBob(100)));
  EXPECT_EQ(alice().view().tx_bytes - before, 3 * (112u + 32));
  std::vector<Packet> packets(3, TestPair::ToBob(100));
  for (Packet& packet : packets) {
    packet.reserve(packet.size() + StagedPacket::kScratchBytes);
    ASSERT_TRUE(alice().outbound.Add({}, packet, pair_.clock.boot));
  }
  alice().outbound.Flush(pair_.clock.boot, *alice().engine);
  ASSERT_EQ(alice().outbound.runs().size(), 1u);
  alice().outbound.OnSent(alice().outbound.runs()[0], /*datagrams_sent=*/1, /*clear_source=*/false);
  alice().outbound.Clear();
  EXPECT_EQ(alice().view().tx_bytes - before, 4 * (112u + 32));
  EXPECT_EQ(alice().drops(DropReason::kSendFailed), 2u);
}

TEST_F(OutboundTest, LetsGoOfASourceThatTheKernelRefuses_CONF89) {
  pair_.Connect();
  ASSERT_TRUE(alice().peer()->endpoint->source.is_set());
  Packet packet = TestPair::ToBob();
  packet.reserve(packet.size() + StagedPacket::kScratchBytes);
  ASSERT_TRUE(alice().outbound.Add({}, packet, pair_.clock.boot));
  alice().outbound.Flush(pair_.clock.boot, *alice().engine);
  alice().outbound.OnSent(alice().outbound.runs()[0], 0, /*clear_source=*/true);
  alice().outbound.Clear();
  EXPECT_FALSE(alice().peer()->endpoint->source.is_set());
  EXPECT_EQ(alice().peer()->endpoint->remote, bob().address);
}

}  // namespace
}  // namespace adit
