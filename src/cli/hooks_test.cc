#include "cli/hooks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "cli/process.h"

namespace adit {
namespace {

using ::testing::HasSubstr;

// A folder of its own that is removed with everything in it.
class Folder {
 public:
  Folder() {
    char path[] = "/tmp/adit-hooks-XXXXXX";
    path_ = mkdtemp(path);
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  std::string Read(const std::string& name) const {
    std::ifstream file(File(name));
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }

 private:
  std::string path_;
};

TEST(Hooks, ExpandsEveryNameOfTheInterface) {
  EXPECT_EQ(ExpandHook("ip link show %i; echo %i%i", "wg0"), "ip link show wg0; echo wg0wg0");
  EXPECT_EQ(ExpandHook("%", "wg0"), "%");
  EXPECT_EQ(ExpandHook("date +%s", "wg0"), "date +%s");
  EXPECT_EQ(ExpandHook("%%i", "wg0"), "%wg0") << "wg-quick has no escape for it either";
  EXPECT_EQ(ExpandHook("", "wg0"), "");
}

TEST(Hooks, RunInOrderWithTheTunnelsName) {
  const Folder folder;
  Loop loop;
  const std::vector<std::string> commands = {
      "echo first %i >> " + folder.File("out"),
      "echo second $WIREGUARD_TUNNEL_NAME >> " + folder.File("out"),
  };
  ASSERT_TRUE(RunHooks(loop, HookPhase::kPreUp, commands, "wg7"));
  EXPECT_EQ(folder.Read("out"), "first wg7\nsecond wg7\n");
}

TEST(Hooks, FirstFailureEndsTheRowAndIsNamed) {
  const Folder folder;
  Loop loop;
  const std::vector<std::string> commands = {"true", "exit 7", "touch " + folder.File("out")};
  const auto ran = RunHooks(loop, HookPhase::kPostUp, commands, "wg0");
  ASSERT_FALSE(ran);
  EXPECT_THAT(ran.error().message, HasSubstr("PostUp = exit 7"));
  EXPECT_THAT(ran.error().message, HasSubstr("exit code 7"));
  EXPECT_FALSE(std::filesystem::exists(folder.File("out")));
}

TEST(Hooks, ShellIsBashWhereThereIsOne) {
  if (access("/bin/bash", X_OK) != 0) GTEST_SKIP() << "no /bin/bash";
  Loop loop;
  const std::vector<std::string> commands = {"[[ $(cat <(echo inner)) == inner ]]"};
  EXPECT_TRUE(RunHooks(loop, HookPhase::kPreUp, commands, "wg0"));
}

TEST(Hooks, LoopServesWhileAHookRuns) {
  const Folder folder;
  Loop loop;
  // The hook waits for a file that only a handler of the loop makes: it would hang if the loop stood still.
  boost::asio::steady_timer timer(loop.io(), std::chrono::milliseconds(20));
  timer.async_wait([&](const boost::system::error_code&) { std::ofstream(folder.File("go")) << "go"; });
  const std::vector<std::string> commands = {"while [ ! -e " + folder.File("go") + " ]; do sleep 0.01; done"};
  EXPECT_TRUE(RunHooks(loop, HookPhase::kPostUp, commands, "wg0"));
}

TEST(Hooks, EndOfTheLoopEndsAHookOnTheWayUpOnly) {
  const Folder folder;
  Loop loop;
  boost::asio::steady_timer timer(loop.io(), std::chrono::milliseconds(50));
  timer.async_wait([&](const boost::system::error_code&) { loop.Finish(End::kAsked); });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(RunHooks(loop, HookPhase::kPreUp, std::vector<std::string>{"exec sleep 30"}, "wg0"));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
  EXPECT_TRUE(loop.has_ended());
  EXPECT_TRUE(RunHooks(loop, HookPhase::kPostDown, std::vector<std::string>{"touch " + folder.File("out")}, "wg0"));
  EXPECT_TRUE(std::filesystem::exists(folder.File("out")));
}

TEST(Process, GetsItsInputAndDefaultSignals) {
  const Folder folder;
  Loop loop;  // ignores SIGPIPE in this process
  const auto copied =
      RunProgram(loop, {{"sh", "-c", "cat > " + folder.File("out")}, {}, "nameserver 10.0.0.1\n"}, false);
  ASSERT_TRUE(copied);
  EXPECT_EQ(*copied, 0);
  EXPECT_EQ(folder.Read("out"), "nameserver 10.0.0.1\n");
  const auto killed = RunProgram(loop, {{"sh", "-c", "kill -PIPE $$"}, {}, ""}, false);
  ASSERT_TRUE(killed);
  EXPECT_EQ(*killed, 128 + SIGPIPE);
}

TEST(Process, ProgramThatIsNotThereIsAnErrorThatNamesIt) {
  Loop loop;
  const auto ran = RunProgram(loop, {{"/no/such/program"}, {}, ""}, false);
  ASSERT_FALSE(ran);
  EXPECT_THAT(ran.error().message, HasSubstr("/no/such/program"));
  EXPECT_FALSE(IsInPath("no-such-program-anywhere"));
  EXPECT_TRUE(IsInPath("sh"));
}

}  // namespace
}  // namespace adit
