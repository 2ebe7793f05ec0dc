#include "cli/sync.h"

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>
#include <vector>

namespace adit {

DeviceUpdate MakeSyncUpdate(DeviceUpdate wanted, const DeviceStatus& now) {
  DeviceUpdate result = std::move(wanted);
  result.replace_peers = false;
  result.fwmark.reset();
  if (result.private_key && *result.private_key == now.private_key) result.private_key.reset();
  if (result.listen_port && (*result.listen_port == 0 || *result.listen_port == now.listen_port)) {
    result.listen_port.reset();
  }

  std::set<PublicKey> kept;
  for (PeerUpdate& peer : result.peers) {
    kept.insert(peer.public_key);
    peer.replace_allowed_ips = true;
    if (!peer.preshared_key) peer.preshared_key.emplace();
    if (!peer.persistent_keepalive_seconds) peer.persistent_keepalive_seconds = 0;
  }
  std::vector<PeerUpdate> peers;
  for (const PeerStatus& peer : now.peers) {
    if (kept.contains(peer.public_key)) continue;
    PeerUpdate gone;
    gone.public_key = peer.public_key;
    gone.remove = true;
    peers.push_back(std::move(gone));
  }
  std::ranges::move(result.peers, std::back_inserter(peers));
  result.peers = std::move(peers);
  return result;
}

}  // namespace adit
