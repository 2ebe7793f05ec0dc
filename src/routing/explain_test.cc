#include "routing/explain.h"

#include <gmock/gmock.h>

#include <random>

#include "routing/faulty_target_fixture.h"
#include "routing/wire.h"

namespace adit {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ExplainTest = NamespaceTest;

Explanation Explained(NetlinkSocket& socket, RouteQuery query) {
  auto explanation = ExplainRoute(socket, std::move(query));
  if (!explanation) {
    ADD_FAILURE() << explanation.error().message;
    return {};
  }
  return *explanation;
}

RouteQuery To(const char* destination, std::uint32_t mark = 0) {
  RouteQuery query;
  query.destination = Ip(destination);
  query.mark = mark;
  return query;
}

TEST_F(ExplainTest, NamesTheRuleAndTheRoute) {
  InMachine([&](NetlinkSocket& socket) {
    auto routing = MustUp(FullTunnel(), journal_);
    ASSERT_NE(routing, nullptr);
    const std::uint32_t base = routing->plan().base_priority;

    Explanation told = Explained(socket, To("8.8.8.8"));
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.kernel.device, "adit0");
    ASSERT_TRUE(told.walk.rule && told.walk.route);
    EXPECT_EQ(told.walk.rule->priority, base + 14);
    EXPECT_EQ(told.walk.route->device, "adit0");
    EXPECT_EQ(told.walk.route->destination.length(), 0U);

    told = Explained(socket, To("203.0.113.10", routing->fwmark()));
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.walk.rule->priority, base);
    EXPECT_EQ(told.kernel.device, "eth0");

    told = Explained(socket, To("10.77.3.3"));
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.walk.rule->priority, base + 4);

    told = Explained(socket, To("192.168.1.77"));
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.walk.rule->priority, base + 8);
    EXPECT_EQ(told.kernel.device, "eth0");

    // A private address that main knows no way to but the default.
    told = Explained(socket, To("172.20.0.1"));
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.kernel.device, "adit0");
    ASSERT_FALSE(told.walk.passed.empty());
    EXPECT_EQ(told.walk.passed.back().rule.priority, base + 7);
    EXPECT_THAT(told.walk.passed.back().why, HasSubstr("does not accept"));

    told = Explained(socket, To("192.168.1.2"));
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.walk.route->type, RouteType::kLocal);
  });
}

TEST_F(ExplainTest, ExplainsRefusalsUsersAndPacketsOfOthers) {
  InMachine([&](NetlinkSocket& socket) {
    RoutingConfig config = FullTunnel();
    config.addresses.pop_back();
    auto routing = MustUp(config, journal_);
    ASSERT_NE(routing, nullptr);
    Explanation told = Explained(socket, To("2001:db8:1::1"));
    EXPECT_TRUE(told.agrees);
    EXPECT_NE(told.kernel.refusal, 0);
    EXPECT_EQ(told.walk.route->type, RouteType::kUnreachable);

    Rule rule;
    rule.priority = 100;
    rule.uids = {1000, 2000};
    rule.action = RuleAction::kProhibit;
    Must(socket.Request(RuleMessage(RTM_NEWRULE, rule)));
    RouteQuery query = To("8.8.8.8");
    query.uid = 1500;
    told = Explained(socket, query);
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.walk.rule->priority, 100U);
    EXPECT_EQ(told.kernel.refusal, EACCES);

    // A rule for one kind of packet says nothing about others.
    Rule web;
    web.priority = 90;
    web.ip_protocol = 6;
    web.destination_ports = PortRange{443, 444};
    web.action = RuleAction::kProhibit;
    Must(socket.Request(RuleMessage(RTM_NEWRULE, web)));
    for (const auto& [protocol, port, is_taken] :
         {std::tuple{0, 0, false}, std::tuple{6, 443, true}, std::tuple{6, 444, true}, std::tuple{6, 80, false},
          std::tuple{17, 443, false}, std::tuple{47, 0, false}}) {
      query = To("8.8.8.8");
      query.protocol = static_cast<std::uint8_t>(protocol);
      query.destination_port = static_cast<std::uint16_t>(port);
      told = Explained(socket, query);
      EXPECT_TRUE(told.agrees) << protocol << " " << port;
      EXPECT_EQ(told.walk.rule->priority == 90, is_taken) << protocol << " " << port;
      EXPECT_EQ(told.kernel.refusal, is_taken ? EACCES : 0) << protocol << " " << port;
    }

    // What comes in by eth0 for elsewhere goes into the tunnel too.
    Must(WriteSysctl("net/ipv4/conf/all/forwarding", "1"));
    query = To("8.8.8.8");
    query.input_device = "eth0";
    told = Explained(socket, query);
    EXPECT_TRUE(told.agrees);
    EXPECT_EQ(told.kernel.device, "adit0");
    query.input_device = "nothing0";
    const auto unknown = ExplainRoute(socket, query);
    ASSERT_FALSE(unknown);
    EXPECT_THAT(unknown.error().message, HasSubstr("nothing0"));
  });
}

