#include "routing/plan.h"

#include <netinet/in.h>

#include <algorithm>
#include <cerrno>
#include <set>
#include <string_view>

#include "config/interface_name.h"

namespace adit {
namespace {

// wg-quick's allowance for IPv6 + UDP + WireGuard: 40 + 8 + 32.
constexpr unsigned kTunnelOverhead = 80;
constexpr unsigned kUsualMtu = 1500;
constexpr unsigned kSmallestMtu = 576;       // RFC 791: every host takes as much
constexpr unsigned kSmallestIpv6Mtu = 1280;  // RFC 8200 §5; below it the kernel switches IPv6 off on the link
constexpr unsigned kLargestMtu = 65535;

// A rule set takes kRuleSpan priorities. Tunnels without a catch-all come before those with one, whichever was started
// first, so that the more specific tunnel wins.
constexpr std::uint32_t kFullBase = 10500;
constexpr std::uint32_t kSplitBase = 10100;
constexpr std::uint32_t kRuleSpan = 20;
constexpr std::uint32_t kUnreachableOffset = 1;
constexpr std::uint32_t kAnswersOffset = 2;
constexpr std::uint32_t kSpecificOffset = 4;
constexpr std::uint32_t kSpecificAgainOffset = 5;
constexpr std::uint32_t kLanOffset = 6;
constexpr std::uint32_t kCatchAllOffset = 14;
constexpr std::uint32_t kBackstopOffset = 15;
constexpr std::uint32_t kMainPriority = 32766;

// Clear of the bits that kube-proxy (0x4000, 0x8000), Cilium, Tailscale, NetBird, Mullvad and wg-quick use.
constexpr std::uint32_t kMarkMask = 0x3000;
constexpr std::uint32_t kMarks[] = {0x1000, 0x2000, 0x3000};

constexpr std::uint32_t kSpecificTable = 30567;
constexpr std::uint32_t kCatchAllTable = 30568;
constexpr std::uint32_t kTablePairs = 100;

// A prefix whose place in main somebody else holds is halved until its parts are free, at most this often.
constexpr int kMaxHalvings = 3;
// No network that a user names as LAN is reached by a route wider than this.
constexpr int kShortestLan = 8;

// Bound of the questions: enough to prove each peer of a usual file, little enough to be asked each minute.
constexpr std::size_t kMaxQuestions = 64;

const std::vector<Prefix>& LanRanges() {
  static const std::vector<Prefix> ranges = [] {
    std::vector<Prefix> parsed;
    for (const char* text :
         {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "fe80::/10", "fc00::/7"}) {
      parsed.push_back(*Prefix::Parse(text, false));
    }
    return parsed;
  }();
  return ranges;
}

Prefix DefaultOf(Family family) {
  return Prefix(family == Family::kV6 ? IpAddress::V6(ByteArray<16>{}) : IpAddress::V4(ByteArray<4>{}), 0);
}

Family FamilyOf(const Prefix& prefix) { return adit::FamilyOf(prefix.address()); }
const char* NameOf(Family family) { return family == Family::kV6 ? "IPv6" : "IPv4"; }

// The ranges for private use may hold a LAN; link-local ones hold what a link needs to work (routers, DHCPv6).
const Prefix& LinkLocalRange() {
  static const Prefix range = *Prefix::Parse("fe80::/10", false);
  return range;
}

bool Contains(const Prefix& outer, const Prefix& inner) {
  return FamilyOf(outer) == FamilyOf(inner) && outer.length() <= inner.length() && outer.Contains(inner.address());
}

IpAddress FromBytes(Family family, const ByteArray<16>& bytes) {
  return family == Family::kV6 ? IpAddress::V6(bytes) : IpAddress::V4(Bytes(bytes).first(4));
}

// `prefix`'s address with all host bits set, or with the first of them only (the middle).
IpAddress WithHostBits(const Prefix& prefix, bool only_first) {
  ByteArray<16> bytes{};
  std::ranges::copy(prefix.address().bytes(), bytes.begin());
  const unsigned bits = prefix.address().bits();
  for (unsigned bit = prefix.length(); bit < bits; ++bit) {
    bytes[bit / 8] = static_cast<std::uint8_t>(bytes[bit / 8] | 0x80U >> (bit % 8));
    if (only_first) break;
  }
  return FromBytes(FamilyOf(prefix), bytes);
}

// The next address up; empty after the last.
std::optional<IpAddress> Next(const IpAddress& ip) {
  ByteArray<16> bytes{};
  std::ranges::copy(ip.bytes(), bytes.begin());
  for (std::size_t i = ip.bits() / 8; i-- > 0;) {
    if (++bytes[i] != 0) return FromBytes(adit::FamilyOf(ip), bytes);
  }
  return std::nullopt;
}

// A prefix that holds a whole LAN range and more must not take the LAN with it: it goes behind the LAN tiers.
bool IsWide(const Prefix& prefix) {
  return std::ranges::any_of(LanRanges(), [&](const Prefix& lan) { return prefix != lan && Contains(prefix, lan); });
}

std::vector<Prefix> Halves(const Prefix& prefix) {
  return {Prefix(prefix.address(), prefix.length() + 1), Prefix(WithHostBits(prefix, true), prefix.length() + 1)};
}

bool Overlap(const Prefix& a, const Prefix& b) { return Contains(a, b) || Contains(b, a); }

// One plan in the making.
class Planner {
 public:
  Planner(const RoutingConfig& config, const NetSnapshot& snapshot)
      : config_(config), snapshot_(snapshot), device_(config.interface_name), allowed_(config.allowed_ips) {
    std::ranges::sort(allowed_);
    const auto duplicates = std::ranges::unique(allowed_);
    allowed_.erase(duplicates.begin(), duplicates.end());
    std::erase_if(allowed_, [&](const Prefix& prefix) {
      return std::ranges::find(config_.excluded_ips, prefix) != config_.excluded_ips.end();
    });
    for (const Prefix& prefix : config_.excluded_ips) {
      const bool is_held = std::ranges::any_of(allowed_, [&](const Prefix& other) { return Overlap(prefix, other); });
      if (is_held && std::ranges::find(excluded_, prefix) == excluded_.end()) excluded_.push_back(prefix);
    }
  }

