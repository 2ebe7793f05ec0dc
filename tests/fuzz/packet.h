// What the packet targets share: an independent, slow view of checksums and lengths, to judge the fast one by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/bytes.h"
#include "tun/layout.h"

namespace adit {

inline std::uint32_t SlowSum(Bytes data, std::uint32_t sum = 0) {
  for (std::size_t i = 0; i < data.size(); ++i) sum += i % 2 == 0 ? std::uint32_t{data[i]} << 8 : data[i];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return sum;
}

inline std::size_t U16At(Bytes data, std::size_t at) { return static_cast<std::size_t>(data[at] << 8 | data[at + 1]); }
inline void PutU16(MutableBytes data, std::size_t at, std::size_t value) {
  data[at] = static_cast<std::uint8_t>(value >> 8);
  data[at + 1] = static_cast<std::uint8_t>(value);
}

// Of the pseudo-header that TCP and UDP sum. `layout` is of `packet`.
inline std::uint32_t SlowPseudoHeaderSum(Bytes packet, const Layout& layout) {
  const Bytes addresses = layout.is_v6 ? packet.subspan(kIpv6Addresses, 32) : packet.subspan(kIpv4Addresses, 8);
  const std::size_t length = packet.size() - layout.transport_start;
  const std::uint8_t tail[] = {0, layout.protocol, static_cast<std::uint8_t>(length >> 8),
                               static_cast<std::uint8_t>(length)};
  return SlowSum(tail, SlowSum(addresses));
}

// 0xffff when the transport checksum is right.
inline std::uint32_t SlowTransportSum(Bytes packet, const Layout& layout) {
  return SlowSum(packet.subspan(layout.transport_start), SlowPseudoHeaderSum(packet, layout));
}

}  // namespace adit
