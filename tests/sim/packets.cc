#include "packets.h"

#include <algorithm>

#include "base/check.h"
#include "base/endian.h"
#include "simulator.h"
#include "tunnel/ip_packet.h"

namespace adit::sim {
namespace {

struct Ipv4Header {
  std::uint8_t version_and_words = 0x45;
  std::uint8_t tos = 0;
  U16Be total_bytes;
  U16Be id;
  U16Be fragment;
  std::uint8_t ttl = 64;
  std::uint8_t protocol = 17;
  U16Be checksum;
  ByteArray<4> source{};
  ByteArray<4> destination{};
};

struct Ipv6Header {
  U32Be version_class_flow;
  U16Be payload_bytes;
  std::uint8_t next_header = 17;
  std::uint8_t hop_limit = 64;
  ByteArray<16> source{};
  ByteArray<16> destination{};
};

// RFC 1071, the plain way.
std::uint16_t HeaderChecksum(const Ipv4Header& header) {
  ByteArray<sizeof(Ipv4Header)> bytes;
  Store(bytes.data(), header);
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < bytes.size(); i += 2) sum += static_cast<std::uint32_t>(bytes[i] << 8 | bytes[i + 1]);
  while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

std::vector<std::uint8_t> Render(std::uint64_t id, const PacketRecord& record, std::uint8_t tos) {
  std::vector<std::uint8_t> packet(record.bytes);
  std::size_t at = 0;
  if (record.source.is_v4()) {
    Ipv4Header header;
    header.tos = tos;
    header.total_bytes = static_cast<std::uint16_t>(record.bytes);
    std::ranges::copy(record.source.bytes(), header.source.begin());
    std::ranges::copy(record.destination.bytes(), header.destination.begin());
    header.checksum = HeaderChecksum(header);
    Store(packet.data(), header);
    at = sizeof header;
  } else {
    Ipv6Header header;
    header.version_class_flow = std::uint32_t{6} << 28 | std::uint32_t{tos} << 20;
    header.payload_bytes = static_cast<std::uint16_t>(record.bytes - sizeof header);
    std::ranges::copy(record.source.bytes(), header.source.begin());
    std::ranges::copy(record.destination.bytes(), header.destination.begin());
    Store(packet.data(), header);
    at = sizeof header;
  }
  Store(packet.data() + at, U64Be(id));
  Rng content(id);
  std::uint64_t word = 0;
  for (at += 8; at < packet.size(); ++at) {
    if (at % 8 == 0 || word == 0) word = content.Next();
    packet[at] = static_cast<std::uint8_t>(word);
    word >>= 8;
  }
  return packet;
}

}  // namespace

IpAddress InnerAddress(HostId host, bool is_v6) {
  const auto low = static_cast<std::uint8_t>(host + 1);
  if (!is_v6) return IpAddress::V4(ByteArray<4>{10, 0, 0, low});
  return IpAddress::V6(ByteArray<16>{0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low});
}

std::vector<std::uint8_t> PacketLedger::Create(const PacketRecord& record) {
  CHECK(record.bytes >= kMinBytes);
  records_.push_back(record);
  return Render(records_.size() - 1, record, record.tos);
}

const PacketRecord& PacketLedger::OnDelivered(HostId host, Bytes packet, bool is_congested, Instant now) {
  const auto ip = ParseIp(packet);
  if (!ip || ip->total_bytes != packet.size() || packet.size() < ip->header_bytes + 8) {
    Violate(Check::kUnaltered, host, "delivered {} bytes that are no packet of ours", packet.size());
  }
  const std::uint64_t id = LoadAs<U64Be>(packet.data() + ip->header_bytes);
  if (id >= records_.size()) Violate(Check::kUnaltered, host, "delivered a packet that nobody sent, id {}", id);
  PacketRecord& record = records_[id];
  // Congestion is the one thing a tunnel may write into a packet (RFC 6040).
  const bool is_ect = (record.tos & 3) != 0;
  const std::uint8_t tos = is_congested && is_ect ? record.tos | 3 : record.tos;
  if (!std::ranges::equal(Render(id, record, tos), packet)) {
    Violate(Check::kUnaltered, host, "packet {} came out different ({} bytes, {} sent)", id, packet.size(),
            record.bytes);
  }
  if (record.to != host) Violate(Check::kRightHost, host, "packet {} was for host {}", id, record.to);
  if (!record.may_arrive) {
    Violate(Check::kSourceAllowed, host, "packet {} from host {} with source {}", id, record.from,
            record.source.ToString());
  }
  if (record.delivered_at) Violate(Check::kDeliveredOnce, host, "packet {} delivered again", id);
  record.delivered_at = now;
  ++delivered_;
  return record;
}

}  // namespace adit::sim
