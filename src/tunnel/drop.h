// Why a packet was dropped: one counter a reason, shown by `adit status`. None of these is ever an assert.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <string_view>

namespace adit {

enum class DropReason : std::uint8_t {
  // outbound
  kMalformedIp,           // from the TUN: no IP packet, or header fields that contradict it
  kTooLong,               // with header and tag no datagram can hold it: the MTU is above kMaxInnerBytes
  kNoPeerForDestination,  // no allowed IP covers the destination
  kNoEndpoint,            // the peer's address is not known yet
  kStagedFull,            // waiting for a handshake, and the queue is full: the oldest goes
  kStagedExpired,         // the handshake was given up
  kNoMemory,              // all peers together hold kMaxStagedBytes
  kLoop,                  // the packet is our own outer packet, routed into the tunnel
  kSendFailed,            // the kernel refused the datagram
  // inbound
  kUnknownMessage,    // no type, or not the type's length
  kUnknownReceiver,   // no session has this index
  kKeyExpired,        // the session is past its age or count
  kBadTag,            // not authentic
  kReplayed,          // seen before, or too old
  kMalformedInner,    // authentic, but no IP packet inside
  kSourceNotAllowed,  // the inner source belongs to another peer or to none
  kTruncated,         // a datagram larger than any message
  kTunWriteFailed,    // the kernel refused the packet
  // handshakes
  kBadMac1,
  kHandshakeQueueFull,
  kRateLimited,       // under load: this source asks too often
  kCookieRequired,    // under load: answered with a cookie
  kHandshakeInvalid,  // wrong key, stale timestamp, unknown peer, no such handshake
  kCount_,
};
inline constexpr std::size_t kDropReasonCount = static_cast<std::size_t>(DropReason::kCount_);

std::string_view Name(DropReason reason);

// Each thread counts into its own and adds it to the shared one once per batch.
using DropCounts = std::array<std::uint64_t, kDropReasonCount>;

class SharedDropCounts {
 public:
  void Add(DropReason reason, std::uint64_t count = 1) {
    counts_[static_cast<std::size_t>(reason)].fetch_add(count, std::memory_order_relaxed);
  }
  std::uint64_t Get(DropReason reason) const {
    return counts_[static_cast<std::size_t>(reason)].load(std::memory_order_relaxed);
  }

 private:
  std::array<std::atomic<std::uint64_t>, kDropReasonCount> counts_{};
};

}  // namespace adit
