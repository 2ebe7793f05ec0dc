// wg-quick's .conf dialect, as people's providers really write it: byte-order mark, CRLF, empty values, repeated keys,
// comments anywhere, keys of other programs. Text in, plain structs out; reading the file, resolving names and running
// hooks is the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/result.h"
#include "config/device.h"
#include "config/routing_keys.h"
#include "config/secret_text.h"
#include "config/uapi.h"
#include "crypto/keys.h"

namespace adit {

inline constexpr std::size_t kMaxConfFileBytes = 16 << 20;  // a file with 255 * 256 allowed IPs has about 1.5 MB
inline constexpr std::size_t kMaxConfWarnings = 100;        // what comes after them is left out, and the last says so
inline constexpr std::size_t kMaxForwards = 256;            // more are refused
inline constexpr unsigned kMinMtu = 576;                    // what every IPv4 host takes (RFC 791)
inline constexpr unsigned kMaxMtu = 65535;

// An address for the interface itself: unlike a Prefix it keeps its host bits.
struct InterfaceAddress {
  IpAddress ip;
  unsigned prefix_length = 0;

  std::string ToString() const;
  friend auto operator<=>(const InterfaceAddress&, const InterfaceAddress&) = default;
};

// Where the routes of the allowed IPs go.
struct ConfTable {
  enum class Kind {
    kAuto,    // the main table; a default route gets a table and rules of its own
    kOff,     // no routes
    kNumber,  // this table, no rules
  };
  Kind kind = Kind::kAuto;
  std::uint32_t number = 0;  // kNumber only

  friend bool operator==(const ConfTable&, const ConfTable&) = default;
};

struct ConfInterface {
  std::optional<PrivateKey> private_key;  // clamped
  std::optional<std::uint16_t> listen_port;
  std::optional<std::uint32_t> fwmark;  // 0: "off"
  std::vector<InterfaceAddress> addresses;
  std::vector<IpAddress> dns_servers;
  std::vector<std::string> dns_search_domains;
  std::optional<unsigned> mtu;  // empty: to be found out
  ConfTable table;
  // Shell commands in the order given; "%i" not yet replaced by the interface's name.
  std::vector<std::string> pre_up;
  std::vector<std::string> post_up;
  std::vector<std::string> pre_down;
  std::vector<std::string> post_down;
  bool save_config = false;

  // Adit's own keys; wg-quick knows none of them, so they are written behind "#adit:".
  KillSwitch kill_switch = KillSwitch::kOff;
  LanPolicy lan;
  std::vector<Prefix> excluded_ips;  // never by the tunnel, although AllowedIPs hold them
  LoopAvoidance loop_avoidance = LoopAvoidance::kAuto;
  bool gateway = false;  // this machine serves others through the tunnel
  std::vector<PortForward> forwards;
  std::optional<bool> dns_guard;      // empty: with a kill switch, if the tunnel has DNS servers
  std::optional<bool> cut_old_flows;  // empty: with a kill switch
  bool WantsDnsGuard() const { return dns_guard.value_or(kill_switch != KillSwitch::kOff && !dns_servers.empty()); }
  bool WantsOldFlowsCut() const { return cut_old_flows.value_or(kill_switch != KillSwitch::kOff); }
};

// Before name resolution. `host` is a name or an address without brackets, perhaps with a scope ("fe80::1%eth0").
struct ConfEndpoint {
  std::string host;
  std::uint16_t port = 0;

  // The address, if `host` is one and needs no resolver.
  std::optional<SocketAddress> Numeric(InterfaceIndex interface_index) const;
  std::string ToString() const;  // with brackets where needed
  friend bool operator==(const ConfEndpoint&, const ConfEndpoint&) = default;
};

struct ConfPeer {
  unsigned line = 0;  // of its "[Peer]"; 0 if it comes from elsewhere
  std::string name;   // from a comment "# friendly_name = NAME"
  PublicKey public_key;
  std::optional<PresharedKey> preshared_key;  // never zeros
  std::vector<Prefix> allowed_ips;
  std::optional<ConfEndpoint> endpoint;
  std::optional<std::uint16_t> persistent_keepalive_seconds;  // 0: "off"
};

// Something odd that does not keep the tunnel from working.
struct ConfWarning {
  unsigned line = 0;
  std::string text;
};

struct ConfFile {
  ConfInterface interface;
  std::vector<ConfPeer> peers;
  std::vector<ConfWarning> warnings;
};

// Errors read "FILE:LINE: what is wrong, what to change" and never contain the value of a key. `file` is for messages.
// The public keys of the result are all different, and none is our own.
Result<ConfFile> ParseConf(std::string_view text, std::string_view file);

// What the device is to be told, replacing all of its peers. `endpoints` has one element per peer: its resolved
// endpoint, or empty if it has none (or none yet).
DeviceUpdate ToDeviceUpdate(const ConfFile& conf, std::span<const std::optional<SocketAddress>> endpoints);

// The file's interface section as it is, and keys, port, mark and peers as the device has them now: what SaveConfig
// saves. Peers keep their names. With an empty `conf` it is what `wg showconf` shows.
ConfFile WithDeviceStatus(ConfFile conf, const DeviceStatus& status);

// With what the link has by now: addresses that were added to it, behind the file's own (which come back whenever
// somebody removes them; IPv6's own link-local ones are none), and its MTU if the file names one. As wg-quick saves
// them.
ConfFile WithLinkState(ConfFile conf, std::span<const InterfaceAddress> addresses, unsigned mtu);

// The text of a .conf that ParseConf reads back as the same.
SecretText WriteConf(const ConfFile& conf);

}  // namespace adit
