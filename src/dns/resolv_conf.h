// The text of resolv.conf(5): reading anybody's, writing ours, and telling the two apart. Pure.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"

namespace adit {

inline constexpr std::size_t kMaxResolvConfBytes = 64 << 10;  // longer: the rest is not read
inline constexpr std::size_t kMaxNameServers = 16;            // of those read; the C library looks at three
inline constexpr std::size_t kMaxSearchDomains = 64;
inline constexpr std::size_t kMaxResolvOptions = 64;

struct NameServer {
  IpAddress ip;
  std::string scope;  // "eth0" of "fe80::1%eth0"

  std::string ToString() const;
  friend bool operator==(const NameServer&, const NameServer&) = default;
};

struct ResolvConf {
  std::vector<NameServer> servers;
  std::vector<std::string> search;   // the last "search" or "domain" line, as the C library has it
  std::vector<std::string> options;  // of all "options" lines
  friend bool operator==(const ResolvConf&, const ResolvConf&) = default;
};

// Never fails: what it does not know is left out, as the C library does it.
ResolvConf ParseResolvConf(std::string_view text);
// What ParseResolvConf reads back as the same. `comment` stands above, one "# " line for each of its lines.
std::string WriteResolvConf(const ResolvConf& conf, std::string_view comment);

// The first line of a file of ours. Whatever else is done to the file, it is ours while it begins with this.
inline constexpr std::string_view kResolvConfMark = "# Written by adit";
inline bool IsOurResolvConf(std::string_view text) { return text.starts_with(kResolvConfMark); }

// What one tunnel wants of the machine's resolver.
struct DnsSettings {
  std::string interface_name;
  std::vector<IpAddress> servers;
  std::vector<std::string> search_domains;
  bool is_full_tunnel = false;  // a /0 is among the allowed IPs
  friend bool operator==(const DnsSettings&, const DnsSettings&) = default;
};

// Our file while `tunnels` (not empty; the last came up last) are up. This file knows no split: the servers of the last
// tunnel that names any get all questions. The search domains are everybody's, the options are the machine's own.
std::string RenderResolvConf(std::span<const DnsSettings> tunnels, const ResolvConf& original,
                             std::string_view kept_in);

// True if nothing but systemd-resolved's stub (127.0.0.53, 127.0.0.54) is asked.
bool AsksResolvedOnly(const ResolvConf& conf);
// True if `text` names servers, and all of them are `servers`: somebody's copy of ours.
bool NamesOnly(const ResolvConf& conf, std::span<const IpAddress> servers);

// Whom to ask for the addresses of endpoints: whoever answered before the tunnel was there. `own` is the machine's own
// file, `resolved_uplinks` that of systemd-resolved with the servers of all links ("" without one), `tunnel_servers`
// are never asked, since they may be reached through the tunnel only. Behind resolved's stub the answers would come
// through the tunnel too; so its uplinks are asked first, and the stub comes last.
std::vector<NameServer> ServersForEndpoints(const ResolvConf& own, const ResolvConf& resolved_uplinks,
                                            std::span<const IpAddress> tunnel_servers);

// ---- how the servers of DNS = get to the machine

enum class DnsKind { kResolved, kResolvconf, kFile, kOff };
std::string_view Name(DnsKind kind);  // "systemd-resolved", "resolvconf", "resolv.conf", "off"

struct DnsFacts {
  bool resolved_answers = false;  // on the system bus
  bool has_resolvconf = false;    // in PATH
  ResolvConf resolv_conf;         // the machine's own
};

// Which ways to try, in this order. resolved counts only where programs ask it: a machine whose resolv.conf leads past
// it would look names up as before.
std::vector<DnsKind> DnsWays(const DnsFacts& facts);

}  // namespace adit
