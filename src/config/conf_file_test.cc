#include "config/conf_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "crypto/primitives.h"

namespace adit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

std::string KeyText(std::uint8_t first) {
  ByteArray<32> key;
  for (std::size_t i = 0; i < key.size(); ++i) key[i] = static_cast<std::uint8_t>(first + 37 * i);
  return KeyToBase64(key);
}
const std::string kPrivate = KeyText(1);
const std::string kPeerA = KeyText(2);
const std::string kPeerB = KeyText(3);

std::string With(const std::string& interface_lines, const std::string& peer_lines) {
  return "[Interface]\nPrivateKey = " + kPrivate + "\n" + interface_lines + "\n[Peer]\nPublicKey = " + kPeerA +
         "\nAllowedIPs = 10.9.0.0/16\n" + peer_lines + "\n";
}

ConfFile Read(const std::string& text) {
  auto conf = ParseConf(text, "t.conf");
  EXPECT_TRUE(conf) << (conf ? "" : conf.error().message);
  return conf ? *std::move(conf) : ConfFile{};
}

std::string ErrorOf(const std::string& text) {
  const auto conf = ParseConf(text, "t.conf");
  return conf ? "" : conf.error().message;
}

std::vector<std::string> Warnings(const ConfFile& conf) {
  std::vector<std::string> result;
  for (const auto& warning : conf.warnings) result.push_back(fmt::format("{}: {}", warning.line, warning.text));
  return result;
}

template <typename T>
std::vector<std::string> Texts(const std::vector<T>& values) {
  std::vector<std::string> result;
  for (const auto& value : values) result.push_back(value.ToString());
  return result;
}

TEST(ConfFile, ReadsEveryKey) {
  const ConfFile conf =
      Read("[Interface]\nPrivateKey = " + kPrivate +
           "\nListenPort = 51820\nFwMark = 0xca6c\nAddress = 10.0.0.2/24, fd00::2/64\nAddress = 10.1.0.1\n"
           "DNS = 1.1.1.1, fd00::53, corp.example\nDNS = home.arpa\nMTU = 1420\nTable = 1234\n"
           "PreUp = echo 1\nPostUp = echo %i # kept; a=b\nPostUp = echo 3\nPreDown = echo 4\nPostDown = echo 5\n"
           "SaveConfig = true\n\n[Peer]\n# friendly_name = The Hague\nPublicKey = " +
           kPeerA + "\nPresharedKey = " + kPeerB +
           "\nAllowedIPs = 0.0.0.0/0, ::/0\nAllowedIPs = 10.0.0.1\nEndpoint = vpn.example.com:51820\n"
           "PersistentKeepalive = 25\n");
  const ConfInterface& interface = conf.interface;
  EXPECT_EQ(*interface.private_key, PrivateKey(ParseKeyBase64(kPrivate)->bytes()).Clamped());
  EXPECT_EQ(interface.listen_port, 51820);
  EXPECT_EQ(interface.fwmark, 0xca6cu);
  EXPECT_THAT(Texts(interface.addresses), ElementsAre("10.0.0.2/24", "fd00::2/64", "10.1.0.1/32"));
  EXPECT_THAT(Texts(interface.dns_servers), ElementsAre("1.1.1.1", "fd00::53"));
  EXPECT_THAT(interface.dns_search_domains, ElementsAre("corp.example", "home.arpa"));
  EXPECT_EQ(interface.mtu, 1420u);
  EXPECT_EQ(interface.table, (ConfTable{ConfTable::Kind::kNumber, 1234}));
  EXPECT_THAT(interface.pre_up, ElementsAre("echo 1"));
  EXPECT_THAT(interface.post_up, ElementsAre("echo %i # kept; a=b", "echo 3"));
  EXPECT_THAT(interface.pre_down, ElementsAre("echo 4"));
  EXPECT_THAT(interface.post_down, ElementsAre("echo 5"));
  EXPECT_TRUE(interface.save_config);
  ASSERT_EQ(conf.peers.size(), 1u);
  const ConfPeer& peer = conf.peers[0];
  EXPECT_EQ(peer.line, 18u);
  EXPECT_EQ(peer.name, "The Hague");
  EXPECT_EQ(KeyToBase64(peer.public_key.bytes), kPeerA);
  EXPECT_EQ(KeyToBase64(*peer.preshared_key), kPeerB);
  EXPECT_THAT(Texts(peer.allowed_ips), ElementsAre("0.0.0.0/0", "::/0", "10.0.0.1/32"));
  EXPECT_EQ(peer.endpoint, (ConfEndpoint{"vpn.example.com", 51820}));
  EXPECT_EQ(peer.persistent_keepalive_seconds, 25);
  EXPECT_THAT(Warnings(conf), IsEmpty());
}

