// What a WireGuard device is told and what it tells: the data behind the UAPI socket, `adit status` and a .conf file's
// protocol half. Plain structs; parsing and printing is uapi.h and conf_file.h, applying is the engine's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/address.h"
#include "base/time.h"
#include "crypto/keys.h"

namespace adit {

struct AllowedIpChange {
  Prefix prefix;
  bool remove = false;  // UAPI's "allowed_ip=-..."; removing what another peer owns is a no-op
};

// One peer's section of a set request. Absent fields stay as they are.
struct PeerUpdate {
  PublicKey public_key;
  bool remove = false;
  bool update_only = false;                   // do nothing if the peer is unknown
  std::optional<PresharedKey> preshared_key;  // zeros clear it
  std::optional<SocketAddress> endpoint;
  std::optional<std::uint16_t> persistent_keepalive_seconds;  // 0 = off
  bool replace_allowed_ips = false;
  std::vector<AllowedIpChange> allowed_ips;  // in the order given; a later owner wins
};

// A whole set request, validated. It is applied in this order: device fields, replace_peers, peers as listed.
struct DeviceUpdate {
  std::optional<PrivateKey> private_key;  // clamped; zeros remove the key
  std::optional<std::uint16_t> listen_port;
  std::optional<std::uint32_t> fwmark;
  bool replace_peers = false;
  std::vector<PeerUpdate> peers;
};

struct PeerStatus {
  PublicKey public_key;
  PresharedKey preshared_key;
  std::optional<SocketAddress> endpoint;
  std::optional<WallTime> last_handshake;
  std::uint64_t rx_bytes = 0;  // every authenticated WireGuard datagram, headers included, as `wg` counts
  std::uint64_t tx_bytes = 0;
  std::uint16_t persistent_keepalive_seconds = 0;
  std::vector<Prefix> allowed_ips;
};

// `peers` is in the order of their creation.
struct DeviceStatus {
  PrivateKey private_key;         // zeros if none
  std::uint16_t listen_port = 0;  // the port really bound, 0 if none
  std::uint32_t fwmark = 0;
  std::vector<PeerStatus> peers;
};

// The device as the control side sees it. Implemented by the engine; called on the control thread only.
class DeviceControl {
 public:
  virtual ~DeviceControl() = default;
  virtual DeviceStatus GetDevice() const = 0;
  // All or nothing. Returns 0 or a positive errno value (EADDRINUSE, EPERM for the mark, EINVAL); on failure nothing
  // has changed.
  virtual int SetDevice(const DeviceUpdate& update) = 0;
};

}  // namespace adit
