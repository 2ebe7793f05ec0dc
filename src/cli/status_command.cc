#include "cli/status_command.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <nlohmann/json.hpp>

#include "cli/conf_io.h"
#include "cli/control_socket.h"
#include "cli/log.h"
#include "cli/loop.h"
#include "cli/resolve.h"
#include "cli/routing_config.h"
#include "cli/run_files.h"
#include "cli/status.h"
#include "cli/terminal.h"
#include "cli/tunnel_firewall.h"
#include "crypto/primitives.h"
#include "routing/routing.h"

namespace adit {
namespace {

using Json = nlohmann::ordered_json;

constexpr Duration kStatusTimeout = 5s;

// Null for a tunnel that nobody runs.
OutcomeOf<Json> AskStatus(const std::string& name, bool show_keys) {
  const auto answer = AskTunnel(RunFilesOf(name).socket, show_keys ? "status keys" : "status", kStatusTimeout);
  if (!answer) {
    const int code = answer.error().code;
    if (code == ENOENT || code == ECONNREFUSED || code == ECONNRESET) return Json(nullptr);
    if (code == EACCES) return FailWith(ExitCode::kEnvironment, "{}; run as root", answer.error().message);
    return FailWith(ExitCode::kFailure, "{}", answer.error().message);
  }
  Json status = Json::parse(*answer, nullptr, false);
  if (status.is_discarded()) return FailWith(ExitCode::kFailure, "{} answers nonsense; is it another version?", name);
  return status;
}

}  // namespace

Outcome RunStatus(const StatusCommand& command) {
  std::vector<std::string> names{command.name};
  if (command.name.empty()) {
    auto known = KnownTunnels();
    if (!known) return FailFrom(known.error());
    names = std::move(*known);
  }
  Json all = Json::array();
  for (const std::string& name : names) {
    auto status = AskStatus(name, command.show_keys);
    if (!status) return std::unexpected(status.error());
    if (!status->is_null()) {
      all.push_back(std::move(*status));
    } else if (!command.name.empty()) {
      return FailWith(ExitCode::kFailure, "no tunnel {} of ours is up", name);
    } else if (access(RunFilesOf(name).journal.c_str(), F_OK) == 0 ||
               access(RunFilesOf(name).firewall.c_str(), F_OK) == 0) {
      PrintWarning(fmt::format("{} did not end cleanly; `adit cleanup {}` removes what it left behind", name, name));
    }
  }

  if (command.json) {
    fmt::print("{}\n", command.name.empty() ? all.dump(2) : all[0].dump(2));
    return {};
  }
  bool is_first = true;
  for (const Json& status : all) {
    if (!is_first) fmt::print("\n");
    is_first = false;
    if (!status.contains("engine")) {
      fmt::print("interface: {}\n  state: {}\n", status["name"].get<std::string>(), status["state"].get<std::string>());
      continue;
    }
    fmt::print("{}", StatusToText(status, std::time(nullptr), UseColour()));
  }
  return {};
}

Outcome RunCheck(const CheckCommand& command) {
  const auto target = ResolveTarget(command.target);
  if (!target) return std::unexpected(target.error());
  InitializeCrypto();
  const auto loaded = LoadConf(target->file);
  if (!loaded) return std::unexpected(loaded.error());
  for (const std::string& warning : loaded->warnings) PrintWarning(warning);

  // A name that does not resolve here and now says nothing about the file.
  Loop loop;
  const EndpointNames names = NamesBeforeTunnel(loaded->conf.interface.fwmark.value_or(0), {});
  std::vector<std::optional<SocketAddress>> endpoints;
  for (const ConfPeer& peer : loaded->conf.peers) {
    auto resolved = ResolveEndpoints(loop, {peer}, 0, names);
    if (loop.has_ended()) return FailWith(ExitCode::kFailure, "stopped");
    if (!resolved) PrintWarning(fmt::format("{}; the plan leaves it out", resolved.error().message));
    endpoints.push_back(resolved ? resolved->front() : std::nullopt);
  }
  const RoutingConfig config = ToRoutingConfig(loaded->conf, endpoints, target->interface_name);
  const auto plan = PlanNow(config);
  if (!plan) return FailFrom(plan.error());
  for (const std::string& warning : plan->warnings) PrintWarning(warning);

  const ConfInterface& interface = loaded->conf.interface;
  const auto print_hooks = [](const char* key, const std::vector<std::string>& commands) {
    for (const std::string& hook : commands) fmt::print("# {} = {}\n", key, hook);
  };
  fmt::print("# {}: valid; `adit up` would make {} with {} peer{}{} and do:\n", target->file, target->interface_name,
             loaded->conf.peers.size(), loaded->conf.peers.size() == 1 ? "" : "s",
             plan->fwmark != 0 ? fmt::format(", mark its packets {:#x}", plan->fwmark) : "");
  print_hooks("PreUp", interface.pre_up);
  const std::string lines = plan->ToString();
  fmt::print("{}{}", lines, lines.empty() || lines.ends_with('\n') ? "" : "\n");
  const auto firewall = FirewallText(config, *plan);
  if (!firewall) return std::unexpected(firewall.error());
  fmt::print("{}", *firewall);
  for (const IpAddress& server : interface.dns_servers) fmt::print("# nameserver {}\n", server.ToString());
  print_hooks("PostUp", interface.post_up);
  return {};
}

}  // namespace adit
