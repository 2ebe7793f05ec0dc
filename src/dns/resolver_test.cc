// Against a name server of the test's own on loopback.
#include "dns/resolver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <fstream>
#include <iterator>

#include "dns/test_dns_server.h"

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kZone[] =
    "both.example 60 192.0.2.1 192.0.2.2 2001:db8::1\n"
    "four.example 30 192.0.2.4\n"
    "empty.example 30 -\n"
    "half.example 30 192.0.2.5 2001:db8::5\n"
    "silent half.example AAAA\n"
    "refuse broken.example\n"
    "host.search.example 30 192.0.2.6\n";

std::vector<std::string> Texts(const std::vector<IpAddress>& list) {
  std::vector<std::string> result;
  for (const IpAddress& ip : list) result.push_back(ip.ToString());
  return result;
}

class ResolverLookup : public ::testing::Test {
 protected:
  static Instant Now() {
    timespec ts;
    clock_gettime(CLOCK_BOOTTIME, &ts);
    return Instant(std::chrono::seconds(ts.tv_sec) + Duration(ts.tv_nsec));
  }
  void Open(ResolverSettings settings) {
    auto opened = Resolver::Open(settings);
    ASSERT_TRUE(opened) << opened.error().message;
    resolver_ = std::move(*opened);
  }
  ResolverSettings Settings(std::uint32_t mark = 0) const {
    return {{{*IpAddress::Parse("127.0.0.1"), ""}}, {"search.example"}, server_.port(), mark};
  }
  LookupResult LookUp(const std::string& name) {
    if (!resolver_) Open(Settings());
    std::optional<LookupResult> result;
    resolver_->Start(name, [&](const LookupResult& found) { result = found; }, Now());
    const Instant end = Now() + 20s;
    while (!result && Now() < end) {
      // Sleeps exactly as long as it was told to.
      const auto next = resolver_->next_at();
      const Duration wait = next ? std::clamp<Duration>(*next - Now(), 0ms, 1s) : Duration(1s);
      pollfd ready{resolver_->fd(), POLLIN, 0};
      poll(&ready, 1, static_cast<int>(wait / 1ms) + 1);
      resolver_->Process(Now());
    }
    EXPECT_TRUE(result) << "no end";
    return result.value_or(LookupResult{});
  }

  FakeDnsServer server_{*IpAddress::Parse("127.0.0.1"), 0, [] { return std::string(kZone); }};
  std::unique_ptr<Resolver> resolver_;
};

TEST_F(ResolverLookup, AsksForBothFamilies) {
  const LookupResult result = LookUp("both.example");
  EXPECT_THAT(Texts(result.v4), ElementsAre("192.0.2.1", "192.0.2.2"));
  EXPECT_THAT(Texts(result.v6), ElementsAre("2001:db8::1"));
  EXPECT_EQ(result.ttl, 60s);
  EXPECT_TRUE(result.error.empty());
}

TEST_F(ResolverLookup, OneFamilyIsEnough) {
  const LookupResult result = LookUp("four.example");
  EXPECT_THAT(Texts(result.v4), ElementsAre("192.0.2.4"));
  EXPECT_THAT(result.v6, IsEmpty());
  EXPECT_FALSE(result.is_final);
}

TEST_F(ResolverLookup, AFamilyThatGetsNoAnswerIsNotWaitedFor) {
  const Instant start = Now();
  const LookupResult result = LookUp("half.example");
  EXPECT_THAT(Texts(result.v4), ElementsAre("192.0.2.5"));
  EXPECT_LT(Now() - start, 1400ms);
}

TEST_F(ResolverLookup, NoSuchNameIsFinalAndAServersTroubleIsNot) {
  EXPECT_TRUE(LookUp("missing.example").is_final);
  EXPECT_TRUE(LookUp("empty.example").is_final);
  const LookupResult broken = LookUp("broken.example");
  EXPECT_FALSE(broken.is_final);
  EXPECT_FALSE(broken.error.empty());
}

TEST_F(ResolverLookup, SearchesTheMachinesDomains) { EXPECT_THAT(Texts(LookUp("host").v4), ElementsAre("192.0.2.6")); }

TEST_F(ResolverLookup, EtcHostsComesFirst) {
  std::ifstream hosts("/etc/hosts");  // a minimal root has none
  const std::string text(std::istreambuf_iterator<char>(hosts), {});
  if (text.find("localhost") == std::string::npos) GTEST_SKIP() << "needs localhost in /etc/hosts";
  EXPECT_THAT(Texts(LookUp("localhost").v4), ElementsAre("127.0.0.1"));
  EXPECT_THAT(server_.questions(), IsEmpty());
}

TEST_F(ResolverLookup, ADeadServerIsPassedOver) {
  // Nobody answers on 127.0.0.2; on loopback that is refused at once, on a wire it times out.
  ResolverSettings settings = Settings();
  settings.servers.insert(settings.servers.begin(), {*IpAddress::Parse("127.0.0.2"), ""});
  Open(settings);
  EXPECT_THAT(Texts(LookUp("four.example").v4), ElementsAre("192.0.2.4"));
}

TEST_F(ResolverLookup, AMarkDoesNoHarmOnLoopback) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root";
  Open(Settings(0x1000));
  EXPECT_THAT(Texts(LookUp("four.example").v4), ElementsAre("192.0.2.4"));
}

TEST_F(ResolverLookup, ALookupUnderWayMayBeForgotten) {
  Open(Settings());
  bool was_called = false;
  resolver_->Start("half.example", [&](const LookupResult&) { was_called = true; }, Now());
  resolver_.reset();
  EXPECT_FALSE(was_called);
}

TEST_F(ResolverLookup, ACallbackMayStartAnother) {
  Open(Settings());
  std::vector<std::string> found;
  resolver_->Start(
      "four.example",
      [&](const LookupResult&) {
        resolver_->Start("four.example", [&](const LookupResult& second) { found = Texts(second.v4); }, Now());
      },
      Now());
  for (int i = 0; i < 500 && found.empty(); ++i) {
    pollfd pipe{resolver_->fd(), POLLIN, 0};
    poll(&pipe, 1, 10);
    resolver_->Process(Now());
  }
  EXPECT_THAT(found, ElementsAre("192.0.2.4"));
}

}  // namespace
}  // namespace adit
