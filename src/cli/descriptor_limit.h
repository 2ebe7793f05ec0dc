// RLIMIT_NOFILE, looked at before anything is opened: running out half-way up would be found in the wrong place.
#pragma once

#include "base/result.h"

namespace adit {

// A device with one TUN queue opens about 30; the UAPI and control sockets take up to 80 clients.
inline constexpr unsigned kMinDescriptors = 64;
inline constexpr unsigned kWantedDescriptors = 256;

// Raises the soft limit to kWantedDescriptors if it is lower and the hard limit lets it. An error (EMFILE) if fewer
// than kMinDescriptors remain.
Status EnsureDescriptors();

}  // namespace adit
