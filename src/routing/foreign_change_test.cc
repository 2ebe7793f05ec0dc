// Ten thousand changes by somebody else while a full tunnel is up (scenario 36 of the leak tests): whatever one of them
// takes away, nothing leaves beside the tunnel until it is back, everything of ours comes back, and nothing of his is
// touched. `--gtest_random_seed` does not matter; ADIT_SEED=N repeats a run.
#include <gmock/gmock.h>
#include <poll.h>

#include <cstdlib>
#include <random>
#include <set>

#include "routing/diff.h"
#include "routing/faulty_target_fixture.h"
#include "routing/network_events.h"
#include "routing/wire.h"

namespace adit {
namespace {

using ::testing::IsEmpty;
using ForeignChangeTest = NamespaceTest;

constexpr int kChanges = 10000;
constexpr int kWholeCheckEvery = 100;

class Foreigner {
 public:
  Foreigner(NetlinkSocket socket, std::uint32_t seed) : socket_(std::move(socket)), random_(seed) {}

  // One change. What it was, for messages.
  std::string Change(Routing& ours) {
    const std::vector<Op> ops = ours.ops();
    switch (Below(10)) {
      case 0:
      case 1:
      case 2:
        return Remove<AddRule>(ops);
      case 3:
      case 4:
        return Remove<AddRoute>(ops);
      case 5:
        return Remove<AddAddress>(ops);
      case 6:
        if (Below(4) != 0) return Remove<AddRule>(ops);
        Must(SetLinkUp(socket_, "adit0", false));
        return "link down";
      case 7:
        return ChangeRule();
      case 8:
        return ChangeRoute();
      default:
        return ChangeAddress();
    }
  }

  const std::set<Rule>& rules() const { return rules_; }
  const std::set<Route>& routes() const { return routes_; }
  const std::set<InterfaceAddress>& addresses() const { return addresses_; }

 private:
  std::uint32_t Below(std::uint32_t end) { return static_cast<std::uint32_t>(random_() % end); }

  template <typename Kind>
  std::string Remove(const std::vector<Op>& ops) {
    std::vector<const Op*> candidates;
    for (const Op& op : ops) {
      if (std::holds_alternative<Kind>(op)) candidates.push_back(&op);
    }
    const Op& op = *candidates[Below(static_cast<std::uint32_t>(candidates.size()))];
    const std::uint32_t index = FindLink(socket_, "adit0")->index;
    if constexpr (std::is_same_v<Kind, AddRule>) {
      Must(socket_.Request(RuleMessage(RTM_DELRULE, std::get<AddRule>(op).rule)));
    } else if constexpr (std::is_same_v<Kind, AddRoute>) {
      const Route& route = std::get<AddRoute>(op).route;
      Must(socket_.Request(RouteMessage(RTM_DELROUTE, route, route.device.empty() ? 0 : index)));
    } else {
      Must(socket_.Request(AddressMessage(RTM_DELADDR, std::get<AddAddress>(op).address, index)));
    }
    return "removal of \"" + ToString(op) + "\"";
  }

  // Adds one of his, or removes one of his: about as many of the one as of the other.
  template <typename T, typename Make, typename Send>
  std::string Toggle(std::set<T>& his, Make make, Send send) {
    if (!his.empty() && Below(2) == 0) {
      const auto it = std::next(his.begin(), Below(static_cast<std::uint32_t>(his.size())));
      const T item = *it;
      his.erase(it);
      Must(send(item, false));
      return "removal of his " + item.ToString();
    }
    const T item = make();
    if (!his.insert(item).second) return "nothing";
    Must(send(item, true));
    return "his " + item.ToString();
  }

  std::string ChangeRule() {
    return Toggle(
        rules_,
        [&] {
          // Anywhere, but in front of ours only with a selector of its own: a foreign rule that takes everything first
          // is somebody's decision, not a fault to be repaired.
          Rule rule;
          rule.family = Below(2) == 0 ? Family::kV4 : Family::kV6;
          rule.priority = Below(2) == 0 ? 9000 + Below(3000) : 11000 + Below(20000);
          if (rule.priority < 10600) {
            rule.destination =
                *Prefix::Parse(rule.family == Family::kV4 ? "198.18.0.0/15" : "2001:db8:aaaa::/48", false);
          }
          rule.table = 100 + Below(5);
          rule.protocol = static_cast<std::uint8_t>(3 + Below(20));
          return rule;
        },
        [&](const Rule& rule, bool add) {
          return socket_.Request(RuleMessage(add ? RTM_NEWRULE : RTM_DELRULE, rule));
        });
  }

