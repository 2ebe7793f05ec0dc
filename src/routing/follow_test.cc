// Routing::Reconcile against a real kernel, without policy rules: host routes and excluded prefixes go with the uplink.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "routing/namespace_fixture.h"
#include "routing/routing.h"
#include "routing/verify.h"

namespace adit {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class FollowTest : public NamespaceTest {
 protected:
  static RoutingConfig Full() {
    RoutingConfig config;
    config.interface_name = "adit0";
    config.addresses = {*ParseInterfaceAddress("10.9.0.2/32"), *ParseInterfaceAddress("fd09::2/128")};
    config.allowed_ips = {*Prefix::Parse("0.0.0.0/0", false), *Prefix::Parse("::/0", false)};
    config.endpoints = {*SocketAddress::Parse("203.0.113.10:51820"), *SocketAddress::Parse("[2001:db8:f::10]:51820")};
    config.excluded_ips = {*Prefix::Parse("198.51.100.0/24", false)};
    config.loop_avoidance = LoopAvoidance::kRoutes;
    return config;
  }
  static Route DefaultBy(const char* gateway) {
    Route route;
    route.destination = *Prefix::Parse("0.0.0.0/0", false);
    route.gateway = *IpAddress::Parse(gateway);
    route.device = "eth0";
    return route;
  }
  // Where it goes: "eth0", "adit0", or "refused".
  static std::string Way(NetlinkSocket& socket, const char* ip) {
    const auto answer = AskRoute(socket, *IpAddress::Parse(ip), 0);
    if (!answer) return answer.error().message;
    return answer->refusal != 0 ? "refused" : answer->device;
  }
  static std::string RouteTo(NetlinkSocket& socket, const char* prefix) {
    std::string text;
    for (const Route& route : Snapshot(socket).routes) {
      if (route.destination == *Prefix::Parse(prefix, true)) text += route.ToString() + "\n";
    }
    return text;
  }
};

TEST_F(FollowTest, HostRoutesFollowTheGatewayAndDownLeavesTheMachineAsItWas) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const RoutingConfig config = Full();
    auto routing = Routing::Up(config, journal_);
    ASSERT_TRUE(routing) << routing.error().message;
    EXPECT_THAT((*routing)->findings(), ::testing::IsEmpty());
    EXPECT_EQ(Snapshot(socket).rules, before.rules);
    EXPECT_EQ(Way(socket, "203.0.113.10"), "eth0");
    EXPECT_EQ(Way(socket, "2001:db8:f::10"), "eth0");
    EXPECT_EQ(Way(socket, "198.51.100.7"), "eth0");
    EXPECT_EQ(Way(socket, "8.8.8.8"), "adit0");
    EXPECT_EQ(Way(socket, "2001:db8::1"), "adit0");
    EXPECT_EQ(Way(socket, "192.168.1.77"), "eth0");

    // Nothing changed: nothing is done.
    RepairReport report = (*routing)->Reconcile(config);
    EXPECT_EQ(report.repaired + report.changed, 0U);

    // Another gateway.
    Must(DeleteKernelRoute(socket, DefaultBy("192.168.1.1")));
    Must(AddKernelRoute(socket, DefaultBy("192.168.1.66")));
    EXPECT_THAT(RouteTo(socket, "203.0.113.10"), HasSubstr("via 192.168.1.1 "));
    report = (*routing)->Reconcile(config);
    EXPECT_THAT(report.failures, ::testing::IsEmpty());
    EXPECT_GT(report.changed, 0U);
    EXPECT_THAT(RouteTo(socket, "203.0.113.10"), HasSubstr("via 192.168.1.66 "));
    EXPECT_THAT(RouteTo(socket, "203.0.113.10"), Not(HasSubstr("via 192.168.1.1 ")));
    EXPECT_THAT(RouteTo(socket, "198.51.100.0/24"), HasSubstr("via 192.168.1.66 "));

    // None: refused, not looped.
    Must(DeleteKernelRoute(socket, DefaultBy("192.168.1.66")));
    (*routing)->Reconcile(config);
    EXPECT_EQ(Way(socket, "203.0.113.10"), "refused");
    EXPECT_EQ(Way(socket, "198.51.100.7"), "refused");
    EXPECT_EQ(Way(socket, "8.8.8.8"), "adit0");

    // And back.
    Must(AddKernelRoute(socket, DefaultBy("192.168.1.1")));
    (*routing)->Reconcile(config);
    EXPECT_EQ(Way(socket, "203.0.113.10"), "eth0");

    Must((*routing)->Down());
    NetSnapshot after = Snapshot(socket);
    for (Link& link : after.links) {
      if (link.name == "adit0") link = *before.FindLink("adit0");
    }
    EXPECT_EQ(Difference(before, after), "");
    EXPECT_NE(access(journal_.c_str(), F_OK), 0);
  });
}

TEST_F(FollowTest, TheUplinksLinkGoesAndComesBack) {
  InMachine([&](NetlinkSocket& socket) {
    const RoutingConfig config = Full();
    auto routing = Routing::Up(config, journal_);
    ASSERT_TRUE(routing) << routing.error().message;
    Must(SetLinkUp(socket, "eth0", false));
    EXPECT_EQ(Way(socket, "203.0.113.10"), "refused");  // before anybody was told
    (*routing)->Reconcile(config);
    Must(SetLinkUp(socket, "eth0", true));
    Must(AddKernelRoute(socket, DefaultBy("192.168.1.1")));
    (*routing)->Reconcile(config);
    EXPECT_EQ(Way(socket, "203.0.113.10"), "eth0");
    EXPECT_EQ(Way(socket, "8.8.8.8"), "adit0");
  });
}

TEST_F(FollowTest, EndpointsThatMoveTakeTheirRoutesAlong) {
  InMachine([&](NetlinkSocket& socket) {
    RoutingConfig config = Full();
    auto routing = Routing::Up(config, journal_);
    ASSERT_TRUE(routing) << routing.error().message;
    config.endpoints = {*SocketAddress::Parse("203.0.113.11:51820")};
    EXPECT_THAT((*routing)->Reconcile(config).failures, ::testing::IsEmpty());
    EXPECT_EQ(Way(socket, "203.0.113.11"), "eth0");
    EXPECT_EQ(Way(socket, "203.0.113.10"), "adit0");
  });
}

TEST_F(FollowTest, ACrashAfterFollowingIsCleanedUp) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot before = Snapshot(socket);
    const RoutingConfig config = Full();
    {
      auto routing = Routing::Up(config, journal_);
      ASSERT_TRUE(routing) << routing.error().message;
      Must(DeleteKernelRoute(socket, DefaultBy("192.168.1.1")));
      Must(AddKernelRoute(socket, DefaultBy("192.168.1.66")));
      (*routing)->Reconcile(config);
    }
    tun_ = Fd();
    Must(Cleanup(journal_));
    Must(DeleteKernelRoute(socket, DefaultBy("192.168.1.66")));
    Must(AddKernelRoute(socket, DefaultBy("192.168.1.1")));
    const NetSnapshot after = Snapshot(socket);
    EXPECT_EQ(after.routes, before.routes);
    EXPECT_EQ(after.rules, before.rules);
  });
}

TEST_F(FollowTest, AKernelThatTakesRulesIsKnownAsOne) {
  InMachine([&](NetlinkSocket& socket) {
    const NetSnapshot snapshot = Snapshot(socket);
    EXPECT_TRUE(snapshot.takes_rules);
    EXPECT_TRUE(snapshot.takes_marks);
  });
}

}  // namespace
}  // namespace adit
