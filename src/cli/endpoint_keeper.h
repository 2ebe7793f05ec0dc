// Keeps each peer whose endpoint is a name where that name leads, while the tunnel is up: asks again when the peer does
// not answer or the network changed, and tries its addresses in turn (endpoint_watch.h decides).
//
// Control thread only; a look at each such peer every kEndpointPoll.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/name_lookup.h"
#include "cli/resolve.h"
#include "config/conf_file.h"
#include "dns/endpoint_watch.h"
#include "engine/engine.h"
#include "engine/fd_watch.h"
#include "engine/link_watch.h"

namespace adit {

inline constexpr Duration kEndpointPoll = 500ms;

// ADIT_STALE_HANDSHAKE: seconds after which a handshake is too old to trust the endpoint's address; default 135.
Result<Duration> StaleHandshakeFromEnvironment();

class EndpointKeeper {
 public:
  // An endpoint of a name is another address from now on. The engine knows; routes and firewall have to follow.
  using OnChanged = std::function<void(const PublicKey& peer, const SocketAddress& before, const SocketAddress& now)>;

  // `engine` and the loop outlive it.
  EndpointKeeper(boost::asio::io_context& io, Engine& engine, EndpointNames names, Duration stale_after,
                 OnChanged on_changed);
  ~EndpointKeeper();
  EndpointKeeper(const EndpointKeeper&) = delete;
  EndpointKeeper& operator=(const EndpointKeeper&) = delete;

  // Replaces those it looks after: the peers whose endpoint is a name that was resolved. One element of `found` per
  // peer.
  void Watch(const std::vector<ConfPeer>& peers, const std::vector<EndpointAddresses>& found);
  // The tunnel carries another mark now.
  void SetMark(std::uint32_t fwmark) { names_.fwmark = fwmark; }
  std::uint64_t lookup_count() const { return lookup_count_; }
  std::uint64_t change_count() const { return change_count_; }

 private:
  struct Watched {
    PublicKey key;
    std::string host;
    std::uint16_t port = 0;
    EndpointWatch watch;
    std::unique_ptr<NameLookup> lookup;
  };
  void OnNetworkChanged();
  void Poll();
  void LookUp(Watched& watched);
  void OnFound(Watched& watched, const LookupResult& found);
  void Use(Watched& watched, const IpAddress& before, const IpAddress& now);
  PeerProgress ProgressOf(const PublicKey& key) const;

  boost::asio::io_context& io_;
  Engine& engine_;
  EndpointNames names_;
  const Duration stale_after_;
  const OnChanged on_changed_;
  std::vector<std::unique_ptr<Watched>> watched_;
  boost::asio::steady_timer timer_;
  std::unique_ptr<NetworkWatch> network_;
  std::unique_ptr<FdWatch> network_watch_;
  std::uint64_t lookup_count_ = 0;
  std::uint64_t change_count_ = 0;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace adit
