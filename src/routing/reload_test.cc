// Reload and down, undisturbed and with a fault at each of their operations.
#include <gmock/gmock.h>
#include <poll.h>

#include "routing/diff.h"
#include "routing/faulty_target_fixture.h"
#include "routing/network_events.h"

namespace adit {
namespace {

using ::testing::IsEmpty;
using ReloadTest = NamespaceTest;
using Fault = FaultyTarget::Fault;

RoutingConfig Config(std::initializer_list<const char*> addresses, std::initializer_list<const char*> allowed) {
  RoutingConfig config = FullTunnel();
  config.addresses.clear();
  config.allowed_ips.clear();
  for (const char* text : addresses) config.addresses.push_back(*ParseInterfaceAddress(text));
  for (const char* text : allowed) config.allowed_ips.push_back(*Prefix::Parse(text, false));
  return config;
}

// Each differs from the one before in something else. No two addresses of one network beside each other: which of them
// is the primary one depends on which came first.
std::vector<RoutingConfig> Configs() {
  std::vector<RoutingConfig> configs = {
      FullTunnel(),
      Config({"10.9.0.2/24", "fd09::2/64"}, {"0.0.0.0/0", "::/0", "10.77.0.0/16", "10.78.0.0/16"}),
      Config({"10.9.0.3/24", "fd09::3/64"}, {"0.0.0.0/0", "::/0", "10.78.0.0/16"}),
      Config({"10.9.0.3/24"}, {"0.0.0.0/0", "10.78.0.0/16"}),
      Config({"10.9.0.3/24", "10.10.0.4/24", "fd09::2/64"}, {"198.18.0.0/15"}),
      Config({"10.10.0.4/24", "fd09::2/64"}, {"203.0.113.0/24", "198.18.0.0/15"}),
      FullTunnel(),
      FullTunnel(),
      Config({}, {}),
  };
  configs[5].mtu = 1300;
  configs[6].table_mode = TableMode::kNumber;
  configs[6].table = 4711;
  configs[7].table_mode = TableMode::kOff;
  return configs;
}

TEST_F(ReloadTest, LeavesWhatAFreshUpWouldHaveMade) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const auto configs = Configs();
    for (std::size_t to = 0; to < configs.size(); ++to) {
      auto fresh = MustUp(configs[to], journal_);
      ASSERT_NE(fresh, nullptr);
      Settle(socket);
      const NetSnapshot expected = Snapshot(socket);
      Must(fresh->Down());
      fresh.reset();
      for (std::size_t from = 0; from < configs.size(); ++from) {
        SCOPED_TRACE(fmt::format("from {} to {}", from, to));
        auto routing = MustUp(configs[from], journal_);
        ASSERT_NE(routing, nullptr);
        const auto plan = routing->PlanAgain(configs[to]);
        ASSERT_TRUE(plan) << plan.error().message;
        Must(routing->Reload(*plan));
        ASSERT_EQ(LastingDifference(expected, socket), "");
        // Planned once more there is nothing to do.
        EXPECT_THAT(Diff(routing->ops(), routing->PlanAgain(configs[to])->ops), IsEmpty());
        const RepairReport looked = routing->Reconcile(configs[to]);
        EXPECT_EQ(looked.repaired + looked.changed, 0U);
        EXPECT_THAT(looked.failures, IsEmpty());
        Must(routing->Down());
        ASSERT_EQ(LastingDifference(before, socket), "");
      }
    }
  });
}

// How many messages of each kind the kernel sent about our socket's doings.
std::map<EventKind, int> CountEvents(NetworkEvents& events) {
  std::map<EventKind, int> count;
  pollfd poller{events.route_fd(), POLLIN, 0};
  while (poll(&poller, 1, 50) > 0) {
    const NetworkNews news = events.Read();
    EXPECT_FALSE(news.is_lost);
    for (const NetworkEvent& event : news.events) ++count[event.kind];
  }
  return count;
}

TEST_F(ReloadTest, OneChangedPrefixOfTwentyThousandIsOneRouteMessage) {
  RoutingConfig config = FullTunnel();
  for (std::uint32_t i = 0; i < 20000; ++i) {
    const std::uint8_t bytes[4] = {100, 64, static_cast<std::uint8_t>(i >> 8), static_cast<std::uint8_t>(i)};
    config.allowed_ips.push_back(Prefix(IpAddress::V4(bytes), 32));
  }
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    auto routing = MustUp(config, journal_);
    ASSERT_NE(routing, nullptr);
    auto events = NetworkEvents::Open();
    ASSERT_TRUE(events);
    const std::map<EventKind, int> one_route = {{EventKind::kRoute, 1}};

    const auto begin = std::chrono::steady_clock::now();
    config.allowed_ips.push_back(*Prefix::Parse("10.200.0.0/16", false));
    Must(routing->Reload(*routing->PlanAgain(config)));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    printf("reload of 20000 allowed IPs with one more: %.0f ms\n", took.count() * 1e3);
    EXPECT_EQ(CountEvents(**events), one_route) << "one added";
    EXPECT_EQ(WayTo(socket, "10.200.1.1"), "adit0");

    std::erase(config.allowed_ips, *Prefix::Parse("100.64.0.7/32", false));
    Must(routing->Reload(*routing->PlanAgain(config)));
    EXPECT_EQ(CountEvents(**events), one_route) << "one removed";

    Must(routing->Reload(*routing->PlanAgain(config)));
    EXPECT_EQ(CountEvents(**events), (std::map<EventKind, int>())) << "none changed";
    Must(routing->Down());
    EXPECT_EQ(Difference(before, Snapshot(socket)), "");
  });
}

