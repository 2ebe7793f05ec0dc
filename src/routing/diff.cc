#include "routing/diff.h"

#include <algorithm>
#include <map>
#include <set>
#include <tuple>
#include <variant>

namespace adit {
namespace {

// Two operations with the same key cannot stand beside each other.
using RouteKey = std::tuple<std::uint32_t, Prefix, std::uint32_t>;          // table, destination, metric
using SettingKey = std::tuple<std::size_t, std::string, InterfaceAddress>;  // Op::index(), device, address
using Key = std::variant<RouteKey, Rule, SettingKey>;

Key KeyOf(const Op& op) {
  struct Visitor {
    std::size_t index;
    Key operator()(const AddRoute& add) const {
      return RouteKey{add.route.table, add.route.destination, add.route.metric};
    }
    Key operator()(const AddRule& add) const { return add.rule; }
    Key operator()(const AddAddress& add) const { return SettingKey{index, add.device, add.address}; }
    Key operator()(const SetMtu& set) const { return SettingKey{index, set.device, {}}; }
    Key operator()(const NoAddressGeneration& set) const { return SettingKey{index, set.device, {}}; }
    Key operator()(const LinkUp& set) const { return SettingKey{index, set.device, {}}; }
    Key operator()(const AddTable& add) const { return SettingKey{index, add.name, {}}; }
    Key operator()(const SetSysctl& set) const { return SettingKey{index, set.key, {}}; }
  };
  return std::visit(Visitor{op.index()}, op);
}

// Of two with the same key.
bool IsSame(const Op& a, const Op& b) {
  if (const auto* mtu = std::get_if<SetMtu>(&a)) return mtu->mtu == std::get<SetMtu>(b).mtu;
  if (const auto* route = std::get_if<AddRoute>(&a)) return route->route == std::get<AddRoute>(b).route;
  return true;
}

}  // namespace

std::vector<Change> Diff(std::span<const Op> in_force, std::span<const Op> wanted) {
  std::map<Key, std::size_t> old_by_key;
  for (std::size_t i = 0; i < in_force.size(); ++i) old_by_key.emplace(KeyOf(in_force[i]), i);
  std::vector<Change> changes;
  std::vector<bool> is_kept(in_force.size());
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto found = old_by_key.find(KeyOf(wanted[i]));
    if (found == old_by_key.end()) {
      changes.push_back({Change::Kind::kAdd, i, 0});
      continue;
    }
    is_kept[found->second] = true;
    if (!IsSame(in_force[found->second], wanted[i])) changes.push_back({Change::Kind::kReplace, i, found->second});
  }
  for (std::size_t i = in_force.size(); i-- > 0;) {
    if (!is_kept[i]) changes.push_back({Change::Kind::kRemove, 0, i});
  }
  return changes;
}

std::vector<std::size_t> Missing(std::span<const Op> in_force, const NetSnapshot& snapshot) {
  std::vector<std::size_t> missing;
  const auto has = [](const auto& sorted, const auto& item) { return std::ranges::binary_search(sorted, item); };
  for (std::size_t i = 0; i < in_force.size(); ++i) {
    bool is_there = true;
    if (const auto* rule = std::get_if<AddRule>(&in_force[i])) {
      is_there = has(snapshot.rules, rule->rule);
    } else if (const auto* route = std::get_if<AddRoute>(&in_force[i])) {
      is_there = has(snapshot.routes, route->route) ||
                 (!route->route.device.empty() && snapshot.FindLink(route->route.device) == nullptr);
    } else if (const auto* address = std::get_if<AddAddress>(&in_force[i])) {
      is_there = has(snapshot.addresses, LinkAddress{address->device, address->address}) ||
                 snapshot.FindLink(address->device) == nullptr;
    } else if (const auto* up = std::get_if<LinkUp>(&in_force[i])) {
      const Link* link = snapshot.FindLink(up->device);
      is_there = link == nullptr || link->is_up;
    }
    if (!is_there) missing.push_back(i);
  }
  return missing;
}

NetSnapshot Without(NetSnapshot snapshot, std::span<const Op> in_force) {
  std::set<Rule> rules;
  std::set<Route> routes;
  std::set<LinkAddress> addresses;
  std::set<std::string> devices;
  const auto find_link = [&](const std::string& name) {
    const auto found = std::ranges::find(snapshot.links, name, &Link::name);
    return found == snapshot.links.end() ? nullptr : &*found;
  };
  for (const Op& op : in_force) {
    if (const auto* rule = std::get_if<AddRule>(&op)) {
      rules.insert(rule->rule);
    } else if (const auto* route = std::get_if<AddRoute>(&op)) {
      routes.insert(route->route);
    } else if (const auto* address = std::get_if<AddAddress>(&op)) {
      addresses.insert({address->device, address->address});
      devices.insert(address->device);
    } else if (const auto* mtu = std::get_if<SetMtu>(&op)) {
      Link* link = find_link(mtu->device);
      if (link != nullptr && link->mtu == mtu->mtu && mtu->previous != 0) link->mtu = mtu->previous;
    } else if (const auto* mode = std::get_if<NoAddressGeneration>(&op)) {
      Link* link = find_link(mode->device);
      if (link != nullptr && mode->previous) link->address_generation = *mode->previous;
    } else if (const auto* up = std::get_if<LinkUp>(&op)) {
      if (Link* link = find_link(up->device)) link->is_up = false;
      devices.insert(up->device);
    }
  }
  std::erase_if(snapshot.rules, [&](const Rule& rule) { return rules.contains(rule); });
  std::erase_if(snapshot.addresses, [&](const LinkAddress& address) { return addresses.contains(address); });
  std::erase_if(snapshot.routes, [&](const Route& route) {
    return routes.contains(route) || (route.protocol == kProtocolKernel && devices.contains(route.device));
  });
  std::ranges::sort(snapshot.links);
  return snapshot;
}

}  // namespace adit
