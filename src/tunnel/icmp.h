// "Host unreachable" for a packet that no peer can take and "too big" for one that no datagram can hold, so that a
// program learns at once what would else be a timeout (RFC 792, RFC 1122 3.2.2, RFC 1191, RFC 1812 4.3.2, RFC 4443).
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/time.h"
#include "tunnel/limits.h"

namespace adit {

// The ICMP 3/1 or ICMPv6 1/3 packet that answers `packet`, to be written into the TUN; it goes to the packet's source.
// Its own source is `source`, an address of the TUN, or, without one of the same family, the address that could not
// be reached: that is the one address of which we know that the host routes it through this TUN, so its reverse path
// filter lets the answer in.
//
// Empty where an answer is forbidden: to ICMP errors, to fragments but the first, to what went to a multicast or
// broadcast address or claims to come from one or from nowhere, and to what is no IP packet.
std::optional<std::vector<std::uint8_t>> BuildUnreachable(Bytes packet, const std::optional<IpAddress>& source);

// ICMP 3/4 or ICMPv6 2/0 under the same rules: packets to there may have `mtu` bytes.
std::optional<std::vector<std::uint8_t>> BuildTooBig(Bytes packet, std::uint16_t mtu,
                                                     const std::optional<IpAddress>& source);

// How many of them a device sends: a token bucket of kIcmpAnswersPerSecond with kIcmpAnswersBurst. Any thread.
class IcmpLimiter {
 public:
  bool Allow(Instant now);

 private:
  std::mutex mutex_;
  Duration tokens_ = kFull;  // this and the next: guarded by mutex_
  Instant last_asked_at_;
  static constexpr Duration kCost = Duration(1s) / kIcmpAnswersPerSecond;
  static constexpr Duration kFull = kCost * kIcmpAnswersBurst;
};

}  // namespace adit
