#include "routing/uplink_choice.h"

#include <gtest/gtest.h>

#include <thread>

#include "routing/op.h"

namespace adit {
namespace {

constexpr std::uint32_t kEthernet = 2;
constexpr std::uint32_t kWifi = 3;

IpAddress I(const char* text) { return *IpAddress::Parse(text); }
using Link_ = std::optional<std::uint32_t>;

void Put(NetSnapshot& network, const char* line) {
  const auto op = ParseOp(line);
  ASSERT_TRUE(op) << line;
  network.routes.push_back(std::get<AddRoute>(*op).route);
}

// Ethernet first, Wi-Fi for what is behind it and as the second choice, and the tunnel with its halves.
NetSnapshot Network() {
  NetSnapshot network;
  network.links = {
      {.index = kEthernet, .name = "eth0", .mtu = 1500, .is_up = true, .address_generation = 0, .kind = {}},
      {.index = kWifi, .name = "wlan0", .mtu = 1400, .is_up = true, .address_generation = 0, .kind = {}},
      {.index = 7, .name = "adit0", .mtu = 1420, .is_up = true, .address_generation = 0, .kind = "tun"}};
  network.addresses = {{"eth0", *ParseInterfaceAddress("192.168.1.2/24")}};
  Put(network, "ip -4 route add default via 192.168.1.1 dev eth0");
  Put(network, "ip -4 route add default via 10.77.0.1 dev wlan0 metric 600");
  Put(network, "ip -4 route add 10.0.0.0/8 via 10.77.0.1 dev wlan0");
  Put(network, "ip -6 route add default via fe80::1 dev eth0 metric 1024");
  Put(network, "ip -4 route add 0.0.0.0/1 dev adit0");
  Put(network, "ip -4 route add 128.0.0.0/1 dev adit0");
  return network;
}

NetSnapshot WithoutEthernet() {
  NetSnapshot network = Network();
  std::erase_if(network.routes, [](const Route& route) { return route.device == "eth0"; });
  return network;
}

TEST(UplinkChoice, LeavesItToTheRoutingTableUntilItIsToldTo) {
  UplinkChoice choice("adit0");
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), std::nullopt);
  choice.Forget();
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), std::nullopt);
  choice.Decide(Network());
  choice.Release();
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), std::nullopt);
}

TEST(UplinkChoice, IsTheBestWayForEachDestinationThatIsNotTheTunnel) {
  UplinkChoice choice("adit0");
  choice.Decide(Network());
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(kEthernet));
  EXPECT_EQ(choice.LinkTo(I("10.1.2.3")), Link_(kWifi));
  EXPECT_EQ(choice.LinkTo(I("2001:db8:f::10")), Link_(kEthernet));
}

TEST(UplinkChoice, IsNotMadeForOwnAddressesNorForThoseOfALink) {
  UplinkChoice choice("adit0");
  choice.Decide(Network());
  // A proxy on this machine, and what the local table takes in any case.
  EXPECT_EQ(choice.LinkTo(I("127.0.0.1")), std::nullopt);
  EXPECT_EQ(choice.LinkTo(I("::1")), std::nullopt);
  EXPECT_EQ(choice.LinkTo(I("192.168.1.2")), std::nullopt);
  EXPECT_EQ(choice.LinkTo(I("fe80::1")), std::nullopt);
}

TEST(UplinkChoice, FailsClosedWhereItCannotDecide) {
  UplinkChoice choice("adit0");
  choice.Decide(Network());
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(kEthernet));
  choice.Forget();
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(0)) << "also what was known before";
  EXPECT_EQ(choice.LinkTo(I("203.0.113.11")), Link_(0));
  NetSnapshot nowhere = Network();
  std::erase_if(nowhere.routes, [](const Route& route) { return route.device != "adit0"; });
  choice.Decide(nowhere);
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(0)) << "nothing but the tunnel leads there";
  choice.Decide(Network());
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(kEthernet));
  NetSnapshot down = Network();
  down.links[0].is_up = false;
  std::erase_if(down.routes, [](const Route& route) { return route.device == "wlan0"; });
  choice.Decide(down);
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(0)) << "a link that is down";
}

TEST(UplinkChoice, FollowsTheNetworkAndSaysWhenSomebodyIsConcerned) {
  UplinkChoice choice("adit0");
  EXPECT_TRUE(choice.Decide(Network())) << "from now on";
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(kEthernet));
  EXPECT_FALSE(choice.Decide(Network()));
  EXPECT_TRUE(choice.Decide(WithoutEthernet()));
  EXPECT_EQ(choice.LinkTo(I("203.0.113.10")), Link_(kWifi));
  EXPECT_EQ(choice.LinkTo(I("2001:db8:f::10")), Link_(0));
  choice.Forget();
  EXPECT_TRUE(choice.Decide(WithoutEthernet())) << "they can leave again";
}

TEST(UplinkChoice, RemembersABoundedNumber) {
  UplinkChoice choice("adit0");
  choice.Decide(Network());
  for (std::uint32_t i = 0; i < 3 * UplinkChoice::kMaxRemembered; ++i) {
    const std::uint8_t bytes[] = {static_cast<std::uint8_t>(i % 2 == 0 ? 10 : 11), 0, static_cast<std::uint8_t>(i >> 8),
                                  static_cast<std::uint8_t>(i)};
    ASSERT_EQ(choice.LinkTo(IpAddress::V4(bytes)), Link_(i % 2 == 0 ? kWifi : kEthernet)) << i;
  }
}

TEST(UplinkChoice, MayBeAskedWhileItChanges) {
  UplinkChoice choice("adit0");
  choice.Decide(Network());
  std::jthread asker([&](const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      const auto link = choice.LinkTo(I("203.0.113.10"));
      ASSERT_TRUE(link == Link_(kEthernet) || link == Link_(kWifi) || link == Link_(0)) << link.value_or(99);
    }
  });
  for (int i = 0; i < 300; ++i) {
    choice.Decide(i % 2 == 0 ? WithoutEthernet() : Network());
    if (i % 3 == 0) choice.Forget();
  }
}

}  // namespace
}  // namespace adit
