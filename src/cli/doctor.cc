#include "cli/doctor.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>

namespace adit {
namespace {

using enum FindingLevel;
using Findings = std::vector<DoctorFinding>;

// Where the rules of a full tunnel of ours begin if nobody is in the way, and the marks on our sockets
// (routing/plan.cc).
constexpr std::uint32_t kFirstPriority = 10500;
constexpr std::uint32_t kLastPriority = 32766;
constexpr std::uint32_t kMarkBits = 0x3000;
constexpr std::uint32_t kMarks[] = {0x1000, 0x2000, 0x3000};

// Software that is known by the table its rules look up, or by the mark they look at.
struct KnownSoftware {
  const char* name;
  std::uint32_t table;      // 0: any
  std::uint32_t mark_mask;  // 0: any
  std::uint32_t mark;
};
constexpr KnownSoftware kKnown[] = {
    {"Tailscale", 52, 0, 0},        {"Tailscale", 0, 0xff0000, 0x80000}, {"NetBird", 7120, 0, 0},
    {"Mullvad", 0x6d6f6c65, 0, 0},  {"Firezone", 0x2021fd00, 0, 0},      {"Firezone", 0x2021fd01, 0, 0},
    {"Firezone", 0x2021fd02, 0, 0}, {"NordVPN", 0, 0xffffffff, 0xe1f1},
};
constexpr std::uint32_t kWgQuickFirst =
    51820;  // wg-quick takes the first free table from here, and the same as its mark
constexpr std::uint32_t kWgQuickLast = 51899;

std::string SoftwareOf(const Rule& rule) {
  for (const KnownSoftware& known : kKnown) {
    const bool by_table = known.table != 0 && rule.table == known.table;
    const bool by_mark = known.mark_mask != 0 && rule.mark_mask == known.mark_mask && rule.mark == known.mark;
    if (by_table || by_mark) return known.name;
  }
  if (rule.invert && rule.table >= kWgQuickFirst && rule.table <= kWgQuickLast && rule.mark == rule.table) {
    return "wg-quick";
  }
  return "";
}

void CheckDevice(const MachineFacts& facts, Findings& findings) {
  switch (facts.tun_error) {
    case 0:
      findings.push_back({kGood, "/dev/net/tun opens", ""});
      break;
    case ENOENT:
      findings.push_back(
          {kProblem, "/dev/net/tun is missing", "modprobe tun; for a container, start it with --device /dev/net/tun"});
      break;
    case ENXIO:
    case ENODEV:
      findings.push_back({kProblem, "the kernel has no TUN driver behind /dev/net/tun", "modprobe tun, on the host"});
      break;
    case EPERM:
    case EACCES:
      findings.push_back({kProblem, "/dev/net/tun may not be opened",
                          "run as root; for a container, start it with --device /dev/net/tun"});
      break;
    default:
      findings.push_back(
          {kProblem, fmt::format("/dev/net/tun does not open: {}", std::strerror(facts.tun_error)), "modprobe tun"});
  }
  if (facts.has_net_admin) {
    findings.push_back({kGood, "CAP_NET_ADMIN is there", ""});
  } else {
    findings.push_back({kProblem, "CAP_NET_ADMIN is missing: no device, no route and no rule can be made",
                        "run as root; for a container, start it with --cap-add NET_ADMIN"});
  }
}

void CheckOffloads(const MachineFacts& facts, Findings& findings) {
  std::vector<std::string> missing;
  if (facts.tun_offloads && !facts.tun_offloads->tso) missing.emplace_back("TCP segmentation on the TUN (TUN_F_TSO)");
  if (facts.tun_offloads && !facts.tun_offloads->uso) missing.emplace_back("UDP segmentation on the TUN (TUN_F_USO)");
  if (!facts.has_udp_segment) missing.emplace_back("UDP segmentation on sockets (UDP_SEGMENT)");
  if (!facts.has_udp_gro) missing.emplace_back("joined UDP receives (UDP_GRO)");
  for (const std::string& name : missing) {
    findings.push_back({kNote, fmt::format("the kernel has no {}: the tunnel works, slower", name),
                        "a kernel of 6.2 or later has them all"});
  }
  if (missing.empty() && facts.tun_offloads) findings.push_back({kGood, "all offloads are there", ""});
  if (!facts.tun_offloads && facts.tun_error == 0 && facts.has_net_admin) {
    findings.push_back({kNote,
                        "the TUN's offloads were not tried: that takes a namespace of its own, thus CAP_SYS_ADMIN",
                        "`adit status` shows those of a tunnel that is up"});
  }
}

// Of each device that is no loopback and none of our tunnels.
void CheckSysctls(const MachineFacts& facts, const NetSnapshot& snapshot, Findings& findings) {
  const int all = snapshot.Sysctl("net/ipv4/conf/all/rp_filter", 0);
  for (const Link& link : snapshot.links) {
    if (link.name == "lo" || !link.is_up || std::ranges::find(facts.running, link.name) != facts.running.end())
      continue;
    if (std::max(all, snapshot.Sysctl(fmt::format("net/ipv4/conf/{}/rp_filter", link.name), 0)) != 1) continue;
    findings.push_back(
        {kNote,
         fmt::format(
             "the reverse path filter of {} is strict (rp_filter = 1): a rule for each endpoint's port lets its "
             "answers in, so a peer that roams to another address is not heard",
             link.name),
         fmt::format("sysctl net.ipv4.conf.all.rp_filter=2 net.ipv4.conf.{}.rp_filter=2", link.name)});
  }
  if (!snapshot.has_ipv6) {
    findings.push_back({kNote, "this kernel has no IPv6: the IPv6 part of a configuration is left out",
                        "none is needed where there is no IPv6"});
  } else if (snapshot.Sysctl("net/ipv6/conf/all/disable_ipv6", 0) != 0 ||
             snapshot.Sysctl("net/ipv6/conf/default/disable_ipv6", 0) != 0) {
    findings.push_back({kNote, "IPv6 is switched off (disable_ipv6 = 1): the IPv6 part of a configuration is left out",
                        "sysctl net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0"});
  }
}

bool HasDefault(const NetSnapshot& snapshot, std::uint32_t table, Family family) {
  return std::ranges::any_of(snapshot.routes, [&](const Route& route) {
    return route.table == table && route.family() == family && route.destination.length() == 0 &&
           route.type != RouteType::kThrow;
  });
}

// Whether the rule takes what carries no mark, whatever its destination: then nothing is left for rules behind it.
bool TakesTheRest(const NetSnapshot& snapshot, const Rule& rule) {
  if (!rule.TakesEveryPacketMarked(0)) return false;
  if (rule.action == RuleAction::kGoto || rule.action == RuleAction::kNop) return false;
  if (rule.action != RuleAction::kLookup) return true;
  return rule.suppress_prefixlength < 0 && HasDefault(snapshot, rule.table, rule.family);
}

// The engine's rules of a tunnel of ours.
bool IsOurs(const Rule& rule) {
  return rule.mark_mask == kMarkBits && rule.mark != 0 && rule.protocol == kProtocolKernel;
}

// Whether somebody else's rule looks for what we would put on our packets.
bool IsTaken(const NetSnapshot& snapshot, std::uint32_t mark) {
  return std::ranges::any_of(snapshot.rules, [mark](const Rule& rule) {
    return !IsOurs(rule) && !rule.invert && rule.mark != 0 && (mark & rule.mark_mask) == rule.mark;
  });
}

void CheckRules(const NetSnapshot& snapshot, Findings& findings) {
  if (snapshot.rules.empty()) {
    findings.push_back(
        {kNote, "the kernel shows no routing rules: a full tunnel needs another way to keep its own packets out",
         "a kernel with CONFIG_IP_MULTIPLE_TABLES; or LoopAvoidance = routes"});
    return;
  }
  std::uint32_t first = kFirstPriority;
  for (const Rule& rule : snapshot.rules) {
    if (IsOurs(rule)) first = std::min(first, rule.priority);
  }
  std::map<std::string, std::set<std::uint32_t>> present;
  for (const Rule& rule : snapshot.rules) {
    if (rule.priority == 0 || rule.priority >= kLastPriority) continue;
    if (const std::string name = SoftwareOf(rule); !name.empty()) present[name].insert(rule.priority);
    if (rule.priority < first && TakesTheRest(snapshot, rule)) {
      const std::string name = SoftwareOf(rule);
      findings.push_back(
          {kProblem,
           fmt::format("the {} rule \"{}\"{} comes before ours and takes everything that is meant for a tunnel",
                       rule.family == Family::kV6 ? "IPv6" : "IPv4", rule.ToString(),
                       name.empty() ? "" : " of " + name),
           name.empty() ? fmt::format("remove it, or give it a priority above {}", kLastPriority - 1)
                        : fmt::format("take down {}, or its use as an exit for everything", name)});
    }
  }
  if (std::ranges::all_of(kMarks, [&](std::uint32_t mark) { return IsTaken(snapshot, mark); })) {
    findings.push_back({kProblem,
                        fmt::format("other rules look for each of the marks that ours could use ({:#x}, {:#x}, {:#x})",
                                    kMarks[0], kMarks[1], kMarks[2]),
                        "FwMark = a mark that nobody else uses, in [Interface]"});
  }
  for (const auto& [name, priorities] : present) {
    findings.push_back({kNote,
                        fmt::format("rules of {} are there, at priority {}{}", name, *priorities.begin(),
                                    priorities.size() > 1 ? fmt::format(" to {}", *priorities.rbegin()) : ""),
                        *priorities.begin() < first
                            ? fmt::format("nothing, if {} is to keep its own networks: it comes before ours", name)
                            : fmt::format("nothing, if ours is to come before {}", name)});
  }
}

void CheckFilters(const MachineFacts& facts, Findings& findings) {
  if (!facts.filters) {
    findings.push_back(
        {kNote, fmt::format("nf_tables cannot be read ({}): a kill switch is not possible", facts.filters_error),
         "modprobe nf_tables, on the host"});
    return;
  }
  for (const DropPolicy& policy : facts.filters->policies) {
    // An accept in one chain does not help against the next one's policy.
    const std::string where = policy.place.ToString();
    if (policy.hook == "output" || policy.hook == "postrouting") {
      findings.push_back(
          {kProblem,
           fmt::format("{} drops what it does not accept on the way out: the tunnel's own packets too", where),
           fmt::format("accept there: oifname of the tunnel, and UDP to the endpoint's port; or stop the "
                       "firewall or VPN that owns it")});
    } else if (policy.hook == "forward") {
      findings.push_back(
          {kNote,
           fmt::format("{} drops what it does not accept between devices: containers and other hosts get "
                       "nothing through the tunnel without a rule there",
                       where),
           "accept there iifname and oifname of the tunnel (with Docker: in the chain DOCKER-USER)"});
    } else {
      findings.push_back({kNote, fmt::format("{} drops what it does not accept on the way in", where),
                          "accept there what is established; for a tunnel that others call, UDP to its ListenPort"});
    }
  }
  for (const ContainerDrop& drop : facts.filters->containers) {
    findings.push_back(
        {kNote,
         fmt::format(
             "{} drops what goes to {} unless it comes in by {} (as Docker does from 28 on): a peer of the tunnel does "
             "not reach that container by its own address",
             drop.place.ToString(), drop.destination.ToString(), drop.unless_device),
         "publish the container's port; or make its network with -o "
         "com.docker.network.bridge.trusted_host_interfaces=NAME-OF-THE-TUNNEL; or \"allow-direct-routing\": true in "
         "Docker's "
         "daemon.json"});
  }
  for (const FilterPlace& place : facts.filters->reverse_path) {
    findings.push_back(
        {kNote,
         fmt::format("{} drops what comes in by another device than the answer would leave by (as firewalld's "
                     "IPv6_rpfilter): answers of an endpoint look so to it",
                     place.ToString()),
         "IPv6_rpfilter=loose or no in firewalld.conf, if a tunnel with an IPv6 endpoint gets no handshake"});
  }
  if (!facts.legacy_iptables.empty()) {
    findings.push_back(
        {kNote,
         fmt::format("iptables-legacy is in use (tables {}); its rules were not looked at", facts.legacy_iptables),
         "iptables-legacy-save shows them"});
  }
}

}  // namespace

std::vector<DoctorFinding> Diagnose(const MachineFacts& facts) {
  Findings findings;
  CheckDevice(facts, findings);
  CheckOffloads(facts, findings);
  for (const std::string& name : facts.crashed) {
    findings.push_back({kProblem,
                        fmt::format("the process of {} died and left its routes, rules and files behind", name),
                        fmt::format("adit cleanup {}", name)});
  }
  if (facts.snapshot) {
    CheckSysctls(facts, *facts.snapshot, findings);
    CheckRules(*facts.snapshot, findings);
  } else {
    findings.push_back(
        {kProblem, fmt::format("the kernel's routing cannot be read: {}", facts.snapshot_error), "run as root"});
  }
  CheckFilters(facts, findings);
  return findings;
}

}  // namespace adit
