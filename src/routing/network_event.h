// What can happen to the network of a machine, as plain data.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "routing/snapshot.h"

namespace adit {

enum class EventKind : std::uint8_t { kLink, kAddress, kRoute, kRule, kFirewall };

struct NetworkEvent {
  EventKind kind = EventKind::kLink;
  bool is_removal = false;
  // The netlink port of the socket that asked for it; 0: the kernel itself, or nobody knows.
  std::uint32_t port_id = 0;
  // What was removed; a link also when it changed. Additions are not taken apart.
  std::variant<std::monostate, Link, LinkAddress, Route, Rule> thing;
  // The process, for removals and for firewall changes: "ip (pid 1234, started by bash)". Empty if it cannot be told.
  std::string culprit;
};

struct NetworkNews {
  std::vector<NetworkEvent> events;  // in the order they happened, without our own
  bool is_lost = false;              // the kernel dropped some (ENOBUFS): anything may have changed
};

// What observers are told: the kinds of things that changed since the last time. Our own changes do not count.
struct NetworkChange {
  bool links = false;
  bool addresses = false;
  bool routes = false;
  bool rules = false;
  bool firewall = false;
  bool is_lost = false;  // some events were lost: anything may have changed
  friend bool operator==(const NetworkChange&, const NetworkChange&) = default;
};

}  // namespace adit
