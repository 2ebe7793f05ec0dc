#include "cli/firewall_question.h"

#include <gtest/gtest.h>

#include "cli/control_socket.h"

namespace adit {
namespace {

TEST(FirewallQuestion, ComesBackAsItWas) {
  const nft::Packet packet{.input_device = "b-name-of-15-ch",
                           .output_device = "a-name-of-15-ch",
                           .mark = 0xfffffffe,
                           .uid = 0xfffffffd,
                           .source = *IpAddress::Parse("2001:db8:1111:2222:3333:4444:5555:6666"),
                           .destination = *IpAddress::Parse("2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"),
                           .protocol = 255,
                           .source_port = 65534,
                           .destination_port = 65535};
  const std::string question = ToQuestion(packet);
  EXPECT_LT(std::string("judge ").size() + question.size() + 1, kMaxControlRequestBytes);
  const auto parsed = ParseQuestion(question);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->input_device, packet.input_device);
  EXPECT_EQ(parsed->output_device, packet.output_device);
  EXPECT_EQ(parsed->mark, packet.mark);
  EXPECT_EQ(parsed->uid, packet.uid);
  EXPECT_EQ(parsed->source, packet.source);
  EXPECT_EQ(parsed->destination, packet.destination);
  EXPECT_EQ(parsed->protocol, packet.protocol);
  EXPECT_EQ(parsed->source_port, packet.source_port);
  EXPECT_EQ(parsed->destination_port, packet.destination_port);
  const auto without = ParseQuestion(ToQuestion({.source = packet.source, .destination = packet.destination}));
  ASSERT_TRUE(without);
  EXPECT_EQ(without->input_device, "");
  EXPECT_EQ(without->output_device, "");
}

TEST(FirewallQuestion, RefusesWhatIsNone) {
  ASSERT_TRUE(ParseQuestion("- eth0 0 0 10.0.0.1 10.0.0.2 0 0 0"));
  for (const char* const text :
       {"", "- eth0", "- eth0 0 10.0.0.1", "- eth0 x 0 10.0.0.1 10.0.0.2 0 0 0", "- eth0 1x 0 10.0.0.1 10.0.0.2 0 0 0",
        "- eth0 0 -1 10.0.0.1 10.0.0.2 0 0 0", "- eth0 4294967296 0 10.0.0.1 10.0.0.2 0 0 0",
        "- eth0 0 0 10.0.0 10.0.0.2 0 0 0", "eth0 0 10.0.0.1 10.0.0.2 0 0 0", "- eth0 0 0 10.0.0.1 10.0.0.2",
        "- eth0 0 0 10.0.0.1 10.0.0.2 256 0 0", "- eth0 0 0 10.0.0.1 10.0.0.2 17 65536 0",
        "- eth0 0 0 10.0.0.1 10.0.0.2 17 0", "- eth0 0 0 10.0.0.1 10.0.0.2 0 0 0 more"}) {
    EXPECT_FALSE(ParseQuestion(text)) << text;
  }
}

TEST(FirewallAnswer, ComesBackAsItWas) {
  const FirewallAnswer answer{"adit-wg0",
                              {.passes = false, .chain = "out_deny", .rule = "counter \"x\"", .counter = "x"}};
  const auto parsed = ParseAnswer(ToAnswer(answer));
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->table, answer.table);
  EXPECT_FALSE(parsed->verdict.passes);
  EXPECT_EQ(parsed->verdict.chain, answer.verdict.chain);
  EXPECT_EQ(parsed->verdict.rule, answer.verdict.rule);
  EXPECT_EQ(parsed->verdict.counter, answer.verdict.counter);
}

TEST(FirewallAnswer, RefusesWhatIsNone) {
  for (const char* const text :
       {"", "{", "[]", "{}", "null", R"({"table":"x","passes":1})", R"({"table":"x","passes":true})",
        R"({"table":1,"passes":true,"chain":"","rule":"","counter":""})"}) {
    EXPECT_FALSE(ParseAnswer(text)) << text;
  }
}

}  // namespace
}  // namespace adit
