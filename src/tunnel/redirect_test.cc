// A peer that is to be found elsewhere.
#include <gtest/gtest.h>

#include "tunnel/test_pair.h"

namespace adit {
namespace {

class Redirect : public ::testing::Test {
 protected:
  void To(std::string_view address) {
    auto& alice = pair_.alice;
    alice.tunnel.Redirect(pair_.bob.public_key(), At(address), pair_.clock.now(), alice.outbox);
    alice.Settle();
  }
  PeerReach reach() const { return pair_.alice.tunnel.ReachOf(pair_.bob.public_key()); }
  TestPair pair_;
};

TEST_F(Redirect, AnUnansweredInitiationGoesToTheNewPlaceAtOnce) {
  pair_.alice.Send(TestPair::ToBob());
  EXPECT_EQ(pair_.alice.TakeOne().to, At(TestPair::kBobAt));
  EXPECT_TRUE(reach().is_trying);
  pair_.clock.boot += 2s;
  To("192.0.2.9:3333");
  const Datagram initiation = pair_.alice.TakeOne();
  EXPECT_TRUE(initiation.is(MessageType::kInitiation));
  EXPECT_EQ(initiation.to, At("192.0.2.9:3333"));
  // It is as good as any: Bob, who is there in truth, answers, and the packet that waited arrives.
  pair_.bob.address = At("192.0.2.9:3333");
  pair_.Deliver(initiation);
  pair_.Drive();
  EXPECT_EQ(pair_.bob.received.size(), 1u);
  EXPECT_FALSE(reach().is_trying);
  EXPECT_TRUE(reach().last_handshake);
}

TEST_F(Redirect, RetriesGoOnFromThere) {
  pair_.alice.Send(TestPair::ToBob());
  To("192.0.2.9:3333");
  pair_.alice.Take();
  pair_.Pass(5s + 400ms, /*is_connected=*/false);
  EXPECT_EQ(pair_.alice.CountSent(MessageType::kInitiation), 3u);
  EXPECT_EQ(pair_.alice.sent.back().to, At("192.0.2.9:3333"));
}

TEST_F(Redirect, NothingIsSentWhileNothingIsTried) {
  EXPECT_FALSE(reach().is_trying);
  To("192.0.2.9:3333");
  EXPECT_TRUE(pair_.alice.sent.empty());
  pair_.alice.Send(TestPair::ToBob());
  EXPECT_EQ(pair_.alice.TakeOne().to, At("192.0.2.9:3333"));
}

}  // namespace
}  // namespace adit
