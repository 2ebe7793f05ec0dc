#include "routing/firewall_plan.h"

#include <netinet/in.h>

#include <algorithm>
#include <utility>

namespace adit {
namespace {

using namespace nft;

constexpr int kBeforeRaw = -310;  // before firewalld's reverse path filter and the raw table
constexpr int kMangle = -150;
constexpr int kDestinationNat = -100;
constexpr int kFilter = 0;
constexpr int kSourceNat = 100;

constexpr std::uint16_t kDns = 53;
constexpr std::uint16_t kDnsOverTls = 853;
constexpr unsigned kTcpOverIpv4 = 40;  // what MTU and MSS differ by
constexpr unsigned kTcpOverIpv6 = 60;

Prefix Parsed(const char* text) { return *Prefix::Parse(text, false); }

const std::vector<Prefix>& PrivateRanges() {
  static const std::vector<Prefix> ranges = {Parsed("10.0.0.0/8"),     Parsed("172.16.0.0/12"),
                                             Parsed("192.168.0.0/16"), Parsed("169.254.0.0/16"),
                                             Parsed("100.64.0.0/10"),  Parsed("fc00::/7")};
  return ranges;
}

// What neighbours say to all of a link: local and administratively scoped multicast, broadcast.
const std::vector<Prefix>& LinkRanges() {
  static const std::vector<Prefix> ranges = {Parsed("224.0.0.0/24"), Parsed("239.0.0.0/8"),
                                             Parsed("255.255.255.255/32"), Parsed("fe80::/10"), Parsed("ff02::/16")};
  return ranges;
}

bool Contains(const Prefix& outer, const Prefix& inner) {
  return outer.address().is_v6() == inner.address().is_v6() && outer.length() <= inner.length() &&
         outer.Contains(inner.address());
}

// A tunnel of anybody's is no LAN.
bool IsTunnel(const NetSnapshot& snapshot, const std::string& device) {
  const Link* const link = snapshot.FindLink(device);
  return link != nullptr && (link->kind == "tun" || link->kind == "wireguard");
}

constexpr char kPortalSet[] = "portal";

// All, or at least one half of it: what else than the tunnel's own address would be a source in there?
bool TakesAll(const RoutingConfig& config) {
  const auto is_half = [](const Prefix& prefix) { return prefix.length() <= 1; };
  return std::ranges::any_of(config.allowed_ips, is_half) || CoverAll(config.allowed_ips, Family::kV4) ||
         CoverAll(config.allowed_ips, Family::kV6);
}

nft::Set AddressSet(std::string name, bool is_v6, const std::vector<IpAddress>& addresses) {
  nft::Set set{
      .name = std::move(name), .kind = nft::Set::Kind::kAddresses, .is_v6 = is_v6, .prefixes = {}, .endpoints = {}};
  for (const IpAddress& ip : addresses) {
    if (ip.is_v6() == is_v6) set.prefixes.emplace_back(ip, ip.bits());
  }
  std::ranges::sort(set.prefixes);
  const auto repeated = std::ranges::unique(set.prefixes);
  set.prefixes.erase(repeated.begin(), repeated.end());
  return set;
}

nft::Set PrefixSet(std::string name, bool is_v6, const std::vector<Prefix>& prefixes) {
  nft::Set set{
      .name = std::move(name), .kind = nft::Set::Kind::kPrefixes, .is_v6 = is_v6, .prefixes = {}, .endpoints = {}};
  for (const Prefix& prefix : prefixes) {
    if (prefix.address().is_v6() == is_v6) set.prefixes.push_back(prefix);
  }
  return set;
}

nft::Set EndpointSet(std::string name, bool is_v6, const std::vector<SocketAddress>& endpoints) {
  nft::Set set{
      .name = std::move(name), .kind = nft::Set::Kind::kEndpoints, .is_v6 = is_v6, .prefixes = {}, .endpoints = {}};
  for (SocketAddress endpoint : endpoints) {
    if (endpoint.ip.is_v6() != is_v6) continue;
    endpoint.scope_id = 0;  // a key has no room for it
    set.endpoints.push_back(endpoint);
  }
  std::ranges::sort(set.endpoints);
  const auto repeated = std::ranges::unique(set.endpoints);
  set.endpoints.erase(repeated.begin(), repeated.end());
  return set;
}

nft::Set PortalSet(const Portal& portal) {
  nft::Set set;
  set.name = kPortalSet;
  set.kind = nft::Set::Kind::kUser;
  set.uid = portal.uid;
  set.timeout_seconds = portal.seconds;
  return set;
}

nft::Chain Base(std::string name, Hook hook, int priority, bool is_nat = false) {
  return {.name = std::move(name),
          .base = nft::Chain::Base{.is_nat = is_nat, .hook = hook, .priority = priority},
          .rules = {}};
}

nft::Statement Port1(std::uint8_t protocol, bool is_destination, std::uint16_t port) {
  return Port{.protocol = protocol, .is_destination = is_destination, .first = port, .last = port};
}
nft::Statement Approve() { return SetMark{.value = kApprovedBit, .mask = kApprovedBit}; }
nft::Statement Forget() { return SetMark{.value = 0, .mask = kApprovedBit}; }
nft::Statement IsNotApproved() { return MarkIs{.value = 0, .mask = kApprovedBit, .is = true}; }

class Builder {
 public:
  explicit Builder(const FirewallConfig& config) : config_(config) {}

