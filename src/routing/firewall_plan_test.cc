#include "routing/firewall_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include "routing/old_flows.h"

namespace adit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }
SocketAddress Endpoint(const char* text) { return *SocketAddress::Parse(text); }

FirewallConfig Full(KillSwitch kill_switch) {
  FirewallConfig config;
  config.interface_name = "wg0";
  config.kill_switch = kill_switch;
  config.endpoints = {Endpoint("203.0.113.10:51820"), Endpoint("[2001:db8:f::10]:51820")};
  config.own = {Ip("10.9.0.2"), Ip("fd09::2")};
  config.lan = {*Prefix::Parse("192.168.1.0/24", false), *Prefix::Parse("fe80::/10", false)};
  config.is_full = true;
  config.dns_guard = kill_switch != KillSwitch::kOff;
  config.masquerades = true;
  config.mtu = 1420;
  return config;
}

std::vector<std::string> Texts(const std::vector<Prefix>& prefixes) {
  std::vector<std::string> texts;
  for (const Prefix& prefix : prefixes) texts.push_back(prefix.ToString());
  return texts;
}

// The approved LAN of a machine with these addresses.
std::vector<std::string> Lan(const std::vector<std::pair<std::string, std::string>>& addresses, LanPolicy policy = {},
                             std::vector<Prefix> excluded = {}) {
  RoutingConfig config;
  config.interface_name = "wg0";
  config.lan = std::move(policy);
  config.excluded_ips = std::move(excluded);
  NetSnapshot snapshot;
  for (const auto& [device, address] : addresses) {
    snapshot.addresses.push_back({device, *ParseInterfaceAddress(address)});
    Link link;
    link.name = device;
    link.kind = device.starts_with("tun") ? "tun" : "";
    if (snapshot.FindLink(device) == nullptr) snapshot.links.push_back(link);
  }
  auto texts = Texts(ApprovedLan(config, snapshot));
  std::erase_if(texts, [](const std::string& text) {
    return text == "224.0.0.0/24" || text == "239.0.0.0/8" || text == "255.255.255.255/32" || text == "fe80::/10" ||
           text == "ff02::/16";
  });
  return texts;
}

TEST(ApprovedLan, HoldsConnectedPrivateNetworksAndNoOthers) {
  EXPECT_THAT(Lan({{"eth0", "192.168.1.2/24"},
                   {"docker0", "172.17.0.1/16"},
                   {"eth1", "8.0.0.5/6"},    // TunnelCrack: a public network that claims to be the LAN
                   {"eth2", "10.0.0.1/7"},   // wider than what is private
                   {"eth3", "10.1.2.3/32"},  // no neighbours
                   {"lo", "10.5.0.1/24"},
                   {"wg0", "10.9.0.2/24"},
                   {"tun7", "10.77.0.2/24"},
                   {"eth0", "fd01::2/64"},
                   {"eth0", "2001:db8::2/64"}}),
              ElementsAre("172.17.0.0/16", "192.168.1.0/24", "fd01::/64"));
}

TEST(ApprovedLan, FollowsThePolicyAndKeepsTheExcluded) {
  const std::vector<std::pair<std::string, std::string>> addresses = {{"eth0", "192.168.1.2/24"}};
  EXPECT_THAT(Lan(addresses, {.kind = LanPolicy::Kind::kBlock, .prefixes = {}}, {*Prefix::Parse("1.1.1.1/32", false)}),
              ElementsAre("1.1.1.1/32"));
  EXPECT_THAT(Lan(addresses, {.kind = LanPolicy::Kind::kList,
                              .prefixes = {*Prefix::Parse("10.1.0.0/16", false), *Prefix::Parse("10.0.0.0/8", false)}}),
              ElementsAre("10.0.0.0/8"));
}

TEST(ApprovedLan, HasNoMulticastWhereTheLanIsBlocked) {
  RoutingConfig config;
  config.lan.kind = LanPolicy::Kind::kBlock;
  EXPECT_THAT(ApprovedLan(config, {}), IsEmpty());
}

