// Somebody on the path who sees everything, keeps some of it, and writes whatever they like. They have no keys.
//
// What they never do is bring a message to its receiver first, from an address of their own: that would move the
// endpoint, as the protocol allows it to, and the run would then test the roaming race instead of everything else.
#pragma once

#include <cstdint>
#include <deque>
#include <span>

#include "network.h"
#include "observer.h"

namespace adit::sim {

class Host;

class Attacker {
 public:
  Attacker(Rng rng, Network& network, const Observer& observer, bool is_present)
      : rng_(rng), network_(network), observer_(observer), is_present_(is_present) {}

  void Capture(std::span<const Datagram> group);
  // One datagram of some kind at `victim`.
  void Shoot(Host& victim);
  std::uint64_t shots() const { return shots_; }

 private:
  static constexpr std::size_t kKept = 48;  // of each kind

  void Replay(Datagram captured);
  void Damage(Datagram captured);
  void Forge(Host& victim);

  Rng rng_;
  Network& network_;
  const Observer& observer_;
  const bool is_present_;
  std::deque<Datagram> handshakes_;
  std::deque<Datagram> data_;
  std::uint64_t shots_ = 0;
};

}  // namespace adit::sim
