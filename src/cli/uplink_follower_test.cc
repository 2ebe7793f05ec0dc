#include "cli/uplink_follower.h"

#include <gtest/gtest.h>

#include <thread>

#include "routing/op.h"

namespace adit {
namespace {

const IpAddress kPeer = *IpAddress::Parse("203.0.113.10");

NetSnapshot Network(std::uint32_t index) {
  NetSnapshot network;
  network.links = {{.index = index, .name = "eth0", .mtu = 1500, .is_up = true, .address_generation = 0, .kind = {}}};
  network.routes = {std::get<AddRoute>(*ParseOp("ip -4 route add default via 192.168.1.1 dev eth0")).route};
  return network;
}

class UplinkFollowerTest : public testing::Test {
 protected:
  Status Start() {
    auto started = UplinkFollower::Start(io_, choice_,
                                         {.look = [this]() -> Result<NetSnapshot> {
                                            ++looks_;
                                            std::this_thread::sleep_for(look_takes_);
                                            if (fails_) return Fail("no answer");
                                            return Network(index_);
                                          },
                                          .on_changed = [this] { ++changes_; }});
    if (!started) return std::unexpected(started.error());
    follower_ = std::move(*started);
    return {};
  }
  std::uint32_t LinkNow() { return choice_->LinkTo(kPeer).value_or(99); }

  boost::asio::io_context io_;
  std::shared_ptr<UplinkChoice> choice_ = std::make_shared<UplinkChoice>("adit0");
  std::unique_ptr<UplinkFollower> follower_;
  Duration look_takes_{};
  std::uint32_t index_ = 2;
  bool fails_ = false;
  int looks_ = 0;
  int changes_ = 0;
};

TEST_F(UplinkFollowerTest, DecidesFromTheStart) {
  ASSERT_TRUE(Start());
  EXPECT_EQ(LinkNow(), 2U);
  fails_ = true;
  EXPECT_FALSE(Start()) << "without a first look nothing may rely on it";
}

TEST_F(UplinkFollowerTest, LooksAgainAtOnce) {
  ASSERT_TRUE(Start());
  ASSERT_EQ(LinkNow(), 2U);
  index_ = 3;
  io_.run_for(1ms);  // past the share of the first look
  std::this_thread::sleep_for(20ms);
  follower_->OnNetworkEvent();
  EXPECT_EQ(LinkNow(), 3U);
  EXPECT_EQ(changes_, 2);
}

TEST_F(UplinkFollowerTest, TakesAShareOfTheTimeAndFailsClosedInBetween) {
  look_takes_ = 20ms;
  ASSERT_TRUE(Start());
  ASSERT_EQ(LinkNow(), 2U);
  index_ = 3;
  for (int i = 0; i < 50; ++i) follower_->OnNetworkEvent();
  EXPECT_EQ(looks_, 1);
  EXPECT_EQ(LinkNow(), 0U) << "the network is another, and nobody has looked";
  io_.run_for(1s);
  EXPECT_EQ(looks_, 2);
  EXPECT_EQ(LinkNow(), 3U);
}

TEST_F(UplinkFollowerTest, LetsNothingOutWhileTheKernelDoesNotAnswer) {
  ASSERT_TRUE(Start());
  ASSERT_EQ(LinkNow(), 2U);
  std::this_thread::sleep_for(20ms);
  fails_ = true;
  follower_->OnNetworkEvent();
  EXPECT_EQ(LinkNow(), 0U);
  fails_ = false;
  io_.run_for(UplinkFollower::kRetryAfter + 500ms);
  EXPECT_EQ(LinkNow(), 2U);
}

TEST_F(UplinkFollowerTest, MayGoWhileItWaits) {
  look_takes_ = 5ms;
  ASSERT_TRUE(Start());
  follower_->OnNetworkEvent();
  follower_.reset();
  io_.run_for(200ms);
  EXPECT_EQ(looks_, 1);
}

}  // namespace
}  // namespace adit
