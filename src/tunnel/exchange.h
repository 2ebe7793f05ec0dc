// What the control plane and the data plane share. One per device; outlives every thread that uses it.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "tunnel/allowed_ips.h"
#include "tunnel/drop.h"
#include "tunnel/icmp.h"
#include "tunnel/index_table.h"
#include "tunnel/limits.h"
#include "tunnel/peer.h"
#include "tunnel/published.h"

namespace adit {

// The snapshot that data threads read: who owns an address. Immutable once published.
struct PeerTable {
  std::shared_ptr<const AllowedIpsTable> allowed_ips;
  std::vector<std::shared_ptr<Peer>> peers;  // by PeerId; empty where an id is not in use

  // REQUIRES: id came from this table's allowed_ips.
  const std::shared_ptr<Peer>& Find(PeerId id) const { return peers[id]; }
};

struct Exchange {
  explicit Exchange(const ProtocolLimits& protocol_limits);

  const ProtocolLimits limits;
  Published<PeerTable> peers;
  IndexTable sessions;
  ControlInbox inbox;
  SharedDropCounts drops;
  IcmpLimiter icmp_limiter;
  std::atomic<std::size_t> staged_bytes{0};  // over all peers, at most kMaxStagedBytes
  std::atomic<std::uint32_t> mtu{0};         // of the TUN, for the padding rule; 0 = unknown
  std::atomic<std::uint16_t> own_port{0};    // that our datagrams come from, to know them in the TUN; 0 = none
};

}  // namespace adit
