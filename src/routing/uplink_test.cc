// The pure half: which way past the tunnel, with which routes. follow_test.cc has the kernel's half.
#include "routing/uplink.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "routing/plan.h"

namespace adit {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Prefix P(const char* text) { return *Prefix::Parse(text, true); }
SocketAddress E(const char* text) { return *SocketAddress::Parse(text); }
IpAddress I(const char* text) { return *IpAddress::Parse(text); }

void Put(NetSnapshot& snapshot, const char* line) {
  const auto op = ParseOp(line);
  ASSERT_TRUE(op) << line;
  if (const auto* route = std::get_if<AddRoute>(&*op)) snapshot.routes.push_back(route->route);
  if (const auto* rule = std::get_if<AddRule>(&*op)) snapshot.rules.push_back(rule->rule);
}

// Ethernet in both families, Wi-Fi as the second choice, and the tunnel's link.
NetSnapshot Machine() {
  NetSnapshot snapshot;
  snapshot.links = {{.index = 2, .name = "eth0", .mtu = 1500, .is_up = true, .address_generation = 0, .kind = {}},
                    {.index = 3, .name = "wlan0", .mtu = 1400, .is_up = true, .address_generation = 0, .kind = {}},
                    {.index = 7, .name = "adit0", .mtu = 1420, .is_up = true, .address_generation = 0, .kind = "tun"}};
  Put(snapshot, "ip -4 route add default via 192.168.1.1 dev eth0");
  Put(snapshot, "ip -4 route add default via 10.77.0.1 dev wlan0 metric 600");
  Put(snapshot, "ip -4 route add 192.168.1.0/24 dev eth0 proto kernel src 192.168.1.2");
  Put(snapshot, "ip -6 route add default via fe80::1 dev eth0 metric 1024");
  Put(snapshot, "ip -4 rule add pref 32766 lookup main protocol kernel");
  snapshot.sysctls = {{"net/ipv6/conf/adit0/disable_ipv6", "0"}};
  return snapshot;
}

NetSnapshot MachineWithoutRules() {
  NetSnapshot snapshot = Machine();
  snapshot.takes_rules = false;
  snapshot.rules.clear();
  return snapshot;
}

RoutingConfig FullTunnel() {
  RoutingConfig config;
  config.interface_name = "adit0";
  config.addresses = {*ParseInterfaceAddress("10.9.0.2/32"), *ParseInterfaceAddress("fd09::2/128")};
  config.allowed_ips = {P("0.0.0.0/0"), P("::/0")};
  config.endpoints = {E("203.0.113.10:51820")};
  return config;
}

std::vector<std::string> RoutesAndRules(const Plan& plan) {
  std::vector<std::string> lines;
  for (const Op& op : plan.ops) {
    const std::string line = ToString(op);
    if (line.find("route add") != line.npos || line.find("rule add") != line.npos) lines.push_back(line);
  }
  return lines;
}

std::vector<std::string> Texts(const std::vector<Route>& routes) {
  std::vector<std::string> texts;
  for (const Route& route : routes) texts.push_back(route.ToString());
  return texts;
}

TEST(FindUplink, IsTheBestRouteOfMainThatIsNotTheTunnels) {
  NetSnapshot snapshot = Machine();
  Put(snapshot, "ip -4 route add 0.0.0.0/1 dev adit0");
  const auto uplink = FindUplink(snapshot, I("8.8.8.8"), "adit0");
  ASSERT_TRUE(uplink);
  EXPECT_EQ(*uplink,
            (Uplink{.device = "eth0", .index = 2, .gateway = I("192.168.1.1"), .preferred_source = {}, .mtu = 1500}));
  EXPECT_EQ(FindUplink(snapshot, I("192.168.1.77"), "adit0")->gateway, std::nullopt);
  EXPECT_EQ(FindUplink(snapshot, I("2001:db8::1"), "adit0")->device, "eth0");
}

TEST(FindUplink, IsNoneOverALinkThatIsDownOrWithoutARoute) {
  NetSnapshot snapshot = Machine();
  snapshot.links[0].is_up = false;
  EXPECT_FALSE(FindUplink(snapshot, I("8.8.8.8"), "adit0"));
  snapshot.routes.clear();
  EXPECT_FALSE(FindUplink(snapshot, I("8.8.8.8"), "adit0"));
}

TEST(UplinkRoutes, LeadEndpointsPastTheTunnelAndAreRefusedWithoutAnUplink) {
  const UplinkNeeds needs{
      .tunnel = "adit0", .endpoints = true, .allowed = {P("0.0.0.0/1"), P("128.0.0.0/1")}, .excluded = {}};
  const std::vector<SocketAddress> endpoints = {E("203.0.113.10:51820"), E("203.0.113.10:51821"),
                                                E("[2001:db8:f::10]:51820")};
  NetSnapshot snapshot = Machine();
  // IPv6 is not in the tunnel: nothing is needed there.
  EXPECT_THAT(Texts(UplinkRoutes(needs, endpoints, snapshot)),
              ElementsAre("203.0.113.10 via 192.168.1.1 dev eth0 proto static",
                          "unreachable 203.0.113.10 proto static metric 4278198272"));
  snapshot.routes.erase(snapshot.routes.begin());
  EXPECT_THAT(Texts(UplinkRoutes(needs, endpoints, snapshot)),
              ElementsAre("203.0.113.10 via 10.77.0.1 dev wlan0 proto static",
                          "unreachable 203.0.113.10 proto static metric 4278198272"));
  snapshot.routes.clear();
  EXPECT_THAT(Texts(UplinkRoutes(needs, endpoints, snapshot)),
              ElementsAre("unreachable 203.0.113.10 proto static metric 4278198272"));
}

TEST(UplinkRoutes, LeaveSomebodyElsesHostRouteInCharge) {
  NetSnapshot snapshot = Machine();
  Put(snapshot, "ip -4 route add 203.0.113.10 via 10.77.0.1 dev wlan0");
  const UplinkNeeds needs{.tunnel = "adit0", .endpoints = true, .allowed = {P("128.0.0.0/1")}, .excluded = {}};
  const std::vector<SocketAddress> endpoints = {E("203.0.113.10:51820")};
  EXPECT_THAT(Texts(UplinkRoutes(needs, endpoints, snapshot)),
              ElementsAre("unreachable 203.0.113.10 proto static metric 4278198272"));
}

TEST(PlanWithoutRules, PutsHalvesIntoMainAndHostRoutesBeforeThem) {
  const auto plan = MakePlan(FullTunnel(), MachineWithoutRules());
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->loop_avoidance, LoopAvoidance::kRoutes);
  EXPECT_EQ(plan->fwmark, 0U);
  EXPECT_THAT(RoutesAndRules(*plan),
              ElementsAre("ip -4 route add 203.0.113.10 via 192.168.1.1 dev eth0 proto static",
                          "ip -4 route add unreachable 203.0.113.10 proto static metric 4278198272",
                          "ip -4 route add unreachable 0.0.0.0/1 proto static metric 4278198272",
                          "ip -4 route add unreachable 128.0.0.0/1 proto static metric 4278198272",
                          "ip -6 route add unreachable ::/1 proto static metric 4278198272",
                          "ip -6 route add unreachable 8000::/1 proto static metric 4278198272",
                          "ip -4 route add 0.0.0.0/1 dev adit0 proto static",
                          "ip -4 route add 128.0.0.0/1 dev adit0 proto static",
                          "ip -6 route add ::/1 dev adit0 proto static metric 1024",
                          "ip -6 route add 8000::/1 dev adit0 proto static metric 1024"));
  EXPECT_THAT(plan->warnings,
              ElementsAre(HasSubstr("takes no policy rules, or none that suppress a default route: host routes")));
}

