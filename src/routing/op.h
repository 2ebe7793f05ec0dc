// Operations: what the planner decides, the journal records and the executor does.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "routing/snapshot.h"

namespace adit {

// One change to the kernel. Each knows how to be taken back; the `previous` fields are read by the executor just before
// the change and are what the inverse puts back if the value is still ours by then.
struct SetMtu {
  std::string device;
  std::uint32_t mtu = 0;
  std::uint32_t previous = 0;
  friend bool operator==(const SetMtu&, const SetMtu&) = default;
};
// Switches off the kernel's own link-local address (IN6_ADDR_GEN_MODE_NONE). Over netlink, not by sysctl: that works
// with a read-only /proc/sys, and putting the old mode back does not make the kernel generate an address at once.
struct NoAddressGeneration {
  std::string device;
  std::optional<std::uint8_t> previous;
  friend bool operator==(const NoAddressGeneration&, const NoAddressGeneration&) = default;
};
struct AddAddress {
  std::string device;
  InterfaceAddress address;
  friend bool operator==(const AddAddress&, const AddAddress&) = default;
};
struct LinkUp {
  std::string device;
  friend bool operator==(const LinkUp&, const LinkUp&) = default;
};
struct AddRoute {
  Route route;
  friend bool operator==(const AddRoute&, const AddRoute&) = default;
};
struct AddRule {
  Rule rule;
  friend bool operator==(const AddRule&, const AddRule&) = default;
};
// The firewall's own two; FirewallTarget performs them, KernelTarget does not know them.
struct AddTable {
  std::string name;    // of an nftables table, family inet
  bool stays = false;  // taking it back leaves it: a kill switch that outlives the tunnel
  friend bool operator==(const AddTable&, const AddTable&) = default;
};
struct SetSysctl {
  std::string key;  // with slashes: "net/ipv4/ip_forward"
  std::string value;
  std::string previous;
  friend bool operator==(const SetSysctl&, const SetSysctl&) = default;
};
using Op = std::variant<SetMtu, NoAddressGeneration, AddAddress, LinkUp, AddRoute, AddRule, AddTable, SetSysctl>;

// As `ip` would be told: "ip -4 rule add pref 10500 fwmark 0x1000/0x3000 lookup main protocol kernel". A
// known previous value follows as a comment: "ip link set dev wg0 mtu 1420 # was 1500".
std::string ToString(const Op& op);
// The command that takes it back, for people: "ip -4 rule del pref 10500 ...".
std::string InverseToString(const Op& op);
// Reads what ToString writes (the journal's form), nothing more.
std::optional<Op> ParseOp(std::string_view text);

}  // namespace adit
