#include "tunnel/icmp.h"

#include <algorithm>

#include "base/endian.h"
#include "tunnel/ip_packet.h"

namespace adit {
namespace {

constexpr std::uint8_t kProtocolIcmp = 1;
constexpr std::uint8_t kProtocolIcmpV6 = 58;
constexpr std::uint8_t kHops = 64;

constexpr std::size_t kIpv4HeaderBytes = 20;
constexpr std::size_t kIpv6HeaderBytes = 40;
constexpr std::size_t kIcmpHeaderBytes = 8;  // type, code, checksum, four bytes that only "too big" uses

// How much of an answer a host must be ready to take: RFC 1812, 4.3.2.3 and RFC 4443, 2.4 (c).
constexpr std::size_t kMaxIpv4Answer = 576;
constexpr std::size_t kMaxIpv6Answer = 1280;

// What an answer says.
struct Verdict {
  std::uint8_t type;
  std::uint8_t code;
  std::uint32_t rest = 0;  // the second half of the header
};
constexpr Verdict kHostUnreachable{3, 1};       // ICMP: destination unreachable
constexpr Verdict kAddressUnreachableV6{1, 3};  // ICMPv6: the same
// Fragmentation needed (RFC 1191, 4) and packet too big (RFC 4443, 3.2).
constexpr Verdict TooBigV4(std::uint16_t mtu) { return {3, 4, mtu}; }
constexpr Verdict TooBigV6(std::uint16_t mtu) { return {2, 0, mtu}; }

// The Internet checksum (RFC 1071); `sum` carries the pseudo header in.
std::uint16_t Checksum(Bytes bytes, std::uint32_t sum = 0) {
  std::size_t i = 0;
  for (; i + 1 < bytes.size(); i += 2) sum += std::uint32_t{bytes[i]} << 8 | bytes[i + 1];
  if (i < bytes.size()) sum += std::uint32_t{bytes[i]} << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<std::uint16_t>(~sum);
}

bool IsIcmpError(std::uint8_t type) {
  // Unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792).
  return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

bool IsIcmpV6Error(std::uint8_t type) { return type < 128; }  // RFC 4443, 2.1

// 224.0.0.0 and all above: multicast, reserved, broadcast.
bool IsUsableV4(const IpAddress& address) { return !address.is_unspecified() && address.bytes()[0] < 224; }
bool IsUsableV6(const IpAddress& address) { return !address.is_unspecified() && !address.is_multicast(); }

bool MayAnswerV4(Bytes packet, const IpPacket& ip) {
  if (!IsUsableV4(ip.source_address()) || !IsUsableV4(ip.destination_address())) return false;
  const std::uint16_t fragment = LoadAs<U16Be>(&packet[6]);
  if ((fragment & 0x1fff) != 0) return false;
  if (packet[9] != kProtocolIcmp) return true;
  return ip.total_bytes > ip.header_bytes && !IsIcmpError(packet[ip.header_bytes]);
}

bool MayAnswerV6(Bytes packet, const IpPacket& ip) {
  if (!IsUsableV6(ip.source_address()) || !IsUsableV6(ip.destination_address())) return false;
  // Extension headers (RFC 8200, 4) stand between us and what must not be answered.
  std::uint8_t next_header = packet[6];
  std::size_t at = ip.header_bytes;
  for (;;) {
    const Bytes rest = packet.first(ip.total_bytes).subspan(std::min(at, ip.total_bytes));
    switch (next_header) {
      case 0:     // hop by hop
      case 43:    // routing
      case 60:    // destination options
      case 51: {  // authentication: counts words of 4 bytes, minus 2, where the others count 8, minus 1
        if (rest.size() < 2) return false;
        at += next_header == 51 ? 4 * (std::size_t{rest[1]} + 2) : 8 * (std::size_t{rest[1]} + 1);
        next_header = rest[0];
        break;
      }
      case 44: {  // fragment
        if (rest.size() < 8) return false;
        if ((LoadAs<U16Be>(&rest[2]) & 0xfff8) != 0) return false;
        at += 8;
        next_header = rest[0];
        break;
      }
      case kProtocolIcmpV6:
        return !rest.empty() && !IsIcmpV6Error(rest[0]);
      default:
        return true;
    }
  }
}

// The ICMP part: header and as much of the packet as there is room for. Its checksum is filled in by the caller.
void WriteIcmp(MutableBytes icmp, const Verdict& verdict, Bytes packet) {
  icmp[0] = verdict.type;
  icmp[1] = verdict.code;
  Store(&icmp[4], U32Be(verdict.rest));
  std::ranges::copy(packet.first(icmp.size() - kIcmpHeaderBytes), icmp.begin() + kIcmpHeaderBytes);
}

std::vector<std::uint8_t> AnswerV4(Bytes packet, const Verdict& verdict, const IpAddress& from, const IpAddress& to) {
  const std::size_t size = std::min(kIpv4HeaderBytes + kIcmpHeaderBytes + packet.size(), kMaxIpv4Answer);
  std::vector<std::uint8_t> answer(size);
  const MutableBytes header = MutableBytes(answer).first(kIpv4HeaderBytes);
  header[0] = 0x45;
  header[1] = static_cast<std::uint8_t>((packet[1] & 0x1e) | 0xc0);  // its TOS, precedence 6 (RFC 1812, 4.3.2.5)
  Store(&header[2], U16Be(static_cast<std::uint16_t>(size)));
  header[8] = kHops;
  header[9] = kProtocolIcmp;
  std::ranges::copy(from.bytes(), &header[12]);
  std::ranges::copy(to.bytes(), &header[16]);
  Store(&header[10], U16Be(Checksum(header)));

  const MutableBytes icmp = MutableBytes(answer).subspan(kIpv4HeaderBytes);
  WriteIcmp(icmp, verdict, packet);
  Store(&icmp[2], U16Be(Checksum(icmp)));
  return answer;
}

std::vector<std::uint8_t> AnswerV6(Bytes packet, const Verdict& verdict, const IpAddress& from, const IpAddress& to) {
  const std::size_t size = std::min(kIpv6HeaderBytes + kIcmpHeaderBytes + packet.size(), kMaxIpv6Answer);
  std::vector<std::uint8_t> answer(size);
  const MutableBytes header = MutableBytes(answer).first(kIpv6HeaderBytes);
  const MutableBytes icmp = MutableBytes(answer).subspan(kIpv6HeaderBytes);
  header[0] = 0x60;
  Store(&header[4], U16Be(static_cast<std::uint16_t>(icmp.size())));
  header[6] = kProtocolIcmpV6;
  header[7] = kHops;
  std::ranges::copy(from.bytes(), &header[8]);
  std::ranges::copy(to.bytes(), &header[24]);

  WriteIcmp(icmp, verdict, packet);
  // The pseudo header (RFC 8200, 8.1): both addresses, length, protocol.
  const std::uint32_t addresses = std::uint32_t{Checksum(header.subspan(8, 32))} ^ 0xffff;
  const std::uint32_t pseudo_header = addresses + static_cast<std::uint32_t>(icmp.size()) + kProtocolIcmpV6;
  Store(&icmp[2], U16Be(Checksum(icmp, pseudo_header)));
  return answer;
}

std::optional<std::vector<std::uint8_t>> Answer(Bytes packet, const Verdict& v4, const Verdict& v6,
                                                const std::optional<IpAddress>& source) {
  const auto ip = ParseIp(packet);
  if (!ip) return std::nullopt;
  if (!(ip->is_v4() ? MayAnswerV4(packet, *ip) : MayAnswerV6(packet, *ip))) return std::nullopt;

  const IpAddress from = source && source->is_v4() == ip->is_v4() ? *source : ip->destination_address();
  const Bytes trimmed = packet.first(ip->total_bytes);
  return ip->is_v4() ? AnswerV4(trimmed, v4, from, ip->source_address())
                     : AnswerV6(trimmed, v6, from, ip->source_address());
}

}  // namespace

std::optional<std::vector<std::uint8_t>> BuildUnreachable(Bytes packet, const std::optional<IpAddress>& source) {
  return Answer(packet, kHostUnreachable, kAddressUnreachableV6, source);
}

std::optional<std::vector<std::uint8_t>> BuildTooBig(Bytes packet, std::uint16_t mtu,
                                                     const std::optional<IpAddress>& source) {
  return Answer(packet, TooBigV4(mtu), TooBigV6(mtu), source);
}

bool IcmpLimiter::Allow(Instant now) {
  const std::scoped_lock lock(mutex_);
  if (now > last_asked_at_) {  // threads read their clocks one by one, and come here in any order
    tokens_ = std::min(kFull, tokens_ + (now - last_asked_at_));
    last_asked_at_ = now;
  }
  if (tokens_ < kCost) return false;
  tokens_ -= kCost;
  return true;
}

}  // namespace adit
