// Runs another program and waits for it while the loop goes on, so that a hook may use `wg` on the very tunnel that is
// coming up.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "cli/loop.h"

namespace adit {

struct Program {
  std::vector<std::string> words;                                // words[0] is a path, or a name looked up in PATH
  std::vector<std::pair<std::string, std::string>> environment;  // added to ours
  std::string input;                                             // for its stdin, if not empty; at most kMaxInputBytes
};

inline constexpr std::size_t kMaxInputBytes = 65536;  // a pipe's capacity: written before the program runs

// The exit code, 128 + signal if a signal ended it. When the loop ends meanwhile (and not `past_end`), the program gets
// SIGTERM and is waited for.
Result<int> RunProgram(Loop& loop, const Program& program, bool past_end);

bool IsInPath(const std::string& name);

}  // namespace adit
