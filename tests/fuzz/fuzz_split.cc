// A read from the TUN: the ten bytes of the virtio header, then the packet. Nothing in it is trusted.
//
// Holds for a packet that is cut: the bodies are the payload, in order and whole; all segments but the last have the
// size that was announced; each is a well-formed packet with right checksums, found by a slow and independent sum.
#include <vector>

#include "base/endian.h"
#include "fuzz/input.h"
#include "fuzz/packet.h"
#include "tun/split.h"

namespace adit {
namespace {

// With kVirtioNeedsChecksum the kernel leaves the pseudo-header's sum in the field.
bool HasRightPseudoHeaderSum(const VirtioHeader& header, Bytes packet) {
  const auto layout = ParseLayout(packet);
  const std::size_t field = std::size_t{header.checksum_start} + header.checksum_offset;
  if (!layout || field + 2 > packet.size()) return false;
  return U16At(packet, field) % 0xffff == SlowPseudoHeaderSum(packet, *layout) % 0xffff;
}

}  // namespace
}  // namespace adit

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  if (size < sizeof(VirtioHeader) || size > sizeof(VirtioHeader) + kMaxPacketBytes) return 0;
  const auto header = LoadAs<VirtioHeader>(data);
  std::vector<std::uint8_t> packet(data + sizeof(VirtioHeader), data + size);

  const bool sum_is_ours = (header.flags & kVirtioNeedsChecksum) == 0 || HasRightPseudoHeaderSum(header, packet);

  Splitter splitter(header, packet);
  if (splitter.error() != SplitError::kNone) return 0;
  const std::size_t count = splitter.segment_count();
  CHECK(count >= 1);

  std::size_t seen = 0, body_bytes = 0;
  const std::uint8_t* next_body = nullptr;
  while (auto segment = splitter.Next()) {
    ++seen;
    CHECK(segment->size() <= splitter.max_segment_bytes());
    CHECK(seen == count || segment->size() == splitter.max_segment_bytes());
    CHECK(segment->body.data() >= packet.data() &&
          segment->body.data() + segment->body.size() <= packet.data() + packet.size());
    CHECK(next_body == nullptr || segment->body.data() == next_body);
    next_body = segment->body.data() + segment->body.size();
    body_bytes += segment->body.size();

    if (!segment->head.empty()) {
      std::vector<std::uint8_t> whole(segment->head.begin(), segment->head.end());
      whole.insert(whole.end(), segment->body.begin(), segment->body.end());
      const auto layout = ParseLayout(whole);
      CHECK(layout.has_value());
      CHECK(layout->is_v6 || SlowSum(Bytes(whole).first(layout->transport_start)) == 0xffff);
      CHECK(!sum_is_ours || SlowTransportSum(whole, *layout) == 0xffff);
    }
    // What sealing does to the body before the next segment is asked for.
    for (auto& byte : segment->body) byte = 0xa5;
  }
  CHECK(seen == count);
  CHECK(next_body == packet.data() + packet.size());
  CHECK(count > 1 || body_bytes <= packet.size());
  return 0;
}
