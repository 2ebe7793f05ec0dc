// The engine with a real TUN device and real sockets, in a network namespace of its own.
#include "engine/engine.h"

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>

#include "base/random.h"
#include "crypto/primitives.h"
#include "tunnel/limits.h"

namespace adit {
namespace {

constexpr int kSkipped = 77;

PublicKey KeyNumber(std::uint64_t seed) {
  SeededRandom random(seed);
  return PrivateKey::Generate(random).ComputePublicKey();
}

PeerUpdate PeerNumber(std::uint64_t seed) {
  PeerUpdate peer;
  peer.public_key = KeyNumber(seed);
  return peer;
}

// An engine on the control thread of the test.
class Device {
 public:
  Device() {
    auto tun = TunDevice::Create("adit-test", TunOptions{});
    if (!tun) _exit(kSkipped);
    EngineOptions options;
    options.aead = AeadBackend::kSodium;
    auto started = Engine::Start(control, std::move(*tun), options, [](EngineEnd) {});
    if (!started) {
      ADD_FAILURE() << started.error().message;
      _exit(1);
    }
    engine = std::move(*started);
  }

  void SetUp(bool up) {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM, 0));
    ifreq request{};
    std::strcpy(request.ifr_name, "adit-test");
    ASSERT_EQ(ioctl(socket.get(), SIOCGIFFLAGS, &request), 0);
    request.ifr_flags = static_cast<short>(up ? request.ifr_flags | IFF_UP : request.ifr_flags & ~IFF_UP);
    ASSERT_EQ(ioctl(socket.get(), SIOCSIFFLAGS, &request), 0);
    for (int i = 0; i < 500 && engine->GetEngine().is_up != up; ++i) Turn();
    ASSERT_EQ(engine->GetEngine().is_up, up);
  }
  void Turn() {
    control.restart();
    control.run_for(std::chrono::milliseconds(2));
  }
  int SetPort(std::uint16_t port) {
    DeviceUpdate update;
    update.listen_port = port;
    return engine->SetDevice(update);
  }
  std::uint16_t port() const { return engine->GetDevice().listen_port; }

  boost::asio::io_context control;
  std::unique_ptr<Engine> engine;
};

// Runs `test` in a child with an empty network namespace; what it finds wrong it prints.
void InNamespace(const std::function<void(Device&)>& test) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNET) != 0) _exit(kSkipped);
    InitializeCrypto();
    {
      Device device;
      test(device);
    }
    fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == kSkipped) GTEST_SKIP() << "needs CAP_SYS_ADMIN, CAP_NET_ADMIN and /dev/net/tun";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

