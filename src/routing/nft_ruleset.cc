#include "routing/nft_ruleset.h"

#include <fmt/format.h>
#include <netinet/in.h>

#include <algorithm>
#include <string_view>

namespace adit::nft {
namespace {

const char* Is(bool is) { return is ? "" : "!= "; }
const char* Ip(bool is_v6) { return is_v6 ? "ip6" : "ip"; }
const char* End(bool is_destination) { return is_destination ? "daddr" : "saddr"; }
const char* NameOf(std::uint8_t protocol) {
  return protocol == IPPROTO_TCP ? "tcp" : protocol == IPPROTO_UDP ? "udp" : "ipv6-icmp";
}

struct Printer {
  std::string operator()(const InputName& s) const { return fmt::format("iifname {}\"{}\"", Is(s.is), s.device); }
  std::string operator()(const OutputName& s) const { return fmt::format("oifname {}\"{}\"", Is(s.is), s.device); }
  std::string operator()(const MarkIs& s) const {
    if (s.mask == 0xffffffff) return fmt::format("meta mark {}{:#010x}", Is(s.is), s.value);
    return fmt::format("meta mark & {:#010x} {} {:#010x}", s.mask, s.is ? "==" : "!=", s.value);
  }
  std::string operator()(const ProtocolIs& s) const { return fmt::format("meta l4proto {}", NameOf(s.protocol)); }
  std::string operator()(const Port& s) const {
    std::string text = fmt::format("{} {} {}", NameOf(s.protocol), s.is_destination ? "dport" : "sport", s.first);
    if (s.last != s.first) text += fmt::format("-{}", s.last);
    return text;
  }
  std::string operator()(const AddressIn& s) const {
    return fmt::format("{} {} {}@{}", Ip(s.is_v6), End(s.is_destination), Is(s.is), s.set);
  }
  std::string operator()(const EndpointIn& s) const {
    return fmt::format("{} {} . udp {} @{}", Ip(s.is_v6), End(s.is_destination), s.is_destination ? "dport" : "sport",
                       s.set);
  }
  std::string operator()(const UserIn& s) const { return "meta skuid @" + s.set; }
  std::string operator()(const Icmp6Type& s) const {
    switch (s.type) {
      case 133:
        return "icmpv6 type nd-router-solicit";
      case 135:
        return "icmpv6 type nd-neighbor-solicit";
      case 136:
        return "icmpv6 type nd-neighbor-advert";
      case 143:
        return "icmpv6 type mld2-listener-report";
      default:
        return fmt::format("icmpv6 type {}", s.type);
    }
  }
  std::string operator()(const HopLimit255&) const { return "ip6 hoplimit 255"; }
  std::string operator()(const SourceNotLocal&) const { return "fib saddr type != local"; }
  std::string operator()(const WasAddressedTo& s) const {
    return fmt::format("ct original {} daddr @{}", s.is_v6 ? "ip6" : "ip", s.set);
  }
  std::string operator()(const WasTranslated&) const { return "ct status dnat"; }
  std::string operator()(const Count& s) const { return fmt::format("counter name \"{}\"", s.counter); }
  // As nft shows "& ~mask | value": bits that are set anyway need not be cleared.
  std::string operator()(const SetMark& s) const {
    if (s.mask == 0xffffffff) return fmt::format("meta mark set {:#010x}", s.value);
    const std::uint32_t kept = ~(s.mask & ~s.value);
    if (kept == 0xffffffff) return fmt::format("meta mark set meta mark | {:#010x}", s.value);
    if (s.value == 0) return fmt::format("meta mark set meta mark & {:#010x}", kept);
    return fmt::format("meta mark set meta mark & {:#010x} | {:#010x}", kept, s.value);
  }
  std::string operator()(const ClampToRoute&) const { return "tcp flags syn tcp option maxseg size set rt mtu"; }
  std::string operator()(const ClampTo& s) const {
    return fmt::format("meta nfproto {} tcp flags syn tcp option maxseg size set {}", s.is_v6 ? "ipv6" : "ipv4",
                       s.mss_bytes);
  }
  std::string operator()(const Accept&) const { return "accept"; }
  std::string operator()(const Drop&) const { return "drop"; }
  std::string operator()(const Return&) const { return "return"; }
  std::string operator()(const Jump& s) const { return "jump " + s.chain; }
  std::string operator()(const Reject& s) const {
    return s.with_reset ? "reject with tcp reset" : "reject with icmpx admin-prohibited";
  }
  std::string operator()(const Masquerade&) const { return "masquerade"; }
  std::string operator()(const Translate& s) const {
    const std::string target =
        s.port ? SocketAddress{.ip = s.target, .port = *s.port, .scope_id = 0}.ToString() : s.target.ToString();
    return fmt::format("dnat {} to {}", Ip(s.target.is_v6()), target);
  }
};

std::string ToString(const Chain::Base& base) {
  struct Name {
    int priority;
    std::string_view text;
  };
  static constexpr Name kNames[] = {{-300, "raw"}, {-150, "mangle"}, {-100, "dstnat"}, {0, "filter"}, {100, "srcnat"}};
  static constexpr std::string_view kHooks[] = {"prerouting", "input", "forward", "output", "postrouting"};
  // nft names a priority by the standard one within 10 of it.
  std::string priority = std::to_string(base.priority);
  for (const Name& name : kNames) {
    const int off = base.priority - name.priority;
    if (off == 0) priority = name.text;
    if (off != 0 && off >= -10 && off <= 10) {
      priority = fmt::format("{} {} {}", name.text, off < 0 ? "-" : "+", off < 0 ? -off : off);
    }
  }
  return fmt::format("type {} hook {} priority {}; policy accept;", base.is_nat ? "nat" : "filter",
                     kHooks[static_cast<std::size_t>(base.hook)], priority);
}

std::string ToString(const Set& set) {
  if (set.kind == Set::Kind::kUser) {
    return fmt::format("\tset {} {{\n\t\ttype uid\n\t\tflags timeout\n\t\telements = {{ {} timeout {}s }}\n\t}}\n",
                       set.name, set.uid, set.timeout_seconds);
  }
  std::string text = fmt::format("\tset {} {{\n\t\ttype {}", set.name, set.is_v6 ? "ipv6_addr" : "ipv4_addr");
  if (set.kind == Set::Kind::kEndpoints) text += " . inet_service";
  text += set.kind == Set::Kind::kPrefixes ? "\n\t\tflags interval\n" : "\n";
  std::string elements;
  const auto add = [&](std::string_view element) {
    elements += fmt::format("{}{}", elements.empty() ? "" : ", ", element);
  };
  for (const Prefix& prefix : set.prefixes) {
    add(prefix.length() == prefix.address().bits() ? prefix.address().ToString() : prefix.ToString());
  }
  for (const SocketAddress& endpoint : set.endpoints) {
    add(fmt::format("{} . {}", endpoint.ip.ToString(), endpoint.port));
  }
  if (!elements.empty()) text += fmt::format("\t\telements = {{ {} }}\n", elements);
  return text + "\t}\n";
}

// ---- judging

// What became of a packet in a chain.
enum class Outcome { kGoesOn, kAccepted, kDropped };

class Judging {
 public:
  Judging(const Table& table, Packet& packet) : table_(table), packet_(packet) {}