TEST(ConfFile, LeavesAbsentThingsUnset) {
  const ConfFile conf = Read(With("", ""));
  EXPECT_FALSE(conf.interface.listen_port || conf.interface.fwmark || conf.interface.mtu || conf.interface.save_config);
  EXPECT_EQ(conf.interface.table.kind, ConfTable::Kind::kAuto);
  EXPECT_FALSE(conf.peers[0].preshared_key || conf.peers[0].endpoint || conf.peers[0].persistent_keepalive_seconds);
  EXPECT_TRUE(conf.peers[0].name.empty());
}

TEST(ConfFile, TakesByteOrderMarkCrlfCommentsBlanksAndAnyCase) {
  const ConfFile conf =
      Read("\xef\xbb\xbf# a comment = 1\r\n  [ INTERFACE ]  # here too\r\nprivatekey=" + kPrivate +
           "#x\r\n\taDDress\t=\t10.0.0.2 , fd00::2\r\n\r\nPostUp = a\r\n[peer]\r\nPUBLICKEY = " + kPeerA +
           "\r\nallowedips = 10.0.0.0 / 8 ,11.0.0.0/8\r\nendpoint = 1.2.3.4 : 5 # x\r\n"
           "Persistent Keepalive = OFF");
  EXPECT_THAT(Texts(conf.interface.addresses), ElementsAre("10.0.0.2/32", "fd00::2/128"));
  EXPECT_THAT(conf.interface.post_up, ElementsAre("a"));
  EXPECT_THAT(Texts(conf.peers[0].allowed_ips), ElementsAre("10.0.0.0/8", "11.0.0.0/8"));
  EXPECT_EQ(conf.peers[0].endpoint, (ConfEndpoint{"1.2.3.4", 5}));
  EXPECT_EQ(conf.peers[0].persistent_keepalive_seconds, 0);
  EXPECT_THAT(Warnings(conf), IsEmpty());
}

TEST(ConfFile, SplitsAddressAndDnsAtCommasAndBlanksAsWgQuickDoes) {
  const ConfFile conf = Read(With("Address = 10.0.0.2/32 fd00::2/128,10.0.0.3\nDNS = 1.1.1.1 , 8.8.8.8 a.example", ""));
  EXPECT_THAT(Texts(conf.interface.addresses), ElementsAre("10.0.0.2/32", "fd00::2/128", "10.0.0.3/32"));
  EXPECT_THAT(Texts(conf.interface.dns_servers), ElementsAre("1.1.1.1", "8.8.8.8"));
  EXPECT_THAT(conf.interface.dns_search_domains, ElementsAre("a.example"));
}

TEST(ConfFile, WarnsOfWhatProvidersWriteAndGoesOn) {
  const ConfFile conf =
      Read(With("DNS =\nJc = 4\nS1 = 15\nH4=123\nMTU = 1400\nMTU = 1300",
                "PresharedKey =\nAllowedIPs = 10.0.0.1/8,\nDisallowedIPs = 1.1.1.1/32\nEndpoint = ::1:5\n"
                "[Peer]\nPublicKey = " +
                    kPeerB + "\nAllowedIPs = 10.9.0.0/16\n[Peer]\nPublicKey = " + kPrivate));
  EXPECT_THAT(
      Warnings(conf),
      ElementsAre(HasSubstr("3: DNS has no value"), HasSubstr("4: Jc is a key of AmneziaWG"),
                  HasSubstr("5: S1 is a key of AmneziaWG"), HasSubstr("6: H4 is a key of AmneziaWG"),
                  HasSubstr("8: MTU stands on line 7 already"), HasSubstr("12: PresharedKey has no value"),
                  AllOf(HasSubstr("13: "), HasSubstr("host bits: read as 10.0.0.0/8")),
                  HasSubstr("13: AllowedIPs has a comma too many"), HasSubstr("15: Endpoint is read as [::1]:5"),
                  AllOf(HasSubstr("18: "), HasSubstr("10.9.0.0/16 is listed by the peer of line 9 too")),
                  HasSubstr("19: this peer has no AllowedIPs")));
  EXPECT_EQ(conf.interface.mtu, 1300u);
  EXPECT_FALSE(conf.peers[0].preshared_key);
  EXPECT_EQ(conf.peers[0].endpoint, (ConfEndpoint{"::1", 5}));
}

