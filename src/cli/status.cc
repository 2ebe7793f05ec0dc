#include "cli/status.h"

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

namespace adit {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kHidden = "(hidden)";

Json PeerToJson(const TunnelFacts& facts, const PeerStatus& peer, bool show_keys) {
  Json json;
  json["public_key"] = KeyToBase64(peer.public_key.bytes);
  if (const auto name = facts.peer_names.find(peer.public_key); name != facts.peer_names.end()) {
    json["name"] = name->second;
  }
  if (peer.preshared_key.is_zero()) {
    json["preshared_key"] = nullptr;
  } else {
    json["preshared_key"] = show_keys ? KeyToBase64(peer.preshared_key) : kHidden;
  }
  json["endpoint"] = peer.endpoint ? Json(peer.endpoint->ToString()) : Json(nullptr);
  json["allowed_ips"] = Json::array();
  for (const Prefix& prefix : peer.allowed_ips) json["allowed_ips"].push_back(prefix.ToString());
  json["latest_handshake"] = peer.last_handshake ? Json(peer.last_handshake->seconds) : Json(nullptr);
  json["rx_bytes"] = peer.rx_bytes;
  json["tx_bytes"] = peer.tx_bytes;
  json["persistent_keepalive"] = peer.persistent_keepalive_seconds;
  return json;
}

Json HealthToJson(const RoutingHealth& health) {
  const auto time = [](std::int64_t at) { return at == 0 ? Json(nullptr) : Json(at); };
  Json json;
  json["verified_at"] = time(health.verified_at);
  json["findings"] = health.findings;
  json["failures"] = health.failures;
  json["repairs"] = health.repairs;
  json["last_repair_at"] = time(health.last_repair_at);
  json["is_limited"] = health.is_limited;
  json["interferences"] = Json::array();
  for (const RoutingHealth::Interference& one : health.interferences) {
    json["interferences"].push_back({{"culprit", one.culprit.empty() ? Json(nullptr) : Json(one.culprit)},
                                     {"what", one.what},
                                     {"count", one.count},
                                     {"last_at", one.last_at},
                                     {"is_fight", one.is_fight}});
  }
  return json;
}

Json ToObject(const std::vector<std::pair<std::string, std::uint64_t>>& pairs) {
  Json json = Json::object();
  for (const auto& [name, value] : pairs) json[name] = value;
  return json;
}

// Escape codes, or nothing.
struct Paint {
  bool is_on;
  std::string operator()(int code, std::string_view text) const {
    return is_on ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
  }
};
constexpr int kBold = 1, kGreen = 32, kYellow = 33;

std::string Join(const Json& list) {
  std::string result;
  for (const auto& item : list) {
    if (!result.empty()) result += ", ";
    result += item.get<std::string>();
  }
  return result.empty() ? "(none)" : result;
}

// "10.64.0.1 (corp.example) by systemd-resolved", and what is wrong with it.
std::string DnsToText(const Json& servers, const Json& resolver) {
  const auto backend = resolver["backend"].get<std::string>();
  if (servers.empty() && resolver["search"].empty()) return backend;
  std::string text = Join(servers);
  if (!resolver["search"].empty()) text += fmt::format(" ({})", Join(resolver["search"]));
  text += " by " + backend;
  if (resolver["repairs"] != 0) text += fmt::format(", put right {} times", resolver["repairs"].dump());
  if (resolver["health"] != "good") text += ", " + resolver["health"].get<std::string>();
  if (const auto detail = resolver["detail"].get<std::string>(); !detail.empty()) text += ": " + detail;
  return text;
}

// "verified 3 seconds ago; 2 repairs, the last 1 minute ago", and a line for each thing that is not as it should be.
std::string HealthToText(const Json& health, std::int64_t now, const Paint& paint) {
  std::string text;
  const auto line = [&](std::string_view label, std::string_view value) {
    text += fmt::format("  {}: {}\n", paint(kBold, label), value);
  };
  if (health["verified_at"].is_null()) return text;
  const bool is_good = health["findings"].empty() && health["failures"].empty();
  std::string sum = fmt::format("{}, verified {}", is_good ? "good" : "not as planned",
                                AgoText(now - health["verified_at"].get<std::int64_t>()));
  if (const auto repairs = health["repairs"].get<std::uint64_t>(); repairs != 0) {
    sum += fmt::format("; {} repair{}, the last {}", repairs, repairs == 1 ? "" : "s",
                       AgoText(now - health["last_repair_at"].get<std::int64_t>()));
  }
  if (health["is_limited"].get<bool>()) sum += "; repairs are rationed";
  line("routing", sum);
  for (const Json& finding : health["findings"]) line("routing finding", finding.get<std::string>());
  for (const Json& failure : health["failures"]) line("routing failure", failure.get<std::string>());
  for (const Json& one : health["interferences"]) {
    const auto count = one["count"].get<std::uint64_t>();
    line(one["is_fight"].get<bool>() ? "fight" : "interference",
         fmt::format("{} removed what is ours {} time{}, the last {}: {}",
                     one["culprit"].is_null() ? "somebody" : one["culprit"].get<std::string>(), count,
                     count == 1 ? "" : "s", AgoText(now - one["last_at"].get<std::int64_t>()),
                     one["what"].get<std::string>()));
  }
  return text;
}

std::string PeerToText(const Json& peer, std::int64_t now, const Paint& paint) {
  std::string text;
  const auto line = [&](std::string_view label, std::string_view value) {
    text += fmt::format("  {}: {}\n", paint(kBold, label), value);
  };
  text += fmt::format("\n{}: {}\n", paint(kYellow, "peer"), paint(kYellow, peer["public_key"].get<std::string>()));
  if (peer.contains("name")) line("name", peer["name"].get<std::string>());
  if (!peer["preshared_key"].is_null()) line("preshared key", peer["preshared_key"].get<std::string>());
  if (!peer["endpoint"].is_null()) line("endpoint", peer["endpoint"].get<std::string>());
  line("allowed ips", Join(peer["allowed_ips"]));
  if (!peer["latest_handshake"].is_null()) {
    line("latest handshake", AgoText(now - peer["latest_handshake"].get<std::int64_t>()));
  }
  const auto rx = peer["rx_bytes"].get<std::uint64_t>();
  const auto tx = peer["tx_bytes"].get<std::uint64_t>();
  if (rx != 0 || tx != 0) line("transfer", fmt::format("{} received, {} sent", BytesText(rx), BytesText(tx)));
  if (const auto seconds = peer["persistent_keepalive"].get<unsigned>(); seconds != 0) {
    line("persistent keepalive", fmt::format("every {} second{}", seconds, seconds == 1 ? "" : "s"));
  }
  return text;
}

}  // namespace