  Outcome Run(const Chain& chain) {
    for (const Rule& rule : chain.rules) {
      std::string counter;
      for (const Statement& statement : rule) {
        if (const auto* count = std::get_if<Count>(&statement)) counter = count->counter;
        if (const auto* mark = std::get_if<SetMark>(&statement)) {
          packet_.mark = (packet_.mark & ~mark->mask) | mark->value;
        }
        if (std::holds_alternative<Accept>(statement)) return Outcome::kAccepted;
        if (std::holds_alternative<Return>(statement)) return Outcome::kGoesOn;
        if (std::holds_alternative<Drop>(statement) || std::holds_alternative<Reject>(statement)) {
          verdict = {.passes = false, .chain = chain.name, .rule = nft::ToString(rule), .counter = counter};
          return Outcome::kDropped;
        }
        if (const auto* jump = std::get_if<Jump>(&statement)) {
          const Chain* const next = table_.FindChain(jump->chain);
          const Outcome outcome = next == nullptr ? Outcome::kGoesOn : Run(*next);
          if (outcome != Outcome::kGoesOn) return outcome;
        }
        if (!Holds(statement)) break;
      }
    }
    return Outcome::kGoesOn;
  }

  Verdict verdict;

 private:
  // Effects hold; what a packet without a history is not asked for does not.
  bool Holds(const Statement& statement) const {
    if (const auto* s = std::get_if<OutputName>(&statement)) return (packet_.output_device == s->device) == s->is;
    if (const auto* s = std::get_if<InputName>(&statement)) return (packet_.input_device == s->device) == s->is;
    if (const auto* s = std::get_if<UserIn>(&statement)) {
      const Set* const set = table_.FindSet(s->set);
      return packet_.input_device.empty() && set != nullptr && set->uid == packet_.uid;
    }
    if (std::holds_alternative<SourceNotLocal>(statement)) return !packet_.input_device.empty();
    if (const auto* s = std::get_if<MarkIs>(&statement)) return ((packet_.mark & s->mask) == s->value) == s->is;
    if (const auto* s = std::get_if<ProtocolIs>(&statement)) return packet_.protocol == s->protocol;
    if (const auto* s = std::get_if<Port>(&statement)) {
      const std::uint16_t port = s->is_destination ? packet_.destination_port : packet_.source_port;
      return packet_.protocol == s->protocol && s->first <= port && port <= s->last;
    }
    if (const auto* s = std::get_if<AddressIn>(&statement)) {
      const IpAddress& ip = s->is_destination ? packet_.destination : packet_.source;
      if (ip.is_v6() != s->is_v6) return false;
      const Set* const set = table_.FindSet(s->set);
      const bool in =
          set != nullptr && std::ranges::any_of(set->prefixes, [&](const Prefix& p) { return p.Contains(ip); });
      return in == s->is;
    }
    if (const auto* s = std::get_if<EndpointIn>(&statement)) {
      const IpAddress& ip = s->is_destination ? packet_.destination : packet_.source;
      const std::uint16_t port = s->is_destination ? packet_.destination_port : packet_.source_port;
      const Set* const set = table_.FindSet(s->set);
      return packet_.protocol == IPPROTO_UDP && set != nullptr &&
             std::ranges::any_of(set->endpoints, [&](const SocketAddress& e) { return e.ip == ip && e.port == port; });
    }
    const bool never = std::holds_alternative<Icmp6Type>(statement) || std::holds_alternative<HopLimit255>(statement) ||
                       std::holds_alternative<WasAddressedTo>(statement) ||
                       std::holds_alternative<WasTranslated>(statement);
    return !never;
  }

