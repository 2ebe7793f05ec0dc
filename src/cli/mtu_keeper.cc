#include "cli/mtu_keeper.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "engine/clock.h"

namespace adit {

MtuKeeper::MtuKeeper(boost::asio::io_context& io, const Engine& engine, const ConfFile& conf, std::string device,
                     std::function<void()> on_limit)
    : io_(io), engine_(engine), conf_(conf), device_(std::move(device)), on_limit_(std::move(on_limit)), timer_(io) {}

MtuKeeper::~MtuKeeper() = default;

bool MtuKeeper::Follow(std::span<const std::optional<SocketAddress>> endpoints, const Plan& plan) {
  std::vector<PeerPath> paths = PathsOf(conf_, endpoints, plan);
  has_paths_ = !paths.empty();
  const bool has_moved = watch_.Follow(std::move(paths));
  if (search_ && !watch_.IsSearching()) {
    spdlog::debug("the path to {} is another one now; the search for its MTU ends", endpoint_);
    End(MtuVerdict::kUnknown);
  }
  Count();  // from here on the new paths carry it
  return has_moved;
}

void MtuKeeper::Count() {
  for (const PublicKey& peer : watch_.Waiting()) {
    if (const auto reach = engine_.GetReach(peer)) {
      watch_.OnTraffic(peer, reach->tx_bytes, reach->rx_bytes, BootNow());
    }
  }
}

void MtuKeeper::Look() {
  Count();
  if (const auto task = watch_.Take()) Begin(*task);
}

void MtuKeeper::Begin(const MtuWatch::Task& task) {
  endpoint_ = task.path.way.endpoint.ToString();
  destinations_.clear();
  const auto peer = std::ranges::find(conf_.peers, task.path.peer, &ConfPeer::public_key);
  if (peer != conf_.peers.end()) {
    destinations_ = ProbeDestinations(conf_, static_cast<std::size_t>(peer - conf_.peers.begin()));
  }
  if (destinations_.empty()) {
    spdlog::debug("the path to {} cannot be measured: the peer has no address that would answer", endpoint_);
    return End(MtuVerdict::kUnknown);
  }
  std::vector<IpAddress> own;
  for (const InterfaceAddress& address : conf_.interface.addresses) own.push_back(address.ip);
  auto probe = PathProbe::Open(io_, device_, destinations_.front().is_v6(), std::move(own), [this](std::uint16_t id) {
    if (!search_) return;
    search_->OnAnswer(id, BootNow());
    DriveAt(BootNow());  // not from here: the end of the search is the end of the socket that called
  });
  if (!probe) {
    spdlog::warn("whether the path to {} swallows large packets is not known: {}", endpoint_, probe.error().message);
    return End(MtuVerdict::kUnknown);
  }
  probe_ = std::move(*probe);
  search_.emplace(task.path.floor, task.full, destinations_.size());
  Drive();
}

void MtuKeeper::Drive() {
  while (const auto probe = search_->Advance(BootNow())) {
    const int error = probe_->Send(destinations_[probe->destination], probe->id, probe->bytes);
    if (error == 0) continue;
    spdlog::debug("a packet of {} bytes cannot be sent to {}: {}", probe->bytes,
                  destinations_[probe->destination].ToString(), std::strerror(error));
    // Somebody gave the device a smaller MTU; his it stays, and there is nothing to find out. Other errors are silence.
    if (error == EMSGSIZE) return End(MtuVerdict::kUnknown);
  }
  if (search_->verdict() != MtuVerdict::kSearching) return End(search_->verdict());
  DriveAt(search_->next_at());
}

void MtuKeeper::DriveAt(Instant at) {
  timer_.expires_after(std::chrono::ceil<std::chrono::milliseconds>(std::max(at - BootNow(), Duration())));
  timer_.async_wait([this, alive = std::weak_ptr<int>(alive_)](const boost::system::error_code& error) {
    if (!error && !alive.expired() && search_) Drive();
  });
}

void MtuKeeper::End(MtuVerdict verdict) {
  const unsigned result = search_ ? search_->result() : 0;
  if (search_) {
    spdlog::debug("the search for the MTU of the path to {} ends after {} packets: {}", endpoint_,
                  search_->probe_count(),
                  verdict == MtuVerdict::kClear     ? "clear"
                  : verdict == MtuVerdict::kLimited ? fmt::format("{} bytes", result)
                                                    : "unknown");
  }
  timer_.cancel();
  search_.reset();
  probe_.reset();
  const auto before = watch_.Warnings();
  const bool has_moved = watch_.OnVerdict(verdict, result, BootNow());
  for (const std::string& warning : watch_.Warnings()) {
    if (std::ranges::find(before, warning) == before.end()) spdlog::warn("{}", warning);
  }
  if (has_moved) on_limit_();
}

}  // namespace adit
