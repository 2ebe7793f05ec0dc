#include "routing/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace adit {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

Prefix P(const char* text) { return *Prefix::Parse(text, true); }
InterfaceAddress A(const char* text) { return *ParseInterfaceAddress(text); }
SocketAddress E(const char* text) { return *SocketAddress::Parse(text); }

// Adds what an "ip ... add ..." line says.
void Put(NetSnapshot& snapshot, const char* line) {
  const auto op = ParseOp(line);
  ASSERT_TRUE(op) << line;
  if (const auto* route = std::get_if<AddRoute>(&*op)) snapshot.routes.push_back(route->route);
  if (const auto* rule = std::get_if<AddRule>(&*op)) snapshot.rules.push_back(rule->rule);
  if (const auto* address = std::get_if<AddAddress>(&*op)) {
    snapshot.addresses.push_back({address->device, address->address});
  }
}

// A usual machine: Ethernet with both families.
NetSnapshot Machine() {
  NetSnapshot snapshot;
  snapshot.links = {{.index = 1, .name = "lo", .mtu = 65536, .is_up = true, .address_generation = 0, .kind = {}},
                    {.index = 2, .name = "eth0", .mtu = 1500, .is_up = true, .address_generation = 0, .kind = {}},
                    {.index = 7, .name = "adit0", .mtu = 1500, .is_up = false, .address_generation = 0, .kind = "tun"}};
  Put(snapshot, "ip -4 address add 192.168.1.2/24 dev eth0");
  Put(snapshot, "ip -4 route add default via 192.168.1.1 dev eth0");
  Put(snapshot, "ip -4 route add 192.168.1.0/24 dev eth0 proto kernel src 192.168.1.2");
  Put(snapshot, "ip -6 route add default via fe80::1 dev eth0 metric 1024");
  Put(snapshot, "ip -4 rule add pref 0 lookup local protocol kernel");
  Put(snapshot, "ip -4 rule add pref 32766 lookup main protocol kernel");
  Put(snapshot, "ip -4 rule add pref 32767 lookup default protocol kernel");
  Put(snapshot, "ip -6 rule add pref 0 lookup local protocol kernel");
  Put(snapshot, "ip -6 rule add pref 32766 lookup main protocol kernel");
  snapshot.sysctls = {{"net/ipv4/conf/all/rp_filter", "0"},
                      {"net/ipv4/conf/eth0/rp_filter", "0"},
                      {"net/ipv6/conf/adit0/disable_ipv6", "0"}};
  return snapshot;
}

RoutingConfig FullTunnel() {
  RoutingConfig config;
  config.interface_name = "adit0";
  config.addresses = {A("10.9.0.2/32"), A("fd09::2/128")};
  config.allowed_ips = {P("0.0.0.0/0"), P("::/0")};
  config.endpoints = {E("203.0.113.10:51820")};
  return config;
}

RoutingConfig SplitTunnel() {
  RoutingConfig config = FullTunnel();
  config.allowed_ips = {P("10.9.0.0/16"), P("fd09::/64")};
  return config;
}

std::vector<std::string> Lines(const Plan& plan) {
  std::vector<std::string> lines;
  for (const Op& op : plan.ops) lines.push_back(ToString(op));
  return lines;
}