TEST_F(ReloadTest, TheOnlyAddressIsSwappedWithoutLosingARoute) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(Config({"10.9.0.2/24"}, {"0.0.0.0/0", "10.77.0.0/16"}), journal_);
    ASSERT_NE(routing, nullptr);
    const std::string promote = *ReadSysctl("net/ipv4/conf/adit0/promote_secondaries");
    const auto plan = routing->PlanAgain(Config({"10.9.0.3/24"}, {"0.0.0.0/0", "10.77.0.0/16"}));
    ASSERT_TRUE(plan);
    const std::vector<Op> before = routing->ops();
    Must(routing->Reload(*plan));
    EXPECT_THAT(Missing(routing->ops(), Snapshot(socket)), IsEmpty());
    EXPECT_EQ(*ReadSysctl("net/ipv4/conf/adit0/promote_secondaries"), promote);
  });
}

TEST_F(ReloadTest, TheMarkIsSwitchedWhenBothSetsOfRulesAreThere) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    RoutingConfig config = FullTunnel();
    config.fwmark = 0x77;
    const std::uint32_t old_mark = routing->fwmark();
    int calls = 0;
    Must(routing->Reload(*routing->PlanAgain(config), [&]() -> Status {
      ++calls;
      EXPECT_EQ(WayTo(socket, "203.0.113.10", old_mark), "eth0");
      EXPECT_EQ(WayTo(socket, "203.0.113.10", 0x77), "eth0");
      return {};
    }));
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(WayTo(socket, "203.0.113.10", old_mark), "adit0");
    EXPECT_EQ(WayTo(socket, "203.0.113.10", 0x77), "eth0");
  });
}

// --- faults ------------------------------------------------------------------------------------------------------

// From one to the other everything there is happens: additions, replacements, removals.
RoutingConfig From() { return Config({"10.9.0.2/24", "fd09::2/64"}, {"0.0.0.0/0", "::/0", "10.77.0.0/16"}); }
RoutingConfig To() {
  RoutingConfig config = Config({"10.9.0.3/24", "10.10.0.1/32"}, {"203.0.113.0/24", "10.78.0.0/16"});
  config.mtu = 1300;
  return config;
}

struct Prepared {
  std::vector<InForce> in_force;
  std::vector<Op> wanted;
  std::vector<Change> changes;
};

Prepared Prepare(NetlinkSocket& socket, const Plan& from) {
  Prepared prepared;
  for (std::size_t i = 0; i < from.ops.size(); ++i) prepared.in_force.push_back({from.ops[i], i});
  RoutingConfig to = To();
  to.keep = {.mtu = from.mtu,
             .fwmark = from.fwmark,
             .base_priority = from.base_priority,
             .specific_table = from.specific_table,
             .catch_all_table = from.catch_all_table};
  prepared.wanted = MakePlan(to, Without(*TakeSnapshot(socket), from.ops))->ops;
  prepared.changes = Diff(from.ops, prepared.wanted);
  return prepared;
}

// Brings `From` up in a journal of the test's own, whose ops then carry their previous values.
Result<Journal> UpInJournal(const std::string& path, OpTarget& target, Plan& plan, std::uint32_t index) {
  const std::string netns = *NetworkNamespaceIdentity(CurrentNetworkNamespace()->get());
  auto journal = Journal::Create(path, {"adit0", index, netns});
  if (!journal) return journal;
  if (ApplyOutcome applied = ApplyOps(target, *journal, plan.ops); !applied.status) {
    return std::unexpected(applied.status.error());
  }
  return journal;
}