  nft::Table Make() {
    table_.name = FirewallTableName(config_.interface_name);
    table_.sets = {EndpointSet("ep4", false, config_.endpoints), EndpointSet("ep6", true, config_.endpoints),
                   PrefixSet("lan4", false, config_.lan),        PrefixSet("lan6", true, config_.lan),
                   AddressSet("self4", false, config_.own),      AddressSet("self6", true, config_.own)};
    if (config_.portal && config_.has_deny()) table_.sets.push_back(PortalSet(*config_.portal));
    if (config_.has_extras) AddIncoming();
    AddForget();
    AddOutApproval();
    AddForwardApproval();
    AddDenials();
    AddSettle();
    if (config_.has_extras) AddClamp();
    if (config_.has_extras) AddTranslation();
    return std::move(table_);
  }

 private:
  nft::Statement IsOurs() const { return MarkIs{.value = config_.fwmark, .mask = config_.fwmark_mask, .is = true}; }
  nft::Statement Counted(const char* counter) {
    if (std::ranges::find(table_.counters, counter) == table_.counters.end()) table_.counters.push_back(counter);
    return Count{counter};
  }
  void Add(nft::Chain chain) { table_.chains.push_back(std::move(chain)); }
  bool HasForwards() const { return config_.gateway && !config_.forwards.empty(); }

  // CVE-2019-14899: a neighbour finds out the tunnel's address, or injects into its flows, by sending to it from the
  // side. And answers of the endpoints get the mark that our questions have, so that a reverse path filter which looks
  // at marks asks the right table.
  void AddIncoming() {
    nft::Chain chain = Base("incoming", Hook::kPrerouting, kBeforeRaw);
    const nft::Statement not_from_tunnel = InputName{config_.interface_name, false};
    if (HasForwards()) {
      for (const bool is_v6 : {false, true}) {
        nft::Chain hairpin = MakeHairpinChain(config_, is_v6);
        chain.rules.push_back({not_from_tunnel, AddressIn{is_v6, true, is_v6 ? "self6" : "self4", true},
                               AddressIn{is_v6, false, is_v6 ? "lan6" : "lan4", true}, Jump{hairpin.name}});
        Add(std::move(hairpin));
      }
    }
    for (const bool is_v6 : {false, true}) {
      chain.rules.push_back({not_from_tunnel, AddressIn{is_v6, true, is_v6 ? "self6" : "self4", true}, SourceNotLocal{},
                             Counted("spoofed"), Drop{}});
    }
    if (config_.fwmark_mask == kFirewallMarkMask) {
      for (const bool is_v6 : {false, true}) {
        chain.rules.push_back({EndpointIn{is_v6, false, is_v6 ? "ep6" : "ep4"},
                               SetMark{.value = config_.fwmark, .mask = config_.fwmark_mask}});
      }
    }
    Add(std::move(chain));
  }

