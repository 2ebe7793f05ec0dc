// Where the headers of an IP packet stand. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/bytes.h"

namespace adit {

inline constexpr std::uint8_t kProtocolTcp = 6;
inline constexpr std::uint8_t kProtocolUdp = 17;

inline constexpr std::size_t kIpv4HeaderBytes = 20;  // without options
inline constexpr std::size_t kIpv6HeaderBytes = 40;  // without extension headers
inline constexpr std::size_t kTcpHeaderBytes = 20;   // without options
inline constexpr std::size_t kUdpHeaderBytes = 8;

// Byte offsets inside the headers (RFC 791, RFC 8200, RFC 9293, RFC 768).
inline constexpr std::size_t kIpv4TotalLength = 2;
inline constexpr std::size_t kIpv4Id = 4;
inline constexpr std::size_t kIpv4Fragment = 6;
inline constexpr std::size_t kIpv4Ttl = 8;
inline constexpr std::size_t kIpv4Protocol = 9;
inline constexpr std::size_t kIpv4Checksum = 10;
inline constexpr std::size_t kIpv4Addresses = 12;
inline constexpr std::size_t kIpv6PayloadLength = 4;
inline constexpr std::size_t kIpv6NextHeader = 6;
inline constexpr std::size_t kIpv6HopLimit = 7;
inline constexpr std::size_t kIpv6Addresses = 8;
inline constexpr std::size_t kTcpSequence = 4;
inline constexpr std::size_t kTcpAcknowledgement = 8;
inline constexpr std::size_t kTcpDataOffset = 12;
inline constexpr std::size_t kTcpFlags = 13;
inline constexpr std::size_t kTcpWindow = 14;
inline constexpr std::size_t kTcpChecksum = 16;
inline constexpr std::size_t kTcpUrgent = 18;
inline constexpr std::size_t kUdpLength = 4;
inline constexpr std::size_t kUdpChecksum = 6;

inline constexpr std::uint8_t kTcpFin = 0x01;
inline constexpr std::uint8_t kTcpPush = 0x08;
inline constexpr std::uint8_t kTcpAck = 0x10;
inline constexpr std::uint8_t kTcpEce = 0x40;
inline constexpr std::uint8_t kTcpCwr = 0x80;

struct Layout {
  bool is_v6 = false;
  bool is_fragment = false;         // of either family; an atomic IPv6 fragment counts
  bool has_routing_header = false;  // IPv6: the pseudo-header may use another destination than the fixed header's
  std::uint8_t protocol = 0;        // what stands at transport_start
  std::size_t transport_start = 0;  // behind IPv4 options, or behind IPv6 hop-by-hop, routing and destination options
};

// Empty if the version is neither 4 nor 6, if a header does not fit, or if the length field is not `packet.size()`.
std::optional<Layout> ParseLayout(Bytes packet);

// Bytes of the TCP header at `transport`, options included; 0 if it does not fit.
std::size_t TcpHeaderBytes(Bytes transport);

}  // namespace adit
