// From what is in force to what should be: the smallest list of changes, by stable identity. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "routing/op.h"
#include "routing/snapshot.h"

namespace adit {

struct Change {
  enum class Kind : std::uint8_t {
    kAdd,      // of wanted[wanted]
    kReplace,  // of in_force[old] by wanted[wanted], in one step, because the kernel can keep only one of them
    kRemove,   // of in_force[old]
  };
  Kind kind = Kind::kAdd;
  std::size_t wanted = 0;
  std::size_t old = 0;
  friend bool operator==(const Change&, const Change&) = default;
};

// Additions and replacements in the order of `wanted`, then removals in the reverse order of `in_force`: what comes new
// works before the old goes. An operation's identity is what the kernel tells things apart by: a route's table,
// destination and metric, a rule's whole text, an address on its device, one setting of a device. `previous` values do
// not matter.
std::vector<Change> Diff(std::span<const Op> in_force, std::span<const Op> wanted);

// Which of `in_force` the kernel has no more, in their order: rules, routes, addresses, and the link being up. Settings
// that somebody else changed (MTU) are his. Of a device that is gone nothing is missing.
std::vector<std::size_t> Missing(std::span<const Op> in_force, const NetSnapshot& snapshot);

// The machine as it would be without `in_force`, for planning anew: also without what the kernel added for its sake.
NetSnapshot Without(NetSnapshot snapshot, std::span<const Op> in_force);

}  // namespace adit
