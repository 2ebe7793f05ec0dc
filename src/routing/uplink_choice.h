// Where the sockets are bound to the uplink (LoopAvoidance = bind): the link that the datagrams to each destination
// leave by, decided by the routes that would be there without the tunnel. It fails closed: as long as the network is
// not known, and where no uplink leads to the destination, nothing leaves.
//
// Thread-safe: the control thread says what the network is, the data threads ask.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "base/address.h"
#include "routing/snapshot.h"

namespace adit {

class UplinkChoice {
 public:
  // Beyond the bound all are forgotten: a server that this many peers write to decides anew, from the same routes.
  static constexpr std::size_t kMaxRemembered = 1024;

  explicit UplinkChoice(std::string tunnel) : tunnel_(std::move(tunnel)) {}

  // From now on this network decides. `network` is without what the tunnel itself has put there. True if any of the
  // destinations remembered leaves by another link now.
  bool Decide(const NetSnapshot& network);
  // The network is another now, and nobody has seen it yet. Nothing happens where nothing is decided here.
  void Forget();
  // The routing table decides, as it does before the first Decide().
  void Release();

  // The link's index; 0: nothing may leave. Empty: the routing table decides, as it always does for this machine's own
  // addresses and where the address means nothing without its link.
  std::optional<std::uint32_t> LinkTo(const IpAddress& to);

 private:
  enum class State { kReleased, kUnknown, kKnown };
  std::uint32_t Find(const IpAddress& to) const;
  bool IsOwn(const IpAddress& to) const;

  const std::string tunnel_;
  std::mutex mutex_;                             // for all below
  std::atomic<State> state_ = State::kReleased;  // written under mutex_
  NetSnapshot network_;                          // only what decides
  std::map<IpAddress, std::uint32_t> remembered_;
};

}  // namespace adit
