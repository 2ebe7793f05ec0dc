// What the packet filters of other programs drop, as far as it concerns a tunnel: read from nf_tables for `adit
// doctor`. Reads only; changes nothing.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/result.h"
#include "routing/netlink.h"

namespace adit {

inline constexpr std::size_t kMaxForeignDrops = 256;  // those beyond are left out

struct FilterPlace {
  std::string family;  // as nft writes it: "ip", "ip6", "inet", ...
  std::string table;
  std::string chain;
  // "table inet filter, chain input"
  std::string ToString() const;
  friend auto operator<=>(const FilterPlace&, const FilterPlace&) = default;
};

// A base chain whose policy is drop.
struct DropPolicy {
  FilterPlace place;
  std::string hook;  // "input", "forward", "output", "prerouting", "postrouting"
  friend auto operator<=>(const DropPolicy&, const DropPolicy&) = default;
};

// A rule that drops what goes to an address unless it came in by one device: Docker's (28 and later) in its raw table.
struct ContainerDrop {
  FilterPlace place;
  IpAddress destination;
  std::string unless_device;
  friend auto operator<=>(const ContainerDrop&, const ContainerDrop&) = default;
};

struct ForeignFilters {
  std::vector<DropPolicy> policies;
  std::vector<ContainerDrop> containers;
  // Rules that drop what comes in by another device than the one its answer would leave by: firewalld's IPv6_rpfilter.
  std::vector<FilterPlace> reverse_path;
};

// One message of a dump into `filters`. Tables called "adit" or "adit-..." are our own and left out.
void ReadFilterChain(nlmsghdr* message, ForeignFilters& filters);
void ReadFilterRule(nlmsghdr* message, ForeignFilters& filters);

// Of the network namespace of `socket`, which must be one of NETLINK_NETFILTER. An error means that the kernel has no
// nf_tables, or does not let us look.
Result<ForeignFilters> TakeForeignFilters(NetlinkSocket& socket);

}  // namespace adit
