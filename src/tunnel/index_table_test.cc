#include "tunnel/index_table.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

#include "tunnel/peer.h"

namespace adit {
namespace {

class IndexTableTest : public testing::Test {
 protected:
  static std::shared_ptr<Keypair> KeypairAt(std::uint32_t index) {
    return std::make_shared<Keypair>(ByteArray<32>{}, ByteArray<32>{}, index, 0, true, Instant(1s));
  }

  ProtocolLimits limits_;
  std::shared_ptr<Peer> peer_ = std::make_shared<Peer>(0, PublicKey{}, limits_);
  IndexTable table_;
};

TEST_F(IndexTableTest, FindsWhatWasInsertedAndNothingElse) {
  const auto keypair = KeypairAt(0xfffffffe);
  table_.Insert(keypair, peer_);
  EXPECT_EQ(table_.Find(0xfffffffe).keypair, keypair);
  EXPECT_EQ(table_.Find(0xfffffffe).peer, peer_);
  EXPECT_TRUE(table_.Contains(0xfffffffe));
  for (const std::uint32_t other : {0u, 1u, 0xffffffffu, 0xfffffffdu}) {
    EXPECT_EQ(table_.Find(other).keypair, nullptr);
    EXPECT_EQ(table_.Find(other).peer, nullptr);
    EXPECT_FALSE(table_.Contains(other));
  }
}

TEST_F(IndexTableTest, ForgetsWhatIsRemoved) {
  table_.Insert(KeypairAt(1), peer_);
  table_.Insert(KeypairAt(2), peer_);
  table_.Remove(1);
  table_.Remove(1);
  table_.Remove(77);
  EXPECT_EQ(table_.size(), 1u);
  EXPECT_FALSE(table_.Contains(1));
  EXPECT_TRUE(table_.Contains(2));
}

// The keys go with the last reference, so the table must not keep one.
TEST_F(IndexTableTest, KeepsASessionAliveUntilItIsRemoved_CONF95) {
  auto keypair = KeypairAt(1);
  const std::weak_ptr<Keypair> watch = keypair;
  table_.Insert(keypair, peer_);
  keypair.reset();
  EXPECT_FALSE(watch.expired());
  {
    const Session in_use = table_.Find(1);
    table_.Remove(1);
    EXPECT_FALSE(watch.expired());  // by whoever works with it
  }
  EXPECT_TRUE(watch.expired());
}

TEST_F(IndexTableTest, ServesReadersWhileItChanges) {
  std::atomic<bool> stop = false;
  std::jthread reader([&] {
    while (!stop) {
      for (std::uint32_t index = 0; index < 8; ++index) {
        const Session session = table_.Find(index);
        ASSERT_EQ(session.keypair == nullptr, session.peer == nullptr);
        if (session.keypair) {
          ASSERT_EQ(session.keypair->local_index, index);
        }
      }
    }
  });
  for (std::uint32_t i = 0; i < 5000; ++i) {
    table_.Insert(KeypairAt(i % 8), peer_);
    table_.Remove((i + 3) % 8);
  }
  stop = true;
}

}  // namespace
}  // namespace adit