TEST(PlanWithoutRules, RefusesIpv6BesideATunnelOfIpv4) {
  RoutingConfig config = FullTunnel();
  config.addresses.pop_back();
  for (const bool with_default : {false, true}) {
    config.allowed_ips = {P("0.0.0.0/0")};
    if (with_default) config.allowed_ips.push_back(P("::/0"));
    const auto plan = MakePlan(config, MachineWithoutRules());
    ASSERT_TRUE(plan);
    const auto lines = RoutesAndRules(*plan);
    EXPECT_THAT(lines, Contains("ip -6 route add unreachable ::/1 proto static metric 4278198272"));
    EXPECT_THAT(lines, Contains("ip -6 route add unreachable 8000::/1 proto static metric 4278198272"));
    EXPECT_THAT(lines, Not(Contains("ip -6 route add ::/1 dev adit0 proto static metric 1024")));
    EXPECT_EQ(plan->questions.at(1).expected, Expectation::kTunnelOrNothing);
  }
}

TEST(PlanWithoutRules, HalvesAgainWhatSomebodyElseHolds) {
  NetSnapshot snapshot = MachineWithoutRules();
  Put(snapshot, "ip -4 route add 128.0.0.0/1 via 192.168.1.66 dev eth0");
  const auto plan = MakePlan(FullTunnel(), snapshot);
  ASSERT_TRUE(plan);
  const auto lines = RoutesAndRules(*plan);
  for (const char* part : {"0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"}) {
    EXPECT_THAT(lines, Contains(fmt::format("ip -4 route add {} dev adit0 proto static", part)));
  }
}

