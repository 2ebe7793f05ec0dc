#include "routing/routing.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "routing/apply.h"
#include "routing/faulty_target_fixture.h"
#include "routing/verify.h"

namespace adit {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using RoutingTest = NamespaceTest;

TEST_F(RoutingTest, UpDoesWhatThePlanSaysAndDownLeavesTheMachineAsItWas) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    EXPECT_THAT(routing->findings(), IsEmpty());

    const NetSnapshot during = Snapshot(socket);
    for (const Op& op : routing->plan().ops) {
      if (const auto* route = std::get_if<AddRoute>(&op)) {
        EXPECT_THAT(during.routes, Contains(route->route)) << ToString(op);
      } else if (const auto* rule = std::get_if<AddRule>(&op)) {
        EXPECT_THAT(during.rules, Contains(rule->rule)) << ToString(op);
      } else if (const auto* address = std::get_if<AddAddress>(&op)) {
        EXPECT_THAT(during.addresses, Contains(LinkAddress{address->device, address->address}));
      }
    }
    EXPECT_EQ(during.FindLink("adit0")->mtu, 1420U);
    EXPECT_TRUE(during.FindLink("adit0")->is_up);
    EXPECT_EQ(during.FindLink("adit0")->address_generation, kAddressGenerationNone);
    for (const LinkAddress& address : during.addresses) {
      EXPECT_FALSE(address.device == "adit0" && address.address.ip.is_v6_link_local()) << "kernel WireGuard has none";
    }

    Must(routing->Down());
    EXPECT_EQ(Difference(before, Snapshot(socket)), "");
    EXPECT_NE(access(journal_.c_str(), F_OK), 0);
    Must(routing->Down());
  });
}

TEST_F(RoutingTest, FullTunnelTakesEverythingButItsOwnPacketsAndTheLan) {
  InMachine([&](NetlinkSocket& socket) {
    // The control: without the tunnel each of them leaves by the uplink.
    for (const char* ip : {"8.8.8.8", "2001:db8:1::1", "203.0.113.10", "10.77.1.1"}) {
      EXPECT_EQ(WayTo(socket, ip), "eth0") << ip;
    }
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    const std::uint32_t mark = routing->fwmark();
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "adit0");
    EXPECT_EQ(WayTo(socket, "2001:db8:1::1"), "adit0");
    EXPECT_EQ(WayTo(socket, "10.77.1.1"), "adit0");
    EXPECT_EQ(WayTo(socket, "203.0.113.10"), "adit0");
    EXPECT_EQ(WayTo(socket, "203.0.113.10", mark), "eth0");
    EXPECT_EQ(WayTo(socket, "2001:db8:f::10", mark), "eth0");
    EXPECT_EQ(WayTo(socket, "192.168.1.77"), "eth0");
    EXPECT_EQ(WayTo(socket, "fd01::77"), "eth0");
  });
}

TEST_F(RoutingTest, EngineIsRefusedRatherThanLoopedWhenTheUplinkGoes) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    Must(SetLinkUp(socket, "eth0", false));
    EXPECT_EQ(WayTo(socket, "203.0.113.10", routing->fwmark()), "refused");
    EXPECT_EQ(WayTo(socket, "2001:db8:f::10", routing->fwmark()), "refused");
    EXPECT_EQ(WayTo(socket, "203.0.113.10"), "adit0");
  });
}

TEST_F(RoutingTest, ADeadTunnelLeavesNothingToTheUplink) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    tun_.Close();
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "refused");
    EXPECT_EQ(WayTo(socket, "2001:db8:1::1"), "refused");
    Must(routing->Down());
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "eth0");
  });
}

TEST_F(RoutingTest, PublicRoutesPushedIntoMainTakeNothingOutOfTheTunnel) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    for (const char* pushed : {"0.0.0.0/1", "128.0.0.0/1", "8.8.8.0/24", "8.8.8.8/32"}) {
      Route route;
      route.destination = *Prefix::Parse(pushed, false);
      route.gateway = Ip("192.168.1.66");
      route.device = "eth0";
      Must(AddKernelRoute(socket, route));
      EXPECT_EQ(WayTo(socket, "8.8.8.8"), "adit0") << pushed;
    }
    EXPECT_EQ(*routing->Verify(), std::vector<std::string>());
    // The control: the same routes without the tunnel do take it.
    Must(routing->Down());
    EXPECT_EQ(AskRoute(socket, Ip("8.8.8.8"), 0)->device, "eth0");
  });
}

