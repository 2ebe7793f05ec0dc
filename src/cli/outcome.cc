#include "cli/outcome.h"

#include <cerrno>

namespace adit {

Failure FromError(const Error& error) {
  const bool environment = error.code == EPERM || error.code == EACCES || error.code == ENOENT ||
                           error.code == ENODEV || error.code == EOPNOTSUPP;
  return {environment ? ExitCode::kEnvironment : ExitCode::kFailure, error.message};
}

}  // namespace adit
