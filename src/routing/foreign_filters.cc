#include "routing/foreign_filters.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace adit {
namespace {

// nf_tables writes its numbers in network byte order.
std::uint32_t Big32(const Attributes& attributes, int attribute) {
  std::uint32_t value = 0;
  for (const std::uint8_t byte : attributes.Data(attribute)) value = value << 8 | byte;
  return value;
}

const char* FamilyName(std::uint8_t family) {
  switch (family) {
    case NFPROTO_INET:
      return "inet";
    case NFPROTO_IPV4:
      return "ip";
    case NFPROTO_ARP:
      return "arp";
    case NFPROTO_NETDEV:
      return "netdev";
    case NFPROTO_BRIDGE:
      return "bridge";
    case NFPROTO_IPV6:
      return "ip6";
    default:
      return "unknown";
  }
}

const char* HookName(std::uint32_t hook) {
  constexpr std::array kNames = {"prerouting", "input", "forward", "output", "postrouting"};
  return hook < kNames.size() ? kNames[hook] : "other";
}

bool ReadsIp(std::uint8_t family) { return family == NFPROTO_INET || family == NFPROTO_IPV4 || family == NFPROTO_IPV6; }

bool IsOurs(const std::string& table) { return table == "adit" || table.starts_with("adit-"); }

std::uint8_t FamilyOfMessage(nlmsghdr* message) {
  return static_cast<const nfgenmsg*>(nlmsg_data(message))->nfgen_family;
}

// What a rule's register holds, as far as it is looked at here.
enum class Held { kUnknown, kInputDevice, kDestination, kReverseRoute };

// A rule's expressions, one after another.
class RuleReader {
 public:
  void Read(const std::string& name, const Attributes& data) {
    if (name == "meta") {
      Load(Big32(data, NFTA_META_DREG),
           Big32(data, NFTA_META_KEY) == NFT_META_IIFNAME ? Held::kInputDevice : Held::kUnknown);
    } else if (name == "payload") {
      const bool network = Big32(data, NFTA_PAYLOAD_BASE) == NFT_PAYLOAD_NETWORK_HEADER;
      const std::uint32_t offset = Big32(data, NFTA_PAYLOAD_OFFSET);
      const std::uint32_t length = Big32(data, NFTA_PAYLOAD_LEN);
      const bool to = network && ((offset == 16 && length == 4) || (offset == 24 && length == 16));
      Load(Big32(data, NFTA_PAYLOAD_DREG), to ? Held::kDestination : Held::kUnknown);
    } else if (name == "fib") {
      const bool source = (Big32(data, NFTA_FIB_FLAGS) & NFTA_FIB_F_SADDR) != 0;
      const bool device = Big32(data, NFTA_FIB_RESULT) == NFT_FIB_RESULT_OIF;
      Load(Big32(data, NFTA_FIB_DREG), source && device ? Held::kReverseRoute : Held::kUnknown);
    } else if (name == "cmp") {
      Compare(data);
    } else if (name == "immediate") {
      const Attributes verdict = data.Nested(NFTA_IMMEDIATE_DATA).Nested(NFTA_DATA_VERDICT);
      drops = verdict.Has(NFTA_VERDICT_CODE) && Big32(verdict, NFTA_VERDICT_CODE) == NF_DROP;
    }
  }

  bool drops = false;
  bool compares_reverse_route = false;
  std::optional<IpAddress> destination;
  std::string unless_device;

 private:
  void Load(std::uint32_t target, Held held) {
    target_ = target;
    held_ = held;
  }

  void Compare(const Attributes& data) {
    if (Big32(data, NFTA_CMP_SREG) != target_) return;
    const bool equal = Big32(data, NFTA_CMP_OP) == NFT_CMP_EQ;
    const Attributes operand = data.Nested(NFTA_CMP_DATA);
    switch (held_) {
      case Held::kInputDevice:
        if (!equal) unless_device = operand.String(NFTA_DATA_VALUE);
        break;
      case Held::kDestination:
        if (equal) destination = operand.Address(NFTA_DATA_VALUE);
        break;
      case Held::kReverseRoute:
        // "missing": no such device, which is number 0.
        compares_reverse_route =
            equal && std::ranges::all_of(operand.Data(NFTA_DATA_VALUE), [](auto b) { return b == 0; });
        break;
      case Held::kUnknown:
        break;
    }
  }