  Result<Plan> Make() {
    if (Status status = CheckConfig(); !status) return std::unexpected(status.error());
    plan_.interface_name = device_;
    plan_.fwmark = config_.fwmark;
    plan_.fwmark_mask = config_.fwmark == 0 ? 0 : 0xffffffff;
    PlanInterface();
    Status routed;
    switch (config_.table_mode) {
      case TableMode::kOff:
        break;
      case TableMode::kNumber:
        PlanRoutesInto(config_.table);
        PlanThrows(config_.table);
        break;
      case TableMode::kAuto:
        routed = PlanAuto();
        break;
    }
    if (!routed) return std::unexpected(routed.error());
    PlanQuestions();
    return std::move(plan_);
  }

 private:
  Status CheckConfig() const {
    if (Status name = CheckInterfaceName(device_); !name) return name;
    if (config_.mtu != 0 && (config_.mtu < kSmallestMtu || config_.mtu > kLargestMtu)) {
      return FailErrno(EINVAL, "MTU {} is out of range; use {} to {}, or leave it out", config_.mtu, kSmallestMtu,
                       kLargestMtu);
    }
    if (config_.table_mode == TableMode::kNumber && config_.table == 0) {
      return FailErrno(EINVAL, "Table = 0 is no routing table; use off, auto or a number from 1");
    }
    return {};
  }

  // --- the interface ---------------------------------------------------------------------------------------------

  void PlanInterface() {
    const Link* link = snapshot_.FindLink(device_);
    const bool wants_v6 = std::ranges::any_of(config_.addresses, [](const auto& a) { return a.ip.is_v6(); });
    const int disabled = snapshot_.Sysctl(fmt::format("net/ipv6/conf/{}/disable_ipv6", device_),
                                          snapshot_.Sysctl("net/ipv6/conf/default/disable_ipv6", 0));
    link_has_v6_ = snapshot_.has_ipv6 && disabled == 0;
    if (!snapshot_.has_ipv6) {
      if (wants_v6) Warn("this kernel has no IPv6: the tunnel's IPv6 addresses and routes are left out");
    } else if (disabled != 0) {
      if (wants_v6) {
        Warn(
            "IPv6 is switched off for {} (net.ipv6.conf.*.disable_ipv6 = 1): its IPv6 addresses and routes are left "
            "out",
            device_);
      }
    }

    plan_.mtu = config_.mtu != 0 ? config_.mtu : AutomaticMtu(wants_v6 && link_has_v6_);
    PlanWays();
    if (plan_.mtu < kSmallestIpv6Mtu && link_has_v6_) {
      link_has_v6_ = false;
      if (wants_v6) {
        Warn(
            "MTU = {} is below IPv6's minimum of 1280: the tunnel's IPv6 addresses and routes are left out; set MTU = "
            "1280 "
            "or more to have them",
            plan_.mtu);
      }
    }
    tunnel_has_v6_ = wants_v6 && link_has_v6_;

    if (link == nullptr || link->mtu != plan_.mtu) Add(SetMtu{.device = device_, .mtu = plan_.mtu});
    // As kernel WireGuard: no link-local address of the kernel's making, so no router solicitations into the tunnel.
    if (link_has_v6_ && (link == nullptr || link->address_generation != kAddressGenerationNone)) {
      Add(NoAddressGeneration{.device = device_, .previous = {}});
    }
    for (const InterfaceAddress& address : config_.addresses) {
      if (address.ip.is_v6() && !link_has_v6_) continue;
      const LinkAddress wanted{device_, address};
      const Op op = AddAddress{device_, address};
      const bool there = std::ranges::find(snapshot_.addresses, wanted) != snapshot_.addresses.end() ||
                         std::ranges::find(plan_.ops, op) != plan_.ops.end();
      if (!there) Add(op);
    }
    if (link == nullptr || !link->is_up) Add(LinkUp{device_});
  }

  // wg-quick's rule: the smallest MTU on the way to any endpoint, else the default route's, less the overhead. And
  // less, if more is known not to get through.
  unsigned AutomaticMtu(bool with_v6) {
    plan_.least_mtu = with_v6 ? kSmallestIpv6Mtu : kSmallestMtu;
    plan_.routes_mtu = RoutesMtu();
    if (config_.mtu_limit == 0) return plan_.routes_mtu;
    return std::min(plan_.routes_mtu, std::max(config_.mtu_limit, plan_.least_mtu));
  }

