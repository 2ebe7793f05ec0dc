#include "config/interface_name.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace adit {
namespace {

using testing::HasSubstr;

TEST(InterfaceName, FollowsWgQuicksRule) {
  for (const char* name : {"wg0", "a", "A_=+.-9", "123456789012345", "...", "-f"})
    EXPECT_TRUE(IsInterfaceName(name)) << name;
  for (const char* name :
       {"", "1234567890123456", "a b", "a/b", "wg0\n", "w\xc3\xbc", ".", "..", "a:b", "%i", "a\\b"}) {
    EXPECT_FALSE(IsInterfaceName(name)) << name;
    EXPECT_FALSE(CheckInterfaceName(name)) << name;
  }
  EXPECT_FALSE(IsInterfaceName(std::string_view("a\0b", 3)));
}

TEST(InterfaceName, SaysWhatToChange) {
  EXPECT_THAT(CheckInterfaceName("1234567890123456").error().message, HasSubstr("has 16 characters: use at most 15"));
  EXPECT_THAT(CheckInterfaceName("a b").error().message, HasSubstr("use 1 to 15 of"));
}

TEST(InterfaceName, ComesFromTheFilesName) {
  EXPECT_EQ(InterfaceNameOfFile("/etc/wireguard/wg0.conf").value(), "wg0");
  EXPECT_EQ(InterfaceNameOfFile("./a.b.conf").value(), "a.b");
  EXPECT_EQ(InterfaceNameOfFile("wg0.conf").value(), "wg0");
  for (const char* path : {"wg0", "/etc/wireguard/", ".conf", "/a.conf/b", "this-name-is-too-long.conf", ""}) {
    EXPECT_FALSE(InterfaceNameOfFile(path)) << path;
  }
  EXPECT_THAT(InterfaceNameOfFile("/x/this-name-is-too-long.conf").error().message, HasSubstr("named after the file"));
}

}  // namespace
}  // namespace adit
