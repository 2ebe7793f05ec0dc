// `adit portal`: a way past the tunnel and its kill switch, for one user and some minutes, to log in to the network
// that the machine is in.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

Outcome RunPortal(const PortalCommand& command);

}  // namespace adit