Json StatusToJson(const TunnelFacts& facts, const DeviceStatus& device, const EngineStatus& engine, bool show_keys) {
  Json json;
  json["name"] = facts.name;
  json["state"] = facts.state;
  json["file"] = facts.file;
  json["pid"] = facts.pid;
  json["since"] = facts.since;
  json["interface"] = engine.interface_name;
  json["mtu"] = facts.mtu;
  json["addresses"] = facts.addresses;
  if (device.private_key.is_zero()) {
    json["public_key"] = nullptr;
    json["private_key"] = nullptr;
  } else {
    json["public_key"] = KeyToBase64(device.private_key.ComputePublicKey().bytes);
    json["private_key"] = show_keys ? KeyToBase64(device.private_key) : kHidden;
  }
  json["listen_port"] = device.listen_port;
  json["fwmark"] = device.fwmark;
  json["dns"] = facts.dns.servers;
  if (!facts.dns.backend.empty()) {
    json["resolver"] = {{"backend", facts.dns.backend},
                        {"health", facts.dns.health},
                        {"detail", facts.dns.detail},
                        {"repairs", facts.dns.repairs},
                        {"search", facts.dns.search_domains}};
  }
  json["routing"] = facts.routing;
  json["routing_health"] = HealthToJson(facts.health);
  json["loop_avoidance"] = facts.loop_avoidance.empty() ? Json(nullptr) : Json(facts.loop_avoidance);
  if (!facts.firewall.table.empty()) {
    json["firewall"] = {{"table", facts.firewall.table},
                        {"kill_switch", facts.firewall.kill_switch},
                        {"is_owned", facts.firewall.is_owned},
                        {"packets", ToObject(facts.firewall.packets)},
                        {"bytes", ToObject(facts.firewall.bytes)}};
  }
  json["warnings"] = facts.warnings;
  json["engine"] = {{"is_up", engine.is_up},
                    {"aead", std::string(Name(engine.aead))},
                    {"tun_vnet_hdr", engine.tun_offloads.vnet_hdr},
                    {"tun_checksum", engine.tun_offloads.checksum},
                    {"tun_tso", engine.tun_offloads.tso},
                    {"tun_uso", engine.tun_offloads.uso},
                    {"udp_gso", engine.udp_gso},
                    {"udp_gro", engine.udp_gro},
                    {"degrade_count", engine.degrade_count}};
  json["drops"] = ToObject(engine.drops);
  json["counters"] = ToObject(engine.counters);
  json["peers"] = Json::array();
  for (const PeerStatus& peer : device.peers) json["peers"].push_back(PeerToJson(facts, peer, show_keys));
  return json;
}