  unsigned RoutesMtu() const {
    unsigned mtu = 0;
    const auto consider = [&](const Route* route) {
      if (route == nullptr) return;
      const Link* link = snapshot_.FindLink(route->device);
      const unsigned here = route->mtu != 0 ? route->mtu : link != nullptr ? link->mtu : 0;
      if (here != 0 && (mtu == 0 || here < mtu)) mtu = here;
    };
    for (const SocketAddress& endpoint : config_.endpoints) consider(Uplink(endpoint.ip));
    for (const Family family : {Family::kV4, Family::kV6}) {
      if (mtu == 0) consider(Uplink(DefaultOf(family).address()));
    }
    if (mtu == 0 && config_.keep.mtu != 0) return config_.keep.mtu;  // the uplink is away; it may come back as it was
    if (mtu == 0) mtu = kUsualMtu;
    const unsigned inner = mtu > kTunnelOverhead ? mtu - kTunnelOverhead : 0;
    return std::clamp(inner, plan_.least_mtu, kLargestMtu);
  }

  void PlanWays() {
    for (const SocketAddress& endpoint : config_.endpoints) {
      if (plan_.ways.size() == Plan::kMaxWays) return;
      const Route* const route = Uplink(endpoint.ip);
      plan_.ways.push_back({.endpoint = endpoint.ip, .device = {}, .gateway = {}});
      if (route == nullptr) continue;
      plan_.ways.back().device = route->device;
      plan_.ways.back().gateway = route->gateway;
    }
  }

  // The route that a marked packet takes.
  const Route* Uplink(const IpAddress& ip) const {
    const Route* route = snapshot_.Lookup(ip, kMainTable, device_);
    return route != nullptr ? route : snapshot_.Lookup(ip, kDefaultTable, device_);
  }

  // --- routes without rules --------------------------------------------------------------------------------------

  bool Usable(Family family) const { return family == Family::kV4 || link_has_v6_; }

  Route TunnelRoute(const Prefix& prefix, std::uint32_t table) const {
    Route route;
    route.destination = prefix;
    route.table = table;
    route.device = device_;
    route.metric = FamilyOf(prefix) == Family::kV6 ? kIpv6Metric : 0;
    return route;
  }

  void AddTunnelRoute(const Prefix& prefix, std::uint32_t table) {
    const bool there = std::ranges::any_of(snapshot_.routes, [&](const Route& route) {
      return route.device == device_ && route.table == table && route.destination == prefix;
    });
    if (!there) Add(AddRoute{TunnelRoute(prefix, table)});
  }

  // The longest prefixes first, so that the default, which takes most, comes last.
  template <typename Use>
  void ForEachAllowed(Use use) const {
    std::vector<Prefix> ordered = allowed_;
    std::ranges::stable_sort(ordered, std::ranges::greater(), &Prefix::length);
    for (const Prefix& prefix : ordered) {
      if (Usable(FamilyOf(prefix))) use(prefix);
    }
  }

  // The kernel itself routes an address's network to its device in main.
  bool IsConnected(const Prefix& prefix) const {
    return std::ranges::any_of(config_.addresses, [&](const InterfaceAddress& address) {
      return address.prefix_length < address.ip.bits() && Contains(Prefix(address.ip, address.prefix_length), prefix);
    });
  }

  void PlanRoutesInto(std::uint32_t table) {
    ForEachAllowed([&](const Prefix& prefix) {
      if (table != kMainTable || !IsConnected(prefix)) AddTunnelRoute(prefix, table);
    });
  }

  // An excluded prefix ends the search in this table; the next one decides.
  void PlanThrows(std::uint32_t table) {
    for (const Prefix& prefix : excluded_) {
      if (FamilyOf(prefix) == Family::kV6 && !snapshot_.has_ipv6) continue;
      Route route;
      route.destination = prefix;
      route.table = table;
      route.type = RouteType::kThrow;
      route.metric = FamilyOf(prefix) == Family::kV6 ? kIpv6Metric : 0;
      Add(AddRoute{route});
    }
  }

  Status PlanAuto() {
    if (!NeedsRules()) {
      PlanRoutesInto(kMainTable);
      return {};
    }
    const auto chosen = ChooseLoopAvoidance();
    if (!chosen) return std::unexpected(chosen.error());
    plan_.loop_avoidance = *chosen;
    if (*chosen == LoopAvoidance::kBind) {
      if (Status possible = CheckBind(); !possible) return possible;
    }
    return *chosen == LoopAvoidance::kRules ? PlanRules() : PlanHalves();
  }