  std::string ChangeRoute() {
    return Toggle(
        routes_,
        [&] {
          static constexpr const char* kPushed[] = {"0.0.0.0/1",     "128.0.0.0/1",      "8.0.0.0/6", "8.8.8.0/24",
                                                    "8.8.8.8/32",    "1.1.1.0/24",       "::/1",      "2001:db8::/32",
                                                    "198.51.0.0/16", "2001:db8:1::1/128"};
          Route route;
          route.destination = *Prefix::Parse(kPushed[Below(std::size(kPushed))], false);
          route.table = Below(2) == 0 ? kMainTable : 100 + Below(5);
          route.metric = 50 + Below(3);
          route.protocol = 16;  // dhcp
          route.device = "eth0";
          route.gateway = Ip(route.family() == Family::kV6 ? "fd01::1" : "192.168.1.66");
          return route;
        },
        [&](const Route& route, bool add) {
          return add ? AddKernelRoute(socket_, route) : DeleteKernelRoute(socket_, route);
        });
  }

  std::string ChangeAddress() {
    return Toggle(
        addresses_,
        [&] {
          const std::uint8_t v4[4] = {192, 168, 1, static_cast<std::uint8_t>(100 + Below(20))};
          return InterfaceAddress{IpAddress::V4(v4), 24};
        },
        [&](const InterfaceAddress& address, bool add) {
          return socket_.Request(
              AddressMessage(add ? RTM_NEWADDR : RTM_DELADDR, address, FindLink(socket_, "eth0")->index));
        });
  }

  NetlinkSocket socket_;
  std::mt19937 random_;
  std::set<Rule> rules_;
  std::set<Route> routes_;
  std::set<InterfaceAddress> addresses_;
};

// Empty if nothing would leave beside the tunnel and the engine's own packets would not enter it.
std::string Leak(NetlinkSocket& socket, std::uint32_t mark) {
  for (const char* inside : {"8.8.8.8", "1.1.1.1", "198.51.100.7", "10.77.1.1", "2001:db8:1::1", "2001:db8:f::10"}) {
    const std::string way = WayTo(socket, inside);
    if (way != "adit0" && way != "refused") return fmt::format("{} leaves by {}", inside, way);
  }
  for (const char* endpoint : {"203.0.113.10", "2001:db8:f::10"}) {
    const std::string way = WayTo(socket, endpoint, mark);
    if (way != "eth0" && way != "refused") return fmt::format("the engine's packets to {} go to {}", endpoint, way);
  }
  return "";
}

TEST_F(ForeignChangeTest, TenThousandConvergeWithoutALeak_SCENARIO36) {
  const char* given = std::getenv("ADIT_SEED");
  const std::uint32_t seed = given != nullptr ? static_cast<std::uint32_t>(std::atoll(given)) : std::random_device()();
  printf("seed %u\n", seed);
  InMachine([&](NetlinkSocket& socket) {
    const RoutingConfig config = FullTunnel();
    const NetSnapshot before = Snapshot(socket);
    auto routing = MustUp(config, journal_);
    ASSERT_NE(routing, nullptr);
    const Plan first = routing->plan();
    auto events = std::move(*NetworkEvents::Open());
    events->IgnorePort(routing->port_id());
    auto foreign_socket = NetlinkSocket::Open();
    ASSERT_TRUE(foreign_socket);
    Foreigner foreigner(std::move(*foreign_socket), seed);
    std::size_t repaired = 0;
    ASSERT_EQ(Leak(socket, routing->fwmark()), "");

    for (int i = 1; i <= kChanges; ++i) {
      const std::string what = foreigner.Change(*routing);
      SCOPED_TRACE(fmt::format("seed {}, change {}: {}", seed, i, what));
      ASSERT_EQ(Leak(socket, routing->fwmark()), "") << "before the repair";
      const NetworkNews news = events->Read();
      ASSERT_FALSE(news.is_lost);
      bool is_harmed = false;
      for (const NetworkEvent& event : news.events) is_harmed |= routing->NoteHarm(event).has_value();
      const RepairReport report = routing->Repair();
      repaired += report.repaired;
      ASSERT_EQ(Leak(socket, routing->fwmark()), "") << "after the repair";
      if (is_harmed) {
        ASSERT_GT(report.repaired, 0U);
      }
      // With the last address of its family the kernel takes the routes too, without a word.
      const bool takes_more = what == "link down" || what.contains("address");
      if (i % kWholeCheckEvery != 0 && !takes_more) continue;

      // What follows a moment of quiet.
      const RepairReport whole = routing->Reconcile(config);
      ASSERT_THAT(whole.failures, IsEmpty());
      repaired += whole.repaired;
      const NetSnapshot now = Snapshot(socket);
      ASSERT_THAT(Missing(routing->ops(), now), IsEmpty());
      for (const Rule& rule : foreigner.rules()) ASSERT_TRUE(std::ranges::binary_search(now.rules, rule));
      for (const Route& route : foreigner.routes()) ASSERT_TRUE(std::ranges::binary_search(now.routes, route));
      ASSERT_THAT(routing->Verify().value(), IsEmpty());
      ASSERT_EQ(routing->plan().base_priority, first.base_priority);
    }
    printf("%d changes, %zu things put back\n", kChanges, repaired);
    EXPECT_GT(repaired, kChanges / 4U);

    Must(routing->Down());
    const NetSnapshot after = Snapshot(socket);
    for (const Rule& rule : foreigner.rules()) EXPECT_TRUE(std::ranges::binary_search(after.rules, rule));
    EXPECT_EQ(after.rules.size(), before.rules.size() + foreigner.rules().size());
    // The control: without the tunnel the same question is answered otherwise.
    EXPECT_NE(Leak(socket, 0), "");
  });
}

TEST_F(ForeignChangeTest, AFlushOfEverythingIsMendedByOneLook) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    Settle(socket);  // the kernel is not at once done with an IPv6 address
    const NetSnapshot up = Snapshot(socket);
    for (const Rule& rule : up.rules) Must(socket.Request(RuleMessage(RTM_DELRULE, rule)));
    for (const Route& route : up.routes) {
      if (route.table == routing->plan().catch_all_table || route.table == routing->plan().specific_table) {
        Must(DeleteKernelRoute(socket, route));
      }
    }
    Must(SetLinkUp(socket, "adit0", false));
    for (const Rule& rule : up.rules) {  // the machine's own come back as they were
      if (rule.priority == 0 || rule.priority >= 32766) Must(socket.Request(RuleMessage(RTM_NEWRULE, rule)));
    }
    EXPECT_NE(Leak(socket, routing->fwmark()), "") << "the control";
    const RepairReport report = routing->Reconcile(FullTunnel());
    EXPECT_THAT(report.failures, IsEmpty());
    Settle(socket);
    EXPECT_EQ(Difference(up, Snapshot(socket)), "");
    EXPECT_EQ(Leak(socket, routing->fwmark()), "");
  });
}