TEST(FirewallTable, IsForFullTunnelsAndForThoseThatAskForIt) {
  RoutingConfig config;
  config.allowed_ips = {*Prefix::Parse("10.0.0.0/8", false)};
  EXPECT_FALSE(WantsFirewall(config));
  RoutingConfig asks = config;
  asks.kill_switch = KillSwitch::kUp;
  EXPECT_TRUE(WantsFirewall(asks));
  asks = config;
  asks.gateway = true;
  EXPECT_TRUE(WantsFirewall(asks));
  for (const char* half : {"0.0.0.0/0", "128.0.0.0/1", "::/0"}) {
    RoutingConfig full = config;
    full.allowed_ips.push_back(*Prefix::Parse(half, false));
    EXPECT_TRUE(WantsFirewall(full)) << half;
    full.table_mode = TableMode::kOff;
    EXPECT_FALSE(WantsFirewall(full)) << half;
  }
}

TEST(FirewallTable, IsThisWithAKillSwitch) {
  EXPECT_EQ(nft::ToString(MakeFirewallTable(Full(KillSwitch::kUp))), R"(table inet adit-wg0 {
	counter spoofed {
		packets 0 bytes 0
	}

	counter foreign_source {
		packets 0 bytes 0
	}

	counter dns_refused {
		packets 0 bytes 0
	}

	counter killed_out {
		packets 0 bytes 0
	}

	counter killed_forward {
		packets 0 bytes 0
	}

	set ep4 {
		type ipv4_addr . inet_service
		elements = { 203.0.113.10 . 51820 }
	}

	set ep6 {
		type ipv6_addr . inet_service
		elements = { 2001:db8:f::10 . 51820 }
	}

	set lan4 {
		type ipv4_addr
		flags interval
		elements = { 192.168.1.0/24 }
	}

	set lan6 {
		type ipv6_addr
		flags interval
		elements = { fe80::/10 }
	}

	set self4 {
		type ipv4_addr
		elements = { 10.9.0.2 }
	}

	set self6 {
		type ipv6_addr
		elements = { fd09::2 }
	}

	chain incoming {
		type filter hook prerouting priority raw - 10; policy accept;
		iifname != "wg0" ip daddr @self4 fib saddr type != local counter name "spoofed" drop
		iifname != "wg0" ip6 daddr @self6 fib saddr type != local counter name "spoofed" drop
		ip saddr . udp sport @ep4 meta mark set meta mark & 0xffffdfff | 0x00001000
		ip6 saddr . udp sport @ep6 meta mark set meta mark & 0xffffdfff | 0x00001000
	}

	chain out_forget {
		type filter hook output priority filter - 2; policy accept;
		meta mark set meta mark & 0xfdffffff
	}

	chain forward_forget {
		type filter hook forward priority filter - 2; policy accept;
		meta mark set meta mark & 0xfdffffff
	}

	chain out_approve {
		type filter hook output priority filter - 1; policy accept;
		oifname "wg0" ip saddr != @self4 counter name "foreign_source" reject with icmpx admin-prohibited
		oifname "wg0" ip6 saddr != @self6 counter name "foreign_source" reject with icmpx admin-prohibited
		oifname "wg0" meta mark set meta mark | 0x02000000 accept
		meta mark & 0x00003000 == 0x00001000 ip daddr . udp dport @ep4 meta mark set meta mark | 0x02000000 accept
		meta mark & 0x00003000 == 0x00001000 ip6 daddr . udp dport @ep6 meta mark set meta mark | 0x02000000 accept
		meta mark & 0x00003000 == 0x00001000 udp dport 53 meta mark set meta mark | 0x02000000 accept
		meta mark & 0x00003000 == 0x00001000 tcp dport 53 meta mark set meta mark | 0x02000000 accept
		udp sport 68 udp dport 67 meta mark set meta mark | 0x02000000 accept
		udp sport 546 udp dport 547 meta mark set meta mark | 0x02000000 accept
		icmpv6 type nd-router-solicit ip6 hoplimit 255 meta mark set meta mark | 0x02000000 accept
		icmpv6 type nd-neighbor-solicit ip6 hoplimit 255 meta mark set meta mark | 0x02000000 accept
		icmpv6 type nd-neighbor-advert ip6 hoplimit 255 meta mark set meta mark | 0x02000000 accept
		icmpv6 type mld2-listener-report meta mark set meta mark | 0x02000000 accept
		ip daddr @lan4 meta mark set meta mark | 0x02000000 accept
		ip6 daddr @lan6 meta mark set meta mark | 0x02000000 accept
	}

	chain forward_approve {
		type filter hook forward priority filter - 1; policy accept;
		oifname "wg0" meta mark set meta mark | 0x02000000 accept
		iifname "wg0" meta mark set meta mark | 0x02000000 accept
		ip daddr @lan4 meta mark set meta mark | 0x02000000 accept
		ip6 daddr @lan6 meta mark set meta mark | 0x02000000 accept
	}

	chain dns {
		meta mark & 0x00003000 == 0x00001000 return
		ip daddr @lan4 meta l4proto tcp counter name "dns_refused" reject with tcp reset
		ip daddr @lan4 counter name "dns_refused" reject with icmpx admin-prohibited
		ip6 daddr @lan6 meta l4proto tcp counter name "dns_refused" reject with tcp reset
		ip6 daddr @lan6 counter name "dns_refused" reject with icmpx admin-prohibited
		meta mark & 0x02000000 == 0x00000000 meta l4proto tcp counter name "dns_refused" reject with tcp reset
		meta mark & 0x02000000 == 0x00000000 counter name "dns_refused" reject with icmpx admin-prohibited
	}

	chain out_deny {
		type filter hook output priority filter; policy accept;
		oifname "lo" accept
		udp dport 53 jump dns
		tcp dport 53 jump dns
		tcp dport 853 jump dns
		meta mark & 0x02000000 == 0x00000000 counter name "killed_out" reject with icmpx admin-prohibited
	}

	chain forward_deny {
		type filter hook forward priority filter; policy accept;
		udp dport 53 jump dns
		tcp dport 53 jump dns
		tcp dport 853 jump dns
		meta mark & 0x02000000 == 0x00000000 counter name "killed_forward" reject with icmpx admin-prohibited
	}

	chain out_settle {
		type filter hook output priority filter + 1; policy accept;
		meta mark set meta mark & 0xfdffffff
	}

	chain forward_settle {
		type filter hook forward priority filter + 1; policy accept;
		meta mark set meta mark & 0xfdffffff
	}

	chain clamp {
		type filter hook forward priority mangle; policy accept;
		oifname "wg0" tcp flags syn tcp option maxseg size set rt mtu
		iifname "wg0" meta nfproto ipv4 tcp flags syn tcp option maxseg size set 1380
		iifname "wg0" meta nfproto ipv6 tcp flags syn tcp option maxseg size set 1360
	}

	chain nat_out {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "wg0" ip saddr != @self4 masquerade
		oifname "wg0" ip6 saddr != @self6 masquerade
	}
}
)");
}

