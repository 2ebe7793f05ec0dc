// Which peer owns an address: cryptokey routing (paper, 2). The longest prefix decides, for the destination of what
// goes out and for the source of what comes in.
//
//   AllowedIps       what is configured; the control thread's. A prefix has one owner at a time.
//   AllowedIpsTable  the same, made for lookups: immutable, read by any number of threads.
//
// The table is not a tree. Nested prefixes cut the address space into runs that have one owner each; the table is the
// sorted list of the runs' first addresses, and a lookup is a binary search in it: no pointers, few cache lines, and
// at most twice as many runs as prefixes.
#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "base/address.h"

namespace adit {

// A small number for a peer, chosen by whoever configures: an index into a vector of peers. All ones means none.
using PeerId = std::uint32_t;
inline constexpr PeerId kNoPeer = UINT32_MAX;

class AllowedIpsTable {
 public:
  std::optional<PeerId> Lookup(const IpAddress& address) const;
  // The address as it stands in a packet header, 4 or 16 bytes.
  std::optional<PeerId> LookupV4(const std::uint8_t* address) const;
  std::optional<PeerId> LookupV6(const std::uint8_t* address) const;

 private:
  friend class AllowedIps;
  __extension__ using U128 = unsigned __int128;

  // Run i goes from starts[i] to before starts[i + 1], the last one to the end; owners[i] is kNoPeer for a gap.
  // starts[0] is 0.
  template <typename Word>
  struct Runs {
    std::vector<Word> starts{0};
    std::vector<PeerId> owners{kNoPeer};

    void Append(Word start, PeerId owner);
    std::optional<PeerId> Find(Word address) const;
  };

  Runs<std::uint32_t> v4_;
  Runs<U128> v6_;
};

class AllowedIps {
 public:
  AllowedIps() = default;
  AllowedIps(const AllowedIps&) = delete;
  AllowedIps& operator=(const AllowedIps&) = delete;

  // Gives the prefix to `peer`. Returns the other peer that lost it, if there was one. Inserting what the peer
  // already owns changes nothing, its place in PrefixesOf() included. REQUIRES: peer != kNoPeer.
  std::optional<PeerId> Insert(const Prefix& prefix, PeerId peer);
  // False, and nothing changes, if `peer` does not own exactly this prefix.
  bool Remove(const Prefix& prefix, PeerId peer);
  void RemovePeer(PeerId peer);

  // In the order they were inserted.
  std::vector<Prefix> PrefixesOf(PeerId peer) const;
  std::size_t size() const { return owners_.size(); }

  // A new table of the present state: linear in size(), 13 ms for 130,560 prefixes. Build it once per request, not once
  // per prefix.
  std::shared_ptr<const AllowedIpsTable> Build() const;

 private:
  using Order = std::list<Prefix>;
  struct Owner {
    PeerId peer = kNoPeer;
    Order::iterator place;  // in its peer's list
  };

  // Sorted by family, address, length: every prefix comes before those inside it, which is what Build() walks.
  std::map<Prefix, Owner> owners_;
  std::map<PeerId, Order> by_peer_;
};

}  // namespace adit
