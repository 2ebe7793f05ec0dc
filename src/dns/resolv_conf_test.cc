#include "dns/resolv_conf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

std::vector<std::string> Texts(const std::vector<NameServer>& servers) {
  std::vector<std::string> result;
  for (const NameServer& server : servers) result.push_back(server.ToString());
  return result;
}

TEST(ResolvConf, IsReadAsTheCLibraryReadsIt) {
  const ResolvConf conf = ParseResolvConf(
      "# nameserver 9.9.9.9\n; nameserver 9.9.9.9\n\tnameserver\t192.168.1.1 and more\nnameserver fe80::1%eth0\r\n"
      "nameserver example.org\nnameserver\nnameservers 9.9.9.9\ndomain first.example\nsearch a.example b.example\n"
      "options edns0 ndots:5\noptions rotate\nsortlist 1.2.3.4\nnameserver 2001:db8::1");
  EXPECT_THAT(Texts(conf.servers), ElementsAre("192.168.1.1", "fe80::1%eth0", "2001:db8::1"));
  EXPECT_THAT(conf.search, ElementsAre("a.example", "b.example"));
  EXPECT_THAT(conf.options, ElementsAre("edns0", "ndots:5", "rotate"));
}

TEST(ResolvConf, TheLastOfDomainAndSearchCounts) {
  EXPECT_THAT(ParseResolvConf("search a b\ndomain c d\n").search, ElementsAre("c"));
}

TEST(ResolvConf, ListsAreBounded) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += fmt::format("nameserver 10.0.{}.{}\noptions o{}\n", i / 256, i % 256, i);
  const ResolvConf conf = ParseResolvConf(text);
  EXPECT_EQ(conf.servers.size(), kMaxNameServers);
  EXPECT_EQ(conf.options.size(), kMaxResolvOptions);
}

TEST(ResolvConf, WhatIsWrittenIsReadBack) {
  const ResolvConf conf{{{Ip("10.0.0.1"), ""}, {Ip("fe80::2"), "eth0"}}, {"a.example", "b.example"}, {"edns0"}};
  EXPECT_EQ(ParseResolvConf(WriteResolvConf(conf, "a comment\nnameserver 1.2.3.4")), conf);
  EXPECT_EQ(ParseResolvConf(WriteResolvConf({}, "")), ResolvConf());
}

TEST(ResolvConf, OursIsKnownByItsFirstLine) {
  const DnsSettings tunnel{"wg0", {Ip("10.0.0.1")}, {}, true};
  const std::string text = RenderResolvConf(std::span(&tunnel, 1), {}, "/var/lib/adit/dns");
  EXPECT_TRUE(IsOurResolvConf(text));
  EXPECT_THAT(text, HasSubstr("wg0"));
  EXPECT_FALSE(IsOurResolvConf("\n" + text));
  EXPECT_FALSE(IsOurResolvConf(""));
}

TEST(ResolvConf, TheLastTunnelAnswersAndEverybodysDomainsAreSearched) {
  const std::vector<DnsSettings> tunnels = {{"wg0", {Ip("10.0.0.1")}, {"one.example"}, false},
                                            {"wg1", {Ip("10.0.1.1"), Ip("fd00::1")}, {"two.example"}, false},
                                            {"wg2", {}, {"two.example", "three.example"}, false}};
  const ResolvConf original = ParseResolvConf("nameserver 192.168.1.1\nsearch lan\noptions ndots:5\n");
  const ResolvConf ours = ParseResolvConf(RenderResolvConf(tunnels, original, "x"));
  EXPECT_THAT(Texts(ours.servers), ElementsAre("10.0.1.1", "fd00::1"));
  EXPECT_THAT(ours.search, ElementsAre("two.example", "three.example", "one.example"));
  EXPECT_THAT(ours.options, ElementsAre("ndots:5"));
}

