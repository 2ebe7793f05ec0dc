// Inbound step 11: merges decrypted packets of one flow into super-packets for the TUN, without moving payload: a
// super-packet is a virtio header and a list of byte ranges for one writev. Pure.
//
// Only what a wire could have sent as one TSO/USO packet is merged: same flow, contiguous TCP sequence numbers, same
// acknowledgement, window, options, TTL, TOS; flags ACK and PSH only; equal payload sizes but for a shorter last one; inner
// checksums verified first, since a header that promises a checksum would hide a bad one. Packets of one flow never change their order; flows
// may interleave within one batch.
#pragma once

#include <sys/uio.h>

#include <span>
#include <vector>

#include "base/bytes.h"
#include "tun/virtio.h"

namespace adit {

// One write to the TUN. parts[0] is the virtio header (inside this struct's owner), then the packet's ranges.
struct TunWrite {
  VirtioHeader header;
  std::vector<iovec> parts;       // the packet, without the virtio header
  std::size_t packet_count = 1;   // how many inner packets it carries
  std::size_t bytes = 0;          // sum of parts
};

struct CoalesceOptions {
  bool tcp = true;   // the device accepted TSO4/TSO6 (false: every packet is written singly)
  bool udp = true;   // the device accepted USO4/USO6
};

// Open flows at a time. A batch of 64 KiB holds 45 packets of 1420 bytes; beyond the bound the oldest flow is closed.
inline constexpr std::size_t kMaxOpenFlows = 32;
inline constexpr std::size_t kMaxWriteParts = 128;  // iovecs of one write, far below UIO_MAXIOV

// Reused batch after batch; after warm-up it does not allocate.
class Coalescer {
 public:
  explicit Coalescer(CoalesceOptions options);
  // Takes one whole, validated IP packet (exactly total length). Borrows it until Clear(); may rewrite the headers of the first packet of a run.
  void Add(MutableBytes ip_packet);
  // Ends all runs. The writes in the order in which their first packets came; valid until Clear().
  std::span<TunWrite> Finish();
  void Clear();

 private:
  // private part: to be written with the implementation
};

}  // namespace adit
