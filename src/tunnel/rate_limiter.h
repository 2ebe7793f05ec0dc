// How often one source may make us compute a handshake while we are under load (paper, 5.3): a token bucket for each
// IPv4 address and each IPv6 /64, because a /64 is what one host is given.
//
// Asked only for sources that have proved their address with a cookie, so an entry cannot be made by forging one.
// Control thread only.
#pragma once

#include <compare>
#include <cstdint>
#include <map>

#include "base/address.h"
#include "base/time.h"
#include "tunnel/limits.h"

namespace adit {

class RateLimiter {
 public:
  // Takes one token of the source's bucket. False if there is none, or if the source is new and the table is full.
  bool Allow(const IpAddress& source, Instant now);

  // Forgets the sources that were quiet for a second, whose buckets are full again; does so at most once a second, so
  // it may be called on every wake-up. Allow() does it too; what remains for others is to give the memory back when
  // no handshakes come in any more.
  void Sweep(Instant now);

  std::size_t size() const { return buckets_.size(); }

 private:
  struct Source {
    bool is_v6 = false;
    std::uint64_t prefix = 0;
    friend auto operator<=>(const Source&, const Source&) = default;
  };
  // Tokens are time: one handshake costs a twentieth of a second.
  struct Bucket {
    Duration tokens{};
    Instant last_asked_at;
  };

  // An ordered map, not a hash table: whoever owns many addresses could aim them all at one slot.
  std::map<Source, Bucket> buckets_;  // at most kMaxRateLimitedSources
  Instant last_sweep_at_;
};

}  // namespace adit
