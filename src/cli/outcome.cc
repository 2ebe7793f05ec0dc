#include "cli/outcome.h"

#include <cerrno>

namespace adit {

Failure FromError(const Error& error) {
  // Not ENODEV: a link that somebody deletes while we set it up is no lack of the machine.
  const bool environment = error.code == EPERM || error.code == EACCES || error.code == ENOENT ||
                           error.code == EOPNOTSUPP || error.code == EPROTONOSUPPORT;
  return {environment ? ExitCode::kEnvironment : ExitCode::kFailure, error.message};
}

}  // namespace adit