TEST(ConfFile, ReadsItsOwnKeysWithAndWithoutThePrefix) {
  const std::string lines[] = {"KillSwitch = always",
                               "LAN = 192.168.0.0/16, fd00::/8",
                               "ExcludedIPs = 1.1.1.1, 10.0.0.1/8",
                               "DisallowedIPs = 2001:db8::/32",
                               "LoopAvoidance = routes",
                               "Gateway = yes",
                               "Forward = tcp 8080 to 192.168.1.5:80",
                               "Forward = UDP 5000-5010 to fd00::5 # games",
                               "DNSGuard = no",
                               "CutOldFlows = NO"};
  std::string plain, behind_prefix;
  for (const std::string& line : lines) {
    plain += line + "\n";
    behind_prefix += (behind_prefix.empty() ? "  # ADIT:" : "#adit: ") + line + "\n";
  }
  for (const std::string& text : {plain, behind_prefix}) {
    const ConfFile conf = Read(With(text, ""));
    const ConfInterface& interface = conf.interface;
    EXPECT_EQ(interface.kill_switch, KillSwitch::kAlways);
    EXPECT_EQ(interface.lan.kind, LanPolicy::Kind::kList);
    EXPECT_EQ(interface.lan.ToString(), "192.168.0.0/16, fd00::/8");
    EXPECT_THAT(Texts(interface.excluded_ips), ElementsAre("1.1.1.1/32", "10.0.0.0/8", "2001:db8::/32"));
    EXPECT_EQ(interface.loop_avoidance, LoopAvoidance::kRoutes);
    EXPECT_TRUE(interface.gateway);
    EXPECT_THAT(Texts(interface.forwards), ElementsAre("tcp 8080 to 192.168.1.5:80", "udp 5000-5010 to fd00::5"));
    EXPECT_EQ(interface.dns_guard, false);
    EXPECT_EQ(interface.cut_old_flows, false);
    EXPECT_THAT(Warnings(conf), IsEmpty());
    const SecretText written = WriteConf(conf);
    EXPECT_EQ(std::string_view(WriteConf(Read(std::string(written)))), std::string_view(written));
    // What wg-quick reads has no key that it would refuse.
    EXPECT_THAT(std::string(written), Not(HasSubstr("\nKillSwitch")));
    EXPECT_THAT(std::string(written), HasSubstr("\n#adit: KillSwitch = always\n"));
  }
}

TEST(ConfFile, DerivesTheGuardsFromTheKillSwitch) {
  const auto guards = [](const std::string& lines) {
    const ConfInterface interface = Read(With(lines, "")).interface;
    return std::pair(interface.WantsDnsGuard(), interface.WantsOldFlowsCut());
  };
  EXPECT_EQ(guards("DNS = 10.0.0.1"), std::pair(false, false));
  EXPECT_EQ(guards("KillSwitch = up"), std::pair(false, true));
  EXPECT_EQ(guards("KillSwitch = up\nDNS = 10.0.0.1"), std::pair(true, true));
  EXPECT_EQ(guards("KillSwitch = up\nDNS = 10.0.0.1\nDNSGuard = no\nCutOldFlows = no"), std::pair(false, false));
  EXPECT_EQ(guards("DNSGuard = yes\nCutOldFlows = yes"), std::pair(true, true));
}

TEST(ConfFile, TakesDisallowedIpsAlsoFromAPeer) {
  EXPECT_THAT(Texts(Read(With("", "DisallowedIPs = 1.1.1.1/32")).interface.excluded_ips), ElementsAre("1.1.1.1/32"));
}

TEST(ConfFile, BoundsTheForwards) {
  std::string lines;
  for (std::size_t i = 1; i <= kMaxForwards; ++i) lines += fmt::format("Forward = tcp {} to 10.0.0.5\n", i);
  EXPECT_EQ(Read(With(lines, "")).interface.forwards.size(), kMaxForwards);
  EXPECT_THAT(ErrorOf(With(lines + "Forward = tcp 9999 to 10.0.0.5", "")), HasSubstr("more than 256: use ranges"));
}

