// Small verbs on links, addresses and routes for `adit demo`, the TUN's tuning and the tests. Unlike the executor they
// keep no journal: they serve namespaces that are thrown away whole.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "routing/netlink.h"
#include "routing/snapshot.h"

namespace adit {

// ENODEV if there is none.
Result<Link> FindLink(NetlinkSocket& socket, const std::string& name);

struct VethEnd {
  std::string name;
  int netns_fd = -1;  // where this end goes
};
// Both ends are down at first.
Status CreateVethPair(const VethEnd& left, const VethEnd& right);

Status SetLinkUp(NetlinkSocket& socket, const std::string& name, bool up);
Status SetLinkMtu(NetlinkSocket& socket, const std::string& name, std::uint32_t mtu);
// `mode` is IN6_ADDR_GEN_MODE_*.
Status SetAddressGeneration(NetlinkSocket& socket, const std::string& name, std::uint8_t mode);
// Whether another IPv4 address of the network takes over when the first is removed. Over netlink, so that it works with
// a read-only /proc/sys.
Status SetPromoteSecondaries(NetlinkSocket& socket, const std::string& name, bool on);
// IPv6 addresses are added without duplicate address detection, so they can be used at once.
Status AddLinkAddress(NetlinkSocket& socket, const std::string& name, const InterfaceAddress& address);
Status MoveLink(NetlinkSocket& socket, const std::string& name, int netns_fd);
Status DeleteLink(NetlinkSocket& socket, const std::string& name);
Status AddKernelRoute(NetlinkSocket& socket, const Route& route);
Status DeleteKernelRoute(NetlinkSocket& socket, const Route& route);

struct LinkTuning {
  std::optional<std::uint32_t> gso_max_segments;        // IFLA_GSO_MAX_SEGS
  std::optional<std::uint32_t> gso_max_bytes;           // IFLA_GSO_MAX_SIZE
  std::optional<std::uint32_t> transmit_queue_packets;  // IFLA_TXQLEN
};
Status TuneLink(NetlinkSocket& socket, const std::string& name, const LinkTuning& tuning);

}  // namespace adit