TEST_F(RoutingTest, ATunnelWithoutIpv6RefusesIpv6AtOnce) {
  InMachine([&](NetlinkSocket& socket) {
    RoutingConfig config = FullTunnel();
    config.addresses.pop_back();
    config.allowed_ips = {*Prefix::Parse("0.0.0.0/0", false)};
    EXPECT_EQ(WayTo(socket, "2001:db8:1::1"), "eth0");
    auto routing = MustUp(config, journal_);
    ASSERT_NE(routing, nullptr);
    EXPECT_THAT(routing->findings(), IsEmpty());
    const Fd client(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_storage to{};
    const socklen_t size = SocketAddress::Parse("[2001:db8:f::10]:80")->ToSockaddr(to);
    EXPECT_EQ(connect(client.get(), reinterpret_cast<sockaddr*>(&to), size), -1);
    EXPECT_EQ(errno, EHOSTUNREACH);
    EXPECT_EQ(WayTo(socket, "fd01::77"), "eth0");
  });
}

TEST_F(RoutingTest, SwitchedOffIpv6OnTheLinkIsNoFailure) {
  InMachine([&](NetlinkSocket& socket) {
    Must(WriteSysctl("net/ipv6/conf/adit0/disable_ipv6", "1"));
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    EXPECT_THAT(routing->plan().warnings, Contains(HasSubstr("IPv6 is switched off")));
    EXPECT_EQ(WayTo(socket, "2001:db8:1::1"), "refused");
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "adit0");
  });
}

TEST_F(RoutingTest, TwoTunnelsAndTheFirstDownLeavesTheSecondWorking) {
  for (const bool second_is_full : {true, false}) {
    InMachine([&](NetlinkSocket& socket) {
      const Fd other = OpenTun("adit1");
      const NetSnapshot before = Snapshot(socket);
      auto first = MustUp(FullTunnel(), journal_);
      RoutingConfig config = FullTunnel("adit1");
      config.addresses = {*ParseInterfaceAddress("10.10.0.2/32"), *ParseInterfaceAddress("fd10::2/128")};
      if (!second_is_full) config.allowed_ips = {*Prefix::Parse("198.18.0.0/15", false)};
      auto second = MustUp(config, journal_ + "1");
      ASSERT_TRUE(first && second);
      EXPECT_EQ(WayTo(socket, "198.18.1.1"), second_is_full ? "adit0" : "adit1") << "the more specific one wins";
      Must(first->Down());
      EXPECT_THAT(*second->Verify(), IsEmpty());
      EXPECT_EQ(WayTo(socket, "198.18.1.1"), "adit1");
      EXPECT_EQ(WayTo(socket, "8.8.8.8"), second_is_full ? "adit1" : "eth0");
      EXPECT_EQ(WayTo(socket, "192.168.1.77"), "eth0");
      EXPECT_EQ(WayTo(socket, "203.0.113.10", second->fwmark()), "eth0");
      Must(second->Down());
      EXPECT_EQ(Difference(before, Snapshot(socket)), "");
    });
  }
}

TEST_F(RoutingTest, SplitTunnelOverItsEndpointDoesNotLoop) {
  InMachine([&](NetlinkSocket& socket) {
    RoutingConfig config = FullTunnel();
    config.allowed_ips = {*Prefix::Parse("203.0.113.0/24", false)};
    auto routing = MustUp(config, journal_);
    ASSERT_NE(routing, nullptr);
    EXPECT_EQ(WayTo(socket, "203.0.113.10"), "adit0");
    EXPECT_EQ(WayTo(socket, "203.0.113.10", routing->fwmark()), "eth0");
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "eth0");
  });
}