TEST(FirewallTable, HasNoDenialsWithoutAKillSwitch) {
  const std::string text = nft::ToString(MakeFirewallTable(Full(KillSwitch::kOff)));
  EXPECT_THAT(text, Not(HasSubstr("_deny")));
  EXPECT_THAT(text, HasSubstr("spoofed"));
  EXPECT_THAT(text, HasSubstr("foreign_source"));
}

TEST(FirewallTable, APortalIsApprovedForItsTimeByTheKernel) {
  FirewallConfig config = Full(KillSwitch::kUp);
  config.portal = Portal{.uid = 1000, .seconds = 600};
  config.dns_guard = true;
  const std::string table = ToString(MakeFirewallTable(config));
  EXPECT_THAT(table, HasSubstr("type uid\n\t\tflags timeout\n\t\telements = { 1000 timeout 600s }"));
  EXPECT_THAT(table, HasSubstr("meta skuid @portal meta mark set meta mark | 0x02000000 accept"));
  EXPECT_THAT(table, HasSubstr("meta skuid @portal return"));
  // Nobody is refused anything, so nobody needs to be approved.
  config.kill_switch = KillSwitch::kOff;
  config.dns_guard = false;
  EXPECT_THAT(ToString(MakeFirewallTable(config)), Not(HasSubstr("portal")));
}

