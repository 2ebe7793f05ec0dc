// For tests: a device that remembers what it is told, applying a DeviceUpdate as plainly as its definition reads.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "config/device.h"

namespace adit {

class FakeDevice final : public DeviceControl {
 public:
  int fail_with = 0;  // what SetDevice returns; then nothing changes
  int set_calls = 0;

  DeviceStatus GetDevice() const override {
    DeviceStatus status = status_;
    for (const auto& [prefix, owner] : owners_) {
      const auto peer = std::ranges::find(status.peers, owner, &PeerStatus::public_key);
      peer->allowed_ips.push_back(prefix);
    }
    return status;
  }

  int SetDevice(const DeviceUpdate& update) override {
    ++set_calls;
    if (fail_with != 0) return fail_with;
    if (update.private_key) status_.private_key = *update.private_key;
    if (update.listen_port) status_.listen_port = *update.listen_port;
    if (update.fwmark) status_.fwmark = *update.fwmark;
    if (update.replace_peers) {
      status_.peers.clear();
      owners_.clear();
    }
    if (!status_.private_key.is_zero()) RemovePeer(status_.private_key.ComputePublicKey());
    for (const PeerUpdate& peer : update.peers) Apply(peer);
    return 0;
  }

  PeerStatus& peer(std::size_t index) { return status_.peers.at(index); }

 private:
  void RemovePeer(const PublicKey& key) {
    std::erase_if(status_.peers, [&key](const PeerStatus& peer) { return peer.public_key == key; });
    std::erase_if(owners_, [&key](const auto& entry) { return entry.second == key; });
  }

  void Apply(const PeerUpdate& update) {
    const PublicKey& key = update.public_key;
    if (!status_.private_key.is_zero() && status_.private_key.ComputePublicKey() == key) return;
    if (update.remove) return RemovePeer(key);
    auto peer = std::ranges::find(status_.peers, key, &PeerStatus::public_key);
    if (peer == status_.peers.end()) {
      if (update.update_only) return;
      status_.peers.emplace_back().public_key = key;
      peer = status_.peers.end() - 1;
    }
    if (update.preshared_key) peer->preshared_key = *update.preshared_key;
    if (update.endpoint) peer->endpoint = update.endpoint;
    if (update.persistent_keepalive_seconds) peer->persistent_keepalive_seconds = *update.persistent_keepalive_seconds;
    if (update.replace_allowed_ips) std::erase_if(owners_, [&key](const auto& entry) { return entry.second == key; });
    for (const AllowedIpChange& change : update.allowed_ips) {
      if (!change.remove) {
        owners_[change.prefix] = key;
      } else if (const auto owner = owners_.find(change.prefix); owner != owners_.end() && owner->second == key) {
        owners_.erase(owner);
      }
    }
  }

  DeviceStatus status_;  // without allowed IPs
  std::map<Prefix, PublicKey> owners_;
};

}  // namespace adit
