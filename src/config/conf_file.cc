#include "config/conf_file.h"

#include <algorithm>
#include <array>
#include <iterator>
#include <map>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "config/interface_name.h"
#include "config/text.h"

namespace adit {
namespace {

enum class Section { kNone, kInterface, kPeer };

std::string_view Header(Section section) { return section == Section::kPeer ? "[Peer]" : "[Interface]"; }

SecretText WithoutBlanks(std::string_view text) {
  SecretText result;
  std::ranges::copy_if(text, std::back_inserter(result), [](char c) { return !IsBlank(c); });
  return result;
}

std::vector<std::string_view> Split(std::string_view text, std::string_view separators) {
  std::vector<std::string_view> parts;
  for (;;) {
    const auto end = text.find_first_of(separators);
    parts.push_back(text.substr(0, end));
    if (end == text.npos) return parts;
    text.remove_prefix(end + 1);
  }
}

// Keys of other programs' dialects that turn up in files meant for WireGuard. They are ignored with a warning.
struct ForeignKey {
  std::string_view name;  // lower case
  std::string_view origin;
};
constexpr std::string_view kAmnezia = "AmneziaWG";
constexpr ForeignKey kForeignKeys[] = {
    {"jc", kAmnezia},
    {"jmin", kAmnezia},
    {"jmax", kAmnezia},
    {"s1", kAmnezia},
    {"s2", kAmnezia},
    {"s3", kAmnezia},
    {"s4", kAmnezia},
    {"h1", kAmnezia},
    {"h2", kAmnezia},
    {"h3", kAmnezia},
    {"h4", kAmnezia},
    {"i1", kAmnezia},
    {"i2", kAmnezia},
    {"i3", kAmnezia},
    {"i4", kAmnezia},
    {"i5", kAmnezia},
    {"j1", kAmnezia},
    {"j2", kAmnezia},
    {"j3", kAmnezia},
    {"itime", kAmnezia},
    {"allowedapps", "wiresock"},
    {"disallowedapps", "wiresock"},
    {"socks5proxy", "wiresock"},
    {"socks5proxyusername", "wiresock"},
    {"socks5proxypassword", "wiresock"},
    {"virtualadaptermode", "wiresock"},
    {"bypasslantraffic", "wiresock"},
    {"includedapplications", "WireGuard for Android"},
    {"excludedapplications", "WireGuard for Android"},
    {"checkalive", "wireproxy"},
    {"checkaliveinterval", "wireproxy"},
    {"reserved", "Cloudflare WARP clients"},
    {"clientid", "Cloudflare WARP clients"},
};

// Levenshtein's distance, ignoring case.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (ToLower(a[i]) == ToLower(b[j]) ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row.back();
}

// At most 64 bytes, no control characters, whole UTF-8 sequences: it goes to terminals and back into files.
std::string CleanName(std::string_view name) {
  constexpr std::size_t kMaxNameBytes = 64;
  std::string clean;
  std::ranges::copy_if(name, std::back_inserter(clean),
                       [](char c) { return static_cast<unsigned char>(c) >= 0x20 && c != 0x7f; });
  if (clean.size() > kMaxNameBytes) {
    std::size_t end = kMaxNameBytes;
    while (end > 0 && (static_cast<unsigned char>(clean[end]) & 0xc0) == 0x80) --end;
    clean.resize(end);
  }
  return std::string(Trim(clean));
}

bool IsDomainName(std::string_view text) {
  constexpr std::size_t kMaxDomainNameBytes = 253;  // RFC 1035, 2.3.4, as text
  return !text.empty() && text.size() <= kMaxDomainNameBytes && text.front() != '-' && text.front() != '.' &&
         std::ranges::all_of(text, [](char c) { return IsAsciiAlphanumeric(c) || c == '.' || c == '-' || c == '_'; });
}

bool IsDottedNumber(std::string_view text) { return text.find_first_not_of("0123456789.") == text.npos; }

// An IPv6 address, perhaps with a scope.
bool IsScopedIpv6(std::string_view text) {
  const auto percent = text.find('%');
  if (percent != text.npos && !IsInterfaceName(text.substr(percent + 1))) return false;
  const auto ip = IpAddress::Parse(text.substr(0, percent));
  return ip && ip->is_v6();
}

// Reads line by line; the first error ends it. Handlers return what is wrong; `Parse` adds where.
class ConfParser {
 public:
  explicit ConfParser(std::string_view file) : file_(file) {}