TEST(PlanWithoutRules, RefusesTheEndpointsWhereThereIsNoUplink) {
  NetSnapshot snapshot = MachineWithoutRules();
  std::erase_if(snapshot.routes, [](const Route& route) { return route.destination.length() == 0; });
  const auto plan = MakePlan(FullTunnel(), snapshot);
  ASSERT_TRUE(plan);
  EXPECT_EQ(plan->loop_avoidance, LoopAvoidance::kRoutes);
  const auto lines = RoutesAndRules(*plan);
  EXPECT_THAT(lines, Contains("ip -4 route add unreachable 203.0.113.10 proto static metric 4278198272"));
  EXPECT_THAT(lines, Not(Contains(HasSubstr("dev eth0"))));
}

TEST(PlanWithBoundSockets, PutsTheHalvesIntoMainAndNothingBeforeThem) {
  RoutingConfig config = FullTunnel();
  config.loop_avoidance = LoopAvoidance::kBind;
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan) << plan.error().message;
  EXPECT_EQ(plan->loop_avoidance, LoopAvoidance::kBind);
  EXPECT_EQ(plan->fwmark, 0U);
  // An unreachable IPv4 route would hide the uplink's from the sockets.
  EXPECT_THAT(RoutesAndRules(*plan), ElementsAre("ip -6 route add unreachable ::/1 proto static metric 4278198272",
                                                 "ip -6 route add unreachable 8000::/1 proto static metric 4278198272",
                                                 "ip -4 route add 0.0.0.0/1 dev adit0 proto static",
                                                 "ip -4 route add 128.0.0.0/1 dev adit0 proto static",
                                                 "ip -6 route add ::/1 dev adit0 proto static metric 1024",
                                                 "ip -6 route add 8000::/1 dev adit0 proto static metric 1024"));
  EXPECT_THAT(plan->warnings, ElementsAre(HasSubstr("if adit dies, IPv4 leaves beside the tunnel")));
  for (const RouteQuestion& question : plan->questions) EXPECT_THAT(question.subject, Not(HasSubstr("endpoint")));
  config.kill_switch = KillSwitch::kUp;
  EXPECT_THAT(MakePlan(config, Machine())->warnings, ::testing::IsEmpty());
}

TEST(PlanWithBoundSockets, AreRefusedWhereAStrictFilterDropsTheAnswers) {
  RoutingConfig config = FullTunnel();
  config.loop_avoidance = LoopAvoidance::kBind;
  NetSnapshot strict = Machine();
  strict.sysctls["net/ipv4/conf/eth0/rp_filter"] = "1";
  const auto refused = MakePlan(config, strict);
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().message, HasSubstr("set net.ipv4.conf.eth0.rp_filter (and .all.) to 2"));
  config.endpoints.clear();
  EXPECT_FALSE(MakePlan(config, strict)) << "peers that come to us";
  config.endpoints = {E("[2001:db8:f::10]:51820")};
  EXPECT_TRUE(MakePlan(config, strict)) << "IPv6 has no such filter";
  config.endpoints = {E("203.0.113.10:51820")};
  strict.sysctls["net/ipv4/conf/all/rp_filter"] = "2";
  EXPECT_TRUE(MakePlan(config, strict)) << "the larger of the two counts";
}

TEST(LoopAvoidance, IsTheUsersWordWhereItIsPossible) {
  RoutingConfig config = FullTunnel();
  NetSnapshot no_marks = Machine();
  no_marks.takes_marks = false;
  const auto chosen = [&](LoopAvoidance wish, const NetSnapshot& snapshot) {
    config.loop_avoidance = wish;
    const auto plan = MakePlan(config, snapshot);
    return plan ? plan->loop_avoidance : LoopAvoidance::kAuto;
  };
  EXPECT_EQ(chosen(LoopAvoidance::kAuto, Machine()), LoopAvoidance::kRules);
  EXPECT_EQ(chosen(LoopAvoidance::kAuto, no_marks), LoopAvoidance::kRoutes);
  EXPECT_EQ(chosen(LoopAvoidance::kRoutes, Machine()), LoopAvoidance::kRoutes);
  EXPECT_EQ(chosen(LoopAvoidance::kBind, Machine()), LoopAvoidance::kBind);
  config.endpoints.clear();
  EXPECT_EQ(chosen(LoopAvoidance::kAuto, no_marks), LoopAvoidance::kBind) << "host routes to where?";
  config.endpoints = {E("203.0.113.10:51820")};
  config.loop_avoidance = LoopAvoidance::kRules;
  EXPECT_THAT(MakePlan(config, no_marks).error().message, HasSubstr("LoopAvoidance = rules is not possible here"));
}