TEST_F(RoutingTest, APlanThatWouldLoopIsRefusedAndUndone) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    RoutingConfig config = FullTunnel();
    config.table_mode = TableMode::kNumber;
    config.table = kMainTable;
    config.allowed_ips = {*Prefix::Parse("203.0.113.0/24", false)};
    const auto routing = Routing::Up(config, journal_);
    ASSERT_FALSE(routing);
    EXPECT_THAT(routing.error().message, HasSubstr("endpoint 203.0.113.10:51820"));
    EXPECT_EQ(Difference(before, Snapshot(socket)), "");
    EXPECT_NE(access(journal_.c_str(), F_OK), 0);
  });
}

TEST_F(RoutingTest, DownLeavesAloneWhatOthersChangedMeanwhile) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    Must(SetLinkMtu(socket, "adit0", 1300));
    Must(SetAddressGeneration(socket, "adit0", 3));
    for (const Op& op : routing->plan().ops) {
      if (const auto* route = std::get_if<AddRoute>(&op)) {
        if (route->route.family() == Family::kV4) Must(DeleteKernelRoute(socket, route->route));
      }
    }
    Route foreign;
    foreign.destination = *Prefix::Parse("192.0.2.0/24", false);
    foreign.device = "eth0";
    foreign.table = routing->plan().catch_all_table;
    Must(AddKernelRoute(socket, foreign));
    Must(routing->Down());
    const NetSnapshot after = Snapshot(socket);
    EXPECT_EQ(after.FindLink("adit0")->mtu, 1300U);
    EXPECT_EQ(after.FindLink("adit0")->address_generation, 3);
    EXPECT_THAT(after.routes, Contains(foreign));
  });
}

TEST_F(RoutingTest, ALinkThatOnlyHasTheNameIsLeftAlone) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    tun_.Close();
    tun_ = OpenTun("adit0");
    Must(AddLinkAddress(socket, "adit0", *ParseInterfaceAddress("10.9.0.2/24")));
    Must(SetLinkUp(socket, "adit0", true));
    Must(routing->Down());
    const NetSnapshot after = Snapshot(socket);
    EXPECT_TRUE(after.FindLink("adit0")->is_up);
    EXPECT_THAT(after.addresses, Contains(LinkAddress{"adit0", *ParseInterfaceAddress("10.9.0.2/24")}));
  });
}

TEST_F(RoutingTest, ARunningTunnelCannotBeCleanedUpNorStartedTwice) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    const Status cleanup = Cleanup(journal_);
    ASSERT_FALSE(cleanup);
    EXPECT_EQ(cleanup.error().code, EBUSY);
    EXPECT_FALSE(Routing::Up(FullTunnel(), journal_));
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "adit0");
  });
}

TEST_F(RoutingTest, AJournalOfAnotherNamespaceIsNotReplayedHere) {
  InMachine([&](NetlinkSocket&) { ASSERT_NE(MustUp(FullTunnel(), journal_), nullptr); });
  InRouter([&](NetlinkSocket&) {
    const Status cleanup = Cleanup(journal_);
    ASSERT_FALSE(cleanup);
    EXPECT_THAT(cleanup.error().message, HasSubstr("another network namespace"));
  });
  InMachine([&](NetlinkSocket& socket) {
    Must(Cleanup(journal_));
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "eth0");
  });
}

TEST_F(RoutingTest, ErrorsCarryTheKernelsOwnWords) {
  InMachine([&](NetlinkSocket& socket) {
    Route route;
    route.destination = *Prefix::Parse("198.51.100.0/24", false);
    route.device = "eth0";
    route.gateway = Ip("172.16.5.5");
    const Status status = AddKernelRoute(socket, route);
    ASSERT_FALSE(status);
    EXPECT_EQ(status.error().code, ENETUNREACH);
    EXPECT_THAT(status.error().message, HasSubstr("Nexthop has invalid gateway"));
  });
}

// --- faults ------------------------------------------------------------------------------------------------------