TEST(ConfFile, BoundsItsWarnings) {
  std::string lines;
  for (int i = 0; i < 1000; ++i) lines += "Jc = 1\n";
  const ConfFile conf = Read(With(lines, ""));
  EXPECT_EQ(conf.warnings.size(), kMaxConfWarnings);
  EXPECT_EQ(conf.warnings.back().text, "further warnings are left out");
}

TEST(ConfFile, NamesFileLineAndCureForEveryError) {
  const struct {
    std::string text;
    std::string where;
    std::string what;
  } cases[] = {
      {"", "t.conf:1:", "no [Interface] section"},
      {"Address = 10.0.0.1\n", "t.conf:1:", "no section has begun"},
      {"[Interfaces]\n", "t.conf:1:", "unknown section \"[Interfaces]\": use [Interface] or [Peer]"},
      {"[Interface]\nnonsense\n", "t.conf:2:", "no \"=\""},
      {"[Interface]\nPrivateKey =\n", "t.conf:2:", "PrivateKey has no value"},
      {"[Interface]\nAdress = 10.0.0.1\n", "t.conf:2:", "unknown key \"Adress\": did you mean Address?"},
      {"[Interface]\nPrivatKey = 10.0.0.1\n", "t.conf:2:", "did you mean PrivateKey?"},
      {"[Interface]\nFoo = 1\n", "t.conf:2:", "the keys here are PrivateKey, ListenPort"},
      {"[Interface]\nEndpoint = 1.2.3.4:5\n", "t.conf:2:", "Endpoint belongs in a section [Peer], not in [Interface]"},
      {With("", "MTU = 1400"), "t.conf:7:", "MTU belongs in a section [Interface], not in [Peer]"},
      {With("MTU = 575", ""), "t.conf:3:", "MTU: \"575\" is not usable: use a number from 576 to 65535"},
      {With("MTU = 65536", ""), "t.conf:3:", "use a number from 576 to 65535"},
      {With("MTU = 99999999999999999999", ""), "t.conf:3:", "use a number from 576 to 65535"},
      {With("MTU = auto", ""), "t.conf:3:", "or leave the line out"},
      {With("ListenPort = wireguard", ""), "t.conf:3:", "names of services are not taken"},
      {With("ListenPort = 65536", ""), "t.conf:3:", "0 to 65535"},
      {With("FwMark = on", ""), "t.conf:3:", "use \"off\" or a number"},
      {With("Table = 0", ""), "t.conf:3:", "use auto, off, main, default or a number"},
      {With("SaveConfig = maybe", ""), "t.conf:3:", "use true or false"},
      {With("Address = 10.0.0.1/33", ""), "t.conf:3:", "prefix length of \"10.0.0.1/33\""},
      {With("Address = 10.0.0.1/", ""), "t.conf:3:", "prefix length"},
      {With("Address = 10.0.0.256", ""), "t.conf:3:", "not an IP address"},
      {With("Address = 0.0.0.0/0", ""), "t.conf:3:", "cannot be an interface's address"},
      {With("DNS = 1.1.1", ""), "t.conf:3:", "not the IP address of a server"},
      {With("DNS = 1.1.1.1:53", ""), "t.conf:3:", "not the IP address of a server"},
      {With("DNS = a;b", ""), "t.conf:3:", "neither the IP address of a server nor a search domain"},
      {With("", "AllowedIPs = 10.0.0.0/8 11.0.0.0/8"), "t.conf:7:", "put commas between them"},
      {With("", "AllowedIPs = 10.0.0.0/8;11.0.0.0/8"), "t.conf:7:", "put commas between them"},
      {With("", "AllowedIPs = example.com"), "t.conf:7:", "not an address prefix"},
      {With("", "AllowedIPs = -10.0.0.0/8"), "t.conf:7:", "not an address prefix"},
      {With("", "Endpoint = example.com"), "t.conf:7:", "no port: write HOST:PORT"},
      {With("", "Endpoint = [::1]"), "t.conf:7:", "no port: write HOST:PORT"},
      {With("", "Endpoint = example.com:http"), "t.conf:7:", "1 to 65535"},
      {With("", "Endpoint = example.com:0"), "t.conf:7:", "1 to 65535"},
      {With("", "Endpoint = 1.2.3:5"), "t.conf:7:", "neither an IP address nor a host name"},
      {With("", "Endpoint = $(id):5"), "t.conf:7:", "neither an IP address nor a host name"},
      {With("", "Endpoint = :5"), "t.conf:7:", "neither an IP address nor a host name"},
      {With("", "Endpoint = [x]:5"), "t.conf:7:", "write IPv6 as [ADDRESS]:PORT"},
      {With("", "PersistentKeepalive = 25s"), "t.conf:7:", "without a unit"},
      {With("", "PersistentKeepalive = 65536"), "t.conf:7:", "0 to 65535"},
      {With("", "PublicKey = " + kPeerB), "t.conf:7:", "put a line [Peer] before each peer"},
      {With("", "[Peer]\nEndpoint = 1.2.3.4:5\n\n[Peer]"), "t.conf:7:", "no PublicKey: add the other side's"},
      {With("", "[Peer]\nEndpoint = 1.2.3.4:5\n\n"), "t.conf:7:", "no PublicKey: add the other side's"},
      {With("", "[Peer]\nPublicKey = " + kPeerA), "t.conf:7:", "same PublicKey as the one of line 4"},
      {With("", "[Peer]\nPublicKey = " + kPeerA + "\n[Peer]\nPublicKey = " + kPeerB),
       "t.conf:7:", "same PublicKey as the one of line 4"},
      {With("", "[Peer]\nPublicKey = " + KeyToBase64(ByteArray<32>{})), "t.conf:8:", "all zeros"},
      {std::string("[Interface]\nMTU = 14\0"
                   "00\n",
                   23),
       "t.conf:2:", "zero byte"},
      {With("KillSwitch = on", ""), "t.conf:3:", "KillSwitch: \"on\": use off, up or always"},
      {With("LoopAvoidance = mark", ""), "t.conf:3:", "use auto, rules, routes or bind"},
      {With("LAN = yes", ""), "t.conf:3:", "use allow, block or prefixes"},
      {With("LAN = ,", ""), "t.conf:3:", "use allow, block or prefixes"},
      {With("ExcludedIPs = example.com", ""), "t.conf:3:", "not an address prefix"},
      {With("Gateway = maybe", ""), "t.conf:3:", "use yes or no"},
      {With("Forward = 80 to 10.0.0.5", ""), "t.conf:3:", "does not begin with tcp or udp"},
      {With("Forward = tcp 80 10.0.0.5", ""), "t.conf:3:", "is not understood"},
      {With("Forward = tcp 0 to 10.0.0.5", ""), "t.conf:3:", "neither a port from 1 to 65535"},
      {With("Forward = tcp 90-80 to 10.0.0.5", ""), "t.conf:3:", "neither a port from 1 to 65535"},
      {With("Forward = tcp 80 to 10.0.0.5:0", ""), "t.conf:3:", "is not a number from 1 to 65535"},
      {With("Forward = tcp 80 to host", ""), "t.conf:3:", "is not an address"},
      {With("Forward = tcp 80 to 127.0.0.1", ""), "t.conf:3:", "use the address of a host"},
      {With("Forward = tcp 80-81 to 10.0.0.5:80", ""), "t.conf:3:", "a range of ports keeps its numbers"},
      {With("Forward = tcp 80-90 to 10.0.0.5\nForward = tcp 85 to 10.0.0.6", ""), "t.conf:4:", "takes ports of"},
      {With("", "KillSwitch = up"), "t.conf:7:", "KillSwitch belongs in a section [Interface]"},
      {With("#adit: KilSwitch = up", ""), "t.conf:3:", "did you mean KillSwitch?"},
      {With("#adit: [Peer]", ""), "t.conf:3:", "nothing to read behind \"#adit:\""},
      {With("#adit:#adit: LAN = block", ""), "t.conf:3:", "nothing to read behind \"#adit:\""},
      {"\xff\xfe[\0I\0", "t.conf:1:", "save it as UTF-8"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ErrorOf(c.text), AllOf(StartsWith(c.where), HasSubstr(c.what))) << c.text;
  }
}