  void AddForget() {
    if (!config_.has_deny()) return;
    for (const Hook hook : {Hook::kOutput, Hook::kForward}) {
      nft::Chain chain = Base(hook == Hook::kOutput ? "out_forget" : "forward_forget", hook, kFilter - 2);
      chain.rules = {{Forget()}};
      Add(std::move(chain));
    }
  }

  void AddOutApproval() {
    const std::string& device = config_.interface_name;
    nft::Chain chain = Base("out_approve", Hook::kOutput, kFilter - 1);
    auto& rules = chain.rules;
    // A flow from before the tunnel would carry an address of the LAN into it.
    if (config_.is_full) {
      for (const bool is_v6 : {false, true}) {
        rules.push_back({OutputName{device, true}, AddressIn{is_v6, false, is_v6 ? "self6" : "self4", false},
                         Counted("foreign_source"), Reject{}});
      }
    }
    rules.push_back({OutputName{device, true}, Approve(), Accept{}});
    for (const bool is_v6 : {false, true}) {
      rules.push_back({IsOurs(), EndpointIn{is_v6, true, is_v6 ? "ep6" : "ep4"}, Approve(), Accept{}});
    }
    if (config_.has_deny()) {
      if (config_.portal) rules.push_back({UserIn{kPortalSet}, Approve(), Accept{}});
      // Names of endpoints are looked up by sockets with our mark.
      for (const std::uint8_t protocol : {std::uint8_t{IPPROTO_UDP}, std::uint8_t{IPPROTO_TCP}}) {
        rules.push_back({IsOurs(), Port1(protocol, true, kDns), Approve(), Accept{}});
      }
      // DHCP, by broadcast and, when a lease is renewed, straight to the server; the ports are for root only.
      rules.push_back({Port1(IPPROTO_UDP, false, 68), Port1(IPPROTO_UDP, true, 67), Approve(), Accept{}});
      rules.push_back({Port1(IPPROTO_UDP, false, 546), Port1(IPPROTO_UDP, true, 547), Approve(), Accept{}});
      for (const std::uint8_t type : {std::uint8_t{133}, std::uint8_t{135}, std::uint8_t{136}}) {
        rules.push_back({Icmp6Type{type}, HopLimit255{}, Approve(), Accept{}});
      }
      rules.push_back({Icmp6Type{143}, Approve(), Accept{}});
      for (const bool is_v6 : {false, true}) {
        rules.push_back({AddressIn{is_v6, true, is_v6 ? "lan6" : "lan4", true}, Approve(), Accept{}});
      }
    }
    Add(std::move(chain));
  }

  void AddForwardApproval() {
    nft::Chain chain = Base("forward_approve", Hook::kForward, kFilter - 1);
    auto& rules = chain.rules;
    if (config_.gateway) {
      rules.push_back({InputName{config_.interface_name, true}, Counted("gateway_in")});
      rules.push_back({OutputName{config_.interface_name, true}, Counted("gateway_out")});
    }
    rules.push_back({OutputName{config_.interface_name, true}, Approve(), Accept{}});
    rules.push_back({InputName{config_.interface_name, true}, Approve(), Accept{}});
    if (config_.has_deny()) {
      for (const bool is_v6 : {false, true}) {
        rules.push_back({AddressIn{is_v6, true, is_v6 ? "lan6" : "lan4", true}, Approve(), Accept{}});
      }
    }
    Add(std::move(chain));
  }