  // Rules stay right without any event being seen, so they come first. Host routes follow the uplink, but know only the
  // endpoints that the configuration names; without an uplink those are refused until there is one. Bound sockets lead
  // to anybody, but nothing can stand behind the tunnel's IPv4 routes (PlanHalves).
  Result<LoopAvoidance> ChooseLoopAvoidance() {
    const char* missing = !snapshot_.takes_rules
                              ? "this machine takes no policy rules, or none that suppress a default route"
                          : !snapshot_.takes_marks ? "this machine lets us not mark packets (SO_MARK)"
                                                   : nullptr;
    if (config_.loop_avoidance == LoopAvoidance::kRules && missing != nullptr) {
      return FailErrno(EOPNOTSUPP, "LoopAvoidance = rules is not possible here: {}; use auto, routes or bind", missing);
    }
    if (config_.loop_avoidance != LoopAvoidance::kAuto) return config_.loop_avoidance;
    if (missing == nullptr) return LoopAvoidance::kRules;
    const bool knows_peers = !config_.endpoints.empty();
    Warn("{}: {} the tunnel's own packets out of it, and a network that pushes longer routes can take traffic out",
         missing, knows_peers ? "host routes keep" : "sockets bound to the uplink keep");
    return knows_peers ? LoopAvoidance::kRoutes : LoopAvoidance::kBind;
  }

  // A strict filter asks where a packet to the sender of an answer would go: into the tunnel, as nothing but the socket
  // leads past it.
  Status CheckBind() const {
    std::vector<SocketAddress> peers = config_.endpoints;
    if (peers.empty()) peers.push_back({DefaultOf(Family::kV4).address(), 1, 0});
    for (const SocketAddress& peer : peers) {
      if (!StrictFilterDropsAnswersOf(peer)) continue;
      const Route* const uplink = Uplink(peer.ip);
      const std::string device = uplink != nullptr ? uplink->device : "default";
      return FailErrno(
          EOPNOTSUPP,
          "sockets bound to the uplink are not possible here: the reverse path filter of {} is strict and "
          "drops the answers; set net.ipv4.conf.{}.rp_filter (and .all.) to 2, or use another LoopAvoidance",
          device, device);
    }
    return {};
  }

  // --- routes with rules -----------------------------------------------------------------------------------------

  // Main alone is not enough when the engine's own packets would go into the tunnel, when somebody else's route holds a
  // place in main that we need, or when rules in front of main would hide it.
  bool NeedsRules() {
    if (allowed_.empty()) return false;
    full_v4_ = CoverAll(allowed_, Family::kV4);
    full_v6_ = CoverAll(allowed_, Family::kV6);
    bool needed = full_v4_ || full_v6_ || !excluded_.empty();
    for (const SocketAddress& endpoint : config_.endpoints) {
      needed |= std::ranges::any_of(allowed_, [&](const Prefix& prefix) { return prefix.Contains(endpoint.ip); });
    }
    std::set<Prefix> taken;
    for (const Route& route : snapshot_.routes) {
      if (route.table == kMainTable && route.device != device_) taken.insert(route.destination);
    }
    for (const Prefix& prefix : allowed_) {
      if (prefix.length() == 0 || !taken.contains(prefix)) continue;
      Warn("{} is in AllowedIPs and is also a network of this machine (table main); the tunnel takes its packets",
           prefix.ToString());
      needed = true;
    }
    needed |= std::ranges::any_of(
        snapshot_.rules, [&](const Rule& rule) { return rule.priority < kMainPriority && HidesTheRest(rule, 0); });
    return needed;
  }

  // Whether no packet with `mark` gets past this rule.
  bool HidesTheRest(const Rule& rule, std::uint32_t mark) const {
    if (!rule.TakesEveryPacketMarked(mark)) return false;
    if (rule.action == RuleAction::kGoto || rule.action == RuleAction::kNop) return false;
    if (rule.action != RuleAction::kLookup) return true;
    if (rule.suppress_prefixlength >= 0) return false;
    return std::ranges::any_of(snapshot_.routes, [&](const Route& route) {
      return route.table == rule.table && route.destination.length() == 0 && route.family() == rule.family &&
             route.type != RouteType::kThrow;
    });
  }

  // --- without rules: everything in main -------------------------------------------------------------------------

  // `prefix` itself, or the longer ones that hold the same: never a default, and none whose place is taken.
  std::vector<Prefix> FreePartsOf(const Prefix& prefix) {
    const auto is_taken = [&](const Prefix& part) {
      return part.length() == 0 || std::ranges::any_of(snapshot_.routes, [&](const Route& route) {
               return route.table == kMainTable && route.destination == part && route.device != device_;
             });
    };
    std::vector<Prefix> parts = {prefix};
    for (int i = 0; i < kMaxHalvings && std::ranges::any_of(parts, is_taken); ++i) {
      if (parts.front().length() == prefix.address().bits()) break;
      std::vector<Prefix> halves;
      for (const Prefix& part : parts) std::ranges::copy(Halves(part), std::back_inserter(halves));
      parts = std::move(halves);
    }
    if (std::ranges::any_of(parts, is_taken)) {
      Warn("{}: another route of this machine (table main) has its place, and parts of it too; it may take its packets",
           prefix.ToString());
      std::erase_if(parts, is_taken);
    }
    return parts;
  }

