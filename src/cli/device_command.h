// `adit [-f] IFNAME`: a bare device, a drop-in for `wireguard-go [-f] IFNAME`.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"
#include "tunnel/limits.h"

namespace adit {

// Returns when the device has ended. Without -f (and WG_PROCESS_FOREGROUND=1) it goes to the background first; the
// process that was called then exits in here, as soon as the device and its socket answer.
// `limits` are lowered by a test program only, so that a rekey takes seconds.
Outcome RunDevice(const DeviceCommand& command, const ProtocolLimits& limits = {});

}  // namespace adit
