#include "tun/layout.h"

#include "base/endian.h"

namespace adit {
namespace {

// IPv6 extension headers with the common format: next header, length in 8-byte units without the first (RFC 8200 §4).
constexpr std::uint8_t kHopByHop = 0;
constexpr std::uint8_t kRouting = 43;
constexpr std::uint8_t kFragmentHeader = 44;
constexpr std::uint8_t kDestinationOptions = 60;

std::optional<Layout> ParseIpv4(Bytes packet) {
  if (packet.size() < kIpv4HeaderBytes) return std::nullopt;
  const std::size_t header_bytes = std::size_t{4} * (packet[0] & 0x0f);
  if (header_bytes < kIpv4HeaderBytes || header_bytes > packet.size()) return std::nullopt;
  if (LoadAs<U16Be>(&packet[kIpv4TotalLength]) != packet.size()) return std::nullopt;
  constexpr std::uint16_t kMoreFragmentsAndOffset = 0x3fff;
  return Layout{.is_v6 = false,
                .is_fragment = (LoadAs<U16Be>(&packet[kIpv4Fragment]) & kMoreFragmentsAndOffset) != 0,
                .has_routing_header = false,
                .protocol = packet[kIpv4Protocol],
                .transport_start = header_bytes};
}

std::optional<Layout> ParseIpv6(Bytes packet) {
  if (packet.size() < kIpv6HeaderBytes) return std::nullopt;
  if (kIpv6HeaderBytes + LoadAs<U16Be>(&packet[kIpv6PayloadLength]) != packet.size()) return std::nullopt;
  Layout layout{.is_v6 = true,
                .is_fragment = false,
                .has_routing_header = false,
                .protocol = packet[kIpv6NextHeader],
                .transport_start = kIpv6HeaderBytes};
  while (layout.protocol == kHopByHop || layout.protocol == kRouting || layout.protocol == kDestinationOptions) {
    const Bytes rest = packet.subspan(layout.transport_start);
    if (rest.size() < 8) return std::nullopt;
    const std::size_t bytes = std::size_t{8} * (std::size_t{rest[1]} + 1);
    if (bytes > rest.size()) return std::nullopt;
    layout.has_routing_header |= layout.protocol == kRouting;
    layout.protocol = rest[0];
    layout.transport_start += bytes;
  }
  layout.is_fragment = layout.protocol == kFragmentHeader;
  return layout;
}

}  // namespace

std::optional<Layout> ParseLayout(Bytes packet) {
  if (packet.empty()) return std::nullopt;
  switch (packet[0] >> 4) {
    case 4:
      return ParseIpv4(packet);
    case 6:
      return ParseIpv6(packet);
    default:
      return std::nullopt;
  }
}

std::size_t TcpHeaderBytes(Bytes transport) {
  if (transport.size() < kTcpHeaderBytes) return 0;
  const std::size_t bytes = std::size_t{4} * (transport[kTcpDataOffset] >> 4);
  return bytes < kTcpHeaderBytes || bytes > transport.size() ? 0 : bytes;
}

}  // namespace adit
