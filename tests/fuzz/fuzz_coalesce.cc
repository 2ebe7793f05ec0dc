// A batch of inner packets as they leave decryption. First byte: bit 0 forbids merging TCP, bit 1 merging UDP. Then per
// packet: a flag byte (bit 0: repair the IPv4 and transport checksums; bit 1: a copy of the packet before, with its TCP
// sequence number moved on by its payload and its IPv4 id by one), two bytes of length, and the packet.
//
// Holds: cutting what was merged gives back the packets of every flow, in their order and byte for byte, but for the
// IPv4 id, which a super-packet cannot keep.
#include <map>
#include <vector>

#include "fuzz/input.h"
#include "fuzz/packet.h"
#include "tun/coalesce.h"
#include "tun/split.h"

namespace adit {
namespace {

using Packet = std::vector<std::uint8_t>;

constexpr std::size_t kMaxBatchPackets = 256;

// Makes version and length field what Coalescer::Add requires. False if there is no way.
bool MakeWhole(Packet& packet) {
  if (packet.empty()) return false;
  const unsigned version = packet[0] >> 4;
  if (version == 4 && packet.size() >= kIpv4HeaderBytes) {
    if (static_cast<std::size_t>(packet[0] & 15) * 4 > packet.size() || (packet[0] & 15) < 5) return false;
    PutU16(packet, kIpv4TotalLength, packet.size());
    return true;
  }
  if (version == 6 && packet.size() >= kIpv6HeaderBytes) {
    PutU16(packet, kIpv6PayloadLength, packet.size() - kIpv6HeaderBytes);
    return true;
  }
  return false;
}

void RepairChecksums(Packet& packet) {
  const auto layout = ParseLayout(packet);
  if (!layout) return;
  if (!layout->is_v6) {
    PutU16(packet, kIpv4Checksum, 0);
    PutU16(packet, kIpv4Checksum, ~SlowSum(Bytes(packet).first(layout->transport_start)));
  }
  const std::size_t at = layout->transport_start + (layout->protocol == kProtocolTcp ? kTcpChecksum : kUdpChecksum);
  if ((layout->protocol != kProtocolTcp && layout->protocol != kProtocolUdp) || at + 2 > packet.size()) return;
  if (layout->protocol == kProtocolUdp) {
    PutU16(packet, layout->transport_start + kUdpLength, packet.size() - layout->transport_start);
  }
  PutU16(packet, at, 0);
  std::uint32_t checksum = ~SlowTransportSum(packet, *layout) & 0xffff;
  if (checksum == 0 && layout->protocol == kProtocolUdp) checksum = 0xffff;
  PutU16(packet, at, checksum);
}

void MoveOn(Packet& packet) {
  const auto layout = ParseLayout(packet);
  if (!layout) return;
  if (!layout->is_v6) PutU16(packet, kIpv4Id, U16At(packet, kIpv4Id) + 1);
  if (layout->protocol != kProtocolTcp) return;
  const std::size_t head = TcpHeaderBytes(Bytes(packet).subspan(layout->transport_start));
  if (head == 0) return;
  const std::size_t at = layout->transport_start + kTcpSequence;
  const std::size_t payload = packet.size() - layout->transport_start - head;
  const std::uint32_t sequence = LoadAs<U32Be>(&packet[at]);
  Store(&packet[at], U32Be(static_cast<std::uint32_t>(sequence + payload)));
}

// What must keep its order: addresses, protocol and ports, where they can be told.
Packet FlowOf(const Packet& packet) {
  const auto layout = ParseLayout(packet);
  if (!layout || layout->is_fragment || layout->transport_start + 4 > packet.size()) return {};
  const Bytes addresses =
      layout->is_v6 ? Bytes(packet).subspan(kIpv6Addresses, 32) : Bytes(packet).subspan(kIpv4Addresses, 8);
  Packet flow(addresses.begin(), addresses.end());
  flow.push_back(layout->protocol);
  const bool has_ports = layout->protocol == kProtocolTcp || layout->protocol == kProtocolUdp;
  if (has_ports) flow.insert(flow.end(), &packet[layout->transport_start], &packet[layout->transport_start] + 4);
  return flow;
}

Packet WithoutId(Packet packet) {
  if (packet[0] >> 4 == 4) {
    PutU16(packet, kIpv4Id, 0);
    PutU16(packet, kIpv4Checksum, 0);
  }
  return packet;
}

std::vector<Packet> TakeBatch(FuzzInput& input) {
  std::vector<Packet> batch;
  while (!input.empty() && batch.size() < kMaxBatchPackets) {
    const std::uint8_t flags = input.TakeByte();
    Packet packet;
    if ((flags & 2) && !batch.empty()) {
      packet = batch.back();
      MoveOn(packet);
    } else {
      const Bytes bytes = input.Take(input.TakeU16());
      packet.assign(bytes.begin(), bytes.end());
    }
    if (!MakeWhole(packet)) continue;
    if (flags & 1) RepairChecksums(packet);
    batch.push_back(std::move(packet));
  }
  return batch;
}

}  // namespace
}  // namespace adit

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  FuzzInput input(data, size);
  const std::uint8_t options = input.TakeByte();
  std::vector<Packet> batch = TakeBatch(input);

  std::map<Packet, std::vector<Packet>> before, after;
  for (const Packet& packet : batch) before[FlowOf(packet)].push_back(WithoutId(packet));

  Coalescer coalescer({.tcp = (options & 1) == 0, .udp = (options & 2) == 0});
  for (Packet& packet : batch) coalescer.Add(packet);
  std::size_t packet_count = 0;
  for (const TunWrite& write : coalescer.Finish()) {
    packet_count += write.packet_count;
    CHECK(write.bytes <= kMaxPacketBytes && write.parts.size() <= kMaxWriteParts);
    Packet whole;
    for (const iovec& part : write.parts) {
      const auto* const from = static_cast<const std::uint8_t*>(part.iov_base);
      whole.insert(whole.end(), from, from + part.iov_len);
    }
    CHECK(whole.size() == write.bytes);
    Splitter splitter(write.header, whole);
    CHECK(splitter.error() == SplitError::kNone);
    CHECK(splitter.segment_count() == write.packet_count);
    while (const auto segment = splitter.Next()) {
      Packet packet(segment->head.begin(), segment->head.end());
      packet.insert(packet.end(), segment->body.begin(), segment->body.end());
      after[FlowOf(packet)].push_back(WithoutId(packet));
    }
  }
  CHECK(packet_count == batch.size());
  CHECK(before == after);
  coalescer.Clear();
  CHECK(coalescer.Finish().empty());
  return 0;
}
