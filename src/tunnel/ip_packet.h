// The inner packet, as far as a tunnel must understand it: addresses, length, ECN and padding.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "base/address.h"
#include "base/bytes.h"

namespace adit {

// A view of an IP packet whose header and total length agree with the bytes at hand. Lives as long as they do.
struct IpPacket {
  std::uint8_t version = 0;              // 4 or 6
  std::uint8_t tos = 0;                  // TOS or traffic class: DSCP and, in the low two bits, ECN
  std::size_t header_bytes = 0;          // IPv4 with its options; IPv6 without extension headers
  std::size_t total_bytes = 0;           // header and payload; what lies behind it is padding
  const std::uint8_t* source = nullptr;  // 4 or 16 bytes
  const std::uint8_t* destination = nullptr;

  bool is_v4() const { return version == 4; }
  std::uint8_t ecn() const { return tos & 3; }
  IpAddress source_address() const;
  IpAddress destination_address() const;
};

// Empty unless the version is 4 or 6, the header fits, and the total length is at least the header and at most
// packet.size(). Does not verify checksums.
std::optional<IpPacket> ParseIp(Bytes packet);
// The same for a packet of which `start` is only the beginning, at least its IP header, and `available_bytes` the
// whole.
std::optional<IpPacket> ParseIpHeader(Bytes start, std::size_t available_bytes);

// How many zeros to append before sealing, 0 to 15: up to the next multiple of 16, but not past the MTU (paper, 5.4.6).
// A packet longer than the MTU counts as its last MTU-sized piece; mtu 0 means unknown. A keepalive has none.
std::size_t PaddingBytes(std::size_t packet_bytes, std::size_t mtu);

// The outer TOS of a data message: the inner ECN field, and no DSCP, which would tell the path about the content
// (RFC 6040, 4.1, normal mode).
std::uint8_t OuterTos(std::uint8_t inner_tos);

// What the inner ECN field becomes when the outer one arrived as `outer` (RFC 6040, 4.2). Where the RFC asks for a
// drop (congestion marked on what cannot bear it) the packet stays as it is, as the reference implementation does.
std::uint8_t MergedEcn(std::uint8_t inner, std::uint8_t outer);

// Writes MergedEcn into the header, and the IPv4 header checksum with it. REQUIRES: ParseIp(packet) succeeded.
void MergeEcn(MutableBytes packet, std::uint8_t outer_ecn);

}  // namespace adit
