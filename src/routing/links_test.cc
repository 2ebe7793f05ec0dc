#include "routing/links.h"

#include <gtest/gtest.h>

#include "routing/namespace_fixture.h"

namespace adit {
namespace {

using LinksTest = NamespaceTest;

TEST_F(LinksTest, VethPairJoinsTwoNamespaces) {
  InMachine([&](NetlinkSocket& socket) {
    const auto link = FindLink(socket, "eth0");
    ASSERT_TRUE(link) << link.error().message;
    EXPECT_EQ(link->kind, "veth");
    EXPECT_TRUE(link->is_up);
    EXPECT_EQ(FindLink(socket, "port0").error().code, ENODEV);
  });
  InRouter([&](NetlinkSocket& socket) { EXPECT_TRUE(FindLink(socket, "port0")); });
}

TEST_F(LinksTest, MovesALinkToAnotherNamespace) {
  InMachine([&](NetlinkSocket& socket) { Must(MoveLink(socket, "adit0", router_.get())); });
  InRouter([&](NetlinkSocket& socket) {
    const auto link = FindLink(socket, "adit0");
    ASSERT_TRUE(link) << link.error().message;
    EXPECT_EQ(link->kind, "tun");
    Must(DeleteLink(socket, "adit0"));
    EXPECT_EQ(FindLink(socket, "adit0").error().code, ENODEV);
  });
}

TEST_F(LinksTest, TunesTheTun) {
  InMachine([&](NetlinkSocket& socket) {
    Must(TuneLink(socket, "adit0", {.gso_max_segments = 44, .gso_max_bytes = 60000, .transmit_queue_packets = 2000}));
    NetlinkMessage question(RTM_GETLINK, 0, ifinfomsg{});
    question.PutString(IFLA_IFNAME, "adit0");
    Must(socket.Ask(std::move(question), [](nlmsghdr* answer) {
      const auto attributes = Attributes::Of(answer, sizeof(ifinfomsg));
      EXPECT_EQ(attributes.U32(IFLA_GSO_MAX_SEGS), 44U);
      EXPECT_EQ(attributes.U32(IFLA_GSO_MAX_SIZE), 60000U);
      EXPECT_EQ(attributes.U32(IFLA_TXQLEN), 2000U);
    }));
  });
}

TEST_F(LinksTest, AnErrorNamesTheLink) {
  InMachine([&](NetlinkSocket& socket) {
    const Status status = SetLinkMtu(socket, "adit0", 70000);
    ASSERT_FALSE(status);
    EXPECT_NE(status.error().message.find("adit0"), std::string::npos) << status.error().message;
  });
}

TEST_F(LinksTest, BatchesLongerThanOneSendAreAnsweredOneByOne) {
  InMachine([&](NetlinkSocket& socket) {
    // Each second message asks for a link that is not there.
    std::vector<NetlinkMessage> messages;
    const auto index = static_cast<int>(FindLink(socket, "adit0")->index);
    for (std::size_t i = 0; i < 3 * NetlinkSocket::kBatch + 5; ++i) {
      ifinfomsg header{};
      header.ifi_index = i % 2 == 0 ? index : 999999;
      messages.emplace_back(std::uint16_t{RTM_NEWLINK}, std::uint16_t{0}, header);
    }
    const auto outcomes = socket.RequestAll(messages);
    ASSERT_EQ(outcomes.size(), messages.size());
    for (std::size_t i = 0; i < outcomes.size(); ++i) {
      EXPECT_EQ(outcomes[i] ? 0 : outcomes[i].error().code, i % 2 == 0 ? 0 : ENODEV);
    }
  });
}

TEST(RunInNamespace, DoesNotMoveTheCaller) {
  auto inside = CreateNetworkNamespace();
  if (!inside) GTEST_SKIP() << inside.error().message;
  const std::string own = *NetworkNamespaceIdentity(CurrentNetworkNamespace()->get());
  std::string seen;
  Must(RunInNamespace(inside->get(), [&]() -> Status {
    seen = *NetworkNamespaceIdentity(CurrentNetworkNamespace()->get());
    return {};
  }));
  EXPECT_EQ(seen, *NetworkNamespaceIdentity(inside->get()));
  EXPECT_NE(seen, own);
  EXPECT_EQ(own, *NetworkNamespaceIdentity(CurrentNetworkNamespace()->get()));
}

}  // namespace
}  // namespace adit