TEST(ExcludedIps, AreThrownOutOfBothTablesByRules) {
  RoutingConfig config = FullTunnel();
  config.allowed_ips.push_back(P("10.0.0.0/8"));
  config.excluded_ips = {P("10.1.0.0/16"), P("198.51.100.0/24"), P("2001:db8:e::/48")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  const auto lines = RoutesAndRules(*plan);
  for (const char* table : {"30567", "30568"}) {
    EXPECT_THAT(lines, Contains(fmt::format("ip -4 route add throw 10.1.0.0/16 table {} proto static", table)));
    EXPECT_THAT(lines, Contains(fmt::format("ip -4 route add throw 198.51.100.0/24 table {} proto static", table)));
    EXPECT_THAT(
        lines, Contains(fmt::format("ip -6 route add throw 2001:db8:e::/48 table {} proto static metric 1024", table)));
  }
}

TEST(ExcludedIps, AreNotLeftToTheBackstop) {
  RoutingConfig config = FullTunnel();
  config.excluded_ips = {P("198.51.100.0/24"), P("2001:db8:e::/48")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  const auto lines = RoutesAndRules(*plan);
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr("ip -4 rule add"), HasSubstr("to 198.51.100.0/24 lookup main"))));
  EXPECT_THAT(lines, Contains(AllOf(HasSubstr("ip -6 rule add"), HasSubstr("to 2001:db8:e::/48 lookup main"))));
}

TEST(LanPolicy, TakesAListLongerThanOurOwn) {
  RoutingConfig config = FullTunnel();
  config.lan.kind = LanPolicy::Kind::kList;
  for (int i = 0; i < 40; ++i) config.lan.prefixes.push_back(P(fmt::format("192.168.1.{}/32", i).c_str()));
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(RoutesAndRules(*plan),
              Contains(AllOf(HasSubstr("to 192.168.1.39 "), HasSubstr("suppress_prefixlength 7"))));
}

TEST(ExcludedIps, GoByTheUplinkWithoutRules) {
  RoutingConfig config = FullTunnel();
  config.excluded_ips = {P("198.51.100.0/24")};
  const auto plan = MakePlan(config, MachineWithoutRules());
  ASSERT_TRUE(plan);
  EXPECT_THAT(RoutesAndRules(*plan), Contains("ip -4 route add 198.51.100.0/24 via 192.168.1.1 dev eth0 proto static"));
}

TEST(ExcludedIps, OutsideOfTheTunnelNeedNothing) {
  RoutingConfig config = FullTunnel();
  config.allowed_ips = {P("10.9.0.0/16")};
  config.excluded_ips = {P("198.51.100.0/24")};
  const auto plan = MakePlan(config, Machine());
  ASSERT_TRUE(plan);
  EXPECT_THAT(RoutesAndRules(*plan), ElementsAre("ip -4 route add 10.9.0.0/16 dev adit0 proto static"));
  // The same prefix in both lists is outside.
  config.allowed_ips.push_back(P("198.51.100.0/24"));
  EXPECT_EQ(RoutesAndRules(*MakePlan(config, Machine())), RoutesAndRules(*plan));
}

TEST(LanPolicy, IsRefusedWhereHostRoutesCannotHoldIt) {
  RoutingConfig config = FullTunnel();
  config.lan.kind = LanPolicy::Kind::kBlock;
  const auto plan = MakePlan(config, MachineWithoutRules());
  ASSERT_FALSE(plan);
  EXPECT_THAT(plan.error().message, HasSubstr("LAN = block needs policy rules"));
  config.kill_switch = KillSwitch::kUp;
  EXPECT_TRUE(MakePlan(config, MachineWithoutRules()));
}

TEST(LanPolicy, DecidesWhichTiersStandBeforeTheCatchAll) {
  RoutingConfig config = FullTunnel();
  const auto tiers = [&] {
    std::vector<std::string> lines;
    for (const std::string& line : RoutesAndRules(*MakePlan(config, Machine()))) {
      if (line.find("suppress_prefixlength") != line.npos) lines.push_back(line.substr(0, line.find(" lookup")));
    }
    return lines;
  };
  EXPECT_EQ(tiers().size(), 6U);
  config.lan.kind = LanPolicy::Kind::kBlock;
  EXPECT_THAT(tiers(), ElementsAre("ip -6 rule add pref 10506 to fe80::/10"));
  config.lan.kind = LanPolicy::Kind::kList;
  config.lan.prefixes = {P("192.168.1.0/24"), P("8.8.4.0/24")};
  EXPECT_THAT(tiers(),
              ElementsAre("ip -6 rule add pref 10506 to fe80::/10", "ip -4 rule add pref 10507 to 192.168.1.0/24",
                          "ip -4 rule add pref 10508 to 8.8.4.0/24"));
}

}  // namespace
}  // namespace adit
