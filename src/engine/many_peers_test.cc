// One engine with a thousand peers and a hundred thousand allowed IPs, all of them talking, while peers go and others
// come. The peers are protocol cores in the test, behind one UDP socket.
#include <gtest/gtest.h>
#include <malloc.h>

#include <cstdio>
#include <random>
#include <unordered_map>

#include "engine/test_engines.h"
#include "tunnel/test_pair.h"

namespace adit {
namespace {

using namespace std::chrono_literals;
using test::InNamespace;
using test::Programs;
using test::TestEngine;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSlow = true;
#else
constexpr bool kIsSlow = false;
#endif
constexpr std::size_t kPeers = kIsSlow ? 100 : 1000;
constexpr std::size_t kPrefixesPerPeer = 100;
constexpr auto kTraffic = 6s;
constexpr auto kChurnInterval = 100ms;
constexpr auto kLongestGap = kIsSlow ? 5s : 2s;
constexpr std::size_t kMaxGrowthBytes = 8 << 20;

// Without what the allocator keeps for later.
std::size_t ResidentBytes() {
  malloc_trim(0);
  FILE* const file = std::fopen("/proc/self/statm", "r");
  CHECK(file != nullptr);
  std::size_t total = 0, resident = 0;
  CHECK(std::fscanf(file, "%zu %zu", &total, &resident) == 2);
  std::fclose(file);
  return resident * static_cast<std::size_t>(getpagesize());
}

// Prefix number j of peer i lies between those of all others, so that the table has as many runs as prefixes.
IpAddress AddressIn(std::size_t peer, std::size_t prefix, std::uint8_t host) {
  const auto address = static_cast<std::uint32_t>(0x0b000000 + (prefix * kPeers + peer) * 64 + host);
  return IpAddress::V4(ByteArray<4>{static_cast<std::uint8_t>(address >> 24), static_cast<std::uint8_t>(address >> 16),
                                    static_cast<std::uint8_t>(address >> 8), static_cast<std::uint8_t>(address)});
}

class Crowd {
 public:
  explicit Crowd(std::uint64_t seed) : random_(seed), hub_(control_, 1, HubPrograms(), test::WithThreads(2)) {
    socket_ = Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    const int bytes = 16 << 20;
    CHECK(setsockopt(socket_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) == 0);
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    CHECK(bind(socket_.get(), reinterpret_cast<sockaddr*>(&any), sizeof any) == 0);

    SeededRandom random(seed);
    DeviceUpdate update;
    hub_key_ = PrivateKey::Generate(random);
    update.private_key = hub_key_;
    for (std::size_t i = 0; i < kPeers; ++i) {
      peers_.push_back(MakeCore(i));
      update.peers.push_back(Section(i));
    }
    for (int i = 0; i < 1000 && hub_.engine->GetDevice().listen_port == 0; ++i) Turn();
    hub_at_ = SocketAddress{IpAddress::V4(ByteArray<4>{127, 0, 0, 1}), hub_.engine->GetDevice().listen_port, 0};
    EXPECT_EQ(hub_.engine->SetDevice(update), 0);
    for (std::size_t i = 0; i < kPeers; ++i) Connect(i);
  }

  void Talk() {
    // Everyone once, so that the memory of the cores in this process is all in use.
    for (std::size_t i = 0; i < kPeers; ++i) {
      SendFrom(i);
      if (i % 16 == 0) Turn(), ReceiveAll();
    }
    auto next_churn = std::chrono::steady_clock::now() + kChurnInterval;
    const auto begin = std::chrono::steady_clock::now();
    auto last_arrival = begin;
    std::uint64_t seen = 0;
    std::size_t resident = 0;
    for (auto now = begin; now < begin + kTraffic; now = std::chrono::steady_clock::now()) {
      if (now >= next_churn) {
        Replace(random_() % kPeers);
        next_churn = now + kChurnInterval;
      }
      for (int i = 0; i < 16; ++i) SendFrom(random_() % kPeers);
      to_send_ = 16;
      hub_.Kick();
      Turn();
      ReceiveAll();
      if (arrived_ + answered_ != seen) {
        seen = arrived_ + answered_;
        last_arrival = std::chrono::steady_clock::now();
      }
      ASSERT_LT(std::chrono::steady_clock::now() - last_arrival, kLongestGap) << "a stall";
      if (resident == 0 && now > begin + kTraffic / 2) resident = ResidentBytes();
    }
    for (int i = 0; i < 300; ++i) Turn(), ReceiveAll();
    if (!kIsSlow) {
      EXPECT_LT(ResidentBytes(), resident + kMaxGrowthBytes);
    }
  }

  void Check() {
    EXPECT_GT(replaced_, 5u);
    EXPECT_GT(sent_, kPeers);
    EXPECT_GT(answered_, kPeers);
    // What a peer sent in the moment in which it went, or was about to come, is all that may be missing.
    EXPECT_LE(arrived_, sent_);
    EXPECT_GE(arrived_ + replaced_ * 16, sent_);
    EXPECT_EQ(wrong_, 0u);
    EXPECT_EQ(hub_.Drops("bad_tag") + hub_.Drops("replayed") + hub_.Drops("source_not_allowed"), 0u);
    EXPECT_EQ(hub_.engine->GetDevice().peers.size(), kPeers);
    std::printf("%zu peers, %zu prefixes, %zu replaced: %llu packets in, %llu out\n", kPeers, kPeers * kPrefixesPerPeer,
                replaced_, static_cast<unsigned long long>(arrived_), static_cast<unsigned long long>(answered_));
  }

