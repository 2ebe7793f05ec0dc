#include "tun/coalesce.h"

#include <algorithm>
#include <cstring>

#include "base/endian.h"
#include "tun/checksum.h"
#include "tun/layout.h"

namespace adit {

using internal::FlowPacket;
using internal::FlowRun;

namespace {

constexpr std::uint8_t kMergeableTcpFlags = kTcpAck | kTcpPush | kTcpEce;
constexpr std::uint8_t kDontFragment = 0x40;  // in the first byte of the IPv4 fragment field
constexpr std::size_t kNoRun = kMaxOpenFlows;

std::size_t AddressStart(bool is_v6) { return is_v6 ? kIpv6Addresses : kIpv4Addresses; }

// Spreads flows over 32 bits; equality is tested on the bytes themselves, so a collision costs time only.
std::uint32_t HashFlow(const std::uint8_t* addresses, bool is_v6, std::uint32_t ports, std::uint8_t protocol) {
  std::uint64_t mixed = (std::uint64_t{ports} << 8) | protocol;
  const std::size_t bytes = is_v6 ? 32 : 8;
  for (std::size_t i = 0; i < bytes; i += 8) {
    mixed = (mixed ^ LoadAs<std::uint64_t>(addresses + i)) * 0x9e3779b97f4a7c15;  // 2^64 / golden ratio
    mixed ^= mixed >> 29;
  }
  return static_cast<std::uint32_t>(mixed >> 16);
}

// For lengths known at compile time, where it is a compare or two.
[[gnu::always_inline]] inline bool IsSame(const std::uint8_t* a, const std::uint8_t* b, std::size_t bytes) {
  return std::memcmp(a, b, bytes) == 0;
}

// TCP options are at most ten words; a call of memcmp costs more than these compares.
bool AreWordsSame(const std::uint8_t* a, const std::uint8_t* b, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; i += 4) {
    if (LoadAs<std::uint32_t>(a + i) != LoadAs<std::uint32_t>(b + i)) return false;
  }
  return true;
}

// True if `packet` belongs to a TCP or UDP flow, or to none at all (out.packet is empty then). False: cannot be told.
bool Classify(MutableBytes packet, FlowPacket& out) {
  const auto layout = ParseLayout(packet);
  if (!layout || layout->is_fragment) return false;
  const std::size_t plain_ip_bytes = layout->is_v6 ? kIpv6HeaderBytes : kIpv4HeaderBytes;
  if (layout->is_v6 && layout->transport_start != plain_ip_bytes) return false;
  if (layout->protocol != kProtocolTcp && layout->protocol != kProtocolUdp) return true;

  const MutableBytes transport = packet.subspan(layout->transport_start);
  const bool is_tcp = layout->protocol == kProtocolTcp;
  std::size_t transport_bytes = 0;
  bool may_merge = layout->transport_start == plain_ip_bytes;
  if (is_tcp) {
    transport_bytes = TcpHeaderBytes(transport);
    if (transport_bytes == 0) return false;
    const std::uint8_t flags = transport[kTcpFlags];
    may_merge = may_merge && (flags & ~kMergeableTcpFlags) == 0 && (flags & kTcpAck) != 0;
  } else {
    if (transport.size() < kUdpHeaderBytes) return false;
    transport_bytes = kUdpHeaderBytes;
    may_merge = may_merge && LoadAs<U16Be>(&transport[kUdpLength]) == transport.size() &&
                LoadAs<std::uint16_t>(&transport[kUdpChecksum]) != 0;
  }

  out.packet = packet;
  out.is_v6 = layout->is_v6;
  out.is_tcp = is_tcp;
  out.ip_bytes = layout->transport_start;
  out.head_bytes = layout->transport_start + transport_bytes;
  out.payload_bytes = packet.size() - out.head_bytes;
  out.may_merge = may_merge && out.payload_bytes != 0;
  out.flow_hash =
      HashFlow(&packet[AddressStart(out.is_v6)], out.is_v6, LoadAs<std::uint32_t>(transport.data()), layout->protocol);
  return true;
}

bool IsSameFlow(const FlowPacket& a, const FlowPacket& b) {
  if (a.is_v6 != b.is_v6 || a.is_tcp != b.is_tcp) return false;
  const std::uint8_t* const ip_a = a.packet.data();
  const std::uint8_t* const ip_b = b.packet.data();
  if (!IsSame(ip_a + a.ip_bytes, ip_b + b.ip_bytes, 4)) return false;  // ports
  return a.is_v6 ? IsSame(ip_a + kIpv6Addresses, ip_b + kIpv6Addresses, 32)
                 : IsSame(ip_a + kIpv4Addresses, ip_b + kIpv4Addresses, 8);
}

bool HasGoodChecksums(const FlowPacket& candidate) {
  const std::uint8_t* const ip = candidate.packet.data();
  if (!candidate.is_v6 && FoldSum(SumFixed<kIpv4HeaderBytes>(ip)) != 0xffff) return false;
  const Bytes transport = candidate.packet.subspan(candidate.ip_bytes);
  const std::uint8_t protocol = candidate.is_tcp ? kProtocolTcp : kProtocolUdp;
  const std::uint8_t* const addresses = ip + AddressStart(candidate.is_v6);
  return FoldSum(PseudoHeaderSum(addresses, candidate.is_v6, protocol, transport.size()) + SumWords(transport)) ==
         0xffff;
}

// The rules of the head comment that need no payload, for a packet of the run's flow; sizes and sums are ExtendRun's.
bool HeadersMatch(const FlowRun& run, const FlowPacket& next) {
  if (next.head_bytes != run.first.head_bytes) return false;
  const std::uint8_t* const a = run.first.packet.data();
  const std::uint8_t* const b = next.packet.data();
  if (next.is_v6) {
    if (!IsSame(a, b, kIpv6PayloadLength) || a[kIpv6HopLimit] != b[kIpv6HopLimit]) return false;
  } else {
    if (a[1] != b[1] || !IsSame(a + kIpv4Fragment, b + kIpv4Fragment, 3)) return false;  // TOS; DF; TTL
    const bool is_atomic = (b[kIpv4Fragment] & kDontFragment) != 0;
    const std::uint16_t id = LoadAs<U16Be>(b + kIpv4Id);
    const bool counts = id == static_cast<std::uint16_t>(run.last_id + 1);
    const bool is_constant = is_atomic && id == run.last_id;
    if (!(counts && run.id_rule != FlowRun::IdRule::kConstant) &&
        !(is_constant && run.id_rule != FlowRun::IdRule::kCounting))
      return false;
  }
  if (!next.is_tcp) return true;
  const std::uint8_t* const tcp_a = a + run.first.ip_bytes;
  const std::uint8_t* const tcp_b = b + next.ip_bytes;
  return LoadAs<U32Be>(tcp_b + kTcpSequence) == run.next_sequence &&
         IsSame(tcp_a + kTcpAcknowledgement, tcp_b + kTcpAcknowledgement, 5) &&  // and the data offset, reserved bits
         ((tcp_a[kTcpFlags] ^ tcp_b[kTcpFlags]) & ~kTcpPush) == 0 &&
         IsSame(tcp_a + kTcpWindow, tcp_b + kTcpWindow, 2) && IsSame(tcp_a + kTcpUrgent, tcp_b + kTcpUrgent, 2) &&
         AreWordsSame(tcp_a + kTcpHeaderBytes, tcp_b + kTcpHeaderBytes,
                      next.head_bytes - next.ip_bytes - kTcpHeaderBytes);
}

}  // namespace

