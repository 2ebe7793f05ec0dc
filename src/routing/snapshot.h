// What the kernel's routing looks like at one moment: plain, ordered, comparable data. The planner reads it, tests
// compare two of them. Numbers are the kernel's (linux/rtnetlink.h, linux/fib_rules.h); devices are names, because
// names are what a person reads and an index says nothing after the device is gone.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/address.h"
#include "config/conf_file.h"

namespace adit {

inline constexpr std::uint32_t kMainTable = 254;           // RT_TABLE_MAIN
inline constexpr std::uint32_t kDefaultTable = 253;        // RT_TABLE_DEFAULT
inline constexpr std::uint8_t kAddressGenerationNone = 1;  // IN6_ADDR_GEN_MODE_NONE

inline constexpr const char* kLoopback = "lo";

enum class Family : std::uint8_t { kV4, kV6 };
inline Family FamilyOf(const IpAddress& ip) { return ip.is_v6() ? Family::kV6 : Family::kV4; }

// "ip/len", or "ip" for a single address.
std::optional<InterfaceAddress> ParseInterfaceAddress(std::string_view text);

struct Link {
  std::uint32_t index = 0;
  std::string name;
  std::uint32_t mtu = 0;
  bool is_up = false;  // IFF_UP: the administrator's wish, not the carrier
  // IN6_ADDR_GEN_MODE_*: whether the kernel makes a link-local address; 0 also without IPv6.
  std::uint8_t address_generation = 0;
  std::string kind;  // IFLA_INFO_KIND: "tun", "veth", ...; empty for hardware
  friend auto operator<=>(const Link&, const Link&) = default;
};

struct LinkAddress {
  std::string device;
  InterfaceAddress address;
  friend auto operator<=>(const LinkAddress&, const LinkAddress&) = default;
};

enum class RouteType : std::uint8_t {  // RTN_*; the kernel's other types keep their number
  kUnicast = 1,
  kLocal = 2,
  kBroadcast = 3,
  kMulticast = 5,
  kBlackhole = 6,
  kUnreachable = 7,
  kProhibit = 8,
  kThrow = 9,
};

inline constexpr std::uint8_t kRouteProtocolStatic = 4;  // RTPROT_STATIC: set by an administrator's program
inline constexpr std::uint8_t kProtocolKernel = 2;       // RTPROT_KERNEL

struct Route {
  Prefix destination;  // also says the family
  std::uint32_t table = kMainTable;
  RouteType type = RouteType::kUnicast;
  std::uint32_t metric = 0;
  std::uint8_t protocol = kRouteProtocolStatic;
  std::string device;                // of the first next hop; empty for unreachable and its like
  std::optional<IpAddress> gateway;  // of the first next hop
  std::optional<IpAddress> preferred_source;
  std::uint32_t mtu = 0;  // RTAX_MTU, 0 if none

  Family family() const { return FamilyOf(destination.address()); }
  // The words after "ip -4 route add".
  std::string ToString() const;
  friend auto operator<=>(const Route&, const Route&) = default;
};

enum class RuleAction : std::uint8_t {  // FR_ACT_*
  kLookup = 1,
  kGoto = 2,
  kNop = 3,
  kBlackhole = 6,
  kUnreachable = 7,
  kProhibit = 8,
};

struct PortRange {
  std::uint16_t first = 0;
  std::uint16_t last = 0;
  friend auto operator<=>(const PortRange&, const PortRange&) = default;
};

struct Rule {
  Family family = Family::kV4;
  std::uint32_t priority = 0;
  bool invert = false;  // "not"
  std::optional<Prefix> source;
  std::optional<Prefix> destination;
  std::uint32_t mark = 0;
  std::uint32_t mark_mask = 0;  // 0: the mark does not matter
  std::string input_device;
  std::string output_device;
  std::uint8_t ip_protocol = 0;
  std::optional<PortRange> source_ports;
  std::optional<PortRange> destination_ports;
  std::optional<std::pair<std::uint32_t, std::uint32_t>> uids;
  std::uint8_t tos = 0;
  bool l3mdev = false;
  RuleAction action = RuleAction::kLookup;
  std::uint32_t table = 0;
  std::uint32_t goto_priority = 0;
  int suppress_prefixlength = -1;  // -1: none
  int suppress_group = -1;
  std::uint8_t protocol = kProtocolKernel;

  // Whether a locally made packet carrying `packet_mark`, whatever else it is, is taken by this rule: its only selector
  // is the mark, or it has none.
  bool TakesEveryPacketMarked(std::uint32_t packet_mark) const;
  // The words after "ip -4 rule add".
  std::string ToString() const;
  friend auto operator<=>(const Rule&, const Rule&) = default;
};

// All vectors are sorted. Routes hold every table of both families, without cached entries.
struct NetSnapshot {
  bool has_ipv6 = true;     // the kernel knows AF_INET6 at all
  bool takes_rules = true;  // policy rules, in all families it knows. True where we have no right to change anything
  bool takes_marks = true;  // SO_MARK, likewise
  std::vector<Link> links;
  std::vector<LinkAddress> addresses;
  std::vector<Route> routes;
  std::vector<Rule> rules;
  // By key with slashes ("net/ipv4/conf/eth0/rp_filter"), the value without its newline; absent if the file is.
  // Holds, for every device, "all" and "default": ipv4 rp_filter, src_valid_mark; ipv6 disable_ipv6.
  std::map<std::string, std::string, std::less<>> sysctls;

  // Tables that others named in iproute2's files, whether or not there is anything in them.
  std::vector<std::uint32_t> named_tables;

  const Link* FindLink(std::string_view name) const;
  // The number at `key`, or `fallback`.
  int Sysctl(std::string_view key, int fallback) const;
  // The route that `table` alone would choose for `ip` over a device other than `except_device` and the loopback, which
  // leads nowhere; null if none.
  const Route* Lookup(const IpAddress& ip, std::uint32_t table, std::string_view except_device) const;
  friend bool operator==(const NetSnapshot&, const NetSnapshot&) = default;
};

}  // namespace adit
