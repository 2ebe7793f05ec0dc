// `adit exec --isolated -- CMD`: CMD in a network namespace whose only way out is the tunnel. The TUN device is inside,
// the UDP sockets are outside; what is not routed into the tunnel goes nowhere. The tunnel lives as long as CMD.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

// A Failure without a message is CMD's own exit code.
Outcome RunExec(const ExecCommand& command);

}  // namespace adit