void Coalescer::Add(MutableBytes ip_packet) {
  FlowPacket candidate;
  if ((!options_.tcp && !options_.udp) || ip_packet.empty()) {
    AddWrite(ip_packet, 0);
    return;
  }
  if (!Classify(ip_packet, candidate)) {
    EndAllRuns();
    AddWrite(ip_packet, 0);
    return;
  }
  if (candidate.packet.empty() || !(candidate.is_tcp ? options_.tcp : options_.udp)) {
    AddWrite(ip_packet, candidate.flow_hash);
    return;
  }
  const std::size_t index = FindRun(candidate);
  if (index != kNoRun) {
    if (candidate.may_merge && ExtendRun(index, candidate)) return;
    EndRun(index);
  }
  if (candidate.may_merge) {
    OpenRun(candidate);
  } else {
    AddWrite(ip_packet, candidate.flow_hash);
  }
}

std::span<TunWrite> Coalescer::Finish() {
  EndAllRuns();
  return std::span(writes_).first(write_count_);
}

void Coalescer::Clear() {
  run_count_ = 0;
  write_count_ = 0;
}

TunWrite& Coalescer::AddWrite(MutableBytes packet, std::uint32_t flow_hash) {
  if (write_count_ == writes_.size()) writes_.emplace_back();
  TunWrite& write = writes_[write_count_++];
  write.header = {};
  write.parts.clear();
  write.parts.push_back({.iov_base = packet.data(), .iov_len = packet.size()});
  write.packet_count = 1;
  write.bytes = packet.size();
  write.flow_hash = flow_hash;
  return write;
}

std::size_t Coalescer::FindRun(const FlowPacket& candidate) const {
  for (std::size_t i = 0; i < run_count_; ++i) {
    if (flow_hashes_[i] == candidate.flow_hash && IsSameFlow(runs_[i].first, candidate)) return i;
  }
  return kNoRun;
}