  Result<ConfFile> Parse(std::string_view text);

 private:
  struct KeyRule {
    std::string_view name;
    Section section;  // kNone: either
    bool may_repeat;
    Status (ConfParser::*read)(std::string_view value);
  };
  static constexpr std::size_t kKeyCount = 26;
  static const std::array<KeyRule, kKeyCount> kKeys;

  static bool IsHook(const KeyRule& rule) { return rule.name.starts_with("Pre") || rule.name.starts_with("Post"); }
  static const KeyRule* FindKey(std::string_view key);

  Status ReadLine(std::string_view line);
  Status ReadHeader(std::string_view line);
  Status ReadComment(std::string_view comment);
  Status RefuseUnknownKey(std::string_view key) const;
  Status EndPeer();
  Status Finish();

  Status ReadPrivateKey(std::string_view value);
  Status ReadListenPort(std::string_view value);
  Status ReadFwMark(std::string_view value);
  Status ReadAddress(std::string_view value);
  Status ReadDns(std::string_view value);
  Status ReadMtu(std::string_view value);
  Status ReadTable(std::string_view value);
  Status ReadSaveConfig(std::string_view value);
  template <std::vector<std::string> ConfInterface::* hooks>
  Status ReadHook(std::string_view value) {
    (conf_.interface.*hooks).emplace_back(value);
    return {};
  }
  // A key whose value has a parser of its own.
  template <auto member, auto parse>
  Status ReadValue(std::string_view value) {
    auto parsed = parse(value);
    if (!parsed) return std::unexpected(parsed.error());
    conf_.interface.*member = *std::move(parsed);
    return {};
  }
  Status ReadExcludedIps(std::string_view value);
  Status ReadForward(std::string_view value);
  Status ReadPublicKey(std::string_view value);
  Status ReadPresharedKey(std::string_view value);
  Status ReadAllowedIps(std::string_view value);
  Status ReadEndpoint(std::string_view value);
  Status ReadPersistentKeepalive(std::string_view value);

  static Result<SecretArray<kKeyBytes>> ReadKey(std::string_view value);

  void Warn(std::string text) { WarnAt(line_number_, std::move(text)); }
  void WarnAt(unsigned line, std::string text);
  std::unexpected<Error> FailAt(unsigned line, std::string_view text) const {
    return Fail("{}:{}: {}", file_, line, text);
  }
  ConfPeer& peer() { return conf_.peers.back(); }

