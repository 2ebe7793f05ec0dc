#include "tun/checksum.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <random>

#include "tun/test_packet.h"

namespace adit {
namespace {

std::uint16_t NaiveChecksum(Bytes data) { return MemoryWord(static_cast<std::uint16_t>(~test::NaiveSum(data))); }

TEST(Checksum, AgreesWithTheNaiveSumForEveryLengthAndAlignment) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  const auto data = test::RandomPayload(random, 4096);
  for (std::size_t start = 0; start < 65; ++start) {
    for (std::size_t bytes = 0; bytes < 600; ++bytes) {
      const Bytes range = Bytes(data).subspan(start, bytes);
      ASSERT_EQ(FinishChecksum(SumWords(range)), NaiveChecksum(range)) << "at " << start << ", " << bytes << " bytes";
    }
  }
}

TEST(Checksum, AgreesWithTheNaiveSumForLongRuns) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  for (int i = 0; i < 200; ++i) {
    const auto data = test::RandomPayload(random, random.Below(65536));
    ASSERT_EQ(FinishChecksum(SumWords(data)), NaiveChecksum(data)) << data.size() << " bytes";
  }
}

TEST(Checksum, DoesNotOverflowWhenAllBitsAreSet) {
  // More than one pass of the vector loop, and the largest words there are.
  const std::vector<std::uint8_t> data((std::size_t{3} << 20) + 7, 0xff);
  EXPECT_EQ(FinishChecksum(SumWords(data)), NaiveChecksum(data));
}

TEST(Checksum, SumsFixedLengthsAlike) {
  SeededRandom random(1);
  const auto data = test::RandomPayload(random, 41);
  EXPECT_EQ(FoldSum(SumFixed<8>(&data[1])), FoldSum(SumWords(Bytes(data).subspan(1, 8))));
  EXPECT_EQ(FoldSum(SumFixed<20>(&data[1])), FoldSum(SumWords(Bytes(data).subspan(1, 20))));
  EXPECT_EQ(FoldSum(SumFixed<40>(&data[1])), FoldSum(SumWords(Bytes(data).subspan(1, 40))));
}

TEST(Checksum, KnowsTheExampleOfRfc1071) {
  const std::uint8_t data[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};
  EXPECT_EQ(FoldSum(SumWords(data)), MemoryWord(0xddf2));
}

TEST(Checksum, FoldsAnySumToItsRemainder) {
  EXPECT_EQ(FoldSum(0), 0);
  EXPECT_EQ(FoldSum(0xffff), 0xffff);
  EXPECT_EQ(FoldSum(0x10000), 1);
  EXPECT_EQ(FoldSum(~WordSum{0}), 0xffff);  // 2^64 - 1 is a multiple of 0xffff
  EXPECT_EQ(FoldSum(0xffffffff00000001), 1);
}

TEST(Checksum, PseudoHeaderIsTheOneOfTheRfcs) {
  test::PacketSpec spec{.payload = {1, 2, 3}};
  const auto v4 = test::Build(spec);
  EXPECT_EQ(FoldSum(PseudoHeaderSum(&v4[12], false, 6, v4.size() - 20)),
            MemoryWord(static_cast<std::uint16_t>(test::NaivePseudoSum(v4, true, 20))));
  spec.is_v6 = true;
  const auto v6 = test::Build(spec);
  EXPECT_EQ(FoldSum(PseudoHeaderSum(&v6[8], true, 6, v6.size() - 40)),
            MemoryWord(static_cast<std::uint16_t>(test::NaivePseudoSum(v6, true, 40))));
}

TEST(Checksum, UpdatesAsIfComputedAnew) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE(fmt::format("seed {}", seed));
  SeededRandom random(seed);
  for (int i = 0; i < 2000; ++i) {
    auto data = test::RandomPayload(random, 40);
    const std::uint16_t before = FinishChecksum(SumWords(data));
    const std::size_t at = 2 * random.Below(20);
    const auto old_word = LoadAs<std::uint16_t>(&data[at]);
    const auto new_word = static_cast<std::uint16_t>(i % 3 == 0 ? 0 : random.NextU32());
    Store(&data[at], new_word);
    ASSERT_EQ(UpdateChecksum(before, old_word, new_word), FinishChecksum(SumWords(data)));
  }
}

TEST(Checksum, UpdateKeepsToEquation3OfRfc1624) {
  // The RFC's example, where the older equation gives 0xffff.
  EXPECT_EQ(UpdateChecksum(MemoryWord(0xdd2f), MemoryWord(0x5555), MemoryWord(0x3285)), MemoryWord(0x0000));
}

}  // namespace
}  // namespace adit
