// For tests and benchmarks of this folder: builds IP packets field by field, with the plainest checksum there is, and
// cuts super-packets the plainest way there is. The naive twin of split.cc and coalesce.cc; shares no code with them.
#pragma once

#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "tun/virtio.h"

namespace adit::test {

using Packet = std::vector<std::uint8_t>;

struct PacketSpec {
  bool is_v6 = false;
  bool is_tcp = true;
  std::uint8_t flow = 1;  // source port and the last byte of the source address
  std::uint8_t tos = 0;
  std::uint8_t ttl = 64;
  std::uint32_t flow_label = 0;
  std::uint16_t id = 100;
  bool dont_fragment = true;
  bool more_fragments = false;
  std::uint32_t sequence = 1000;
  std::uint32_t acknowledgement = 77;
  std::uint8_t flags = 0x10;
  std::uint8_t reserved = 0;  // low four bits of the data offset byte
  std::uint16_t window = 512;
  std::uint16_t urgent = 0;
  Packet ip_extra{};               // IPv4 options, or IPv6 extension headers (the first names the next by itself)
  std::uint8_t ip_extra_type = 0;  // IPv6: the type of the first extension header
  Packet tcp_options{};            // a multiple of four bytes
  Packet payload{};
  bool zero_udp_checksum = false;
};

inline void Put16(Packet& to, std::size_t at, std::uint32_t value) {
  to[at] = static_cast<std::uint8_t>(value >> 8);
  to[at + 1] = static_cast<std::uint8_t>(value);
}
inline void Put32(Packet& to, std::size_t at, std::uint32_t value) {
  Put16(to, at, value >> 16);
  Put16(to, at + 2, value & 0xffff);
}
inline std::uint32_t Get16(Bytes from, std::size_t at) {
  return static_cast<std::uint32_t>(from[at] << 8 | from[at + 1]);
}
inline std::uint32_t Get32(Bytes from, std::size_t at) { return Get16(from, at) << 16 | Get16(from, at + 2); }

// RFC 1071 as its text has it: one big-endian word after the other, folded at each step.
inline std::uint32_t NaiveSum(Bytes data, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < data.size(); ++i) {
    sum += i % 2 == 0 ? std::uint32_t{data[i]} << 8 : data[i];
    sum = (sum & 0xffff) + (sum >> 16);
  }
  return sum;
}

inline std::size_t TransportStart(const PacketSpec& spec) { return (spec.is_v6 ? 40 : 20) + spec.ip_extra.size(); }

inline std::uint32_t NaivePseudoSum(Bytes packet, bool is_tcp, std::size_t transport_start) {
  const bool is_v6 = packet[0] >> 4 == 6;
  std::uint32_t sum = NaiveSum(is_v6 ? packet.subspan(8, 32) : packet.subspan(12, 8));
  const std::size_t length = packet.size() - transport_start;
  const std::uint8_t tail[4] = {0, static_cast<std::uint8_t>(is_tcp ? 6 : 17), static_cast<std::uint8_t>(length >> 8),
                                static_cast<std::uint8_t>(length)};
  return NaiveSum(tail, sum);
}

// Sets lengths and checksums of a packet whose other fields stand.
inline void Seal(Packet& packet, bool is_tcp, std::size_t transport_start, bool zero_udp_checksum = false) {
  const bool is_v6 = packet[0] >> 4 == 6;
  if (is_v6) {
    Put16(packet, 4, static_cast<std::uint32_t>(packet.size() - 40));
  } else {
    Put16(packet, 2, static_cast<std::uint32_t>(packet.size()));
    Put16(packet, 10, 0);
    const std::size_t header_bytes = std::size_t{4} * (packet[0] & 15);
    Put16(packet, 10, ~NaiveSum(Bytes(packet).first(header_bytes)) & 0xffff);
  }
  const std::size_t field = transport_start + (is_tcp ? 16 : 6);
  if (!is_tcp) Put16(packet, transport_start + 4, static_cast<std::uint32_t>(packet.size() - transport_start));
  Put16(packet, field, 0);
  if (zero_udp_checksum) return;
  const std::uint32_t pseudo = NaivePseudoSum(packet, is_tcp, transport_start);
  std::uint32_t checksum = ~NaiveSum(Bytes(packet).subspan(transport_start), pseudo) & 0xffff;
  if (!is_tcp && checksum == 0) checksum = 0xffff;
  Put16(packet, field, checksum);
}

