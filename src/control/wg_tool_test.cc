// The real `wg` against our socket. `wg` has /var/run/wireguard compiled in, so each test runs in a child with a mount
// namespace and a tmpfs there, and a network namespace without any other interface.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <ctime>
#include <fstream>
#include <sstream>

#include "config/conf_file.h"
#include "control/serving.h"
#include "crypto/primitives.h"

namespace adit {
namespace {

using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

std::string KeyText(std::uint8_t fill) {
  ByteArray<32> key;
  key.fill(fill);
  return KeyToBase64(key);
}
const std::string kPrivate = KeyToBase64(PrivateKey(ParseKeyBase64(KeyText(1))->bytes()).Clamped());
const std::string kPublic = KeyToBase64(PrivateKey(ParseKeyBase64(kPrivate)->bytes()).ComputePublicKey().bytes);
const std::string kPsk = KeyText(0x30);
const std::string kA = KeyText(0xa0);
const std::string kB = KeyText(0xb0);
const std::string kC = KeyText(0xc0);

// A UAPI server for "wgtest", where `wg` looks for it.
class WgTool {
 public:
  WgTool() : serving_(Options()) {
    EXPECT_EQ(serving_.error().message, "");
    Write("private", kPrivate + "\n");
    Write("psk", kPsk + "\n");
  }

  Serving::Device device() { return serving_.device(); }
  std::string file(const std::string& name) const { return directory_.path() + "/" + name; }
  void Write(const std::string& name, const std::string& text) { std::ofstream(file(name)) << text; }

  // Its output; followed by "!" and its complaints if it fails.
  std::string Run(const std::string& arguments) {
    const std::string command = fmt::format("wg {} >{} 2>{}", arguments, file("out"), file("err"));
    const int status = std::system(command.c_str());
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? Contents("out") : Contents("out") + "!" + Contents("err");
  }

 private:
  static UapiServerOptions Options() {
    UapiServerOptions options;
    options.name = "wgtest";
    return options;
  }
  std::string Contents(const std::string& name) {
    std::stringstream text;
    text << std::ifstream(file(name)).rdbuf();
    return text.str();
  }

