#include "routing/table_names.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

class TableNamesTest : public ::testing::Test {
 protected:
  TableNamesTest() {
    char path[] = "/tmp/adit-tables-XXXXXX";
    root_ = mkdtemp(path);
    folders_ = {root_ + "/etc", root_ + "/usr"};
    std::filesystem::create_directory(folders_.etc);
    std::filesystem::create_directories(folders_.usr + "/rt_tables.d");
  }
  ~TableNamesTest() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  std::string Read(const std::string& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
  std::string root_;
  TableNameFolders folders_;
};

TEST(TableNames, AreParsedAsIproute2Does) {
  EXPECT_THAT(ParseTableNames("#\n# reserved values\n255\tlocal\n 0x10 sixteen # yes\nnothing\n12x bad\n7\n\n8 eight"),
              ElementsAre(Pair(8, "eight"), Pair(16, "sixteen"), Pair(255, "local")));
}

TEST_F(TableNamesTest, OfOthersAreReadFromAllPlaces) {
  Write(folders_.etc + "/rt_tables", "254 main\n100 one\n");
  Write(folders_.usr + "/rt_tables", "30567 two\n");
  Write(folders_.usr + "/rt_tables.d/x.conf", "102 three\n");
  Write(folders_.usr + "/rt_tables.d/adit-wg9.conf", "103 ours\n");
  Write(folders_.usr + "/rt_tables.d/README", "104 four\n");
  EXPECT_THAT(ReadForeignTableNames(folders_), ElementsAre(Pair(100, "one"), Pair(102, "three"), Pair(30567, "two")));
}

TEST_F(TableNamesTest, OursAreThereUntilTheyAreRemoved) {
  const std::string file = folders_.etc + "/rt_tables.d/adit-wg0.conf";
  Write(folders_.etc + "/rt_tables", "1 adit-wg0\n");
  WriteTableNames("wg0", 30567, 30568, folders_);
  EXPECT_THAT(ParseTableNames(Read(file)), ElementsAre(Pair(30567, "adit-wg0-specific"), Pair(30568, "adit-wg0_")));
  WriteTableNames("wg0", 0, 30570, folders_);
  EXPECT_THAT(ParseTableNames(Read(file)), ElementsAre(Pair(30570, "adit-wg0_")));
  WriteTableNames("wg0", 0, 0, folders_);
  EXPECT_FALSE(std::filesystem::exists(folders_.etc + "/rt_tables.d")) << "the folder was ours";
  std::filesystem::create_directory(folders_.etc + "/rt_tables.d");
  WriteTableNames("wg0", 30567, 30568, folders_);
  RemoveTableNames("wg0", folders_);
  EXPECT_TRUE(std::filesystem::is_empty(folders_.etc + "/rt_tables.d"));
}

TEST_F(TableNamesTest, WithoutIproute2NothingIsWritten) {
  std::filesystem::remove(folders_.etc);
  WriteTableNames("wg0", 30567, 30568, folders_);
  EXPECT_FALSE(std::filesystem::exists(folders_.etc));
  RemoveTableNames("wg0", folders_);
}

}  // namespace
}  // namespace adit
