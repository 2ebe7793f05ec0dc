// `adit status` and `adit check`.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

Outcome RunStatus(const StatusCommand& command);
// Resolves names and reads the kernel's routes, changes nothing.
Outcome RunCheck(const CheckCommand& command);

}  // namespace adit
