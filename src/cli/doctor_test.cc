#include "cli/doctor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

namespace adit {
namespace {

using testing::HasSubstr;
using enum FindingLevel;

// A machine with nothing to find: an uplink with a default route, the kernel's three rules, no firewall.
MachineFacts Sound() {
  MachineFacts facts;
  facts.has_net_admin = true;
  facts.tun_offloads = TunOffloads{.vnet_hdr = true, .checksum = true, .tso = true, .uso = true};
  NetSnapshot snapshot;
  for (const char* name : {"lo", "eth0"}) {
    Link link;
    link.index = static_cast<std::uint32_t>(snapshot.links.size() + 1);
    link.name = name;
    link.is_up = true;
    snapshot.links.push_back(link);
  }
  for (const Family family : {Family::kV4, Family::kV6}) {
    for (const auto& [priority, table] : {std::pair{0U, 255U}, {32766U, kMainTable}, {32767U, kDefaultTable}}) {
      Rule rule;
      rule.family = family;
      rule.priority = priority;
      rule.table = table;
      snapshot.rules.push_back(rule);
    }
  }
  facts.snapshot = snapshot;
  facts.filters = ForeignFilters{};
  return facts;
}

void AddDefault(NetSnapshot& snapshot, std::uint32_t table) {
  Route route;
  route.destination = *Prefix::Parse("0.0.0.0/0", false);
  route.table = table;
  route.device = "eth0";
  snapshot.routes.push_back(route);
}

// The findings that are not good; each must have a cure.
std::vector<DoctorFinding> Bad(const MachineFacts& facts) {
  std::vector<DoctorFinding> bad;
  for (const DoctorFinding& finding : Diagnose(facts)) {
    EXPECT_EQ(finding.cure.empty(), finding.level == kGood) << finding.text;
    if (finding.level != kGood) bad.push_back(finding);
  }
  return bad;
}

// The only bad finding.
DoctorFinding Only(const MachineFacts& facts) {
  const auto bad = Bad(facts);
  EXPECT_EQ(bad.size(), 1U);
  return bad.empty() ? DoctorFinding{} : bad.front();
}

TEST(Diagnose, FindsNothingOnASoundMachine) {
  EXPECT_TRUE(Bad(Sound()).empty());
  EXPECT_GE(Diagnose(Sound()).size(), 3U);  // and says what is good
}

TEST(Diagnose, TellsAMissingTunFromAForbiddenOne) {
  MachineFacts facts = Sound();
  for (const auto& [error, text, cure] : {std::tuple{ENOENT, "missing", "modprobe tun"},
                                          {EPERM, "may not be opened", "--device /dev/net/tun"},
                                          {ENODEV, "no TUN driver", "modprobe tun"},
                                          {EIO, "Input/output error", "modprobe tun"}}) {
    facts.tun_error = error;
    const DoctorFinding finding = Only(facts);
    EXPECT_EQ(finding.level, kProblem);
    EXPECT_THAT(finding.text, HasSubstr(text));
    EXPECT_THAT(finding.cure, HasSubstr(cure));
  }
}

TEST(Diagnose, NamesTheMissingCapability) {
  MachineFacts facts = Sound();
  facts.has_net_admin = false;
  const DoctorFinding finding = Only(facts);
  EXPECT_EQ(finding.level, kProblem);
  EXPECT_THAT(finding.text, HasSubstr("CAP_NET_ADMIN"));
  EXPECT_THAT(finding.cure, HasSubstr("--cap-add NET_ADMIN"));
}

TEST(Diagnose, NamesEachMissingOffload) {
  MachineFacts facts = Sound();
  facts.tun_offloads->uso = false;
  facts.has_udp_gro = false;
  const auto bad = Bad(facts);
  ASSERT_EQ(bad.size(), 2U);
  EXPECT_THAT(bad[0].text, HasSubstr("TUN_F_USO"));
  EXPECT_THAT(bad[1].text, HasSubstr("UDP_GRO"));
  EXPECT_EQ(bad[0].level, kNote);
}

TEST(Diagnose, NamesTheDeviceWithAStrictReversePathFilter) {
  MachineFacts facts = Sound();
  facts.snapshot->sysctls["net/ipv4/conf/eth0/rp_filter"] = "1";
  EXPECT_THAT(Only(facts).text, HasSubstr("eth0"));
  // The larger of "all" and the device's own counts: 2 is loose.
  facts.snapshot->sysctls["net/ipv4/conf/all/rp_filter"] = "2";
  EXPECT_TRUE(Bad(facts).empty());
  facts.snapshot->sysctls["net/ipv4/conf/all/rp_filter"] = "1";
  facts.snapshot->sysctls["net/ipv4/conf/eth0/rp_filter"] = "0";
  EXPECT_THAT(Only(facts).cure, HasSubstr("net.ipv4.conf.eth0.rp_filter=2"));
}

TEST(Diagnose, NamesOtherVpnsByTheirRules) {
  MachineFacts facts = Sound();
  Rule tailscale;
  tailscale.priority = 5270;
  tailscale.table = 52;
  facts.snapshot->rules.push_back(tailscale);
  EXPECT_EQ(Only(facts).level, kNote);
  EXPECT_THAT(Only(facts).text, HasSubstr("Tailscale"));

  AddDefault(*facts.snapshot, 52);  // an exit node
  const auto bad = Bad(facts);
  ASSERT_EQ(bad.size(), 2U);
  EXPECT_EQ(bad[0].level, kProblem);
  EXPECT_THAT(bad[0].text, HasSubstr("of Tailscale comes before ours"));
}

TEST(Diagnose, AVpnBehindOursIsNoProblem) {
  MachineFacts facts = Sound();
  Rule wg_quick;
  wg_quick.priority = 32765;
  wg_quick.invert = true;
  wg_quick.mark = wg_quick.table = 51820;
  wg_quick.mark_mask = 0xffffffff;
  AddDefault(*facts.snapshot, 51820);
  facts.snapshot->rules.push_back(wg_quick);
  EXPECT_EQ(Only(facts).level, kNote);
  EXPECT_THAT(Only(facts).text, HasSubstr("wg-quick"));

  // Started later it stands in front: the kernel puts a rule without priority there.
  facts.snapshot->rules.back().priority = 10499;
  EXPECT_EQ(Bad(facts).front().level, kProblem);
}

TEST(Diagnose, OurOwnRulesAreNotForeign) {
  MachineFacts facts = Sound();
  AddDefault(*facts.snapshot, 30568);
  Rule engine;
  engine.priority = 10500;
  engine.mark = 0x1000;
  engine.mark_mask = 0x3000;
  engine.table = kMainTable;
  Rule rest;
  rest.priority = 10514;
  rest.table = 30568;
  facts.snapshot->rules.push_back(engine);
  facts.snapshot->rules.push_back(rest);
  EXPECT_TRUE(Bad(facts).empty());
}

TEST(Diagnose, SaysWhenEveryMarkIsTaken) {
  MachineFacts facts = Sound();
  for (const std::uint32_t mark : {0x1000U, 0x2000U, 0x3000U}) {
    EXPECT_TRUE(Bad(facts).empty());
    Rule rule;
    rule.priority = 20000;
    rule.mark = mark;
    rule.mark_mask = 0xf000;
    rule.table = 99;
    facts.snapshot->rules.push_back(rule);
  }
  EXPECT_EQ(Only(facts).level, kProblem);
  EXPECT_THAT(Only(facts).cure, HasSubstr("FwMark"));
}

TEST(Diagnose, NamesTheChainThatDropsAndWeighsItByItsHook) {
  MachineFacts facts = Sound();
  facts.filters->policies = {{{"ip", "filter", "OUTPUT"}, "output"}};
  EXPECT_EQ(Only(facts).level, kProblem);
  EXPECT_THAT(Only(facts).text, HasSubstr("table ip filter, chain OUTPUT"));
  facts.filters->policies = {{{"ip", "filter", "FORWARD"}, "forward"}};
  EXPECT_EQ(Only(facts).level, kNote);
  EXPECT_THAT(Only(facts).cure, HasSubstr("DOCKER-USER"));
  facts.filters->policies = {{{"inet", "firewall", "in"}, "input"}};
  EXPECT_EQ(Only(facts).level, kNote);
}

TEST(Diagnose, NamesDockersDropAndTheContainer) {
  MachineFacts facts = Sound();
  facts.filters->containers = {{{"ip", "raw", "PREROUTING"}, *IpAddress::Parse("172.17.0.2"), "docker0"}};
  EXPECT_EQ(Only(facts).level, kNote);
  EXPECT_THAT(Only(facts).text, HasSubstr("172.17.0.2"));
  EXPECT_THAT(Only(facts).cure, HasSubstr("trusted_host_interfaces"));
}

TEST(Diagnose, NamesWhatACrashLeftAndWhatCannotBeRead) {
  MachineFacts facts = Sound();
  facts.crashed = {"wg7"};
  EXPECT_EQ(Only(facts).cure, "adit cleanup wg7");
  facts = Sound();
  facts.filters.reset();
  facts.filters_error = "Protocol not supported";
  EXPECT_THAT(Only(facts).text, HasSubstr("Protocol not supported"));
  facts = Sound();
  facts.snapshot.reset();
  facts.snapshot_error = "Operation not permitted";
  EXPECT_EQ(Only(facts).level, kProblem);
  facts = Sound();
  facts.legacy_iptables = "filter";
  EXPECT_THAT(Only(facts).text, HasSubstr("iptables-legacy"));
}

}  // namespace
}  // namespace adit