 private:
  // Before the engine: its threads call these from the start.
  Programs& HubPrograms() {
    hub_programs_.receive = [this](Bytes packet) {
      if (packet.size() != 200 || packet[16] != 10) ++wrong_;
      ++arrived_;
    };
    hub_programs_.send = [this]() -> std::optional<std::pair<VirtioHeader, std::vector<std::uint8_t>>> {
      if (to_send_ == 0) return std::nullopt;
      --to_send_;
      const IpAddress to = AddressIn(hub_random_() % kPeers, hub_random_() % kPrefixesPerPeer, 9);
      return std::pair(VirtioHeader{}, MakePacket("10.99.0.1", to.ToString(), 300));
    };
    return hub_programs_;
  }

  std::unique_ptr<Core> MakeCore(std::size_t i) {
    return std::make_unique<Core>(
        clock_, random_(),
        SocketAddress{IpAddress::V4(ByteArray<4>{127, 0, 0, 1}), static_cast<std::uint16_t>(i + 1), 0});
  }
  PeerUpdate Section(std::size_t i) {
    PeerUpdate section;
    section.public_key = peers_[i]->public_key();
    for (std::size_t j = 0; j < kPrefixesPerPeer; ++j) {
      section.allowed_ips.push_back({Prefix(AddressIn(i, j, 0), 26), false});
    }
    return section;
  }

  void Connect(std::size_t i) {
    Core& core = *peers_[i];
    core.AddPeer(hub_key_.ComputePublicKey(), {"10.99.0.0/16"}, hub_at_);
    core.BeginHandshake();
    by_index_[core.sent.front().sender_index()] = i;
    for (int tries = 0; tries < 5000 && !core.peer()->keypairs.current; ++tries) {
      Forward(core);
      if (tries > 0) Turn();
      ReceiveAll();
    }
    ASSERT_TRUE(core.peer()->keypairs.current) << "peer " << i;
    Forward(core);  // its keepalive confirms the session
  }

  void Replace(std::size_t i) {
    DeviceUpdate update;
    PeerUpdate& gone = update.peers.emplace_back();
    gone.public_key = peers_[i]->public_key();
    gone.remove = true;
    by_index_.erase(peers_[i]->peer()->keypairs.current->local_index);
    peers_[i] = MakeCore(i);
    update.peers.push_back(Section(i));
    ASSERT_EQ(hub_.engine->SetDevice(update), 0);
    Connect(i);
    ++replaced_;
  }

  void SendFrom(std::size_t i) {
    Core& core = *peers_[i];
    core.Send(MakePacket(AddressIn(i, random_() % kPrefixesPerPeer, 5).ToString(), "10.99.0.1", 200));
    ++sent_;
    Forward(core);
  }

  void Forward(Core& core) {
    sockaddr_storage to;
    const socklen_t bytes = hub_at_.ToSockaddr(to);
    for (const Datagram& datagram : core.Take()) {
      CHECK(sendto(socket_.get(), datagram.bytes.data(), datagram.bytes.size(), 0, reinterpret_cast<sockaddr*>(&to),
                   bytes) == static_cast<ssize_t>(datagram.bytes.size()));
    }
    core.sent.clear();
    core.next_to_take = 0;
  }

  void ReceiveAll() {
    std::array<std::uint8_t, 2048> buffer;
    ssize_t got;
    while ((got = recv(socket_.get(), buffer.data(), buffer.size(), 0)) > 0) {
      const std::vector<std::uint8_t> bytes(buffer.begin(), buffer.begin() + got);
      const auto type = ParseMessage(bytes);
      ASSERT_TRUE(type);
      if (*type == MessageType::kInitiation) continue;  // to a peer that has just gone
      const std::uint32_t index = *type == MessageType::kResponse ? LoadAs<ResponseMessage>(bytes.data()).receiver_index
                                                                  : LoadAs<DataHeader>(bytes.data()).receiver_index;
      const auto found = by_index_.find(index);
      if (found == by_index_.end()) continue;
      Core& core = *peers_[found->second];
      core.ReceiveBytes(bytes, hub_at_);
      answered_ += core.received.size();
      core.received.clear();
      Forward(core);
    }
  }

  void Turn() {
    control_.restart();
    control_.run_for(500us);
  }

  std::mt19937_64 random_;
  std::mt19937_64 hub_random_{7};  // the data threads'
  TestClock clock_;
  boost::asio::io_context control_;
  Programs hub_programs_;
  std::atomic<std::uint64_t> to_send_{0}, arrived_{0}, wrong_{0};
  TestEngine hub_;
  Fd socket_;
  PrivateKey hub_key_;
  SocketAddress hub_at_;
  std::vector<std::unique_ptr<Core>> peers_;
  std::unordered_map<std::uint32_t, std::size_t> by_index_;
  std::uint64_t sent_ = 0, answered_ = 0;
  std::size_t replaced_ = 0;
};

TEST(ManyPeers, TalkWhileOthersComeAndGoWithoutAStallOrGrowth) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(::testing::Message() << "seed " << seed);
  InNamespace([seed] {
    // The large blocks of cores that come and go each get pages of their own, so that they leave no holes.
    mallopt(M_MMAP_THRESHOLD, 64 * 1024);
    Crowd crowd(seed);
    if (!::testing::Test::HasFailure()) crowd.Talk();
    crowd.Check();
  });
}

}  // namespace
}  // namespace adit
