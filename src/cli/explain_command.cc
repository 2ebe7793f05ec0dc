#include "cli/explain_command.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/run_files.h"
#include "routing/explain.h"
#include "routing/netlink.h"

namespace adit {
namespace {

using Json = nlohmann::ordered_json;

Json ToJson(const Explanation& told, const std::string& tunnel) {
  Json json;
  json["destination"] = told.query.destination.ToString();
  json["mark"] = told.query.mark;
  json["uid"] = told.query.uid;
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
  return json;
}

void Print(const Explanation& told, const std::string& tunnel) {
  std::string of;
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
                                           .source = {}});
  if (!told) return FailFrom(told.error());
  std::string tunnel;
  if (told->kernel.refusal == 0) {
    const auto known = KnownTunnels();
    if (known && std::ranges::find(*known, told->kernel.device) != known->end()) tunnel = told->kernel.device;
  }
  if (command.json) {
    fmt::print("{}\n", ToJson(*told, tunnel).dump(2));
  } else {
    Print(*told, tunnel);
  }
  return {};
}

}  // namespace adit
