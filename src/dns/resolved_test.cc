// Against a stand-in for systemd-resolved on a private bus.
#include "dns/resolved.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "dns/test_resolved_service.h"

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

DnsSettings Split() { return {"wg0", {*IpAddress::Parse("10.0.0.1")}, {"corp.example"}, false}; }
DnsSettings Full() {
  return {"wg0", {*IpAddress::Parse("10.0.0.1"), *IpAddress::Parse("fd00::1")}, {"corp.example"}, true};
}

TEST(ResolvedLink, AllNamesGoToAFullTunnelOnly) {
  const ResolvedLink full = ToResolvedLink(Full());
  EXPECT_THAT(full.domains, ElementsAre(ResolvedLink::Domain{"corp.example", false}, ResolvedLink::Domain{".", true}));
  EXPECT_TRUE(full.is_default);
  const ResolvedLink split = ToResolvedLink(Split());
  EXPECT_THAT(split.domains, ElementsAre(ResolvedLink::Domain{"corp.example", false}));
  EXPECT_FALSE(split.is_default);
  DnsSettings without = Split();
  without.search_domains.clear();
  EXPECT_THAT(ToResolvedLink(without).domains, IsEmpty());
  EXPECT_TRUE(ToResolvedLink(without).is_default);
}

class Resolved : public ::testing::Test {
 protected:
  void SetUp() override {
    if (access("/usr/bin/dbus-daemon", X_OK) != 0) GTEST_SKIP() << "needs dbus-daemon";
    char name[] = "/tmp/adit-bus-XXXXXX";
    folder_ = mkdtemp(name);
    std::ofstream(folder_ + "/bus.conf")
        << "<busconfig><listen>unix:path=" << folder_ << "/bus</listen><auth>EXTERNAL</auth>"
        << "<policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>"
        << "<allow own=\"*\"/><allow user=\"*\"/></policy></busconfig>";
    setenv("DBUS_SYSTEM_BUS_ADDRESS", ("unix:path=" + folder_ + "/bus").c_str(), 1);
    StartBus();
  }
  void TearDown() override {
    StopBus();
    unsetenv("DBUS_SYSTEM_BUS_ADDRESS");
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }
  void StartBus() {
    std::filesystem::remove(folder_ + "/bus");
    std::string program = "dbus-daemon", config = "--config-file=" + folder_ + "/bus.conf", stay = "--nofork";
    char* words[] = {program.data(), config.data(), stay.data(), nullptr};
    ASSERT_EQ(posix_spawn(&bus_pid_, "/usr/bin/dbus-daemon", nullptr, nullptr, words, environ), 0);
    ASSERT_TRUE(Within(10s, [&] { return std::filesystem::exists(folder_ + "/bus"); }));
  }
  void StopBus() {
    if (bus_pid_ == 0) return;
    kill(bus_pid_, SIGTERM);
    waitpid(bus_pid_, nullptr, 0);
    bus_pid_ = 0;
  }
  static Instant Now() {
    timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return Instant(std::chrono::seconds(ts.tv_sec) + Duration(ts.tv_nsec));
  }
  static bool Within(Duration limit, const std::function<bool()>& holds, ResolvedDns* dns = nullptr) {
    const Instant end = Now() + limit;
    while (!holds()) {
      if (Now() > end) return false;
      if (dns != nullptr) {
        // Only when it asked to be called: what it does not ask for must not be needed.
        pollfd ready{dns->fd(), POLLIN, 0};
        poll(&ready, 1, 5);
        if ((ready.revents & POLLIN) != 0 || (dns->next_at() && *dns->next_at() <= Now())) dns->Process(Now());
      } else {
        usleep(5000);
      }
    }
    return true;
  }
  static bool Settles(ResolvedDns& dns) {
    return Within(5s, [&] { return dns.state().health != DnsHealth::kPending; }, &dns);
  }

  std::string folder_;
  pid_t bus_pid_ = 0;
};

TEST_F(Resolved, IsFoundOnlyWhereItAnswers) {
  EXPECT_FALSE(ResolvedAnswers());
  {
    FakeResolve1 service;
    ASSERT_TRUE(service.is_good());
    EXPECT_TRUE(ResolvedAnswers());
  }
  EXPECT_FALSE(ResolvedAnswers());
  StopBus();
  EXPECT_FALSE(ResolvedAnswers());
}

TEST_F(Resolved, LearnsDomainsThenDefaultThenServersAndForgetsThemAgain) {
  FakeResolve1 service;
  ResolvedDns dns(Full(), 7);
  dns.Apply(Now());
  ASSERT_TRUE(Settles(dns));
  EXPECT_EQ(dns.state().health, DnsHealth::kGood) << dns.state().detail;
  EXPECT_THAT(service.calls(), ElementsAre("domains 7 corp.example ~.", "default 7 yes", "dns 7 10.0.0.1 fd00::1"));
  ASSERT_TRUE(dns.Remove());
  EXPECT_EQ(service.calls().back(), "revert 7");
}

// 52
TEST_F(Resolved, ARestartedServiceIsToldAgainWithinASecond) {
  auto service = std::make_unique<FakeResolve1>();
  ResolvedDns dns(Split(), 7);
  dns.Apply(Now());
  ASSERT_TRUE(Settles(dns));
  service.reset();
  ASSERT_TRUE(Within(2s, [&] { return dns.state().health == DnsHealth::kDegraded; }, &dns));
  EXPECT_THAT(dns.state().detail, HasSubstr("not running"));
  service = std::make_unique<FakeResolve1>();
  const Instant restarted = Now();
  ASSERT_TRUE(Within(5s, [&] { return service->calls().size() == 3; }, &dns));
  EXPECT_LT(Now() - restarted, 1s);
  EXPECT_THAT(service->calls(), ElementsAre("domains 7 corp.example", "default 7 no", "dns 7 10.0.0.1"));
  ASSERT_TRUE(Within(2s, [&] { return dns.state().health == DnsHealth::kGood; }, &dns));
  EXPECT_EQ(dns.state().repairs, 1u);
}

