// Going into the background: the parent returns to the shell only when the child says that everything works.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace adit {

// The child's promise. A process that stays in the foreground has one that does nothing.
class Readiness {
 public:
  Readiness() = default;
  explicit Readiness(Fd to_parent) : to_parent_(std::move(to_parent)) {}

  // Detaches from the terminal (own session, stdio to /dev/null, stderr to `log_file` if given, cwd /) and lets the
  // parent exit with 0. Fails if the log file cannot be opened.
  Status Announce(const std::string& log_file);

 private:
  Fd to_parent_;
};

// REQUIRES: no thread and no io_context yet. In the child it returns. The parent stays in here: it passes SIGTERM and
// SIGINT on, and exits with 0 when the child is ready or with the child's exit code when that ends before. Errors are
// printed by the child, which keeps the terminal until it is ready.
Result<Readiness> GoToBackground();

}  // namespace adit
