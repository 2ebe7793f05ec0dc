// For tests: a machine in a network namespace of its own, with an uplink to a router in a second one.
//
//   machine: eth0 192.168.1.2/24, fd01::2/64 ---- router: port0 192.168.1.1/24, 192.168.1.66/24, fd01::1/64,
//            adit0 (TUN, down)                            and on lo 203.0.113.10, 2001:db8:f::10
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "base/fd.h"
#include "routing/links.h"
#include "routing/netns.h"
#include "routing/sysctl.h"
#include "routing/take_snapshot.h"

namespace adit {

inline void Must(const Status& status) {
  if (!status) ADD_FAILURE() << status.error().message;
}

// Lives as long as the descriptor. Created in the calling thread's namespace.
inline Fd OpenTun(const std::string& name) {
  Fd fd(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  std::strncpy(request.ifr_name, name.c_str(), IFNAMSIZ - 1);
  if (!fd || ioctl(fd.get(), TUNSETIFF, &request) != 0) {
    ADD_FAILURE() << "cannot open TUN " << name << ": " << strerror(errno);
  }
  return fd;
}

class NamespaceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access("/dev/net/tun", R_OK | W_OK) != 0) GTEST_SKIP() << "no access to /dev/net/tun";
    auto machine = CreateNetworkNamespace();
    if (!machine) GTEST_SKIP() << machine.error().message;
    machine_ = std::move(*machine);
    router_ = std::move(*CreateNetworkNamespace());
    char folder[] = "/tmp/adit-routing-XXXXXX";
    ASSERT_NE(mkdtemp(folder), nullptr);
    folder_ = folder;
    journal_ = folder_ + "/adit0.journal";
    Must(CreateVethPair({"eth0", machine_.get()}, {"port0", router_.get()}));
    InRouter([](NetlinkSocket& socket) {
      Must(SetAddressGeneration(socket, "port0", kAddressGenerationNone));
      Must(SetLinkUp(socket, "lo", true));
      Must(SetLinkUp(socket, "port0", true));
      for (const char* text : {"192.168.1.1/24", "192.168.1.66/24", "fd01::1/64"}) {
        Must(AddLinkAddress(socket, "port0", *ParseInterfaceAddress(text)));
      }
      Must(AddLinkAddress(socket, "lo", *ParseInterfaceAddress("203.0.113.10")));
      Must(AddLinkAddress(socket, "lo", *ParseInterfaceAddress("2001:db8:f::10")));
    });
    InMachine([this](NetlinkSocket& socket) {
      Must(SetAddressGeneration(socket, "eth0", kAddressGenerationNone));
      Must(WriteSysctl("net/ipv4/conf/all/rp_filter", "0"));
      Must(WriteSysctl("net/ipv4/conf/eth0/rp_filter", "0"));
      Must(SetLinkUp(socket, "lo", true));
      Must(SetLinkUp(socket, "eth0", true));
      Must(AddLinkAddress(socket, "eth0", *ParseInterfaceAddress("192.168.1.2/24")));
      Must(AddLinkAddress(socket, "eth0", *ParseInterfaceAddress("fd01::2/64")));
      Route gateway;
      gateway.destination = *Prefix::Parse("0.0.0.0/0", false);
      gateway.gateway = *IpAddress::Parse("192.168.1.1");
      gateway.device = "eth0";
      Must(AddKernelRoute(socket, gateway));
      gateway.destination = *Prefix::Parse("::/0", false);
      gateway.gateway = *IpAddress::Parse("fd01::1");
      gateway.metric = 1024;
      Must(AddKernelRoute(socket, gateway));
      tun_ = OpenTun("adit0");
      Settle(socket);
    });
  }

  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  void InMachine(const std::function<void(NetlinkSocket&)>& fn) { In(machine_.get(), fn); }
  void InRouter(const std::function<void(NetlinkSocket&)>& fn) { In(router_.get(), fn); }

  static NetSnapshot Snapshot(NetlinkSocket& socket) {
    auto snapshot = TakeSnapshot(socket);
    if (!snapshot) {
      ADD_FAILURE() << snapshot.error().message;
      return {};
    }
    return *snapshot;
  }

  // The kernel adds some IPv6 routes a moment after a link got its carrier.
  static void Settle(NetlinkSocket& socket) {
    NetSnapshot last = Snapshot(socket);
    int equal = 0;
    for (int i = 0; i < 200 && equal < 10; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
      NetSnapshot now = Snapshot(socket);
      equal = now == last ? equal + 1 : 0;
      last = std::move(now);
    }
  }

  // What one has and the other has not, for messages.
  static std::string Difference(const NetSnapshot& before, const NetSnapshot& after) {
    std::string text;
    const auto compare = [&](const auto& left, const auto& right, const char* sign, auto print) {
      for (const auto& item : left) {
        if (std::ranges::find(right, item) == right.end()) text += sign + print(item) + "\n";
      }
    };
    const auto both = [&](const auto& left, const auto& right, auto print) {
      compare(left, right, "- ", print);
      compare(right, left, "+ ", print);
    };
    both(before.links, after.links, [](const Link& link) {
      return fmt::format("link {} mtu {} up {} generation {}", link.name, link.mtu, link.is_up,
                         link.address_generation);
    });
    both(before.addresses, after.addresses,
         [](const LinkAddress& address) { return address.device + " " + address.address.ToString(); });
    both(before.routes, after.routes, [](const Route& route) { return route.ToString(); });
    both(before.rules, after.rules, [](const Rule& rule) { return rule.ToString(); });
    both(before.sysctls, after.sysctls, [](const auto& entry) { return entry.first + "=" + entry.second; });
    return text;
  }

  // The same with what is there now, or in a moment: the kernel adds and removes IPv6's local routes by itself, later.
  static std::string LastingDifference(const NetSnapshot& before, NetlinkSocket& socket) {
    std::string difference;
    for (int i = 0; i < 200; ++i) {
      difference = Difference(before, Snapshot(socket));
      if (difference.empty()) break;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return difference;
  }

  Fd machine_;
  Fd router_;
  Fd tun_;
  std::string folder_;
  std::string journal_;

 private:
  static void In(int netns, const std::function<void(NetlinkSocket&)>& fn) {
    Must(RunInNamespace(netns, [&]() -> Status {
      auto socket = NetlinkSocket::Open();
      if (!socket) return std::unexpected(socket.error());
      fn(*socket);
      return {};
    }));
  }
};

}  // namespace adit
