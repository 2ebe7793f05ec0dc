#include "dns/resolv_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

namespace adit {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
constexpr Instant kStart{1000h};
constexpr char kOwn[] = "nameserver 192.168.1.1\nsearch lan\n";

class ResolvFile : public ::testing::Test {
 protected:
  ResolvFile() {
    char name[] = "/tmp/adit-resolv-XXXXXX";
    folder_ = mkdtemp(name);
    std::filesystem::create_directory(folder_ + "/etc");
    paths_ = {folder_ + "/etc/resolv.conf", folder_ + "/var/adit/dns", "boot-1"};
    Put(paths_.file, kOwn);
  }
  ~ResolvFile() override { std::filesystem::remove_all(folder_); }

  static void Put(const std::string& path, const std::string& text) { std::ofstream(path) << text; }
  static std::string Get(const std::string& path) {
    std::ifstream file(path);
    return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  }
  std::string Now() const { return Get(paths_.file); }
  static DnsSettings Tunnel(const std::string& name, const char* server) {
    return {name, {*IpAddress::Parse(server)}, {}, true};
  }
  void Up(const std::string& name = "wg0", const char* server = "10.0.0.1") {
    const Status status = WriteResolvFile(paths_, Tunnel(name, server));
    ASSERT_TRUE(status) << status.error().message;
  }
  void Down(const std::string& name = "wg0") {
    const Status status = RemoveFromResolvFile(paths_, name);
    ASSERT_TRUE(status) << status.error().message;
  }
  std::size_t FilesKept() const {
    std::size_t count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(paths_.folder))
      count += entry.path().filename() != "lock";
    return count;
  }

  std::string folder_;
  ResolvPaths paths_;
};