inline Packet Build(const PacketSpec& spec) {
  Packet packet(TransportStart(spec));
  const auto protocol = static_cast<std::uint8_t>(spec.is_tcp ? 6 : 17);
  if (spec.is_v6) {
    Put32(packet, 0, 0x60000000u | std::uint32_t{spec.tos} << 20 | spec.flow_label);
    packet[6] = spec.ip_extra.empty() ? protocol : spec.ip_extra_type;
    packet[7] = spec.ttl;
    packet[8] = 0xfd;
    packet[23] = spec.flow;
    packet[24] = 0xfd;
    packet[39] = 2;
    std::copy(spec.ip_extra.begin(), spec.ip_extra.end(), packet.begin() + 40);
  } else {
    packet[0] = static_cast<std::uint8_t>(0x45 + spec.ip_extra.size() / 4);
    packet[1] = spec.tos;
    Put16(packet, 4, spec.id);
    packet[6] = static_cast<std::uint8_t>((spec.dont_fragment ? 0x40 : 0) | (spec.more_fragments ? 0x20 : 0));
    packet[8] = spec.ttl;
    packet[9] = protocol;
    packet[12] = 10;
    packet[15] = spec.flow;
    packet[16] = 10;
    packet[19] = 2;
    std::copy(spec.ip_extra.begin(), spec.ip_extra.end(), packet.begin() + 20);
  }
  const std::size_t at = packet.size();
  packet.resize(at + (spec.is_tcp ? 20 : 8));
  Put16(packet, at, 40000u + spec.flow);
  Put16(packet, at + 2, 443);
  if (spec.is_tcp) {
    Put32(packet, at + 4, spec.sequence);
    Put32(packet, at + 8, spec.acknowledgement);
    packet[at + 12] = static_cast<std::uint8_t>((5 + spec.tcp_options.size() / 4) << 4 | spec.reserved);
    packet[at + 13] = spec.flags;
    Put16(packet, at + 14, spec.window);
    Put16(packet, at + 18, spec.urgent);
    packet.insert(packet.end(), spec.tcp_options.begin(), spec.tcp_options.end());
  }
  packet.insert(packet.end(), spec.payload.begin(), spec.payload.end());
  Seal(packet, spec.is_tcp, at, spec.zero_udp_checksum);
  return packet;
}

inline Packet RandomPayload(Random& random, std::size_t bytes) {
  Packet payload(bytes);
  random.Fill(payload);
  return payload;
}

struct SuperPacket {
  VirtioHeader header;
  Packet packet;
};

// What the kernel hands over for `spec` with a segment size: whole length, pseudo-header's sum in the checksum field.
inline SuperPacket BuildSuper(const PacketSpec& spec, std::uint16_t segment_bytes) {
  SuperPacket super;
  super.packet = Build(spec);
  const std::size_t start = TransportStart(spec);
  const std::size_t offset = spec.is_tcp ? 16 : 6;
  Put16(super.packet, start + offset, NaivePseudoSum(super.packet, spec.is_tcp, start));
  super.header.flags = kVirtioNeedsChecksum;
  super.header.gso_type = spec.is_tcp ? (spec.is_v6 ? kVirtioGsoTcp6 : kVirtioGsoTcp4) : kVirtioGsoUdpL4;
  super.header.segment_bytes = segment_bytes;
  super.header.checksum_start = static_cast<std::uint16_t>(start);
  super.header.checksum_offset = static_cast<std::uint16_t>(offset);
  super.header.header_bytes = static_cast<std::uint16_t>(super.packet.size() - spec.payload.size());
  return super;
}

// The naive splitter: one packet after the other from its own fields.
inline std::vector<Packet> NaiveSplit(const PacketSpec& spec, std::size_t segment_bytes) {
  std::vector<Packet> packets;
  std::size_t at = 0;
  do {
    const std::size_t bytes = std::min(segment_bytes, spec.payload.size() - at);
    const bool is_last = at + bytes == spec.payload.size();
    PacketSpec one = spec;
    one.payload.assign(spec.payload.begin() + static_cast<std::ptrdiff_t>(at),
                       spec.payload.begin() + static_cast<std::ptrdiff_t>(at + bytes));
    one.sequence = static_cast<std::uint32_t>(spec.sequence + at);
    one.id = static_cast<std::uint16_t>(spec.id + packets.size());
    if (!is_last) one.flags = static_cast<std::uint8_t>(one.flags & ~0x09);  // PSH, FIN
    if (at != 0) one.flags = static_cast<std::uint8_t>(one.flags & ~0x80);   // CWR
    packets.push_back(Build(one));
    at += bytes;
  } while (at < spec.payload.size());
  return packets;
}

}  // namespace adit::test