  TemporaryDirectory directory_;
  Serving serving_;
};

// Runs `body` in a child of its own; its failures are printed there and count here.
void WithWg(void (*body)(WgTool& wg)) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root for a mount namespace";
  if (std::system("wg --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "wg (wireguard-tools) is not installed";
  constexpr int kNoNamespace = 77;
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS | CLONE_NEWNET) != 0 || mount("", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
      _exit(kNoNamespace);
    }
    // /var/run is a link to /run where it follows the FHS; if not, it is a directory of its own.
    if (mount("tmpfs", "/var/run", "tmpfs", 0, "mode=0755") != 0) _exit(kNoNamespace);
    {
      WgTool wg;
      body(wg);
    }
    std::fflush(stdout);
    _exit(testing::Test::HasFailure() ? 1 : 0);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  if (WEXITSTATUS(status) == kNoNamespace) GTEST_SKIP() << "no mount namespace or tmpfs to be had here";
  EXPECT_EQ(WEXITSTATUS(status), 0) << "the failures are printed above";
}

std::string SetEverything(WgTool& wg) {
  return wg.Run("set wgtest private-key " + wg.file("private") + " listen-port 51820 fwmark 0xca6c peer " + kA +
                " preshared-key " + wg.file("psk") +
                " endpoint 1.2.3.4:5 persistent-keepalive 25 allowed-ips 10.0.0.0/8,fd00::/64 peer " + kB +
                " endpoint [2001:db8::1]:6 allowed-ips 11.1.2.3/8");
}

TEST(WgTool, ShowsAndSetsEverything_CONF97_CONF99_CONF100) {
  WithWg([](WgTool& wg) {
    EXPECT_EQ(wg.Run("show interfaces"), "wgtest\n");
    EXPECT_EQ(wg.Run("show wgtest"), "interface: wgtest\n");
    EXPECT_EQ(SetEverything(wg), "");
    EXPECT_EQ(wg.device()->set_calls, 1);
    EXPECT_EQ(wg.Run("show wgtest dump"), kPrivate + "\t" + kPublic + "\t51820\t0xca6c\n" + kA + "\t" + kPsk +
                                              "\t1.2.3.4:5\t10.0.0.0/8,fd00::/64\t0\t0\t0\t25\n" + kB +
                                              "\t(none)\t[2001:db8::1]:6\t11.0.0.0/8\t0\t0\t0\toff\n");
    EXPECT_THAT(wg.Run("show all dump"), StartsWith("wgtest\t" + kPrivate));
    EXPECT_EQ(wg.Run("show wgtest peers"), kA + "\n" + kB + "\n") << "in the order of their creation";
    EXPECT_EQ(wg.Run("show wgtest listen-port"), "51820\n");

    EXPECT_EQ(wg.Run("set wgtest peer " + kB + " allowed-ips 10.0.0.0/8"), "");
    EXPECT_EQ(wg.Run("show wgtest allowed-ips"), kA + "\tfd00::/64\n" + kB + "\t10.0.0.0/8\n") << "it moves";
    EXPECT_EQ(wg.Run("set wgtest peer " + kB + " allowed-ips ''"), "");
    EXPECT_EQ(wg.Run("show wgtest allowed-ips"), kA + "\tfd00::/64\n" + kB + "\t(none)\n");
    EXPECT_EQ(
        wg.Run("set wgtest fwmark off listen-port 0 peer " + kA + " preshared-key /dev/null persistent-keepalive off"),
        "");
    EXPECT_EQ(wg.Run("show wgtest fwmark"), "off\n");
    EXPECT_EQ(wg.Run("show wgtest preshared-keys"), kA + "\t(none)\n" + kB + "\t(none)\n");
    EXPECT_EQ(wg.Run("set wgtest peer " + kA + " remove"), "");
    EXPECT_EQ(wg.Run("set wgtest peer " + kC + " remove"), "") << "an unknown one too";
    EXPECT_EQ(wg.Run("show wgtest peers"), kB + "\n");
  });
}

TEST(WgTool, ShowsHandshakesAsTimesAndCountsBytes) {
  WithWg([](WgTool& wg) {
    EXPECT_EQ(SetEverything(wg), "");
    wg.device()->peer(0).last_handshake = WallTime{std::time(nullptr) - 75, 1};
    wg.device()->peer(0).rx_bytes = 18446744073709551615u;
    wg.device()->peer(0).tx_bytes = 1536;
    EXPECT_THAT(wg.Run("show wgtest"), HasSubstr("latest handshake: 1 minute, "));
    EXPECT_EQ(wg.Run("show wgtest transfer"), kA + "\t18446744073709551615\t1536\n" + kB + "\t0\t0\n");
    EXPECT_THAT(wg.Run("show wgtest latest-handshakes"), MatchesRegex(".*\t1[0-9]{9}\n.*\t0\n"));
  });
}

TEST(WgTool, ShowsAndResolvesScopedEndpoints) {
  WithWg([](WgTool& wg) {
    EXPECT_EQ(wg.Run("set wgtest peer " + kA + " endpoint [fe80::1%lo]:5"), "");
    EXPECT_EQ(wg.device()->GetDevice().peers.at(0).endpoint->scope_id, if_nametoindex("lo"));
    EXPECT_EQ(wg.Run("show wgtest endpoints"), kA + "\t[fe80::1%lo]:5\n");
  });
}

TEST(WgTool, RemovesThePrivateKeyWithZeros_CONF102) {
  WithWg([](WgTool& wg) {
    EXPECT_EQ(SetEverything(wg), "");
    EXPECT_EQ(wg.Run("show wgtest private-key"), kPrivate + "\n");
    EXPECT_EQ(wg.Run("set wgtest private-key /dev/null"), "");
    EXPECT_EQ(wg.Run("show wgtest private-key"), "(none)\n");
    EXPECT_EQ(wg.Run("show wgtest public-key"), "(none)\n");
  });
}

TEST(WgTool, IgnoresOurOwnKeyAsAPeer_CONF101) {
  WithWg([](WgTool& wg) {
    EXPECT_EQ(SetEverything(wg), "");
    EXPECT_EQ(wg.Run("set wgtest peer " + kPublic + " allowed-ips 12.0.0.0/8 peer " + kC), "");
    EXPECT_EQ(wg.Run("show wgtest peers"), kA + "\n" + kB + "\n" + kC + "\n");
  });
}

TEST(WgTool, UnderstandsOurErrnos_CONF98) {
  WithWg([](WgTool& wg) {
    wg.device()->fail_with = EADDRINUSE;
    EXPECT_THAT(wg.Run("set wgtest listen-port 80"), HasSubstr("Address already in use"));
    wg.device()->fail_with = EPERM;
    EXPECT_THAT(wg.Run("set wgtest fwmark 1"), HasSubstr("Operation not permitted"));
    wg.device()->fail_with = EINVAL;
    EXPECT_THAT(wg.Run("set wgtest fwmark 1"), HasSubstr("Invalid argument"));
    wg.device()->fail_with = 0;
    EXPECT_EQ(wg.Run("show wgtest"), "interface: wgtest\n");
  });
}

std::string Conf(const std::string& peers) {
  return "[Interface]\nPrivateKey = " + kPrivate + "\nListenPort = 7\n" + peers;
}
std::string PeerConf(const std::string& key, const std::string& rest) {
  return "[Peer]\nPublicKey = " + key + "\n" + rest;
}

TEST(WgTool, LoadsConfigurationsByAllThreeWays_CONF99) {
  WithWg([](WgTool& wg) {
    wg.Write("one.conf", Conf(PeerConf(kA, "AllowedIPs = 10.0.0.0/8\nPresharedKey = " + kPsk + "\n") +
                              PeerConf(kB, "AllowedIPs = 11.0.0.0/8\n")));
    EXPECT_EQ(wg.Run("setconf wgtest " + wg.file("one.conf")), "");
    EXPECT_EQ(wg.Run("show wgtest allowed-ips"), kA + "\t10.0.0.0/8\n" + kB + "\t11.0.0.0/8\n");
    EXPECT_EQ(wg.Run("show wgtest listen-port"), "7\n");

    wg.Write("two.conf", PeerConf(kC, "AllowedIPs = 12.0.0.0/8\n"));
    EXPECT_EQ(wg.Run("addconf wgtest " + wg.file("two.conf")), "");
    EXPECT_EQ(wg.Run("show wgtest peers"), kA + "\n" + kB + "\n" + kC + "\n");
    EXPECT_EQ(wg.Run("show wgtest listen-port"), "7\n") << "addconf leaves what it does not name";

    wg.device()->peer(1).rx_bytes = 4711;  // shows whether the peer is still the same one
    wg.Write("three.conf", Conf(PeerConf(kB, "AllowedIPs = 10.0.0.0/8\n")));
    EXPECT_EQ(wg.Run("syncconf wgtest " + wg.file("three.conf")), "");
    EXPECT_EQ(wg.Run("show wgtest allowed-ips"), kB + "\t10.0.0.0/8\n");
    EXPECT_EQ(wg.Run("show wgtest transfer"), kB + "\t4711\t0\n");

    wg.Write("none.conf", "[Interface]\n");
    EXPECT_EQ(wg.Run("syncconf wgtest " + wg.file("none.conf")), "");
    EXPECT_EQ(wg.Run("show wgtest dump"), "(none)\t(none)\t0\toff\n");
  });
}

TEST(WgTool, PrintsTheConfigurationThatWeWrite) {
  WithWg([](WgTool& wg) {
    EXPECT_EQ(SetEverything(wg), "");
    const std::string shown = wg.Run("showconf wgtest");
    EXPECT_EQ(shown, std::string(WriteConf(WithDeviceStatus({}, wg.device()->GetDevice()))));
    const auto conf = ParseConf(shown, "showconf");
    ASSERT_TRUE(conf) << conf.error().message;
    wg.Write("ours.conf", std::string(WriteConf(*conf)));
    EXPECT_EQ(wg.Run("setconf wgtest " + wg.file("ours.conf")), "");
    EXPECT_EQ(wg.Run("showconf wgtest"), shown);
  });
}

TEST(WgTool, RoundTrips130560AllowedIps_CONF101) {
  WithWg([](WgTool& wg) {
    std::string lines;
    for (int i = 0; i < 255; ++i) {
      for (int j = 0; j < 256; ++j)
        lines += fmt::format("AllowedIPs = 10.{}.{}.0/24, fd00:{:x}:{:x}::/64\n", i, j, i, j);
    }
    wg.Write("many.conf", Conf(PeerConf(kA, lines)));
    EXPECT_EQ(wg.Run("setconf wgtest " + wg.file("many.conf")), "");
    const std::string shown = wg.Run("show wgtest allowed-ips");
    EXPECT_EQ(std::ranges::count(shown, '/'), 2 * 255 * 256);
    wg.Write("shown.conf", wg.Run("showconf wgtest"));
    EXPECT_EQ(wg.Run("setconf wgtest " + wg.file("shown.conf")), "");
    EXPECT_EQ(wg.Run("show wgtest allowed-ips"), shown);
  });
}

TEST(WgTool, RoundTripsFortyPeersAndPeersWithoutAllowedIps_CONF101) {
  WithWg([](WgTool& wg) {
    std::string peers;
    for (std::uint8_t peer = 1; peer <= 40; ++peer) {
      std::string ips;
      for (int i = 0; i < 52; ++i) ips += fmt::format("{}10.{}.{}.0/24", i == 0 ? "AllowedIPs = " : ",", peer, i);
      peers += PeerConf(KeyText(peer), ips + "\n");
    }
    for (std::uint8_t peer = 101; peer < 130; ++peer) peers += PeerConf(KeyText(peer), "");
    wg.Write("peers.conf", Conf(peers));
    EXPECT_EQ(wg.Run("setconf wgtest " + wg.file("peers.conf")), "");
    const std::string shown = wg.Run("show wgtest allowed-ips");
    EXPECT_EQ(std::ranges::count(shown, '\n'), 69);
    int prefixes = 0;
    for (auto at = shown.find(".0/24"); at != shown.npos; at = shown.find(".0/24", at + 1)) ++prefixes;
    EXPECT_EQ(prefixes, 40 * 52);
    EXPECT_THAT(shown, HasSubstr(KeyText(129) + "\t(none)\n"));
    wg.Write("shown.conf", wg.Run("showconf wgtest"));
    EXPECT_EQ(wg.Run("setconf wgtest " + wg.file("shown.conf")), "");
    EXPECT_EQ(wg.Run("show wgtest allowed-ips"), shown);
  });
}

TEST(WgTool, RunsSixteenAtOnceWithoutTakingTheSocketAway_CONF96) {
  WithWg([](WgTool& wg) {
    EXPECT_EQ(SetEverything(wg), "");
    const std::string loop = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do wg show wgtest dump & done; wait";
    wg.Write("loop.sh", loop);
    const std::string command = fmt::format("sh {} >{}", wg.file("loop.sh"), wg.file("dumps"));
    EXPECT_EQ(std::system(command.c_str()), 0);
    std::stringstream dumps;
    dumps << std::ifstream(wg.file("dumps")).rdbuf();
    EXPECT_EQ(std::ranges::count(dumps.str(), '\n'), 48);
    EXPECT_EQ(wg.Run("show interfaces"), "wgtest\n");
  });
}

}  // namespace
}  // namespace adit
