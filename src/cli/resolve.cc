#include "cli/resolve.h"

#include <net/if.h>
#include <netdb.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>

#include "base/fd.h"
#include "config/text.h"

namespace adit {
namespace {

struct Lookup {
  std::string host;
  std::string port;
  Fd done{eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  // Written before `done` is signalled, read after.
  int error = 0;
  int system_error = 0;
  std::optional<SocketAddress> address;
};

void RunLookup(Lookup& lookup) {
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_DGRAM;
  hints.ai_protocol = IPPROTO_UDP;
  addrinfo* found = nullptr;
  lookup.error = getaddrinfo(lookup.host.c_str(), lookup.port.c_str(), &hints, &found);
  lookup.system_error = errno;
  if (lookup.error == 0) {
    lookup.address = SocketAddress::FromSockaddr(found->ai_addr);
    freeaddrinfo(found);
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(lookup.done.get(), &one, sizeof one);
}

bool IsFinal(int error) { return error == EAI_NONAME || error == EAI_FAIL || error == EAI_NODATA; }

// Empty if the loop ended. getaddrinfo cannot be interrupted, so it gets a thread, which keeps what it works on alive
// and is left behind if nobody waits any more.
std::shared_ptr<Lookup> LookUp(Loop& loop, const ConfEndpoint& endpoint) {
  auto lookup = std::make_shared<Lookup>();
  lookup->host = endpoint.host;
  lookup->port = std::to_string(endpoint.port);
  std::thread([lookup] { RunLookup(*lookup); }).detach();
  bool is_done = false;
  boost::asio::posix::stream_descriptor done(loop.io(), dup(lookup->done.get()));
  done.async_wait(done.wait_read, [&](const boost::system::error_code&) { is_done = true; });
  if (loop.RunUntil([&] { return is_done; })) return lookup;
  done.cancel();
  loop.RunUntil([&] { return is_done; }, Duration::max(), true);
  return nullptr;
}

Result<SocketAddress> ResolveOne(Loop& loop, const ConfEndpoint& endpoint, unsigned retries) {
  if (const auto numeric = endpoint.Numeric(if_nametoindex)) return *numeric;
  for (unsigned retry = 0;; ++retry) {
    const auto lookup = LookUp(loop, endpoint);
    if (!lookup) return Fail("stopped while looking up {}", endpoint.host);
    if (lookup->address) return *lookup->address;
    const char* reason =
        lookup->error == EAI_SYSTEM ? std::strerror(lookup->system_error) : gai_strerror(lookup->error);
    if (IsFinal(lookup->error) || (retries != kResolveForever && retry >= retries)) {
      return Fail("the endpoint {} cannot be resolved: {}", endpoint.ToString(), reason);
    }
    const Duration pause = ResolutionPause(retry);
    spdlog::warn("cannot resolve {}: {}; trying again in {:.1f} s", endpoint.host, reason,
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
                                                                   unsigned retries) {
  std::vector<std::optional<SocketAddress>> result;
  for (const ConfPeer& peer : peers) {
    if (!peer.endpoint) {
      result.emplace_back();
      continue;
    }
    auto address = ResolveOne(loop, *peer.endpoint, retries);
    if (!address) return std::unexpected(address.error());
    result.emplace_back(*address);
  }
  return result;
}

}  // namespace adit
