#include "routing/take_snapshot.h"

#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/if_addr.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/fd.h"
#include "routing/sysctl.h"
#include "routing/table_names.h"
#include "routing/wire.h"

namespace adit {
namespace {

Status Named(Status status, const char* what) {
  if (!status) return FailErrno(status.error().code, "cannot read the kernel's {}: {}", what, status.error().message);
  return {};
}

bool KernelHasIpv6() {
  const Fd probe(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return probe || errno != EAFNOSUPPORT;
}

bool IsOlderKernelThan(unsigned major, unsigned minor) {
  utsname name{};
  unsigned has_major = 0, has_minor = 0;
  if (uname(&name) != 0 || std::sscanf(name.release, "%u.%u", &has_major, &has_minor) != 2) return false;
  return std::pair(has_major, has_minor) < std::pair(major, minor);
}

// Deleting a rule that is not there: the kernel looks for it only where it has rules and lets us change them, and
// nothing changes. EPERM says that we may change nothing at all, which is not about rules. The rule has what ours need
// most, to suppress a default route (Linux 3.12); a kernel that knows it not refuses it (EINVAL) or, before strict
// checking, leaves it out in silence, and a tunnel whose rule for main does not suppress is a leak.
bool TakesRules(NetlinkSocket& socket, const NetSnapshot& snapshot, Family family) {
  Rule absent;
  absent.family = family;
  absent.priority = 0xfffffff1;
  absent.table = kMainTable;
  absent.suppress_prefixlength = 0;
  if (IsOlderKernelThan(3, 12)) return false;
  const auto has_it = [&](const Rule& rule) { return rule.priority == absent.priority; };
  if (std::ranges::any_of(snapshot.rules, has_it)) return true;
  const Status answer = socket.Request(RuleMessage(RTM_DELRULE, absent));
  if (answer) return true;
  const int code = answer.error().code;
  return code != EOPNOTSUPP && code != EAFNOSUPPORT && code != EINVAL;
}

// The mark it has already: a socket that is thrown away.
bool TakesMarks() {
  const Fd probe(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const int mark = 0;
  return !probe || setsockopt(probe.get(), SOL_SOCKET, SO_MARK, &mark, sizeof mark) == 0;
}

void ReadSysctls(NetSnapshot& snapshot) {
  constexpr const char* kV4Leaves[] = {"rp_filter", "src_valid_mark"};
  constexpr const char* kV6Leaves[] = {"disable_ipv6"};
  std::vector<std::string> devices = {"all", "default"};
  for (const Link& link : snapshot.links) devices.push_back(link.name);
  const auto read = [&](const std::string& key) {
    if (auto value = ReadSysctl(key)) snapshot.sysctls.emplace(key, *value);
  };
  for (const std::string& device : devices) {
    for (const char* leaf : kV4Leaves) read(fmt::format("net/ipv4/conf/{}/{}", device, leaf));
    for (const char* leaf : kV6Leaves) read(fmt::format("net/ipv6/conf/{}/{}", device, leaf));
  }
}

}  // namespace

Result<NetSnapshot> TakeSnapshot(NetlinkSocket& socket) {
  NetSnapshot snapshot;
  snapshot.has_ipv6 = KernelHasIpv6();

  std::map<std::uint32_t, std::string> name_of;
  Status status = socket.Dump(
      NetlinkMessage(RTM_GETLINK, 0, ifinfomsg{}), [&] { snapshot.links.clear(); },
      [&](nlmsghdr* message) { snapshot.links.push_back(ReadLink(message)); });
  if (!status) return std::unexpected(Named(status, "links").error());
  for (const Link& link : snapshot.links) name_of[link.index] = link.name;
  const DeviceNames names = [&](std::uint32_t index) {
    const auto found = name_of.find(index);
    return found != name_of.end() ? found->second : fmt::format("#{}", index);
  };

  status = socket.Dump(
      NetlinkMessage(RTM_GETADDR, 0, ifaddrmsg{}), [&] { snapshot.addresses.clear(); },
      [&](nlmsghdr* message) { snapshot.addresses.push_back(ReadAddress(message, names)); });
  if (!status) return std::unexpected(Named(status, "addresses").error());

  for (const std::uint8_t family : {std::uint8_t{AF_INET}, std::uint8_t{AF_INET6}}) {
    if (family == AF_INET6 && !snapshot.has_ipv6) continue;
    const std::size_t routes_before = snapshot.routes.size();
    rtmsg route_header{};
    route_header.rtm_family = family;
    status = socket.Dump(
        NetlinkMessage(RTM_GETROUTE, 0, route_header), [&] { snapshot.routes.resize(routes_before); },
        [&](nlmsghdr* message) {
          if (auto route = ReadRoute(message, names)) snapshot.routes.push_back(std::move(*route));
        });
    if (!status) return std::unexpected(Named(status, "routes").error());

    const std::size_t rules_before = snapshot.rules.size();
    fib_rule_hdr rule_header{};
    rule_header.family = family;
    status = socket.Dump(
        NetlinkMessage(RTM_GETRULE, 0, rule_header), [&] { snapshot.rules.resize(rules_before); },
        [&](nlmsghdr* message) { snapshot.rules.push_back(ReadRule(message)); });
    // EOPNOTSUPP: a kernel without CONFIG_IP_MULTIPLE_TABLES. There are no rules then.
    if (!status && status.error().code != EOPNOTSUPP) return std::unexpected(Named(status, "rules").error());
    const Family as_family = family == AF_INET6 ? Family::kV6 : Family::kV4;
    snapshot.takes_rules = snapshot.takes_rules && status && TakesRules(socket, snapshot, as_family);
  }
  snapshot.takes_marks = TakesMarks();

  std::ranges::sort(snapshot.links);
  std::ranges::sort(snapshot.addresses);
  std::ranges::sort(snapshot.routes);
  std::ranges::sort(snapshot.rules);
  ReadSysctls(snapshot);
  for (const auto& [table, name] : ReadForeignTableNames()) snapshot.named_tables.push_back(table);
  return snapshot;
}

}  // namespace adit