  std::uint32_t target_ = 0;
  Held held_ = Held::kUnknown;
};

}  // namespace

std::string FilterPlace::ToString() const { return fmt::format("table {} {}, chain {}", family, table, chain); }

void ReadFilterChain(nlmsghdr* message, ForeignFilters& filters) {
  if (nlmsg_datalen(message) < static_cast<int>(sizeof(nfgenmsg))) return;
  const Attributes chain = Attributes::Of(message, sizeof(nfgenmsg));
  const std::uint8_t family = FamilyOfMessage(message);
  FilterPlace place{FamilyName(family), chain.String(NFTA_CHAIN_TABLE), chain.String(NFTA_CHAIN_NAME)};
  if (!ReadsIp(family) || IsOurs(place.table) || !chain.Has(NFTA_CHAIN_HOOK)) return;
  if (!chain.Has(NFTA_CHAIN_POLICY) || Big32(chain, NFTA_CHAIN_POLICY) != NF_DROP) return;
  if (filters.policies.size() == kMaxForeignDrops) return;
  filters.policies.push_back({std::move(place), HookName(Big32(chain.Nested(NFTA_CHAIN_HOOK), NFTA_HOOK_HOOKNUM))});
}

void ReadFilterRule(nlmsghdr* message, ForeignFilters& filters) {
  if (nlmsg_datalen(message) < static_cast<int>(sizeof(nfgenmsg))) return;
  const Attributes rule = Attributes::Of(message, sizeof(nfgenmsg));
  const std::uint8_t family = FamilyOfMessage(message);
  FilterPlace place{FamilyName(family), rule.String(NFTA_RULE_TABLE), rule.String(NFTA_RULE_CHAIN)};
  if (!ReadsIp(family) || IsOurs(place.table)) return;

  RuleReader reader;
  const Bytes list = rule.Data(NFTA_RULE_EXPRESSIONS);
  int left = static_cast<int>(list.size());
  for (auto* at = reinterpret_cast<const nlattr*>(list.data()); nla_ok(at, left); at = nla_next(at, &left)) {
    const Attributes expression(static_cast<const nlattr*>(nla_data(at)), nla_len(at));
    reader.Read(expression.String(NFTA_EXPR_NAME), expression.Nested(NFTA_EXPR_DATA));
  }
  if (!reader.drops) return;
  if (reader.compares_reverse_route && filters.reverse_path.size() < kMaxForeignDrops) {
    filters.reverse_path.push_back(std::move(place));
  } else if (reader.destination && !reader.unless_device.empty() && filters.containers.size() < kMaxForeignDrops) {
    filters.containers.push_back({std::move(place), *reader.destination, reader.unless_device});
  }
}

Result<ForeignFilters> TakeForeignFilters(NetlinkSocket& socket) {
  const nfgenmsg all{.nfgen_family = NFPROTO_UNSPEC, .version = NFNETLINK_V0, .res_id = 0};
  const auto type = [](int message) { return static_cast<std::uint16_t>(NFNL_SUBSYS_NFTABLES << 8 | message); };
  ForeignFilters filters;
  Status read = socket.Dump(
      NetlinkMessage(type(NFT_MSG_GETCHAIN), 0, all), [&] { filters.policies.clear(); },
      [&](nlmsghdr* message) { ReadFilterChain(message, filters); });
  if (read) {
    read = socket.Dump(
        NetlinkMessage(type(NFT_MSG_GETRULE), 0, all),
        [&] {
          filters.containers.clear();
          filters.reverse_path.clear();
        },
        [&](nlmsghdr* message) { ReadFilterRule(message, filters); });
  }
  if (!read) return std::unexpected(read.error());
  return filters;
}

}  // namespace adit
