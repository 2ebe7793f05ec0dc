#include "tunnel/published.h"

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <thread>

namespace adit {
namespace {

TEST(Published, GivesTheLatestValue) {
  Published<int> published(std::make_shared<int>(1));
  EXPECT_EQ(*published.Get(), 1);
  published.Publish(std::make_shared<int>(2));
  EXPECT_EQ(*published.Get(), 2);
}

TEST(Published, ReaderSeesAChangeOnItsNextRefreshOnly) {
  Published<int> published(std::make_shared<int>(1));
  Published<int>::Reader reader(published);
  EXPECT_EQ(reader.Refresh(), 1);
  published.Publish(std::make_shared<int>(2));
  EXPECT_EQ(reader.Current(), 1);
  EXPECT_EQ(reader.Refresh(), 2);
  EXPECT_EQ(reader.Current(), 2);
}

TEST(Published, KeepsAValueAsLongAsSomebodyReadsIt) {
  auto first = std::make_shared<int>(1);
  const std::weak_ptr<int> watch = first;
  Published<int> published(std::move(first));
  Published<int>::Reader reader(published);
  reader.Refresh();
  published.Publish(std::make_shared<int>(2));
  EXPECT_FALSE(watch.expired());
  reader.Release();
  EXPECT_TRUE(watch.expired());
  EXPECT_EQ(reader.Refresh(), 2);
}

TEST(Published, ReleaseThenRefreshGivesTheSameValueIfNothingChanged) {
  Published<int> published(std::make_shared<int>(1));
  Published<int>::Reader reader(published);
  const int* const before = &reader.Refresh();
  reader.Release();
  EXPECT_EQ(&reader.Refresh(), before);
}

// Both members always come from one Publish().
TEST(Published, IsNeverSeenHalfChanged) {
  struct Two {
    std::uint64_t a, b;
  };
  Published<Two> published(std::make_shared<Two>(0u, 0u));
  std::atomic<bool> stop = false;
  std::jthread thread([&] {
    Published<Two>::Reader reader(published);
    std::uint64_t last = 0;
    for (std::uint64_t i = 0; !stop; ++i) {
      const Two& two = reader.Refresh();
      ASSERT_EQ(two.a, two.b);
      ASSERT_GE(two.a, last);
      last = two.a;
      if (i % 7 == 0) reader.Release();
    }
  });
  for (std::uint64_t i = 1; i <= 20'000; ++i) published.Publish(std::make_shared<Two>(i, i));
  stop = true;
}

}  // namespace
}  // namespace adit
