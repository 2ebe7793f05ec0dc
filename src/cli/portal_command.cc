#include "cli/portal_command.h"

#include <optional>
#include <sstream>
#include <string>

#include "cli/ask_running.h"
#include "cli/conf_io.h"
#include "cli/isolated.h"
#include "cli/log.h"
#include "cli/run_files.h"
#include "dns/resolv_conf.h"

namespace adit {
namespace {

constexpr Duration kAnswerTimeout = 10s;

}  // namespace

Outcome RunPortal(const PortalCommand& command) {
  const auto target = ResolveTarget(command.target);
  if (!target) return std::unexpected(target.error());
  const std::string& name = target->interface_name;
  if (command.close) {
    const auto closed = AskRunning(name, "portal", kAnswerTimeout);
    return closed ? Outcome() : std::unexpected(closed.error());
  }

  const auto chosen = ChooseUser(command.user);
  if (!chosen) return FailWith(ExitCode::kUsage, "{}", chosen.error().message);
  const std::optional<IsolatedUser>& user = *chosen;
  if (!user) return FailWith(ExitCode::kUsage, "who may pass beside the tunnel? adit portal --user USER {}", name);

  const auto servers =
      AskRunning(name, fmt::format("portal {} {}", user->uid, command.seconds.count()), kAnswerTimeout);
  if (!servers) return std::unexpected(servers.error());
  if (command.words.empty()) {
    fmt::print("{} ({}) passes beside {} for {} s, or until `adit portal --close {}`; names: {}\n", user->name,
               user->uid, name, command.seconds.count(), name, servers->empty() ? "no server is known" : *servers);
    return {};
  }

  IsolatedProgram program;
  program.words = command.words;
  program.user = user;
  ResolvConf resolv_conf;
  std::istringstream words(*servers);
  for (std::string word; words >> word;) {
    if (const auto ip = IpAddress::Parse(word)) resolv_conf.servers.push_back({*ip, ""});
  }
  program.resolv_conf = WriteResolvConf(resolv_conf, fmt::format("The network's own, by adit portal {}.", name));
  const RunFiles files = RunFilesOf(name);
  program.scratch_file = files.folder + "/" + name + ".portal.resolv.conf";
  const auto code = RunWithResolvConf(program);
  const auto closed = AskRunning(name, "portal", kAnswerTimeout);
  if (!code) return FailFrom(code.error());
  if (!closed) PrintWarning(fmt::format("the way past {} is not closed: {}", name, closed.error().message));
  if (*code == 0) return {};
  return std::unexpected(Failure{static_cast<ExitCode>(*code), ""});
}

}  // namespace adit
