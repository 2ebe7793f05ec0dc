#include "engine/pipeline.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>

namespace adit {
namespace {

struct Unit {
  std::uint64_t number = 0;
  std::uint64_t result = 0;
};

std::vector<std::unique_ptr<Unit>> Units(std::size_t count) {
  std::vector<std::unique_ptr<Unit>> units;
  for (std::size_t i = 0; i < count; ++i) units.push_back(std::make_unique<Unit>());
  return units;
}

const auto kNothing = [] {};

std::uint64_t Cipher(std::uint64_t number) { return number * 0x9e3779b97f4a7c15 + 1; }

std::vector<std::uint64_t> InOrder(std::uint64_t count) {
  std::vector<std::uint64_t> numbers(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

// Many units by several threads, each delayed by its own share of chance between the moment it was read and the moment
// it is finished. Returns their numbers as they left.
std::vector<std::uint64_t> RunShuffled(unsigned thread_count, std::size_t slots, std::uint64_t unit_count,
                                       std::uint64_t seed) {
  SCOPED_TRACE(::testing::Message() << thread_count << " threads, " << slots << " slots, seed " << seed);
  Pipeline<Unit> pipeline(Units(slots));
  std::uint64_t next = 0;           // the reader's
  std::vector<std::uint64_t> left;  // the leaver's
  std::atomic<int> readers{0}, leavers{0};
  std::atomic<std::uint64_t> overtaken{0};
  std::atomic<std::uint64_t> under_way{0}, most_under_way{0};
  std::atomic<bool> wrong_result{false};
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < thread_count; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(seed * 1000 + t);
      while (Unit* const unit = pipeline.BeginRead(kNothing)) {
        EXPECT_EQ(readers.fetch_add(1), 0);
        if (next == unit_count) {
          readers.fetch_sub(1);
          pipeline.Close();
          return;
        }
        unit->number = next++;
        unit->result = 0;
        const std::uint64_t now = under_way.fetch_add(1) + 1;
        if (now > most_under_way.load()) most_under_way.store(now);
        readers.fetch_sub(1);
        pipeline.EndRead(unit, /*calls_help=*/random() % 4 != 0);
        const auto delay = random() % 8;
        if (delay == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 200));
        if (delay == 1) std::this_thread::yield();
        unit->result = Cipher(unit->number);
        pipeline.Finish(unit, [&](Unit& first) {
          EXPECT_EQ(leavers.fetch_add(1), 0);
          if (&first != unit) overtaken.fetch_add(1);
          if (first.result != Cipher(first.number)) wrong_result = true;
          left.push_back(first.number);
          under_way.fetch_sub(1);
          leavers.fetch_sub(1);
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // Who closed saw the last unit read; those who still worked on one have handed it on before they ended.
  EXPECT_FALSE(wrong_result);
  EXPECT_LE(most_under_way, slots);
  if (thread_count > 1 && slots > 1) {
    EXPECT_GT(overtaken, 0u) << "nothing was ever out of order: this proves nothing";
  }
  return left;
}

TEST(Pipeline, KeepsTheOrderHoweverLongAUnitTakes) {
  const std::uint64_t seed = std::random_device{}();
  for (const unsigned threads : {1u, 2u, 4u, 8u})
    EXPECT_EQ(RunShuffled(threads, threads * 2, 3000, seed), InOrder(3000));
  EXPECT_EQ(RunShuffled(4, 2, 2000, seed), InOrder(2000));  // fewer slots than threads
  EXPECT_EQ(RunShuffled(3, 1, 1000, seed), InOrder(1000));
}

TEST(Pipeline, ReadsNothingWithoutAFreeSlot) {
  Pipeline<Unit> pipeline(Units(2));
  Unit* const first = pipeline.BeginRead(kNothing);
  pipeline.EndRead(first, false);
  Unit* const second = pipeline.BeginRead(kNothing);
  pipeline.EndRead(second, false);
  std::vector<Unit*> left;
  const auto leave = [&left](Unit& unit) { left.push_back(&unit); };

  std::atomic<Unit*> third{nullptr};
  std::thread reader([&] { third = pipeline.BeginRead(kNothing); });
  pipeline.Finish(second, leave);  // not its turn
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(third.load(), nullptr);
  EXPECT_TRUE(left.empty());
  pipeline.Finish(first, leave);
  reader.join();
  EXPECT_EQ(left, (std::vector<Unit*>{first, second}));
  EXPECT_NE(third.load(), nullptr);
}

TEST(Pipeline, WakesNobodyWhenNoHelpIsCalledFor) {
  Pipeline<Unit> pipeline(Units(4));
  std::atomic<int> asleep{0}, woken{0};
  Unit* unit = pipeline.BeginRead(kNothing);
  std::vector<std::thread> others;
  for (int i = 0; i < 3; ++i) {
    others.emplace_back([&] {
      Unit* const mine = pipeline.BeginRead([&asleep] { ++asleep; });
      if (mine == nullptr) return;
      ++woken;
      pipeline.EndRead(mine, false);
      pipeline.Finish(mine, [](Unit&) {});
    });
  }
  while (asleep < 3) std::this_thread::yield();
  for (int i = 0; i < 100; ++i) {
    pipeline.EndRead(unit, /*calls_help=*/false);
    pipeline.Finish(unit, [](Unit&) {});
    unit = pipeline.BeginRead(kNothing);
  }
  EXPECT_EQ(woken, 0);
  pipeline.EndRead(unit, /*calls_help=*/true);
  for (int i = 0; i < 5000 && woken == 0; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  EXPECT_EQ(woken, 1);
  pipeline.Finish(unit, [](Unit&) {});
  pipeline.Close();
  for (std::thread& other : others) other.join();
}

TEST(Pipeline, LetsTheReaderWaitUntilAllHasLeft) {
  Pipeline<Unit> pipeline(Units(3));
  Unit* const first = pipeline.BeginRead(kNothing);
  pipeline.EndRead(first, false);
  ASSERT_NE(pipeline.BeginRead(kNothing), nullptr);
  std::atomic<bool> has_left{false}, is_empty{false};
  std::thread worker([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_FALSE(is_empty);
    pipeline.Finish(first, [&](Unit&) { has_left = true; });
  });
  pipeline.WaitUntilEmpty();
  is_empty = true;
  EXPECT_TRUE(has_left);
  worker.join();
}

TEST(Pipeline, EndsForThoseWhoSleepAndThoseWhoComeLater) {
  Pipeline<Unit> pipeline(Units(2));
  ASSERT_NE(pipeline.BeginRead(kNothing), nullptr);
  std::atomic<bool> sleeps{false};
  std::thread other([&] { EXPECT_EQ(pipeline.BeginRead([&sleeps] { sleeps = true; }), nullptr); });
  while (!sleeps) std::this_thread::yield();
  pipeline.Close();
  other.join();
  EXPECT_EQ(pipeline.BeginRead(kNothing), nullptr);
}

}  // namespace
}  // namespace adit