TEST(ConfFile, RefusesOurOwnKeyAsAPeer_CONF101) {
  InitializeCrypto();
  const PrivateKey own = PrivateKey(ParseKeyBase64(kPrivate)->bytes()).Clamped();
  EXPECT_THAT(ErrorOf(With("", "[Peer]\nPublicKey = " + KeyToBase64(own.ComputePublicKey().bytes))),
              AllOf(StartsWith("t.conf:7:"), HasSubstr("belongs to your own PrivateKey")));
}

TEST(ConfFile, SaysWhatIsWrongWithAKeyWithoutShowingIt) {
  const std::string hex(64, 'd');
  const struct {
    std::string value;
    std::string what;
  } cases[] = {
      {kPrivate.substr(1), "has 43 characters: a WireGuard key has 44"},
      {kPrivate + "=", "has 45 characters"},
      {"\"" + kPrivate + "\"", "has 46 characters"},
      {hex, "hexadecimal: write it in base64"},
      {"!" + kPrivate.substr(1), "not valid base64"},
      {kPrivate.substr(0, 43) + "A", "not valid base64"},
  };
  for (const auto& c : cases) {
    for (const std::string& text : {"[Interface]\nPrivateKey = " + c.value, With("", "PresharedKey = " + c.value),
                                    "[Interface]\n[Peer]\nPublicKey = " + c.value}) {
      const std::string error = ErrorOf(text);
      EXPECT_THAT(error, AllOf(HasSubstr(c.what), Not(HasSubstr(c.value)), Not(HasSubstr("dddd")))) << text;
    }
  }
  // A key that lost its name: the text before its "=" is the key.
  EXPECT_THAT(ErrorOf("[Interface]\n" + kPrivate + "\n"),
              AllOf(StartsWith("t.conf:2:"), Not(HasSubstr(kPrivate.substr(0, 8)))));
  EXPECT_THAT(ErrorOf("[Interface]\nPrivateKey " + kPrivate + "\n"), Not(HasSubstr(kPrivate.substr(0, 8))));
  EXPECT_THAT(ErrorOf("[Interface]\n" + hex + "\n"), Not(HasSubstr("dddd")));
}