void Coalescer::OpenRun(const FlowPacket& candidate) {
  const std::uint8_t* const transport = &candidate.packet[candidate.ip_bytes];
  AddWrite(candidate.packet, candidate.flow_hash);
  if (candidate.is_tcp && (transport[kTcpFlags] & kTcpPush) != 0) return;  // complete as it is

  if (run_count_ == kMaxOpenFlows) {
    const auto oldest = std::ranges::min_element(runs_, {}, &FlowRun::opened);
    EndRun(static_cast<std::size_t>(oldest - runs_.begin()));
  }
  FlowRun& run = runs_[run_count_];
  flow_hashes_[run_count_++] = candidate.flow_hash;
  run = FlowRun{};
  run.first = candidate;
  run.write = write_count_ - 1;
  run.opened = ++opened_;
  if (!candidate.is_v6) run.last_id = LoadAs<U16Be>(&candidate.packet[kIpv4Id]);
  if (candidate.is_tcp) {
    run.next_sequence = static_cast<std::uint32_t>(LoadAs<U32Be>(transport + kTcpSequence) + candidate.payload_bytes);
  }
}

// Appends the packet to its flow's run, and ends the run if it cannot go on behind it. False: it does not belong there.
bool Coalescer::ExtendRun(std::size_t index, const FlowPacket& candidate) {
  FlowRun& run = runs_[index];
  TunWrite& write = writes_[run.write];
  if (candidate.payload_bytes > run.first.payload_bytes || write.bytes + candidate.payload_bytes > kMaxPacketBytes ||
      !HeadersMatch(run, candidate)) {
    return false;
  }
  // Lazily for the first: it is still in the cache, and a packet that stays alone is summed by the kernel only.
  if (!run.is_verified && !HasGoodChecksums(run.first)) return false;
  run.is_verified = true;
  if (!HasGoodChecksums(candidate)) return false;

  write.parts.push_back({.iov_base = &candidate.packet[candidate.head_bytes], .iov_len = candidate.payload_bytes});
  write.packet_count += 1;
  write.bytes += candidate.payload_bytes;
  if (!candidate.is_v6) {
    const std::uint16_t id = LoadAs<U16Be>(&candidate.packet[kIpv4Id]);
    run.id_rule = id == run.last_id ? FlowRun::IdRule::kConstant : FlowRun::IdRule::kCounting;
    run.last_id = id;
  }
  run.next_sequence += static_cast<std::uint32_t>(candidate.payload_bytes);
  run.is_pushed = candidate.is_tcp && (candidate.packet[candidate.ip_bytes + kTcpFlags] & kTcpPush) != 0;
  if (run.is_pushed || candidate.payload_bytes < run.first.payload_bytes || write.parts.size() == kMaxWriteParts) {
    EndRun(index);
  }
  return true;
}

// A run of one keeps its packet as it came. A longer one gets the headers of a super-packet: the whole length, and the
// pseudo-header's sum where the kernel is to put the checksum.
void Coalescer::EndRun(std::size_t index) {
  const FlowRun& run = runs_[index];
  TunWrite& write = writes_[run.write];
  if (write.packet_count > 1) {
    const FlowPacket& first = run.first;
    std::uint8_t* const ip = first.packet.data();
    std::uint8_t* const transport = ip + first.ip_bytes;
    const std::size_t transport_bytes = write.bytes - first.ip_bytes;
    if (first.is_v6) {
      Store(ip + kIpv6PayloadLength, U16Be(static_cast<std::uint16_t>(transport_bytes)));
    } else {
      Store(ip + kIpv4TotalLength, U16Be(static_cast<std::uint16_t>(write.bytes)));
      std::memset(ip + kIpv4Checksum, 0, 2);
      Store(ip + kIpv4Checksum, FinishChecksum(SumFixed<kIpv4HeaderBytes>(ip)));
    }
    const std::size_t checksum_offset = first.is_tcp ? kTcpChecksum : kUdpChecksum;
    const std::uint8_t protocol = first.is_tcp ? kProtocolTcp : kProtocolUdp;
    const std::uint8_t* const addresses = ip + AddressStart(first.is_v6);
    Store(transport + checksum_offset, FoldSum(PseudoHeaderSum(addresses, first.is_v6, protocol, transport_bytes)));
    if (run.is_pushed) transport[kTcpFlags] |= kTcpPush;
    if (!first.is_tcp) Store(transport + kUdpLength, U16Be(static_cast<std::uint16_t>(transport_bytes)));

    const std::uint8_t tcp_type = first.is_v6 ? kVirtioGsoTcp6 : kVirtioGsoTcp4;
    write.header = {.flags = kVirtioNeedsChecksum,
                    .gso_type = first.is_tcp ? tcp_type : kVirtioGsoUdpL4,
                    .header_bytes = static_cast<std::uint16_t>(first.head_bytes),
                    .segment_bytes = static_cast<std::uint16_t>(first.payload_bytes),
                    .checksum_start = static_cast<std::uint16_t>(first.ip_bytes),
                    .checksum_offset = static_cast<std::uint16_t>(checksum_offset)};
  }
  --run_count_;
  if (index != run_count_) {
    runs_[index] = runs_[run_count_];
    flow_hashes_[index] = flow_hashes_[run_count_];
  }
}

void Coalescer::EndAllRuns() {
  while (run_count_ != 0) EndRun(run_count_ - 1);
}

}  // namespace adit