TEST_F(ForeignChangeTest, ARouteThatTookThePlaceOfOursInOurTableIsReplaced) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    Route ours;
    for (const Op& op : routing->ops()) {
      const auto* add = std::get_if<AddRoute>(&op);
      if (add != nullptr && add->route.device == "adit0" && add->route.family() == Family::kV4 &&
          add->route.destination.length() == 0) {
        ours = add->route;
      }
    }
    Route his = ours;
    his.device = "eth0";
    his.gateway = Ip("192.168.1.66");
    Must(DeleteKernelRoute(socket, ours));
    Must(AddKernelRoute(socket, his));
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "eth0");
    EXPECT_THAT(routing->Reconcile(FullTunnel()).failures, IsEmpty());
    EXPECT_EQ(WayTo(socket, "8.8.8.8"), "adit0");
    EXPECT_FALSE(std::ranges::binary_search(Snapshot(socket).routes, his));
  });
}

TEST_F(ForeignChangeTest, TheMtuFollowsTheUplink) {
  InMachine([&](NetlinkSocket& socket) {
    const RoutingConfig config = FullTunnel();
    auto routing = MustUp(config, journal_);
    ASSERT_NE(routing, nullptr);
    EXPECT_EQ(FindLink(socket, "adit0")->mtu, 1420U);
    Must(SetLinkMtu(socket, "eth0", 1400));
    EXPECT_EQ(routing->Reconcile(config).changed, 1U);
    EXPECT_EQ(FindLink(socket, "adit0")->mtu, 1320U);
    Must(SetLinkMtu(socket, "eth0", 1500));
    EXPECT_EQ(routing->Reconcile(config).changed, 1U);
    EXPECT_EQ(FindLink(socket, "adit0")->mtu, 1420U) << "and back up";
    Must(SetLinkMtu(socket, "eth0", 1400));
    EXPECT_EQ(routing->Reconcile(config).changed, 1U);
    Must(SetLinkUp(socket, "eth0", false));
    EXPECT_EQ(routing->Reconcile(config).changed, 0U) << "without an uplink nothing is known";
    EXPECT_EQ(FindLink(socket, "adit0")->mtu, 1320U);
  });
}

TEST_F(ForeignChangeTest, AnMtuThatSomebodyElseSetIsHis) {
  InMachine([&](NetlinkSocket& socket) {
    const RoutingConfig config = FullTunnel();
    auto routing = MustUp(config, journal_);
    ASSERT_NE(routing, nullptr);
    Must(SetLinkMtu(socket, "adit0", 1300));
    for (const std::uint32_t uplink : {1400U, 1450U}) {
      Must(SetLinkMtu(socket, "eth0", uplink));
      EXPECT_EQ(routing->Reconcile(config).changed, 0U);
      EXPECT_EQ(FindLink(socket, "adit0")->mtu, 1300U);
    }
    Must(SetLinkMtu(socket, "adit0", 1420));  // given back
    EXPECT_EQ(routing->Reconcile(config).changed, 1U);
    EXPECT_EQ(FindLink(socket, "adit0")->mtu, 1370U);
  });
}

}  // namespace
}  // namespace adit
