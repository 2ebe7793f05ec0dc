#include "cli/options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace adit {
namespace {

using ::testing::HasSubstr;

std::expected<Command, NoCommand> Parse(std::vector<std::string> words) { return ParseCommandLine(words); }

NoCommand Refused(std::vector<std::string> words) {
  auto parsed = ParseCommandLine(words);
  return parsed ? NoCommand{ExitCode::kClean, "was accepted"} : parsed.error();
}

TEST(Options, ReadsWireguardGoCommandLine) {
  for (const bool foreground : {false, true}) {
    for (const char* flag : {"-f", "--foreground"}) {
      std::vector<std::string> words{"wg0"};
      if (foreground) words.insert(words.begin(), flag);
      const auto parsed = Parse(words);
      ASSERT_TRUE(parsed);
      ASSERT_TRUE(std::holds_alternative<DeviceCommand>(*parsed));
      EXPECT_EQ(std::get<DeviceCommand>(*parsed).interface_name, "wg0");
      EXPECT_EQ(std::get<DeviceCommand>(*parsed).foreground, foreground);
    }
  }
}

TEST(Options, ExecTakesWhatIsBehindTheDashesAsItIs) {
  const auto parsed =
      Parse({"exec", "--isolated", "--config", "wg0", "--user", "nobody", "--", "ls", "--isolated", "--", "-l"});
  ASSERT_TRUE(parsed);
  const auto* const exec = std::get_if<ExecCommand>(&*parsed);
  ASSERT_NE(exec, nullptr);
  EXPECT_EQ(exec->config, "wg0");
  EXPECT_EQ(exec->user, "nobody");
  EXPECT_EQ(exec->words, (std::vector<std::string>{"ls", "--isolated", "--", "-l"}));
  EXPECT_THAT(Refused({"exec", "--", "ls"}).text, HasSubstr("--isolated"));
  EXPECT_THAT(Refused({"exec", "--isolated"}).text, HasSubstr("a program is needed"));
  EXPECT_THAT(Refused({"exec", "--isolated", "--"}).text, HasSubstr("a program is needed"));
  EXPECT_EQ(Refused({"exec", "--isolated", "ls"}).code, ExitCode::kUsage);
}

TEST(Options, PortalTakesAUserATimeAndAProgram) {
  const auto parsed = Parse({"portal", "--user", "nobody", "--for", "60", "wg0", "--", "firefox", "--close"});
  ASSERT_TRUE(parsed);
  const auto* const portal = std::get_if<PortalCommand>(&*parsed);
  ASSERT_NE(portal, nullptr);
  EXPECT_EQ(portal->target, "wg0");
  EXPECT_EQ(portal->user, "nobody");
  EXPECT_EQ(portal->seconds, std::chrono::seconds(60));
  EXPECT_FALSE(portal->close);
  EXPECT_EQ(portal->words, (std::vector<std::string>{"firefox", "--close"}));
  EXPECT_EQ(Refused({"portal", "--for", "0", "wg0"}).code, ExitCode::kUsage);
  EXPECT_EQ(Refused({"portal", "--for", "3601", "wg0"}).code, ExitCode::kUsage);
  EXPECT_EQ(Refused({"portal", "--close", "wg0", "--", "ls"}).code, ExitCode::kUsage);
  EXPECT_EQ(Refused({"portal"}).code, ExitCode::kUsage);
}

TEST(Options, CommandWinsOverAnInterfaceOfItsName) {
  EXPECT_EQ(Refused({"up"}).code, ExitCode::kUsage);
  const auto foreground = Parse({"-f", "up"});
  ASSERT_TRUE(foreground);
  EXPECT_TRUE(std::holds_alternative<DeviceCommand>(*foreground));
}

TEST(Options, ReadsWhatToExplain) {
  auto parsed = Parse({"explain", "8.8.8.8"});
  ASSERT_TRUE(parsed) << parsed.error().text;
  EXPECT_EQ(std::get<ExplainCommand>(*parsed).destination, *IpAddress::Parse("8.8.8.8"));
  EXPECT_FALSE(std::get<ExplainCommand>(*parsed).json);
  parsed = Parse({"explain", "--mark=0x1000", "--uid", "1000", "--iif", "eth0", "--json", "2001:db8::1"});
  ASSERT_TRUE(parsed) << parsed.error().text;
  const auto& explain = std::get<ExplainCommand>(*parsed);
  EXPECT_EQ(explain.mark, 0x1000U);
  EXPECT_EQ(explain.uid, 1000U);
  EXPECT_EQ(explain.input_device, "eth0");
  EXPECT_TRUE(explain.json);
  parsed = Parse({"explain", "8.8.8.8", "--protocol=udp", "--port=53", "--source-port", "4000"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(std::get<ExplainCommand>(*parsed).protocol, 17);
  EXPECT_EQ(std::get<ExplainCommand>(*parsed).destination_port, 53);
  EXPECT_EQ(std::get<ExplainCommand>(*parsed).source_port, 4000);
  parsed = Parse({"explain", "8.8.8.8", "--protocol=47"});
  ASSERT_TRUE(parsed);
  EXPECT_EQ(std::get<ExplainCommand>(*parsed).protocol, 47);
  for (const std::vector<std::string>& words :
       std::initializer_list<std::vector<std::string>>{{"explain"},
                                                       {"explain", "example.com"},
                                                       {"explain", "1.1.1.1", "--protocol=gre"},
                                                       {"explain", "1.1.1.1", "--protocol=256"},
                                                       {"explain", "1.1.1.1", "--port=53"},
                                                       {"explain", "1.1.1.1", "--protocol=icmp", "--port=53"},
                                                       {"explain", "1.1.1.1", "--protocol=udp", "--port=0"},
                                                       {"explain", "1.1.1.1", "--protocol=udp", "--port=65536"},
                                                       {"explain", "1.1.1.1", "--mark=x"},
                                                       {"explain", "1.1.1.1", "--uid=-1"}}) {
    EXPECT_EQ(Refused(words).code, ExitCode::kUsage) << ::testing::PrintToString(words);
  }
  parsed = Parse({"reload", "wg0"});
  ASSERT_TRUE(parsed) << parsed.error().text;
  EXPECT_EQ(std::get<ReloadCommand>(*parsed).target, "wg0");
}

TEST(Options, ReadsUpAndRunWithAndWithoutWait) {
  struct Case {
    std::vector<std::string> words;
    bool foreground;
    std::optional<std::chrono::seconds> wait;
  };
  using std::chrono::seconds;
  const Case cases[] = {
      {{"up", "wg0"}, false, std::nullopt},
      {{"run", "wg0"}, true, std::nullopt},
      {{"up", "--wait", "wg0"}, false, kDefaultHandshakeWait},
      {{"up", "wg0", "--wait=7"}, false, seconds(7)},
      {{"run", "--wait=0", "wg0"}, true, seconds(0)},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(::testing::PrintToString(c.words));
    const auto parsed = Parse(c.words);
    ASSERT_TRUE(parsed) << parsed.error().text;
    const auto& up = std::get<UpCommand>(*parsed);
    EXPECT_EQ(up.target, "wg0");
    EXPECT_EQ(up.foreground, c.foreground);
    EXPECT_EQ(up.wait, c.wait);
  }
}

TEST(Options, EachCommandIsFoundByItsName) {
  EXPECT_TRUE(std::holds_alternative<DownCommand>(*Parse({"down", "wg0"})));
  EXPECT_TRUE(std::holds_alternative<CleanupCommand>(*Parse({"cleanup", "wg0"})));
  EXPECT_TRUE(std::holds_alternative<CheckCommand>(*Parse({"check", "a/b.conf"})));
  EXPECT_TRUE(std::holds_alternative<GenkeyCommand>(*Parse({"genkey"})));
  EXPECT_TRUE(std::holds_alternative<GenpskCommand>(*Parse({"genpsk"})));
  EXPECT_TRUE(std::holds_alternative<PubkeyCommand>(*Parse({"pubkey"})));
  EXPECT_TRUE(std::holds_alternative<DemoCommand>(*Parse({"demo"})));
  const auto killswitch = Parse({"killswitch", "off", "wg0"});
  ASSERT_TRUE(killswitch && std::holds_alternative<KillSwitchCommand>(*killswitch));
  EXPECT_EQ(std::get<KillSwitchCommand>(*killswitch).action, KillSwitchCommand::Action::kOff);
  EXPECT_EQ(std::get<KillSwitchCommand>(*killswitch).target, "wg0");
  EXPECT_FALSE(Parse({"killswitch", "maybe", "wg0"}));
  const auto status = std::get<StatusCommand>(*Parse({"status", "wg0", "--json", "--show-keys"}));
  EXPECT_EQ(status.name, "wg0");
  EXPECT_TRUE(status.json);
  EXPECT_TRUE(status.show_keys);
  EXPECT_FALSE(std::get<StatusCommand>(*Parse({"status"})).show_keys);
}

TEST(Options, WrongWordsAreUsageErrors) {
  const std::vector<std::string> cases[] = {
      {},
      {"-f"},
      {"-f", "wg0", "wg1"},
      {"-f", "a/b"},
      {"an-interface-name-of-32-letters"},
      {"up"},
      {"up", "a", "b"},
      {"up", "wg0", "--wait=soon"},
      {"up", "wg0", "--wait=-1"},
      {"up", "wg0", "--wait=99999999999"},
      {"status", "--colour"},
      {"--colour"},
      {"frobnicate", "wg0"},
  };
  for (const auto& words : cases) {
    const NoCommand refused = Refused(words);
    EXPECT_EQ(refused.code, ExitCode::kUsage) << ::testing::PrintToString(words) << ": " << refused.text;
    EXPECT_FALSE(refused.text.empty());
    EXPECT_EQ(refused.text.find('\n'), std::string::npos) << refused.text;
  }
}

TEST(Options, SuggestsTheNearestCommand) {
  EXPECT_THAT(Refused({"stauts", "wg0"}).text, HasSubstr("\"adit status\""));
  EXPECT_THAT(Refused({"donw", "wg0"}).text, HasSubstr("\"adit down\""));
  EXPECT_THAT(Refused({"xylophone", "wg0"}).text, HasSubstr("--help"));
}

TEST(Options, HelpAndVersionAreClean) {
  const NoCommand help = Refused({"--help"});
  EXPECT_EQ(help.code, ExitCode::kClean);
  for (const char* word : {"up", "cleanup", "demo", "adit [-f] IFNAME", "Exit codes"}) {
    EXPECT_THAT(help.text, HasSubstr(word));
  }
  const NoCommand up_help = Refused({"up", "--help"});
  EXPECT_EQ(up_help.code, ExitCode::kClean);
  EXPECT_THAT(up_help.text, HasSubstr("--wait"));
  const NoCommand version = Refused({"--version"});
  EXPECT_EQ(version.code, ExitCode::kClean);
  EXPECT_THAT(version.text, ::testing::StartsWith("adit "));
}

TEST(ConfTarget, BareNameIsUnderEtcWireguard) {
  const auto target = ResolveTarget("wg0");
  ASSERT_TRUE(target);
  EXPECT_EQ(target->file, "/etc/wireguard/wg0.conf");
  EXPECT_EQ(target->interface_name, "wg0");
}

TEST(ConfTarget, FileGivesTheInterfaceItsStem) {
  for (const char* file : {"./home.conf", "/a/b/home.conf", "home.conf"}) {
    const auto target = ResolveTarget(file);
    ASSERT_TRUE(target) << file;
    EXPECT_EQ(target->file, file);
    EXPECT_EQ(target->interface_name, "home");
  }
}

TEST(ConfTarget, RefusesWhatCannotBeAnInterface) {
  for (const char* bad : {"", "a b", "dir/", "./wg0.txt", "./sixteen--letters.conf", "./.conf", "/x/a b.conf"}) {
    const auto target = ResolveTarget(bad);
    ASSERT_FALSE(target) << bad;
    EXPECT_EQ(target.error().code, ExitCode::kUsage);
  }
}

}  // namespace
}  // namespace adit