TEST(FirewallTable, LeavesAllOtherMarkBitsAlone) {
  FirewallConfig config = Full(KillSwitch::kAlways);
  config.gateway = true;
  for (const nft::Chain& chain : MakeFirewallTable(config).chains) {
    for (const nft::Rule& rule : chain.rules) {
      for (const nft::Statement& statement : rule) {
        if (const auto* mark = std::get_if<nft::SetMark>(&statement)) {
          EXPECT_EQ(mark->mask & ~(kFirewallMarkMask | kApprovedBit), 0u) << nft::ToString(rule);
          EXPECT_EQ(mark->value & ~(kFirewallMarkMask | kApprovedBit), 0u) << nft::ToString(rule);
        }
      }
    }
  }
  // A mark of the user's own, of 32 bits, is asked for and never set.
  config.fwmark = 0xca6c;
  config.fwmark_mask = 0xffffffff;
  EXPECT_THAT(nft::ToString(MakeFirewallTable(config)), Not(HasSubstr("set 0x0000ca6c")));
}

TEST(FirewallTable, KeepsForwardsInAChainOfTheirOwn) {
  FirewallConfig config = Full(KillSwitch::kOff);
  config.gateway = true;
  config.forwards = {*ParsePortForward("tcp 8080 to 192.168.1.5:80"), *ParsePortForward("udp 5000-5010 to fd01::5")};
  const nft::Table table = MakeFirewallTable(config);
  const auto rules = [&](const char* name) {
    std::vector<std::string> texts;
    for (const nft::Rule& rule : table.FindChain(name)->rules) texts.push_back(nft::ToString(rule));
    return texts;
  };
  EXPECT_THAT(rules("forwards"),
              ElementsAre("tcp dport 8080 dnat ip to 192.168.1.5:80", "udp dport 5000-5010 dnat ip6 to fd01::5"));
  EXPECT_THAT(rules("hairpin4"), ElementsAre("tcp dport 8080 accept"));
  EXPECT_THAT(rules("hairpin6"), ElementsAre("udp dport 5000-5010 accept"));
  EXPECT_THAT(rules("nat_in"), ElementsAre("ip daddr @self4 jump forwards", "ip6 daddr @self6 jump forwards"));
  EXPECT_THAT(rules("nat_out"), testing::Contains(HasSubstr("ct original ip daddr @self4 ct status dnat masquerade")));
  EXPECT_THAT(rules("nat_out"), testing::Contains(HasSubstr("ct original ip6 daddr @self6 ct status dnat masquerade")));
  EXPECT_THAT(rules("incoming")[0], "iifname != \"wg0\" ip daddr @self4 ip saddr @lan4 jump hairpin4");
  EXPECT_THAT(rules("incoming")[1], "iifname != \"wg0\" ip6 daddr @self6 ip6 saddr @lan6 jump hairpin6");
}

// ---- what becomes of packets: the probes of the research, without a kernel

nft::Packet Packet(const char* device, std::uint32_t mark, const char* source, const char* to, std::uint16_t port,
                   std::uint8_t protocol = IPPROTO_UDP) {
  return {.output_device = device,
          .mark = mark,
          .source = Ip(source),
          .destination = Ip(to),
          .protocol = protocol,
          .source_port = 40000,
          .destination_port = port};
}

