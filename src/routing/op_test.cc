#include "routing/op.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace adit {
namespace {

Prefix RandomPrefix(Random& random, Family family) {
  ByteArray<16> bytes;
  random.Fill(bytes);
  if (family == Family::kV6) return Prefix(IpAddress::V6(bytes), random.Below(129));
  return Prefix(IpAddress::V4(Bytes(bytes).first(4)), random.Below(33));
}

Op RandomOp(Random& random) {
  const Family family = random.Below(2) == 0 ? Family::kV4 : Family::kV6;
  const auto maybe = [&] { return random.Below(2) == 0; };
  switch (random.Below(8)) {
    case 6:
      return AddTable{"adit-wg0", maybe()};
    case 7:
      return SetSysctl{"net/ipv4/ip_forward", maybe() ? "1" : "2", maybe() ? "" : "0 4"};
    case 0:
      return SetMtu{"adit0", random.Below(65535) + 1, random.Below(2000)};
    case 1:
      return NoAddressGeneration{"adit0",
                                 maybe() ? std::nullopt : std::optional(static_cast<std::uint8_t>(random.Below(4)))};
    case 2: {
      const Prefix prefix = RandomPrefix(random, family);
      return AddAddress{"adit0", {.ip = prefix.address(), .prefix_length = prefix.length()}};
    }
    case 3:
      return LinkUp{"wg-1.x"};
    case 4: {
      Route route;
      route.destination = RandomPrefix(random, family);
      constexpr RouteType kTypes[] = {RouteType::kUnicast, RouteType::kBlackhole, RouteType::kUnreachable,
                                      RouteType::kProhibit, RouteType::kThrow};
      route.type = kTypes[random.Below(5)];
      if (maybe()) route.device = "adit0";
      if (maybe()) route.gateway = RandomPrefix(random, family).address();
      if (maybe()) route.table = random.NextU32() | 1;
      if (maybe()) route.metric = random.NextU32();
      if (maybe()) route.preferred_source = RandomPrefix(random, family).address();
      if (maybe()) route.mtu = random.Below(9000);
      route.protocol = static_cast<std::uint8_t>(random.Below(256));
      return AddRoute{route};
    }
    default: {
      Rule rule;
      rule.family = family;
      rule.priority = random.NextU32();
      rule.invert = maybe();
      if (maybe()) rule.source = Prefix(RandomPrefix(random, family).address(), 9);
      if (maybe()) rule.destination = Prefix(RandomPrefix(random, family).address(), 8);
      if (maybe()) {
        rule.mark_mask = maybe() ? 0xffffffff : random.NextU32() | 1;
        rule.mark = random.NextU32() & rule.mark_mask;
      }
      if (maybe()) rule.input_device = "eth0";
      if (maybe()) rule.output_device = "eth1";
      if (maybe()) rule.ip_protocol = maybe() ? 17 : 6;
      if (maybe()) rule.source_ports = PortRange{1, 65535};
      if (maybe()) rule.destination_ports = PortRange{51820, 51820};
      if (maybe()) rule.uids = {random.NextU32(), random.NextU32()};
      constexpr RuleAction kActions[] = {RuleAction::kLookup, RuleAction::kUnreachable, RuleAction::kBlackhole,
                                         RuleAction::kProhibit};
      rule.action = kActions[random.Below(4)];
      if (rule.action == RuleAction::kLookup) rule.table = random.NextU32();
      if (maybe()) rule.suppress_prefixlength = static_cast<int>(random.Below(33));
      rule.protocol = static_cast<std::uint8_t>(random.Below(256));
      return AddRule{rule};
    }
  }
}

TEST(Op, ReadsBackWhatItPrints) {
  constexpr std::uint64_t kSeed = 20240607;
  RecordProperty("seed", std::to_string(kSeed));
  SeededRandom random(kSeed);
  for (int i = 0; i < 20000; ++i) {
    const Op op = RandomOp(random);
    const auto parsed = ParseOp(ToString(op));
    ASSERT_TRUE(parsed) << ToString(op) << " (seed " << kSeed << ", step " << i << ")";
    ASSERT_TRUE(*parsed == op) << ToString(op) << "\n" << ToString(*parsed) << " (seed " << kSeed << ")";
  }
}

TEST(Op, RefusesWhatIsNotWhole) {
  for (const char* text :
       {"", "ip", "ip link set dev adit0", "ip link set dev adit0 mtu", "ip link set dev adit0 mtu x",
        "ip -4 route add", "ip -4 route add 10.0.0.0/33 dev adit0", "ip -4 route add default dev adit0 bogus",
        "ip -4 rule add pref 1", "ip -4 rule add pref 1 lookup", "ip -4 rule del pref 1 lookup main",
        "ip -4 address add 10.0.0.1/40 dev adit0", "ip -4 address add 10.0.0.1/24",
        "ip link set dev adit0 addrgenmode none # was x", "ip -6 address add fd00::2/64 dev  ",
        "ip rule add pref 4 lookup main suppress_prefixlength -10", "nft add table inet  ", "rm -rf /"}) {
    EXPECT_FALSE(ParseOp(text)) << text;
  }
}

// Found by the fuzzer's replay (seed 766328323).
TEST(Op, ARuleForEverythingIsARuleWithoutASelector) {
  const auto op = ParseOp("ip rule add pref 1 from 0.0.0.0/0 to 10.0.0.0/0 fwmark 0x31/0x0 lookup 5 protocol static");
  ASSERT_TRUE(op);
  EXPECT_FALSE(std::get<AddRule>(*op).rule.source);
  EXPECT_FALSE(std::get<AddRule>(*op).rule.destination);
  EXPECT_EQ(ParseOp(ToString(*op)), op);
}

TEST(Op, InverseNamesThePreviousValue) {
  EXPECT_EQ(ToString(Op(SetMtu{"adit0", 1420, 1500})), "ip link set dev adit0 mtu 1420 # was 1500");
  EXPECT_EQ(InverseToString(Op(SetMtu{"adit0", 1420, 1500})), "ip link set dev adit0 mtu 1500");
  EXPECT_EQ(InverseToString(*ParseOp("ip -4 rule add pref 7 lookup main protocol kernel")),
            "ip -4 rule del pref 7 lookup main protocol kernel");
}

TEST(Rule, KnowsWhetherItTakesEveryPacketWithAMark) {
  const auto takes = [](const char* line, std::uint32_t mark) {
    return std::get<AddRule>(*ParseOp(line)).rule.TakesEveryPacketMarked(mark);
  };
  EXPECT_TRUE(takes("ip rule add pref 1 lookup 5 protocol static", 0));
  EXPECT_TRUE(takes("ip rule add pref 1 not fwmark 0xca6c lookup 5 protocol static", 0x1000));
  EXPECT_FALSE(takes("ip rule add pref 1 not fwmark 0xca6c lookup 5 protocol static", 0xca6c));
  EXPECT_TRUE(takes("ip rule add pref 1 fwmark 0x1000/0x3000 lookup 5 protocol static", 0x1001));
  EXPECT_FALSE(takes("ip rule add pref 1 fwmark 0x1000/0x3000 lookup 5 protocol static", 0x2000));
  EXPECT_FALSE(takes("ip rule add pref 1 to 10.0.0.0/8 lookup 5 protocol static", 0));
}

}  // namespace
}  // namespace adit
