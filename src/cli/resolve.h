// Endpoint names to addresses, before the tunnel is up or when its file was read again.
#pragma once

#include <limits>
#include <optional>
#include <vector>

#include "base/address.h"
#include "base/result.h"
#include "cli/loop.h"
#include "cli/name_lookup.h"
#include "config/conf_file.h"

namespace adit {

inline constexpr unsigned kDefaultResolutionRetries = 15;  // wg(8)
inline constexpr unsigned kResolveForever = std::numeric_limits<unsigned>::max();

// WG_ENDPOINT_RESOLUTION_RETRIES: a number or "infinity"; anything else is the default.
unsigned ResolutionRetriesFromEnvironment();

// The pause before retry number `retry` (from 0): 1 s, growing by a fifth each time, at most 20 s, as wg(8) does.
Duration ResolutionPause(unsigned retry);

// What an endpoint's host led to, in the order to try.
struct EndpointAddresses {
  bool is_name = false;  // else `host` was an address
  std::vector<IpAddress> addresses;
  Duration ttl{0};
};

// One element per peer, the first address of each; empty for a peer without an endpoint. A name that does not exist
// fails at once, a server that does not answer is asked again. The loop runs meanwhile; when it ends, so does this,
// with an error. `all`, if given, gets what was found, one element per peer.
Result<std::vector<std::optional<SocketAddress>>> ResolveEndpoints(Loop& loop, const std::vector<ConfPeer>& peers,
                                                                   unsigned retries, const EndpointNames& names,
                                                                   std::vector<EndpointAddresses>* all = nullptr);

}  // namespace adit
