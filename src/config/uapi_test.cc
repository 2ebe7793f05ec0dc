#include "config/uapi.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "base/random.h"

namespace adit {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const std::string kKeyA(64, 'a');
const std::string kKeyB(64, 'b');
const std::string kZeroKey(64, '0');

unsigned FakeInterfaceIndex(const char* name) { return std::string_view(name) == "lo" ? 1 : 0; }

PublicKey PublicKeyOf(const std::string& hex) { return ToPublicKey(*ParseKeyHex(hex)); }

int CodeOf(const std::string& lines) {
  const auto result = ParseUapiSet(lines, FakeInterfaceIndex);
  return result ? 0 : result.error().code;
}
std::string InPeer(const std::string& line) { return "public_key=" + kKeyA + "\n" + line + "\n"; }

TEST(UapiParser, ReadsEveryKeyOfASetRequest_CONF99) {
  const auto update =
      ParseUapiSet("private_key=" + kKeyB + "\nlisten_port=51820\nfwmark=4294967295\nreplace_peers=true\n" +
                   InPeer("update_only=true\npreshared_key=" + kKeyB +
                          "\nprotocol_version=1\nendpoint=[2001:db8::1]:5\npersistent_keepalive_interval=65535\n"
                          "replace_allowed_ips=true\nallowed_ip=10.0.0.0/8\nallowed_ip=-fd00::/64") +
                   "public_key=" + kKeyB + "\nremove=true\n");
  ASSERT_TRUE(update) << update.error().message;
  EXPECT_EQ(*update->private_key, PrivateKey(ParseKeyHex(kKeyB)->bytes()).Clamped());
  EXPECT_EQ(update->listen_port, 51820);
  EXPECT_EQ(update->fwmark, 4294967295u);
  EXPECT_TRUE(update->replace_peers);
  ASSERT_EQ(update->peers.size(), 2u);
  const PeerUpdate& peer = update->peers[0];
  EXPECT_EQ(peer.public_key, PublicKeyOf(kKeyA));
  EXPECT_TRUE(peer.update_only);
  EXPECT_FALSE(peer.remove);
  EXPECT_EQ(KeyToHex(*peer.preshared_key), kKeyB);
  EXPECT_EQ(peer.endpoint->ToString(), "[2001:db8::1]:5");
  EXPECT_EQ(peer.persistent_keepalive_seconds, 65535);
  EXPECT_TRUE(peer.replace_allowed_ips);
  ASSERT_EQ(peer.allowed_ips.size(), 2u);
  EXPECT_EQ(peer.allowed_ips[0].prefix.ToString(), "10.0.0.0/8");
  EXPECT_FALSE(peer.allowed_ips[0].remove);
  EXPECT_EQ(peer.allowed_ips[1].prefix.ToString(), "fd00::/64");
  EXPECT_TRUE(peer.allowed_ips[1].remove);
  EXPECT_TRUE(update->peers[1].remove);
  EXPECT_FALSE(update->peers[1].update_only) << "a section's fields must not leak into the next";
  EXPECT_FALSE(update->peers[1].preshared_key);
}

TEST(UapiParser, LeavesAbsentFieldsUnset) {
  const auto update = ParseUapiSet(InPeer(""));
  // The blank line inside is a line without "=".
  EXPECT_FALSE(update);
  const auto bare = ParseUapiSet("public_key=" + kKeyA + "\n");
  ASSERT_TRUE(bare);
  EXPECT_FALSE(bare->private_key || bare->listen_port || bare->fwmark || bare->replace_peers);
  const PeerUpdate& peer = bare->peers.at(0);
  EXPECT_FALSE(peer.preshared_key || peer.endpoint || peer.persistent_keepalive_seconds || peer.replace_allowed_ips ||
               peer.remove || peer.update_only);
}

TEST(UapiParser, AnswersEachBadLineWithTheErrnoOfTheProtocol_CONF98) {
  const struct {
    std::string lines;
    int code;
  } cases[] = {
      {"", 0},
      {"listen_port=0\n", 0},
      {"listen_port=65535\n", 0},
      {"listen_port=65536\n", EINVAL},
      {"listen_port=+5\n", EINVAL},
      {"listen_port=-1\n", EINVAL},
      {"listen_port=0x10\n", EINVAL},
      {"listen_port=70000\n", EINVAL},
      {"listen_port= 1\n", EINVAL},
      {"listen_port=\n", EINVAL},
      {"fwmark=0\n", 0},
      {"fwmark=0x10\n", EINVAL},
      {"fwmark=\n", EINVAL},
      {"fwmark=4294967296\n", EINVAL},
      {"replace_peers=true\n", 0},
      {"replace_peers=false\n", EINVAL},
      {"replace_peers=1\n", EINVAL},
      {"private_key=" + kZeroKey + "\n", 0},
      {"private_key=" + std::string(64, 'F') + "\n", 0},
      {"private_key=" + std::string(63, 'F') + "\n", EINVAL},
      {"private_key=" + std::string(65, 'F') + "\n", EINVAL},
      {"private_key=" + std::string(64, 'g') + "\n", EINVAL},
      {"private_key=\n", EINVAL},
      {"public_key=" + kZeroKey + "\n", 0},
      {"public_key=" + std::string(62, 'a') + "\n", EINVAL},
      {"protocol_version=1\n", EINVAL},  // at device level
      {"no_such_key=1\n", EINVAL},
      {"=\n", EINVAL},
      {"listen_port\n", EPROTO},
      {"x\n", EPROTO},
      {"listen_port=1\r\n", EINVAL},
      {std::string("fwmark=1\0\n", 10), EINVAL},
      {InPeer("listen_port=1"), EINVAL},  // a device key after the first public_key
      {InPeer("private_key=" + kKeyA), EINVAL},
      {InPeer("replace_peers=true"), EINVAL},
      {InPeer("protocol_version=1"), 0},
      {InPeer("protocol_version=2"), EINVAL},
      {InPeer("update_only=false"), EINVAL},
      {InPeer("remove=yes"), EINVAL},
      {InPeer("replace_allowed_ips=1"), EINVAL},
      {InPeer("preshared_key="), EINVAL},
      {InPeer("preshared_key=" + kZeroKey), 0},
      {InPeer("endpoint=1.2.3.4:5"), 0},
      {InPeer("endpoint=1.2.3.4:0"), 0},
      {InPeer("endpoint=1.2.3.4"), EINVAL},
      {InPeer("endpoint=1.2.3.4:65536"), EINVAL},
      {InPeer("endpoint=[::1]:51820"), 0},
      {InPeer("endpoint=::1:51820"), EINVAL},
      {InPeer("endpoint=[fe80::1%lo]:5"), 0},
      {InPeer("endpoint=[fe80::1%7]:5"), 0},
      {InPeer("endpoint=[fe80::1%nosuch]:5"), EINVAL},
      {InPeer("endpoint=example.com:5"), EINVAL},
      {InPeer("endpoint="), EINVAL},
      {InPeer("persistent_keepalive_interval=0"), 0},
      {InPeer("persistent_keepalive_interval=off"), EINVAL},
      {InPeer("persistent_keepalive_interval=65536"), EINVAL},
      {InPeer("allowed_ip=10.0.0.0"), EINVAL},
      {InPeer("allowed_ip=10.0.0.0/33"), EINVAL},
      {InPeer("allowed_ip=10.0.0.0/-1"), EINVAL},
      {InPeer("allowed_ip=::/129"), EINVAL},
      {InPeer("allowed_ip=::/0"), 0},
      {InPeer("allowed_ip=-10.0.0.0/8"), 0},
      {InPeer("allowed_ip=--10.0.0.0/8"), EINVAL},
      {InPeer("allowed_ip=+10.0.0.0/8"), EINVAL},
      {InPeer("allowed_ip="), EINVAL},
      {InPeer("allowed_ip=10.0.0.0/8,11.0.0.0/8"), EINVAL},
      {InPeer("endpoint"), EPROTO},
      {InPeer("rx_bytes=1"), EINVAL},
      {InPeer("errno=0"), EINVAL},
  };
  for (const auto& c : cases) EXPECT_EQ(CodeOf(c.lines), c.code) << c.lines;
}

TEST(UapiParser, MasksHostBitsAndKeepsMappedAddressesInIpv6_CONF100) {
  const auto update = ParseUapiSet(InPeer("allowed_ip=10.1.2.3/8\nallowed_ip=::ffff:1.2.3.4/128"));
  ASSERT_TRUE(update);
  EXPECT_EQ(update->peers[0].allowed_ips[0].prefix.ToString(), "10.0.0.0/8");
  EXPECT_EQ(update->peers[0].allowed_ips[1].prefix.ToString(), "::ffff:1.2.3.4/128");
}

TEST(UapiParser, KeepsTwoSectionsOfOnePeerInOrder) {
  const auto update = ParseUapiSet(InPeer("allowed_ip=10.0.0.0/8") + InPeer("remove=true"));
  ASSERT_TRUE(update);
  ASSERT_EQ(update->peers.size(), 2u);
  EXPECT_EQ(update->peers[0].public_key, update->peers[1].public_key);
  EXPECT_FALSE(update->peers[0].remove);
  EXPECT_TRUE(update->peers[1].remove);
}

TEST(UapiParser, ForgetsAllowedIpsListedBeforeTheirReplacement) {
  const auto update = ParseUapiSet(InPeer("allowed_ip=10.0.0.0/8\nreplace_allowed_ips=true\nallowed_ip=11.0.0.0/8"));
  ASSERT_TRUE(update);
  ASSERT_EQ(update->peers[0].allowed_ips.size(), 1u);
  EXPECT_EQ(update->peers[0].allowed_ips[0].prefix.ToString(), "11.0.0.0/8");
}

TEST(UapiParser, ParsesWhatFollowsRemoveAllTheSame) {
  EXPECT_EQ(CodeOf(InPeer("remove=true\nallowed_ip=10.0.0.0/8")), 0);
  EXPECT_EQ(CodeOf(InPeer("remove=true\nallowed_ip=nonsense")), EINVAL);
}

TEST(UapiParser, TurnsAllZeroPrivateKeyIntoNoKey_CONF102) {
  const auto update = ParseUapiSet("private_key=" + kZeroKey + "\n");
  ASSERT_TRUE(update);
  EXPECT_TRUE(update->private_key->is_zero()) << "clamping would make a key of it";
}

TEST(UapiParser, NamesLineAndKeyButNoSecret) {
  const std::string secret = std::string(63, 'd');
  for (const std::string& lines :
       {"listen_port=1\nprivate_key=" + secret + "\n", "listen_port=1\n" + secret + "=1\n",
        "listen_port=1\n" + secret + "\n", "fwmark=2\n" + InPeer("preshared_key=" + secret)}) {
    const auto result = ParseUapiSet(lines);
    ASSERT_FALSE(result);
    EXPECT_THAT(result.error().message, Not(HasSubstr("dddd")));
    EXPECT_THAT(result.error().message, HasSubstr("line "));
  }
  EXPECT_THAT(ParseUapiSet("listen_port=1\nfwmark=x\n").error().message, HasSubstr("line 3: fwmark"));
}

// Everything that `stream` asks, as "set:0", "get:22", ... when it is fed in pieces of `step` bytes.
std::vector<std::string> Feed(std::string_view stream, std::size_t step,
                              std::size_t max_request_bytes = kMaxUapiRequestBytes) {
  UapiFramer framer(FakeInterfaceIndex, max_request_bytes);
  std::vector<std::string> requests;
  while (!stream.empty()) {
    std::string_view piece = stream.substr(0, step);
    stream.remove_prefix(piece.size());
    while (!piece.empty()) {
      if (const auto request = framer.Read(piece)) {
        const char* const kind = request->kind == UapiRequest::Kind::kGet   ? "get"
                                 : request->kind == UapiRequest::Kind::kSet ? "set"
                                                                            : "unknown";
        requests.push_back(fmt::format("{}:{}", kind, request->update ? 0 : request->update.error().code));
      }
    }
  }
  return requests;
}

TEST(UapiFramer, CutsAStreamIntoRequestsHoweverItArrives_CONF97) {
  const std::string stream =
      "get=1\n\nset=1\nlisten_port=1\n\nset=1\n\nget=1\n\nset=1\n" + InPeer("allowed_ip=::/0") + "\n";
  for (const std::size_t step : {1u, 2u, 3u, 7u, 4096u}) {
    EXPECT_THAT(Feed(stream, step), ElementsAre("get:0", "set:0", "set:0", "get:0", "set:0")) << step;
  }
}

TEST(UapiFramer, AnswersAFailedRequestOnceAtItsBlankLine_CONF98) {
  const std::string failed = "set=1\nlisten_port=x\nget=1\nnonsense\nset=1\n";
  for (const std::size_t step : {1u, 5u, 4096u}) {
    EXPECT_THAT(Feed(failed, step), ElementsAre()) << "before the blank line";
    EXPECT_THAT(Feed(failed + "\nget=1\n\n", step), ElementsAre("set:22", "get:0"));
  }
  EXPECT_THAT(Feed("get=1\nx\n\nget=1\n\n", 3), ElementsAre("get:22", "get:0"));
}

TEST(UapiFramer, EndsAtAnOperationThatItDoesNotKnow) {
  for (const std::string start : {"get=2", "set=2", "", "get=1\r", "foo", "set=1 ", "GET=1"}) {
    EXPECT_THAT(Feed(start + "\n\nget=1\n\n", 2), ElementsAre("unknown:71")) << start;
  }
  EXPECT_THAT(Feed(std::string(1 << 20, 'x'), 1000), ElementsAre("unknown:71")) << "without any newline";
}

TEST(UapiFramer, SaysNothingAboutHalfARequest) {
  const std::string request = "set=1\nlisten_port=1\n" + InPeer("allowed_ip=10.0.0.0/8") + "\n";
  for (std::size_t length = 0; length < request.size(); ++length) {
    EXPECT_THAT(Feed(request.substr(0, length), 4096), ElementsAre()) << length;
  }
  EXPECT_THAT(Feed(request, 4096), ElementsAre("set:0"));
}

TEST(UapiFramer, BoundsLinesAndRequests) {
  const std::string long_line(kMaxUapiLineBytes + 1, 'x');
  EXPECT_THAT(Feed("set=1\nfwmark=1\n" + long_line + "=1\nfwmark=2\n\nget=1\n\n", 1000),
              ElementsAre("set:71", "get:0"));
  const std::string just_right = "fwmark=" + std::string(kMaxUapiLineBytes - 8, '0') + "1";
  ASSERT_EQ(just_right.size(), kMaxUapiLineBytes);
  EXPECT_THAT(Feed("set=1\n" + just_right + "\n\n", 1000), ElementsAre("set:0"));
  EXPECT_THAT(Feed("set=1\n" + just_right + "0\n\n", 1000), ElementsAre("set:71"));

  std::string many_lines = "set=1\n";
  while (many_lines.size() < 2000) many_lines += "fwmark=1\n";
  EXPECT_THAT(Feed(many_lines + "\n", 100, 4000), ElementsAre("set:0"));
  EXPECT_THAT(Feed(many_lines + "\nget=1\n\n", 100, 1000), ElementsAre(fmt::format("set:{}", E2BIG), "get:0"));
}

TEST(UapiFramer, HoldsNoMemoryForALineWithoutEnd) {
  UapiFramer framer(nullptr);
  std::string_view start = "set=1\n";
  ASSERT_FALSE(framer.Read(start));
  const std::string piece(1 << 16, 'x');
  for (int i = 0; i < 2000; ++i) {  // 131 MB
    std::string_view bytes = piece;
    ASSERT_FALSE(framer.Read(bytes));
    ASSERT_TRUE(bytes.empty());
  }
  EXPECT_TRUE(framer.is_inside_request());
  EXPECT_LE(framer.request_bytes(), kMaxUapiRequestBytes + 1);
  std::string_view end = "\n\n";
  const auto request = framer.Read(end);
  ASSERT_TRUE(request);
  EXPECT_FALSE(request->update);
}

TEST(UapiFramer, RefusesARequestInTheMiddle) {
  UapiFramer framer(nullptr);
  std::string_view bytes = "set=1\nfwmark=1\n";
  ASSERT_FALSE(framer.Read(bytes));
  framer.Refuse({"too much at once", ENOBUFS});
  bytes = "fwmark=2\n\nset=1\n\n";
  const auto refused = framer.Read(bytes);
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->update.error().code, ENOBUFS);
  const auto next = framer.Read(bytes);
  ASSERT_TRUE(next);
  EXPECT_TRUE(next->update);
}

