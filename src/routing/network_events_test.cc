#include "routing/network_events.h"

#include <gmock/gmock.h>
#include <poll.h>
#include <unistd.h>

#include "routing/namespace_fixture.h"
#include "routing/wire.h"

namespace adit {
namespace {

using ::testing::HasSubstr;
using NetworkEventsTest = NamespaceTest;

// All news within a moment.
NetworkNews ReadAll(NetworkEvents& events) {
  NetworkNews all;
  pollfd poller{events.route_fd(), POLLIN, 0};
  while (poll(&poller, 1, 50) > 0) {
    NetworkNews news = events.Read();
    all.is_lost |= news.is_lost;
    all.events.insert(all.events.end(), news.events.begin(), news.events.end());
  }
  return all;
}

std::unique_ptr<NetworkEvents> MustOpen() {
  auto events = NetworkEvents::Open();
  if (!events) {
    ADD_FAILURE() << events.error().message;
    return nullptr;
  }
  return std::move(*events);
}

Rule SomeRule(Family family) {
  Rule rule;
  rule.family = family;
  rule.priority = 1234;
  rule.table = 99;
  return rule;
}

TEST_F(NetworkEventsTest, RemovedRulesOfBothFamiliesAreToldWithWhoDidIt) {
  InMachine([&](NetlinkSocket& socket) {
    for (const Family family : {Family::kV4, Family::kV6}) {
      auto events = MustOpen();
      Must(socket.Request(RuleMessage(RTM_NEWRULE, SomeRule(family))));
      Must(socket.Request(RuleMessage(RTM_DELRULE, SomeRule(family))));
      const NetworkNews news = ReadAll(*events);
      ASSERT_EQ(news.events.size(), 2U);
      EXPECT_EQ(news.events[0].kind, EventKind::kRule);
      EXPECT_FALSE(news.events[0].is_removal);
      EXPECT_TRUE(news.events[1].is_removal);
      ASSERT_TRUE(std::holds_alternative<Rule>(news.events[1].thing));
      EXPECT_EQ(std::get<Rule>(news.events[1].thing), SomeRule(family));
      EXPECT_THAT(news.events[1].culprit, HasSubstr("routing_test (pid "));
    }
  });
}

TEST_F(NetworkEventsTest, RemovedRoutesAndAddressesAreToldAsTheyWere) {
  InMachine([&](NetlinkSocket& socket) {
    Route route;
    route.destination = *Prefix::Parse("198.51.100.0/24", false);
    route.gateway = *IpAddress::Parse("192.168.1.1");
    route.device = "eth0";
    Must(AddKernelRoute(socket, route));
    auto events = MustOpen();
    Must(DeleteKernelRoute(socket, route));
    NetworkNews news = ReadAll(*events);
    ASSERT_EQ(news.events.size(), 1U);
    ASSERT_TRUE(std::holds_alternative<Route>(news.events[0].thing));
    EXPECT_EQ(std::get<Route>(news.events[0].thing), route);

    const std::uint32_t index = FindLink(socket, "eth0")->index;
    Must(socket.Request(AddressMessage(RTM_DELADDR, *ParseInterfaceAddress("fd01::2/64"), index)));
    news = ReadAll(*events);
    const auto address = std::ranges::find(news.events, EventKind::kAddress, &NetworkEvent::kind);
    ASSERT_NE(address, news.events.end());
    EXPECT_EQ(std::get<LinkAddress>(address->thing), (LinkAddress{"eth0", *ParseInterfaceAddress("fd01::2/64")}));
  });
}

TEST_F(NetworkEventsTest, OurOwnChangesAreNoNews) {
  InMachine([&](NetlinkSocket& socket) {
    auto events = MustOpen();
    events->IgnorePort(socket.port_id());
    Must(socket.Request(RuleMessage(RTM_NEWRULE, SomeRule(Family::kV4))));
    EXPECT_TRUE(ReadAll(*events).events.empty());
    auto other = NetlinkSocket::Open();
    Must(other->Request(RuleMessage(RTM_DELRULE, SomeRule(Family::kV4))));
    EXPECT_EQ(ReadAll(*events).events.size(), 1U);
  });
}

TEST_F(NetworkEventsTest, ALinkThatWentDownIsTold) {
  InMachine([&](NetlinkSocket& socket) {
    Must(SetLinkUp(socket, "adit0", true));
    auto events = MustOpen();
    Must(SetLinkUp(socket, "adit0", false));
    const NetworkNews news = ReadAll(*events);
    const auto down = std::ranges::find_if(news.events, [](const NetworkEvent& event) {
      const auto* link = std::get_if<Link>(&event.thing);
      return link != nullptr && link->name == "adit0" && !link->is_up;
    });
    ASSERT_NE(down, news.events.end());
    EXPECT_FALSE(down->is_removal);
    EXPECT_EQ(down->culprit, "") << "the kernel does not say who, and we invent nobody";
  });
}

// A listener that is too slow: the kernel says so, and the next read works again.
TEST_F(NetworkEventsTest, LostEventsAreNoticed) {
  InMachine([&](NetlinkSocket& socket) {
    auto events = MustOpen();
    const int small = 4096;
    setsockopt(events->route_fd(), SOL_SOCKET, SO_RCVBUFFORCE, &small, sizeof(small));
    for (int i = 0; i < 200; ++i) {
      Must(socket.Request(RuleMessage(RTM_NEWRULE, SomeRule(Family::kV4))));
      Must(socket.Request(RuleMessage(RTM_DELRULE, SomeRule(Family::kV4))));
    }
    EXPECT_TRUE(ReadAll(*events).is_lost);
    Must(socket.Request(RuleMessage(RTM_NEWRULE, SomeRule(Family::kV4))));
    const NetworkNews news = ReadAll(*events);
    EXPECT_FALSE(news.is_lost);
    EXPECT_EQ(news.events.size(), 1U);
  });
}

TEST_F(NetworkEventsTest, OneReadIsBounded) {
  InMachine([&](NetlinkSocket& socket) {
    auto events = MustOpen();
    for (int i = 0; i < 700; ++i) {
      Must(socket.Request(RuleMessage(RTM_NEWRULE, SomeRule(Family::kV4))));
      Must(socket.Request(RuleMessage(RTM_DELRULE, SomeRule(Family::kV4))));
    }
    EXPECT_EQ(events->Read().events.size(), NetworkEvents::kMaxEventsPerRead);
    EXPECT_EQ(events->Read().events.size(), 1400 - NetworkEvents::kMaxEventsPerRead);
  });
}

TEST(DescribeProcess, NamesItWhileItLives) {
  const auto pid = static_cast<std::uint32_t>(getpid());
  EXPECT_THAT(DescribeProcess(pid), HasSubstr("routing_test (pid "));
  EXPECT_THAT(DescribeProcess(pid | (5U << 22)), HasSubstr("routing_test (pid ")) << "libnl's second socket";
  EXPECT_EQ(DescribeProcess(0), "");
}

}  // namespace
}  // namespace adit