  void AddDenials() {
    if (!config_.has_deny()) return;
    if (config_.dns_guard) {
      nft::Chain dns{.name = "dns", .base = {}, .rules = {}};
      dns.rules.push_back({IsOurs(), Return{}});
      if (config_.portal) dns.rules.push_back({UserIn{kPortalSet}, Return{}});
      for (const nft::Statement& refused : {nft::Statement(AddressIn{false, true, "lan4", true}),
                                            nft::Statement(AddressIn{true, true, "lan6", true}), IsNotApproved()}) {
        dns.rules.push_back({refused, ProtocolIs{IPPROTO_TCP}, Counted("dns_refused"), Reject{.with_reset = true}});
        dns.rules.push_back({refused, Counted("dns_refused"), Reject{}});
      }
      Add(std::move(dns));
    }
    for (const Hook hook : {Hook::kOutput, Hook::kForward}) {
      const bool is_output = hook == Hook::kOutput;
      nft::Chain chain = Base(is_output ? "out_deny" : "forward_deny", hook, kFilter);
      if (is_output) chain.rules.push_back({OutputName{"lo", true}, Accept{}});
      if (config_.dns_guard) {
        chain.rules.push_back({Port1(IPPROTO_UDP, true, kDns), Jump{"dns"}});
        chain.rules.push_back({Port1(IPPROTO_TCP, true, kDns), Jump{"dns"}});
        chain.rules.push_back({Port1(IPPROTO_TCP, true, kDnsOverTls), Jump{"dns"}});
      }
      if (config_.kill_switch != KillSwitch::kOff) {
        chain.rules.push_back({IsNotApproved(), Counted(is_output ? "killed_out" : "killed_forward"), Reject{}});
      }
      Add(std::move(chain));
    }
  }

  void AddSettle() {
    for (const Hook hook : {Hook::kOutput, Hook::kForward}) {
      nft::Chain chain = Base(hook == Hook::kOutput ? "out_settle" : "forward_settle", hook, kFilter + 1);
      if (config_.has_deny()) {
        chain.rules = {{Forget()}};
      } else {
        // Nothing of other packets is touched.
        chain.rules = {{OutputName{config_.interface_name, true}, Forget()}};
        chain.rules.push_back(hook == Hook::kOutput ? nft::Rule{IsOurs(), Forget()}
                                                    : nft::Rule{InputName{config_.interface_name, true}, Forget()});
      }
      Add(std::move(chain));
    }
  }

  // What is forwarded through the tunnel must fit, whatever the two ends think of their links.
  void AddClamp() {
    const std::string& device = config_.interface_name;
    nft::Chain chain = Base("clamp", Hook::kForward, kMangle);
    chain.rules.push_back({OutputName{device, true}, ClampToRoute{}});
    for (const bool is_v6 : {false, true}) {
      const unsigned overhead = is_v6 ? kTcpOverIpv6 : kTcpOverIpv4;
      if (config_.mtu <= overhead) continue;
      const unsigned size = std::min(config_.mtu - overhead, 65535U);
      chain.rules.push_back({InputName{device, true}, ClampTo{is_v6, static_cast<std::uint16_t>(size)}});
    }
    Add(std::move(chain));
  }

  void AddTranslation() {
    const std::string& device = config_.interface_name;
    if (HasForwards()) {
      Add(MakeForwardsChain(config_));
      nft::Chain arriving = Base("nat_in", Hook::kPrerouting, kDestinationNat, true);
      for (const bool is_v6 : {false, true}) {
        arriving.rules.push_back({AddressIn{is_v6, true, is_v6 ? "self6" : "self4", true}, Jump{"forwards"}});
      }
      Add(std::move(arriving));
    }
    if (!config_.masquerades && !HasForwards()) return;
    nft::Chain leaving = Base("nat_out", Hook::kPostrouting, kSourceNat, true);
    if (config_.masquerades) {
      for (const bool is_v6 : {false, true}) {
        leaving.rules.push_back(
            {OutputName{device, true}, AddressIn{is_v6, false, is_v6 ? "self6" : "self4", false}, Masquerade{}});
      }
    }
    // A neighbour that came by the tunnel's address gets its answers through us, as it expects.
    if (HasForwards()) {
      for (const bool is_v6 : {false, true}) {
        leaving.rules.push_back({OutputName{device, false}, AddressIn{is_v6, false, is_v6 ? "lan6" : "lan4", true},
                                 WasAddressedTo{is_v6, is_v6 ? "self6" : "self4"}, WasTranslated{}, Masquerade{}});
      }
    }
    Add(std::move(leaving));
  }

