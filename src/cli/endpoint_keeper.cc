#include "cli/endpoint_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstdlib>

#include "config/text.h"
#include "engine/clock.h"

namespace adit {

Result<Duration> StaleHandshakeFromEnvironment() {
  const char* const text = std::getenv("ADIT_STALE_HANDSHAKE");
  if (text == nullptr || *text == '\0') return kStaleHandshake;
  const auto seconds = ParseDecimal<unsigned>(text);
  if (!seconds || *seconds == 0 || *seconds > 86400) {
    return Fail("ADIT_STALE_HANDSHAKE={} is not a number of seconds from 1 to 86400", text);
  }
  return std::chrono::seconds(*seconds);
}

EndpointKeeper::EndpointKeeper(boost::asio::io_context& io, Engine& engine, EndpointNames names, Duration stale_after,
                               OnChanged on_changed)
    : io_(io),
      engine_(engine),
      names_(std::move(names)),
      stale_after_(stale_after),
      on_changed_(std::move(on_changed)),
      timer_(io) {
  const auto warn = [](const Error& error) {
    spdlog::warn("{}; names of endpoints are not looked up again when the network changes", error.message);
  };
  auto network = NetworkWatch::Open();
  if (!network) {
    warn(network.error());
    return;
  }
  network_ = std::move(*network);
  auto watch = FdWatch::Open(io_, network_->fd(), [this] {
    if (network_->Process().places) OnNetworkChanged();
  });
  if (!watch) {
    warn(watch.error());
    return;
  }
  network_watch_ = std::move(*watch);
}

EndpointKeeper::~EndpointKeeper() = default;

void EndpointKeeper::Watch(const std::vector<ConfPeer>& peers, const std::vector<EndpointAddresses>& found) {
  watched_.clear();
  for (std::size_t i = 0; i < peers.size() && i < found.size(); ++i) {
    if (!peers[i].endpoint || !found[i].is_name || found[i].addresses.empty()) continue;
    watched_.push_back(
        std::make_unique<Watched>(Watched{peers[i].public_key,
                                          peers[i].endpoint->host,
                                          peers[i].endpoint->port,
                                          EndpointWatch(found[i].addresses, found[i].ttl, stale_after_, BootNow()),
                                          {}}));
  }
  timer_.cancel();
  if (!watched_.empty()) Poll();
}

void EndpointKeeper::OnNetworkChanged() {
  for (const auto& watched : watched_) watched->watch.OnNetworkChanged(BootNow());
}

PeerProgress EndpointKeeper::ProgressOf(const PublicKey& key) const {
  PeerProgress progress;
  const auto reach = engine_.GetReach(key);
  if (!reach) return progress;
  progress.is_trying = reach->is_trying;
  if (reach->last_handshake) {
    // Wall time is all that is kept of it; a clock that was set back makes it young, and one look later it is not.
    const std::int64_t seconds = WallNow().seconds - reach->last_handshake->seconds;
    progress.handshake_age = std::chrono::seconds(std::max<std::int64_t>(0, seconds));
  }
  return progress;
}

void EndpointKeeper::Poll() {
  const Instant now = BootNow();
  for (const auto& watched : watched_) {
    const IpAddress before = watched->watch.current();
    const EndpointWatch::Step step = watched->watch.Advance(ProgressOf(watched->key), now);
    if (step.use) Use(*watched, before, *step.use);
    if (step.look_up) LookUp(*watched);
  }
  timer_.expires_after(kEndpointPoll);
  timer_.async_wait([this, alive = std::weak_ptr<int>(alive_)](const boost::system::error_code& error) {
    if (!error && !alive.expired()) Poll();
  });
}

void EndpointKeeper::LookUp(Watched& watched) {
  ++lookup_count_;
  auto lookup = NameLookup::Start(io_, names_.Settings(), watched.host,
                                  [this, &watched](const LookupResult& found) { OnFound(watched, found); });
  if (lookup) {
    watched.lookup = std::move(*lookup);
  } else {
    spdlog::warn("cannot look up {}: {}", watched.host, lookup.error().message);
    watched.watch.OnLookupFailed(BootNow());
  }
}

void EndpointKeeper::OnFound(Watched& watched, const LookupResult& found) {
  const IpAddress before = watched.watch.current();
  const auto addresses = OrderByRoute(found, names_);
  if (addresses.empty()) {
    spdlog::debug("cannot look up {}: {}", watched.host, found.error);
    watched.watch.OnLookupFailed(BootNow());
    return;
  }
  const auto use = watched.watch.OnAddresses(addresses, found.ttl, ProgressOf(watched.key), BootNow());
  if (use) Use(watched, before, *use);
}

void EndpointKeeper::Use(Watched& watched, const IpAddress& before, const IpAddress& now) {
  ++change_count_;
  const SocketAddress address{now, watched.port};
  spdlog::info("{} is tried at {}, no longer at {}", watched.host, now.ToString(), before.ToString());
  // First the way, then the packets.
  on_changed_(watched.key, SocketAddress{before, watched.port}, address);
  engine_.Redirect(watched.key, address);
}

}  // namespace adit