TEST(MakePlan, FullTunnelHasTheWholeRuleLayout) {
  const auto plan = MakePlan(FullTunnel(), Machine());
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->ToString(),
            R"(ip link set dev adit0 mtu 1420
ip link set dev adit0 addrgenmode none
ip -4 address add 10.9.0.2/32 dev adit0
ip -6 address add fd09::2/128 dev adit0
ip link set dev adit0 up
ip -4 route add unreachable default table 30568 proto static metric 4278198272
ip -6 route add unreachable default table 30568 proto static metric 4278198272
ip -4 route add default dev adit0 table 30568 proto static
ip -6 route add default dev adit0 table 30568 proto static metric 1024
ip -4 rule add pref 10500 fwmark 0x1000/0x3000 lookup main protocol kernel
ip -6 rule add pref 10500 fwmark 0x1000/0x3000 lookup main protocol kernel
ip -4 rule add pref 10501 fwmark 0x1000/0x3000 unreachable protocol kernel
ip -6 rule add pref 10501 fwmark 0x1000/0x3000 unreachable protocol kernel
ip -4 rule add pref 10506 to 10.0.0.0/8 lookup main suppress_prefixlength 7 protocol kernel
ip -4 rule add pref 10507 to 172.16.0.0/12 lookup main suppress_prefixlength 11 protocol kernel
ip -4 rule add pref 10508 to 192.168.0.0/16 lookup main suppress_prefixlength 15 protocol kernel
ip -4 rule add pref 10509 to 169.254.0.0/16 lookup main suppress_prefixlength 15 protocol kernel
ip -6 rule add pref 10510 to fe80::/10 lookup main suppress_prefixlength 9 protocol kernel
ip -6 rule add pref 10511 to fc00::/7 lookup main suppress_prefixlength 6 protocol kernel
ip -4 rule add pref 10514 lookup 30568 protocol kernel
ip -6 rule add pref 10514 lookup 30568 protocol kernel
ip -4 rule add pref 10515 unreachable protocol kernel
ip -6 rule add pref 10515 unreachable protocol kernel
)");
  EXPECT_EQ(plan->fwmark, 0x1000U);
  EXPECT_EQ(plan->mtu, 1420U);
  EXPECT_THAT(plan->warnings, IsEmpty());
}

TEST(MakePlan, APortalIsOneUsersRuleToMainBesideTheEngines) {
  RoutingConfig config = FullTunnel();
  const auto before = MakePlan(config, Machine());
  config.portal = Portal{.uid = 1000, .seconds = 600};
  const auto with = MakePlan(config, Machine());
  ASSERT_TRUE(before && with);
  std::vector<std::string> added;
  for (const Op& op : with->ops) {
    if (std::ranges::find(before->ops, op) == before->ops.end()) added.push_back(ToString(op));
  }
  EXPECT_THAT(added, ElementsAre("ip -4 rule add pref 10500 uidrange 1000-1000 lookup main protocol kernel",
                                 "ip -6 rule add pref 10500 uidrange 1000-1000 lookup main protocol kernel"));
  EXPECT_EQ(with->ops.size(), before->ops.size() + 2);
}

