#include "tunnel/allowed_ips.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <ranges>

#include "base/check.h"
#include "base/endian.h"

namespace adit {
namespace {

__extension__ using U128 = unsigned __int128;

std::uint32_t LoadV4(const std::uint8_t* address) { return LoadAs<U32Be>(address); }

U128 LoadV6(const std::uint8_t* address) {
  return U128{std::uint64_t{LoadAs<U64Be>(address)}} << 64 | std::uint64_t{LoadAs<U64Be>(address + 8)};
}

std::uint32_t FirstAddress(const Prefix& prefix, std::uint32_t) { return LoadV4(prefix.address().bytes().data()); }
U128 FirstAddress(const Prefix& prefix, U128) { return LoadV6(prefix.address().bytes().data()); }

}  // namespace

template <typename Word>
void AllowedIpsTable::Runs<Word>::Append(Word start, PeerId owner) {
  if (starts.back() == start) {
    // Something more specific begins at the same address. What is before may now be the same owner's.
    owners.back() = owner;
    if (owners.size() > 1 && owners[owners.size() - 2] == owner) {
      starts.pop_back();
      owners.pop_back();
    }
  } else if (owners.back() != owner) {
    starts.push_back(start);
    owners.push_back(owner);
  }
}

template <typename Word>
std::optional<PeerId> AllowedIpsTable::Runs<Word>::Find(Word address) const {
  // The last run that starts at or before `address`. Written so that the compiler makes a conditional move of it:
  // addresses in traffic are not predictable.
  const Word* first = starts.data();
  for (std::size_t count = starts.size(); count > 1;) {
    const std::size_t half = count / 2;
    first = first[half] <= address ? first + half : first;
    count -= half;
  }
  const PeerId owner = owners[static_cast<std::size_t>(first - starts.data())];
  return owner == kNoPeer ? std::nullopt : std::optional(owner);
}

std::optional<PeerId> AllowedIpsTable::LookupV4(const std::uint8_t* address) const { return v4_.Find(LoadV4(address)); }

std::optional<PeerId> AllowedIpsTable::LookupV6(const std::uint8_t* address) const { return v6_.Find(LoadV6(address)); }

std::optional<PeerId> AllowedIpsTable::Lookup(const IpAddress& address) const {
  return address.is_v6() ? LookupV6(address.bytes().data()) : LookupV4(address.bytes().data());
}

std::optional<PeerId> AllowedIps::Insert(const Prefix& prefix, PeerId peer) {
  CHECK(peer != kNoPeer);
  const auto [it, is_new] = owners_.try_emplace(prefix);
  Owner& owner = it->second;
  if (owner.peer == peer) return std::nullopt;

  Order& order = by_peer_[peer];
  if (is_new) {
    owner = {.peer = peer, .place = order.insert(order.end(), prefix)};
    return std::nullopt;
  }
  const PeerId loser = owner.peer;
  const auto loser_order = by_peer_.find(loser);
  order.splice(order.end(), loser_order->second, owner.place);
  if (loser_order->second.empty()) by_peer_.erase(loser_order);
  owner.peer = peer;
  return loser;
}

bool AllowedIps::Remove(const Prefix& prefix, PeerId peer) {
  const auto it = owners_.find(prefix);
  if (it == owners_.end() || it->second.peer != peer) return false;
  const auto order = by_peer_.find(peer);
  order->second.erase(it->second.place);
  if (order->second.empty()) by_peer_.erase(order);
  owners_.erase(it);
  return true;
}

void AllowedIps::RemovePeer(PeerId peer) {
  const auto order = by_peer_.find(peer);
  if (order == by_peer_.end()) return;
  for (const Prefix& prefix : order->second) owners_.erase(prefix);
  by_peer_.erase(order);
}

std::vector<Prefix> AllowedIps::PrefixesOf(PeerId peer) const {
  const auto order = by_peer_.find(peer);
  if (order == by_peer_.end()) return {};
  return {order->second.begin(), order->second.end()};
}

std::shared_ptr<const AllowedIpsTable> AllowedIps::Build() const {
  auto table = std::make_shared<AllowedIpsTable>();

  // Walks the prefixes of one family in order of their first address and keeps those that enclose the present one on a
  // stack: where one ends, the run of the one around it goes on.
  const auto build = []<typename Word>(AllowedIpsTable::Runs<Word>& runs, const auto& family) {
    constexpr unsigned kBits = 8 * sizeof(Word);
    constexpr Word kMax = static_cast<Word>(~Word{0});
    struct Open {
      Word last;
      PeerId owner;
    };
    std::array<Open, kBits + 1> enclosing;
    std::size_t depth = 0;
    const auto close_before = [&](Word next, bool is_end) {
      while (depth > 0 && (is_end || enclosing[depth - 1].last < next)) {
        const Word last = enclosing[--depth].last;
        if (last != kMax) {
          runs.Append(static_cast<Word>(last + 1), depth > 0 ? enclosing[depth - 1].owner : kNoPeer);
        }
      }
    };
    for (const auto& [prefix, owner] : family) {
      const Word first = FirstAddress(prefix, Word{});
      const Word size_minus_one =
          prefix.length() == 0 ? kMax : static_cast<Word>((Word{1} << (kBits - prefix.length())) - 1);
      close_before(first, false);
      runs.Append(first, owner.peer);
      enclosing[depth++] = {.last = static_cast<Word>(first | size_minus_one), .owner = owner.peer};
    }
    close_before(kMax, true);
    runs.starts.shrink_to_fit();
    runs.owners.shrink_to_fit();
  };
  const auto first_v6 = owners_.lower_bound(Prefix(IpAddress::V6(ByteArray<16>{}), 0));
  build(table->v4_, std::ranges::subrange(owners_.begin(), first_v6));
  build(table->v6_, std::ranges::subrange(first_v6, owners_.end()));
  return table;
}

}  // namespace adit