  std::string_view file_;
  unsigned line_number_ = 0;
  unsigned error_line_ = 0;  // where an error lies, if not on the line that showed it
  Section section_ = Section::kNone;
  unsigned interface_line_ = 0;
  std::array<unsigned, kKeyCount> seen_at_{};  // by index in kKeys: the line of the key in this section, 0 if not yet
  std::map<PublicKey, unsigned> peer_lines_;
  std::map<Prefix, std::size_t> owners_;  // index of the peer that listed it last
  ConfFile conf_;
};

const std::array<ConfParser::KeyRule, ConfParser::kKeyCount> ConfParser::kKeys = {{
    {"PrivateKey", Section::kInterface, false, &ConfParser::ReadPrivateKey},
    {"ListenPort", Section::kInterface, false, &ConfParser::ReadListenPort},
    {"FwMark", Section::kInterface, false, &ConfParser::ReadFwMark},
    {"Address", Section::kInterface, true, &ConfParser::ReadAddress},
    {"DNS", Section::kInterface, true, &ConfParser::ReadDns},
    {"MTU", Section::kInterface, false, &ConfParser::ReadMtu},
    {"Table", Section::kInterface, false, &ConfParser::ReadTable},
    {"PreUp", Section::kInterface, true, &ConfParser::ReadHook<&ConfInterface::pre_up>},
    {"PostUp", Section::kInterface, true, &ConfParser::ReadHook<&ConfInterface::post_up>},
    {"PreDown", Section::kInterface, true, &ConfParser::ReadHook<&ConfInterface::pre_down>},
    {"PostDown", Section::kInterface, true, &ConfParser::ReadHook<&ConfInterface::post_down>},
    {"SaveConfig", Section::kInterface, false, &ConfParser::ReadSaveConfig},
    {"KillSwitch", Section::kInterface, false, &ConfParser::ReadValue<&ConfInterface::kill_switch, ParseKillSwitch>},
    {"LAN", Section::kInterface, false, &ConfParser::ReadValue<&ConfInterface::lan, ParseLanPolicy>},
    {"ExcludedIPs", Section::kInterface, true, &ConfParser::ReadExcludedIps},
    {"DisallowedIPs", Section::kNone, true, &ConfParser::ReadExcludedIps},
    {"LoopAvoidance", Section::kInterface, false,
     &ConfParser::ReadValue<&ConfInterface::loop_avoidance, ParseLoopAvoidance>},
    {"Gateway", Section::kInterface, false, &ConfParser::ReadValue<&ConfInterface::gateway, ParseYesNo>},
    {"Forward", Section::kInterface, true, &ConfParser::ReadForward},
    {"DNSGuard", Section::kInterface, false, &ConfParser::ReadValue<&ConfInterface::dns_guard, ParseYesNo>},
    {"CutOldFlows", Section::kInterface, false, &ConfParser::ReadValue<&ConfInterface::cut_old_flows, ParseYesNo>},
    {"PublicKey", Section::kPeer, false, &ConfParser::ReadPublicKey},
    {"PresharedKey", Section::kPeer, false, &ConfParser::ReadPresharedKey},
    {"AllowedIPs", Section::kPeer, true, &ConfParser::ReadAllowedIps},
    {"Endpoint", Section::kPeer, false, &ConfParser::ReadEndpoint},
    {"PersistentKeepalive", Section::kPeer, false, &ConfParser::ReadPersistentKeepalive},
}};

Result<ConfFile> ConfParser::Parse(std::string_view text) {
  if (text.size() > kMaxConfFileBytes) {
    return Fail("{}: the file is larger than {} bytes: is it a WireGuard configuration?", file_, kMaxConfFileBytes);
  }
  if (text.starts_with("\xff\xfe") || text.starts_with("\xfe\xff")) {
    return FailAt(1, "the file is saved as UTF-16: save it as UTF-8");
  }
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  while (!text.empty()) {
    ++line_number_;
    const auto newline = text.find('\n');
    if (const auto status = ReadLine(text.substr(0, newline)); !status) {
      return FailAt(error_line_ != 0 ? error_line_ : line_number_, status.error().message);
    }
    text.remove_prefix(newline == text.npos ? text.size() : newline + 1);
  }
  if (const auto status = Finish(); !status) return std::unexpected(status.error());
  return std::move(conf_);
}

const ConfParser::KeyRule* ConfParser::FindKey(std::string_view key) {
  const auto rule = std::ranges::find_if(kKeys, [key](const KeyRule& r) { return EqualIgnoringCase(r.name, key); });
  return rule == kKeys.end() ? nullptr : rule;
}

Status ConfParser::ReadLine(std::string_view line) {
  if (line.find('\0') != line.npos) return Fail("a zero byte: is this a text file?");
  const auto hash = line.find('#');
  const std::string_view body = Trim(line.substr(0, hash));
  if (body.empty()) {
    return hash != line.npos ? ReadComment(line.substr(hash + 1)) : Status();
  }
  if (body.starts_with('[')) return ReadHeader(body);

  // What stands in a line without "=" or before one is not shown: it may be a key that lost its name.
  const auto equals = line.find('=');
  if (equals >= hash) return Fail("no \"=\": a line is KEY = VALUE, a section is [Interface] or [Peer]");
  const SecretText key = WithoutBlanks(line.substr(0, equals));
  const KeyRule* const rule = FindKey(key);
  if (rule == nullptr) {
    const auto foreign =
        std::ranges::find_if(kForeignKeys, [&key](const ForeignKey& f) { return EqualIgnoringCase(f.name, key); });
    if (foreign == std::end(kForeignKeys)) return RefuseUnknownKey(key);
    Warn(fmt::format("{} is a key of {} and is ignored{}", std::string_view(key), foreign->origin,
                     foreign->origin == kAmnezia ? ": a server that demands its obfuscation will not answer" : ""));
    return {};
  }
  const bool fits_any = rule->section == Section::kNone && section_ != Section::kNone;
  if (rule->section != section_ && !fits_any) {
    return Fail(
        "{} belongs in a section {}{}", rule->name, Header(rule->section),
        section_ == Section::kNone ? ", and no section has begun" : fmt::format(", not in {}", Header(section_)));
  }
  // In a hook, "#" is the shell's.
  const std::string_view value = Trim((IsHook(*rule) ? line : line.substr(0, hash)).substr(equals + 1));
  if (value.empty()) {
    if (rule->name == "PrivateKey" || rule->name == "PublicKey") {
      return Fail("{} has no value: put the key there (44 characters of base64)", rule->name);
    }
    Warn(fmt::format("{} has no value and is ignored", rule->name));
    return {};
  }
  unsigned& seen_at = seen_at_[static_cast<std::size_t>(rule - kKeys.data())];
  if (seen_at != 0 && !rule->may_repeat) {
    if (rule->name == "PublicKey") {
      return Fail("a second PublicKey in the section of line {}: put a line [Peer] before each peer", peer().line);
    }
    Warn(fmt::format("{} stands on line {} already: this one counts", rule->name, seen_at));
  }
  seen_at = line_number_;
  if (const auto status = (this->*rule->read)(value); !status) {
    return Fail("{}: {}", rule->name, status.error().message);
  }
  return {};
}

Status ConfParser::ReadHeader(std::string_view line) {
  const SecretText header = WithoutBlanks(line);
  const bool is_peer = EqualIgnoringCase(header, Header(Section::kPeer));
  if (!is_peer && !EqualIgnoringCase(header, Header(Section::kInterface))) {
    return Fail("unknown section {}: use [Interface] or [Peer]", Quoted(line));
  }
  if (const auto status = EndPeer(); !status) return status;
  section_ = is_peer ? Section::kPeer : Section::kInterface;
  if (is_peer) {
    conf_.peers.emplace_back().line = line_number_;
    seen_at_ = {};
  } else if (std::exchange(interface_line_, line_number_) != 0) {
    Warn("a second [Interface]: it goes on with the first");
  }
  return {};
}

// Two comments mean something: "# friendly_name = NAME" in a peer, and "#adit: KEY = VALUE", which is read as if the
// prefix were not there.
Status ConfParser::ReadComment(std::string_view comment) {
  constexpr std::string_view kOwn = "adit:";
  comment = Trim(comment);
  if (EqualIgnoringCase(comment.substr(0, kOwn.size()), kOwn)) {
    const std::string_view line = Trim(comment.substr(kOwn.size()));
    if (line.empty() || line.starts_with('#') || line.starts_with('[')) {
      return Fail("nothing to read behind \"#adit:\": write KEY = VALUE there, or another comment");
    }
    return ReadLine(line);
  }
  const auto equals = comment.find('=');
  if (section_ != Section::kPeer || equals == comment.npos) return {};
  if (EqualIgnoringCase(Trim(comment.substr(0, equals)), "friendly_name")) {
    peer().name = CleanName(comment.substr(equals + 1));
  }
  return {};
}

Status ConfParser::RefuseUnknownKey(std::string_view key) const {
  constexpr std::size_t kMaxKeyBytes = 40;  // twice the longest of ours: what is longer is compared with none
  if (key.empty() || key.size() > kMaxKeyBytes) {
    return Fail("unknown key: a line is KEY = VALUE, such as \"Address = 10.0.0.2/32\"");
  }
  const auto distance = [key](const KeyRule& rule) { return EditDistance(rule.name, key); };
  const KeyRule& nearest = *std::ranges::min_element(kKeys, {}, distance);
  if (distance(nearest) <= std::max<std::size_t>(1, nearest.name.size() / 3)) {
    return Fail("unknown key {}: did you mean {}?", Quoted(key), nearest.name);
  }
  std::string known;
  for (const KeyRule& rule : kKeys) {
    if (rule.section == section_) known += fmt::format("{}{}", known.empty() ? "" : ", ", rule.name);
  }
  return Fail("unknown key {}{}{}", Quoted(key), known.empty() ? "" : ": the keys here are ", known);
}

// Checks what only a whole [Peer] section shows.
Status ConfParser::EndPeer() {
  if (section_ != Section::kPeer) return {};
  const auto seen = [this](std::string_view key) {
    return seen_at_[static_cast<std::size_t>(FindKey(key) - kKeys.data())] != 0;
  };
  error_line_ = peer().line;
  if (!seen("PublicKey")) return Fail("this [Peer] has no PublicKey: add the other side's");
  const auto [other, is_new] = peer_lines_.try_emplace(peer().public_key, peer().line);
  if (!is_new) {
    return Fail("this [Peer] has the same PublicKey as the one of line {}: make them one section", other->second);
  }
  error_line_ = 0;
  if (!seen("AllowedIPs")) WarnAt(peer().line, "this peer has no AllowedIPs: nothing will be routed to it");
  return {};
}

Status ConfParser::Finish() {
  if (const auto status = EndPeer(); !status) return FailAt(peer().line, status.error().message);
  if (interface_line_ == 0)
    return FailAt(std::max(line_number_, 1u), "no [Interface] section: add one, with PrivateKey");
  const ConfInterface& interface = conf_.interface;
  if (!interface.private_key || interface.private_key->is_zero()) {
    WarnAt(interface_line_, "no PrivateKey: without one, set by a hook or `wg set`, no handshake can succeed");
  } else if (const auto own = peer_lines_.find(interface.private_key->ComputePublicKey()); own != peer_lines_.end()) {
    return FailAt(own->second,
                  "this peer's PublicKey belongs to your own PrivateKey: put the other side's public key there");
  }
  // Linux takes IPv6 off an interface below this (RFC 8200, 5).
  constexpr unsigned kMinIpv6Mtu = 1280;
  if (interface.mtu && *interface.mtu < kMinIpv6Mtu &&
      std::ranges::any_of(interface.addresses, [](const InterfaceAddress& a) { return a.ip.is_v6(); })) {
    WarnAt(interface_line_,
           fmt::format("MTU = {} switches IPv6 off on the interface: it needs {}", *interface.mtu, kMinIpv6Mtu));
  }
  return {};
}

void ConfParser::WarnAt(unsigned line, std::string text) {
  if (conf_.warnings.size() < kMaxConfWarnings) {
    conf_.warnings.push_back({line, std::move(text)});
  } else {
    conf_.warnings.back() = {line, "further warnings are left out"};
  }
}

Result<SecretArray<kKeyBytes>> ConfParser::ReadKey(std::string_view value) {
  constexpr std::size_t kBase64KeyCharacters = 44;
  const SecretText text = WithoutBlanks(value);
  if (auto key = ParseKeyBase64(text)) return *std::move(key);
  if (ParseKeyHex(text)) return Fail("the key is in hexadecimal: write it in base64, 44 characters");
  if (text.size() != kBase64KeyCharacters) {
    return Fail("the key has {} characters: a WireGuard key has {}, base64 with a \"=\" at its end", text.size(),
                kBase64KeyCharacters);
  }
  return Fail("the key is not valid base64: copy it again, all {} characters", kBase64KeyCharacters);
}

Status ConfParser::ReadPrivateKey(std::string_view value) {
  const auto key = ReadKey(value);
  if (!key) return std::unexpected(key.error());
  conf_.interface.private_key = PrivateKey(key->bytes()).Clamped();
  return {};
}

Status ConfParser::ReadPublicKey(std::string_view value) {
  const auto key = ReadKey(value);
  if (!key) return std::unexpected(key.error());
  if (key->is_zero()) return Fail("the key is all zeros: put the other side's public key there");
  peer().public_key = ToPublicKey(*key);
  return {};
}

Status ConfParser::ReadPresharedKey(std::string_view value) {
  const auto key = ReadKey(value);
  if (!key) return std::unexpected(key.error());
  peer().preshared_key.reset();
  if (!key->is_zero()) peer().preshared_key = PresharedKey(key->bytes());
  return {};
}

Status ConfParser::ReadListenPort(std::string_view value) {
  const auto port = ParseDecimal<std::uint16_t>(value);
  if (!port)
    return Fail("{} is not a port: use a number from 0 to 65535 (names of services are not taken)", Quoted(value));
  conf_.interface.listen_port = *port;
  return {};
}

Status ConfParser::ReadFwMark(std::string_view value) {
  const auto mark = EqualIgnoringCase(value, "off") ? 0u : ParseDecimalOrHex<std::uint32_t>(value);
  if (!mark) return Fail("{} is not a mark: use \"off\" or a number of 32 bits, decimal or 0x...", Quoted(value));
  conf_.interface.fwmark = *mark;
  return {};
}

Status ConfParser::ReadAddress(std::string_view value) {
  for (const std::string_view item : Split(value, ", \t")) {
    if (item.empty()) continue;
    const auto slash = item.find('/');
    const auto ip = IpAddress::Parse(item.substr(0, slash));
    if (!ip) return Fail("{} is not an IP address: write it as in 10.0.0.2/32 or fd00::2/128", Quoted(item));
    const auto length = slash == item.npos ? ip->bits() : ParseDecimal<unsigned>(item.substr(slash + 1));
    if (!length || *length > ip->bits()) {
      return Fail("the prefix length of {} is not a number from 0 to {}", Quoted(item), ip->bits());
    }
    if (ip->is_unspecified() || ip->is_multicast()) return Fail("{} cannot be an interface's address", Quoted(item));
    conf_.interface.addresses.push_back({*ip, *length});
  }
  return {};
}

// wg-quick's rule: digits and dots, or a colon, is a server; all else is a search domain.
Status ConfParser::ReadDns(std::string_view value) {
  for (const std::string_view item : Split(value, ", \t")) {
    if (item.empty()) continue;
    if (item.find(':') != item.npos || IsDottedNumber(item)) {
      const auto ip = IpAddress::Parse(item);
      if (!ip) return Fail("{} is not the IP address of a server (a port cannot be given)", Quoted(item));
      conf_.interface.dns_servers.push_back(*ip);
    } else if (IsDomainName(item)) {
      conf_.interface.dns_search_domains.emplace_back(item);
    } else {
      return Fail("{} is neither the IP address of a server nor a search domain of a-z 0-9 . - _", Quoted(item));
    }
  }
  return {};
}

Status ConfParser::ReadMtu(std::string_view value) {
  const auto mtu = ParseDecimal<unsigned>(value);
  if (!mtu || *mtu < kMinMtu || *mtu > kMaxMtu) {
    return Fail("{} is not usable: use a number from {} to {}, or leave the line out", Quoted(value), kMinMtu, kMaxMtu);
  }
  conf_.interface.mtu = *mtu;
  return {};
}

Status ConfParser::ReadTable(std::string_view value) {
  using enum ConfTable::Kind;
  static constexpr std::pair<std::string_view, ConfTable> kNames[] = {// The numbers are those of rtnetlink(7).
                                                                      {"auto", {kAuto, 0}},
                                                                      {"off", {kOff, 0}},
                                                                      {"main", {kNumber, 254}},
                                                                      {"default", {kNumber, 253}}};
  for (const auto& [name, table] : kNames) {
    if (!EqualIgnoringCase(value, name)) continue;
    conf_.interface.table = table;
    return {};
  }
  const auto number = ParseDecimalOrHex<std::uint32_t>(value);
  if (!number || *number == 0) {
    return Fail("{} is not a routing table: use auto, off, main, default or a number above 0", Quoted(value));
  }
  conf_.interface.table = {kNumber, *number};
  return {};
}

Status ConfParser::ReadSaveConfig(std::string_view value) {
  const bool is_true = EqualIgnoringCase(value, "true");
  if (!is_true && !EqualIgnoringCase(value, "false")) return Fail("{}: use true or false", Quoted(value));
  conf_.interface.save_config = is_true;
  return {};
}

Status ConfParser::ReadExcludedIps(std::string_view value) {
  const auto prefixes = ParsePrefixes(value);
  if (!prefixes) return std::unexpected(prefixes.error());
  auto& excluded = conf_.interface.excluded_ips;
  excluded.insert(excluded.end(), prefixes->begin(), prefixes->end());
  return {};
}

Status ConfParser::ReadForward(std::string_view value) {
  auto forward = ParsePortForward(value);
  if (!forward) return std::unexpected(forward.error());
  for (const PortForward& other : conf_.interface.forwards) {
    if (other.protocol == forward->protocol && other.target.is_v6() == forward->target.is_v6() &&
        other.first_port <= forward->last_port && forward->first_port <= other.last_port) {
      return Fail("{} takes ports of {}: give each port to one target", Quoted(value), Quoted(other.ToString()));
    }
  }
  if (conf_.interface.forwards.size() >= kMaxForwards) return Fail("more than {}: use ranges", kMaxForwards);
  conf_.interface.forwards.push_back(*forward);
  return {};
}

Status ConfParser::ReadAllowedIps(std::string_view value) {
  const auto items = Split(value, ",");
  for (const std::string_view raw : items) {
    const std::string_view item = Trim(raw);
    if (item.empty()) {
      Warn("AllowedIPs has a comma too many");
      continue;
    }
    bool had_host_bits = false;
    const auto prefix = Prefix::Parse(WithoutBlanks(item), /*length_optional=*/true, &had_host_bits);
    if (!prefix) {
      return Fail("{} is not an address prefix such as 10.0.0.0/8 or fd00::/64{}", Quoted(item),
                  item.find_first_of(" \t;") == item.npos ? "" : ": put commas between them");
    }
    if (had_host_bits) Warn(fmt::format("AllowedIPs {} has host bits: read as {}", Quoted(item), prefix->ToString()));
    const auto [owner, is_new] = owners_.try_emplace(*prefix, conf_.peers.size() - 1);
    if (!is_new && owner->second != conf_.peers.size() - 1) {
      Warn(fmt::format("AllowedIPs {} is listed by the peer of line {} too: the last one gets it", prefix->ToString(),
                       conf_.peers[owner->second].line));
      owner->second = conf_.peers.size() - 1;
    }
    peer().allowed_ips.push_back(*prefix);
  }
  return {};
}

Status ConfParser::ReadEndpoint(std::string_view value) {
  const SecretText text = WithoutBlanks(value);
  const std::string_view all = text;
  const auto colon = all.rfind(':');
  if (colon == all.npos || all.ends_with(']')) return Fail("{} has no port: write HOST:PORT", Quoted(all));
  std::string_view host = all.substr(0, colon);
  const auto port = ParseDecimal<std::uint16_t>(all.substr(colon + 1));
  if (!port || *port == 0) return Fail("the port of {} is not a number from 1 to 65535", Quoted(all));

  const bool has_brackets = host.starts_with('[') && host.ends_with(']');
  if (has_brackets) host = host.substr(1, host.size() - 2);
  if (has_brackets || host.find(':') != host.npos) {
    if (!IsScopedIpv6(host)) {
      return Fail("{} is not an address: write IPv6 as [ADDRESS]:PORT, a name as NAME:PORT", Quoted(all));
    }
    if (!has_brackets)
      Warn(fmt::format("Endpoint is read as [{}]:{}: put brackets around IPv6 addresses", host, *port));
  } else if (IsDottedNumber(host) ? !IpAddress::Parse(host) : !IsDomainName(host)) {
    return Fail("{} is neither an IP address nor a host name", Quoted(host));
  }
  peer().endpoint = ConfEndpoint{std::string(host), *port};
  return {};
}

Status ConfParser::ReadPersistentKeepalive(std::string_view value) {
  const auto seconds = EqualIgnoringCase(value, "off") ? std::uint16_t{0} : ParseDecimal<std::uint16_t>(value);
  if (!seconds) return Fail("{}: use \"off\" or seconds from 0 to 65535, without a unit", Quoted(value));
  peer().persistent_keepalive_seconds = *seconds;
  return {};
}

}  // namespace