  // What stays outside comes first, then what goes inside, each in front of its like as unreachable: if the TUN goes
  // away, nothing leaves by the uplink. With bound sockets that holds for IPv6 only. IPv4 does not pass over an
  // unreachable route to a shorter one by the link that a socket names, as IPv6 does; it takes the destination for a
  // neighbour on that link.
  Status PlanHalves() {
    const bool is_bound = plan_.loop_avoidance == LoopAvoidance::kBind;
    // Routes of main cannot take from it what it is connected to; with a kill switch the firewall does.
    if (config_.lan.kind != LanPolicy::Kind::kAllow && config_.kill_switch == KillSwitch::kOff) {
      return FailErrno(EOPNOTSUPP,
                       "LAN = {} needs policy rules, and {} are used here: leave LAN out, use KillSwitch = up, or "
                       "LoopAvoidance = rules where that is possible",
                       config_.lan.ToString(), is_bound ? "bound sockets" : "host routes");
    }
    if (is_bound && config_.kill_switch == KillSwitch::kOff) {
      Warn(
          "if adit dies, IPv4 leaves beside the tunnel until the next `adit up` or `adit down`: nothing can stand "
          "behind its routes where sockets are bound to the uplink; KillSwitch = up refuses it then");
    }
    struct Part {
      Prefix prefix;
      bool is_wide;     // refused without the TUN
      bool is_carried;  // by the tunnel
    };
    std::vector<Part> parts;
    const auto add = [&](const Prefix& prefix, bool is_wide, bool is_carried) {
      for (const Prefix& part : FreePartsOf(prefix)) {
        if (std::ranges::find(parts, part, &Part::prefix) == parts.end()) parts.push_back({part, is_wide, is_carried});
      }
    };
    ForEachAllowed([&](const Prefix& prefix) {
      const bool is_wide = IsWide(prefix);
      if (!IsConnected(prefix)) add(prefix, is_wide, FamilyOf(prefix) == Family::kV4 || !is_wide || tunnel_has_v6_);
    });
    carries_v6_guard_ = (full_v4_ || full_v6_) && snapshot_.has_ipv6 && !(full_v6_ && tunnel_has_v6_);
    if (carries_v6_guard_) {
      Warn("the tunnel carries no IPv6: IPv6 connections are refused while it is up, so that nothing leaks");
      add(DefaultOf(Family::kV6), /*is_wide=*/true, /*is_carried=*/false);
    }
    UplinkNeeds needs;
    needs.tunnel = device_;
    needs.endpoints = !is_bound;
    needs.excluded = excluded_;
    needs.has_ipv6 = snapshot_.has_ipv6;
    for (const Part& part : parts) needs.allowed.push_back(part.prefix);
    for (const Route& route : UplinkRoutes(needs, config_.endpoints, snapshot_)) Add(AddRoute{route});

    for (const Part& part : parts) {
      if (!part.is_wide || (is_bound && FamilyOf(part.prefix) == Family::kV4)) continue;
      Route refused;
      refused.destination = part.prefix;
      refused.type = RouteType::kUnreachable;
      refused.metric = kLastMetric;
      Add(AddRoute{refused});
    }
    for (const Part& part : parts) {
      if (part.is_carried) AddTunnelRoute(part.prefix, kMainTable);
    }
    return {};
  }

  Status PlanRules() {
    ChooseMark();
    if (Status status = ChooseTables(); !status) return status;

    std::vector<Prefix> wide;
    ForEachAllowed([&](const Prefix& prefix) {
      if (IsWide(prefix)) {
        wide.push_back(prefix);
      } else {
        specific_[Index(prefix)] = true;
        Add(AddRoute{TunnelRoute(prefix, plan_.specific_table)});
      }
    });
    // Behind each wide prefix stands the same one as unreachable: if the TUN goes away, its packets do not leave by the
    // uplink.
    for (const Prefix& prefix : wide) PlanUnreachable(prefix);
    for (const Prefix& prefix : wide) {
      if (FamilyOf(prefix) == Family::kV6 && !tunnel_has_v6_) continue;
      Add(AddRoute{TunnelRoute(prefix, plan_.catch_all_table)});
    }
    PlanIpv6Guard();
    if (specific_[0] || specific_[1]) PlanThrows(plan_.specific_table);
    if (catch_all_[0] || catch_all_[1]) PlanThrows(plan_.catch_all_table);
    if (full_v6_ && !full_v4_) {
      Warn("AllowedIPs covers all of IPv6 but not of IPv4: IPv4 stays outside of the tunnel");
    }
    if (!catch_all_[0] && !catch_all_[1]) plan_.catch_all_table = 0;
    if (!specific_[0] && !specific_[1]) plan_.specific_table = 0;

    if (Status status = ChoosePriorities(); !status) return status;
    WarnOfRulesBefore();
    AddRules();
    return {};
  }

  static std::size_t Index(const Prefix& prefix) { return FamilyOf(prefix) == Family::kV6 ? 1 : 0; }

  void PlanUnreachable(const Prefix& prefix) {
    catch_all_[Index(prefix)] = true;
    Route route;
    route.destination = prefix;
    route.table = plan_.catch_all_table;
    route.type = RouteType::kUnreachable;
    route.metric = kLastMetric;
    Add(AddRoute{route});
  }

