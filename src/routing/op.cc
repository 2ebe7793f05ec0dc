#include "routing/op.h"

#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <vector>

namespace adit {
namespace {

constexpr std::string_view kPreviously = " # was ";
constexpr std::string_view kStays = " # stays";
constexpr std::string_view kGenerationModes[] = {"eui64", "none", "stable_secret", "random"};  // IN6_ADDR_GEN_MODE_*

const char* FamilyFlag(Family family) { return family == Family::kV6 ? "-6" : "-4"; }

// `forward` chooses between the operation and its inverse.
struct Printer {
  bool forward;

  std::string operator()(const SetMtu& op) const {
    return fmt::format("ip link set dev {} mtu {}", op.device, forward ? op.mtu : op.previous);
  }
  std::string operator()(const NoAddressGeneration& op) const {
    return fmt::format("ip link set dev {} addrgenmode {}", op.device,
                       kGenerationModes[forward ? kAddressGenerationNone : op.previous.value_or(0) % 4]);
  }
  std::string operator()(const AddAddress& op) const {
    return fmt::format("ip {} address {} {} dev {}", FamilyFlag(FamilyOf(op.address.ip)), Verb(), op.address.ToString(),
                       op.device);
  }
  std::string operator()(const LinkUp& op) const {
    return fmt::format("ip link set dev {} {}", op.device, forward ? "up" : "down");
  }
  std::string operator()(const AddRoute& op) const {
    return fmt::format("ip {} route {} {}", FamilyFlag(op.route.family()), Verb(), op.route.ToString());
  }
  std::string operator()(const AddRule& op) const {
    return fmt::format("ip {} rule {} {}", FamilyFlag(op.rule.family), Verb(), op.rule.ToString());
  }
  std::string operator()(const AddTable& op) const {
    return fmt::format("nft {} table inet {}{}", forward ? "add" : "delete", op.name, op.stays ? kStays : "");
  }
  std::string operator()(const SetSysctl& op) const {
    return fmt::format("sysctl -w {}={}", op.key, forward ? op.value : op.previous);
  }
  const char* Verb() const { return forward ? "add" : "del"; }
};

// The words of a line, taken one by one. The first mismatch makes everything after it fail.
class Words {
 public:
  explicit Words(std::string_view text) {
    while (!text.empty()) {
      const auto space = text.find(' ');
      words_.push_back(text.substr(0, space));
      text = space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
    }
  }
  bool Take(std::string_view word) {
    if (at_ == words_.size() || words_[at_] != word) return false;
    ++at_;
    return true;
  }
  std::string_view Next() {
    if (at_ == words_.size() || words_[at_].empty()) {
      failed_ = true;
      return {};
    }
    return words_[at_++];
  }
  template <typename T>
  T Number() {
    return NumberIn<T>(Next());
  }
  template <typename T>
  T NumberIn(std::string_view word) {
    T value{};
    const bool hex = word.starts_with("0x");
    if (hex) word.remove_prefix(2);
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, hex ? 16 : 10);
    if (error != std::errc() || end != word.data() + word.size()) failed_ = true;
    return value;
  }
  IpAddress Address() { return Value(IpAddress::Parse(Next())); }
  Prefix Destination(Family family) {
    if (Take("default")) {
      return Prefix(family == Family::kV6 ? IpAddress::V6(ByteArray<16>{}) : IpAddress::V4(ByteArray<4>{}), 0);
    }
    return Value(Prefix::Parse(Next(), /*length_optional=*/true));
  }
  // Of a rule. Everything is the same as nothing, to the kernel and in writing.
  std::optional<Prefix> Selector(Family family) {
    const Prefix prefix = Destination(family);
    return prefix.length() == 0 ? std::nullopt : std::optional(prefix);
  }
  std::uint8_t Protocol() {
    if (Take("kernel")) return 2;
    if (Take("boot")) return 3;
    if (Take("static")) return 4;
    return Number<std::uint8_t>();
  }
  std::uint32_t Table() {
    if (Take("default")) return kDefaultTable;
    if (Take("main")) return kMainTable;
    if (Take("local")) return 255;
    return Number<std::uint32_t>();
  }
  // "FIRST-LAST", or one number for both.
  template <typename T>
  std::pair<T, T> Range() {
    const std::string_view word = Next();
    const auto dash = word.find('-');
    const auto first = NumberIn<T>(word.substr(0, dash));
    return {first, dash == std::string_view::npos ? first : NumberIn<T>(word.substr(dash + 1))};
  }
  PortRange Ports() {
    const auto [first, last] = Range<std::uint16_t>();
    return {first, last};
  }
  void Fail() { failed_ = true; }
  bool complete() const { return !failed_ && at_ == words_.size(); }

