#include "tunnel/keypair.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <memory>
#include <new>
#include <thread>
#include <vector>

namespace adit {
namespace {

constexpr Instant kStart = Instant(1000s);

ByteArray<32> KeyOf(std::uint8_t fill) {
  ByteArray<32> key;
  key.fill(fill);
  return key;
}

std::unique_ptr<Keypair> MakeKeypair() {
  return std::make_unique<Keypair>(KeyOf(0xa1), KeyOf(0xb2), 1, 2, /*initiator=*/true, kStart);
}

TEST(Keypair, CountsFromZeroAndNeverGivesACounterTwice_CONF82) {
  const auto keypair = MakeKeypair();
  const ProtocolLimits limits;
  EXPECT_EQ(keypair->ReserveCounters(1, limits), 0u);
  EXPECT_EQ(keypair->ReserveCounters(10, limits), 1u);
  EXPECT_EQ(keypair->ReserveCounters(0, limits), 11u);
  EXPECT_EQ(keypair->ReserveCounters(1, limits), 11u);
  EXPECT_EQ(keypair->next_send_counter(), 12u);
}

TEST(Keypair, CountsPastThirtyTwoBits_CONF82) {
  const auto keypair = MakeKeypair();
  const ProtocolLimits limits;
  constexpr std::uint64_t kTwoTo32 = std::uint64_t{1} << 32;
  ASSERT_TRUE(keypair->ReserveCounters(kTwoTo32 - 1, limits));
  EXPECT_EQ(keypair->ReserveCounters(1, limits), kTwoTo32 - 1);
  EXPECT_EQ(keypair->ReserveCounters(1, limits), kTwoTo32);
  EXPECT_EQ(keypair->ReserveCounters(1, limits), kTwoTo32 + 1);
}

TEST(Keypair, StopsAtTheLimitForGood_CONF21_CONF42_CONF82) {
  const auto keypair = MakeKeypair();
  const ProtocolLimits limits;
  constexpr std::uint64_t kLimit = UINT64_MAX - 8192;  // 2^64 - 2^13 - 1
  ASSERT_TRUE(keypair->ReserveCounters(kLimit - 2, limits));
  EXPECT_EQ(keypair->ReserveCounters(3, limits), std::nullopt);  // a batch is not torn apart
  EXPECT_EQ(keypair->ReserveCounters(UINT64_MAX, limits), std::nullopt);
  EXPECT_EQ(keypair->ReserveCounters(2, limits), kLimit - 2);
  EXPECT_EQ(keypair->ReserveCounters(1, limits), std::nullopt);
  EXPECT_EQ(keypair->ReserveCounters(0, limits), std::nullopt);
  EXPECT_EQ(keypair->next_send_counter(), kLimit);
}

TEST(Keypair, GivesEveryThreadCountersOfItsOwn_CONF82) {
  constexpr std::uint64_t kRuns = 5000, kLength = 3;
  const auto keypair = MakeKeypair();
  const ProtocolLimits limits;
  std::array<std::vector<std::uint64_t>, 4> firsts;
  {
    std::vector<std::jthread> threads;
    for (auto& mine : firsts) {
      threads.emplace_back([&] {
        for (std::uint64_t i = 0; i < kRuns; ++i) mine.push_back(keypair->ReserveCounters(kLength, limits).value());
      });
    }
  }
  std::vector<std::uint64_t> all;
  for (const auto& mine : firsts) all.insert(all.end(), mine.begin(), mine.end());
  std::ranges::sort(all);
  ASSERT_EQ(all.size(), kRuns * firsts.size());
  for (std::size_t i = 0; i < all.size(); ++i) ASSERT_EQ(all[i], i * kLength);
}

TEST(Keypair, ExpiresAt180Seconds_CONF23_CONF42_CONF58) {
  const auto keypair = MakeKeypair();
  const ProtocolLimits limits;
  EXPECT_FALSE(keypair->IsExpired(kStart, limits));
  EXPECT_FALSE(keypair->IsExpired(kStart + 180s - 1ns, limits));
  EXPECT_TRUE(keypair->IsExpired(kStart + 180s, limits));
  EXPECT_TRUE(keypair->IsExpired(kStart + 24h, limits));
}

TEST(Keypair, LeavesNothingOfItsKeysInMemory_CONF95) {
  alignas(Keypair) std::array<unsigned char, sizeof(Keypair)> place{};
  const auto holds = [&place](std::uint8_t fill) {
    return !std::ranges::search(place, std::vector<unsigned char>(8, fill)).empty();
  };
  auto* const keypair = new (place.data()) Keypair(KeyOf(0xa1), KeyOf(0xb2), 1, 2, true, kStart);
  EXPECT_TRUE(holds(0xa1));
  EXPECT_TRUE(holds(0xb2));
  keypair->~Keypair();
  EXPECT_FALSE(holds(0xa1));
  EXPECT_FALSE(holds(0xb2));
}

}  // namespace
}  // namespace adit