TEST(MakePlan, FullTunnelPutsSpecificAllowedIpsBeforeTheLan) {
  RoutingConfig config = FullTunnel();
  config.allowed_ips = {P("0.0.0.0/0"), P("10.1.0.0/16")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 route add 10.1.0.0/16 dev adit0 table 30567 proto static"));
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10504 lookup 30567 protocol kernel"));
  EXPECT_THAT(Lines(*plan), Not(Contains("ip -6 rule add pref 10504 lookup 30567 protocol kernel")));
}

TEST(MakePlan, FullTunnelWithoutIpv6RefusesIpv6) {
  RoutingConfig config = FullTunnel();
  config.addresses = {A("10.9.0.2/32")};
  for (const bool with_default : {false, true}) {
    config.allowed_ips = {P("0.0.0.0/0")};
    if (with_default) config.allowed_ips.push_back(P("::/0"));
    const auto plan = MakePlan(config, Machine());
    ASSERT_TRUE(plan);
    const auto lines = Lines(*plan);
    EXPECT_EQ(
        std::ranges::count(lines, "ip -6 route add unreachable default table 30568 proto static metric 4278198272"), 1);
    EXPECT_THAT(lines, Contains("ip -6 rule add pref 10514 lookup 30568 protocol kernel"));
    EXPECT_THAT(lines, Not(Contains("ip -6 route add default dev adit0 table 30568 proto static metric 1024")));
    EXPECT_THAT(plan->warnings, ElementsAre(HasSubstr("IPv6 connections are refused")));
  }
}

TEST(MakePlan, SwitchedOffIpv6StillGetsTheGuard) {
  NetSnapshot machine = Machine();
  machine.sysctls["net/ipv6/conf/adit0/disable_ipv6"] = "1";
  const auto plan = MakePlan(FullTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Not(Contains("ip -6 address add fd09::2/128 dev adit0")));
  EXPECT_THAT(Lines(*plan), Contains("ip -6 route add unreachable default table 30568 proto static metric 4278198272"));
  EXPECT_THAT(plan->warnings, Contains(HasSubstr("IPv6 is switched off for adit0")));
}

TEST(MakePlan, KernelWithoutIpv6GetsNoIpv6AtAll) {
  NetSnapshot machine = Machine();
  machine.has_ipv6 = false;
  const auto plan = MakePlan(FullTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_THAT(plan->ToString(), Not(HasSubstr("-6")));
  EXPECT_THAT(plan->warnings, Contains(HasSubstr("this kernel has no IPv6")));
  for (const RouteQuestion& question : plan->questions) EXPECT_TRUE(question.destinations[0].is_v4());
}

TEST(MakePlan, HalvesOfTheInternetAreAFullTunnelThatKeepsTheLan) {
  RoutingConfig config = FullTunnel();
  config.allowed_ips = {P("0.0.0.0/1"), P("128.0.0.0/1")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 route add 0.0.0.0/1 dev adit0 table 30568 proto static"));
  EXPECT_THAT(Lines(*plan), Contains("ip -4 route add 128.0.0.0/1 dev adit0 table 30568 proto static"));
  EXPECT_THAT(
      Lines(*plan),
      Contains("ip -4 rule add pref 10508 to 192.168.0.0/16 lookup main suppress_prefixlength 15 protocol kernel"));
  EXPECT_THAT(Lines(*plan), Contains("ip -6 route add unreachable default table 30568 proto static metric 4278198272"));
}

TEST(MakePlan, SplitTunnelUsesMainAndNoRules) {
  const auto plan = MakePlan(SplitTunnel(), Machine());
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->ToString(),
            R"(ip link set dev adit0 mtu 1420
ip link set dev adit0 addrgenmode none
ip -4 address add 10.9.0.2/32 dev adit0
ip -6 address add fd09::2/128 dev adit0
ip link set dev adit0 up
ip -6 route add fd09::/64 dev adit0 proto static metric 1024
ip -4 route add 10.9.0.0/16 dev adit0 proto static
)");
  EXPECT_EQ(plan->fwmark, 0U);
}

TEST(MakePlan, LeavesTheConnectedNetworkToTheKernel) {
  RoutingConfig config = SplitTunnel();
  config.addresses = {A("10.9.0.2/16"), A("fd09::2/64")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(plan->ToString(), Not(HasSubstr("route add")));
}

TEST(MakePlan, SplitTunnelOverItsOwnEndpointGetsRules) {
  RoutingConfig config = SplitTunnel();
  config.allowed_ips = {P("203.0.113.0/24")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 route add 203.0.113.0/24 dev adit0 table 30567 proto static"));
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10100 fwmark 0x1000/0x3000 lookup main protocol kernel"));
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10101 fwmark 0x1000/0x3000 unreachable protocol kernel"));
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10104 lookup 30567 protocol kernel"));
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10105 lookup 30567 protocol kernel"));
  EXPECT_THAT(plan->ToString(), Not(HasSubstr("30568")));
  EXPECT_EQ(plan->fwmark, 0x1000U);
}

TEST(MakePlan, SplitTunnelOverTheLanOfThisMachineWinsWithAWarning) {
  RoutingConfig config = SplitTunnel();
  config.allowed_ips = {P("192.168.1.0/24")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 route add 192.168.1.0/24 dev adit0 table 30567 proto static"));
  EXPECT_THAT(plan->warnings, Contains(HasSubstr("192.168.1.0/24 is in AllowedIPs and is also a network")));
}

TEST(MakePlan, SplitTunnelBesideAnotherFullTunnelComesBeforeIt) {
  NetSnapshot machine = Machine();
  Put(machine, "ip -4 route add default dev other0 table 30568");
  Put(machine, "ip -4 rule add pref 10514 lookup 30568 protocol kernel");
  const auto plan = MakePlan(SplitTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10104 lookup 30569 protocol kernel"));
}

TEST(MakePlan, TablesThatOthersNamedAreLeftToThem) {
  NetSnapshot machine = Machine();
  machine.named_tables = {100, 30568};
  const auto plan = MakePlan(FullTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->catch_all_table, 30570U);
}

TEST(MakePlan, AWideTunnelThatDoesNotTakeEverythingRefusesNothingElse) {
  RoutingConfig config = FullTunnel();
  config.allowed_ips = {P("128.0.0.0/1")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10514 lookup 30568 protocol kernel"));
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10515 lookup 30568 protocol kernel"));
  EXPECT_THAT(plan->ToString(), Not(HasSubstr("pref 10515 unreachable")));
}

TEST(MakePlan, PlannedAnewItKeepsMarkTablesAndPriorities) {
  NetSnapshot machine = Machine();
  RoutingConfig config = FullTunnel();
  config.keep = {
      .mtu = 1333, .fwmark = 0x2000, .base_priority = 10540, .specific_table = 30571, .catch_all_table = 30572};
  // Somebody puts things where ours are: that does not make us move.
  Put(machine, "ip -4 route add 192.0.2.0/24 dev eth0 table 30572");
  Put(machine, "ip -4 rule add pref 10543 fwmark 0x2000/0x3000 lookup 9");
  auto plan = MakePlan(config, machine);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->fwmark, 0x2000U);
  EXPECT_EQ(plan->mtu, 1420U) << "a route says more than the past";
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10554 lookup 30572 protocol kernel"));
  // Without any uplink the MTU stays what it was.
  std::erase_if(machine.routes, [](const Route& route) { return route.device == "eth0"; });
  plan = MakePlan(config, machine);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->mtu, 1333U);
  // A split tunnel has its place elsewhere.
  config = SplitTunnel();
  config.keep.base_priority = 10540;
  config.allowed_ips = {P("203.0.113.0/24")};
  plan = MakePlan(config, machine);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->base_priority, 10100U);
}

TEST(MakePlan, NumberedTableGetsTheRoutesAndNoRules) {
  RoutingConfig config = FullTunnel();
  config.table_mode = TableMode::kNumber;
  config.table = 1234;
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 route add default dev adit0 table 1234 proto static"));
  EXPECT_THAT(plan->ToString(), Not(HasSubstr("rule add")));
}

TEST(MakePlan, TableOffMakesNoRoutes) {
  RoutingConfig config = FullTunnel();
  config.table_mode = TableMode::kOff;
  config.fwmark = 51820;
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(plan->ToString(), Not(HasSubstr("route add")));
  EXPECT_THAT(plan->ToString(), Not(HasSubstr("rule add")));
  EXPECT_EQ(plan->fwmark, 51820U);
}

TEST(MakePlan, UsesTheGivenMarkWhole) {
  RoutingConfig config = FullTunnel();
  config.fwmark = 0xca6c;
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->fwmark, 0xca6cU);
  EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10500 fwmark 0xca6c lookup main protocol kernel"));
}

TEST(MakePlan, MovesAwayFromTakenPrioritiesTablesAndMarks) {
  NetSnapshot machine = Machine();
  Put(machine, "ip -6 rule add pref 10510 to 2001:db8::/32 lookup 7 protocol static");
  Put(machine, "ip -4 route add 1.2.3.0/24 dev eth0 table 30567");
  Put(machine, "ip -4 rule add pref 20000 fwmark 0x1000/0x1000 lookup 9 protocol static");
  const auto plan = MakePlan(FullTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->base_priority, 10520U);
  EXPECT_EQ(plan->catch_all_table, 30570U);
  EXPECT_EQ(plan->fwmark, 0x2000U);
  EXPECT_EQ(plan->fwmark_mask, 0x3000U);
}

TEST(MakePlan, SharesTheMarkWithAnotherTunnelOfOurs) {
  NetSnapshot machine = Machine();
  Put(machine, "ip -4 rule add pref 10500 fwmark 0x1000/0x3000 lookup main protocol kernel");
  Put(machine, "ip -4 rule add pref 10501 fwmark 0x1000/0x3000 unreachable protocol kernel");
  const auto plan = MakePlan(FullTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->fwmark, 0x1000U);
  EXPECT_EQ(plan->base_priority, 10520U);
}

TEST(MakePlan, FailsWhenNoPrioritiesAreFree) {
  NetSnapshot machine = Machine();
  Rule rule;
  rule.destination = P("192.0.2.1");
  for (rule.priority = 10000; rule.priority < 32766; rule.priority += 10) machine.rules.push_back(rule);
  const auto plan = MakePlan(FullTunnel(), machine);
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("ip rule"));
}

TEST(MakePlan, WarnsOfARuleThatTakesOurPacketsFirst) {
  NetSnapshot machine = Machine();
  Put(machine, "ip -4 route add default dev wg9 table 51820");
  Put(machine, "ip -4 rule add pref 10000 not fwmark 0xca6c lookup 51820 protocol boot");
  const auto plan = MakePlan(FullTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_THAT(plan->warnings, ElementsAre(HasSubstr("takes the tunnel's own packets")));
}

TEST(MakePlan, StrictReversePathFilterGetsThePortPreciseRule) {
  for (const char* where : {"net/ipv4/conf/all/rp_filter", "net/ipv4/conf/eth0/rp_filter"}) {
    NetSnapshot machine = Machine();
    machine.sysctls[where] = "1";
    const auto plan = MakePlan(FullTunnel(), machine);
    ASSERT_TRUE(plan);
    EXPECT_THAT(Lines(*plan), Contains("ip -4 rule add pref 10502 to 203.0.113.10 ipproto udp dport 51820 lookup main "
                                       "protocol kernel"))
        << where;
  }
  NetSnapshot loose = Machine();
  loose.sysctls["net/ipv4/conf/all/rp_filter"] = "1";
  loose.sysctls["net/ipv4/conf/eth0/rp_filter"] = "2";  // the kernel uses the larger of the two
  EXPECT_THAT(MakePlan(FullTunnel(), loose)->ToString(), Not(HasSubstr("dport")));
}

TEST(MakePlan, FindsTheMtuOnTheWayToTheEndpoints) {
  NetSnapshot machine = Machine();
  machine.links.push_back(
      {.index = 3, .name = "ppp0", .mtu = 1492, .is_up = true, .address_generation = 0, .kind = {}});
  Put(machine, "ip -4 route add 203.0.113.0/24 dev ppp0");
  EXPECT_EQ(MakePlan(FullTunnel(), machine)->mtu, 1412U) << "the link's";
  machine.routes.back().mtu = 1400;
  EXPECT_EQ(MakePlan(FullTunnel(), machine)->mtu, 1320U) << "the route's";
  RoutingConfig two = FullTunnel();
  two.endpoints = {E("8.8.8.8:1"), E("203.0.113.10:51820")};
  EXPECT_EQ(MakePlan(two, machine)->mtu, 1320U) << "the smallest of two";
  machine.routes.back().mtu = 1300;
  EXPECT_EQ(MakePlan(FullTunnel(), machine)->mtu, 1280U) << "IPv6 needs as much";
  RoutingConfig v4_only = FullTunnel();
  v4_only.addresses = {A("10.9.0.2/32")};
  EXPECT_EQ(MakePlan(v4_only, machine)->mtu, 1220U);
  RoutingConfig without = SplitTunnel();
  without.endpoints.clear();
  EXPECT_EQ(MakePlan(without, machine)->mtu, 1420U) << "the default route's";
  machine.routes.clear();
  EXPECT_EQ(MakePlan(without, machine)->mtu, 1420U) << "nothing known";
}

TEST(MakePlan, WhatWasFoundToGetThroughLimitsTheAutomaticMtu) {
  RoutingConfig config = FullTunnel();
  EXPECT_EQ(MakePlan(config, Machine())->mtu, 1420U) << "the control";
  config.mtu_limit = 1312;
  auto plan = MakePlan(config, Machine());
  EXPECT_EQ(plan->mtu, 1312U);
  EXPECT_EQ(plan->routes_mtu, 1420U) << "what the routes say is still known";
  EXPECT_EQ(plan->least_mtu, 1280U);
  EXPECT_THAT(Lines(*plan), Contains("ip link set dev adit0 mtu 1312"));
  config.mtu_limit = 1100;
  EXPECT_EQ(MakePlan(config, Machine())->mtu, 1280U) << "IPv6 needs as much";
  config.mtu_limit = 1450;
  EXPECT_EQ(MakePlan(config, Machine())->mtu, 1420U) << "the routes do not take more";
  RoutingConfig v4_only = config;
  v4_only.addresses = {A("10.9.0.2/32")};
  v4_only.mtu_limit = 1100;
  EXPECT_EQ(MakePlan(v4_only, Machine())->mtu, 1100U);
  config.mtu_limit = 1312;
  config.mtu = 1400;
  plan = MakePlan(config, Machine());
  EXPECT_EQ(plan->mtu, 1400U) << "an MTU of the file's stays";
  EXPECT_EQ(plan->routes_mtu, 0U);
}

TEST(MakePlan, SaysHowPacketsToTheEndpointsLeave) {
  NetSnapshot machine = Machine();
  RoutingConfig config = FullTunnel();
  config.endpoints = {E("203.0.113.10:51820"), E("192.168.1.77:1")};
  auto plan = MakePlan(config, machine);
  EXPECT_EQ(plan->ways, (std::vector<EndpointWay>{
                            {.endpoint = E("203.0.113.10:1").ip, .device = "eth0", .gateway = E("192.168.1.1:1").ip},
                            {.endpoint = E("192.168.1.77:1").ip, .device = "eth0", .gateway = {}}}));
  machine.routes.clear();
  plan = MakePlan(config, machine);
  EXPECT_EQ(plan->ways[0].device, "") << "no way is another way";
  config.endpoints.assign(Plan::kMaxWays + 5, E("203.0.113.10:51820"));
  EXPECT_EQ(MakePlan(config, machine)->ways.size(), Plan::kMaxWays);
}

TEST(MakePlan, SmallMtuLeavesIpv6OutAndNothingLeaks) {
  RoutingConfig config = FullTunnel();
  config.mtu = 1200;
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), Not(Contains("ip -6 address add fd09::2/128 dev adit0")));
  EXPECT_THAT(Lines(*plan), Contains("ip -6 route add unreachable default table 30568 proto static metric 4278198272"));
  EXPECT_THAT(plan->warnings, Contains(HasSubstr("below IPv6's minimum of 1280")));
}

TEST(MakePlan, RefusesAnMtuOutOfRange) {
  RoutingConfig config = FullTunnel();
  for (const unsigned mtu : {1U, 575U, 65536U}) {
    config.mtu = mtu;
    const auto plan = MakePlan(config, Machine());
    ASSERT_FALSE(plan) << mtu;
    EXPECT_THAT(plan.error().message, HasSubstr("MTU"));
  }
}

TEST(MakePlan, RefusesABadInterfaceName) {
  RoutingConfig config = FullTunnel();
  config.interface_name = "far too long a name";
  EXPECT_FALSE(MakePlan(config, Machine()));
}

TEST(MakePlan, LeavesOutWhatIsThereAlready) {
  NetSnapshot machine = Machine();
  machine.links[2] = {.index = 7, .name = "adit0", .mtu = 1420, .is_up = true, .address_generation = 1, .kind = "tun"};
  Put(machine, "ip -4 address add 10.9.0.2/32 dev adit0");
  Put(machine, "ip -6 address add fd09::2/128 dev adit0");
  Put(machine, "ip -4 route add 10.9.0.0/16 dev adit0");
  const auto plan = MakePlan(SplitTunnel(), machine);
  ASSERT_TRUE(plan);
  EXPECT_THAT(Lines(*plan), ElementsAre("ip -6 route add fd09::/64 dev adit0 proto static metric 1024"));
}

TEST(MakePlan, AsksForEachEndpointAndEachAllowedPrefix) {
  const auto plan = MakePlan(FullTunnel(), Machine());
  ASSERT_TRUE(plan);
  ASSERT_EQ(plan->questions.size(), 3U);
  EXPECT_EQ(plan->questions[0].expected, Expectation::kNotTunnel);
  EXPECT_EQ(plan->questions[0].mark, 0x1000U);
  EXPECT_EQ(plan->questions[0].destinations, std::vector{*IpAddress::Parse("203.0.113.10")});
  EXPECT_EQ(plan->questions[1].expected, Expectation::kTunnel);
  EXPECT_EQ(plan->questions[2].destinations[0], *IpAddress::Parse("2001:db8::1"));
}

}  // namespace
}  // namespace adit