TEST(ResolvConf, ATunnelWithDomainsOnlyKeepsTheMachinesServers) {
  const DnsSettings tunnel{"wg0", {}, {"corp.example"}, false};
  const ResolvConf ours =
      ParseResolvConf(RenderResolvConf(std::span(&tunnel, 1), ParseResolvConf("nameserver 192.168.1.1\n"), "x"));
  EXPECT_THAT(Texts(ours.servers), ElementsAre("192.168.1.1"));
  EXPECT_THAT(ours.search, ElementsAre("corp.example"));
}

TEST(ServersForEndpoints, AreTheMachinesOwn) {
  EXPECT_THAT(Texts(ServersForEndpoints(ParseResolvConf("nameserver 192.168.1.1\nnameserver 10.0.0.1\n"), {},
                                        std::vector{Ip("10.0.0.1")})),
              ElementsAre("192.168.1.1"));
  EXPECT_THAT(Texts(ServersForEndpoints(ParseResolvConf("nameserver 127.0.0.11\n"), {}, {})),
              ElementsAre("127.0.0.11"));
  EXPECT_THAT(Texts(ServersForEndpoints({}, {}, {})), ElementsAre("127.0.0.1"));
}

// resolved's stub asks the tunnel's servers while a full tunnel is up: the tunnel would have to be up to come up.
TEST(ServersForEndpoints, GoAroundTheStubOfResolved) {
  const ResolvConf stub = ParseResolvConf("nameserver 127.0.0.53\n");
  EXPECT_THAT(Texts(ServersForEndpoints(stub, ParseResolvConf("nameserver 192.168.1.1\nnameserver 10.0.0.1\n"),
                                        std::vector{Ip("10.0.0.1")})),
              ElementsAre("192.168.1.1", "127.0.0.53"));
  EXPECT_THAT(Texts(ServersForEndpoints(stub, {}, {})), ElementsAre("127.0.0.53"));
  // Not asked: the machine has chosen others.
  EXPECT_THAT(Texts(ServersForEndpoints(ParseResolvConf("nameserver 9.9.9.9\n"),
                                        ParseResolvConf("nameserver 192.168.1.1\n"), {})),
              ElementsAre("9.9.9.9"));
}

TEST(DnsWays, ResolvedOnlyWhereProgramsAskIt) {
  const ResolvConf stub = ParseResolvConf("nameserver 127.0.0.53\n");
  const ResolvConf other = ParseResolvConf("nameserver 192.168.1.1\n");
  const ResolvConf both = ParseResolvConf("nameserver 127.0.0.53\nnameserver 192.168.1.1\n");
  EXPECT_THAT(DnsWays({true, false, stub}), ElementsAre(DnsKind::kResolved, DnsKind::kFile));
  EXPECT_THAT(DnsWays({true, true, stub}), ElementsAre(DnsKind::kResolved, DnsKind::kResolvconf, DnsKind::kFile));
  EXPECT_THAT(DnsWays({true, false, other}), ElementsAre(DnsKind::kFile));
  EXPECT_THAT(DnsWays({true, false, both}), ElementsAre(DnsKind::kFile));
  EXPECT_THAT(DnsWays({true, false, {}}), ElementsAre(DnsKind::kFile));
  EXPECT_THAT(DnsWays({false, true, stub}), ElementsAre(DnsKind::kResolvconf, DnsKind::kFile));
}

TEST(ResolvConf, ACopyOfOurLinesIsKnown) {
  const std::vector ours{Ip("10.0.0.1"), Ip("10.0.0.2")};
  EXPECT_TRUE(NamesOnly(ParseResolvConf("nameserver 10.0.0.2\n"), ours));
  EXPECT_FALSE(NamesOnly(ParseResolvConf("nameserver 10.0.0.2\nnameserver 192.168.1.1\n"), ours));
  EXPECT_FALSE(NamesOnly({}, ours));
}

}  // namespace
}  // namespace adit