TEST_F(ResolvFile, IsWrittenAndComesBack) {
  chmod(paths_.file.c_str(), 0640);
  Up();
  EXPECT_THAT(Now(), HasSubstr("nameserver 10.0.0.1\n"));
  EXPECT_THAT(Now(), Not(HasSubstr("192.168")));
  EXPECT_TRUE(ResolvFileIsOurs(paths_).value());
  Down();
  EXPECT_EQ(Now(), kOwn);
  struct stat info{};
  ASSERT_EQ(stat(paths_.file.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777, 0640u);
  EXPECT_EQ(FilesKept(), 0u);
}

TEST_F(ResolvFile, ALinkComesBackAsALinkAndItsTargetIsLeftAlone) {
  Put(folder_ + "/stub.conf", "nameserver 127.0.0.53\noptions edns0\n");
  std::filesystem::remove(paths_.file);
  std::filesystem::create_symlink("../stub.conf", paths_.file);
  Up();
  EXPECT_FALSE(std::filesystem::is_symlink(paths_.file));
  EXPECT_THAT(Now(), HasSubstr("options edns0\n"));
  EXPECT_EQ(Get(folder_ + "/stub.conf"), "nameserver 127.0.0.53\noptions edns0\n");
  Put(folder_ + "/stub.conf", "nameserver 192.168.7.1\n");
  EXPECT_EQ(ReadOwnResolvConf(paths_), "nameserver 192.168.7.1\n");
  Down();
  EXPECT_EQ(std::filesystem::read_symlink(paths_.file), "../stub.conf");
}

TEST_F(ResolvFile, WhereThereWasNoneThereIsNoneAgain) {
  std::filesystem::remove(paths_.file);
  Up();
  EXPECT_THAT(Now(), HasSubstr("10.0.0.1"));
  Down();
  EXPECT_FALSE(std::filesystem::exists(paths_.file));
}

TEST_F(ResolvFile, TwoTunnelsMayEndInAnyOrder) {
  for (const bool first_ends_first : {true, false}) {
    Up("wg0", "10.0.0.1");
    Up("wg1", "10.0.1.1");
    EXPECT_THAT(Now(), HasSubstr("10.0.1.1"));
    Down(first_ends_first ? "wg0" : "wg1");
    EXPECT_THAT(Now(), HasSubstr(first_ends_first ? "10.0.1.1" : "10.0.0.1"));
    Down(first_ends_first ? "wg1" : "wg0");
    EXPECT_EQ(Now(), kOwn);
  }
}

TEST_F(ResolvFile, ComingUpTwiceKeepsTheFirstOriginal) {
  Up();
  Up();
  Down();
  EXPECT_EQ(Now(), kOwn);
}

// 54: power was lost while a tunnel was up.
TEST_F(ResolvFile, AfterARebootTheOriginalComesBack) {
  Up();
  paths_.boot_id = "boot-2";
  EXPECT_TRUE(RemoveEarlierBoots(paths_).value());
  EXPECT_EQ(Now(), kOwn);
  EXPECT_EQ(FilesKept(), 0u);
  EXPECT_FALSE(RemoveEarlierBoots(paths_).value());
}

TEST_F(ResolvFile, AfterARebootAnotherTunnelStillKnowsTheOriginal) {
  Up("wg0");
  paths_.boot_id = "boot-2";
  Up("wg1", "10.0.1.1");
  EXPECT_THAT(Now(), HasSubstr("10.0.1.1"));
  EXPECT_FALSE(HasResolvRecord(paths_, "wg0"));
  Down("wg1");
  EXPECT_EQ(Now(), kOwn);
}

// 54b: the machine moved to another network, whose DHCP client wrote its own.
TEST_F(ResolvFile, AFileOfAnotherNetworkIsNotReplacedByTheOldOne) {
  Up();
  Put(paths_.file, "nameserver 172.16.0.1\n");
  Down();
  EXPECT_EQ(Now(), "nameserver 172.16.0.1\n");
  EXPECT_EQ(FilesKept(), 0u);
}

TEST_F(ResolvFile, WhatTrampledOursIsTheOriginalFromThenOn) {
  Up();
  Put(paths_.file, "nameserver 172.16.0.1\n");
  EXPECT_FALSE(ResolvFileIsOurs(paths_).value());
  ASSERT_TRUE(RepairResolvFile(paths_));
  EXPECT_THAT(Now(), HasSubstr("10.0.0.1"));
  EXPECT_EQ(ReadOwnResolvConf(paths_), "nameserver 172.16.0.1\n");
  Down();
  EXPECT_EQ(Now(), "nameserver 172.16.0.1\n");
}

TEST_F(ResolvFile, ADeletedFileACopyAndAnEditedOneAreNobodysWish) {
  for (const int way : {0, 1, 2}) {
    Up();
    if (way == 0) std::filesystem::remove(paths_.file);
    if (way == 1) Put(paths_.file, "# by somebody\nnameserver 10.0.0.1\n");
    if (way == 2) Put(paths_.file, Now() + "nameserver 8.8.8.8\n");
    EXPECT_FALSE(ResolvFileIsOurs(paths_).value());
    ASSERT_TRUE(RepairResolvFile(paths_));
    EXPECT_TRUE(ResolvFileIsOurs(paths_).value());
    Down();
    EXPECT_EQ(Now(), kOwn) << way;
  }
}

TEST_F(ResolvFile, NothingToTakeBackIsSuccess) {
  EXPECT_TRUE(RemoveFromResolvFile(paths_, "wg0"));
  EXPECT_EQ(Now(), kOwn);
  EXPECT_FALSE(std::filesystem::exists(paths_.folder));
}

TEST_F(ResolvFile, ADamagedOriginalIsAnErrorAndLosesNothing) {
  Up();
  const std::string ours = Now();
  Put(paths_.folder + "/original", "rubbish");
  const Status down = RemoveFromResolvFile(paths_, "wg0");
  ASSERT_FALSE(down);
  EXPECT_THAT(down.error().message, HasSubstr("damaged"));
  EXPECT_EQ(Now(), ours);
  EXPECT_TRUE(HasResolvRecord(paths_, "wg0"));
}

TEST_F(ResolvFile, AFolderThatCannotBeMadeIsAnErrorThatSaysWhatToChange) {
  Put(folder_ + "/var", "a file is in the way");
  const Status status = WriteResolvFile(paths_, Tunnel("wg0", "10.0.0.1"));
  ASSERT_FALSE(status);
  EXPECT_THAT(status.error().message, HasSubstr("ADIT_STATE_DIR"));
  EXPECT_EQ(Now(), kOwn);
}

// As in containers: a file that is a mount point cannot be renamed over.
TEST_F(ResolvFile, AMountPointIsWrittenInPlace) {
  const std::string source = folder_ + "/host-file";
  Put(source, kOwn);
  if (mount(source.c_str(), paths_.file.c_str(), nullptr, MS_BIND, nullptr) != 0) GTEST_SKIP() << "may not mount";
  Up();
  EXPECT_THAT(Get(source), HasSubstr("10.0.0.1"));
  Down();
  const std::string back = Get(source);
  umount(paths_.file.c_str());
  EXPECT_EQ(back, kOwn);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ + "/etc"), {}), 1);
}