TEST_F(RoutingTest, AnErrorAtAnyOperationRollsEverythingBack_SCENARIO32) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const Plan plan = *PlanNow(FullTunnel());
    ASSERT_GT(plan.ops.size(), 20U);
    const std::uint32_t index = FindLink(socket, "adit0")->index;
    constexpr int kErrors[] = {ENOBUFS, EPERM, EBUSY, EEXIST};
    for (std::size_t i = 0; i < plan.ops.size() * std::size(kErrors); ++i) {
      const std::size_t at = i / std::size(kErrors);
      const int code = kErrors[i % std::size(kErrors)];
      auto journal = Journal::Create(journal_, {"adit0", index, "x"});
      ASSERT_TRUE(journal);
      KernelTarget kernel(socket, "adit0", index);
      FaultyTarget target(kernel, FaultyTarget::Fault::kError, at, code);
      std::vector<Op> ops = plan.ops;
      const ApplyOutcome outcome = ApplyOps(target, *journal, ops);
      ASSERT_FALSE(outcome.status);
      EXPECT_EQ(outcome.status.error().code, code);
      EXPECT_THAT(outcome.status.error().message, HasSubstr(ToString(ops[at])));
      EXPECT_FALSE(outcome.something_left);
      EXPECT_EQ(Difference(before, Snapshot(socket)), "") << "after an error at " << ToString(plan.ops[at]);
      Must(journal->Remove());
    }
  });
}

TEST_F(RoutingTest, AForeignRouteInTheWayIsLeftThereByTheRollback) {
  InMachine([&](NetlinkSocket& socket) {
    const Plan plan = *PlanNow(FullTunnel());
    Route taken;
    taken.destination = *Prefix::Parse("0.0.0.0/0", false);
    taken.table = plan.catch_all_table;
    taken.type = RouteType::kUnreachable;
    taken.metric = 4278198272;
    Must(AddKernelRoute(socket, taken));  // after the plan was made
    const NetSnapshot before = Snapshot(socket);
    const auto routing = Routing::Up(plan, journal_);
    ASSERT_FALSE(routing);
    EXPECT_EQ(routing.error().code, EEXIST);
    EXPECT_EQ(Difference(before, Snapshot(socket)), "");
  });
}

TEST_F(RoutingTest, CleanupAfterAKillAtAnyOperationLeavesTheMachineAsItWas_SCENARIO31) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const Plan plan = *PlanNow(FullTunnel());
    const std::uint32_t index = FindLink(socket, "adit0")->index;
    const std::string netns = *NetworkNamespaceIdentity(CurrentNetworkNamespace()->get());
    std::size_t left_something = 0;
    for (const auto fault : {FaultyTarget::Fault::kKillBefore, FaultyTarget::Fault::kKillAfter}) {
      for (std::size_t at = 0; at < plan.ops.size(); ++at) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) {
          auto own = NetlinkSocket::Open();
          auto journal = Journal::Create(journal_, {"adit0", index, netns});
          if (!own || !journal) _exit(1);
          KernelTarget kernel(*own, "adit0", index);
          FaultyTarget target(kernel, fault, at);
          std::vector<Op> ops = plan.ops;
          static_cast<void>(ApplyOps(target, *journal, ops));
          _exit(2);
        }
        int status = 0;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "status " << status;
        left_something += Difference(before, Snapshot(socket)).empty() ? 0 : 1;
        Must(Cleanup(journal_));
        ASSERT_EQ(Difference(before, Snapshot(socket)), "") << "killed at " << ToString(plan.ops[at]);
        ASSERT_NE(access(journal_.c_str(), F_OK), 0);
      }
    }
    // The control: there was something to clean up each time but for a kill before the first operation.
    EXPECT_EQ(left_something, 2 * plan.ops.size() - 1);
  });
}

TEST_F(RoutingTest, CleanupWorksWhenTheTunnelDiedWithItsProcess) {
  InMachine([&](NetlinkSocket& socket) {
    tun_.Close();
    const NetSnapshot before = Snapshot(socket);
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const Fd tun = OpenTun("adit0");
      if (!Routing::Up(FullTunnel(), journal_)) _exit(1);
      raise(SIGKILL);
    }
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "refused") << "until then nothing leaks";
    tun_ = OpenTun("adit0");
    auto again = MustUp(FullTunnel(), journal_);
    ASSERT_NE(again, nullptr);
    EXPECT_EQ(again->plan().base_priority, 10500U) << "the next up recovers the leftovers by itself";
    Must(again->Down());
    tun_.Close();
    EXPECT_EQ(Difference(before, Snapshot(socket)), "");
  });
}

// --- packets -----------------------------------------------------------------------------------------------------

