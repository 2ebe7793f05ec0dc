#include "cli/ask_running.h"

#include <cerrno>

#include "cli/control_socket.h"
#include "cli/run_files.h"

namespace adit {

Outcome NotRunning(const std::string& name) {
  return FailWith(ExitCode::kFailure, "no tunnel {} of ours is up; `adit status` lists those that are", name);
}

OutcomeOf<std::string> AskRunning(const std::string& name, const std::string& request, Duration timeout) {
  const auto answer = AskTunnel(RunFilesOf(name).socket, request, timeout);
  if (!answer) {
    const int code = answer.error().code;
    if (code == ENOENT || code == ECONNREFUSED) return std::unexpected(NotRunning(name).error());
    if (code == EACCES) return FailWith(ExitCode::kEnvironment, "{}; run as root", answer.error().message);
    return FailWith(ExitCode::kFailure, "{}", answer.error().message);
  }
  if (*answer == "ok") return std::string();
  if (answer->starts_with("ok ")) return answer->substr(3);
  return FailWith(ExitCode::kFailure, "{}", *answer);
}

}  // namespace adit
