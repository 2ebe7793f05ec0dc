#include "cli/doctor_command.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/fd.h"
#include "cli/doctor.h"
#include "cli/run_files.h"
#include "routing/netns.h"
#include "routing/take_snapshot.h"

namespace adit {
namespace {

using Json = nlohmann::ordered_json;

bool HasCapability(unsigned capability) {
  __user_cap_header_struct header{.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  __user_cap_data_struct data[2] = {};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  return (data[capability / 32].effective >> (capability % 32) & 1) != 0;
}

// In a namespace that is made for it and gone afterwards, so that no link appears on the machine.
std::optional<TunOffloads> TryTunOffloads() {
  const auto space = CreateNetworkNamespace();
  if (!space) return std::nullopt;
  std::optional<TunOffloads> offloads;
  const Status tried = RunInNamespace(space->get(), [&]() -> Status {
    const auto tun = TunDevice::Create("doctor0", {});
    if (tun) offloads = (*tun)->offloads();
    return {};
  });
  return tried ? offloads : std::nullopt;
}

bool TakesUdpOption(int option, int value) {
  Fd fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) fd = Fd(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  return !fd || setsockopt(fd.get(), IPPROTO_UDP, option, &value, sizeof value) == 0;
}

// A file that lists words, one a line, by commas.
std::string WordsOf(const char* path) {
  std::ifstream file(path);
  std::string words;
  for (std::string line; std::getline(file, line);) words += (words.empty() ? "" : ", ") + line;
  return words;
}

// By the locks: a living process holds its own.
void LookForTunnels(MachineFacts& facts) {
  const auto names = KnownTunnels();
  if (!names) return;
  for (const std::string& name : *names) {
    const Fd lock(open(RunFilesOf(name).lock.c_str(), O_RDONLY | O_CLOEXEC));
    const bool is_held = lock && flock(lock.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    (is_held ? facts.running : facts.crashed).push_back(name);
  }
}

MachineFacts LookAround() {
  MachineFacts facts;
  {
    const Fd tun(open("/dev/net/tun", O_RDWR | O_CLOEXEC));
    if (!tun) facts.tun_error = errno;
  }
  facts.has_net_admin = HasCapability(CAP_NET_ADMIN);
  if (facts.tun_error == 0 && facts.has_net_admin) facts.tun_offloads = TryTunOffloads();
  facts.has_udp_segment = TakesUdpOption(UDP_SEGMENT, 1200);
  facts.has_udp_gro = TakesUdpOption(UDP_GRO, 1);

  auto route = NetlinkSocket::Open();
  auto snapshot = route ? TakeSnapshot(*route) : Result<NetSnapshot>(std::unexpected(route.error()));
  if (snapshot) {
    facts.snapshot = std::move(*snapshot);
  } else {
    facts.snapshot_error = snapshot.error().message;
  }
  auto netfilter = NetlinkSocket::Open(NETLINK_NETFILTER);
  auto filters =
      netfilter ? TakeForeignFilters(*netfilter) : Result<ForeignFilters>(std::unexpected(netfilter.error()));
  if (filters) {
    facts.filters = std::move(*filters);
  } else {
    facts.filters_error = filters.error().message;
  }
  for (const char* path : {"/proc/net/ip_tables_names", "/proc/net/ip6_tables_names"}) {
    if (facts.legacy_iptables.empty()) facts.legacy_iptables = WordsOf(path);
  }
  LookForTunnels(facts);
  return facts;
}

const char* NameOf(FindingLevel level) {
  switch (level) {
    case FindingLevel::kGood:
      return "good";
    case FindingLevel::kNote:
      return "note";
    case FindingLevel::kProblem:
      return "problem";
  }
  return "";
}

}  // namespace

Outcome RunDoctor(const DoctorCommand& command) {
  const std::vector<DoctorFinding> findings = Diagnose(LookAround());
  if (command.json) {
    Json json = Json::array();
    for (const DoctorFinding& finding : findings) {
      Json one{{"level", NameOf(finding.level)}, {"text", finding.text}};
      if (!finding.cure.empty()) one["cure"] = finding.cure;
      json.push_back(std::move(one));
    }
    fmt::print("{}\n", json.dump(2));
  } else {
    for (const DoctorFinding& finding : findings) {
      fmt::print("{:<8} {}\n", NameOf(finding.level), finding.text);
      if (!finding.cure.empty()) fmt::print("{:<8} cure: {}\n", "", finding.cure);
    }
  }
  const auto problems = std::ranges::count(findings, FindingLevel::kProblem, &DoctorFinding::level);
  if (problems == 0) return {};
  return FailWith(ExitCode::kEnvironment, "{} problem{} found; the cures are above", problems,
                  problems == 1 ? "" : "s");
}

}  // namespace adit
