#include "dns/resolvconf.h"

#include <algorithm>
#include <fstream>
#include <iterator>

namespace adit {
namespace {

Status Run(const RunCommand& run, std::vector<std::string> words, const std::string& input, bool past_end) {
  const auto code = run(words, input, past_end);
  if (!code) return std::unexpected(code.error());
  if (*code != 0) return Fail("resolvconf ended with exit code {}", *code);
  return {};
}

std::string ReadWhole(const std::string& path) {
  std::ifstream file(path);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

bool IsLoopback(const NameServer& server) { return server.ip.is_v4() && server.ip.bytes()[0] == 127; }

}  // namespace

std::string ResolvconfRecordName(const std::string& interface_name, std::string_view interface_order) {
  while (!interface_order.empty()) {
    const auto end = interface_order.find('\n');
    std::string_view line = interface_order.substr(0, end);
    interface_order = end == interface_order.npos ? std::string_view() : interface_order.substr(end + 1);
    if (line.size() < 2 || !line.ends_with('*')) continue;
    line.remove_suffix(1);
    if (line.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == line.npos) {
      return std::string(line) + "." + interface_name;
    }
  }
  return interface_name;
}

std::string SystemResolvconfRecordName(const std::string& interface_name) {
  return ResolvconfRecordName(interface_name, ReadWhole("/etc/resolvconf/interface-order"));
}

Status RemoveResolvconfRecord(const RunCommand& run, const std::string& record) {
  return Run(run, {"resolvconf", "-d", record, "-f"}, "", true);
}

ResolvconfDns::ResolvconfDns(RunCommand run, ResolvPaths paths, DnsSettings settings)
    : run_(std::move(run)),
      paths_(std::move(paths)),
      settings_(std::move(settings)),
      record_(SystemResolvconfRecordName(settings_.interface_name)) {}

void ResolvconfDns::Apply(Instant) {
  ResolvConf lines;
  for (const IpAddress& server : settings_.servers) lines.servers.push_back({server, ""});
  lines.search = settings_.search_domains;
  const Status applied = Run(run_, {"resolvconf", "-a", record_, "-m", "0", "-x"}, WriteResolvConf(lines, ""), false);
  was_taken_ = applied.has_value();
  if (!applied) return SetState(DnsHealth::kDegraded, applied.error().message);
  // Some refuse a file that is not theirs with a word on stderr and exit code 0. A resolver on this machine may well be
  // behind it, so only a foreign server in the first place is a finding.
  const ResolvConf now = ParseResolvConf(ReadWhole(paths_.file));
  const bool shows = settings_.servers.empty() ||
                     (!now.servers.empty() &&
                      (IsLoopback(now.servers.front()) ||
                       std::ranges::find(settings_.servers, now.servers.front().ip) != settings_.servers.end()));
  if (shows) {
    SetState(DnsHealth::kGood);
  } else {
    SetState(DnsHealth::kDegraded, fmt::format("resolvconf took the servers, but {} does not name them", paths_.file));
  }
}

Status ResolvconfDns::Remove() {
  Status removed = RemoveResolvconfRecord(run_, record_);
  // One that failed before may have taken half of it; that it fails again is no news.
  return was_taken_ ? removed : Status();
}

}  // namespace adit
