#include "routing/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace adit {
namespace {

using ::testing::HasSubstr;

class JournalTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/adit-journal-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
    path_ = folder_ + "/run/adit0.journal";
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  void Append(const char* text) { std::ofstream(path_, std::ios::app) << text; }

  const JournalHeader header_{"adit0", 7, "4:4026531840"};
  const std::vector<Op> ops_ = {SetMtu{"adit0", 1420, 1500},
                                *ParseOp("ip -4 route add default dev adit0 table 30568 proto static"),
                                *ParseOp("ip -6 rule add pref 10500 fwmark 0x1000/0x3000 lookup main protocol kernel")};
  std::string folder_;
  std::string path_;
};

TEST_F(JournalTest, ReadsBackWhatWasWritten) {
  auto journal = Journal::Create(path_, header_);
  ASSERT_TRUE(journal) << journal.error().message;
  ASSERT_TRUE(journal->WriteIntents(ops_));
  const auto contents = ReadJournal(path_);
  ASSERT_TRUE(contents) << contents.error().message;
  EXPECT_EQ(contents->header, header_);
  EXPECT_TRUE(contents->ops == ops_);
}

TEST_F(JournalTest, LeavesOutWhatFailed) {
  auto journal = Journal::Create(path_, header_);
  ASSERT_TRUE(journal->WriteIntents(ops_));
  ASSERT_TRUE(journal->WriteFailure(1));
  EXPECT_TRUE(ReadJournal(path_)->ops == (std::vector<Op>{ops_[0], ops_[2]}));
}

TEST_F(JournalTest, LeavesOutWhatWasTakenBackMeanwhile) {
  auto journal = Journal::Create(path_, header_);
  ASSERT_TRUE(journal->WriteIntents(ops_));
  const std::size_t gone[] = {0, 2};
  ASSERT_TRUE(journal->WriteRemovals(gone));
  EXPECT_TRUE(ReadJournal(path_)->ops == (std::vector<Op>{ops_[1]}));
  // The same again is a new intent.
  EXPECT_EQ(journal->intent_count(), 3U);
  ASSERT_TRUE(journal->WriteIntents(std::span(ops_).first(1)));
  EXPECT_TRUE(ReadJournal(path_)->ops == (std::vector<Op>{ops_[1], ops_[0]}));
}

TEST_F(JournalTest, IsWrittenAnewInOneGoAndStaysLocked) {
  auto journal = Journal::Create(path_, header_);
  ASSERT_TRUE(journal->WriteIntents(ops_));
  ASSERT_TRUE(journal->Rewrite(std::span(ops_).first(2)));
  EXPECT_EQ(journal->intent_count(), 2U);
  auto contents = ReadJournal(path_);
  ASSERT_TRUE(contents) << contents.error().message;
  EXPECT_EQ(contents->header, header_);
  EXPECT_TRUE(contents->ops == (std::vector<Op>{ops_[0], ops_[1]}));
  EXPECT_FALSE(Journal::Adopt(path_)) << "the new file is locked too";
  ASSERT_TRUE(journal->WriteFailure(1));
  EXPECT_TRUE(ReadJournal(path_)->ops == (std::vector<Op>{ops_[0]}));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/run"), {}), 1) << "nothing lies about";
}

TEST_F(JournalTest, TakesTheRestOfAKilledRewriteWithIt) {
  auto journal = Journal::Create(path_, header_);
  std::ofstream(path_ + ".new") << "adit-jour";
  ASSERT_TRUE(journal->Remove());
  EXPECT_TRUE(std::filesystem::is_empty(folder_ + "/run"));
}

TEST_F(JournalTest, IgnoresALastLineThatWasNotFinished) {
  {
    auto journal = Journal::Create(path_, header_);
    ASSERT_TRUE(journal->WriteIntents(std::span(ops_).first(1)));
  }
  Append("+ ip -4 route add def");
  const auto contents = ReadJournal(path_);
  ASSERT_TRUE(contents) << contents.error().message;
  EXPECT_EQ(contents->ops.size(), 1U);
}

TEST_F(JournalTest, AnEmptyFileIsAnEmptyJournal) {
  std::filesystem::create_directories(folder_ + "/run");
  Append("adit-journal 1 dev ad");
  const auto contents = ReadJournal(path_);
  ASSERT_TRUE(contents) << contents.error().message;
  EXPECT_TRUE(contents->ops.empty());
}

TEST_F(JournalTest, RefusesALineThatItCannotRead) {
  {
    ASSERT_TRUE(Journal::Create(path_, header_));
  }
  for (const char* line : {"+ rm -rf /\n", "! 1\n", "whatever\n"}) {
    const auto size = std::filesystem::file_size(path_);
    Append(line);
    const auto contents = ReadJournal(path_);
    ASSERT_FALSE(contents) << line;
    EXPECT_THAT(contents.error().message, HasSubstr(path_ + ":2:"));
    std::filesystem::resize_file(path_, size);
  }
}

TEST_F(JournalTest, NeverOverwritesAnOlderOne) {
  {
    ASSERT_TRUE(Journal::Create(path_, header_));
  }
  const auto second = Journal::Create(path_, header_);
  ASSERT_FALSE(second);
  EXPECT_THAT(second.error().message, HasSubstr("adit cleanup adit0"));
}

TEST_F(JournalTest, CannotBeAdoptedWhileItsOwnerLives) {
  {
    auto owner = Journal::Create(path_, header_);
    ASSERT_TRUE(owner);
    const auto other = Journal::Adopt(path_);
    ASSERT_FALSE(other);
    EXPECT_EQ(other.error().code, EBUSY);
  }
  EXPECT_TRUE(Journal::Adopt(path_));
}

}  // namespace
}  // namespace adit
