#include "config/routing_keys.h"

#include <algorithm>
#include <utility>

#include "config/text.h"

namespace adit {
namespace {

constexpr std::pair<std::string_view, KillSwitch> kKillSwitches[] = {
    {"off", KillSwitch::kOff}, {"up", KillSwitch::kUp}, {"always", KillSwitch::kAlways}};
constexpr std::pair<std::string_view, LoopAvoidance> kLoopAvoidances[] = {{"auto", LoopAvoidance::kAuto},
                                                                          {"rules", LoopAvoidance::kRules},
                                                                          {"routes", LoopAvoidance::kRoutes},
                                                                          {"bind", LoopAvoidance::kBind}};

template <typename T, std::size_t size>
Result<T> FromName(const std::pair<std::string_view, T> (&names)[size], std::string_view text) {
  std::string known;
  for (const auto& [name, value] : names) {
    if (EqualIgnoringCase(name, text)) return value;
    known += fmt::format("{}{}", known.empty() ? "" : name == names[size - 1].first ? " or " : ", ", name);
  }
  return Fail("{}: use {}", Quoted(text), known);
}

template <typename T, std::size_t size>
std::string_view NameOf(const std::pair<std::string_view, T> (&names)[size], T value) {
  return std::ranges::find(names, value, &std::pair<std::string_view, T>::second)->first;
}

// The next word of `text`, which loses it.
std::string_view TakeWord(std::string_view& text) {
  text = Trim(text);
  const std::size_t end = std::min(text.find_first_of(" \t"), text.size());
  const std::string_view word = text.substr(0, end);
  text.remove_prefix(end);
  return word;
}

}  // namespace

std::string_view ToString(KillSwitch value) { return NameOf(kKillSwitches, value); }
std::string_view ToString(LoopAvoidance value) { return NameOf(kLoopAvoidances, value); }

std::string LanPolicy::ToString() const {
  if (kind == Kind::kAllow) return "allow";
  if (kind == Kind::kBlock) return "block";
  std::string text;
  for (const Prefix& prefix : prefixes) text += fmt::format("{}{}", text.empty() ? "" : ", ", prefix.ToString());
  return text;
}

std::string PortForward::ToString() const {
  std::string text = fmt::format("{} {}", protocol == Protocol::kTcp ? "tcp" : "udp", first_port);
  if (last_port != first_port) text += fmt::format("-{}", last_port);
  text += " to ";
  text += target_port ? SocketAddress{.ip = target, .port = *target_port, .scope_id = 0}.ToString() : target.ToString();
  return text;
}

Result<KillSwitch> ParseKillSwitch(std::string_view text) { return FromName(kKillSwitches, text); }
Result<LoopAvoidance> ParseLoopAvoidance(std::string_view text) { return FromName(kLoopAvoidances, text); }

Result<bool> ParseYesNo(std::string_view text) {
  constexpr std::pair<std::string_view, bool> kNames[] = {{"true", true}, {"false", false}, {"on", true},
                                                          {"off", false}, {"yes", true},    {"no", false}};
  for (const auto& [name, value] : kNames) {
    if (EqualIgnoringCase(name, text)) return value;
  }
  return Fail("{}: use yes or no", Quoted(text));
}

Result<std::vector<Prefix>> ParsePrefixes(std::string_view text) {
  std::vector<Prefix> prefixes;
  for (;;) {
    const auto comma = text.find(',');
    const std::string_view item = Trim(text.substr(0, comma));
    if (!item.empty()) {
      const auto prefix = Prefix::Parse(item, /*length_optional=*/true);
      if (!prefix) return Fail("{} is not an address prefix such as 192.168.0.0/16 or fd00::/8", Quoted(item));
      prefixes.push_back(*prefix);
    }
    if (comma == text.npos) return prefixes;
    text.remove_prefix(comma + 1);
  }
}

Result<LanPolicy> ParseLanPolicy(std::string_view text) {
  if (EqualIgnoringCase(text, "allow")) return LanPolicy{};
  if (EqualIgnoringCase(text, "block")) return LanPolicy{.kind = LanPolicy::Kind::kBlock, .prefixes = {}};
  auto prefixes = ParsePrefixes(text);
  if (!prefixes || prefixes->empty()) return Fail("{}: use allow, block or prefixes", Quoted(text));
  return LanPolicy{.kind = LanPolicy::Kind::kList, .prefixes = *std::move(prefixes)};
}

Result<PortForward> ParsePortForward(std::string_view text) {
  constexpr std::string_view kForm = "write it as in \"tcp 8080 to 192.168.1.5:80\" or \"udp 5000-5010 to fd00::5\"";
  std::string_view rest = text;
  const std::string_view protocol = TakeWord(rest);
  const std::string_view ports = TakeWord(rest);
  const std::string_view to = TakeWord(rest);
  const std::string_view target = TakeWord(rest);
  PortForward forward;
  if (EqualIgnoringCase(protocol, "udp")) {
    forward.protocol = PortForward::Protocol::kUdp;
  } else if (!EqualIgnoringCase(protocol, "tcp")) {
    return Fail("{} does not begin with tcp or udp: {}", Quoted(text), kForm);
  }
  if (!EqualIgnoringCase(to, "to") || target.empty() || !Trim(rest).empty()) {
    return Fail("{} is not understood: {}", Quoted(text), kForm);
  }
  const auto dash = ports.find('-');
  const auto first = ParseDecimal<std::uint16_t>(ports.substr(0, dash));
  const auto last = dash == ports.npos ? first : ParseDecimal<std::uint16_t>(ports.substr(dash + 1));
  if (!first || !last || *first == 0 || *last < *first) {
    return Fail("{} is neither a port from 1 to 65535 nor a range such as 8000-8010", Quoted(ports));
  }
  forward.first_port = *first;
  forward.last_port = *last;
  if (const auto ip = IpAddress::Parse(target)) {
    forward.target = *ip;
  } else if (const auto address = SocketAddress::Parse(target); address && address->scope_id == 0) {
    if (address->port == 0) return Fail("the port of {} is not a number from 1 to 65535", Quoted(target));
    forward.target = address->ip;
    forward.target_port = address->port;
  } else {
    return Fail("{} is not an address, with or without a port: {}", Quoted(target), kForm);
  }
  if (forward.target_port && *first != *last) {
    return Fail("a range of ports keeps its numbers: leave out the port of {}", Quoted(target));
  }
  const bool is_loopback =
      forward.target.is_v4() ? forward.target.bytes()[0] == 127 : forward.target == *IpAddress::Parse("::1");
  if (forward.target.is_unspecified() || forward.target.is_multicast() || is_loopback ||
      forward.target.is_v6_link_local()) {
    return Fail("{} cannot be forwarded to: use the address of a host", Quoted(target));
  }
  return forward;
}

}  // namespace adit