// A socket of somebody else.
Fd Occupy(std::uint16_t port) {
  Fd fd(::socket(AF_INET, SOCK_DGRAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) fd.Close();
  return fd;
}

// However many descriptors there are, Start() succeeds or says what to change, and gives back what it took.
TEST(Engine, SaysThatDescriptorsAreMissingAndLeavesNone) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own type check needs a descriptor, and says \"invalid vptr\" without one";
#endif
  InNamespace([](Device& device) {
    device.engine.reset();
    const auto lowest_free = [] {
      const Fd probe(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
      return probe.get();
    };
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    EngineOptions options;
    options.aead = AeadBackend::kSodium;
    bool has_started = false;
    int refused = 0;
    for (int more = 0; more < 100 && !has_started; ++more) {
      auto tun = TunDevice::Create("adit-test", TunOptions{});
      ASSERT_TRUE(tun) << tun.error().message;
      const int free = lowest_free();
      ASSERT_GE(free, 0);
      const rlimit limit{static_cast<rlim_t>(free + more), before.rlim_max};
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
      {
        boost::asio::io_context& control = device.control;
        const auto started = Engine::Start(control, std::move(*tun), options, [](EngineEnd) {});
        has_started = started.has_value();
        if (!has_started) {
          ++refused;
          EXPECT_NE(started.error().message.find("Too many open files"), std::string::npos) << started.error().message;
        }
      }
      ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
      device.Turn();
      EXPECT_LE(lowest_free(), free) << more;  // the TUN's are free again too
    }
    EXPECT_TRUE(has_started);
    EXPECT_GT(refused, 10);
  });
}

// A machine that wakes, or a configuration that is loaded: thousands of peers at once. One event of the control thread
// stays short, so that who asks for the status in between is answered.
TEST(Engine, BeginsHandshakesWithThousandsOfPeersInManyShortTurns) {
  InNamespace([](Device& device) {
    constexpr std::uint64_t kPeers = 10'000;
    device.SetUp(true);
    SeededRandom random(kPeers);  // none of PeerNumber's: our own key as a peer would be ignored
    DeviceUpdate update;
    update.private_key = PrivateKey::Generate(random);
    for (std::uint64_t i = 0; i < kPeers; ++i) {
      PeerUpdate& peer = update.peers.emplace_back(PeerNumber(i));
      peer.endpoint = *SocketAddress::Parse("127.0.0.1:9");
      peer.persistent_keepalive_seconds = 3600;
    }
    ASSERT_EQ(device.engine->SetDevice(update), 0);
    ASSERT_EQ(device.engine->GetDevice().peers.size(), kPeers);
    const auto sent = [&] {
      for (const auto& [name, value] : device.engine->GetEngine().counters) {
        if (name == "handshake_initiations_sent") return value;
      }
      return std::uint64_t{0};
    };
    std::uint64_t before = sent(), greatest_step = 0;
    device.control.restart();
    while (before < kPeers && device.control.run_one_for(std::chrono::seconds(4)) > 0) {
      const std::uint64_t now = sent();
      greatest_step = std::max(greatest_step, now - before);
      before = now;
    }
    EXPECT_EQ(before, kPeers);
    EXPECT_LE(greatest_step, kInitiationsPerTurn);
  });
}

TEST(Engine, TakesThePortItWasGivenByChanceWhenItIsAskedForByNumber_CONF98) {
  InNamespace([](Device& device) {
    device.SetUp(true);
    const std::uint16_t port = device.port();
    ASSERT_NE(port, 0);
    EXPECT_EQ(device.SetPort(port), 0);  // what `wg setconf` does with what `wg showconf` said
    EXPECT_EQ(device.port(), port);
    EXPECT_EQ(device.SetPort(port), 0);
  });
}

TEST(Engine, KeepsAPortOfChanceWhenToldAnyPort) {
  InNamespace([](Device& device) {
    device.SetUp(true);
    const std::uint16_t port = device.port();
    EXPECT_EQ(device.SetPort(0), 0);
    EXPECT_EQ(device.port(), port);
    device.SetUp(false);
    EXPECT_EQ(device.SetPort(0), 0);
    device.SetUp(true);
    EXPECT_EQ(device.port(), port);
  });
}

TEST(Engine, ComesUpOnTheSamePortHoweverFastTheLinkGoesDownAndUp_CONF57) {
  InNamespace([](Device& device) {
    device.SetUp(true);
    const std::uint16_t port = device.port();
    for (int i = 0; i < 200; ++i) {
      device.SetUp(false);
      device.SetUp(true);
      ASSERT_EQ(device.port(), port) << "round " << i;
    }
  });
}

TEST(Engine, MovesBetweenTwoPortsAsOftenAsItIsTold) {
  InNamespace([](Device& device) {
    device.SetUp(true);
    for (int i = 0; i < 200; ++i) {
      const auto port = static_cast<std::uint16_t>(20'000 + i % 2);
      ASSERT_EQ(device.SetPort(port), 0) << "round " << i;
      ASSERT_EQ(device.port(), port);
    }
  });
}

TEST(Engine, BusyPortChangesNothing_CONF98_CONF103) {
  InNamespace([](Device& device) {
    device.SetUp(true);
    const Fd other = Occupy(20'000);
    ASSERT_TRUE(other);
    const std::uint16_t port = device.port();
    DeviceUpdate update;
    update.listen_port = 20'000;
    update.fwmark = 7;
    SeededRandom random(1);
    update.private_key = PrivateKey::Generate(random);
    update.peers.push_back(PeerNumber(2));
    EXPECT_EQ(device.engine->SetDevice(update), EADDRINUSE);
    const DeviceStatus status = device.engine->GetDevice();
    EXPECT_EQ(status.listen_port, port);
    EXPECT_EQ(status.fwmark, 0u);
    EXPECT_TRUE(status.private_key.is_zero());
    EXPECT_TRUE(status.peers.empty());
    EXPECT_EQ(device.SetPort(0), 0);
    EXPECT_EQ(device.port(), port) << "the port that was refused must not count as wanted";
  });
}

TEST(Engine, WaitsForABusyPortWhenTheLinkComesUp) {
  InNamespace([](Device& device) {
    ASSERT_EQ(device.SetPort(20'000), 0);
    device.SetUp(true);
    device.SetUp(false);
    Fd other;
    for (int i = 0; i < 500 && !other; ++i) {
      device.Turn();
      other = Occupy(20'000);
    }
    ASSERT_TRUE(other) << "a link that is down holds its port";
    device.SetUp(true);
    other.Close();
    for (int i = 0; i < 2000 && Occupy(20'000); ++i) device.Turn();
    EXPECT_FALSE(Occupy(20'000));
    EXPECT_EQ(device.port(), 20'000);
  });
}

TEST(Engine, CountsPeersThatAreThereOnceAgainstTheLimit) {
  InNamespace([](Device& device) {
    DeviceUpdate first;
    first.peers.push_back(PeerNumber(1));
    ASSERT_EQ(device.engine->SetDevice(first), 0);
    // As many sections as peers are allowed, all of one peer that is there: one synchronising reload of a full device
    // looks like this, and takes no room.
    DeviceUpdate reload;
    reload.peers.assign(kMaxPeers, PeerNumber(1));
    EXPECT_EQ(device.engine->SetDevice(reload), 0);
    EXPECT_EQ(device.engine->GetDevice().peers.size(), 1u);
  });
}

TEST(Engine, ReplacingPeersKeepsWhomItNamesAndTheirEndpoint) {
  InNamespace([](Device& device) {
    DeviceUpdate first;
    for (std::uint64_t i = 1; i <= 3; ++i) {
      PeerUpdate peer = PeerNumber(i);
      peer.endpoint = SocketAddress::Parse("192.0.2.1:1");
      peer.persistent_keepalive_seconds = 25;
      peer.allowed_ips.push_back({Prefix(IpAddress::V4(ByteArray<4>{10, 0, 0, static_cast<std::uint8_t>(i)}), 32)});
      first.peers.push_back(peer);
    }
    ASSERT_EQ(device.engine->SetDevice(first), 0);
    DeviceUpdate second;
    second.replace_peers = true;
    second.peers.push_back(PeerNumber(2));
    PeerUpdate stranger = PeerNumber(9);
    stranger.update_only = true;
    second.peers.push_back(stranger);
    ASSERT_EQ(device.engine->SetDevice(second), 0);
    const auto peers = device.engine->GetDevice().peers;
    ASSERT_EQ(peers.size(), 1u);
    EXPECT_EQ(peers[0].public_key, KeyNumber(2));
    EXPECT_TRUE(peers[0].endpoint.has_value());
    EXPECT_EQ(peers[0].persistent_keepalive_seconds, 0);
    EXPECT_TRUE(peers[0].allowed_ips.empty());
  });
}

}  // namespace
}  // namespace adit