// The walk is a twin of the kernel's own: random rules and routes, random questions.
TEST_F(ExplainTest, AgreesWithTheKernelAboutRandomRules) {
  const std::uint32_t seed = std::random_device()();
  printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const auto below = [&](std::uint32_t end) { return static_cast<std::uint32_t>(random() % end); };
  const auto prefix = [&] {
    const std::uint8_t bytes[4] = {10, static_cast<std::uint8_t>(below(3)), static_cast<std::uint8_t>(below(3)), 0};
    return Prefix(IpAddress::V4(bytes), below(2) == 0 ? 24 : below(2) == 0 ? 16 : below(2) == 0 ? 8 : 0);
  };
  InMachine([&](NetlinkSocket& socket) {
    for (int round = 0; round < 20; ++round) {
      std::vector<Rule> rules;
      std::vector<Route> routes;
      for (std::uint32_t i = 0; i < 12; ++i) {
        Rule rule;
        rule.priority = 100 + i;
        if (below(2) == 0) rule.destination = prefix();
        if (below(3) == 0) rule.mark = rule.mark_mask = 1 + below(2);
        rule.invert = below(6) == 0;
        if (below(5) == 0) rule.suppress_prefixlength = static_cast<int>(8 * below(3));
        if (below(8) == 0) rule.uids = {1000, 1000};
        if (below(10) == 0) rule.action = RuleAction::kUnreachable;
        rule.table = rule.action == RuleAction::kLookup ? 50 + below(4) : 0;
        if (socket.Request(RuleMessage(RTM_NEWRULE, rule))) rules.push_back(rule);
      }
      for (std::uint32_t i = 0; i < 16; ++i) {
        Route route;
        route.destination = prefix();
        route.table = 50 + below(4);
        route.metric = below(3);
        const std::uint32_t kind = below(5);
        route.type = kind == 0 ? RouteType::kUnreachable : kind == 1 ? RouteType::kThrow : RouteType::kUnicast;
        if (route.type == RouteType::kUnicast) {
          route.device = "eth0";
          route.gateway = Ip("192.168.1.1");
        }
        if (AddKernelRoute(socket, route)) routes.push_back(route);
      }
      for (int i = 0; i < 50; ++i) {
        RouteQuery query;
        const std::uint8_t bytes[4] = {10, static_cast<std::uint8_t>(below(4)), static_cast<std::uint8_t>(below(4)), 9};
        query.destination = IpAddress::V4(bytes);
        query.mark = below(4);
        query.uid = below(2) * 1000;
        const Explanation told = Explained(socket, query);
        ASSERT_TRUE(told.agrees) << "seed " << seed << " round " << round << ": " << query.destination.ToString()
                                 << " mark " << query.mark << " uid " << query.uid << ": "
                                 << (told.walk.rule ? told.walk.rule->ToString() : "no rule") << " / "
                                 << (told.walk.route ? told.walk.route->ToString() : "no route") << " / kernel "
                                 << told.kernel.device << " table " << told.kernel.table << " refusal "
                                 << told.kernel.refusal;
      }
      for (const Rule& rule : rules) Must(socket.Request(RuleMessage(RTM_DELRULE, rule)));
      for (const Route& route : routes) Must(DeleteKernelRoute(socket, route));
    }
  });
}

}  // namespace
}  // namespace adit