  const Table& table_;
  Packet& packet_;
};

}  // namespace

const Chain* Table::FindChain(std::string_view chain) const {
  const auto found = std::ranges::find(chains, chain, &Chain::name);
  return found == chains.end() ? nullptr : &*found;
}

const Set* Table::FindSet(std::string_view set) const {
  const auto found = std::ranges::find(sets, set, &Set::name);
  return found == sets.end() ? nullptr : &*found;
}

std::string ToString(const Rule& rule) {
  std::string text;
  for (const Statement& statement : rule) {
    text += fmt::format("{}{}", text.empty() ? "" : " ", std::visit(Printer{}, statement));
  }
  return text;
}

std::string ToString(const Table& table) {
  std::vector<std::string> parts;
  for (const std::string& counter : table.counters) {
    parts.push_back(fmt::format("\tcounter {} {{\n\t\tpackets 0 bytes 0\n\t}}\n", counter));
  }
  for (const Set& set : table.sets) parts.push_back(ToString(set));
  for (const Chain& chain : table.chains) {
    std::string text = fmt::format("\tchain {} {{\n", chain.name);
    if (chain.base) text += fmt::format("\t\t{}\n", ToString(*chain.base));
    for (const Rule& rule : chain.rules) text += fmt::format("\t\t{}\n", ToString(rule));
    parts.push_back(text + "\t}\n");
  }
  std::string all;
  for (const std::string& part : parts) all += (all.empty() ? "" : "\n") + part;
  return fmt::format("table inet {} {{\n{}}}\n", table.name, all);
}

Verdict Judge(const Table& table, Packet packet) {
  std::vector<Hook> hooks = {Hook::kOutput};
  if (!packet.input_device.empty()) {
    hooks = {Hook::kPrerouting, packet.output_device.empty() ? Hook::kInput : Hook::kForward};
  }
  Judging judging(table, packet);
  for (const Hook hook : hooks) {
    std::vector<const Chain*> chains;
    for (const Chain& chain : table.chains) {
      if (chain.base && !chain.base->is_nat && chain.base->hook == hook) chains.push_back(&chain);
    }
    std::ranges::stable_sort(chains, {}, [](const Chain* chain) { return chain->base->priority; });
    for (const Chain* chain : chains) {
      if (judging.Run(*chain) == Outcome::kDropped) return judging.verdict;
    }
  }
  return {};
}

}  // namespace adit::nft
