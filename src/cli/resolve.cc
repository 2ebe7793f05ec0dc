#include "cli/resolve.h"

#include <net/if.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "config/text.h"

namespace adit {
namespace {

// Empty if the loop ended.
std::optional<LookupResult> LookUp(Loop& loop, const std::string& host, const EndpointNames& names) {
  std::optional<LookupResult> result;
  const auto lookup =
      NameLookup::Start(loop.io(), names.Settings(), host, [&](const LookupResult& found) { result = found; });
  if (!lookup) {
    LookupResult failed;
    failed.error = lookup.error().message;
    return failed;
  }
  loop.RunUntil([&] { return result.has_value(); });
  return result;
}

Result<EndpointAddresses> ResolveOne(Loop& loop, const ConfEndpoint& endpoint, unsigned retries,
                                     const EndpointNames& names) {
  for (unsigned retry = 0;; ++retry) {
    const auto found = LookUp(loop, endpoint.host, names);
    if (!found) return Fail("stopped while looking up {}", endpoint.host);
    auto addresses = OrderByRoute(*found, names);
    if (!addresses.empty()) return EndpointAddresses{true, std::move(addresses), found->ttl};
    if (found->is_final || (retries != kResolveForever && retry >= retries)) {
      return Fail("the endpoint {} cannot be resolved: {}", endpoint.ToString(), found->error);
    }
    const Duration pause = ResolutionPause(retry);
    spdlog::warn("cannot resolve {}: {}; trying again in {:.1f} s", endpoint.host, found->error,
                 std::chrono::duration<double>(pause).count());
    loop.RunUntil([] { return false; }, pause);
    if (loop.has_ended()) return Fail("stopped while looking up {}", endpoint.host);
  }
}

}  // namespace

unsigned ResolutionRetriesFromEnvironment() {
  const char* value = std::getenv("WG_ENDPOINT_RESOLUTION_RETRIES");
  if (value == nullptr) return kDefaultResolutionRetries;
  if (std::strcmp(value, "infinity") == 0) return kResolveForever;
  return ParseDecimal<unsigned>(value).value_or(kDefaultResolutionRetries);
}

Duration ResolutionPause(unsigned retry) {
  const double seconds = std::min(20.0, std::pow(1.2, std::min(retry, 100u)));
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

Result<std::vector<std::optional<SocketAddress>>> ResolveEndpoints(Loop& loop, const std::vector<ConfPeer>& peers,
                                                                   unsigned retries, const EndpointNames& names,
                                                                   std::vector<EndpointAddresses>* all) {
  std::vector<std::optional<SocketAddress>> result;
  std::vector<EndpointAddresses> found;
  for (const ConfPeer& peer : peers) {
    found.emplace_back();
    if (!peer.endpoint) {
      result.emplace_back();
    } else if (const auto numeric = peer.endpoint->Numeric(if_nametoindex)) {
      found.back().addresses.push_back(numeric->ip);
      result.emplace_back(*numeric);
    } else {
      auto addresses = ResolveOne(loop, *peer.endpoint, retries, names);
      if (!addresses) return std::unexpected(addresses.error());
      result.emplace_back(SocketAddress{addresses->addresses.front(), peer.endpoint->port});
      found.back() = std::move(*addresses);
    }
  }
  if (all != nullptr) *all = std::move(found);
  return result;
}

}  // namespace adit
