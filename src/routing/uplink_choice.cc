#include "routing/uplink_choice.h"

#include <algorithm>
#include <utility>

#include "routing/uplink.h"

namespace adit {
namespace {

bool IsLoopback(const IpAddress& ip) {
  static const IpAddress v6_loopback = *IpAddress::Parse("::1");
  return ip.is_v4() ? ip.bytes()[0] == 127 : ip == v6_loopback;
}

}  // namespace

bool UplinkChoice::Decide(const NetSnapshot& network) {
  NetSnapshot decisive;
  decisive.links = network.links;
  decisive.addresses = network.addresses;
  for (const Route& route : network.routes) {
    if (route.table == kMainTable || route.table == kDefaultTable) decisive.routes.push_back(route);
  }
  const std::scoped_lock lock(mutex_);
  network_ = std::move(decisive);
  const bool was_known = state_.exchange(State::kKnown) == State::kKnown;
  bool differs = !was_known;
  for (auto& [to, link] : remembered_) differs |= std::exchange(link, Find(to)) != link;
  return differs;
}

void UplinkChoice::Forget() {
  const std::scoped_lock lock(mutex_);
  if (state_ == State::kKnown) state_ = State::kUnknown;
}

void UplinkChoice::Release() {
  const std::scoped_lock lock(mutex_);
  state_ = State::kReleased;
  network_ = {};
  remembered_.clear();
}

std::optional<std::uint32_t> UplinkChoice::LinkTo(const IpAddress& to) {
  // Everybody who does not bind his sockets comes by here with each datagram, and takes no lock.
  if (state_.load(std::memory_order_relaxed) == State::kReleased) return std::nullopt;
  if (IsLoopback(to) || to.is_v6_link_local() || to.is_multicast()) return std::nullopt;
  const std::scoped_lock lock(mutex_);
  const State state = state_.load(std::memory_order_relaxed);
  if (state == State::kReleased || IsOwn(to)) return std::nullopt;
  if (state == State::kUnknown) return 0;
  if (const auto known = remembered_.find(to); known != remembered_.end()) return known->second;
  if (remembered_.size() >= kMaxRemembered) remembered_.clear();
  return remembered_.emplace(to, Find(to)).first->second;
}

std::uint32_t UplinkChoice::Find(const IpAddress& to) const {
  const auto uplink = FindUplink(network_, to, tunnel_);
  return uplink ? uplink->index : 0;
}

bool UplinkChoice::IsOwn(const IpAddress& to) const {
  return std::ranges::any_of(network_.addresses, [&](const LinkAddress& own) { return own.address.ip == to; });
}

}  // namespace adit