  // A full tunnel must not let IPv6 out beside it, whether or not it carries any.
  void PlanIpv6Guard() {
    if (!full_v4_ && !full_v6_) return;
    if (!snapshot_.has_ipv6) {
      Warn("this kernel has no IPv6: no rules are needed to keep it in");
      return;
    }
    if (full_v6_ && tunnel_has_v6_) return;
    const bool guarded = full_v6_ && link_has_v6_;  // behind the wide prefixes
    if (!guarded) PlanUnreachable(DefaultOf(Family::kV6));
    Warn("the tunnel carries no IPv6: IPv6 connections are refused while it is up, so that nothing leaks");
  }

  bool IsOurs(const Rule& rule, std::uint32_t mark) const {
    return rule.mark == mark && rule.mark_mask == kMarkMask && rule.protocol == kProtocolKernel &&
           (rule.action == RuleAction::kUnreachable ||
            (rule.action == RuleAction::kLookup && rule.table == kMainTable));
  }

  void ChooseMark() {
    if (config_.fwmark != 0) return;
    plan_.fwmark_mask = kMarkMask;
    if (config_.keep.fwmark != 0) {
      plan_.fwmark = config_.keep.fwmark;
      return;
    }
    for (const std::uint32_t mark : kMarks) {
      const bool taken = std::ranges::any_of(snapshot_.rules, [&](const Rule& rule) {
        return !rule.invert && rule.mark != 0 && (mark & rule.mark_mask) == rule.mark && !IsOurs(rule, mark);
      });
      if (taken) continue;
      plan_.fwmark = mark;
      return;
    }
    plan_.fwmark = kMarks[0];
    Warn("other rules use the packet mark {:#x}/{:#x}; set FwMark to a free one", kMarks[0], kMarkMask);
  }

  Status ChooseTables() {
    const PlanAnchors& keep = config_.keep;
    if (keep.specific_table != 0 || keep.catch_all_table != 0) {
      plan_.specific_table = keep.specific_table != 0 ? keep.specific_table : keep.catch_all_table - 1;
      plan_.catch_all_table = plan_.specific_table + 1;
      return {};
    }
    std::set<std::uint32_t> used(snapshot_.named_tables.begin(), snapshot_.named_tables.end());
    for (const Route& route : snapshot_.routes) used.insert(route.table);
    for (const Rule& rule : snapshot_.rules) used.insert(rule.table);
    for (std::uint32_t i = 0; i < kTablePairs; ++i) {
      plan_.specific_table = kSpecificTable + 2 * i;
      plan_.catch_all_table = kCatchAllTable + 2 * i;
      if (!used.contains(plan_.specific_table) && !used.contains(plan_.catch_all_table)) return {};
    }
    return FailErrno(EEXIST,
                     "all routing tables from {} to {} are in use; remove those that nobody needs (ip route show "
                     "table all)",
                     kSpecificTable, kSpecificTable + 2 * kTablePairs - 1);
  }

  Status ChoosePriorities() {
    std::set<std::uint32_t> used;
    for (const Rule& rule : snapshot_.rules) used.insert(rule.priority);
    const bool full = catch_all_[0] || catch_all_[1];
    const std::uint32_t end = full ? kMainPriority : kFullBase;
    if (config_.keep.base_priority != 0 && (config_.keep.base_priority >= kFullBase) == full) {
      plan_.base_priority = config_.keep.base_priority;
      return {};
    }
    for (std::uint32_t base = full ? kFullBase : kSplitBase; base + kRuleSpan <= end; base += kRuleSpan) {
      const auto next = used.lower_bound(base);
      if (next != used.end() && *next <= base + kBackstopOffset) continue;
      plan_.base_priority = base;
      return {};
    }
    return FailErrno(EEXIST, "no {} free rule priorities in a row; remove rules that nobody needs (ip rule)",
                     kRuleSpan);
  }

  void WarnOfRulesBefore() {
    for (const Rule& rule : snapshot_.rules) {
      if (rule.priority >= plan_.base_priority) continue;
      const bool to_main = rule.action == RuleAction::kLookup && rule.table == kMainTable;
      if (!to_main && HidesTheRest(rule, plan_.fwmark)) {
        Warn("the {} rule \"{}\" comes before ours and takes the tunnel's own packets", NameOf(rule.family),
             rule.ToString());
      } else if (!to_main && HidesTheRest(rule, 0)) {
        Warn("the {} rule \"{}\" comes before ours and takes the packets meant for the tunnel", NameOf(rule.family),
             rule.ToString());
      }
    }
    for (const SocketAddress& endpoint : config_.endpoints) {
      if (endpoint.ip.is_v6() && !snapshot_.has_ipv6) {
        Warn("endpoint {}: this kernel has no IPv6", endpoint.ToString());
      } else if (snapshot_.Lookup(endpoint.ip, kMainTable, device_) == nullptr) {
        Warn("endpoint {}: table main has no route to it at present", endpoint.ToString());
      }
    }
  }

  Rule RuleAt(Family family, std::uint32_t offset) const {
    Rule rule;
    rule.family = family;
    rule.priority = plan_.base_priority + offset;
    return rule;
  }

