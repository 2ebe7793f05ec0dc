#include "cli/status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "crypto/primitives.h"

namespace adit {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Sample {
  TunnelFacts facts;
  DeviceStatus device;
  EngineStatus engine;
};

Sample MakeSample() {
  SeededRandom random(7);
  Sample sample;
  sample.facts.name = "wg0";
  sample.facts.state = "up";
  sample.facts.mtu = 1420;
  sample.facts.addresses = {"10.0.0.2/32"};
  sample.engine.interface_name = "wg0";
  sample.engine.udp_gso = true;
  sample.engine.drops = {{"replay", 3}};
  sample.device.private_key = PrivateKey::Generate(random);
  sample.device.listen_port = 51820;
  sample.device.fwmark = 0xca6c;
  for (int i = 0; i < 3; ++i) {
    PeerStatus peer;
    random.Fill(peer.public_key.bytes);
    sample.device.peers.push_back(peer);
  }
  PeerStatus& peer = sample.device.peers[1];
  random.Fill(peer.preshared_key.mutable_bytes());
  peer.endpoint = SocketAddress::Parse("192.0.2.1:7");
  peer.last_handshake = WallTime{1000, 0};
  peer.rx_bytes = 1536;
  peer.persistent_keepalive_seconds = 25;
  peer.allowed_ips = {*Prefix::Parse("0.0.0.0/0", false), *Prefix::Parse("::/0", false)};
  sample.facts.peer_names[peer.public_key] = "office";
  return sample;
}

TEST(Status, TellsHowTheRoutingFares) {
  InitializeCrypto();
  Sample sample = MakeSample();
  const auto text = [&](const char* what) {
    const auto json = StatusToJson(sample.facts, sample.device, sample.engine, false);
    EXPECT_TRUE(json.contains("routing_health")) << what;
    return StatusToText(json, 1060, false);
  };
  EXPECT_THAT(text("never"), Not(HasSubstr("routing: ")));
  sample.facts.health.verified_at = 1057;
  EXPECT_THAT(text("good"), HasSubstr("  routing: good, verified 3 seconds ago\n"));
  sample.facts.health.repairs = 2;
  sample.facts.health.last_repair_at = 1000;
  sample.facts.health.is_limited = true;
  sample.facts.health.findings = {"allowed IPs 0.0.0.0/0: packets leave by eth0"};
  sample.facts.health.interferences = {
      {.culprit = "ip (pid 17)", .what = "a rule", .count = 12, .last_at = 1059, .is_fight = true}};
  const std::string all = text("bad");
  EXPECT_THAT(all, HasSubstr("  routing: not as planned, verified 3 seconds ago; 2 repairs, the last 1 minute ago; "
                             "repairs are rationed\n"));
  EXPECT_THAT(all, HasSubstr("  routing finding: allowed IPs 0.0.0.0/0: packets leave by eth0\n"));
  EXPECT_THAT(all, HasSubstr("  fight: ip (pid 17) removed what is ours 12 times, the last 1 second ago: a rule\n"));
}

TEST(Status, HidesKeysUnlessAskedFor) {
  InitializeCrypto();
  const Sample sample = MakeSample();
  const std::string private_key = KeyToBase64(sample.device.private_key);
  const std::string preshared_key = KeyToBase64(sample.device.peers[1].preshared_key);
  for (const bool show_keys : {false, true}) {
    const auto json = StatusToJson(sample.facts, sample.device, sample.engine, show_keys);
    const std::string both = json.dump() + StatusToText(json, 1060, false);
    EXPECT_EQ(both.find(private_key) != both.npos, show_keys);
    EXPECT_EQ(both.find(preshared_key) != both.npos, show_keys);
    EXPECT_THAT(both, HasSubstr(KeyToBase64(sample.device.private_key.ComputePublicKey().bytes)));
  }
}

TEST(Status, KeepsTheOrderOfPeers) {
  const Sample sample = MakeSample();
  const auto json = StatusToJson(sample.facts, sample.device, sample.engine, false);
  ASSERT_EQ(json["peers"].size(), 3u);
  std::size_t last = 0;
  const std::string text = StatusToText(json, 1060, false);
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string key = KeyToBase64(sample.device.peers[i].public_key.bytes);
    EXPECT_EQ(json["peers"][i]["public_key"], key);
    const auto at = text.find(key);
    ASSERT_NE(at, text.npos);
    EXPECT_GT(at, last);
    last = at;
  }
}

