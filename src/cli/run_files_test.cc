#include "cli/run_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace adit {
namespace {

using ::testing::HasSubstr;

class RunFilesTest : public ::testing::Test {
 protected:
  RunFilesTest() {
    char path[] = "/tmp/adit-run-XXXXXX";
    folder_ = mkdtemp(path);
    setenv("ADIT_RUN_DIR", (folder_ + "/adit").c_str(), 1);
  }
  ~RunFilesTest() override {
    unsetenv("ADIT_RUN_DIR");
    std::filesystem::remove_all(folder_);
  }
  std::string folder_;
};

TEST_F(RunFilesTest, LieInTheFolderOfTheEnvironment) {
  const RunFiles files = RunFilesOf("wg0");
  EXPECT_EQ(files.socket, folder_ + "/adit/wg0.sock");
  EXPECT_EQ(files.journal, folder_ + "/adit/wg0.journal");
  unsetenv("ADIT_RUN_DIR");
  EXPECT_EQ(RunFilesOf("wg0").socket, "/run/adit/wg0.sock");
}

TEST_F(RunFilesTest, SecondLockIsRefusedAndNamesTheFirst) {
  const RunFiles files = RunFilesOf("wg0");
  {
    const auto first = TunnelLock::Take(files);
    ASSERT_TRUE(first) << first.error().message;
    const auto second = TunnelLock::Take(files);
    ASSERT_FALSE(second);
    EXPECT_EQ(second.error().code, EWOULDBLOCK);
    EXPECT_THAT(second.error().message, HasSubstr(std::to_string(getpid())));
    EXPECT_TRUE(TunnelLock::Take(RunFilesOf("wg1"))) << "another name is free";
  }
  EXPECT_FALSE(std::filesystem::exists(files.lock));
  EXPECT_TRUE(TunnelLock::Take(files));
}

TEST_F(RunFilesTest, KillReleasesTheLock) {
  const RunFiles files = RunFilesOf("wg0");
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const auto lock = TunnelLock::Take(files);
    const char taken = lock ? 1 : 0;
    if (write(ready[1], &taken, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char taken = 0;
  ASSERT_EQ(read(ready[0], &taken, 1), 1);
  ASSERT_EQ(taken, 1);
  EXPECT_EQ(TunnelLock::Take(files).error().code, EWOULDBLOCK);
  kill(child, SIGKILL);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_TRUE(std::filesystem::exists(files.lock)) << "it had no time to remove it";
  EXPECT_TRUE(TunnelLock::Take(files));
  close(ready[0]);
  close(ready[1]);
}

TEST_F(RunFilesTest, FolderThatCannotBeMadeIsASentence) {
  setenv("ADIT_RUN_DIR", "/proc/no-such-folder", 1);
  const auto lock = TunnelLock::Take(RunFilesOf("wg0"));
  ASSERT_FALSE(lock);
  EXPECT_THAT(lock.error().message, HasSubstr("/proc/no-such-folder"));
}

TEST_F(RunFilesTest, ListsTunnelsByTheirFilesSorted) {
  EXPECT_EQ(KnownTunnels().value(), std::vector<std::string>());
  std::filesystem::create_directory(folder_ + "/adit");
  EXPECT_EQ(KnownTunnels().value(), std::vector<std::string>());
  for (const char* name : {"wg1.sock", "wg1.journal", "wg0.lock", "eth0.5.journal", "note.txt", "a b.sock", "wg3"}) {
    std::ofstream(folder_ + "/adit/" + name) << "x";
  }
  EXPECT_EQ(KnownTunnels().value(), (std::vector<std::string>{"eth0.5", "wg0", "wg1"}));
}

}  // namespace
}  // namespace adit