  void AddRules() {
    std::vector<Rule> rules;
    for (const Family family : {Family::kV4, Family::kV6}) {
      if (family == Family::kV6 && !snapshot_.has_ipv6) continue;
      const std::size_t f = family == Family::kV6 ? 1 : 0;

      Rule engine = RuleAt(family, 0);
      engine.mark = plan_.fwmark;
      engine.mark_mask = plan_.fwmark_mask;
      engine.table = kMainTable;
      rules.push_back(engine);
      engine.priority += kUnreachableOffset;
      engine.action = RuleAction::kUnreachable;
      engine.table = 0;
      rules.push_back(engine);

      if (config_.portal) {
        // Beside the engine's: main whatever it says, in front of all that leads into the tunnel.
        Rule portal = RuleAt(family, 0);
        portal.uids = {config_.portal->uid, config_.portal->uid};
        portal.table = kMainTable;
        rules.push_back(portal);
      }
      if (specific_[f]) {
        Rule specific = RuleAt(family, kSpecificOffset);
        specific.table = plan_.specific_table;
        rules.push_back(specific);
        specific.priority = plan_.base_priority + kSpecificAgainOffset;
        rules.push_back(specific);
      }
      if (catch_all_[f]) {
        const std::vector<Prefix> lans = LanTiers();
        for (std::uint32_t i = 0; i < lans.size(); ++i) {
          if (FamilyOf(lans[i]) != family) continue;
          // A long list shares the last of its priorities: its members exclude each other or agree.
          Rule lan = RuleAt(family, std::min(kLanOffset + i, kCatchAllOffset - 1));
          lan.destination = lans[i];
          lan.table = kMainTable;
          // Main may say where in the range something is, not where all of it is: neither the default route nor
          // 0.0.0.0/1 that somebody pushes into main. A host that the user names is reached by its network's route.
          const int shortest = static_cast<int>(lans[i].length());
          lan.suppress_prefixlength =
              (config_.lan.kind == LanPolicy::Kind::kAllow ? shortest : std::min(shortest, kShortestLan)) - 1;
          rules.push_back(lan);
        }
        // Thrown out of both tables, these would meet the backstop.
        for (const Prefix& prefix : excluded_) {
          if (FamilyOf(prefix) != family) continue;
          Rule excluded = RuleAt(family, kCatchAllOffset - 1);
          excluded.destination = prefix;
          excluded.table = kMainTable;
          rules.push_back(excluded);
        }
        Rule rest = RuleAt(family, kCatchAllOffset);
        rest.table = plan_.catch_all_table;
        rules.push_back(rest);
        rest.priority = plan_.base_priority + kBackstopOffset;
        const bool takes_all = full_v4_ || (full_v6_ && family == Family::kV6);
        if (takes_all) {
          rest.action = RuleAction::kUnreachable;
          rest.table = 0;
        }
        rules.push_back(rest);
      }
    }
    for (const SocketAddress& endpoint : config_.endpoints) {
      if (!StrictFilterDropsAnswersOf(endpoint)) continue;
      Rule answers = RuleAt(Family::kV4, kAnswersOffset);
      answers.destination = Prefix(endpoint.ip, endpoint.ip.bits());
      answers.ip_protocol = IPPROTO_UDP;
      answers.destination_ports = PortRange{endpoint.port, endpoint.port};
      answers.table = kMainTable;
      if (std::ranges::find(rules, answers) == rules.end()) rules.push_back(answers);
    }
    std::ranges::stable_sort(rules, {}, &Rule::priority);
    for (const Rule& rule : rules) Add(AddRule{rule});
  }

  // What goes by main, if main has something better than its default. A public network only if the user names it: an
  // access point that calls itself 8.0.0.0/6 would else take much of the internet out of the tunnel.
  std::vector<Prefix> LanTiers() const {
    switch (config_.lan.kind) {
      case LanPolicy::Kind::kAllow:
        return LanRanges();
      case LanPolicy::Kind::kBlock:
        return {LinkLocalRange()};
      case LanPolicy::Kind::kList:
        break;
    }
    std::vector<Prefix> tiers = {LinkLocalRange()};
    for (const Prefix& prefix : config_.lan.prefixes) {
      if (std::ranges::find(tiers, prefix) == tiers.end()) tiers.push_back(prefix);
    }
    return tiers;
  }

  // rp_filter = 1 asks where an unmarked packet to the endpoint would go (the answer carries no mark): into the tunnel,
  // so the answer is dropped. The kernel has such a filter for IPv4 only.
  bool StrictFilterDropsAnswersOf(const SocketAddress& endpoint) const {
    if (endpoint.ip.is_v6() || endpoint.port == 0) return false;
    const Route* uplink = Uplink(endpoint.ip);
    const int all = snapshot_.Sysctl("net/ipv4/conf/all/rp_filter", 0);
    const int own = uplink == nullptr ? snapshot_.Sysctl("net/ipv4/conf/default/rp_filter", 0)
                                      : snapshot_.Sysctl(fmt::format("net/ipv4/conf/{}/rp_filter", uplink->device), 0);
    return std::max(all, own) == 1;
  }

  // --- questions -------------------------------------------------------------------------------------------------

