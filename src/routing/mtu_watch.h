// When is the path to a peer searched for a black hole (mtu_search.h), and what comes of it: pure, the counters and the
// time go in.
//
//   new path  ->  it carries traffic  ->  one search  ->  clear, or a limit for as long as this is the path
//
// An idle tunnel says nothing. A path is searched once: that it lets larger packets pass later, without the machine's
// network or the peer's place having changed, is not noticed; nor is a way back that swallows what the way there lets
// pass, because the answers to probes are small.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/time.h"
#include "config/conf_file.h"
#include "crypto/keys.h"
#include "routing/mtu_search.h"
#include "routing/plan.h"

namespace adit {

// The way to one peer. Any other value is another path, about which nothing is known.
struct PeerPath {
  PublicKey peer;
  EndpointWay way;
  unsigned mtu = 0;    // the tunnel's, as the routes have it
  unsigned floor = 0;  // and what it will not go below
  friend bool operator==(const PeerPath&, const PeerPath&) = default;
};

// The paths of a tunnel whose MTU is found out: of the first MtuWatch::kMaxPeers peers that have an endpoint and a way
// to it. Empty if the file gives the MTU.
std::vector<PeerPath> PathsOf(const ConfFile& conf, std::span<const std::optional<SocketAddress>> endpoints,
                              const Plan& plan);

// Where probes for that peer go: addresses that its kernel answers for by itself, of one family, best first. With a hop
// limit of 1 it answers for those that it would pass on, too. `index` is the peer's in `conf`.
std::vector<IpAddress> ProbeDestinations(const ConfFile& conf, std::size_t index);

class MtuWatch {
 public:
  // All peers share one MTU, and a tunnel that leads somewhere has few. The others' paths are taken as the routes have
  // them.
  static constexpr std::size_t kMaxPeers = 16;
  // So much within the window, out and back together, is use, if something came back at all. A keepalive each second
  // and the handshakes are less; the first window of an upload that got stuck is more.
  static constexpr std::uint64_t kUsedBytes = 6144;
  static constexpr Duration kUseWindow = 60s;
  // A search that found nothing out is made again, later.
  static constexpr unsigned kMaxSearches = 3;
  static constexpr Duration kSearchAgainAfter = 60s;

  // What is known of paths that are still there stays. True if the limit is another one now.
  bool Follow(std::vector<PeerPath> paths);
  // The paths that wait for traffic.
  std::vector<PublicKey> Waiting() const;
  void OnTraffic(const PublicKey& peer, std::uint64_t tx_bytes, std::uint64_t rx_bytes, Instant now);

  struct Task {
    PeerPath path;
    unsigned full = 0;  // the largest size to try: what is in force
  };
  // The search that is due; it is under way from then on, and no other one is due until it is over.
  std::optional<Task> Take();
  // False: the path that is searched is gone; the search should end, and its verdict is nobody's.
  bool IsSearching() const;
  // True if the limit is another one now.
  bool OnVerdict(MtuVerdict verdict, unsigned result, Instant now);

  // What the tunnel's MTU must not exceed; 0: nothing is known.
  unsigned limit() const;
  std::vector<std::string> Warnings() const;

 private:
  enum class State { kWaiting, kDue, kSearching, kKnown };
  struct Row {
    PeerPath path;
    State state = State::kWaiting;
    unsigned searches = 0;
    Instant not_before;
    bool is_new_peer = false;  // it counts from zero: all that it carried went by this path
    std::optional<Instant> window_at;
    std::uint64_t tx_bytes = 0;  // at the window's begin
    std::uint64_t rx_bytes = 0;
    unsigned searched_up_to = 0;
    unsigned limit = 0;        // 0: none
    bool is_hopeless = false;  // not even the floor passes
  };
  Row* Searched();

  std::vector<Row> rows_;
};

}  // namespace adit