  const FirewallConfig& config_;
  nft::Table table_;
};

}  // namespace

bool WantsFirewall(const RoutingConfig& config) {
  const bool asked = config.kill_switch != KillSwitch::kOff || config.gateway || config.dns_guard;
  return asked || (config.table_mode == TableMode::kAuto && TakesAll(config));
}

std::vector<Prefix> ApprovedLan(const RoutingConfig& config, const NetSnapshot& snapshot) {
  std::vector<Prefix> approved = config.excluded_ips;
  if (config.lan.kind != LanPolicy::Kind::kBlock) {
    approved.insert(approved.end(), LinkRanges().begin(), LinkRanges().end());
  }
  if (config.lan.kind == LanPolicy::Kind::kList) {
    approved.insert(approved.end(), config.lan.prefixes.begin(), config.lan.prefixes.end());
  }
  if (config.lan.kind == LanPolicy::Kind::kAllow) {
    for (const LinkAddress& own : snapshot.addresses) {
      const InterfaceAddress& address = own.address;
      if (own.device == config.interface_name || own.device == "lo" || IsTunnel(snapshot, own.device)) continue;
      if (address.prefix_length == address.ip.bits()) continue;
      // What a DHCP server claims to be the LAN is one only as far as it is private.
      const Prefix connected(address.ip, address.prefix_length);
      const auto holds = [&](const Prefix& range) { return Contains(range, connected); };
      if (std::ranges::any_of(PrivateRanges(), holds)) approved.push_back(connected);
    }
  }
  // Wider ones first, so that what lies inside another is seen behind it.
  std::ranges::sort(approved);
  std::vector<Prefix> result;
  for (const Prefix& prefix : approved) {
    if (!std::ranges::any_of(result, [&](const Prefix& outer) { return Contains(outer, prefix); })) {
      result.push_back(prefix);
    }
  }
  return result;
}

FirewallConfig MakeFirewallConfig(const RoutingConfig& config, const Plan& plan, const NetSnapshot& snapshot) {
  FirewallConfig result;
  result.interface_name = config.interface_name;
  result.kill_switch = config.kill_switch;
  if (plan.fwmark != 0) {
    result.fwmark = plan.fwmark;
    result.fwmark_mask = plan.fwmark_mask;
  }
  result.endpoints = config.endpoints;
  for (const InterfaceAddress& address : config.addresses) result.own.push_back(address.ip);
  result.lan = ApprovedLan(config, snapshot);
  result.is_full = TakesAll(config) && !result.own.empty();
  result.dns_guard = config.dns_guard;
  result.masquerades = config.gateway || result.is_full;
  result.gateway = config.gateway;
  result.forwards = config.forwards;
  result.mtu = plan.mtu;
  result.portal = config.portal;
  return result;
}

std::string FirewallTableName(const std::string& interface_name) { return "adit-" + interface_name; }

nft::Table MakeFirewallTable(const FirewallConfig& config) { return Builder(config).Make(); }

nft::Chain MakeForwardsChain(const FirewallConfig& config) {
  nft::Chain chain{.name = "forwards", .base = {}, .rules = {}};
  for (const PortForward& forward : config.forwards) {
    const std::uint8_t protocol = forward.protocol == PortForward::Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
    chain.rules.push_back(
        {Port{.protocol = protocol, .is_destination = true, .first = forward.first_port, .last = forward.last_port},
         Translate{forward.target, forward.target_port}});
  }
  return chain;
}

nft::Chain MakeHairpinChain(const FirewallConfig& config, bool is_v6) {
  nft::Chain chain{.name = is_v6 ? "hairpin6" : "hairpin4", .base = {}, .rules = {}};
  for (const PortForward& forward : config.forwards) {
    if (forward.target.is_v6() != is_v6) continue;
    const std::uint8_t protocol = forward.protocol == PortForward::Protocol::kTcp ? IPPROTO_TCP : IPPROTO_UDP;
    chain.rules.push_back(
        {Port{.protocol = protocol, .is_destination = true, .first = forward.first_port, .last = forward.last_port},
         Accept{}});
  }
  return chain;
}

}  // namespace adit
