#include <cstdio>
#include <exception>
#include <string>
#include <variant>
#include <vector>

#include "cli/demo_command.h"
#include "cli/device_command.h"
#include "cli/doctor_command.h"
#include "cli/down_command.h"
#include "cli/engine_settings.h"
#include "cli/exec_command.h"
#include "cli/explain_command.h"
#include "cli/keys_command.h"
#include "cli/killswitch_command.h"
#include "cli/log.h"
#include "cli/options.h"
#include "cli/portal_command.h"
#include "cli/status_command.h"
#include "cli/up_command.h"

namespace {

using namespace adit;

Outcome Run(const DeviceCommand& command) { return RunDevice(command); }
Outcome Run(const UpCommand& command) { return RunUp(command); }
Outcome Run(const DownCommand& command) { return RunDown(command); }
Outcome Run(const ReloadCommand& command) { return RunReload(command); }
Outcome Run(const ExplainCommand& command) { return RunExplain(command); }
Outcome Run(const CleanupCommand& command) { return RunCleanup(command); }
Outcome Run(const StatusCommand& command) { return RunStatus(command); }
Outcome Run(const CheckCommand& command) { return RunCheck(command); }
Outcome Run(const KillSwitchCommand& command) { return RunKillSwitch(command); }
Outcome Run(const ExecCommand& command) { return RunExec(command); }
Outcome Run(const PortalCommand& command) { return RunPortal(command); }
Outcome Run(const GenkeyCommand&) { return RunGenkey(); }
Outcome Run(const GenpskCommand&) { return RunGenpsk(); }
Outcome Run(const PubkeyCommand&) { return RunPubkey(); }
Outcome Run(const DemoCommand&) { return RunDemo(); }
Outcome Run(const DoctorCommand& command) { return RunDoctor(command); }

}  // namespace

int main(int argc, char** argv) {
  if (const Status hidden = HideAvx512FromLibcrypto(argv); !hidden) {
    PrintError(hidden.error().message);
    return static_cast<int>(ExitCode::kFailure);
  }
  const std::vector<std::string> words(argv + (argc > 0 ? 1 : 0), argv + argc);
  const auto command = ParseCommandLine(words);
  if (!command) {
    if (command.error().code == ExitCode::kClean) {
      std::fputs(command.error().text.c_str(), stdout);
    } else {
      PrintError(command.error().text);
    }
    return static_cast<int>(command.error().code);
  }
  Outcome outcome;
  try {
    outcome = std::visit([](const auto& chosen) { return Run(chosen); }, *command);
  } catch (const std::exception& error) {
    // Ours never throw; out of memory, or descriptors inside Asio, does.
    outcome = FailWith(ExitCode::kFailure, "{}", error.what());
  }
  if (outcome) return static_cast<int>(ExitCode::kClean);
  // Without a sentence it is the code of a program that we ran.
  if (!outcome.error().message.empty()) PrintError(outcome.error().message);
  return static_cast<int>(outcome.error().code);
}