TEST(ConfFile, ReadsFilesWithoutAPrivateKeyForThoseWhoSetItByHook) {
  const ConfFile conf = Read("[Interface]\nPostUp = wg set %i private-key /etc/key\n");
  EXPECT_FALSE(conf.interface.private_key);
  EXPECT_THAT(Warnings(conf), ElementsAre(HasSubstr("1: no PrivateKey")));
}

TEST(ConfFile, WarnsOfAnMtuThatSwitchesIpv6Off) {
  EXPECT_THAT(Warnings(Read(With("Address = fd00::1\nMTU = 1279", ""))), ElementsAre(HasSubstr("needs 1280")));
  EXPECT_THAT(Warnings(Read(With("Address = fd00::1\nMTU = 1280", ""))), IsEmpty());
  EXPECT_THAT(Warnings(Read(With("Address = 10.0.0.1\nMTU = 576", ""))), IsEmpty());
}

TEST(ConfFile, KnowsTheTables) {
  using enum ConfTable::Kind;
  EXPECT_EQ(Read(With("Table = auto", "")).interface.table, (ConfTable{kAuto, 0}));
  EXPECT_EQ(Read(With("Table = OFF", "")).interface.table, (ConfTable{kOff, 0}));
  EXPECT_EQ(Read(With("Table = main", "")).interface.table, (ConfTable{kNumber, 254}));
  EXPECT_EQ(Read(With("Table = 4294967295", "")).interface.table, (ConfTable{kNumber, 4294967295u}));
}

TEST(ConfFile, CleansPeerNames) {
  EXPECT_EQ(Read(With("", "#friendly_name=\x1b[31mRed\x07")).peers[0].name, "[31mRed");
  std::string umlauts;
  for (int i = 0; i < 40; ++i) umlauts += "\xc3\xbc";
  EXPECT_EQ(Read(With("", "# Friendly_Name = x" + umlauts)).peers[0].name, "x" + umlauts.substr(0, 62));
}

TEST(ConfFile, KnowsWhichEndpointsAreNumeric) {
  const auto numeric = [](const char* host) {
    const auto address = ConfEndpoint{host, 5}.Numeric([](const char* name) { return *name == 'l' ? 1u : 0u; });
    return address ? address->ToString() : "";
  };
  EXPECT_EQ(numeric("1.2.3.4"), "1.2.3.4:5");
  EXPECT_EQ(numeric("2001:db8::1"), "[2001:db8::1]:5");
  EXPECT_EQ(numeric("fe80::1%lo"), "[fe80::1%1]:5");
  EXPECT_EQ(numeric("fe80::1%no"), "");
  EXPECT_EQ(numeric("example.com"), "");
}

