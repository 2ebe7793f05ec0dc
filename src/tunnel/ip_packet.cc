#include "tunnel/ip_packet.h"

#include <algorithm>
#include <array>

#include "base/endian.h"
#include "tunnel/limits.h"

namespace adit {
namespace {

struct Ipv4Header {
  std::uint8_t version_and_words;
  std::uint8_t tos;
  U16Be total_bytes;
  U16Be id;
  U16Be fragment;
  std::uint8_t ttl;
  std::uint8_t protocol;
  U16Be checksum;
  ByteArray<4> source;
  ByteArray<4> destination;
};
static_assert(sizeof(Ipv4Header) == 20);

struct Ipv6Header {
  U32Be version_class_flow;
  U16Be payload_bytes;
  std::uint8_t next_header;
  std::uint8_t hop_limit;
  ByteArray<16> source;
  ByteArray<16> destination;
};
static_assert(sizeof(Ipv6Header) == 40);

enum : std::uint8_t { kNotEct = 0, kEct1 = 1, kEct0 = 2, kCe = 3 };
constexpr std::uint8_t kEcnMask = 3;

IpAddress AddressAt(const std::uint8_t* at, bool is_v4) {
  return is_v4 ? IpAddress::V4(Bytes(at, 4)) : IpAddress::V6(Bytes(at, 16));
}

}  // namespace

IpAddress IpPacket::source_address() const { return AddressAt(source, is_v4()); }
IpAddress IpPacket::destination_address() const { return AddressAt(destination, is_v4()); }

std::optional<IpPacket> ParseIp(Bytes packet) { return ParseIpHeader(packet, packet.size()); }

std::optional<IpPacket> ParseIpHeader(Bytes packet, std::size_t available_bytes) {
  if (packet.empty()) return std::nullopt;
  IpPacket ip;
  ip.version = packet[0] >> 4;
  if (ip.version == 4 && packet.size() >= sizeof(Ipv4Header)) {
    const auto header = LoadAs<Ipv4Header>(packet.data());
    ip.tos = header.tos;
    ip.header_bytes = std::size_t{4} * (header.version_and_words & 0x0f);
    ip.total_bytes = header.total_bytes;
    ip.source = packet.data() + offsetof(Ipv4Header, source);
    ip.destination = packet.data() + offsetof(Ipv4Header, destination);
    if (ip.header_bytes < sizeof(Ipv4Header)) return std::nullopt;
  } else if (ip.version == 6 && packet.size() >= sizeof(Ipv6Header)) {
    const auto header = LoadAs<Ipv6Header>(packet.data());
    ip.tos = static_cast<std::uint8_t>(header.version_class_flow >> 20);
    ip.header_bytes = sizeof(Ipv6Header);
    ip.total_bytes = sizeof(Ipv6Header) + std::size_t{header.payload_bytes};  // up to 65,575: no 16-bit sum
    ip.source = packet.data() + offsetof(Ipv6Header, source);
    ip.destination = packet.data() + offsetof(Ipv6Header, destination);
  } else {
    return std::nullopt;
  }
  if (ip.total_bytes < ip.header_bytes || ip.total_bytes > available_bytes) return std::nullopt;
  return ip;
}

std::size_t PaddingBytes(std::size_t packet_bytes, std::size_t mtu) {
  const auto round_up = [](std::size_t n) { return (n + kPaddingMultiple - 1) / kPaddingMultiple * kPaddingMultiple; };
  if (mtu == 0) return round_up(packet_bytes) - packet_bytes;
  const std::size_t last_piece = packet_bytes > mtu ? packet_bytes % mtu : packet_bytes;
  return std::min(mtu, round_up(last_piece)) - last_piece;
}

std::uint8_t OuterTos(std::uint8_t inner_tos) { return inner_tos & kEcnMask; }

std::uint8_t MergedEcn(std::uint8_t inner, std::uint8_t outer) {
  // RFC 6040, figure 4: [inner][outer].
  static constexpr std::uint8_t kMerged[4][4] = {
      // outer: not-ECT, ECT(1), ECT(0), CE
      {kNotEct, kNotEct, kNotEct, kNotEct},  // inner not-ECT; the RFC drops at CE
      {kEct1, kEct1, kEct1, kCe},            // inner ECT(1)
      {kEct0, kEct1, kEct0, kCe},            // inner ECT(0)
      {kCe, kCe, kCe, kCe},                  // inner CE
  };
  return kMerged[inner & kEcnMask][outer & kEcnMask];
}

void MergeEcn(MutableBytes packet, std::uint8_t outer_ecn) {
  const bool is_v4 = packet[0] >> 4 == 4;
  // The ECN field: the low bits of IPv4's second byte, bits 5 and 4 of IPv6's.
  const unsigned shift = is_v4 ? 0 : 4;
  const std::uint8_t inner = static_cast<std::uint8_t>(packet[1] >> shift & kEcnMask);
  const std::uint8_t merged = MergedEcn(inner, outer_ecn);
  if (merged == inner) return;

  const auto before = std::uint16_t{LoadAs<U16Be>(packet.data())};
  packet[1] = static_cast<std::uint8_t>((packet[1] & ~(kEcnMask << shift)) | merged << shift);
  if (!is_v4) return;
  const auto after = std::uint16_t{LoadAs<U16Be>(packet.data())};
  // RFC 1624, equation 3: HC' = ~(~HC + ~m + m').
  std::uint8_t* const checksum = packet.data() + offsetof(Ipv4Header, checksum);
  std::uint32_t sum = (std::uint32_t{LoadAs<U16Be>(checksum)} ^ 0xffff) + (std::uint32_t{before} ^ 0xffff) + after;
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  Store(checksum, U16Be(static_cast<std::uint16_t>(~sum)));
}

}  // namespace adit
