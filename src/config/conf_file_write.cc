#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "config/conf_file.h"

namespace adit {
namespace {

template <typename... Args>
void AppendLine(SecretText& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
  out += '\n';
}

void AppendKey(SecretText& out, std::string_view name, Bytes key) {
  std::string base64 = KeyToBase64(key);
  AppendLine(out, "{} = {}", name, base64);
  sodium_memzero(base64.data(), base64.size());
}

void AppendHooks(SecretText& out, std::string_view name, const std::vector<std::string>& hooks) {
  for (const std::string& hook : hooks) AppendLine(out, "{} = {}", name, hook);
}

// What wg-quick would refuse goes behind "#adit:", and what is as it would be without a line gets none.
void AppendOwnKeys(SecretText& out, const ConfInterface& interface) {
  const ConfInterface usual;
  const auto own = [&](std::string_view name, std::string_view value) {
    AppendLine(out, "#adit: {} = {}", name, value);
  };
  const auto yes_no = [](bool value) { return value ? "yes" : "no"; };
  if (interface.kill_switch != usual.kill_switch) own("KillSwitch", ToString(interface.kill_switch));
  if (interface.lan != usual.lan) own("LAN", interface.lan.ToString());
  for (const Prefix& prefix : interface.excluded_ips) own("ExcludedIPs", prefix.ToString());
  if (interface.loop_avoidance != usual.loop_avoidance) own("LoopAvoidance", ToString(interface.loop_avoidance));
  if (interface.gateway != usual.gateway) own("Gateway", yes_no(interface.gateway));
  for (const PortForward& forward : interface.forwards) own("Forward", forward.ToString());
  if (interface.dns_guard) own("DNSGuard", yes_no(*interface.dns_guard));
  if (interface.cut_old_flows) own("CutOldFlows", yes_no(*interface.cut_old_flows));
}

// As `wg-quick save` does: first what wg-quick reads, one value per line, then what `wg showconf` prints.
void AppendInterface(SecretText& out, const ConfInterface& interface) {
  AppendLine(out, "[Interface]");
  for (const auto& address : interface.addresses) AppendLine(out, "Address = {}", address.ToString());
  for (const auto& server : interface.dns_servers) AppendLine(out, "DNS = {}", server.ToString());
  for (const auto& domain : interface.dns_search_domains) AppendLine(out, "DNS = {}", domain);
  if (interface.mtu) AppendLine(out, "MTU = {}", *interface.mtu);
  if (interface.table.kind == ConfTable::Kind::kOff) AppendLine(out, "Table = off");
  if (interface.table.kind == ConfTable::Kind::kNumber) AppendLine(out, "Table = {}", interface.table.number);
  if (interface.save_config) AppendLine(out, "SaveConfig = true");
  AppendHooks(out, "PreUp", interface.pre_up);
  AppendHooks(out, "PostUp", interface.post_up);
  AppendHooks(out, "PreDown", interface.pre_down);
  AppendHooks(out, "PostDown", interface.post_down);
  if (interface.listen_port) AppendLine(out, "ListenPort = {}", *interface.listen_port);
  if (interface.fwmark) {
    if (*interface.fwmark == 0) {
      AppendLine(out, "FwMark = off");
    } else {
      AppendLine(out, "FwMark = 0x{:x}", *interface.fwmark);
    }
  }
  if (interface.private_key) AppendKey(out, "PrivateKey", *interface.private_key);
  AppendOwnKeys(out, interface);
}

void AppendPeer(SecretText& out, const ConfPeer& peer) {
  AppendLine(out, "\n[Peer]");
  if (!peer.name.empty()) AppendLine(out, "# friendly_name = {}", peer.name);
  AppendKey(out, "PublicKey", peer.public_key.bytes);
  if (peer.preshared_key) AppendKey(out, "PresharedKey", *peer.preshared_key);
  if (!peer.allowed_ips.empty()) {
    std::string_view before = "AllowedIPs = ";
    for (const Prefix& prefix : peer.allowed_ips) {
      fmt::format_to(std::back_inserter(out), "{}{}", std::exchange(before, ", "), prefix.ToString());
    }
    out += '\n';
  }
  if (peer.endpoint) AppendLine(out, "Endpoint = {}", peer.endpoint->ToString());
  if (peer.persistent_keepalive_seconds) {
    if (*peer.persistent_keepalive_seconds == 0) {
      AppendLine(out, "PersistentKeepalive = off");
    } else {
      AppendLine(out, "PersistentKeepalive = {}", *peer.persistent_keepalive_seconds);
    }
  }
}

ConfEndpoint ToConfEndpoint(const SocketAddress& address) {
  const std::string ip = address.ip.ToString();
  return {address.scope_id == 0 ? ip : fmt::format("{}%{}", ip, address.scope_id), address.port};
}

}  // namespace

ConfFile WithDeviceStatus(ConfFile conf, const DeviceStatus& status) {
  std::map<PublicKey, std::string> names;
  for (ConfPeer& peer : conf.peers) names[peer.public_key] = std::move(peer.name);

  ConfInterface& interface = conf.interface;
  interface.private_key.reset();
  interface.listen_port.reset();
  interface.fwmark.reset();
  if (!status.private_key.is_zero()) interface.private_key = status.private_key;
  if (status.listen_port != 0) interface.listen_port = status.listen_port;
  if (status.fwmark != 0) interface.fwmark = status.fwmark;
  conf.peers.clear();
  for (const PeerStatus& from : status.peers) {
    ConfPeer& peer = conf.peers.emplace_back();
    if (const auto name = names.find(from.public_key); name != names.end()) peer.name = name->second;
    peer.public_key = from.public_key;
    if (!from.preshared_key.is_zero()) peer.preshared_key = from.preshared_key;
    peer.allowed_ips = from.allowed_ips;
    if (from.endpoint) peer.endpoint = ToConfEndpoint(*from.endpoint);
    if (from.persistent_keepalive_seconds != 0) peer.persistent_keepalive_seconds = from.persistent_keepalive_seconds;
  }
  return conf;
}

ConfFile WithLinkState(ConfFile conf, std::span<const InterfaceAddress> addresses, unsigned mtu) {
  std::vector<InterfaceAddress>& known = conf.interface.addresses;
  for (const InterfaceAddress& address : addresses) {
    const bool is_known = std::ranges::any_of(known, [&](const InterfaceAddress& one) { return one.ip == address.ip; });
    if (!is_known && !address.ip.is_v6_link_local()) known.push_back(address);
  }
  if (conf.interface.mtu && mtu != 0) conf.interface.mtu = mtu;
  return conf;
}

SecretText WriteConf(const ConfFile& conf) {
  SecretText out;
  AppendInterface(out, conf.interface);
  for (const ConfPeer& peer : conf.peers) AppendPeer(out, peer);
  return out;
}

}  // namespace adit