TEST_F(ReloadTest, AnErrorAtAnyOperationPutsEverythingBack_SCENARIO32) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const std::uint32_t index = FindLink(socket, "adit0")->index;
    std::size_t count = 1;
    NetSnapshot up;
    constexpr int kErrors[] = {ENOBUFS, EPERM, EBUSY, EEXIST};
    for (std::size_t i = 0; i < count * std::size(kErrors); ++i) {
      const std::size_t at = i / std::size(kErrors);
      const int code = kErrors[i % std::size(kErrors)];
      SCOPED_TRACE(fmt::format("{} at {}", strerror(code), at));
      Plan plan = *PlanNow(From());
      KernelTarget kernel(socket, "adit0", index);
      auto journal = UpInJournal(journal_, kernel, plan, index);
      ASSERT_TRUE(journal) << journal.error().message;
      if (i == 0) {
        Settle(socket);
        up = Snapshot(socket);
      }
      Prepared reload = Prepare(socket, plan);
      ASSERT_GT(reload.changes.size(), 20U);
      count = reload.changes.size();
      FaultyTarget target(kernel, Fault::kError, at, code);
      Must(SetPromoteSecondaries(socket, "adit0", true));
      const ApplyOutcome outcome =
          ApplyChanges(target, *journal, reload.in_force, reload.wanted, reload.changes, nullptr);
      ASSERT_FALSE(outcome.status);
      EXPECT_EQ(outcome.status.error().code, code);
      EXPECT_FALSE(outcome.something_left) << outcome.status.error().message;
      ASSERT_EQ(LastingDifference(up, socket), "");
      EXPECT_EQ(reload.in_force.size(), plan.ops.size());
      // The journal knows what is in force after all that.
      *journal = *Journal::Create(journal_ + ".other", {"x", 1, "y"});
      Must(Cleanup(journal_));
      Must(journal->Remove());
      ASSERT_EQ(LastingDifference(before, socket), "");
    }
  });
}

TEST_F(ReloadTest, CleanupAfterAKillAtAnyOperationLeavesTheMachineAsItWas_SCENARIO31) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const std::uint32_t index = FindLink(socket, "adit0")->index;
    for (const auto fault : {Fault::kKillBefore, Fault::kKillAfter}) {
      std::size_t count = 1;
      for (std::size_t at = 0; at < count; ++at) {
        SCOPED_TRACE(at);
        Plan plan = *PlanNow(From());
        {
          KernelTarget kernel(socket, "adit0", index);
          auto journal = UpInJournal(journal_, kernel, plan, index);
          ASSERT_TRUE(journal) << journal.error().message;
          count = Prepare(socket, plan).changes.size();
          DiesOf([&] {
            auto own = NetlinkSocket::Open();
            KernelTarget own_kernel(*own, "adit0", index);
            FaultyTarget target(own_kernel, fault, at);
            Prepared reload = Prepare(*own, plan);
            static_cast<void>(SetPromoteSecondaries(*own, "adit0", true));
            static_cast<void>(ApplyChanges(target, *journal, reload.in_force, reload.wanted, reload.changes, nullptr));
          });
        }
        Must(Cleanup(journal_));
        ASSERT_EQ(LastingDifference(before, socket), "");
      }
    }
  });
}

TEST_F(ReloadTest, DownGoesOnAfterAnErrorAndCleanupDoesTheRest_SCENARIO32) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const std::uint32_t index = FindLink(socket, "adit0")->index;
    std::size_t count = 1;
    std::size_t left_something = 0;
    for (std::size_t at = 0; at < count; ++at) {
      SCOPED_TRACE(at);
      Plan plan = *PlanNow(From());
      count = plan.ops.size();
      {
        KernelTarget kernel(socket, "adit0", index);
        auto journal = UpInJournal(journal_, kernel, plan, index);
        ASSERT_TRUE(journal) << journal.error().message;
        FaultyTarget target(kernel, Fault::kError, at);
        const Status down = UndoOps(target, plan.ops);
        ASSERT_FALSE(down);
        EXPECT_EQ(down.error().code, ENOBUFS);
        EXPECT_EQ(target.count(), count) << "goes on after the error";
      }
      left_something += Difference(before, Snapshot(socket)).empty() ? 0 : 1;
      Must(Cleanup(journal_));
      ASSERT_EQ(LastingDifference(before, socket), "");
    }
    // The control. A route by the TUN goes with the link, whether or not it could be deleted.
    EXPECT_GT(left_something, count / 2);
  });
}

TEST_F(ReloadTest, CleanupAfterAKillAtAnyOperationOfDownLeavesTheMachineAsItWas_SCENARIO31) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const std::uint32_t index = FindLink(socket, "adit0")->index;
    for (const auto fault : {Fault::kKillBefore, Fault::kKillAfter}) {
      std::size_t count = 1;
      for (std::size_t at = 0; at < count; ++at) {
        SCOPED_TRACE(at);
        Plan plan = *PlanNow(From());
        count = plan.ops.size();
        {
          KernelTarget kernel(socket, "adit0", index);
          auto journal = UpInJournal(journal_, kernel, plan, index);
          ASSERT_TRUE(journal) << journal.error().message;
          DiesOf([&] {
            auto own = NetlinkSocket::Open();
            KernelTarget own_kernel(*own, "adit0", index);
            FaultyTarget target(own_kernel, fault, at);
            static_cast<void>(UndoOps(target, plan.ops));
          });
        }
        Must(Cleanup(journal_));
        ASSERT_EQ(LastingDifference(before, socket), "");
      }
    }
  });
}

}  // namespace
}  // namespace adit
