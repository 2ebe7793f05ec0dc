#include "routing/mtu_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }
PublicKey Key(std::uint8_t number) {
  PublicKey key;
  key.bytes[0] = number;
  return key;
}
PeerPath PathTo(std::uint8_t peer, const char* endpoint = "203.0.113.10", const char* gateway = "192.168.1.1") {
  return {.peer = Key(peer),
          .way = {.endpoint = Ip(endpoint), .device = "eth0", .gateway = Ip(gateway)},
          .mtu = 1420,
          .floor = 1280};
}

class MtuWatchTest : public ::testing::Test {
 protected:
  // So much in the seconds from now on.
  void Carry(std::uint8_t peer, std::uint64_t tx, std::uint64_t rx, Duration time = 1s) {
    watch_.OnTraffic(Key(peer), tx_, rx_, now_);
    watch_.OnTraffic(Key(peer), tx_ += tx, rx_ += rx, now_ += time);
  }
  void Use(std::uint8_t peer) { Carry(peer, 100'000, 100'000); }
  bool Search(std::uint8_t peer, MtuVerdict verdict, unsigned result = 0) {
    Use(peer);
    const auto task = watch_.Take();
    if (!task || task->path.peer != Key(peer)) {
      ADD_FAILURE() << "no search of peer " << int{peer} << " is due";
      return false;
    }
    return watch_.OnVerdict(verdict, result, now_);
  }
  // Otherwise a whole minute goes by until the next baseline.
  bool IsDueAfterUse(std::uint8_t peer) {
    Use(peer);
    return watch_.Take().has_value();
  }

  MtuWatch watch_;
  Instant now_{1000s};
  std::uint64_t tx_ = 0, rx_ = 0;
};

TEST_F(MtuWatchTest, AnIdleTunnelIsNotSearched) {
  watch_.Follow({PathTo(1)});
  EXPECT_FALSE(watch_.Take());
  // An hour of keepalives each second, and handshakes each two minutes.
  for (int second = 0; second < 3600; ++second) {
    const std::uint64_t handshake = second % 120 == 0 ? 148 : 0;
    watch_.OnTraffic(Key(1), tx_ += 32 + handshake, rx_ += 32 + handshake, now_ += 1s);
    ASSERT_FALSE(watch_.Take()) << second;
  }
}

TEST_F(MtuWatchTest, TrafficIsUse) {
  watch_.Follow({PathTo(1)});
  Carry(1, 3000, 3143);
  EXPECT_FALSE(watch_.Take());
  Carry(1, 0, 1);
  const auto task = watch_.Take();
  ASSERT_TRUE(task);
  EXPECT_EQ(task->full, 1420U);
  EXPECT_EQ(task->path, PathTo(1));
}