  void PlanQuestions() {
    for (const SocketAddress& endpoint : config_.endpoints) {
      if (endpoint.ip.is_v6() && !snapshot_.has_ipv6) continue;
      if (plan_.questions.size() == kMaxQuestions) return;
      if (config_.table_mode == TableMode::kOff) return;
      if (plan_.loop_avoidance == LoopAvoidance::kBind) break;  // only the sockets know how they get there
      plan_.questions.push_back(
          {"endpoint " + endpoint.ToString(), {endpoint.ip}, plan_.fwmark, Expectation::kNotTunnel});
    }
    if (config_.table_mode != TableMode::kAuto) return;
    for (const Prefix& prefix : excluded_) {
      if (plan_.questions.size() >= kMaxQuestions) return;
      if (FamilyOf(prefix) == Family::kV6 && !snapshot_.has_ipv6) continue;
      const bool has_better = std::ranges::any_of(
          allowed_, [&](const Prefix& allowed) { return allowed != prefix && Contains(prefix, allowed); });
      if (has_better || prefix.address().is_multicast()) continue;
      plan_.questions.push_back(
          {"excluded IPs " + prefix.ToString(), {WithHostBits(prefix, true)}, 0, Expectation::kNotTunnel});
    }
    if (carries_v6_guard_ || (catch_all_[1] && !(full_v6_ && tunnel_has_v6_))) {
      plan_.questions.push_back(
          {"IPv6 beside the tunnel", {*IpAddress::Parse("2001:db8::1")}, 0, Expectation::kTunnelOrNothing});
    }
    for (const Prefix& prefix : allowed_) {
      if (plan_.questions.size() >= kMaxQuestions) return;
      if (!Usable(FamilyOf(prefix)) || prefix.address().is_multicast()) continue;
      if (FamilyOf(prefix) == Family::kV6 && IsWide(prefix) && !tunnel_has_v6_) continue;
      std::vector<IpAddress> samples = Samples(prefix);
      if (samples.empty()) continue;
      plan_.questions.push_back({"allowed IPs " + prefix.ToString(), std::move(samples), 0, Expectation::kTunnel});
    }
  }

  // Some addresses inside; of wide ones from the ranges for documentation, which no LAN uses. Not our own: those are
  // local.
  std::vector<IpAddress> Samples(const Prefix& prefix) const {
    std::vector<IpAddress> candidates;
    for (const char* text : {"198.51.100.1", "203.0.113.1", "2001:db8::1"}) {
      const IpAddress ip = *IpAddress::Parse(text);
      if (IsWide(prefix) && prefix.Contains(ip)) candidates.push_back(ip);
    }
    if (prefix.length() == prefix.address().bits()) {
      candidates.push_back(prefix.address());
    } else {
      if (const auto first = Next(prefix.address())) candidates.push_back(*first);
      candidates.push_back(WithHostBits(prefix, true));
    }
    std::erase_if(candidates, [&](const IpAddress& ip) {
      const auto is = [&](const InterfaceAddress& address) { return address.ip == ip; };
      const auto holds = [&](const Prefix& other) { return other.Contains(ip); };
      return !prefix.Contains(ip) || std::ranges::any_of(config_.addresses, is) ||
             std::ranges::any_of(excluded_, holds) || IsEndpoint(ip) ||
             std::ranges::any_of(snapshot_.addresses, [&](const LinkAddress& own) { return is(own.address); });
    });
    return candidates;
  }

  // Host routes and bound sockets lead those past the tunnel, whoever asks.
  bool IsEndpoint(const IpAddress& ip) const {
    return std::ranges::any_of(config_.endpoints, [&](const SocketAddress& endpoint) { return endpoint.ip == ip; });
  }

  void Add(Op op) { plan_.ops.push_back(std::move(op)); }

  template <typename... Args>
  void Warn(fmt::format_string<Args...> format, Args&&... args) {
    plan_.warnings.push_back(fmt::format(format, std::forward<Args>(args)...));
  }

  const RoutingConfig& config_;
  const NetSnapshot& snapshot_;
  const std::string& device_;
  std::vector<Prefix> allowed_;   // sorted, each once
  std::vector<Prefix> excluded_;  // those that allowed_ holds or is held by, each once
  Plan plan_;
  bool link_has_v6_ = false;    // the TUN can carry IPv6 addresses and routes
  bool tunnel_has_v6_ = false;  // and gets at least one address
  bool full_v4_ = false;
  bool full_v6_ = false;
  bool specific_[2] = {};          // by family: something is in TU
  bool catch_all_[2] = {};         // by family: something is in TD
  bool carries_v6_guard_ = false;  // without rules: main refuses IPv6
};

}  // namespace

bool CoverAll(std::vector<Prefix> prefixes, Family family) {
  std::ranges::sort(prefixes);
  std::optional<IpAddress> uncovered = DefaultOf(family).address();
  for (const Prefix& prefix : prefixes) {
    if (FamilyOf(prefix) != family) continue;
    if (*uncovered < prefix.address()) return false;
    const IpAddress last = WithHostBits(prefix, false);
    if (last < *uncovered) continue;
    uncovered = Next(last);
    if (!uncovered) return true;
  }
  return false;
}

std::string Plan::ToString() const {
  std::string text;
  for (const Op& op : ops) text += adit::ToString(op) + "\n";
  return text;
}

Result<Plan> MakePlan(const RoutingConfig& config, const NetSnapshot& snapshot) {
  return Planner(config, snapshot).Make();
}

}  // namespace adit
