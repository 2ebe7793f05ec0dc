#include "cli/explain_command.h"

#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/control_socket.h"
#include "cli/firewall_question.h"
#include "cli/run_files.h"
#include "routing/explain.h"
#include "routing/firewall.h"
#include "routing/foreign_filters.h"
#include "routing/netlink.h"

namespace adit {
namespace {

using Json = nlohmann::ordered_json;

constexpr Duration kAnswerTimeout = 2s;

std::string ProtocolName(std::uint8_t protocol) {
  switch (protocol) {
    case IPPROTO_TCP:
      return "TCP";
    case IPPROTO_UDP:
      return "UDP";
    case IPPROTO_ICMP:
      return "ICMP";
    case IPPROTO_ICMPV6:
      return "ICMPv6";
    default:
      return fmt::format("IP protocol {}", protocol);
  }
}

// What the packet filters do to what the routes let go.
struct Filters {
  std::vector<std::pair<std::string, FirewallAnswer>> ours;  // by tunnel; only those that have a table
  std::vector<std::string> left;                             // tunnels whose table stands though nobody runs them
  std::vector<DropPolicy> policies;  // of others, on this packet's way: what none of their rules accepts is dropped

  // The tunnel that refuses it.
  std::string refused_by() const {
    const auto found = std::ranges::find_if(ours, [](const auto& one) { return !one.second.verdict.passes; });
    return found == ours.end() ? std::string() : found->first;
  }
};

// Asks the running tunnels. What cannot be read is left out: the routes are the answer, this adds to it.
Filters AskFilters(const Explanation& told, const std::vector<std::string>& tunnels) {
  Filters filters;
  if (told.kernel.refusal != 0) return filters;
  const bool is_local = told.query.input_device.empty();
  const bool is_for_us = told.walk.route && told.walk.route->type == RouteType::kLocal;
  const nft::Packet packet{.input_device = told.query.input_device,
                           .output_device = is_for_us && !is_local ? std::string() : told.kernel.device,
                           .mark = told.query.mark,
                           .uid = told.query.uid,
                           .source = told.query.source.value_or(told.kernel.source),
                           .destination = told.query.destination,
                           .protocol = told.query.protocol,
                           .source_port = told.query.source_port,
                           .destination_port = told.query.destination_port};
  for (const std::string& tunnel : tunnels) {
    if (const auto line = AskTunnel(RunFilesOf(tunnel).socket, "judge " + ToQuestion(packet), kAnswerTimeout)) {
      if (auto answer = ParseAnswer(*line); answer && !answer->table.empty()) {
        filters.ours.emplace_back(tunnel, std::move(*answer));
      }
    } else if (HasFirewallTable(tunnel).value_or(false)) {
      filters.left.push_back(tunnel);
    }
  }
  if (auto socket = NetlinkSocket::Open(NETLINK_NETFILTER)) {
    if (auto foreign = TakeForeignFilters(*socket)) {
      for (DropPolicy& policy : foreign->policies) {
        const bool is_family =
            policy.place.family == "inet" || (policy.place.family == "ip6") == told.query.destination.is_v6();
        const bool is_on_its_way = is_local    ? policy.hook == "output" || policy.hook == "postrouting"
                                   : is_for_us ? policy.hook == "prerouting" || policy.hook == "input"
                                               : policy.hook != "input" && policy.hook != "output";
        if (is_family && is_on_its_way) filters.policies.push_back(std::move(policy));
      }
    }
  }
  return filters;
}

Json ToJson(const Filters& filters) {
  Json json = Json::array();
  for (const auto& [tunnel, answer] : filters.ours) {
    const auto text = [](const std::string& s) { return s.empty() ? Json(nullptr) : Json(s); };
    json.push_back({{"tunnel", tunnel},
                    {"table", answer.table},
                    {"passes", answer.verdict.passes},
                    {"chain", text(answer.verdict.chain)},
                    {"rule", text(answer.verdict.rule)},
                    {"counter", text(answer.verdict.counter)}});
  }
  return json;
}

Json ToJson(const Explanation& told, const std::string& tunnel, const Filters& filters) {
  Json json;
  json["destination"] = told.query.destination.ToString();
  json["mark"] = told.query.mark;
  json["uid"] = told.query.uid;
  json["protocol"] = told.query.protocol == 0 ? Json(nullptr) : Json(told.query.protocol);
  json["source_port"] = told.query.source_port == 0 ? Json(nullptr) : Json(told.query.source_port);
  json["port"] = told.query.destination_port == 0 ? Json(nullptr) : Json(told.query.destination_port);
  json["iif"] = told.query.input_device.empty() ? Json(nullptr) : Json(told.query.input_device);
  json["is_refused"] = told.kernel.refusal != 0;
  json["refusal"] = told.kernel.refusal == 0 ? Json(nullptr) : Json(std::strerror(told.kernel.refusal));
  json["device"] = told.kernel.refusal != 0 ? Json(nullptr) : Json(told.kernel.device);
  json["tunnel"] = tunnel.empty() ? Json(nullptr) : Json(tunnel);
  json["table"] = told.kernel.refusal != 0 ? Json(nullptr) : Json(told.kernel.table);
  json["source"] = told.kernel.refusal != 0 || told.kernel.source == IpAddress() ? Json(nullptr)
                                                                                 : Json(told.kernel.source.ToString());
  const auto rule = [](const Rule& r) { return Json{{"priority", r.priority}, {"text", r.ToString()}}; };
  json["rule"] = told.walk.rule ? rule(*told.walk.rule) : Json(nullptr);
  json["route"] = told.walk.route ? Json(told.walk.route->ToString()) : Json(nullptr);
  json["passed"] = Json::array();
  for (const PassedRule& passed : told.walk.passed) {
    Json one = rule(passed.rule);
    one["why"] = passed.why;
    json["passed"].push_back(std::move(one));
  }
  json["agrees"] = told.agrees;
  json["firewall"] = ToJson(filters);
  json["tables_left"] = filters.left;
  json["drop_policies"] = Json::array();
  for (const DropPolicy& policy : filters.policies) json["drop_policies"].push_back(policy.place.ToString());
  return json;
}

void Print(const Filters& filters) {
  for (const auto& [tunnel, answer] : filters.ours) {
    const nft::Verdict& verdict = answer.verdict;
    if (verdict.passes) {
      fmt::print("  firewall   table inet {} lets it pass\n", answer.table);
    } else {
      fmt::print("  firewall   table inet {}, chain {} refuses it\n             {}\n", answer.table, verdict.chain,
                 verdict.rule);
    }
  }
  for (const std::string& tunnel : filters.left) {
    fmt::print("  firewall   the table of {} stands, and nobody runs {}; `adit cleanup {}` or `adit up {}`\n", tunnel,
               tunnel, tunnel, tunnel);
  }
  for (const DropPolicy& policy : filters.policies) {
    fmt::print("  firewall   {} drops what none of its rules accepts\n", policy.place.ToString());
  }
}

void Print(const Explanation& told, const std::string& tunnel, const Filters& filters) {
  std::string of;
  if (told.query.protocol != 0) of += " by " + ProtocolName(told.query.protocol);
  if (told.query.destination_port != 0) of += fmt::format(" port {}", told.query.destination_port);
  if (told.query.source_port != 0) of += fmt::format(" from port {}", told.query.source_port);
  if (told.query.mark != 0) of += fmt::format(" with mark {:#x}", told.query.mark);
  if (told.query.uid != 0) of += fmt::format(" of user {}", told.query.uid);
  if (!told.query.input_device.empty()) {
    of += fmt::format(" from {} by {}", told.query.source->ToString(), told.query.input_device);
  }
  std::string where;
  if (told.kernel.refusal != 0) {
    where = fmt::format("are refused ({})", std::strerror(told.kernel.refusal));
  } else if (told.walk.route && told.walk.route->type == RouteType::kLocal) {
    where = "are for this machine itself";
  } else if (!tunnel.empty()) {
    where = fmt::format("go into the tunnel {}", tunnel);
  } else {
    where = fmt::format("go outside of any tunnel of ours, by {}", told.kernel.device);
  }
  if (const std::string by = filters.refused_by(); !by.empty()) {
    where += fmt::format(", but the firewall of {} refuses them", by);
  }
  fmt::print("packets to {}{} {}\n", told.query.destination.ToString(), of, where);
  for (const PassedRule& passed : told.walk.passed) {
    fmt::print("  passes by  {}\n             {}\n", passed.rule.ToString(), passed.why);
  }
  if (told.walk.rule) {
    fmt::print("  rule       {}\n", told.walk.rule->ToString());
  } else {
    fmt::print("  rule       none has a route\n");
  }
  if (told.walk.route) fmt::print("  route      {}\n", told.walk.route->ToString());
  if (told.kernel.refusal == 0 && told.kernel.source != IpAddress() && told.query.input_device.empty()) {
    fmt::print("  source     {}\n", told.kernel.source.ToString());
  }
  Print(filters);
  if (!told.agrees) {
    fmt::print(
        "  the kernel decides otherwise than these rules and routes say (table {}); something that they do not\n"
        "  show has a part in it: rules of one priority, a VRF, next-hop objects\n",
        told.kernel.table);
  }
}

}  // namespace

Outcome RunExplain(const ExplainCommand& command) {
  auto socket = NetlinkSocket::Open();
  if (!socket) return FailFrom(socket.error());
  const auto told = ExplainRoute(*socket, {.destination = command.destination,
                                           .mark = command.mark,
                                           .uid = command.uid,
                                           .input_device = command.input_device,
                                           .source = {},
                                           .protocol = command.protocol,
                                           .source_port = command.source_port,
                                           .destination_port = command.destination_port});
  if (!told) return FailFrom(told.error());
  const auto known = KnownTunnels();
  const std::vector<std::string> tunnels = known ? *known : std::vector<std::string>();
  std::string tunnel;
  if (told->kernel.refusal == 0 && std::ranges::find(tunnels, told->kernel.device) != tunnels.end()) {
    tunnel = told->kernel.device;
  }
  const Filters filters = AskFilters(*told, tunnels);
  if (command.json) {
    fmt::print("{}\n", ToJson(*told, tunnel, filters).dump(2));
  } else {
    Print(*told, tunnel, filters);
  }
  return {};
}

}  // namespace adit
