// Two engines, one stream: nothing is lost, doubled or overtaken, whatever the threads and the kernel do.
#include "engine/data_plane.h"

#include <gtest/gtest.h>
#include <netinet/udp.h>

#include <array>
#include <deque>
#include <random>
#include <thread>

#include "base/endian.h"
#include "base/random.h"
#include "engine/test_engines.h"
#include "tun/test_packet.h"

namespace adit {
namespace {

using namespace std::chrono_literals;
using test::InNamespace;
using test::Programs;
using test::TestEngine;

constexpr std::size_t kHeadBytes = 40;  // IPv4 and TCP, or IPv4, UDP and twelve bytes more
constexpr std::size_t kPayloadBytes = 1380;
constexpr std::size_t kSegments = 45;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSlow = true;
#else
constexpr bool kIsSlow = false;
#endif
constexpr std::uint64_t kMaxUnderWay = 1500;  // packets, so that no socket's buffer overflows

// Flows of super-packets and small packets; each packet carries its number within its flow at the end of its headers.
class Stream {
 public:
  static constexpr std::size_t kFlows = 3;

  explicit Stream(std::uint64_t seed) : random_(seed) {
    for (std::size_t flow = 0; flow < kFlows; ++flow) {
      test::PacketSpec spec;
      spec.flow = 1;
      spec.payload = test::Packet(kSegments * kPayloadBytes, static_cast<std::uint8_t>(flow));
      templates_[flow] = test::BuildSuper(spec, kPayloadBytes);
      test::Put16(templates_[flow].packet, 20, static_cast<std::uint32_t>(1000 + flow));
    }
  }

  // For the sender's TUN. Bounded by `limit` in all, and by what is under way.
  std::optional<std::pair<VirtioHeader, std::vector<std::uint8_t>>> Next(std::uint64_t limit) {
    if (sent_ >= limit || sent_ - received_ > kMaxUnderWay) return std::nullopt;
    const std::size_t flow = random_() % kFlows;
    const std::size_t count = random_() % 3 == 0 ? 1 : 1 + random_() % kSegments;
    auto [header, packet] = templates_[flow];
    packet.resize(kHeadBytes + count * kPayloadBytes);
    test::Put16(packet, 2, static_cast<std::uint32_t>(packet.size()));
    test::Put32(packet, 24, static_cast<std::uint32_t>(next_[flow] * kPayloadBytes));
    for (std::size_t i = 0; i < count; ++i) Store(&packet[kHeadBytes + i * kPayloadBytes], U64Be(next_[flow]++));
    // The ports and the length changed: the pseudo-header's sum is in the checksum field.
    const std::uint32_t sum = test::NaivePseudoSum(packet, /*is_tcp=*/true, 20);
    test::Put16(packet, 36, (sum & 0xffff) + (sum >> 16));
    sent_ += count;
    return std::pair(header, packet);
  }

  void OnReceived(Bytes packet) {
    ASSERT_EQ(packet.size(), kHeadBytes + kPayloadBytes);
    const std::size_t flow = test::Get16(packet, 20) - 1000;
    ASSERT_LT(flow, kFlows);
    const std::uint64_t number = LoadAs<U64Be>(&packet[kHeadBytes]);
    EXPECT_EQ(number, expected_[flow]) << "flow " << flow;
    expected_[flow] = number + 1;
    EXPECT_EQ(packet.back(), flow);
    ++received_;
  }

  // What was sent and did not come will not come. REQUIRES: nothing is under way.
  void ForgetLost() {
    expected_ = next_;
    received_ = sent_.load();
  }

  std::uint64_t sent() const { return sent_; }
  std::uint64_t received() const { return received_; }