TEST(ConfFile, TellsTheDeviceToReplaceAllPeers) {
  const ConfFile conf =
      Read(With("ListenPort = 7\nFwMark = off", "PersistentKeepalive = off\n[Peer]\nPublicKey = " + kPeerB +
                                                    "\nPresharedKey = " + kPeerA + "\nAllowedIPs = ::/0"));
  const std::vector<std::optional<SocketAddress>> endpoints = {SocketAddress::Parse("1.2.3.4:5"), std::nullopt};
  const std::string zero(64, '0');
  EXPECT_EQ(
      std::string_view(WriteUapiSet(ToDeviceUpdate(conf, endpoints))),
      "set=1\nprivate_key=" + KeyToHex(*conf.interface.private_key) +
          "\nlisten_port=7\nfwmark=0\nreplace_peers=true\npublic_key=" + KeyToHex(*ParseKeyBase64(kPeerA)) +
          "\nendpoint=1.2.3.4:5\npersistent_keepalive_interval=0\nreplace_allowed_ips=true\nallowed_ip=10.9.0.0/16\n"
          "public_key=" +
          KeyToHex(*ParseKeyBase64(kPeerB)) + "\npreshared_key=" + KeyToHex(*ParseKeyBase64(kPeerA)) +
          "\nreplace_allowed_ips=true\nallowed_ip=::/0\n\n");
}

const std::string& FullText() {
  static const std::string text =
      "[Interface]\nAddress = 10.0.0.2/24\nAddress = fd00::2/64\nDNS = 1.1.1.1\nDNS = corp.example\nMTU = 1420\n"
      "Table = 77\nSaveConfig = true\nPreUp = a\nPostUp = b # c\nPreDown = d\nPostDown = e\nListenPort = 51820\n"
      "FwMark = 0xca6c\nPrivateKey = " +
      KeyToBase64(PrivateKey(ParseKeyBase64(kPrivate)->bytes()).Clamped()) +
      "\n#adit: KillSwitch = up\n#adit: LAN = 192.168.0.0/16, fd00::/8\n#adit: ExcludedIPs = 1.1.1.1/32\n"
      "#adit: LoopAvoidance = routes\n#adit: Gateway = yes\n#adit: Forward = tcp 8080 to 192.168.1.5:80\n"
      "#adit: Forward = udp 5000-5010 to fd00::5\n#adit: DNSGuard = yes\n#adit: CutOldFlows = no"
      "\n\n[Peer]\n# friendly_name = one\nPublicKey = " +
      kPeerA + "\nPresharedKey = " + kPeerB +
      "\nAllowedIPs = 10.0.0.0/8, ::/0\nEndpoint = [2001:db8::1]:5\nPersistentKeepalive = off\n\n[Peer]\nPublicKey = " +
      kPeerB + "\nAllowedIPs = 11.0.0.0/8\nEndpoint = example.com:51820\nPersistentKeepalive = 25\n";
  return text;
}

TEST(WithLinkState, AddsWhatTheLinkHasBesidesAndTakesItsMtuForOneOfTheFile) {
  ConfFile conf = *ParseConf(FullText(), "t.conf");
  const auto address = [](const char* ip, unsigned length) { return InterfaceAddress{*IpAddress::Parse(ip), length}; };
  const std::vector<InterfaceAddress> own = conf.interface.addresses;
  const std::vector<InterfaceAddress> link{address("10.0.0.77", 32), own[0], address("fe80::1", 64)};
  const ConfFile with = WithLinkState(conf, link, 1300);
  EXPECT_EQ(with.interface.addresses, (std::vector<InterfaceAddress>{own[0], own[1], address("10.0.0.77", 32)}));
  EXPECT_EQ(with.interface.mtu, 1300u);
  conf.interface.mtu.reset();
  EXPECT_EQ(WithLinkState(conf, {}, 1300).interface.mtu, std::nullopt);
  EXPECT_EQ(WithLinkState(conf, {}, 1300).interface.addresses, own);
}

TEST(WriteConf, WritesWhatParseConfReadsAsTheSame) {
  EXPECT_EQ(std::string_view(WriteConf(Read(FullText()))), FullText());
}