TEST(Status, TextReadsLikeWgShow) {
  const Sample sample = MakeSample();
  const std::string text = StatusToText(StatusToJson(sample.facts, sample.device, sample.engine, false), 1062, false);
  for (const char* line : {"interface: wg0\n", "  listening port: 51820\n", "  fwmark: 0xca6c\n",
                           "  private key: (hidden)\n", "  preshared key: (hidden)\n", "  endpoint: 192.0.2.1:7\n",
                           "  allowed ips: 0.0.0.0/0, ::/0\n", "  latest handshake: 1 minute, 2 seconds ago\n",
                           "  transfer: 1.50 KiB received, 0 B sent\n", "  persistent keepalive: every 25 seconds\n",
                           "  name: office\n", "  drops: replay 3\n", "  offloads: udp gso\n"}) {
    EXPECT_THAT(text, HasSubstr(line));
  }
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
  EXPECT_THAT(StatusToText(StatusToJson(sample.facts, sample.device, sample.engine, false), 1062, true),
              HasSubstr("\x1b["));
}

TEST(Status, SaysByWhichWayNamesAreLookedUpAndWhatIsWrong) {
  Sample sample = MakeSample();
  const auto text = [&] {
    return StatusToText(StatusToJson(sample.facts, sample.device, sample.engine, false), 1100, false);
  };
  EXPECT_THAT(text(), Not(HasSubstr("dns:")));
  sample.facts.dns = {"resolv.conf", "good", "", 0, {"10.0.0.53", "fd00::53"}, {"corp.example"}};
  EXPECT_THAT(text(), HasSubstr("dns: 10.0.0.53, fd00::53 (corp.example) by resolv.conf\n"));
  sample.facts.dns.health = "degraded";
  sample.facts.dns.detail = "somebody writes it";
  sample.facts.dns.repairs = 5;
  EXPECT_THAT(text(), HasSubstr("by resolv.conf, put right 5 times, degraded: somebody writes it\n"));
  sample.facts.dns = {"off", "", "", 0, {}, {}};
  EXPECT_THAT(text(), HasSubstr("dns: off\n"));
}

TEST(Status, DeviceWithoutAKeyHasNone) {
  const Sample sample = MakeSample();
  DeviceStatus device = sample.device;
  device.private_key = PrivateKey();
  const auto json = StatusToJson(sample.facts, device, sample.engine, true);
  EXPECT_TRUE(json["private_key"].is_null());
  EXPECT_TRUE(json["public_key"].is_null());
  EXPECT_THAT(StatusToText(json, 1060, false), Not(HasSubstr("public key")));
}

TEST(Status, AgesAndSizesAreWordedAsWgDoes) {
  EXPECT_EQ(AgoText(0), "now");
  EXPECT_EQ(AgoText(1), "1 second ago");
  EXPECT_EQ(AgoText(3600), "1 hour ago");
  EXPECT_EQ(AgoText(2 * 365 * 86400 + 86400 + 61), "2 years, 1 day, 1 minute, 1 second ago");
  EXPECT_THAT(AgoText(-5), HasSubstr("clock"));
  EXPECT_EQ(BytesText(0), "0 B");
  EXPECT_EQ(BytesText(1023), "1023 B");
  EXPECT_EQ(BytesText(1024), "1.00 KiB");
  EXPECT_EQ(BytesText(std::uint64_t{3} << 30), "3.00 GiB");
  EXPECT_EQ(BytesText(UINT64_MAX), "16.00 EiB");
}

}  // namespace
}  // namespace adit
