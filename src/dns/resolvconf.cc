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

Status ResolvconfDns::AddRecord() {
  ResolvConf lines;
  for (const IpAddress& server : settings_.servers) lines.servers.push_back({server, ""});
  lines.search = settings_.search_domains;
  is_adding_ = true;
  Status added = Run(run_, {"resolvconf", "-a", record_, "-m", "0", "-x"}, WriteResolvConf(lines, ""), false);
  is_adding_ = false;
  return added;
}

// Some refuse a file that is not theirs with a word on stderr and exit code 0. A resolver on this machine may well be
// behind it, so only a foreign server in the first place is a finding.
bool ResolvconfDns::IsShown() const {
  const ResolvConf now = ParseResolvConf(ReadWhole(paths_.file));
  return settings_.servers.empty() ||
         (!now.servers.empty() &&
          (IsLoopback(now.servers.front()) ||
           std::ranges::find(settings_.servers, now.servers.front().ip) != settings_.servers.end()));
}

void ResolvconfDns::Apply(Instant) {
  const Status applied = AddRecord();
  was_taken_ = applied.has_value();
  if (!applied) return SetState(DnsHealth::kDegraded, applied.error().message);
  if (!IsShown()) {
    return SetState(DnsHealth::kDegraded,
                    fmt::format("resolvconf took the servers, but {} does not name them", paths_.file));
  }
  SetState(DnsHealth::kGood);
  if (auto watch = FileWatch::Open(paths_.file)) watch_ = std::move(*watch);
}

void ResolvconfDns::Process(Instant now) {
  if (!watch_) return;
  const bool has_news = watch_->Process();
  if (is_adding_) return;  // our own news; whether it is in force is looked at when the command has ended
  if (has_news) guard_.OnEvent(now);
  if (guard_.next_look() && *guard_.next_look() <= now) Look(now);
}

void ResolvconfDns::Look(Instant now) {
  switch (guard_.OnLook(IsShown(), now)) {
    case TrampleGuard::Verdict::kFine:
      SetState(DnsHealth::kGood);
      break;
    case TrampleGuard::Verdict::kLeaveIt:
      SetState(DnsHealth::kDegraded,
               fmt::format("another program keeps writing {}; the record of resolvconf was made again {} times and is "
                           "left alone now",
                           paths_.file, guard_.repair_count()));
      break;
    case TrampleGuard::Verdict::kRepair: {
      const Status added = AddRecord();
      const bool works = added && IsShown();
      guard_.OnRepaired(works, now);
      if (works) {
        SetState(DnsHealth::kGood);
      } else {
        SetState(DnsHealth::kDegraded,
                 added ? fmt::format("resolvconf took the servers again, but {} does not name them", paths_.file)
                       : added.error().message);
      }
      state_.repairs = guard_.repair_count();
      break;
    }
  }
}

Status ResolvconfDns::Remove() {
  watch_.reset();
  Status removed = RemoveResolvconfRecord(run_, record_);
  // One that failed before may have taken half of it; that it fails again is no news.
  return was_taken_ ? removed : Status();
}

}  // namespace adit
