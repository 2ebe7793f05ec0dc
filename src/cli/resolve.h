// Endpoint names to addresses, by the system's resolver, before the tunnel is up.
#pragma once

#include <limits>
#include <optional>
#include <vector>

#include "base/address.h"
#include "base/result.h"
#include "cli/loop.h"
#include "config/conf_file.h"

namespace adit {

inline constexpr unsigned kDefaultResolutionRetries = 15;  // wg(8)
inline constexpr unsigned kResolveForever = std::numeric_limits<unsigned>::max();

// WG_ENDPOINT_RESOLUTION_RETRIES: a number or "infinity"; anything else is the default.
unsigned ResolutionRetriesFromEnvironment();

// The pause before retry number `retry` (from 0): 1 s, growing by a fifth each time, at most 20 s, as wg(8) does.
Duration ResolutionPause(unsigned retry);

// One element per peer, empty for a peer without an endpoint. A name that does not exist fails at once, a resolver that
// does not answer is asked again. The loop runs meanwhile; when it ends, so does this, with an error.
Result<std::vector<std::optional<SocketAddress>>> ResolveEndpoints(Loop& loop, const std::vector<ConfPeer>& peers,
                                                                   unsigned retries);

}  // namespace adit
