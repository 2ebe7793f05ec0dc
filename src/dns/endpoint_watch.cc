#include "dns/endpoint_watch.h"

#include <algorithm>

#include "base/check.h"

namespace adit {

std::vector<IpAddress> OrderAddresses(std::span<const IpAddress> v6, std::span<const IpAddress> v4, bool has_v6_route,
                                      bool has_v4_route) {
  std::vector<IpAddress> result;
  if (has_v6_route == has_v4_route) {
    for (std::size_t i = 0; i < std::max(v6.size(), v4.size()); ++i) {
      if (i < v6.size()) result.push_back(v6[i]);
      if (i < v4.size()) result.push_back(v4[i]);
    }
    return result;
  }
  const auto first = has_v6_route ? v6 : v4, second = has_v6_route ? v4 : v6;
  result.assign(first.begin(), first.end());
  result.insert(result.end(), second.begin(), second.end());
  return result;
}

EndpointWatch::EndpointWatch(std::vector<IpAddress> addresses, Duration ttl, Duration stale_after, Instant now)
    : addresses_(std::move(addresses)), stale_after_(stale_after), ttl_(ttl), looked_up_at_(now) {
  CHECK(!addresses_.empty());
}

EndpointWatch::Step EndpointWatch::Advance(const PeerProgress& progress, Instant now) {
  Step step;
  if (!progress.is_trying) {
    trying_since_.reset();
    if (IsFresh(progress)) {
      patience_ = kAddressPatience;
      tried_ = 0;
    }
  } else if (!trying_since_) {
    trying_since_ = now;
  } else if (now - *trying_since_ >= patience_ && addresses_.size() > 1) {
    if (++tried_ % addresses_.size() == 0) patience_ = std::min(2 * patience_, kMaxAddressPatience);
    current_ = (current_ + 1) % addresses_.size();
    trying_since_ = now;
    step.use = current();
  }

  if (is_looking_up_) return step;
  const Duration since = now - looked_up_at_;
  Duration interval;
  if (network_changed_) {
    interval = kMinLookupInterval;
  } else if (IsFresh(progress)) {
    return step;
  } else if (failures_ != 0) {
    interval = std::min(kMinLookupInterval * (1 << std::min(failures_ - 1, 6u)), kMaxLookupInterval);
  } else if (progress.is_trying) {
    interval = std::clamp(ttl_, kMinLookupInterval, kMaxLookupInterval);
  } else {
    interval = std::clamp(ttl_, std::min(kIdleLookupInterval, stale_after_), kMaxIdleLookupInterval);
  }
  if (since < interval) return step;
  step.look_up = true;
  is_looking_up_ = true;
  network_changed_ = false;
  return step;
}

std::optional<IpAddress> EndpointWatch::OnAddresses(std::vector<IpAddress> addresses, Duration ttl,
                                                    const PeerProgress& progress, Instant now) {
  CHECK(!addresses.empty());
  is_looking_up_ = false;
  looked_up_at_ = now;
  failures_ = 0;
  ttl_ = ttl;
  const IpAddress before = current();
  const auto same = std::ranges::find(addresses, before);
  if (same == addresses.end() && IsFresh(progress)) {
    // It works, and is tried before the others when it no longer does.
    addresses.insert(addresses.begin(), before);
    addresses_ = std::move(addresses);
    current_ = 0;
    return std::nullopt;
  }
  current_ = same == addresses.end() ? 0 : static_cast<std::size_t>(same - addresses.begin());
  addresses_ = std::move(addresses);
  if (current() == before) return std::nullopt;
  patience_ = kAddressPatience;
  tried_ = 0;
  trying_since_ = now;
  return current();
}

void EndpointWatch::OnLookupFailed(Instant now) {
  is_looking_up_ = false;
  looked_up_at_ = now;
  ++failures_;
}

void EndpointWatch::OnNetworkChanged(Instant now) {
  network_changed_ = true;
  patience_ = kAddressPatience;
  tried_ = 0;
  if (trying_since_) trying_since_ = now;
}

}  // namespace adit
