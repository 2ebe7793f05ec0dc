// `adit down` and `adit cleanup`.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

// Asks the process that runs the tunnel to stop and waits until it is gone; cleans up after one that was killed.
Outcome RunDown(const DownCommand& command);
// Has the running tunnel read its file again, and waits until it did.
Outcome RunReload(const ReloadCommand& command);
// Only after one that was killed; a tunnel that is up is left alone, with an error.
Outcome RunCleanup(const CleanupCommand& command);

}  // namespace adit
