// For tests of the data path end to end: engines with real sockets over the loopback of a network namespace of their
// own, and TUN devices whose packets come from the test and go to it. All data threads, system calls of the sockets and
// fallbacks are the real ones; what a test wants to fail, it replaces.
#pragma once

#include <gtest/gtest.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/check.h"
#include "crypto/primitives.h"
#include "engine/engine.h"
#include "tun/split.h"

namespace adit::test {

inline constexpr int kSkipped = 77;

// The programs' side of a TUN device. Both functions are called on data threads, one call of each at a time.
struct Programs {
  // What the kernel would hand over next; empty: nothing now.
  std::function<std::optional<std::pair<VirtioHeader, std::vector<std::uint8_t>>>()> send;
  // One inner packet, cut out of its super-packet.
  std::function<void(Bytes)> receive;
  std::atomic<int> refuses_merged{0};  // errno value for writes of super-packets; 0: takes them
  std::atomic<int> refuses_all{0};
  std::atomic<std::uint64_t> merged_writes{0};
};

class Wires {
 public:
  static Wires& Get() {
    static Wires wires;
    return wires;
  }
  void Connect(int fd, Programs& programs) {
    const std::scoped_lock lock(mutex_);
    ends_.push_back({fd, &programs});
  }

  static ssize_t Readv(int fd, const iovec* parts, int count) {
    Programs* const programs = Get().Find(fd);
    if (auto next = programs != nullptr && programs->send ? programs->send() : std::nullopt) {
      CHECK(count == 2 && parts[1].iov_len >= next->second.size());
      std::memcpy(parts[0].iov_base, &next->first, sizeof(VirtioHeader));
      std::memcpy(parts[1].iov_base, next->second.data(), next->second.size());
      return static_cast<ssize_t>(sizeof(VirtioHeader) + next->second.size());
    }
    // What the kernel has is what woke the thread; nobody wants it.
    ssize_t got;
    while ((got = ::readv(fd, parts, count)) > 0) {
    }
    return got;
  }

  static ssize_t Writev(int fd, const iovec* parts, int count) {
    Programs* const programs = Get().Find(fd);
    if (programs == nullptr) return ::writev(fd, parts, count);
    std::vector<std::uint8_t> packet;
    for (int i = 1; i < count; ++i) {
      const auto* const at = static_cast<const std::uint8_t*>(parts[i].iov_base);
      packet.insert(packet.end(), at, at + parts[i].iov_len);
    }
    VirtioHeader header;
    std::memcpy(&header, parts[0].iov_base, sizeof header);
    const auto written = static_cast<ssize_t>(sizeof header + packet.size());
    const bool is_merged = header.gso_type != kVirtioGsoNone;
    int refused = programs->refuses_all;
    if (refused == 0 && is_merged) refused = programs->refuses_merged;
    if (refused != 0) {
      errno = refused;
      return -1;
    }
    programs->merged_writes += is_merged;
    Splitter splitter(header, packet);
    CHECK(splitter.error() == SplitError::kNone);
    while (const auto segment = splitter.Next()) {
      std::vector<std::uint8_t> whole(segment->head.begin(), segment->head.end());
      whole.insert(whole.end(), segment->body.begin(), segment->body.end());
      if (programs->receive) programs->receive(whole);
    }
    return written;
  }

 private:
  Programs* Find(int fd) {
    const std::scoped_lock lock(mutex_);
    for (const auto& [end, programs] : ends_) {
      if (end == fd) return programs;
    }
    return nullptr;
  }
  std::mutex mutex_;
  std::vector<std::pair<int, Programs*>> ends_;
};

inline EngineOptions WithThreads(unsigned threads) {
  EngineOptions options;
  options.threads = threads;
  return options;
}

// An engine on the control thread of the test; `number` names its TUN and its network, 10.77.NUMBER.0/24.
class TestEngine {
 public:
  TestEngine(boost::asio::io_context& control, unsigned number, Programs& programs, const EngineOptions& options)
      : number_(number), name_("adit-test" + std::to_string(number)) {
    TunOptions tun_options;
    tun_options.mtu = 1420;
    tun_options.calls.readv = Wires::Readv;
    tun_options.calls.writev = Wires::Writev;
    auto tun = TunDevice::Create(name_, tun_options);
    if (!tun) _exit(kSkipped);
    Wires::Get().Connect((*tun)->queue_fd(0), programs);
    auto started = Engine::Start(control, std::move(*tun), options, [](EngineEnd) {});
    CHECK(started);
    engine = std::move(*started);
    SetAddress(name_, htonl(0x0a4d0001 + (number << 8)));
    Raise(name_);
    kick_ = Fd(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  }

  // Makes the TUN readable, as a packet of a program does.
  void Kick() {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(9);
    to.sin_addr.s_addr = htonl(0x0a4d0063 + (number_ << 8));
    [[maybe_unused]] const auto sent =
        sendto(kick_.get(), "", 0, MSG_DONTWAIT, reinterpret_cast<sockaddr*>(&to), sizeof to);
  }
  std::uint64_t Counter(std::string_view name) const {
    for (const auto& [counter, value] : engine->GetEngine().counters) {
      if (counter == name) return value;
    }
    return 0;
  }
  std::uint64_t Drops(std::string_view reason) const {
    for (const auto& [name, value] : engine->GetEngine().drops) {
      if (name == reason) return value;
    }
    return 0;
  }

  static void Raise(const std::string& name) {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM, 0));
    ifreq request{};
    std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
    CHECK(ioctl(socket.get(), SIOCGIFFLAGS, &request) == 0);
    request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
    CHECK(ioctl(socket.get(), SIOCSIFFLAGS, &request) == 0);
  }

  static void SetAddress(const std::string& name, std::uint32_t address) {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM, 0));
    ifreq request{};
    std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
    auto* const at = reinterpret_cast<sockaddr_in*>(&request.ifr_addr);
    at->sin_family = AF_INET;
    at->sin_addr.s_addr = address;
    CHECK(ioctl(socket.get(), SIOCSIFADDR, &request) == 0);
    at->sin_addr.s_addr = htonl(0xffffff00);
    CHECK(ioctl(socket.get(), SIOCSIFNETMASK, &request) == 0);
  }

  std::unique_ptr<Engine> engine;

 private:
  const unsigned number_;
  const std::string name_;
  Fd kick_;
};

// Runs `test` in a child with a network namespace of its own, in which the loopback is up.
inline void InNamespace(const std::function<void()>& test) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (unshare(CLONE_NEWNET) != 0) _exit(kSkipped);
    InitializeCrypto();
    TestEngine::Raise("lo");
    test();
    fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == kSkipped) GTEST_SKIP() << "needs CAP_SYS_ADMIN, CAP_NET_ADMIN and /dev/net/tun";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace adit::test
