// Every number of the protocol in one place, in two halves: what the specification fixes, and what is our own bound.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace adit {

// ---- The specification's constants under its names (paper, 6.1 and 5.4.7), and those of the reference implementation
// that the paper leaves open.

inline constexpr std::uint64_t kRekeyAfterMessages = std::uint64_t{1} << 60;
inline constexpr std::uint64_t kRejectAfterMessages = UINT64_MAX - (std::uint64_t{1} << 13);  // 2^64 - 2^13 - 1
inline constexpr Duration kRekeyAfterTime = 120s;
inline constexpr Duration kRejectAfterTime = 180s;
inline constexpr Duration kRekeyTimeout = 5s;
inline constexpr Duration kRekeyAttemptTime = 90s;
inline constexpr Duration kKeepaliveTimeout = 10s;
// Added, uniformly from zero, to a retransmission and to "no answer to data", so that two peers do not stay in step.
inline constexpr Duration kMaxHandshakeJitter = 333ms;
// When both sides began at once, each answers the other and drops its own handshake, and neither answer finds one. Who
// has the greater public key then waits this much longer, else two peers whose path takes longer than the jitter meet
// again and again. Longer than the jitter and most one-way delays; a retry is late by no more than this.
inline constexpr Duration kCrossedHandshakeDelay = 1s;
// An attempt that has done this many retries does one more and is then given up: 20 initiations in all.
inline constexpr unsigned kMaxHandshakeRetries = kRekeyAttemptTime / kRekeyTimeout;

inline constexpr Duration kCookieSecretMaxAge = 120s;
// Whoever received a cookie stops using it this much earlier: it was under way for a while.
inline constexpr Duration kCookieLatency = 5s;
inline constexpr Duration kCookieMaxUse = kCookieSecretMaxAge - kCookieLatency;

// Two initiations of one peer are accepted no closer than this: 50 per second.
inline constexpr Duration kMinInitiationInterval = 20ms;

inline constexpr std::size_t kPaddingMultiple = 16;
// The largest inner packet that fits a 1500-byte path with an outer IPv6 header: 1500 - 40 - 8 - 32.
inline constexpr std::uint32_t kDefaultMtu = 1420;

// RFC 6479: one 64-bit word of the ring is always the one being filled, so the usable window is a word smaller.
inline constexpr std::size_t kReplayWindowBits = 8192;
inline constexpr std::size_t kReplayWindowUsable = kReplayWindowBits - 64;

// AF41 in the outer header of initiations and responses; cookie replies carry 0.
inline constexpr std::uint8_t kHandshakeTos = 0x88;

// The numbers that a test or a simulation lowers so that a rekey takes seconds. Handed down from the outside through
// constructors; the product uses the defaults.
struct ProtocolLimits {
  std::uint64_t rekey_after_messages = kRekeyAfterMessages;
  std::uint64_t reject_after_messages = kRejectAfterMessages;
  Duration rekey_after_time = kRekeyAfterTime;
  Duration reject_after_time = kRejectAfterTime;
  Duration rekey_timeout = kRekeyTimeout;
  Duration keepalive_timeout = kKeepaliveTimeout;
  Duration handshake_jitter = kMaxHandshakeJitter;
  unsigned max_handshake_retries = kMaxHandshakeRetries;
  Duration min_initiation_interval = kMinInitiationInterval;
  Duration cookie_secret_max_age = kCookieSecretMaxAge;
  Duration cookie_max_use = kCookieMaxUse;
};

// ---- Our own bounds, each with what happens there.

inline constexpr std::size_t kMaxPeers = 65536;  // more are refused by the configuration

// Inner packets that wait for a session, per peer; the oldest goes. And their bytes over all peers; the new one goes.
inline constexpr std::size_t kMaxStagedPackets = 128;
inline constexpr std::size_t kMaxStagedBytes = 16 * 1024 * 1024;

// Handshake messages that wait for the control thread; the new one goes.
inline constexpr std::size_t kHandshakeQueueLength = 4096;
// From this many on we are "under load" (paper, 5.3) and ask for cookies, and go on asking for a while, so that the
// answer does not flicker with the length of the queue.
inline constexpr std::size_t kUnderLoadQueueLength = kHandshakeQueueLength / 8;
inline constexpr Duration kUnderLoadHold = 1s;

// What the control thread does for peers in one turn, before it looks at configuration and handshakes again: about a
// millisecond's worth. The rest waits for the next turn.
inline constexpr std::size_t kPeersPerTurn = 256;
inline constexpr std::size_t kInitiationsPerTurn = 16;

// After a change of the network: how soon after each other peers are told where we are, and how many. Changes come in
// bursts (an address, its network, a default route), and the last one of a burst counts most. A client has a few peers;
// those beyond the bound learn of our address with the next packet to them.
inline constexpr Duration kAnnounceInterval = 250ms;
inline constexpr std::size_t kAnnouncedPeers = 256;

// How long an address of a link that the route to the peer has left is not answered from. A peer who hears us follows
// within a round trip; one who still writes there after two retransmissions of a handshake does not hear us from where
// we send now, and the old address is the better try.
inline constexpr Duration kAbandonFor = 10s;
// Each costs a question to the kernel, some 10 us.
inline constexpr std::size_t kJudgedPeers = 256;

// Handshakes per source while under load: IPv4 address or IPv6 /64.
inline constexpr std::uint32_t kHandshakesPerSecond = 20;
inline constexpr std::uint32_t kHandshakesBurst = 5;
inline constexpr std::size_t kMaxRateLimitedSources = 65536;  // a source beyond is refused
inline constexpr Duration kRateLimiterSweepInterval = 1s;

// ICMP answers into the TUN, all together; beyond, the packet is dropped without an answer. The host's own defaults
// (net.ipv4.icmp_msgs_per_sec, icmp_msgs_burst).
inline constexpr std::uint32_t kIcmpAnswersPerSecond = 1000;
inline constexpr std::uint32_t kIcmpAnswersBurst = 50;

}  // namespace adit