TEST(Judge, LetsOutOnlyTheTunnelAndTheLan) {
  const nft::Table table = MakeFirewallTable(Full(KillSwitch::kUp));
  const auto counter = [&](const nft::Packet& packet) {
    const nft::Verdict verdict = nft::Judge(table, packet);
    return verdict.passes ? std::string("passes") : verdict.counter;
  };
  EXPECT_EQ(counter(Packet("wg0", 0, "10.9.0.2", "8.8.8.8", 443)), "passes");
  EXPECT_EQ(counter(Packet("wg0", 0, "10.9.0.2", "10.9.0.1", 53)), "passes");
  EXPECT_EQ(counter(Packet("wg0", 0, "fd09::2", "2001:db8::1", 443)), "passes");
  EXPECT_EQ(counter(Packet("wg0", 0, "192.168.1.2", "8.8.8.8", 443)), "foreign_source");
  EXPECT_EQ(counter(Packet("wg0", 0, "fd01::2", "2001:db8::1", 443)), "foreign_source");
  EXPECT_EQ(counter(Packet("lo", 0, "127.0.0.1", "127.0.0.1", 53)), "passes");
  EXPECT_EQ(counter(Packet("eth0", 0x1000, "192.168.1.2", "203.0.113.10", 51820)), "passes");
  EXPECT_EQ(counter(Packet("eth0", 0x1000, "fd01::2", "2001:db8:f::10", 51820)), "passes");
  EXPECT_EQ(counter(Packet("eth0", 0, "192.168.1.2", "203.0.113.10", 51820)), "killed_out");
  EXPECT_EQ(counter(Packet("eth0", 0x1000, "192.168.1.2", "203.0.113.10", 51821)), "killed_out");
  EXPECT_EQ(counter(Packet("eth0", 0x1000, "192.168.1.2", "203.0.113.11", 51820)), "killed_out");
  EXPECT_EQ(counter(Packet("eth0", 0x1000, "192.168.1.2", "203.0.113.10", 51820, IPPROTO_TCP)), "killed_out");
  EXPECT_EQ(counter(Packet("eth0", 0, "192.168.1.2", "8.8.8.8", 443)), "killed_out");
  EXPECT_EQ(counter(Packet("eth0", 0, "192.168.1.2", "192.168.1.77", 443)), "passes");
  EXPECT_EQ(counter(Packet("eth0", 0, "192.168.1.2", "10.1.2.3", 443)), "killed_out");
  EXPECT_EQ(counter(Packet("eth0", 0, "192.168.1.2", "192.168.1.1", 53)), "dns_refused");
  EXPECT_EQ(counter(Packet("eth0", 0, "192.168.1.2", "192.168.1.1", 853, IPPROTO_TCP)), "dns_refused");
  EXPECT_EQ(counter(Packet("eth0", 0x1000, "192.168.1.2", "192.168.1.1", 53)), "passes");
  // Nobody approves himself.
  EXPECT_EQ(counter(Packet("eth0", kApprovedBit, "192.168.1.2", "8.8.8.8", 443)), "killed_out");
  EXPECT_EQ(counter(Packet("eth0", kApprovedBit | 0x1000, "192.168.1.2", "8.8.8.8", 443)), "killed_out");
  // DHCP, by broadcast and renewed straight at the server.
  for (const char* server : {"255.255.255.255", "10.200.0.1"}) {
    nft::Packet dhcp = Packet("eth0", 0, "192.168.1.2", server, 67);
    EXPECT_EQ(counter(dhcp), "killed_out") << server;
    dhcp.source_port = 68;
    EXPECT_EQ(counter(dhcp), "passes") << server;
  }
}

TEST(Judge, NamesTheRuleThatDecides) {
  const nft::Verdict verdict =
      nft::Judge(MakeFirewallTable(Full(KillSwitch::kUp)), Packet("eth0", 0, "192.168.1.2", "8.8.8.8", 443));
  EXPECT_EQ(verdict.chain, "out_deny");
  EXPECT_EQ(verdict.rule,
            "meta mark & 0x02000000 == 0x00000000 counter name \"killed_out\" reject with icmpx admin-prohibited");
}

TEST(Judge, BlocksTheLanWhereAsked) {
  FirewallConfig config = Full(KillSwitch::kUp);
  config.lan.clear();
  EXPECT_FALSE(nft::Judge(MakeFirewallTable(config), Packet("eth0", 0, "192.168.1.2", "192.168.1.77", 443)).passes);
}

TEST(FirewallTable, IsForAFullTunnelHoweverItIsWritten) {
  RoutingConfig config;
  config.interface_name = "wg0";
  config.addresses = {*ParseInterfaceAddress("10.9.0.2/32")};
  for (const char* quarter : {"0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"}) {
    EXPECT_FALSE(WantsFirewall(config));
    config.allowed_ips.push_back(*Prefix::Parse(quarter, false));
  }
  EXPECT_TRUE(WantsFirewall(config));
  EXPECT_TRUE(MakeFirewallConfig(config, {}, {}).is_full);
}

TEST(Judge, APortalIsItsUsersOnly) {
  FirewallConfig config = Full(KillSwitch::kUp);
  config.portal = Portal{.uid = 1000, .seconds = 60};
  nft::Packet packet = Packet("eth0", 0, "192.168.1.2", "8.8.8.8", 443);
  EXPECT_FALSE(nft::Judge(MakeFirewallTable(config), packet).passes);
  packet.uid = 1000;
  EXPECT_TRUE(nft::Judge(MakeFirewallTable(config), packet).passes);
}

