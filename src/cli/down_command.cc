#include "cli/down_command.h"

#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <string>
#include <thread>

#include "cli/ask_running.h"
#include "cli/control_socket.h"
#include "cli/dns.h"
#include "cli/log.h"
#include "cli/loop.h"
#include "cli/run_files.h"
#include "control/uapi_server.h"
#include "routing/firewall.h"
#include "routing/routing.h"
#include "routing/table_names.h"

namespace adit {
namespace {

// PreDown hooks of a person's own may take a while; the rest of a stop takes milliseconds.
constexpr Duration kStopTimeout = 60s;
constexpr auto kGonePoll = std::chrono::milliseconds(2);
constexpr auto kGoneTimeout = std::chrono::seconds(10);

// Of what a tunnel changes on the machine.
bool HasLeftChanges(const std::string& name, const RunFiles& files) {
  return access(files.journal.c_str(), F_OK) == 0 || access(files.firewall.c_str(), F_OK) == 0 ||
         HasLeftDns(name, files);
}

bool HasLeftovers(const std::string& name, const RunFiles& files) {
  return HasLeftChanges(name, files) || access(files.socket.c_str(), F_OK) == 0 ||
         access(files.lock.c_str(), F_OK) == 0;
}

// REQUIRES: the lock is held, so nobody runs it.
Outcome RemoveLeftovers(const std::string& name, const RunFiles& files) {
  if (const auto cleaned = Cleanup(files.journal); !cleaned) return FailFrom(cleaned.error());
  RemoveTableNames(name);
  if (const auto cleaned = CleanupFirewall(files.firewall); !cleaned) return FailFrom(cleaned.error());
  Loop loop;
  if (const auto removed = RemoveLeftDns(loop, name, files); !removed) PrintWarning(removed.error().message);
  unlink(files.socket.c_str());
  RemoveStaleUapiSocket(name);
  return {};
}

// A kill switch that outlives its tunnel is what was asked for, and yet people wonder where their network is.
void TellOfKillSwitch(const std::string& name) {
  const auto stands = HasFirewallTable(name);
  if (!stands || !*stands) return;
  PrintWarning(fmt::format("the kill switch of {} stays closed; `adit killswitch off {}` opens it", name, name));
}

// Names in a configuration that do not resolve at once are asked for again and again.
constexpr Duration kReloadTimeout = 60s;

}  // namespace

Outcome RunReload(const ReloadCommand& command) {
  const auto target = ResolveTarget(command.target);
  if (!target) return std::unexpected(target.error());
  const auto answer = AskRunning(target->interface_name, "reload", kReloadTimeout);
  return answer ? Outcome() : std::unexpected(answer.error());
}

Outcome RunCleanup(const CleanupCommand& command) {
  const auto target = ResolveTarget(command.target);
  if (!target) return std::unexpected(target.error());
  const std::string& name = target->interface_name;
  const RunFiles files = RunFilesOf(name);
  if (!HasLeftovers(name, files)) {
    fmt::print("nothing of {} is left behind\n", name);
    return {};
  }
  const auto lock = TunnelLock::Take(files);
  if (!lock && lock.error().code == EWOULDBLOCK) {
    return FailWith(ExitCode::kFailure, "{} is up ({}); `adit down {}` takes it down", name, lock.error().message,
                    name);
  }
  if (!lock) return FailFrom(lock.error());
  if (auto removed = RemoveLeftovers(name, files); !removed) return removed;
  fmt::print("what {} left behind is removed\n", name);
  TellOfKillSwitch(name);
  return {};
}

Outcome RunDown(const DownCommand& command) {
  const auto target = ResolveTarget(command.target);
  if (!target) return std::unexpected(target.error());
  const std::string& name = target->interface_name;
  const RunFiles files = RunFilesOf(name);
  if (!HasLeftovers(name, files)) return NotRunning(name);

  const auto answer = AskTunnel(files.socket, "stop", kStopTimeout);
  if (!answer && answer.error().code == EACCES) {
    return FailWith(ExitCode::kEnvironment, "{}; run as root", answer.error().message);
  }
  if (!answer && answer.error().code == ETIMEDOUT) return FailWith(ExitCode::kFailure, "{}", answer.error().message);

  // The process lets go of its lock when nothing of the tunnel is left, whether it answered or died.
  const auto deadline = std::chrono::steady_clock::now() + kGoneTimeout;
  auto lock = TunnelLock::Take(files);
  while (!lock && lock.error().code == EWOULDBLOCK && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kGonePoll);
    lock = TunnelLock::Take(files);
  }
  if (!lock && lock.error().code == EWOULDBLOCK) {
    return FailWith(ExitCode::kFailure, "{} does not stop: {}", name, lock.error().message);
  }
  if (!lock) return FailFrom(lock.error());
  const bool has_ended_by_itself =  // or was stopped by somebody else, while we asked
      !answer && answer.error().code == ECONNRESET && !HasLeftChanges(name, files);
  if (answer || has_ended_by_itself) {
    TellOfKillSwitch(name);
    if (!answer || *answer == "ok") return {};
    return FailWith(ExitCode::kFailure, "{} is down, but: {}", name, *answer);
  }
  if (auto removed = RemoveLeftovers(name, files); !removed) return removed;
  TellOfKillSwitch(name);
  PrintWarning(fmt::format("the process of {} was killed; what it left behind is removed", name));
  return {};
}

}  // namespace adit