// 52
TEST_F(Resolved, WhatOthersTakeBackIsToldAgainABoundedNumberOfTimes) {
  FakeResolve1 service;
  ResolvedDns dns(Full(), 7);
  dns.Apply(Now());
  ASSERT_TRUE(Settles(dns));
  const auto is_told = [&](unsigned times) {
    return std::ranges::count(service.calls(), "dns 7 10.0.0.1 fd00::1") == times;
  };
  // Its own words are heard back, and are no reason to repeat them.
  EXPECT_FALSE(Within(400ms, [&] { return !is_told(1); }, &dns));
  // Nor are those about another link.
  ASSERT_TRUE(FakeResolve1::Revert(8));
  EXPECT_FALSE(Within(400ms, [&] { return !is_told(1); }, &dns));
  for (unsigned i = 1; i <= kMaxRepairs; ++i) {
    ASSERT_TRUE(FakeResolve1::Revert(7));
    ASSERT_TRUE(Within(2s, [&] { return is_told(i + 1); }, &dns)) << i;
    ASSERT_TRUE(Within(2s, [&] { return dns.state().health == DnsHealth::kGood; }, &dns)) << i;
    EXPECT_EQ(dns.state().repairs, i);
  }
  EXPECT_FALSE(Within(400ms, [&] { return dns.state().health != DnsHealth::kGood; }, &dns));
  ASSERT_TRUE(FakeResolve1::Revert(7));
  ASSERT_TRUE(Within(2s, [&] { return dns.state().health == DnsHealth::kDegraded; }, &dns));
  EXPECT_THAT(dns.state().detail, HasSubstr("keeps changing"));
  EXPECT_TRUE(is_told(kMaxRepairs + 1));
}

// It keeps each server once, and names without their last dot.
TEST_F(Resolved, WhatComesBackInOtherWordsIsNoHarm) {
  FakeResolve1 service;
  DnsSettings settings = Split();
  settings.servers.push_back(settings.servers.front());
  settings.search_domains = {"Corp.Example.", "b.example"};
  ResolvedDns dns(settings, 7);
  dns.Apply(Now());
  ASSERT_TRUE(Settles(dns));
  EXPECT_FALSE(Within(500ms, [&] { return service.calls().size() != 3; }, &dns));
  EXPECT_EQ(dns.state().repairs, 0u);
}

TEST_F(Resolved, ARestartedBusIsFoundAgain) {
  auto service = std::make_unique<FakeResolve1>();
  ResolvedDns dns(Split(), 7);
  dns.Apply(Now());
  ASSERT_TRUE(Settles(dns));
  service.reset();
  StopBus();
  ASSERT_TRUE(Within(2s, [&] { return dns.state().health == DnsHealth::kDegraded; }, &dns));
  StartBus();
  service = std::make_unique<FakeResolve1>();
  ASSERT_TRUE(Within(10s, [&] { return dns.state().health == DnsHealth::kGood; }, &dns));
  EXPECT_EQ(service->calls().size(), 3u);
}

TEST_F(Resolved, ARefusalIsSaidAndTriedAgainABoundedNumberOfTimes) {
  FakeResolve1 service("SetLinkDNS", "org.freedesktop.resolve1.LinkBusy");
  ResolvedDns dns(Split(), 7);
  Instant now = Now();
  dns.Apply(now);
  ASSERT_TRUE(Settles(dns));
  EXPECT_EQ(dns.state().health, DnsHealth::kDegraded);
  EXPECT_THAT(dns.state().detail, HasSubstr("refused by the test"));
  unsigned rounds = 1;
  while (dns.next_at() && rounds < 100) {  // a clock that is ahead: what is due is done at once
    now = std::max(now, *dns.next_at());
    dns.Process(now);
    const bool is_done = Within(5s, [&] {
      pollfd ready{dns.fd(), POLLIN, 0};
      if (poll(&ready, 1, 5) > 0) dns.Process(now);
      return dns.state().health == DnsHealth::kDegraded;
    });
    ASSERT_TRUE(is_done);
    ++rounds;
  }
  EXPECT_EQ(rounds, kMaxResolvedRetries + 1);
  EXPECT_EQ(service.calls().size(), rounds * 3);
}

TEST_F(Resolved, OneThatDoesNotKnowDefaultRoutesIsFine) {
  FakeResolve1 service("SetLinkDefaultRoute", "org.freedesktop.DBus.Error.UnknownMethod");
  ResolvedDns dns(Split(), 7);
  dns.Apply(Now());
  ASSERT_TRUE(Settles(dns));
  EXPECT_EQ(dns.state().health, DnsHealth::kGood) << dns.state().detail;
}

TEST_F(Resolved, WithoutABusItIsDegradedAndBounded) {
  StopBus();
  ResolvedDns dns(Split(), 7);
  Instant now = Now();
  dns.Apply(now);
  EXPECT_EQ(dns.state().health, DnsHealth::kDegraded);
  unsigned rounds = 0;
  for (; dns.next_at() && rounds < 100; ++rounds) dns.Process(now = *dns.next_at());
  EXPECT_EQ(rounds, kMaxResolvedRetries);
  EXPECT_TRUE(dns.Remove());
}

}  // namespace
}  // namespace adit