TEST_F(MtuWatchTest, AnUploadThatGetsNoFurtherIsUse) {
  watch_.Follow({PathTo(1)});
  Carry(1, 100'000, 0);
  EXPECT_FALSE(watch_.Take()) << "nothing came back: the tunnel is down";
  Carry(1, 0, 92);
  EXPECT_TRUE(watch_.Take());
}

TEST_F(MtuWatchTest, WhatTheFirstLookFindsCountsForANewPeerAndNotForANewPath) {
  watch_.Follow({PathTo(1)});
  watch_.OnTraffic(Key(1), 13'000, 500, now_);
  EXPECT_TRUE(watch_.Take()) << "an upload can get stuck before the first look";
  watch_.Follow({PathTo(1, "203.0.113.11")});
  watch_.OnTraffic(Key(1), 20'000, 20'000, now_ += 1s);
  EXPECT_FALSE(watch_.Take()) << "that went by the old path";
  watch_.OnTraffic(Key(1), 30'000, 20'500, now_ += 1s);
  EXPECT_TRUE(watch_.Take());
}

TEST_F(MtuWatchTest, APathIsSearchedOnce) {
  watch_.Follow({PathTo(1)});
  EXPECT_FALSE(Search(1, MtuVerdict::kClear));
  EXPECT_FALSE(IsDueAfterUse(1));
  watch_.Follow({PathTo(1)});
  EXPECT_FALSE(IsDueAfterUse(1)) << "the same path";
  EXPECT_THAT(watch_.Waiting(), IsEmpty());
  watch_.Follow({PathTo(1, "203.0.113.10", "192.168.2.1")});
  EXPECT_TRUE(IsDueAfterUse(1)) << "another gateway";
}

TEST_F(MtuWatchTest, ALimitHoldsForItsPathOnly) {
  watch_.Follow({PathTo(1)});
  EXPECT_TRUE(Search(1, MtuVerdict::kLimited, 1312));
  EXPECT_EQ(watch_.limit(), 1312U);
  EXPECT_THAT(watch_.Warnings(),
              ElementsAre("the path to 203.0.113.10 swallows packets above 1372 bytes without a word: "
                          "the tunnel's MTU is 1312 instead of 1420"));
  EXPECT_FALSE(watch_.Follow({PathTo(1)}));
  EXPECT_EQ(watch_.limit(), 1312U);
  EXPECT_TRUE(watch_.Follow({PathTo(1, "203.0.113.11")}));
  EXPECT_EQ(watch_.limit(), 0U);
  EXPECT_THAT(watch_.Warnings(), IsEmpty());
  EXPECT_TRUE(IsDueAfterUse(1));
}

TEST_F(MtuWatchTest, TheSmallestLimitOfAllPeersCounts) {
  watch_.Follow({PathTo(1), PathTo(2, "2001:db8::2")});
  Search(1, MtuVerdict::kLimited, 1312);
  Use(2);
  const auto task = watch_.Take();
  ASSERT_TRUE(task);
  EXPECT_EQ(task->full, 1312U) << "larger packets do not exist now";
  EXPECT_TRUE(watch_.OnVerdict(MtuVerdict::kLimited, 1296, now_));
  EXPECT_EQ(watch_.limit(), 1296U);
  EXPECT_THAT(watch_.Warnings(), ElementsAre(HasSubstr("above 1372 bytes without a word: the tunnel's MTU is 1296"),
                                             HasSubstr("the path to 2001:db8::2 swallows packets above 1376 bytes")));
}

TEST_F(MtuWatchTest, WhatWasClearUpToALimitThatIsGoneIsSearchedAgain) {
  watch_.Follow({PathTo(1), PathTo(2)});
  Search(1, MtuVerdict::kLimited, 1312);
  Search(2, MtuVerdict::kClear);
  EXPECT_FALSE(IsDueAfterUse(2));
  EXPECT_TRUE(watch_.Follow({PathTo(2)}));
  EXPECT_TRUE(IsDueAfterUse(2));
}

TEST_F(MtuWatchTest, OneSearchAtATime) {
  watch_.Follow({PathTo(1), PathTo(2)});
  Use(1);
  Use(2);
  ASSERT_TRUE(watch_.Take());
  EXPECT_TRUE(watch_.IsSearching());
  EXPECT_FALSE(watch_.Take());
  watch_.Follow({PathTo(2)});
  EXPECT_FALSE(watch_.IsSearching()) << "its path is gone";
  EXPECT_FALSE(watch_.OnVerdict(MtuVerdict::kLimited, 1312, now_)) << "and so its verdict is nobody's";
  EXPECT_EQ(watch_.limit(), 0U);
  EXPECT_TRUE(watch_.Take());
}

TEST_F(MtuWatchTest, WhatWasNotFoundOutIsSearchedThreeTimesAMinuteApart) {
  watch_.Follow({PathTo(1)});
  for (unsigned i = 0; i < MtuWatch::kMaxSearches; ++i) {
    EXPECT_FALSE(Search(1, MtuVerdict::kUnknown)) << i;
    EXPECT_FALSE(IsDueAfterUse(1)) << "not at once";
    now_ += MtuWatch::kSearchAgainAfter;
  }
  EXPECT_FALSE(IsDueAfterUse(1));
}

TEST_F(MtuWatchTest, WhereNotEvenTheFloorPassesTheMtuStays) {
  watch_.Follow({PathTo(1)});
  EXPECT_FALSE(Search(1, MtuVerdict::kLimited, 0));
  EXPECT_EQ(watch_.limit(), 0U);
  EXPECT_THAT(watch_.Warnings(), ElementsAre(HasSubstr("swallows even packets of 1340 bytes")));
}

TEST_F(MtuWatchTest, AnMtuAtItsFloorIsNotSearched) {
  PeerPath path = PathTo(1);
  path.mtu = path.floor;
  watch_.Follow({path});
  EXPECT_FALSE(IsDueAfterUse(1));
}

TEST_F(MtuWatchTest, APeerPutInAgainCountsFromZero) {
  watch_.Follow({PathTo(1)});
  watch_.Follow({PathTo(1, "203.0.113.11")});
  watch_.OnTraffic(Key(1), 1'000'000, 1'000'000, now_);
  watch_.OnTraffic(Key(1), 100, 100, now_ += 1s);
  EXPECT_FALSE(watch_.Take());
  watch_.OnTraffic(Key(1), 5000, 5000, now_ += 1s);
  EXPECT_TRUE(watch_.Take());
}

ConfFile Conf(std::vector<const char*> addresses, std::vector<std::vector<const char*>> allowed,
              std::vector<const char*> dns = {}) {
  ConfFile conf;
  for (const char* address : addresses) conf.interface.addresses.push_back(*ParseInterfaceAddress(address));
  for (const char* server : dns) conf.interface.dns_servers.push_back(Ip(server));
  for (const auto& prefixes : allowed) {
    ConfPeer& peer = conf.peers.emplace_back();
    peer.public_key = Key(static_cast<std::uint8_t>(conf.peers.size()));
    for (const char* prefix : prefixes) peer.allowed_ips.push_back(*Prefix::Parse(prefix, true));
  }
  return conf;
}

TEST(ProbeDestinations, AProvidersFullTunnel) {
  const ConfFile conf = Conf({"10.64.3.4/32", "fc00::3/128"}, {{"0.0.0.0/0", "::/0"}}, {"10.64.0.1", "fc00::1"});
  EXPECT_THAT(ProbeDestinations(conf, 0), ElementsAre(Ip("10.64.0.1"), Ip("192.0.2.1")));
}

TEST(ProbeDestinations, AServerOfOnesOwn) {
  const ConfFile conf = Conf({"10.9.0.2/24"}, {{"10.9.0.0/24"}});
  EXPECT_THAT(ProbeDestinations(conf, 0), ElementsAre(Ip("10.9.0.1")));
}

TEST(ProbeDestinations, APeersOwnAddress) {
  const ConfFile conf = Conf({"10.9.0.1/24"}, {{"10.9.0.7/32", "192.168.7.0/24"}, {"10.9.0.8/32"}});
  EXPECT_THAT(ProbeDestinations(conf, 0), ElementsAre(Ip("10.9.0.7"))) << "not our own, though it is the first host";
  EXPECT_THAT(ProbeDestinations(conf, 1), ElementsAre(Ip("10.9.0.8")));
}

TEST(ProbeDestinations, NothingThatGoesToAnotherPeer) {
  const ConfFile conf = Conf({"10.9.0.2/24"}, {{"0.0.0.0/0"}, {"10.9.0.1/32"}}, {"10.9.0.1", "9.9.9.9"});
  EXPECT_THAT(ProbeDestinations(conf, 0), ElementsAre(Ip("9.9.9.9"), Ip("192.0.2.1")));
  EXPECT_THAT(ProbeDestinations(conf, 1), ElementsAre(Ip("10.9.0.1")));
}

TEST(ProbeDestinations, NothingExcludedAndNoFamilyWithoutAnAddress) {
  ConfFile conf = Conf({"fd09::2/64"}, {{"0.0.0.0/0", "::/0"}}, {"10.9.0.1"});
  EXPECT_THAT(ProbeDestinations(conf, 0), ElementsAre(Ip("fd09::1"), Ip("2001:db8::1")));
  conf.interface.excluded_ips = {*Prefix::Parse("2001:db8::/32", false)};
  EXPECT_THAT(ProbeDestinations(conf, 0), ElementsAre(Ip("fd09::1")));
}

TEST(ProbeDestinations, NoneWhereNobodyWouldAnswer) {
  EXPECT_THAT(ProbeDestinations(Conf({"10.9.0.2/32"}, {{"192.168.7.0/24"}}), 0), IsEmpty());
}

TEST(ProbeDestinations, NoMoreThanTheirBound) {
  const ConfFile conf = Conf({"10.9.0.2/24"}, {{"0.0.0.0/0"}}, {"9.9.9.1", "9.9.9.2", "9.9.9.3", "9.9.9.4", "9.9.9.5"});
  EXPECT_EQ(ProbeDestinations(conf, 0).size(), MtuSearch::kMaxDestinations);
}

TEST(PathsOf, ThePeersThatHaveAWayAndNoneWithAnMtuOfTheFiles) {
  const ConfFile conf = Conf({"10.9.0.2/24"}, {{"10.1.0.0/16"}, {"10.2.0.0/16"}, {"10.3.0.0/16"}});
  const std::vector<std::optional<SocketAddress>> endpoints = {SocketAddress::Parse("203.0.113.1:1"), std::nullopt,
                                                               SocketAddress::Parse("203.0.113.3:1")};
  Plan plan;
  plan.ways = {{.endpoint = Ip("203.0.113.1"), .device = "eth0", .gateway = {}},
               {.endpoint = Ip("203.0.113.3"), .device = "eth1", .gateway = Ip("10.0.0.1")}};
  EXPECT_THAT(PathsOf(conf, endpoints, plan), IsEmpty());
  plan.routes_mtu = 1420;
  plan.least_mtu = 576;
  const auto paths = PathsOf(conf, endpoints, plan);
  ASSERT_EQ(paths.size(), 2U);
  EXPECT_EQ(paths[1], (PeerPath{.peer = Key(3), .way = plan.ways[1], .mtu = 1420, .floor = 576}));
}

}  // namespace
}  // namespace adit
