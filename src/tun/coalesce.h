// Inbound step 11: merges decrypted packets of one flow into super-packets for the TUN, without moving payload: a
// super-packet is a virtio header and a list of byte ranges for one writev. Pure.
//
// Only what a wire could have sent as one TSO/USO packet is merged. Each rule below ends a run; the next packet of the
// flow begins another:
//   IP     same TOS/traffic class, flow label, TTL/hop limit, DF; no options or extension headers; no fragment. IPv4 id
//   as
//          the kernel's GRO has it: counting up by one, or (with DF only, where RFC 6864 gives it no meaning) constant.
//          A constant id comes out of a later split as a counting one.
//   TCP    contiguous sequence numbers; same acknowledgement, window, options (timestamps included) and reserved bits;
//          flags ACK, PSH and ECE only, ECE equal; some payload; PSH ends a run.
//   UDP    a checksum; some payload.
//   sizes  equal payloads but for a shorter last one; kMaxPacketBytes and kMaxWriteParts in all.
//   sums   IPv4 header, TCP and UDP checksums are verified first, since a header that promises a checksum would hide a
//   bad
//          one. A packet with a bad one is written alone and as it is: the kernel drops and counts it.
// Packets of one flow never change their order; flows may interleave within one batch. Where the flow cannot be told
// (fragments, extension headers, a length that does not fit) all runs end.
#pragma once

#include <sys/uio.h>

#include <array>
#include <span>
#include <vector>

#include "base/bytes.h"
#include "tun/virtio.h"

namespace adit {

// One write to the TUN: the virtio header, then the packet's ranges.
struct TunWrite {
  VirtioHeader header{};
  std::vector<iovec> parts{};    // the packet, without the virtio header
  std::size_t packet_count = 1;  // how many inner packets it carries
  std::size_t bytes = 0;         // sum of parts
  std::uint32_t flow_hash = 0;   // of its TCP or UDP flow, 0 for anything else
};

struct CoalesceOptions {
  bool tcp = true;  // the device accepted TSO4/TSO6 (false: every packet is written singly)
  bool udp = true;  // the device accepted USO4/USO6
};

// Open flows at a time. A batch of 64 KiB holds 45 packets of 1420 bytes; beyond the bound the oldest run is ended.
inline constexpr std::size_t kMaxOpenFlows = 32;
inline constexpr std::size_t kMaxWriteParts = 128;  // iovecs of one write, far below UIO_MAXIOV

namespace internal {

// What the coalescer learns of a packet that belongs to a TCP or UDP flow.
struct FlowPacket {
  MutableBytes packet;
  bool is_v6 = false;
  bool is_tcp = false;
  bool may_merge = false;  // false: it ends its flow's run and goes alone
  std::size_t ip_bytes = 0;
  std::size_t head_bytes = 0;
  std::size_t payload_bytes = 0;
  std::uint32_t flow_hash = 0;
};

struct FlowRun {
  enum class IdRule : std::uint8_t { kOpen, kCounting, kConstant };

  FlowPacket first;
  std::size_t write = 0;  // index of its TunWrite
  std::uint64_t opened = 0;
  bool is_verified = false;  // the first packet's checksums; a lone packet is never summed
  bool is_pushed = false;    // the last packet had PSH
  IdRule id_rule = IdRule::kOpen;
  std::uint16_t last_id = 0;
  std::uint32_t next_sequence = 0;
};

}  // namespace internal

// Reused batch after batch; after warm-up it does not allocate. Holds one TunWrite per packet of a batch at most.
class Coalescer {
 public:
  explicit Coalescer(CoalesceOptions options) : options_(options) {}
  // The device may give up a kind of merging while it runs. REQUIRES: no packet since Clear().
  void set_options(CoalesceOptions options) { options_ = options; }

  // Takes one whole, validated IP packet (exactly total length). Borrows it until Clear(); may rewrite the headers of
  // the first packet of a run.
  void Add(MutableBytes ip_packet);
  // Ends all runs. The writes in the order in which their first packets came; valid until Clear().
  std::span<TunWrite> Finish();
  void Clear();

 private:
  TunWrite& AddWrite(MutableBytes packet, std::uint32_t flow_hash);
  std::size_t FindRun(const internal::FlowPacket& candidate) const;
  void OpenRun(const internal::FlowPacket& candidate);
  bool ExtendRun(std::size_t index, const internal::FlowPacket& candidate);
  void EndRun(std::size_t index);
  void EndAllRuns();

  CoalesceOptions options_;
  std::vector<TunWrite> writes_;  // the first write_count_ are in use, the others keep their memory
  std::size_t write_count_ = 0;
  // Open runs, dense from 0; flow_hashes_[i] stands for runs_[i] so that a search stays in two cache lines.
  std::size_t run_count_ = 0;
  std::uint64_t opened_ = 0;
  std::array<std::uint32_t, kMaxOpenFlows> flow_hashes_{};
  std::array<internal::FlowRun, kMaxOpenFlows> runs_{};
};

}  // namespace adit
