#include "routing/diff.h"

#include <gmock/gmock.h>

#include <algorithm>

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<Op> Ops(std::initializer_list<const char*> lines) {
  std::vector<Op> ops;
  for (const char* line : lines) ops.push_back(ParseOp(line).value());
  return ops;
}

// "+ NEW", "- OLD", "~ NEW" for a replacement.
std::vector<std::string> Told(const std::vector<Op>& in_force, const std::vector<Op>& wanted) {
  std::vector<std::string> lines;
  for (const Change& change : Diff(in_force, wanted)) {
    switch (change.kind) {
      case Change::Kind::kAdd:
        lines.push_back("+ " + ToString(wanted[change.wanted]));
        break;
      case Change::Kind::kReplace:
        lines.push_back("~ " + ToString(wanted[change.wanted]));
        break;
      case Change::Kind::kRemove:
        lines.push_back("- " + ToString(in_force[change.old]));
        break;
    }
  }
  return lines;
}

TEST(Diff, OfEqualsIsNothing) {
  const auto ops = Ops({"ip link set dev wg0 mtu 1420 # was 1500", "ip -4 address add 10.0.0.1/24 dev wg0",
                        "ip link set dev wg0 up", "ip -4 route add 10.1.0.0/16 dev wg0 proto static",
                        "ip -6 rule add pref 10500 lookup main protocol kernel"});
  auto other =
      Ops({"ip -6 rule add pref 10500 lookup main protocol kernel", "ip -4 route add 10.1.0.0/16 dev wg0 proto static",
           "ip link set dev wg0 mtu 1420", "ip link set dev wg0 up", "ip -4 address add 10.0.0.1/24 dev wg0"});
  EXPECT_THAT(Told(ops, ops), IsEmpty());
  EXPECT_THAT(Told(ops, other), IsEmpty()) << "order and previous values do not matter";
}

TEST(Diff, AddsInOrderBeforeItRemovesInReverse) {
  EXPECT_THAT(
      Told(Ops({"ip -4 route add 10.1.0.0/16 dev wg0 proto static", "ip -4 route add 10.2.0.0/16 dev wg0 proto static",
                "ip -4 rule add pref 1 lookup main protocol kernel"}),
           Ops({"ip -4 route add 10.2.0.0/16 dev wg0 proto static", "ip -4 route add 10.3.0.0/16 dev wg0 proto static",
                "ip -4 rule add pref 2 lookup main protocol kernel"})),
      ElementsAre(
          "+ ip -4 route add 10.3.0.0/16 dev wg0 proto static", "+ ip -4 rule add pref 2 lookup main protocol kernel",
          "- ip -4 rule add pref 1 lookup main protocol kernel", "- ip -4 route add 10.1.0.0/16 dev wg0 proto static"));
}

TEST(Diff, ReplacesWhatTheKernelCanHaveOnlyOnce) {
  EXPECT_THAT(Told(Ops({"ip link set dev wg0 mtu 1420 # was 1500",
                        "ip -4 route add 203.0.113.10 via 192.168.1.1 dev eth0 proto static"}),
                   Ops({"ip link set dev wg0 mtu 1320",
                        "ip -4 route add 203.0.113.10 via 192.168.7.1 dev wlan0 proto static"})),
              ElementsAre("~ ip link set dev wg0 mtu 1320",
                          "~ ip -4 route add 203.0.113.10 via 192.168.7.1 dev wlan0 proto static"));
  EXPECT_THAT(Told(Ops({"ip -4 route add 10.1.0.0/16 dev wg0 proto static"}),
                   Ops({"ip -4 route add 10.1.0.0/16 dev wg0 table 7 proto static"})),
              ElementsAre("+ ip -4 route add 10.1.0.0/16 dev wg0 table 7 proto static",
                          "- ip -4 route add 10.1.0.0/16 dev wg0 proto static"));
}

NetSnapshot MachineWith(const std::vector<Op>& ops) {
  NetSnapshot machine;
  machine.links = {{.index = 2, .name = "eth0", .mtu = 1500, .is_up = true, .address_generation = 0, .kind = ""},
                   {.index = 3, .name = "wg0", .mtu = 1420, .is_up = true, .address_generation = 1, .kind = "tun"}};
  for (const Op& op : ops) {
    if (const auto* rule = std::get_if<AddRule>(&op)) machine.rules.push_back(rule->rule);
    if (const auto* route = std::get_if<AddRoute>(&op)) machine.routes.push_back(route->route);
    if (const auto* add = std::get_if<AddAddress>(&op)) machine.addresses.push_back({add->device, add->address});
  }
  std::ranges::sort(machine.rules);
  std::ranges::sort(machine.routes);
  std::ranges::sort(machine.addresses);
  return machine;
}

TEST(Missing, SeesRulesRoutesAddressesAndALinkThatIsDown) {
  const auto ops = Ops({"ip link set dev wg0 mtu 1420 # was 1500", "ip -4 address add 10.0.0.1/24 dev wg0",
                        "ip link set dev wg0 up", "ip -4 route add 10.1.0.0/16 dev wg0 proto static",
                        "ip -4 route add unreachable default table 9 proto static",
                        "ip -6 rule add pref 10500 lookup main protocol kernel"});
  NetSnapshot machine = MachineWith(ops);
  EXPECT_THAT(Missing(ops, machine), IsEmpty());
  machine.links[1].mtu = 1300;  // somebody else's wish
  EXPECT_THAT(Missing(ops, machine), IsEmpty());
  machine.links[1].is_up = false;
  EXPECT_THAT(Missing(ops, machine), ElementsAre(2));
  machine.rules.clear();
  machine.routes.clear();
  machine.addresses.clear();
  EXPECT_THAT(Missing(ops, machine), ElementsAre(1, 2, 3, 4, 5));
  machine.links.pop_back();
  EXPECT_THAT(Missing(ops, machine), ElementsAre(4, 5)) << "nothing can be put on a device that is gone";
}

TEST(Without, GivesTheMachineBack) {
  const auto ops = Ops({"ip link set dev wg0 mtu 1420 # was 1500", "ip link set dev wg0 addrgenmode none # was eui64",
                        "ip -4 address add 10.0.0.1/24 dev wg0", "ip link set dev wg0 up",
                        "ip -4 route add 10.1.0.0/16 dev wg0 proto static",
                        "ip -6 rule add pref 10500 lookup main protocol kernel"});
  NetSnapshot machine = MachineWith(ops);
  const auto connected = ParseOp("ip -4 route add 10.0.0.0/24 dev wg0 proto kernel").value();
  const auto foreign = ParseOp("ip -4 route add 10.8.0.0/16 dev wg0 proto static").value();
  for (const Op& op : {connected, foreign}) machine.routes.push_back(std::get<AddRoute>(op).route);
  const NetSnapshot without = Without(machine, ops);
  EXPECT_THAT(without.rules, IsEmpty());
  EXPECT_THAT(without.addresses, IsEmpty());
  EXPECT_THAT(without.routes, ElementsAre(std::get<AddRoute>(foreign).route));
  const Link* link = without.FindLink("wg0");
  ASSERT_NE(link, nullptr);
  EXPECT_EQ(link->mtu, 1500U);
  EXPECT_EQ(link->address_generation, 0);
  EXPECT_FALSE(link->is_up);
  // An MTU that somebody set after us stays his.
  machine.links[1].mtu = 1300;
  EXPECT_EQ(Without(machine, ops).FindLink("wg0")->mtu, 1300U);
}

}  // namespace
}  // namespace adit
