// PreUp, PostUp, PreDown and PostDown, run as wg-quick runs them: in order, by bash, with %i replaced by the
// interface's name, and the first failure ends the row.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "cli/loop.h"

namespace adit {

std::string ExpandHook(std::string_view command, std::string_view interface_name);

enum class HookPhase { kPreUp, kPostUp, kPreDown, kPostDown };
std::string_view Name(HookPhase phase);

// Commands get WIREGUARD_TUNNEL_NAME. The Down phases run also after the loop has ended. The error names the command
// and its exit code.
Status RunHooks(Loop& loop, HookPhase phase, std::span<const std::string> commands, const std::string& interface_name);

}  // namespace adit