 private:
  template <typename T>
  T Value(const std::optional<T>& parsed) {
    if (!parsed) failed_ = true;
    return parsed.value_or(T());
  }
  std::vector<std::string_view> words_;
  std::size_t at_ = 0;
  bool failed_ = false;
};

Route ParseRoute(Words& words, Family family) {
  Route route;
  if (words.Take("blackhole")) route.type = RouteType::kBlackhole;
  if (words.Take("unreachable")) route.type = RouteType::kUnreachable;
  if (words.Take("prohibit")) route.type = RouteType::kProhibit;
  if (words.Take("throw")) route.type = RouteType::kThrow;
  route.destination = words.Destination(family);
  if (words.Take("via")) route.gateway = words.Address();
  if (words.Take("dev")) route.device = words.Next();
  if (words.Take("table")) route.table = words.Table();
  if (words.Take("proto")) route.protocol = words.Protocol();
  if (words.Take("metric")) route.metric = words.Number<std::uint32_t>();
  if (words.Take("src")) route.preferred_source = words.Address();
  if (words.Take("mtu")) route.mtu = words.Number<std::uint32_t>();
  return route;
}

Rule ParseRule(Words& words, Family family) {
  Rule rule;
  rule.family = family;
  if (words.Take("pref")) rule.priority = words.Number<std::uint32_t>();
  rule.invert = words.Take("not");
  if (words.Take("from")) rule.source = words.Selector(family);
  if (words.Take("to")) rule.destination = words.Selector(family);
  if (words.Take("fwmark")) {
    const std::string_view mark = words.Next();
    const auto slash = mark.find('/');
    rule.mark = words.NumberIn<std::uint32_t>(mark.substr(0, slash));
    rule.mark_mask =
        slash == std::string_view::npos ? 0xffffffff : words.NumberIn<std::uint32_t>(mark.substr(slash + 1));
    if (rule.mark_mask == 0) rule.mark = 0;  // no bit of it counts
  }
  if (words.Take("iif")) rule.input_device = words.Next();
  if (words.Take("oif")) rule.output_device = words.Next();
  if (words.Take("ipproto")) {
    rule.ip_protocol = words.Take("udp") ? std::uint8_t{IPPROTO_UDP} : words.Number<std::uint8_t>();
  }
  if (words.Take("sport")) rule.source_ports = words.Ports();
  if (words.Take("dport")) rule.destination_ports = words.Ports();
  if (words.Take("uidrange")) rule.uids = words.Range<std::uint32_t>();
  if (words.Take("lookup")) {
    rule.table = words.Table();
  } else if (words.Take("unreachable")) {
    rule.action = RuleAction::kUnreachable;
  } else if (words.Take("blackhole")) {
    rule.action = RuleAction::kBlackhole;
  } else if (words.Take("prohibit")) {
    rule.action = RuleAction::kProhibit;
  } else {
    words.Fail();
  }
  if (words.Take("suppress_prefixlength")) rule.suppress_prefixlength = words.Number<std::uint16_t>();
  if (words.Take("protocol")) rule.protocol = words.Protocol();
  return rule;
}

}  // namespace

std::string ToString(const Op& op) {
  std::string text = std::visit(Printer{.forward = true}, op);
  if (const auto* mtu = std::get_if<SetMtu>(&op); mtu != nullptr && mtu->previous != 0) {
    text += fmt::format("{}{}", kPreviously, mtu->previous);
  }
  if (const auto* mode = std::get_if<NoAddressGeneration>(&op); mode != nullptr && mode->previous) {
    text += fmt::format("{}{}", kPreviously, kGenerationModes[*mode->previous % 4]);
  }
  if (const auto* sysctl = std::get_if<SetSysctl>(&op); sysctl != nullptr && !sysctl->previous.empty()) {
    text += fmt::format("{}{}", kPreviously, sysctl->previous);
  }
  return text;
}

std::string InverseToString(const Op& op) { return std::visit(Printer{.forward = false}, op); }

std::optional<Op> ParseOp(std::string_view text) {
  std::string_view previous;
  if (const auto at = text.find(kPreviously); at != std::string_view::npos) {
    previous = text.substr(at + kPreviously.size());
    text = text.substr(0, at);
  }
  const bool stays = text.ends_with(kStays);
  if (stays) text.remove_suffix(kStays.size());
  Words words(text);
  std::optional<Op> op;
  if (words.Take("nft") && words.Take("add") && words.Take("table") && words.Take("inet")) {
    op = AddTable{std::string(words.Next()), stays};
  } else if (words.Take("sysctl") && words.Take("-w")) {
    const std::string_view setting = words.Next();
    const auto equals = setting.find('=');
    if (equals == setting.npos) return std::nullopt;
    op = SetSysctl{std::string(setting.substr(0, equals)), std::string(setting.substr(equals + 1)),
                   std::string(previous)};
  } else if (!words.Take("ip")) {
    return std::nullopt;
  } else if (words.Take("link") && words.Take("set") && words.Take("dev")) {
    const std::string device(words.Next());
    if (words.Take("mtu")) {
      const auto mtu = words.Number<std::uint32_t>();
      op = SetMtu{device, mtu, previous.empty() ? 0 : words.NumberIn<std::uint32_t>(previous)};
    } else if (words.Take("addrgenmode") && words.Take("none")) {
      const auto* mode = std::ranges::find(kGenerationModes, previous);
      if (previous.empty()) {
        op = NoAddressGeneration{device, {}};
      } else if (mode != std::end(kGenerationModes)) {
        op = NoAddressGeneration{device, static_cast<std::uint8_t>(mode - std::begin(kGenerationModes))};
      }
    } else if (words.Take("up")) {
      op = LinkUp{device};
    }
  } else {
    const Family family = words.Take("-6") ? Family::kV6 : Family::kV4;
    if (family == Family::kV4) words.Take("-4");
    if (words.Take("route") && words.Take("add")) {
      op = AddRoute{ParseRoute(words, family)};
    } else if (words.Take("rule") && words.Take("add")) {
      op = AddRule{ParseRule(words, family)};
    } else if (words.Take("address") && words.Take("add")) {
      const auto address = ParseInterfaceAddress(words.Next());
      if (!address || !words.Take("dev")) return std::nullopt;
      op = AddAddress{std::string(words.Next()), *address};
    }
  }
  if (!op || !words.complete()) return std::nullopt;
  return op;
}

}  // namespace adit