class ResolvFileBackend : public ResolvFile {
 protected:
  ResolvFileBackend() : dns_(paths_, Tunnel("wg0", "10.0.0.1")) { dns_.Apply(now_); }
  // Lets the time pass that the backend asks for; the true one is only that of the kernel's notification.
  void Settle() {
    dns_.Process(now_);
    while (dns_.next_at() && *dns_.next_at() < now_ + 2s) {
      now_ = *dns_.next_at();
      dns_.Process(now_);
    }
  }
  Instant now_ = kStart;
  ResolvFileDns dns_;
};

TEST_F(ResolvFileBackend, RepairsWhatOthersWriteHoweverTheyDoIt) {
  Settle();
  EXPECT_EQ(dns_.state().health, DnsHealth::kGood);
  Put(paths_.file, "nameserver 172.16.0.1\n");
  Settle();
  EXPECT_THAT(Now(), HasSubstr("10.0.0.1"));
  Put(folder_ + "/etc/new", "nameserver 172.16.0.2\n");
  std::filesystem::rename(folder_ + "/etc/new", paths_.file);
  Settle();
  EXPECT_THAT(Now(), HasSubstr("10.0.0.1"));
  std::filesystem::remove(paths_.file);
  Settle();
  EXPECT_THAT(Now(), HasSubstr("10.0.0.1"));
  Put(folder_ + "/stub", "nameserver 172.16.0.3\n");
  std::filesystem::remove(paths_.file);
  std::filesystem::create_symlink(folder_ + "/stub", paths_.file);
  Settle();
  EXPECT_THAT(Now(), HasSubstr("10.0.0.1"));
  EXPECT_EQ(dns_.state().repairs, 4u);
  EXPECT_EQ(dns_.state().health, DnsHealth::kGood);
  ASSERT_TRUE(dns_.Remove());
  EXPECT_EQ(std::filesystem::read_symlink(paths_.file), folder_ + "/stub");
}

TEST_F(ResolvFileBackend, OtherFilesOfTheFolderAreNoNews) {
  Settle();
  Put(folder_ + "/etc/hosts", "x");
  dns_.Process(now_);
  EXPECT_FALSE(dns_.next_at());
}

TEST_F(ResolvFileBackend, GivesUpAFightAndSaysSo) {
  for (unsigned i = 0; i < kMaxRepairs + 1; ++i) {
    Put(paths_.file, "nameserver 172.16.0.1\n");
    Settle();
  }
  EXPECT_EQ(Now(), "nameserver 172.16.0.1\n");
  EXPECT_EQ(dns_.state().health, DnsHealth::kDegraded);
  EXPECT_THAT(dns_.state().detail, HasSubstr("another program"));
  EXPECT_EQ(dns_.state().repairs, kMaxRepairs);
  ASSERT_TRUE(dns_.Remove());
  EXPECT_EQ(Now(), "nameserver 172.16.0.1\n");
}

}  // namespace
}  // namespace adit
