// The virtio-net header that stands in front of every packet on a TUN queue opened with IFF_VNET_HDR, and the unit of
// work of the data path: a super-packet.
#pragma once

#include <cstdint>

namespace adit {

inline constexpr std::uint8_t kVirtioNeedsChecksum = 1;  // VIRTIO_NET_HDR_F_NEEDS_CSUM
inline constexpr std::uint8_t kVirtioDataValid = 2;      // VIRTIO_NET_HDR_F_DATA_VALID

inline constexpr std::uint8_t kVirtioGsoNone = 0;
inline constexpr std::uint8_t kVirtioGsoTcp4 = 1;
inline constexpr std::uint8_t kVirtioGsoTcp6 = 4;
inline constexpr std::uint8_t kVirtioGsoUdpL4 = 5;   // USO: UDP payload cut into gso_size pieces
inline constexpr std::uint8_t kVirtioGsoEcn = 0x80;  // flag beside Tcp4/Tcp6

// struct virtio_net_hdr, in host byte order as Linux has it by default on a TUN.
struct VirtioHeader {
  std::uint8_t flags = 0;
  std::uint8_t gso_type = kVirtioGsoNone;
  std::uint16_t header_bytes = 0;     // hdr_len: a hint, not to be trusted
  std::uint16_t segment_bytes = 0;    // gso_size: payload of each segment
  std::uint16_t checksum_start = 0;   // csum_start, from the start of the packet
  std::uint16_t checksum_offset = 0;  // csum_offset, from checksum_start
};
static_assert(sizeof(VirtioHeader) == 10);

inline constexpr std::size_t kMaxPacketBytes = 65535;  // an IPv4 packet, and what one TUN read can hold

}  // namespace adit
