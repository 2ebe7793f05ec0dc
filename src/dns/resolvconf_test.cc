#include "dns/resolvconf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Resolvconf, BorrowsTheFirstPrefixOfDebiansOrder) {
  EXPECT_EQ(ResolvconfRecordName("wg0", ""), "wg0");
  EXPECT_EQ(ResolvconfRecordName("wg0", "# order\nlo.inet6\nlo.inet\nlo.dnsmasq\n[weird]*\ntun*\neth*\n"), "tun.wg0");
  EXPECT_EQ(ResolvconfRecordName("wg0", "*\n"), "wg0");
}

class ResolvconfRun : public ::testing::Test {
 protected:
  ResolvconfRun() {
    char name[] = "/tmp/adit-resolvconf-XXXXXX";
    folder_ = mkdtemp(name);
    paths_ = {folder_ + "/resolv.conf", folder_ + "/dns", ""};
  }
  ~ResolvconfRun() override { std::filesystem::remove_all(folder_); }
  // A resolvconf that ends with `code` and leaves `result` as resolv.conf.
  RunCommand Command(int code, std::string result) {
    return [this, code, result](const std::vector<std::string>& words, const std::string& input, bool) -> Result<int> {
      words_ = words;
      input_ = input;
      std::ofstream(paths_.file) << result;
      return code;
    };
  }
  DnsHealth Apply(int code, const std::string& result) {
    ResolvconfDns dns(Command(code, result), paths_, settings_);
    dns.Apply(Instant(1h));
    detail_ = dns.state().detail;
    return dns.state().health;
  }
  std::string folder_;
  ResolvPaths paths_;
  DnsSettings settings_{"wg0", {*IpAddress::Parse("10.0.0.1"), *IpAddress::Parse("fd00::1")}, {"corp.example"}, true};
  std::vector<std::string> words_;
  std::string input_, detail_;
};

TEST_F(ResolvconfRun, IsCalledAsWgQuickCallsIt) {
  EXPECT_EQ(Apply(0, "nameserver 10.0.0.1\n"), DnsHealth::kGood);
  ASSERT_EQ(words_.size(), 6u);
  EXPECT_EQ(words_[0], "resolvconf");
  EXPECT_EQ(words_[1], "-a");
  EXPECT_THAT(words_[2], HasSubstr("wg0"));
  EXPECT_EQ(input_, "nameserver 10.0.0.1\nnameserver fd00::1\nsearch corp.example\n");
  ResolvconfDns dns(Command(0, ""), paths_, settings_);
  ASSERT_TRUE(dns.Remove());
  EXPECT_EQ(words_[1], "-d");
}

TEST_F(ResolvconfRun, AResolverOnThisMachineMayStandInFront) {
  EXPECT_EQ(Apply(0, "nameserver 127.0.0.1\n"), DnsHealth::kGood);
}

TEST_F(ResolvconfRun, AFailureOrASilentRefusalDegrades) {
  EXPECT_EQ(Apply(99, "nameserver 10.0.0.1\n"), DnsHealth::kDegraded);
  EXPECT_THAT(detail_, HasSubstr("99"));
  EXPECT_EQ(Apply(0, "nameserver 192.168.1.1\n"), DnsHealth::kDegraded);
  EXPECT_EQ(Apply(0, ""), DnsHealth::kDegraded);
}

TEST_F(ResolvconfRun, ARecordThatOthersRemoveIsMadeAgainABoundedNumberOfTimes) {
  unsigned runs = 0;
  ResolvconfDns dns(
      [&](const auto&, const auto&, bool) -> Result<int> {
        ++runs;
        std::ofstream(paths_.file) << "nameserver 10.0.0.1\n";
        return 0;
      },
      paths_, settings_);
  Instant now(1h);
  dns.Apply(now);
  ASSERT_EQ(dns.state().health, DnsHealth::kGood);
  const auto settle = [&] {
    dns.Process(now);
    while (dns.next_at() && *dns.next_at() < now + 1min) dns.Process(now = *dns.next_at());
  };
  settle();
  EXPECT_EQ(runs, 1u) << "its own writing is no reason to write again";
  for (unsigned i = 1; i <= kMaxRepairs; ++i) {
    std::ofstream(paths_.file) << "nameserver 192.168.1.1\n";
    settle();
    EXPECT_EQ(runs, 1 + i);
    EXPECT_EQ(dns.state().health, DnsHealth::kGood);
    EXPECT_EQ(dns.state().repairs, i);
  }
  std::ofstream(paths_.file) << "nameserver 192.168.1.1\n";
  settle();
  EXPECT_EQ(runs, 1 + kMaxRepairs);
  EXPECT_EQ(dns.state().health, DnsHealth::kDegraded);
  EXPECT_THAT(dns.state().detail, HasSubstr("left alone"));
  now = *dns.next_at();  // minutes later
  settle();
  EXPECT_EQ(runs, 2 + kMaxRepairs);
}

TEST_F(ResolvconfRun, WhatWasNeverTakenNeedNotBeTakenBack) {
  ResolvconfDns failing(Command(99, ""), paths_, settings_);
  failing.Apply(Instant(1h));
  EXPECT_TRUE(failing.Remove());
  EXPECT_EQ(words_[1], "-d");
  int code = 0;
  ResolvconfDns working([&](const auto&, const auto&, bool) -> Result<int> { return code; }, paths_, settings_);
  working.Apply(Instant(1h));
  code = 99;
  EXPECT_FALSE(working.Remove());
}

}  // namespace
}  // namespace adit