std::string StatusToText(const Json& status, std::int64_t now, bool colour) {
  const Paint paint{colour};
  std::string text;
  const auto line = [&](std::string_view label, std::string_view value) {
    text += fmt::format("  {}: {}\n", paint(kBold, label), value);
  };
  const auto name = status["name"].get<std::string>();
  text += fmt::format("{}: {}\n", paint(kGreen, "interface"), paint(kGreen, name));
  if (status["state"] != "up") line("state", status["state"].get<std::string>());
  if (!status["public_key"].is_null()) line("public key", status["public_key"].get<std::string>());
  if (!status["private_key"].is_null()) line("private key", status["private_key"].get<std::string>());
  if (status["listen_port"] != 0) line("listening port", status["listen_port"].dump());
  if (status["fwmark"] != 0) line("fwmark", fmt::format("{:#x}", status["fwmark"].get<std::uint32_t>()));
  line("addresses", Join(status["addresses"]));
  line("mtu", status["mtu"].dump());
  if (!status["loop_avoidance"].is_null()) line("loop avoidance", status["loop_avoidance"].get<std::string>());
  if (status.contains("resolver")) line("dns", DnsToText(status["dns"], status["resolver"]));

  if (status.contains("firewall")) {
    const Json& firewall = status["firewall"];
    std::string counts;
    for (const auto& [counter, count] : firewall["packets"].items()) {
      if (count != 0) counts += fmt::format(", {} {}", counter, count.dump());
    }
    line("firewall", fmt::format("kill switch {}{}", firewall["kill_switch"].get<std::string>(), counts));
  }

  const Json& engine = status["engine"];
  constexpr std::array<std::pair<const char*, const char*>, 6> kOffloads = {{{"tun_vnet_hdr", "tun vnet-hdr"},
                                                                             {"tun_checksum", "tun checksum"},
                                                                             {"tun_tso", "tun tso"},
                                                                             {"tun_uso", "tun uso"},
                                                                             {"udp_gso", "udp gso"},
                                                                             {"udp_gro", "udp gro"}}};
  Json on = Json::array();
  for (const auto& [key, label] : kOffloads) {
    if (engine[key].get<bool>()) on.push_back(label);
  }
  line("cipher", fmt::format("chacha20-poly1305 by {}", engine["aead"].get<std::string>()));
  line("offloads", Join(on));
  if (engine["degrade_count"] != 0) line("offloads given up", engine["degrade_count"].dump());
  std::string drops;
  for (const auto& [reason, count] : status["drops"].items()) {
    drops += fmt::format("{}{} {}", drops.empty() ? "" : ", ", reason, count.dump());
  }
  line("drops", drops.empty() ? "none" : drops);
  text += HealthToText(status["routing_health"], now, paint);
  for (const Json& warning : status["warnings"]) line("warning", warning.get<std::string>());
  for (const Json& peer : status["peers"]) text += PeerToText(peer, now, paint);
  return text;
}

std::string AgoText(std::int64_t seconds) {
  if (seconds < 0) return "in the future: the clock was set back";
  if (seconds == 0) return "now";
  struct Unit {
    std::int64_t seconds;
    const char* name;
  };
  constexpr std::array kUnits = {Unit{365 * 24 * 3600, "year"}, Unit{24 * 3600, "day"}, Unit{3600, "hour"},
                                 Unit{60, "minute"}, Unit{1, "second"}};
  std::string text;
  for (const Unit& unit : kUnits) {
    const std::int64_t count = seconds / unit.seconds;
    seconds %= unit.seconds;
    if (count != 0) {
      text += fmt::format("{}{} {}{}", text.empty() ? "" : ", ", count, unit.name, count == 1 ? "" : "s");
    }
  }
  return text + " ago";
}

std::string BytesText(std::uint64_t bytes) {
  constexpr std::array kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  std::size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.2f} {}", value, kUnits[unit]);
}

}  // namespace adit
