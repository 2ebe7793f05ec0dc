// Endpoints' names: whom to ask for them, and a lookup on the loop.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "dns/resolv_conf.h"
#include "dns/resolver.h"
#include "routing/uplink_choice.h"

namespace adit {

// The machine's own name servers, asked by the way that the engine's packets go: never the tunnel's.
struct EndpointNames {
  std::uint32_t fwmark = 0;
  std::shared_ptr<UplinkChoice> uplinks;  // may be null; bound as they are
  std::vector<IpAddress> tunnel_servers;
  ResolvConf before;  // resolv.conf when the tunnel was not there: for machines where nobody says it later

  // As the machine is now, which may have changed its network since.
  ResolverSettings Settings() const;
};
// REQUIRES: the tunnel's servers are not in force.
EndpointNames NamesBeforeTunnel(std::uint32_t fwmark, std::vector<IpAddress> tunnel_servers);

// One lookup. Control thread only; forgotten when it is destroyed.
class NameLookup {
 public:
  // `done` is called once, from the loop, and may destroy this.
  static Result<std::unique_ptr<NameLookup>> Start(boost::asio::io_context& io, const ResolverSettings& settings,
                                                   const std::string& name,
                                                   std::function<void(const LookupResult&)> done);
  ~NameLookup();

 private:
  class Impl;
  explicit NameLookup(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// The addresses of an answer in the order to try them.
std::vector<IpAddress> OrderByRoute(const LookupResult& found, const EndpointNames& names);

}  // namespace adit
