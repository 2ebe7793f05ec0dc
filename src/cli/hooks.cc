#include "cli/hooks.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include "cli/process.h"

namespace adit {

std::string ExpandHook(std::string_view command, std::string_view interface_name) {
  std::string result;
  for (std::size_t i = 0; i < command.size(); ++i) {
    if (command.substr(i).starts_with("%i")) {
      result += interface_name;
      ++i;
    } else {
      result += command[i];
    }
  }
  return result;
}

std::string_view Name(HookPhase phase) {
  switch (phase) {
    case HookPhase::kPreUp:
      return "PreUp";
    case HookPhase::kPostUp:
      return "PostUp";
    case HookPhase::kPreDown:
      return "PreDown";
    case HookPhase::kPostDown:
      return "PostDown";
  }
  return "";
}

Status RunHooks(Loop& loop, HookPhase phase, std::span<const std::string> commands, const std::string& interface_name) {
  const bool past_end = phase == HookPhase::kPreDown || phase == HookPhase::kPostDown;
  const char* const shell = access("/bin/bash", X_OK) == 0 ? "/bin/bash" : "/bin/sh";
  for (const std::string& command : commands) {
    const std::string expanded = ExpandHook(command, interface_name);
    spdlog::info("{}: {}", Name(phase), expanded);
    const auto code =
        RunProgram(loop, {{shell, "-c", expanded}, {{"WIREGUARD_TUNNEL_NAME", interface_name}}, ""}, past_end);
    if (!code) return std::unexpected(code.error());
    if (*code != 0) return Fail("the hook {} = {} ended with exit code {}", Name(phase), expanded, *code);
  }
  return {};
}

}  // namespace adit
