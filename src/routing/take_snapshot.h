// Reads the kernel's state into a NetSnapshot (door).
#pragma once

#include "base/result.h"
#include "routing/netlink.h"
#include "routing/snapshot.h"

namespace adit {

// Asks the network namespace of `socket`; the sysctls are those of the calling thread's namespace, which must be the
// same.
Result<NetSnapshot> TakeSnapshot(NetlinkSocket& socket);

}  // namespace adit
