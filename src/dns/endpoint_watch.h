// When to look an endpoint's name up again, and which of its addresses to try: decisions for one peer, over time. Pure.
//
//   the addresses of both families in turn, as reachable as the kernel thinks they are (RFC 8305)
//   no handshake comes: the next address after kAddressPatience, twice as long after each round
//   the last handshake is older than `stale_after`, or the network changed: the name is looked up again, as soon as the
//   last answer's time to live allows a new one
//
// An address that works is never left because a resolver says otherwise.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/address.h"
#include "base/time.h"

namespace adit {

inline constexpr Duration kStaleHandshake = 135s;  // contrib/reresolve-dns of wireguard-tools
inline constexpr Duration kAddressPatience = 2s;   // for an answer, before the next address is tried
inline constexpr Duration kMaxAddressPatience = 16s;
inline constexpr Duration kMinLookupInterval = 5s;     // whatever the time to live says
inline constexpr Duration kMaxLookupInterval = 300s;   // the same, while we try to reach the peer
inline constexpr Duration kIdleLookupInterval = 120s;  // at least, while nothing is to be sent
inline constexpr Duration kMaxIdleLookupInterval = 1h;

// Interleaved, beginning with IPv6 as RFC 6724 does, families without a route last.
std::vector<IpAddress> OrderAddresses(std::span<const IpAddress> v6, std::span<const IpAddress> v4, bool has_v6_route,
                                      bool has_v4_route);

// What the engine knows of the peer.
struct PeerProgress {
  std::optional<Duration> handshake_age;  // empty: there was none
  bool is_trying = false;                 // an initiation is unanswered
};

class EndpointWatch {
 public:
  // `addresses` are those of the lookup before the tunnel came up (not empty); the first is in use.
  EndpointWatch(std::vector<IpAddress> addresses, Duration ttl, Duration stale_after, Instant now);

  struct Step {
    bool look_up = false;          // the answer goes to OnAddresses or OnLookupFailed
    std::optional<IpAddress> use;  // this address from now on
  };
  Step Advance(const PeerProgress& progress, Instant now);
  // Returns the address to use from now on, if it is another one.
  std::optional<IpAddress> OnAddresses(std::vector<IpAddress> addresses, Duration ttl, const PeerProgress& progress,
                                       Instant now);
  void OnLookupFailed(Instant now);
  // Asks again soon, and begins with the first address.
  void OnNetworkChanged(Instant now);

  const IpAddress& current() const { return addresses_[current_]; }
  std::span<const IpAddress> addresses() const { return addresses_; }

 private:
  bool IsFresh(const PeerProgress& progress) const {
    return progress.handshake_age && *progress.handshake_age < stale_after_;
  }

  std::vector<IpAddress> addresses_;
  std::size_t current_ = 0;
  Duration stale_after_;
  Duration ttl_;
  Instant looked_up_at_;
  bool is_looking_up_ = false;
  bool network_changed_ = false;
  unsigned failures_ = 0;                // lookups in a row
  std::optional<Instant> trying_since_;  // at the current address
  Duration patience_ = kAddressPatience;
  std::size_t tried_ = 0;  // addresses since the last handshake
};

}  // namespace adit
