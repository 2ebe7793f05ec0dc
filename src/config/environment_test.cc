#include "config/environment.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace adit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Result<Environment> Parse(std::map<std::string, std::string> variables) {
  return ParseEnvironment([variables](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(Environment, HasDefaultsForEverything) {
  const auto environment = Parse({{"WG_TUN_FD", ""}, {"LOG_LEVEL", ""}});
  ASSERT_TRUE(environment);
  EXPECT_FALSE(environment->tun_fd || environment->uapi_fd || environment->foreground);
  EXPECT_EQ(environment->log_level, LogLevel::kInfo);
}

TEST(Environment, ReadsWhatOtherImplementationsRead) {
  const auto environment =
      Parse({{"WG_TUN_FD", "3"}, {"WG_UAPI_FD", "4"}, {"WG_PROCESS_FOREGROUND", "1"}, {"LOG_LEVEL", "Verbose"}});
  ASSERT_TRUE(environment);
  EXPECT_EQ(environment->tun_fd, 3);
  EXPECT_EQ(environment->uapi_fd, 4);
  EXPECT_TRUE(environment->foreground);
  EXPECT_EQ(environment->log_level, LogLevel::kDebug);
  EXPECT_FALSE(Parse({{"WG_PROCESS_FOREGROUND", "0"}})->foreground);
}

TEST(Environment, KnowsEveryLogLevelAndTheAlias) {
  using enum LogLevel;
  const std::pair<const char*, LogLevel> levels[] = {{"silent", kSilent}, {"error", kError}, {"warn", kWarn},
                                                     {"warning", kWarn},  {"info", kInfo},   {"debug", kDebug},
                                                     {"verbose", kDebug}, {"trace", kTrace}};
  for (const auto& [text, level] : levels) {
    EXPECT_EQ(Parse({{"LOG_LEVEL", text}})->log_level, level);
    EXPECT_EQ(Parse({{"WG_LOG_LEVEL", text}})->log_level, level);
  }
  EXPECT_EQ(Parse({{"LOG_LEVEL", "error"}, {"WG_LOG_LEVEL", "trace"}})->log_level, kError);
}

TEST(Environment, WarnsOfALogLevelItDoesNotKnow) {
  const auto environment = Parse({{"LOG_LEVEL", "loud\n"}});
  ASSERT_TRUE(environment);
  EXPECT_EQ(environment->log_level, LogLevel::kInfo);
  EXPECT_THAT(environment->warnings, ElementsAre(HasSubstr("LOG_LEVEL=\"loud?\" is not known, using info")));
}

TEST(Environment, RefusesDescriptorsThatAreNone) {
  for (const char* value : {"x", "-1", "3x", " 3", "2147483648"}) {
    EXPECT_THAT(Parse({{"WG_TUN_FD", value}}).error().message, HasSubstr("WG_TUN_FD="));
    EXPECT_THAT(Parse({{"WG_UAPI_FD", value}}).error().message, HasSubstr("WG_UAPI_FD="));
  }
  EXPECT_THAT(Parse({{"WG_TUN_FD", "3"}, {"WG_UAPI_FD", "3"}}).error().message, HasSubstr("both 3"));
}

}  // namespace
}  // namespace adit