TEST(Judge, LetsThroughOnlyWhatTheTunnelCarries) {
  const nft::Table table = MakeFirewallTable(Full(KillSwitch::kUp));
  const auto counter = [&](const char* from, const char* device, const char* source, const char* to) {
    nft::Packet packet = Packet(device, 0, source, to, 443);
    packet.input_device = from;
    const nft::Verdict verdict = nft::Judge(table, packet);
    return verdict.passes ? std::string("passes") : verdict.counter;
  };
  EXPECT_EQ(counter("docker0", "wg0", "172.17.0.2", "8.8.8.8"), "passes");
  EXPECT_EQ(counter("wg0", "docker0", "8.8.8.8", "172.17.0.2"), "passes");
  EXPECT_EQ(counter("docker0", "eth0", "172.17.0.2", "8.8.8.8"), "killed_forward");
  EXPECT_EQ(counter("docker0", "eth0", "172.17.0.2", "192.168.1.77"), "passes") << "the LAN";
  EXPECT_EQ(counter("eth0", "", "192.168.1.77", "192.168.1.2"), "passes") << "for this machine";
  EXPECT_EQ(counter("wg0", "", "10.9.0.1", "10.9.0.2"), "passes");
  EXPECT_EQ(counter("eth0", "", "192.168.1.77", "10.9.0.2"), "spoofed") << "to the tunnel's address from the side";
  EXPECT_TRUE(
      nft::Judge(MakeFirewallTable(Full(KillSwitch::kOff)), Packet("eth0", 0, "192.168.1.2", "8.8.8.8", 443)).passes);
}

TEST(MustBeCut, SparesLoopbackTunnelsAndTheLan) {
  const FirewallConfig config = Full(KillSwitch::kUp);
  NetSnapshot snapshot;
  snapshot.links = {Link{.index = 2, .name = "eth0", .kind = ""}, Link{.index = 3, .name = "wg1", .kind = "tun"}};
  snapshot.addresses = {{"eth0", *ParseInterfaceAddress("192.168.1.2/24")},
                        {"eth0", *ParseInterfaceAddress("198.51.100.9/24")},
                        {"wg1", *ParseInterfaceAddress("10.8.0.2/24")}};
  const auto cut = [&](const char* local, const char* remote) {
    return MustBeCut(config, snapshot, Ip(local), Ip(remote));
  };
  EXPECT_TRUE(cut("192.168.1.2", "8.8.8.8"));
  EXPECT_TRUE(cut("2001:db8::2", "2001:db8::1"));
  EXPECT_FALSE(cut("192.168.1.2", "192.168.1.77"));
  EXPECT_FALSE(cut("127.0.0.1", "127.0.0.53"));
  EXPECT_FALSE(cut("::1", "::1"));
  EXPECT_FALSE(cut("10.9.0.2", "8.8.8.8"));
  EXPECT_FALSE(cut("10.8.0.2", "8.8.8.8"));
  EXPECT_FALSE(cut("192.168.1.2", "198.51.100.9"));
}

TEST(MustBeForgotten, SparesWhatIsNotTranslatedToTheLan) {
  const FirewallConfig config = Full(KillSwitch::kUp);
  NetSnapshot snapshot;
  snapshot.links = {Link{.index = 2, .name = "eth0", .kind = ""}, Link{.index = 3, .name = "wg1", .kind = "tun"}};
  snapshot.addresses = {{"eth0", *ParseInterfaceAddress("192.168.1.2/24")},
                        {"wg1", *ParseInterfaceAddress("10.8.0.2/24")}};
  const auto forgotten = [&](const char* from, const char* to, const char* seen_as) {
    return MustBeForgotten(config, snapshot, {Ip(from), Ip(to), Ip(seen_as)});
  };
  EXPECT_TRUE(forgotten("172.17.0.2", "8.8.8.8", "192.168.1.2"));
  EXPECT_FALSE(forgotten("172.17.0.2", "8.8.8.8", "172.17.0.2")) << "not translated";
  EXPECT_FALSE(forgotten("172.17.0.2", "8.8.8.8", "10.8.0.2")) << "another tunnel's";
  EXPECT_FALSE(forgotten("172.17.0.2", "192.168.1.77", "192.168.1.2")) << "to the LAN";
  EXPECT_FALSE(forgotten("192.168.1.2", "8.8.8.8", "10.8.0.2")) << "the machine's own";
  EXPECT_FALSE(forgotten("203.0.113.5", "192.168.1.2", "192.168.1.2")) << "to the machine";
}

}  // namespace
}  // namespace adit
