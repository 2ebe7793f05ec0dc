#include "cli/conf_io.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "cli/resolve.h"
#include "crypto/primitives.h"

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kConf =
    "[Interface]\nPrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\nAddress = 10.0.0.2/32\n"
    "[Peer]\nPublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=\nAllowedIPs = 0.0.0.0/0\n"
    "Endpoint = 192.0.2.1:51820\n";

class ConfIoTest : public ::testing::Test {
 protected:
  ConfIoTest() {
    InitializeCrypto();
    char path[] = "/tmp/adit-conf-XXXXXX";
    folder_ = mkdtemp(path);
    file_ = folder_ + "/wg0.conf";
  }
  ~ConfIoTest() override { std::filesystem::remove_all(folder_); }
  void Write(const std::string& text, mode_t mode) {
    std::ofstream(file_) << text;
    chmod(file_.c_str(), mode);
  }
  std::string folder_;
  std::string file_;
};

TEST_F(ConfIoTest, MissingFileAndFolderAreConfigurationErrors) {
  EXPECT_EQ(LoadConf(file_).error().code, ExitCode::kConfiguration);
  EXPECT_THAT(LoadConf(file_).error().message, HasSubstr(file_));
  EXPECT_EQ(LoadConf(folder_).error().code, ExitCode::kConfiguration);
}

TEST_F(ConfIoTest, ErrorsNameFileAndLine) {
  Write("[Interface]\nPrivateKey = nonsense\n", 0600);
  const auto loaded = LoadConf(file_);
  ASSERT_FALSE(loaded);
  EXPECT_EQ(loaded.error().code, ExitCode::kConfiguration);
  EXPECT_THAT(loaded.error().message, HasSubstr(file_ + ":2: "));
}

TEST_F(ConfIoTest, WarnsOfAFileThatEverybodyMayRead) {
  Write(kConf, 0644);
  const auto open = LoadConf(file_);
  ASSERT_TRUE(open) << open.error().message;
  EXPECT_THAT(open->warnings, ElementsAre(HasSubstr("everybody")));
  Write(kConf, 0600);
  EXPECT_THAT(LoadConf(file_)->warnings, IsEmpty());
}

TEST_F(ConfIoTest, RefusesAFileWithoutEnd) {
  std::ofstream(file_) << std::string(kMaxConfFileBytes + 1, '#');
  EXPECT_EQ(LoadConf(file_).error().code, ExitCode::kConfiguration);
}

TEST_F(ConfIoTest, SavedFileIsPrivateAndReadsBack) {
  Write(kConf, 0644);
  auto loaded = LoadConf(file_);
  ASSERT_TRUE(loaded);
  loaded->conf.interface.listen_port = 4242;
  ASSERT_TRUE(SaveConf(loaded->conf, file_));
  struct stat info{};
  ASSERT_EQ(stat(file_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const auto again = LoadConf(file_);
  ASSERT_TRUE(again) << again.error().message;
  EXPECT_EQ(again->conf.interface.listen_port, 4242);
  EXPECT_EQ(again->conf.peers.size(), 1u);
  EXPECT_FALSE(std::filesystem::exists(file_ + ".tmp"));
}

TEST_F(ConfIoTest, SavingThroughALinkKeepsTheLink) {
  Write(kConf, 0600);
  const std::string link = folder_ + "/link.conf";
  std::filesystem::create_symlink(file_, link);
  const auto loaded = LoadConf(link);
  ASSERT_TRUE(loaded);
  ASSERT_TRUE(SaveConf(loaded->conf, link));
  EXPECT_TRUE(std::filesystem::is_symlink(link));
}

TEST_F(ConfIoTest, SaveThatFailsLeavesTheFileAsItWas) {
  const std::string file = folder_ + "/no/such/folder/wg0.conf";
  const auto saved = SaveConf(ConfFile(), file);
  ASSERT_FALSE(saved);
  EXPECT_THAT(saved.error().message, HasSubstr(file));
}

TEST(Resolve, NumericEndpointsNeedNoResolver) {
  Loop loop;
  std::vector<ConfPeer> peers(3);
  peers[0].endpoint = ConfEndpoint{"192.0.2.1", 7};
  peers[2].endpoint = ConfEndpoint{"2001:db8::1", 8};
  const auto resolved = ResolveEndpoints(loop, peers, 0, NamesBeforeTunnel(0, {}));
  ASSERT_TRUE(resolved);
  ASSERT_EQ(resolved->size(), 3u);
  EXPECT_EQ((*resolved)[0]->ToString(), "192.0.2.1:7");
  EXPECT_FALSE((*resolved)[1]);
  EXPECT_EQ((*resolved)[2]->ToString(), "[2001:db8::1]:8");
}

TEST(Resolve, NamesGoThroughTheSystemsResolver) {
  Loop loop;
  std::vector<ConfPeer> peers(1);
  peers[0].endpoint = ConfEndpoint{"localhost", 9};
  const auto resolved = ResolveEndpoints(loop, peers, 0, NamesBeforeTunnel(0, {}));
  if (!resolved) GTEST_SKIP() << "no localhost here: " << resolved.error().message;
  EXPECT_EQ((*resolved)[0]->port, 9);
}

TEST(Resolve, EndOfTheLoopEndsTheWait) {
  Loop loop;
  loop.Finish(End::kAsked);
  std::vector<ConfPeer> peers(1);
  peers[0].endpoint = ConfEndpoint{"localhost", 9};
  EXPECT_FALSE(ResolveEndpoints(loop, peers, kResolveForever, NamesBeforeTunnel(0, {})));
}

TEST(Resolve, PausesGrowToTwentySeconds) {
  EXPECT_EQ(ResolutionPause(0), 1s);
  EXPECT_EQ(ResolutionPause(1), 1200ms);
  EXPECT_EQ(ResolutionPause(100000), 20s);
  for (unsigned retry = 0; retry < 50; ++retry) EXPECT_LE(ResolutionPause(retry), ResolutionPause(retry + 1));
}

}  // namespace
}  // namespace adit
