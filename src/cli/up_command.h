// `adit up` and `adit run`: a tunnel from a .conf file, with everything around it, until it is told to stop.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

// Returns when the tunnel is down again, or could not come up and nothing is left of it. `up` goes to the background
// first; the process that was called then exits in here, when the tunnel is ready.
Outcome RunUp(const UpCommand& command);

}  // namespace adit
