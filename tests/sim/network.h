// The outer network: who owns which address, and what a path does to a datagram on its way.
//
//   host ── NAT? ──► path (from, to) ──► whoever owns the address when it arrives
//
// A path has faults of its own in each direction. Datagrams of one send that arrive together form one group, as a
// receive call with UDP_GRO returns them.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "simulator.h"
#include "violation.h"

namespace adit::sim {

struct PathFaults {
  double loss = 0;
  double duplicate = 0;
  double corrupt = 0;   // one to three bits flipped
  double truncate = 0;  // cut off somewhere
  double reorder = 0;   // held back by up to `hold`
  double congest = 0;   // ECT becomes CE
  Duration delay = 10ms;
  Duration jitter{0};  // a send as a whole
  Duration hold = 500ms;
  std::size_t mtu = SIZE_MAX;  // of the datagram's payload; more is lost
  bool is_cut = false;         // a blackout: everything is lost
};

struct Datagram {
  std::vector<std::uint8_t> bytes;
  SocketAddress from;
  SocketAddress to;
  std::uint8_t tos = 0;
  std::uint64_t id = 0;          // of the original that left a host; 0: somebody forged it
  bool is_altered = false;       // other than in its mac2
  bool is_mac2_altered = false;  // counts under load only
  bool is_congested = false;     // CE was set on the way
};

struct NetworkCounts {
  std::uint64_t sent = 0, lost = 0, duplicated = 0, altered = 0, held_back = 0, undeliverable = 0;
};

class Network {
 public:
  // Called when a group arrives: all of one sender, equally long but for a shorter last one.
  using Deliver = std::function<void(HostId, std::span<Datagram>)>;

  Network(Simulator& simulator, Rng rng, std::size_t hosts, Deliver deliver);

  PathFaults& faults(HostId from, HostId to) { return faults_[from * hosts_ + to]; }
  // What a host's datagrams bear as their source.
  SocketAddress AddressOf(HostId host, bool is_v6) const { return addresses_[host][is_v6 ? 1 : 0]; }
  // The host's address changes: a NAT in front of it forgot the mapping, or the host moved. The old ones are dead.
  void Rebind(HostId host);
  HostId OwnerOf(const SocketAddress& address) const;
  Instant now() const { return simulator_.now(); }

  // Datagrams of one send call; `from` of each is filled in here.
  void Send(HostId from, std::vector<Datagram> run);
  // Somebody on the network writes whatever they like; it arrives after `delay`, whatever the path's faults.
  void Inject(Datagram datagram, Duration delay);

  // An address that is nobody's host: what is sent there and from there is counted, and the rest is silence.
  static SocketAddress Stranger(bool is_v6);
  // Of handshake messages that answer.
  std::uint64_t bytes_to_stranger() const { return bytes_to_stranger_; }
  std::uint64_t bytes_from_stranger() const { return bytes_from_stranger_; }
  const NetworkCounts& counts() const { return counts_; }

 private:
  void Alter(Datagram& datagram, const PathFaults& faults);
  void Arrive(std::vector<Datagram> group, Duration delay);

  Simulator& simulator_;
  Rng rng_;
  const std::size_t hosts_;
  Deliver deliver_;
  std::vector<PathFaults> faults_;
  std::vector<std::array<SocketAddress, 2>> addresses_;
  std::map<SocketAddress, HostId> owners_;
  std::uint16_t next_mapping_ = 0;
  std::uint64_t bytes_to_stranger_ = 0;
  std::uint64_t bytes_from_stranger_ = 0;
  NetworkCounts counts_;
};

}  // namespace adit::sim