std::string InterfaceAddress::ToString() const { return fmt::format("{}/{}", ip.ToString(), prefix_length); }

std::optional<SocketAddress> ConfEndpoint::Numeric(InterfaceIndex interface_index) const {
  return SocketAddress::Parse(ToString(), interface_index);
}

std::string ConfEndpoint::ToString() const {
  return host.find(':') == host.npos ? fmt::format("{}:{}", host, port) : fmt::format("[{}]:{}", host, port);
}

Result<ConfFile> ParseConf(std::string_view text, std::string_view file) { return ConfParser(file).Parse(text); }

DeviceUpdate ToDeviceUpdate(const ConfFile& conf, std::span<const std::optional<SocketAddress>> endpoints) {
  CHECK(endpoints.size() == conf.peers.size());
  DeviceUpdate update;
  update.private_key = conf.interface.private_key;
  update.listen_port = conf.interface.listen_port;
  update.fwmark = conf.interface.fwmark;
  update.replace_peers = true;
  update.peers.reserve(conf.peers.size());
  for (std::size_t i = 0; i < conf.peers.size(); ++i) {
    const ConfPeer& from = conf.peers[i];
    PeerUpdate& peer = update.peers.emplace_back();
    peer.public_key = from.public_key;
    peer.preshared_key = from.preshared_key;
    peer.endpoint = endpoints[i];
    peer.persistent_keepalive_seconds = from.persistent_keepalive_seconds;
    peer.replace_allowed_ips = true;
    peer.allowed_ips.reserve(from.allowed_ips.size());
    for (const Prefix& prefix : from.allowed_ips) peer.allowed_ips.push_back({.prefix = prefix, .remove = false});
  }
  return update;
}

}  // namespace adit
