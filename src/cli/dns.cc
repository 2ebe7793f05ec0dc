#include "cli/dns.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "cli/process.h"
#include "dns/resolvconf.h"
#include "dns/resolved.h"
#include "engine/clock.h"
#include "routing/plan.h"

namespace adit {
namespace {

RunCommand Runner(Loop& loop) {
  return [&loop](const std::vector<std::string>& words, const std::string& input, bool past_end) {
    return RunProgram(loop, {words, {}, input}, past_end);
  };
}

// "resolvconf tun.wg0", "resolv.conf", "systemd-resolved"
Status WriteNote(const std::string& path, const std::string& text) {
  const Fd note(open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!note || write(note.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return FailErrno(errno, "cannot write {}: {}", path, std::strerror(errno));
  }
  return {};
}

}  // namespace

Result<std::optional<DnsKind>> DnsKindFromEnvironment() {
  const char* const value = std::getenv("ADIT_DNS");
  const std::string text = value != nullptr ? value : "";
  if (text.empty() || text == "auto") return std::nullopt;
  if (text == "resolved") return DnsKind::kResolved;
  if (text == "resolvconf") return DnsKind::kResolvconf;
  if (text == "file") return DnsKind::kFile;
  if (text == "off") return DnsKind::kOff;
  return Fail("ADIT_DNS={} is none of auto, resolved, resolvconf, file, off", text);
}

DnsSettings ToDnsSettings(const ConfFile& conf, const std::string& interface_name) {
  DnsSettings settings;
  settings.interface_name = interface_name;
  settings.servers = conf.interface.dns_servers;
  settings.search_domains = conf.interface.dns_search_domains;
  std::vector<Prefix> allowed;
  for (const ConfPeer& peer : conf.peers) {
    allowed.insert(allowed.end(), peer.allowed_ips.begin(), peer.allowed_ips.end());
  }
  settings.is_full_tunnel = CoverAll(allowed, Family::kV4) || CoverAll(allowed, Family::kV6);
  return settings;
}

TunnelDns::TunnelDns(Loop& loop, RunFiles files, DnsSettings settings)
    : loop_(loop),
      files_(std::move(files)),
      settings_(std::move(settings)),
      paths_(SystemResolvPaths()),
      timer_(loop.io()) {}

TunnelDns::~TunnelDns() = default;

std::unique_ptr<DnsBackend> TunnelDns::Make(DnsKind kind, std::uint32_t interface_index) {
  switch (kind) {
    case DnsKind::kResolved:
      return std::make_unique<ResolvedDns>(settings_, interface_index);
    case DnsKind::kResolvconf:
      return std::make_unique<ResolvconfDns>(Runner(loop_), paths_, settings_);
    case DnsKind::kFile:
      return std::make_unique<ResolvFileDns>(paths_, settings_);
    case DnsKind::kOff:
      break;
  }
  return nullptr;
}

void TunnelDns::Apply(std::optional<DnsKind> wanted, std::uint32_t interface_index) {
  is_off_ = wanted == DnsKind::kOff;
  if (is_off_ || (settings_.servers.empty() && settings_.search_domains.empty())) return;
  std::vector<DnsKind> ways;
  if (wanted) {
    ways.push_back(*wanted);
  } else {
    ways = DnsWays({ResolvedAnswers(), IsInPath("resolvconf"), ParseResolvConf(ReadOwnResolvConf(paths_))});
  }
  for (const DnsKind kind : ways) {
    if (backend_) {
      failed_ways_ += fmt::format("{}: {}; ", Name(backend_->kind()), backend_->state().detail);
      if (const auto removed = backend_->Remove(); !removed) spdlog::debug("{}", removed.error().message);
    }
    const std::string note =
        kind == DnsKind::kResolvconf
            ? fmt::format("{} {}", Name(kind), SystemResolvconfRecordName(settings_.interface_name))
            : std::string(Name(kind));
    if (const auto noted = WriteNote(files_.dns, note + "\n"); !noted) spdlog::warn("{}", noted.error().message);
    watch_.reset();
    watched_fd_ = -1;
    backend_ = Make(kind, interface_index);
    backend_->Apply(BootNow());
    Arm();
    loop_.RunUntil([this] { return backend_->state().health != DnsHealth::kPending; }, kDnsWait);
    if (backend_->state().health == DnsHealth::kGood || loop_.has_ended()) break;
  }
  const DnsReport now = report();
  logged_ = now.detail;
  spdlog::info("DNS by {}: {}{}{}", now.backend, now.health, now.detail.empty() ? "" : ", ", now.detail);
}

// The backend's descriptor may be another one after it worked (a new bus connection).
void TunnelDns::Arm() {
  if (!backend_) return;
  if (const int fd = backend_->fd(); fd != watched_fd_ || (fd >= 0 && !watch_)) {
    watch_.reset();
    watched_fd_ = fd;
    if (fd >= 0) {
      auto opened = FdWatch::Open(loop_.io(), fd, [this] { Drive(); });
      // What is overwritten is then found out by the timer only.
      if (!opened) spdlog::error("{}", opened.error().message);
      if (opened) watch_ = std::move(*opened);
    }
  }
  timer_.cancel();
  if (const auto at = backend_->next_at()) {
    timer_.expires_after(std::max(Duration(0), *at - BootNow()));
    timer_.async_wait([this, alive = std::weak_ptr<int>(alive_)](const boost::system::error_code& error) {
      if (!error && !alive.expired()) Drive();
    });
  }
}

void TunnelDns::Drive() {
  if (!backend_) return;
  backend_->Process(BootNow());
  const DnsState& state = backend_->state();
  if (state.health != DnsHealth::kPending && state.detail != logged_) {
    logged_ = state.detail;
    if (state.detail.empty()) {
      spdlog::info("DNS by {} is good again", Name(backend_->kind()));
    } else {
      spdlog::warn("DNS by {}: {}", Name(backend_->kind()), state.detail);
    }
  }
  // Not within the watch's own handler, which may not go while it runs.
  boost::asio::post(loop_.io(), [this, alive = std::weak_ptr<int>(alive_)] {
    if (!alive.expired()) Arm();
  });
}

Status TunnelDns::Remove() {
  watch_.reset();
  timer_.cancel();
  Status result;
  if (backend_) {
    result = backend_->Remove();
    backend_.reset();
  }
  if (result) unlink(files_.dns.c_str());
  return result;
}

DnsReport TunnelDns::report() const {
  DnsReport report;
  if (is_off_) report.backend = Name(DnsKind::kOff);
  if (!backend_) return report;
  const DnsState& state = backend_->state();
  report.backend = Name(backend_->kind());
  report.detail = failed_ways_ + state.detail;
  if (report.detail.ends_with("; ")) report.detail.resize(report.detail.size() - 2);
  report.health = state.health == DnsHealth::kPending                        ? "pending"
                  : state.health == DnsHealth::kGood && failed_ways_.empty() ? "good"
                                                                             : "degraded";
  report.repairs = state.repairs;
  for (const IpAddress& server : settings_.servers) report.servers.push_back(server.ToString());
  report.search_domains = settings_.search_domains;
  return report;
}

bool HasLeftDns(const std::string& interface_name, const RunFiles& files) {
  return access(files.dns.c_str(), F_OK) == 0 || HasResolvRecord(SystemResolvPaths(), interface_name);
}

Status RemoveLeftDns(Loop& loop, const std::string& interface_name, const RunFiles& files) {
  Status result = RemoveFromResolvFile(SystemResolvPaths(), interface_name);
  std::ifstream note(files.dns);
  std::string kind, record;
  note >> kind >> record;
  // systemd-resolved has forgotten the link with the device.
  if (kind == Name(DnsKind::kResolvconf) && !record.empty()) {
    if (auto removed = RemoveResolvconfRecord(Runner(loop), record); !removed && result) result = removed;
  }
  unlink(files.dns.c_str());
  return result;
}

}  // namespace adit
