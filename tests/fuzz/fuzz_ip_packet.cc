// An inner packet as a peer sent it or the TUN gave it: the outer ECN in the first byte, then the packet with perhaps
// some padding. Holds: what is taken for a packet lies within its bytes; merging ECN keeps the IPv4 header checksum as
// right as it was and changes nothing else; an ICMP answer is itself a whole packet, goes to the sender, and is
// answered by nothing.
#include <algorithm>
#include <vector>

#include "fuzz/input.h"
#include "fuzz/packet.h"
#include "tunnel/icmp.h"
#include "tunnel/ip_packet.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  FuzzInput input(data, size);
  const std::uint8_t outer_ecn = input.TakeByte() & 3;
  const Bytes bytes = input.TakeRest();
  std::vector<std::uint8_t> packet(bytes.begin(), bytes.end());

  const auto ip = ParseIp(packet);
  if (!ip) {
    CHECK(!BuildUnreachable(packet, std::nullopt));
    return 0;
  }
  CHECK(ip->header_bytes <= ip->total_bytes && ip->total_bytes <= packet.size());
  CHECK(ip->source >= packet.data() && ip->destination > ip->source);
  CHECK(ip->destination + (ip->is_v4() ? 4 : 16) <= packet.data() + ip->header_bytes);

  const IpAddress sender = ip->source_address();
  if (const auto answer = BuildUnreachable(Bytes(packet).first(ip->total_bytes), std::nullopt)) {
    const auto parsed = ParseIp(*answer);
    CHECK(parsed && parsed->total_bytes == answer->size());
    CHECK(parsed->destination_address() == sender);
    CHECK(!BuildUnreachable(*answer, std::nullopt));
  }

  std::vector<std::uint8_t> merged = packet;
  MergeEcn(merged, outer_ecn);
  const auto again = ParseIp(merged);
  CHECK(again && again->total_bytes == ip->total_bytes && again->ecn() == MergedEcn(ip->ecn(), outer_ecn));
  const std::size_t header_bytes = ip->header_bytes;
  CHECK(std::equal(merged.begin() + static_cast<std::ptrdiff_t>(header_bytes), merged.end(),
                   packet.begin() + static_cast<std::ptrdiff_t>(header_bytes)));
  if (ip->is_v4() && SlowSum(Bytes(packet).first(header_bytes)) == 0xffff) {
    CHECK(SlowSum(Bytes(merged).first(header_bytes)) == 0xffff);
  }
  return 0;
}