 private:
  std::mt19937_64 random_;
  std::array<test::SuperPacket, kFlows> templates_;
  std::array<std::uint64_t, kFlows> next_{};
  std::array<std::uint64_t, kFlows> expected_{};
  std::atomic<std::uint64_t> sent_{0}, received_{0};
};

// Alice sends, Bob receives.
class Pair {
 public:
  explicit Pair(const EngineOptions& options, std::uint64_t seed = 1) : Pair(options, options, seed) {}
  Pair(const EngineOptions& alice_options, const EngineOptions& bob_options, std::uint64_t seed = 1)
      : stream(seed), alice(control, 1, AlicePrograms(), alice_options), bob(control, 2, BobPrograms(), bob_options) {
    SeededRandom random(99);
    const PrivateKey alice_key = PrivateKey::Generate(random), bob_key = PrivateKey::Generate(random);
    WaitFor([&] { return alice.engine->GetDevice().listen_port != 0 && bob.engine->GetDevice().listen_port != 0; });
    Introduce(alice, alice_key, bob_key.ComputePublicKey(), bob.engine->GetDevice().listen_port, "10.0.0.2/32");
    Introduce(bob, bob_key, alice_key.ComputePublicKey(), alice.engine->GetDevice().listen_port, "10.0.0.1/32");
    Send(1);  // while there is no session, packets wait, and too many are dropped
  }

  void Turn() {
    control.restart();
    control.run_for(1ms);
  }
  template <typename Condition>
  void WaitFor(Condition condition, std::chrono::seconds patience = 20s) {
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!condition()) {
      ASSERT_LT(std::chrono::steady_clock::now(), end) << stream.received() << " of " << stream.sent() << " packets";
      alice.Kick();
      bob.Kick();
      Turn();
    }
  }
  // Lets so many packets more pass, and waits until they have.
  void Send(std::uint64_t count, std::chrono::seconds patience = 60s) {
    limit += count;
    WaitFor([&] { return stream.sent() >= limit && stream.received() >= stream.sent(); }, patience);
  }

  boost::asio::io_context control;
  Stream stream;
  std::atomic<std::uint64_t> limit{0};
  // Of another kind than the stream's, once it has passed: set both functions, then is_tiny.
  std::function<std::optional<std::pair<VirtioHeader, std::vector<std::uint8_t>>>()> tiny;
  std::function<void(Bytes)> tiny_received;
  std::atomic<bool> is_tiny{false};
  Programs alice_programs, bob_programs;
  TestEngine alice, bob;

 private:
  static void Introduce(TestEngine& engine, const PrivateKey& key, const PublicKey& other, std::uint16_t port,
                        std::string_view allowed) {
    DeviceUpdate update;
    update.private_key = key;
    PeerUpdate& peer = update.peers.emplace_back();
    peer.public_key = other;
    peer.endpoint = SocketAddress{IpAddress::V4(ByteArray<4>{127, 0, 0, 1}), port, 0};
    peer.allowed_ips.push_back({*Prefix::Parse(allowed, true), false});
    ASSERT_EQ(engine.engine->SetDevice(update), 0);
  }

