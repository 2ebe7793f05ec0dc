// How a command ends: an exit code (a contract with scripts) and, unless it is 0, one sentence for stderr.
#pragma once

#include <expected>
#include <string>
#include <utility>

#include "base/result.h"

namespace adit {

enum class ExitCode : int {
  kClean = 0,
  kFailure = 1,        // at run time
  kUsage = 2,          // the command line
  kConfiguration = 3,  // the .conf file
  kEnvironment = 4,    // no /dev/net/tun, no CAP_NET_ADMIN: the sentence says what to add
  kNoHandshake = 5,    // none within --wait
};

struct Failure {
  ExitCode code = ExitCode::kFailure;
  std::string message;
};

template <typename T>
using OutcomeOf = std::expected<T, Failure>;
using Outcome = OutcomeOf<void>;

template <typename... Args>
std::unexpected<Failure> FailWith(ExitCode code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Failure{code, fmt::format(format, std::forward<Args>(args)...)});
}

// EPERM, EACCES and a missing device are the environment's, anything else is a run-time failure.
Failure FromError(const Error& error);
inline std::unexpected<Failure> FailFrom(const Error& error) { return std::unexpected(FromError(error)); }

}  // namespace adit