TEST(WriteConf, SavesTheDeviceAsItIsAndKeepsTheRestOfTheFile) {
  const ConfFile conf = Read(FullText());
  DeviceStatus status;
  status.private_key = PrivateKey(ParseKeyBase64(kPeerA)->bytes()).Clamped();
  status.listen_port = 9;
  PeerStatus& peer = status.peers.emplace_back();
  peer.public_key = conf.peers[0].public_key;
  peer.endpoint = SocketAddress::Parse("[fe80::1%3]:7");
  peer.allowed_ips = {*Prefix::Parse("12.0.0.0/8", false)};
  const std::string head = FullText().substr(0, FullText().find("ListenPort"));
  const auto own_begin = FullText().find("\n#adit:");
  const std::string own = FullText().substr(own_begin, FullText().find("\n\n[Peer]") - own_begin);
  EXPECT_EQ(std::string_view(WriteConf(WithDeviceStatus(conf, status))),
            head + "ListenPort = 9\nPrivateKey = " + KeyToBase64(status.private_key) + own +
                "\n\n[Peer]\n# friendly_name = one\nPublicKey = " + kPeerA +
                "\nAllowedIPs = 12.0.0.0/8\nEndpoint = [fe80::1%3]:7\n");
}

TEST(ConfFuzz, NeverCrashesOnAnyTruncation) {
  const std::string& text = FullText();
  for (std::size_t length = 0; length < text.size(); ++length) {
    const auto conf = ParseConf(std::string_view(text).substr(0, length), "t.conf");
    if (!conf) {
      EXPECT_THAT(conf.error().message, StartsWith("t.conf:")) << length;
    }
  }
}

TEST(ConfFuzz, NeverCrashesAndErrorsAlwaysNameALineAndNoSecret_CONF103) {
  constexpr std::uint64_t kSeed = 20260102;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  SeededRandom random(kSeed);
  const std::string& valid = FullText();
  const std::string_view dictionary[] = {
      "=", "\n", "[Peer]\n", "#", ",", "\r\n", "PublicKey = ", "4294967296", "/", ":", "[", "]", "%"};
  const std::string secret = valid.substr(valid.find("PrivateKey = ") + 13, 44);
  int understood = 0;
  for (int i = 0; i < 10'000; ++i) {
    std::string text = valid;
    for (std::uint32_t changes = 1 + random.Below(4); changes > 0 && !text.empty(); --changes) {
      const std::size_t at = random.Below(static_cast<std::uint32_t>(text.size()));
      switch (random.Below(5)) {
        case 0:
          text[at] = static_cast<char>(random.Below(256));
          break;
        case 1:
          text.erase(at, 1 + random.Below(80));
          break;
        case 2:
          text.insert(at, dictionary[random.Below(std::size(dictionary))]);
          break;
        case 3:
          text.insert(at, text.substr(random.Below(static_cast<std::uint32_t>(text.size())), random.Below(200)));
          break;
        case 4:
          text.resize(at);
          break;
      }
    }
    const auto conf = ParseConf(text, "t.conf");
    if (conf) {
      ++understood;
      const SecretText written = WriteConf(*conf);
      const auto again = ParseConf(written, "again.conf");
      ASSERT_TRUE(again) << again.error().message << "\n" << std::string_view(written);
      EXPECT_EQ(std::string_view(WriteConf(*again)), std::string_view(written));
    } else {
      EXPECT_THAT(conf.error().message, testing::MatchesRegex("t\\.conf:[0-9]+: .*"));
      for (std::size_t at = 0; at + 24 <= secret.size(); ++at) {
        EXPECT_THAT(conf.error().message, Not(HasSubstr(secret.substr(at, 24))));
      }
    }
  }
  EXPECT_GT(understood, 200);
}

TEST(ConfFuzz, RefusesOneMegabyteInALine) {
  const std::string megabyte(1 << 20, 'x');
  for (const std::string& line :
       {megabyte, megabyte + " = 1", "Address = " + megabyte, "DNS = " + megabyte, "PrivateKey = " + megabyte,
        "MTU = " + std::string(1 << 20, '1'), "[" + megabyte + "]"}) {
    const std::string error = ErrorOf("[Interface]\n" + line + "\n");
    EXPECT_THAT(error, StartsWith("t.conf:2:"));
    EXPECT_LT(error.size(), 300u);
  }
  EXPECT_THAT(ErrorOf(std::string(kMaxConfFileBytes + 1, '\n')), HasSubstr("larger than"));
}

}  // namespace
}  // namespace adit