  // Before the engines: their threads call these from the start.
  Programs& AlicePrograms() {
    alice_programs.send = [this] {
      auto next = stream.Next(limit);
      return !next && is_tiny ? tiny() : std::move(next);
    };
    return alice_programs;
  }
  Programs& BobPrograms() {
    bob_programs.receive = [this](Bytes packet) { is_tiny ? tiny_received(packet) : stream.OnReceived(packet); };
    return bob_programs;
  }
};

void DelayAtRandom(std::uint64_t seed) {
  thread_local std::mt19937_64 random(seed + std::hash<std::thread::id>{}(std::this_thread::get_id()));
  switch (random() % 8) {
    case 0:
      return std::this_thread::sleep_for(std::chrono::microseconds(random() % 300));
    case 1:
      return std::this_thread::yield();
    default:
      return;
  }
}

TEST(DataPlane, KeepsTheOrderOfEveryFlowWithThreadsDelayedAtRandom) {
  const std::uint64_t seed = std::random_device{}();
  for (const unsigned threads : {1u, 2u, 4u}) {
    SCOPED_TRACE(::testing::Message() << threads << " threads, seed " << seed);
    InNamespace([&] {
      EngineOptions options;
      options.threads = threads;
      options.disturb = [seed] { DelayAtRandom(seed); };
      Pair pair(options, seed);
      pair.Send(kIsSlow ? 4000 : 15'000);
      EXPECT_EQ(pair.bob.Drops("replayed") + pair.bob.Drops("bad_tag") + pair.bob.Drops("unknown_receiver"), 0u);
    });
  }
}

// Tiny segments: the batch is full in the midst of a super-packet, and the rest must follow what is under way.
TEST(DataPlane, KeepsTheOrderOfMoreSegmentsThanABatchHolds) {
  InNamespace([] {
    constexpr std::size_t kTiny = 20;
    constexpr std::size_t kCount = 2500;
    static_assert(kCount > 2 * kMaxOutboundPackets);
    std::atomic<int> left{0};  // before the engines, whose threads use them to the end
    std::atomic<std::uint64_t> received{0}, misplaced{0};
    EngineOptions options;
    options.threads = 4;
    options.disturb = [] { DelayAtRandom(1); };
    Pair pair(options);
    test::PacketSpec spec;
    spec.flow = 1;
    spec.sequence = 0;
    spec.payload.assign(kCount * kTiny, 1);
    const auto super = test::BuildSuper(spec, kTiny);
    pair.tiny = [&]() -> std::optional<std::pair<VirtioHeader, std::vector<std::uint8_t>>> {
      if (left == 0) return std::nullopt;
      --left;
      return std::pair(super.header, super.packet);
    };
    pair.tiny_received = [&](Bytes packet) {
      misplaced += test::Get32(packet, 24) != received % kCount * kTiny;
      ++received;
    };
    pair.is_tiny = true;
    for (std::uint64_t round = 1; round <= 5; ++round) {
      left = 2;
      pair.WaitFor([&] { return received >= round * 2 * kCount; });
    }
    EXPECT_EQ(received, 10 * kCount);
    EXPECT_EQ(misplaced, 0u);
  });
}

// ---- offloads that fail while they are in use

std::atomic<int> gso_error{0};

bool IsSegmented(const msghdr& message) {
  for (auto* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(const_cast<msghdr*>(&message), control)) {
    if (control->cmsg_level == IPPROTO_UDP && control->cmsg_type == UDP_SEGMENT) return true;
  }
  return false;
}

ssize_t SendmsgWithoutGso(int fd, const msghdr* message, int flags) {
  if (gso_error != 0 && IsSegmented(*message)) {
    errno = gso_error;
    return -1;
  }
  return ::sendmsg(fd, message, flags);
}

int SendmmsgWithoutGso(int fd, mmsghdr* messages, unsigned count, int flags) {
  unsigned sendable = 0;
  while (sendable < count && !(gso_error != 0 && IsSegmented(messages[sendable].msg_hdr))) ++sendable;
  if (sendable > 0) return ::sendmmsg(fd, messages, sendable, flags);
  errno = gso_error;
  return -1;
}

class FailingGso : public ::testing::TestWithParam<int> {};

TEST_P(FailingGso, DegradesToSingleDatagramsWithoutLosingOne) {
  InNamespace([] {
    EngineOptions options;
    options.threads = 2;
    options.udp_calls.sendmsg = SendmsgWithoutGso;
    options.udp_calls.sendmmsg = SendmmsgWithoutGso;
    Pair pair(options);
    pair.Send(3000);
    EXPECT_EQ(pair.alice.engine->GetEngine().degrade_count, 0u);
    const auto writes = pair.alice.Counter("outbound_writes");
    EXPECT_LT(writes, 1500u);
    gso_error = GetParam();
    pair.Send(3000);
    EXPECT_EQ(pair.alice.engine->GetEngine().degrade_count, 1u);
    // A path that is too small says nothing of other paths.
    EXPECT_EQ(pair.alice.engine->GetEngine().udp_gso, GetParam() == EMSGSIZE);
    EXPECT_EQ(pair.alice.Drops("send_failed"), 0u);
  });
}
INSTANTIATE_TEST_SUITE_P(Errors, FailingGso, ::testing::Values(EIO, EINVAL, EMSGSIZE),
                         [](const auto& error) { return std::string(strerrorname_np(error.param)); });

TEST(DataPlane, DegradesToSingleWritesWhenTheTunRefusesMergedPackets) {
  InNamespace([] {
    EngineOptions options;
    options.threads = 2;
    Pair pair(options);
    pair.Send(3000);
    EXPECT_GT(pair.bob_programs.merged_writes, 0u);
    EXPECT_TRUE(pair.bob.engine->GetEngine().tun_offloads.tso);
    pair.bob_programs.refuses_merged = EINVAL;
    pair.Send(3000);
    const EngineStatus status = pair.bob.engine->GetEngine();
    EXPECT_EQ(status.degrade_count, 1u);
    EXPECT_FALSE(status.tun_offloads.tso);
    EXPECT_EQ(pair.bob.Drops("tun_write_failed"), 0u);
    const auto merged = pair.bob_programs.merged_writes.load();
    pair.Send(1000);
    EXPECT_EQ(pair.bob_programs.merged_writes, merged);  // it does not try again with every packet
  });
}

// ---- queues that are full

// One engine, whose only peer is at a port where nobody answers.
class Lonely {
 public:
  Lonely() : engine_(control_, 1, WithPackets(), test::WithThreads(2)) {
    SeededRandom random(99);
    DeviceUpdate update;
    update.private_key = PrivateKey::Generate(random);
    PeerUpdate& peer = update.peers.emplace_back();
    peer.public_key = PrivateKey::Generate(random).ComputePublicKey();
    peer.endpoint = SocketAddress{IpAddress::V4(ByteArray<4>{127, 0, 0, 1}), 9, 0};
    peer.allowed_ips.push_back({*Prefix::Parse("10.0.0.2/32", true), false});
    EXPECT_EQ(engine_.engine->SetDevice(update), 0);
  }
  void SendAll(std::uint64_t count) {
    to_send_ = count;
    for (int i = 0; i < 20'000 && engine_.Counter("outbound_reads") < sent_ + count; ++i) {
      engine_.Kick();
      control_.restart();
      control_.run_for(1ms);
    }
    sent_ += count;
    ASSERT_EQ(engine_.Counter("outbound_reads"), sent_);
  }
  TestEngine& operator*() { return engine_; }

 private:
  Programs& WithPackets() {
    programs_.send = [this]() -> std::optional<std::pair<VirtioHeader, std::vector<std::uint8_t>>> {
      if (to_send_ == 0) return std::nullopt;
      --to_send_;
      return std::pair(VirtioHeader{}, packet_);
    };
    test::PacketSpec spec;
    spec.payload.assign(1000, 1);
    packet_ = test::Build(spec);
    return programs_;
  }
  boost::asio::io_context control_;
  Programs programs_;
  test::Packet packet_;
  std::atomic<std::uint64_t> to_send_{0};
  std::uint64_t sent_ = 0;
  TestEngine engine_;
};

TEST(DataPlane, DropsTheOldestOfWhatWaitsForASessionAndCountsIt) {
  InNamespace([] {
    Lonely lonely;
    lonely.SendAll(5000);
    // The last unit is read, and may still be worked on.
    for (int i = 0; i < 5000 && (*lonely).Drops("staged_full") < 5000 - kMaxStagedPackets; ++i) {
      std::this_thread::sleep_for(1ms);
    }
    EXPECT_EQ((*lonely).Drops("staged_full"), 5000 - kMaxStagedPackets);
    EXPECT_EQ((*lonely).Counter("outbound_packets"), 0u);
  });
}

std::atomic<bool> is_socket_full{false};

ssize_t SendmsgIntoAFullSocket(int fd, const msghdr* message, int flags) {
  if (!is_socket_full) return ::sendmsg(fd, message, flags);
  errno = EAGAIN;
  return -1;
}
int SendmmsgIntoAFullSocket(int fd, mmsghdr* messages, unsigned count, int flags) {
  if (!is_socket_full) return ::sendmmsg(fd, messages, count, flags);
  errno = EAGAIN;
  return -1;
}

TEST(DataPlane, CountsWhatTheSocketHasNoRoomForAndGoesOnAfterwards) {
  InNamespace([] {
    EngineOptions options;
    options.threads = 2;
    options.udp_calls.sendmsg = SendmsgIntoAFullSocket;
    options.udp_calls.sendmmsg = SendmmsgIntoAFullSocket;
    options.udp_calls.poll = [](pollfd*, nfds_t, int) { return 0; };  // it stays full for as long as one may wait
    Pair pair(options);
    pair.Send(100);
    is_socket_full = true;
    const std::uint64_t before = pair.stream.sent();
    pair.limit += 500;
    pair.WaitFor([&] {
      return pair.stream.sent() >= pair.limit && pair.alice.Drops("send_failed") >= pair.stream.sent() - before;
    });
    EXPECT_EQ(pair.alice.Drops("send_failed"), pair.stream.sent() - before);
    EXPECT_EQ(pair.stream.received(), before);
    is_socket_full = false;
    pair.stream.ForgetLost();
    pair.Send(500);
  });
}

TEST(DataPlane, CountsWhatTheTunHasNoRoomForAndGoesOnAfterwards) {
  InNamespace([] {
    EngineOptions options;
    options.threads = 2;
    Pair pair(options);
    pair.Send(100);
    pair.bob_programs.refuses_all = ENOBUFS;
    const std::uint64_t before = pair.stream.sent();
    pair.limit += 500;
    pair.WaitFor([&] {
      return pair.stream.sent() >= pair.limit && pair.bob.Drops("tun_write_failed") >= pair.stream.sent() - before;
    });
    EXPECT_EQ(pair.bob.Drops("tun_write_failed"), pair.stream.sent() - before);
    EXPECT_TRUE(pair.bob.engine->GetEngine().tun_offloads.tso);  // no room is no refusal
    pair.bob_programs.refuses_all = 0;
    pair.stream.ForgetLost();
    pair.Send(500);
  });
}

// A machine that slept is somewhere else, and its peers are told by a handshake, also if there is nothing to say.
TEST(Engine, BeginsHandshakesWhenTheMachineWakes) {
  InNamespace([] {
    static std::atomic<std::int64_t> seconds_asleep{0};
    EngineOptions options = test::WithThreads(1);
    options.limits.rekey_timeout = 50ms;
    // Alice's machine alone: when both wake, their handshakes cross, and a session may be replaced before it was used,
    // with what was under way by it.
    const EngineOptions awake = options;
    options.time_asleep = [] { return Duration(std::chrono::seconds(seconds_asleep.load())); };
    Pair pair(options, awake);
    // Any event tells of a sleep; this one is a change of the network besides, which takes no handshake.
    auto change = [&pair, last = 0U]() mutable {
      for (int i = 0; i < 100; ++i) pair.Turn();
      TestEngine::SetAddress("lo:1", htonl(0x0a000000 + ++last));
      for (int i = 0; i < 100; ++i) pair.Turn();
      return pair.alice.Counter("handshake_initiations_sent");
    };
    change();
    const auto before = change();
    EXPECT_EQ(change(), before) << "nobody slept";
    seconds_asleep = 3;
    EXPECT_EQ(change(), before + 1);
    EXPECT_EQ(change(), before + 1) << "once for each sleep";
    pair.Send(1000);
  });
}

}  // namespace
}  // namespace adit
