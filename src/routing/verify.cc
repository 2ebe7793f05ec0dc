#include "routing/verify.h"

#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "routing/links.h"

namespace adit {
namespace {

// EINVAL is how IPv4 refuses by a blackhole route; from IPv6 it means a bad question.
bool IsRefusal(int code, bool v6) {
  return code == ENETUNREACH || code == EHOSTUNREACH || code == EACCES || code == ENETDOWN || (code == EINVAL && !v6);
}

std::string Describe(const RouteAnswer& answer) {
  if (answer.refusal != 0) return fmt::format("are refused ({})", strerror(answer.refusal));
  return fmt::format("leave by {} (table {})", answer.device, answer.table);
}

bool Holds(Expectation expected, const RouteAnswer& answer, const std::string& tunnel) {
  switch (expected) {
    case Expectation::kNotTunnel:
      return answer.refusal != 0 || answer.device != tunnel;
    case Expectation::kTunnel:
      return answer.refusal == 0 && answer.device == tunnel;
    case Expectation::kTunnelOrNothing:
      return answer.refusal != 0 || answer.device == tunnel;
  }
  return false;
}

const char* Demand(Expectation expected) {
  switch (expected) {
    case Expectation::kNotTunnel:
      return "they must not go into the tunnel";
    case Expectation::kTunnel:
      return "they should go into the tunnel";
    case Expectation::kTunnelOrNothing:
      return "they should go into the tunnel or nowhere";
  }
  return "";
}

}  // namespace

Result<RouteAnswer> AskRoute(NetlinkSocket& socket, const IpAddress& destination, std::uint32_t mark) {
  RouteQuery query;
  query.destination = destination;
  query.mark = mark;
  return AskRoute(socket, query);
}

Result<RouteAnswer> AskRoute(NetlinkSocket& socket, const RouteQuery& query) {
  const IpAddress& destination = query.destination;
  rtmsg header{};
  header.rtm_family = destination.is_v6() ? AF_INET6 : AF_INET;
  header.rtm_dst_len = static_cast<std::uint8_t>(destination.bits());
  // IPv6 always names the table, and takes no flag for it.
  if (destination.is_v4()) header.rtm_flags = RTM_F_LOOKUP_TABLE;
  NetlinkMessage message(RTM_GETROUTE, 0, header);
  message.PutAddress(RTA_DST, destination);
  if (query.source) {
    message.PutAddress(RTA_SRC, *query.source);
    static_cast<rtmsg*>(nlmsg_data(message.header()))->rtm_src_len = static_cast<std::uint8_t>(query.source->bits());
  }
  if (!query.input_device.empty()) {
    auto link = FindLink(socket, query.input_device);
    if (!link) return std::unexpected(link.error());
    message.PutU32(RTA_IIF, link->index);
  }
  if (query.mark != 0) message.PutU32(RTA_MARK, query.mark);
  if (query.uid != 0) message.PutU32(RTA_UID, query.uid);
  // The kernel takes no others here.
  if (query.protocol == IPPROTO_TCP || query.protocol == IPPROTO_UDP) {
    const auto put_port = [&](int attribute, std::uint16_t port) {
      const std::uint8_t bytes[2] = {static_cast<std::uint8_t>(port >> 8), static_cast<std::uint8_t>(port)};
      if (port != 0) message.Put(attribute, bytes);
    };
    message.PutU8(RTA_IP_PROTO, query.protocol);
    put_port(RTA_SPORT, query.source_port);
    put_port(RTA_DPORT, query.destination_port);
  }

  RouteAnswer answer;
  std::uint32_t index = 0;
  Status asked = socket.Ask(std::move(message), [&](nlmsghdr* reply) {
    const auto* route = static_cast<const rtmsg*>(nlmsg_data(reply));
    const auto attributes = Attributes::Of(reply, sizeof(rtmsg));
    index = attributes.U32(RTA_OIF);
    answer.table = attributes.Has(RTA_TABLE) ? attributes.U32(RTA_TABLE) : route->rtm_table;
    answer.source = attributes.Address(RTA_PREFSRC).value_or(IpAddress());
    // IPv6 answers with the unreachable route itself, and its errno hidden in RTA_CACHEINFO.
    switch (route->rtm_type) {
      case RTN_UNREACHABLE:
        answer.refusal = EHOSTUNREACH;
        break;
      case RTN_PROHIBIT:
        answer.refusal = EACCES;
        break;
      case RTN_BLACKHOLE:
        answer.refusal = EINVAL;
        break;
      case RTN_THROW:
        answer.refusal = ENETUNREACH;
        break;
      default:
        break;
    }
  });
  if (!asked && IsRefusal(asked.error().code, destination.is_v6())) {
    answer.refusal = asked.error().code;
    return answer;
  }
  if (!asked) {
    return FailErrno(asked.error().code, "cannot ask for the route to {}: {}", destination.ToString(),
                     asked.error().message);
  }
  if (answer.refusal != 0 || index == 0) return answer;

  ifinfomsg link_header{};
  link_header.ifi_index = static_cast<int>(index);
  asked = socket.Ask(NetlinkMessage(RTM_GETLINK, 0, link_header), [&](nlmsghdr* reply) {
    answer.device = Attributes::Of(reply, sizeof(ifinfomsg)).String(IFLA_IFNAME);
  });
  if (!asked) return std::unexpected(asked.error());
  return answer;
}

Result<Findings> VerifyPlan(NetlinkSocket& socket, const Plan& plan) {
  Findings findings;
  for (const RouteQuestion& question : plan.questions) {
    const bool one_is_enough = question.expected == Expectation::kTunnel;
    bool holds = !one_is_enough;
    RouteAnswer wrong;
    IpAddress wrong_at;
    for (const IpAddress& destination : question.destinations) {
      auto answer = AskRoute(socket, destination, question.mark);
      if (!answer) return std::unexpected(answer.error());
      const bool here = Holds(question.expected, *answer, plan.interface_name);
      if (!here) {
        wrong = *answer;
        wrong_at = destination;
      }
      holds = one_is_enough ? holds || here : holds && here;
      if (holds == one_is_enough) break;
    }
    if (holds) continue;
    const std::string marked = question.mark == 0 ? "" : fmt::format(" with mark {:#x}", question.mark);
    findings.sentences.push_back(fmt::format("{}: packets to {}{} {}; {}", question.subject, wrong_at.ToString(),
                                             marked, Describe(wrong), Demand(question.expected)));
    findings.loops |= question.expected == Expectation::kNotTunnel;
  }
  return findings;
}

}  // namespace adit
