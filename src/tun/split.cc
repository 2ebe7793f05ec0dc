#include "tun/split.h"

#include <algorithm>
#include <cstring>

#include "base/endian.h"
#include "tun/layout.h"

namespace adit {
namespace {

constexpr std::uint16_t kChecksumOfZeroUdp = 0xffff;  // RFC 768: an all-zero field would mean "no checksum"

}  // namespace

Splitter::Splitter(const VirtioHeader& header, MutableBytes packet) : packet_(packet) {
  if (packet.empty() || packet.size() > kMaxPacketBytes) return;
  if (header.gso_type != kVirtioGsoNone) {
    error_ = PrepareSegments(header);
    return;
  }
  if ((header.flags & kVirtioNeedsChecksum) != 0) {
    error_ = CompleteChecksum(header);
  } else {
    const auto version = packet[0] >> 4;
    error_ = version == 4 || version == 6 ? SplitError::kNone : SplitError::kMalformed;
  }
  if (error_ == SplitError::kNone) segment_count_ = 1;
}

// The field at checksum_start + checksum_offset holds the pseudo-header's sum; what is left is the sum up to the end.
// That holds for any protocol (GRE has a checksum too, a tunnel's inner packet may be meant), so only TCP and UDP
// headers at their own place are held to their own offset.
SplitError Splitter::CompleteChecksum(const VirtioHeader& header) {
  const auto layout = ParseLayout(packet_);
  if (!layout) return SplitError::kMalformed;
  const std::size_t start = header.checksum_start;
  const std::size_t field = start + header.checksum_offset;
  if (start < layout->transport_start || field + 2 > packet_.size()) return SplitError::kMalformed;
  if (start == layout->transport_start) {
    if (layout->protocol == kProtocolTcp && header.checksum_offset != kTcpChecksum) return SplitError::kMalformed;
    if (layout->protocol == kProtocolUdp && header.checksum_offset != kUdpChecksum) return SplitError::kMalformed;
  }
  std::uint16_t checksum = FinishChecksum(SumWords(packet_.subspan(start)));
  if (checksum == 0) checksum = kChecksumOfZeroUdp;  // the same number in ones' complement: right for every protocol
  Store(&packet_[field], checksum);
  return SplitError::kNone;
}

SplitError Splitter::PrepareSegments(const VirtioHeader& header) {
  const bool needs_checksum = (header.flags & kVirtioNeedsChecksum) != 0;
  const bool has_ecn = (header.gso_type & kVirtioGsoEcn) != 0;
  const auto type = static_cast<std::uint8_t>(header.gso_type & ~kVirtioGsoEcn);
  if (type != kVirtioGsoTcp4 && type != kVirtioGsoTcp6 && (type != kVirtioGsoUdpL4 || has_ecn)) {
    return SplitError::kMalformed;
  }
  if (header.segment_bytes == 0) return SplitError::kMalformed;

  const auto layout = ParseLayout(packet_);
  if (!layout || layout->is_fragment) return SplitError::kMalformed;
  is_v6_ = layout->is_v6;
  is_tcp_ = type != kVirtioGsoUdpL4;
  if (layout->protocol != (is_tcp_ ? kProtocolTcp : kProtocolUdp)) return SplitError::kMalformed;
  if (is_tcp_ && is_v6_ != (type == kVirtioGsoTcp6)) return SplitError::kMalformed;

  transport_start_ = layout->transport_start;
  const MutableBytes transport = packet_.subspan(transport_start_);
  const std::size_t transport_bytes =
      is_tcp_ ? TcpHeaderBytes(transport) : (transport.size() >= kUdpHeaderBytes ? kUdpHeaderBytes : 0);
  if (transport_bytes == 0) return SplitError::kMalformed;
  const std::size_t checksum_offset = is_tcp_ ? kTcpChecksum : kUdpChecksum;
  if (needs_checksum && (header.checksum_start != transport_start_ || header.checksum_offset != checksum_offset)) {
    return SplitError::kMalformed;
  }
  const std::size_t head_bytes = transport_start_ + transport_bytes;
  if (head_bytes > kMaxHeadBytes) return SplitError::kMalformed;

  // The pseudo-header's sum: with kVirtioNeedsChecksum it is in the checksum field, for the whole packet's length. Else
  // we make it, which only a routing header prevents: the destination it is made with is then not the one in the
  // header.
  if (needs_checksum) {
    const auto whole_length = static_cast<std::uint16_t>(~MemoryWord(static_cast<std::uint16_t>(transport.size())));
    transport_sum_ = WordSum{LoadAs<std::uint16_t>(&transport[checksum_offset])} + whole_length;
  } else {
    if (layout->has_routing_header) return SplitError::kMalformed;
    const std::uint8_t* const addresses = &packet_[is_v6_ ? kIpv6Addresses : kIpv4Addresses];
    transport_sum_ = PseudoHeaderSum(addresses, is_v6_, layout->protocol, 0);
  }

  std::memcpy(head_.data(), packet_.data(), head_bytes);
  std::uint8_t* const ip = head_.data();
  std::uint8_t* const at = ip + transport_start_;
  if (!is_v6_) {
    first_id_ = LoadAs<U16Be>(ip + kIpv4Id);
    std::memset(ip + kIpv4TotalLength, 0, 4);  // and the id behind it
    std::memset(ip + kIpv4Checksum, 0, 2);
    ip_sum_ = SumWords(Bytes(ip, transport_start_));
  }
  std::memset(at + checksum_offset, 0, 2);
  if (is_tcp_) {
    first_sequence_ = LoadAs<U32Be>(at + kTcpSequence);
    tcp_flags_ = at[kTcpFlags];
    std::memset(at + kTcpSequence, 0, 4);
    at[kTcpFlags] = 0;
  } else {
    std::memset(at + kUdpLength, 0, 2);
  }
  transport_sum_ += SumWords(Bytes(at, transport_bytes));

  head_bytes_ = head_bytes;
  segment_bytes_ = header.segment_bytes;
  const std::size_t payload_bytes = packet_.size() - head_bytes;
  segment_count_ = std::max<std::size_t>(1, (payload_bytes + segment_bytes_ - 1) / segment_bytes_);
  return SplitError::kNone;
}

std::size_t Splitter::max_segment_bytes() const {
  return std::min(head_bytes_ == 0 ? packet_.size() : head_bytes_ + segment_bytes_, packet_.size());
}

std::optional<Segment> Splitter::Next() {
  if (next_ == segment_count_) return std::nullopt;
  const std::size_t index = next_++;
  if (head_bytes_ == 0) return Segment{.head = {}, .body = packet_};

  const std::size_t start = head_bytes_ + index * segment_bytes_;
  const MutableBytes body = packet_.subspan(start, std::min(segment_bytes_, packet_.size() - start));
  const std::size_t total_bytes = head_bytes_ + body.size();
  const auto transport_length = static_cast<std::uint16_t>(total_bytes - transport_start_);
  std::uint8_t* const ip = head_.data();
  std::uint8_t* const transport = ip + transport_start_;

  if (is_v6_) {
    Store(ip + kIpv6PayloadLength, U16Be(static_cast<std::uint16_t>(total_bytes - kIpv6HeaderBytes)));
  } else {
    const auto total_length = MemoryWord(static_cast<std::uint16_t>(total_bytes));
    const auto id = MemoryWord(static_cast<std::uint16_t>(first_id_ + index));
    Store(ip + kIpv4TotalLength, total_length);
    Store(ip + kIpv4Id, id);
    Store(ip + kIpv4Checksum, FinishChecksum(ip_sum_ + total_length + id));
  }

  WordSum sum = transport_sum_ + MemoryWord(transport_length) + SumWords(body);
  if (is_tcp_) {
    std::uint8_t flags = tcp_flags_;
    if (index != 0) flags = static_cast<std::uint8_t>(flags & ~kTcpCwr);
    if (next_ != segment_count_) flags = static_cast<std::uint8_t>(flags & ~(kTcpFin | kTcpPush));
    const auto sequence = static_cast<std::uint32_t>(first_sequence_ + index * segment_bytes_);
    Store(transport + kTcpSequence, U32Be(sequence));
    transport[kTcpFlags] = flags;
    sum += WordSum{MemoryWord(static_cast<std::uint16_t>(sequence >> 16))} +
           MemoryWord(static_cast<std::uint16_t>(sequence)) + MemoryWord(flags);
    Store(transport + kTcpChecksum, FinishChecksum(sum));
  } else {
    const auto length = MemoryWord(transport_length);
    Store(transport + kUdpLength, length);
    const std::uint16_t checksum = FinishChecksum(sum + length);
    Store(transport + kUdpChecksum, checksum == 0 ? kChecksumOfZeroUdp : checksum);
  }
  return Segment{.head = Bytes(head_).first(head_bytes_), .body = body};
}

}  // namespace adit