DeviceStatus ExampleStatus() {
  DeviceStatus status;
  status.private_key = PrivateKey(ParseKeyHex(kKeyB)->bytes()).Clamped();
  status.listen_port = 51820;
  status.fwmark = 51;
  PeerStatus& first = status.peers.emplace_back();
  first.public_key = PublicKeyOf(kKeyB);
  first.preshared_key = PresharedKey(ParseKeyHex(kKeyA)->bytes());
  first.endpoint = SocketAddress::Parse("[fe80::1%7]:5");
  first.last_handshake = WallTime{1'700'000'000, 5};
  first.rx_bytes = 18446744073709551615u;
  first.tx_bytes = 2;
  first.persistent_keepalive_seconds = 25;
  first.allowed_ips = {*Prefix::Parse("10.0.0.0/8", false), *Prefix::Parse("fd00::/64", false)};
  status.peers.emplace_back().public_key = PublicKeyOf(kKeyA);
  return status;
}

TEST(UapiAnswer, PrintsTheDeviceInAStableOrder_CONF97) {
  const DeviceStatus status = ExampleStatus();
  EXPECT_EQ(std::string_view(WriteUapiGet(status)),
            "private_key=" + KeyToHex(status.private_key) + "\nlisten_port=51820\nfwmark=51\npublic_key=" + kKeyB +
                "\npreshared_key=" + kKeyA +
                "\nprotocol_version=1\nendpoint=[fe80::1%7]:5\nlast_handshake_time_sec=1700000000\n"
                "last_handshake_time_nsec=5\ntx_bytes=2\nrx_bytes=18446744073709551615\n"
                "persistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\nallowed_ip=fd00::/64\npublic_key=" +
                kKeyA + "\npreshared_key=" + kZeroKey +
                "\nprotocol_version=1\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n"
                "persistent_keepalive_interval=0\n");
}

TEST(UapiAnswer, LeavesOutWhatIsUnset_CONF102) { EXPECT_EQ(WriteUapiGet(DeviceStatus{}), ""); }

TEST(UapiAnswer, HasTheErrnoSignThatWgExpects_CONF98) {
  EXPECT_EQ(WriteUapiErrno(UapiRequest::Kind::kSet, 98), "errno=-98\n\n");
  EXPECT_EQ(WriteUapiErrno(UapiRequest::Kind::kGet, 22), "errno=22\n\n");
  EXPECT_EQ(WriteUapiErrno(UapiRequest::Kind::kSet, 0), "errno=0\n\n");
  EXPECT_EQ(WriteUapiErrno(UapiRequest::Kind::kGet, 0), "errno=0\n\n");
}

TEST(UapiAnswer, IsReadBackByClientsAsItWasWritten) {
  const DeviceStatus status = ExampleStatus();
  const SecretText text = WriteUapiGet(status);
  const auto read = ParseUapiGet(std::string(text) + "errno=0\n\n");
  ASSERT_TRUE(read) << read.error().message;
  EXPECT_EQ(WriteUapiGet(*read), text);
  EXPECT_EQ(read->peers[0].last_handshake, status.peers[0].last_handshake);
  EXPECT_FALSE(read->peers[1].last_handshake);

  EXPECT_EQ(ParseUapiGet(std::string(text)).error().code, EPROTO) << "cut off";
  EXPECT_EQ(ParseUapiGet("errno=-22\n\n").error().code, EINVAL);
  EXPECT_EQ(ParseUapiGet("errno=5\n\n").error().code, EIO);
  EXPECT_EQ(ParseUapiGet("listen_port=x\nerrno=0\n\n").error().code, EPROTO);
  EXPECT_EQ(ParseUapiGet("preshared_key=" + kKeyA + "\nerrno=0\n\n").error().code, EPROTO);
  EXPECT_TRUE(ParseUapiGet("some_extension=x\nerrno=0\n\n"));
}

std::string ReadAndWrite(std::string_view lines) {
  const auto update = ParseUapiSet(lines, FakeInterfaceIndex);
  return update ? std::string(WriteUapiSet(*update)) : fmt::format("refused: {}", update.error().message);
}

TEST(UapiRoundTrip, HoldsFor130560AllowedIps_CONF101) {
  std::string lines = InPeer("replace_allowed_ips=true");
  for (int i = 0; i < 255; ++i) {
    for (int j = 0; j < 256; ++j) {
      lines += fmt::format("allowed_ip=10.{}.{}.0/24\nallowed_ip=fd00:{:x}:{:x}::/64\n", i, j, i, j + 1);
    }
  }
  EXPECT_EQ(ReadAndWrite(lines), "set=1\n" + lines + "\n");
}

TEST(UapiRoundTrip, HoldsForFortyPeersAndForPeersWithoutAllowedIps_CONF101) {
  std::string forty;
  for (int peer = 1; peer <= 40; ++peer) {
    forty += fmt::format("public_key={:064x}\n", peer);
    for (int i = 0; i < 52; ++i) forty += fmt::format("allowed_ip=10.{}.{}.0/24\n", peer, i);
  }
  EXPECT_EQ(ReadAndWrite(forty), "set=1\n" + forty + "\n");
  std::string bare;
  for (int peer = 1; peer <= 29; ++peer) bare += fmt::format("public_key={:064x}\n", peer);
  EXPECT_EQ(ReadAndWrite(bare), "set=1\n" + bare + "\n");
}

TEST(UapiFuzz, NeverCrashesAndEitherRefusesOrUnderstandsWholly_CONF103) {
  constexpr std::uint64_t kSeed = 20260101;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  SeededRandom random(kSeed);
  const std::string valid = "private_key=" + kKeyB + "\nlisten_port=51820\nfwmark=1\nreplace_peers=true\n" +
                            InPeer("update_only=true\npreshared_key=" + kKeyB +
                                   "\nprotocol_version=1\nendpoint=[fe80::1%lo]:5\npersistent_keepalive_interval=25\n"
                                   "replace_allowed_ips=true\nallowed_ip=10.0.0.0/8\nallowed_ip=-fd00::/64");
  const std::string_view dictionary[] = {"=",     "\n",   "\n\n",        "true",       "-", "get=1",
                                         "set=1", "\r\n", "public_key=", "4294967296", "/", ":"};
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
    const auto update = ParseUapiSet(text, FakeInterfaceIndex);
    if (update) {
      ++understood;
      // Whatever was understood has one meaning: its canonical text reads back as the same.
      const std::string canonical(WriteUapiSet(*update));
      EXPECT_EQ(ReadAndWrite(std::string_view(canonical).substr(6, canonical.size() - 7)), canonical);
    } else {
      EXPECT_TRUE(update.error().code == EINVAL || update.error().code == EPROTO);
    }
    Feed("set=1\n" + text + "\n\n", 1 + random.Below(50));
    (void)ParseUapiGet(text);
  }
  EXPECT_GT(understood, 100) << "the mutations are too coarse to test anything but refusal";
}

}  // namespace
}  // namespace adit