Fd BoundUdp(const char* address) {
  Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const timeval timeout{.tv_sec = 0, .tv_usec = 300'000};
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
  sockaddr_storage own{};
  const socklen_t size = SocketAddress::Parse(address)->ToSockaddr(own);
  EXPECT_EQ(bind(fd.get(), reinterpret_cast<sockaddr*>(&own), size), 0) << strerror(errno);
  return fd;
}

TEST_F(RoutingTest, TheEndpointsAnswersPassAStrictReversePathFilter) {
  Fd server;
  InRouter([&](NetlinkSocket&) { server = BoundUdp("203.0.113.10:51820"); });
  InMachine([&](NetlinkSocket&) {
    Must(WriteSysctl("net/ipv4/conf/all/rp_filter", "1"));
    const auto answered = [&](std::uint32_t mark) {
      const Fd client = BoundUdp("0.0.0.0:0");
      EXPECT_EQ(setsockopt(client.get(), SOL_SOCKET, SO_MARK, &mark, sizeof(mark)), 0);
      sockaddr_storage to{};
      const socklen_t size = SocketAddress::Parse("203.0.113.10:51820")->ToSockaddr(to);
      EXPECT_EQ(sendto(client.get(), "hello", 5, 0, reinterpret_cast<sockaddr*>(&to), size), 5) << strerror(errno);
      char buffer[16];
      sockaddr_storage from{};
      socklen_t from_size = sizeof(from);
      EXPECT_EQ(recvfrom(server.get(), buffer, sizeof(buffer), 0, reinterpret_cast<sockaddr*>(&from), &from_size), 5);
      EXPECT_EQ(sendto(server.get(), buffer, 5, 0, reinterpret_cast<sockaddr*>(&from), from_size), 5);
      return recv(client.get(), buffer, sizeof(buffer), 0) == 5;
    };

    Plan plan = *PlanNow(FullTunnel());
    auto routing = Routing::Up(plan, journal_);
    ASSERT_TRUE(routing) << routing.error().message;
    EXPECT_TRUE(answered(plan.fwmark));
    EXPECT_EQ(*ReadSysctl("net/ipv4/conf/all/src_valid_mark"), "0");
    Must((*routing)->Down());
    routing->reset();

    // The control: without the port-precise rule the answer is dropped.
    const auto erased = std::erase_if(plan.ops, [](const Op& op) {
      const auto* rule = std::get_if<AddRule>(&op);
      return rule != nullptr && rule->rule.destination_ports.has_value();
    });
    ASSERT_EQ(erased, 1U);
    routing = Routing::Up(plan, journal_);
    ASSERT_TRUE(routing) << routing.error().message;
    EXPECT_FALSE(answered(plan.fwmark));
  });
}

// --- size --------------------------------------------------------------------------------------------------------

double ThreadCpuSeconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

TEST_F(RoutingTest, TwentyThousandAllowedIpsTakeLessThanASecond) {
  RoutingConfig config = FullTunnel();
  for (std::uint32_t i = 0; i < 20000; ++i) {
    const std::uint8_t bytes[4] = {100, 64, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)};
    config.allowed_ips.push_back(Prefix(IpAddress::V4(bytes), 32));
  }
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const auto wall = [] { return std::chrono::steady_clock::now(); };
    const auto begin = wall();
    const double cpu_begin = ThreadCpuSeconds();
    auto routing = MustUp(config, journal_);
    const double cpu = ThreadCpuSeconds() - cpu_begin;
    const std::chrono::duration<double> up = wall() - begin;
    ASSERT_NE(routing, nullptr);
    EXPECT_EQ(WayTo(socket, "100.64.78.31"), "adit0");
    const auto down_begin = wall();
    Must(routing->Down());
    const std::chrono::duration<double> down = wall() - down_begin;
    printf("20000 allowed IPs: up %.0f ms (%.0f ms of CPU), down %.0f ms\n", up.count() * 1e3, cpu * 1e3,
           down.count() * 1e3);
    RecordProperty("up_ms", static_cast<int>(up.count() * 1e3));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    // The kernel does its part on this thread, so its CPU time is the whole work whatever else runs on the machine.
    EXPECT_LT(cpu, 1.0);
#endif
    EXPECT_EQ(Difference(before, Snapshot(socket)), "");
  });
}

}  // namespace
}  // namespace adit
