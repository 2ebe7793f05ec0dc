#include "routing/nft_wire.h"

#include <arpa/inet.h>
#include <endian.h>
#include <fmt/format.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_nat.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>
#include <limits>

#include "base/check.h"

namespace adit::nft {
namespace {

// nft(8)'s numbers of the types of a set's keys: how `nft list` knows what to print.
constexpr std::uint32_t kTypeIpv4 = 7;
constexpr std::uint32_t kTypeIpv6 = 8;
constexpr std::uint32_t kTypePort = 13;
constexpr std::uint32_t kTypeUser = 24;
constexpr std::uint32_t kTypeBits = 6;

// An attribute has 16 bits of length; a list of elements is cut long before.
constexpr std::size_t kElementsPerMessage = 500;

// Attributes one behind the other. A nest is finished by a function, so that none stays open.
class Attributes {
 public:
  void Put(int type, Bytes value) {
    const std::size_t begin = Header(type);
    bytes_.insert(bytes_.end(), value.begin(), value.end());
    Finish(begin);
  }
  void PutString(int type, std::string_view text) {
    std::vector<std::uint8_t> value(text.begin(), text.end());
    value.push_back(0);
    Put(type, value);
  }
  void PutU64(int type, std::uint64_t value) {
    const std::uint64_t network = htobe64(value);
    std::uint8_t bytes[sizeof network];
    std::memcpy(bytes, &network, sizeof network);
    Put(type, bytes);
  }
  void PutU32(int type, std::uint32_t value) {  // nf_tables' integers are in network order
    const std::uint32_t big = htonl(value);
    Put(type, {reinterpret_cast<const std::uint8_t*>(&big), sizeof big});
  }
  void PutU8(int type, std::uint8_t value) { Put(type, {&value, 1}); }
  template <typename Fill>
  void Nest(int type, Fill fill) {
    const std::size_t begin = Header(type | NLA_F_NESTED);
    fill();
    Finish(begin);
  }
  std::vector<std::uint8_t> Take() { return std::move(bytes_); }

 private:
  std::size_t Header(int type) {
    const std::size_t begin = bytes_.size();
    const nlattr header{.nla_len = 0, .nla_type = static_cast<std::uint16_t>(type)};
    const auto* raw = reinterpret_cast<const std::uint8_t*>(&header);
    bytes_.insert(bytes_.end(), raw, raw + sizeof header);
    return begin;
  }
  void Finish(std::size_t begin) {
    const std::size_t length = bytes_.size() - begin;
    CHECK(length <= std::numeric_limits<std::uint16_t>::max());
    const auto short_length = static_cast<std::uint16_t>(length);
    std::memcpy(bytes_.data() + begin, &short_length, sizeof short_length);
    bytes_.resize(begin + NLA_ALIGN(length));
  }
  std::vector<std::uint8_t> bytes_;
};

template <typename Fill>
Message Make(std::string what, int type, int flags, std::uint8_t family, Fill fill) {
  Message message{.what = std::move(what),
                  .type = static_cast<std::uint16_t>((NFNL_SUBSYS_NFTABLES << 8) | type),
                  .flags = static_cast<std::uint16_t>(flags),
                  .payload = {}};
  const nfgenmsg header{.nfgen_family = family, .version = NFNETLINK_V0, .res_id = 0};
  const auto* raw = reinterpret_cast<const std::uint8_t*>(&header);
  message.payload.assign(raw, raw + sizeof header);
  Attributes attributes;
  fill(attributes);
  const auto bytes = attributes.Take();
  message.payload.insert(message.payload.end(), bytes.begin(), bytes.end());
  return message;
}

// ---- expressions. Registers: 1 holds what is being looked at; 9 and 12 are what follows an IPv4 and an IPv6 address
// in register 1.

class Expressions {
 public:
  explicit Expressions(Attributes& out) : out_(out) {}

  void operator()(const InputName& s) { Name(NFT_META_IIFNAME, s.device, s.is); }
  void operator()(const OutputName& s) { Name(NFT_META_OIFNAME, s.device, s.is); }
  void operator()(const MarkIs& s) {
    Meta(NFT_META_MARK);
    if (s.mask != 0xffffffff) Mask(Native(s.mask), Native(0));
    Compare(s.is ? NFT_CMP_EQ : NFT_CMP_NEQ, Native(s.value));
  }
  void operator()(const ProtocolIs& s) { Protocol(s.protocol); }
  void operator()(const Port& s) {
    Protocol(s.protocol);
    Payload(NFT_PAYLOAD_TRANSPORT_HEADER, s.is_destination ? 2 : 0, 2);
    if (s.first == s.last) return Compare(NFT_CMP_EQ, Network(s.first));
    Compare(NFT_CMP_GTE, Network(s.first));
    Compare(NFT_CMP_LTE, Network(s.last));
  }
  void operator()(const AddressIn& s) {
    Address(s.is_v6, s.is_destination);
    Lookup(s.set, s.is);
  }
  void operator()(const EndpointIn& s) {
    Family(s.is_v6);
    Protocol(IPPROTO_UDP);
    LoadAddress(s.is_v6, s.is_destination);
    Payload(NFT_PAYLOAD_TRANSPORT_HEADER, s.is_destination ? 2 : 0, 2, s.is_v6 ? 12 : 9);
    Lookup(s.set, true);
  }
  void operator()(const UserIn& s) {
    Meta(NFT_META_SKUID);
    Lookup(s.set, true);
  }
  void operator()(const Icmp6Type& s) {
    Family(true);
    Protocol(IPPROTO_ICMPV6);
    Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1);
    Compare(NFT_CMP_EQ, {s.type});
  }
  void operator()(const HopLimit255&) {
    Payload(NFT_PAYLOAD_NETWORK_HEADER, 7, 1);
    Compare(NFT_CMP_EQ, {255});
  }
  void operator()(const SourceNotLocal&) {
    Expression("fib", [&] {
      out_.PutU32(NFTA_FIB_DREG, 1);
      out_.PutU32(NFTA_FIB_RESULT, NFT_FIB_RESULT_ADDRTYPE);
      out_.PutU32(NFTA_FIB_FLAGS, NFTA_FIB_F_SADDR);
    });
    Compare(NFT_CMP_NEQ, Native(RTN_LOCAL));
  }
  void operator()(const WasAddressedTo& s) {
    Expression("ct", [&] {
      out_.PutU32(NFTA_CT_KEY, s.is_v6 ? NFT_CT_DST_IP6 : NFT_CT_DST_IP);
      out_.PutU32(NFTA_CT_DREG, 1);
      out_.PutU8(NFTA_CT_DIRECTION, 0);
    });
    Lookup(s.set, true);
  }
  void operator()(const WasTranslated&) {
    constexpr std::uint32_t kDestinationNat = 1 << 5;  // IPS_DST_NAT
    Expression("ct", [&] {
      out_.PutU32(NFTA_CT_KEY, NFT_CT_STATUS);
      out_.PutU32(NFTA_CT_DREG, 1);
    });
    Mask(Native(kDestinationNat), Native(0));
    Compare(NFT_CMP_NEQ, Native(0));
  }
  void operator()(const Count& s) {
    Expression("objref", [&] {
      out_.PutU32(NFTA_OBJREF_IMM_TYPE, NFT_OBJECT_COUNTER);
      out_.PutString(NFTA_OBJREF_IMM_NAME, s.counter);
    });
  }
  void operator()(const SetMark& s) {
    if (s.mask == 0xffffffff) {
      Immediate(1, Native(s.value));
    } else {
      Meta(NFT_META_MARK);
      Mask(Native(~s.mask), Native(s.value));
    }
    Expression("meta", [&] {
      out_.PutU32(NFTA_META_KEY, NFT_META_MARK);
      out_.PutU32(NFTA_META_SREG, 1);
    });
  }
  void operator()(const ClampToRoute&) {
    Syn();
    Expression("rt", [&] {
      out_.PutU32(NFTA_RT_KEY, NFT_RT_TCPMSS);
      out_.PutU32(NFTA_RT_DREG, 1);
    });
    Expression("byteorder", [&] {
      out_.PutU32(NFTA_BYTEORDER_SREG, 1);
      out_.PutU32(NFTA_BYTEORDER_DREG, 1);
      out_.PutU32(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON);
      out_.PutU32(NFTA_BYTEORDER_LEN, 2);
      out_.PutU32(NFTA_BYTEORDER_SIZE, 2);
    });
    WriteMaximumSegmentSize();
  }
  void operator()(const ClampTo& s) {
    Family(s.is_v6);
    Syn();
    Immediate(1, Network(s.mss_bytes));
    WriteMaximumSegmentSize();
  }
  void operator()(const Accept&) { Verdict(NF_ACCEPT, ""); }
  void operator()(const Drop&) { Verdict(NF_DROP, ""); }
  void operator()(const Return&) { Verdict(NFT_RETURN, ""); }
  void operator()(const Jump& s) { Verdict(NFT_JUMP, s.chain); }
  void operator()(const Reject& s) {
    Expression("reject", [&] {
      out_.PutU32(NFTA_REJECT_TYPE, s.with_reset ? NFT_REJECT_TCP_RST : NFT_REJECT_ICMPX_UNREACH);
      out_.PutU8(NFTA_REJECT_ICMP_CODE,
                 s.with_reset ? std::uint8_t{0} : std::uint8_t{NFT_REJECT_ICMPX_ADMIN_PROHIBITED});
    });
  }
  void operator()(const Masquerade&) {
    Expression("masq", [] {});
  }
  void operator()(const Translate& s) {
    const Bytes address = s.target.bytes();
    Immediate(1, {address.begin(), address.end()});
    if (s.port) Immediate(2, Network(*s.port));
    Expression("nat", [&] {
      out_.PutU32(NFTA_NAT_TYPE, NFT_NAT_DNAT);
      out_.PutU32(NFTA_NAT_FAMILY, s.target.is_v6() ? NFPROTO_IPV6 : NFPROTO_IPV4);
      out_.PutU32(NFTA_NAT_REG_ADDR_MIN, 1);
      if (s.port) out_.PutU32(NFTA_NAT_REG_PROTO_MIN, 2);
      out_.PutU32(NFTA_NAT_FLAGS, NF_NAT_RANGE_MAP_IPS | (s.port ? NF_NAT_RANGE_PROTO_SPECIFIED : 0));
    });
  }

 private:
  using Value = std::vector<std::uint8_t>;
  static Value Native(std::uint32_t value) {
    Value bytes(sizeof value);
    std::memcpy(bytes.data(), &value, sizeof value);
    return bytes;
  }
  static Value Network(std::uint16_t value) {
    return {static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value & 0xff)};
  }

  template <typename Fill>
  void Expression(const char* name, Fill fill) {
    out_.Nest(NFTA_LIST_ELEM, [&] {
      out_.PutString(NFTA_EXPR_NAME, name);
      out_.Nest(NFTA_EXPR_DATA, fill);
    });
  }
  void Data(int attribute, const Value& value) {
    out_.Nest(attribute, [&] { out_.Put(NFTA_DATA_VALUE, value); });
  }
  void Meta(std::uint32_t key) {
    Expression("meta", [&] {
      out_.PutU32(NFTA_META_KEY, key);
      out_.PutU32(NFTA_META_DREG, 1);
    });
  }
  void Compare(std::uint32_t operation, const Value& value) {
    Expression("cmp", [&] {
      out_.PutU32(NFTA_CMP_SREG, 1);
      out_.PutU32(NFTA_CMP_OP, operation);
      Data(NFTA_CMP_DATA, value);
    });
  }
  void Mask(const Value& mask, const Value& flip) {
    Expression("bitwise", [&] {
      out_.PutU32(NFTA_BITWISE_SREG, 1);
      out_.PutU32(NFTA_BITWISE_DREG, 1);
      out_.PutU32(NFTA_BITWISE_LEN, static_cast<std::uint32_t>(mask.size()));
      Data(NFTA_BITWISE_MASK, mask);
      Data(NFTA_BITWISE_XOR, flip);
    });
  }
  void Payload(std::uint32_t base, std::uint32_t offset, std::uint32_t length, std::uint32_t reg = 1) {
    Expression("payload", [&] {
      out_.PutU32(NFTA_PAYLOAD_DREG, reg);
      out_.PutU32(NFTA_PAYLOAD_BASE, base);
      out_.PutU32(NFTA_PAYLOAD_OFFSET, offset);
      out_.PutU32(NFTA_PAYLOAD_LEN, length);
    });
  }
  void Lookup(const std::string& set, bool is) {
    Expression("lookup", [&] {
      out_.PutString(NFTA_LOOKUP_SET, set);
      out_.PutU32(NFTA_LOOKUP_SREG, 1);
      if (!is) out_.PutU32(NFTA_LOOKUP_FLAGS, NFT_LOOKUP_F_INV);
    });
  }
  void Immediate(std::uint32_t reg, const Value& value) {
    Expression("immediate", [&] {
      out_.PutU32(NFTA_IMMEDIATE_DREG, reg);
      Data(NFTA_IMMEDIATE_DATA, value);
    });
  }
  void Verdict(int code, const std::string& chain) {
    Expression("immediate", [&] {
      out_.PutU32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT);
      out_.Nest(NFTA_IMMEDIATE_DATA, [&] {
        out_.Nest(NFTA_DATA_VERDICT, [&] {
          out_.PutU32(NFTA_VERDICT_CODE, static_cast<std::uint32_t>(code));
          if (!chain.empty()) out_.PutString(NFTA_VERDICT_CHAIN, chain);
        });
      });
    });
  }
  void Name(std::uint32_t key, const std::string& device, bool is) {
    Meta(key);
    Value name(device.begin(), device.end());
    name.resize(16);  // IFNAMSIZ; what follows the name is zero in the register too
    Compare(is ? NFT_CMP_EQ : NFT_CMP_NEQ, name);
  }
  void Family(bool is_v6) {
    Meta(NFT_META_NFPROTO);
    Compare(NFT_CMP_EQ, {is_v6 ? std::uint8_t{NFPROTO_IPV6} : std::uint8_t{NFPROTO_IPV4}});
  }
  void Protocol(std::uint8_t protocol) {
    Meta(NFT_META_L4PROTO);
    Compare(NFT_CMP_EQ, {protocol});
  }
  void Address(bool is_v6, bool is_destination) {
    Family(is_v6);
    LoadAddress(is_v6, is_destination);
  }
  void LoadAddress(bool is_v6, bool is_destination) {
    const std::uint32_t offset = is_v6 ? (is_destination ? 24 : 8) : (is_destination ? 16 : 12);
    Payload(NFT_PAYLOAD_NETWORK_HEADER, offset, is_v6 ? 16 : 4);
  }
  void Syn() {
    Protocol(IPPROTO_TCP);
    Payload(NFT_PAYLOAD_TRANSPORT_HEADER, 13, 1);
    Mask({2}, {0});
    Compare(NFT_CMP_NEQ, {0});
  }
  void WriteMaximumSegmentSize() {
    Expression("exthdr", [&] {
      out_.PutU32(NFTA_EXTHDR_SREG, 1);
      out_.PutU8(NFTA_EXTHDR_TYPE, 2);  // TCP option "maximum segment size" (RFC 9293, 3.2)
      out_.PutU32(NFTA_EXTHDR_OFFSET, 2);
      out_.PutU32(NFTA_EXTHDR_LEN, 2);
      out_.PutU32(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_TCPOPT);
    });
  }

  Attributes& out_;
};

// ---- sets

struct Element {
  std::vector<std::uint8_t> key;
  bool is_end = false;  // of an interval: the first address behind it
  unsigned timeout_seconds = 0;
};

std::vector<std::uint8_t> KeyOf(const IpAddress& ip) { return {ip.bytes().begin(), ip.bytes().end()}; }

// Sorted, as a tree of intervals is built fastest.
std::vector<Element> ElementsOf(const Set& set) {
  std::vector<Element> elements;
  if (set.kind == Set::Kind::kUser) {
    Element element{std::vector<std::uint8_t>(sizeof set.uid), false, set.timeout_seconds};
    std::memcpy(element.key.data(), &set.uid, sizeof set.uid);
    elements.push_back(std::move(element));
  }
  for (const SocketAddress& endpoint : set.endpoints) {
    Element element{KeyOf(endpoint.ip)};
    element.key.push_back(static_cast<std::uint8_t>(endpoint.port >> 8));
    element.key.push_back(static_cast<std::uint8_t>(endpoint.port & 0xff));
    element.key.resize(element.key.size() + 2);  // each part of a key fills whole registers
    elements.push_back(std::move(element));
  }
  for (const Prefix& prefix : set.prefixes) {
    elements.push_back({KeyOf(prefix.address())});
    if (set.kind != Set::Kind::kPrefixes) continue;
    // The last address plus one. After the very last address nothing closes the interval: it is open.
    std::vector<std::uint8_t> end = KeyOf(prefix.address());
    bool carry = true;
    for (std::size_t bit = prefix.length(); carry && bit-- > 0;) {
      const auto value = static_cast<std::uint8_t>(0x80U >> (bit % 8));
      carry = (end[bit / 8] & value) != 0;
      end[bit / 8] = static_cast<std::uint8_t>(end[bit / 8] ^ value);
    }
    if (!carry) elements.push_back({std::move(end), true});
  }
  return elements;
}

void AppendElements(std::vector<Message>& messages, const std::string& table, const Set& set, bool adding) {
  const std::vector<Element> elements = ElementsOf(set);
  for (std::size_t begin = 0; begin < elements.size(); begin += kElementsPerMessage) {
    const auto part = std::span(elements).subspan(begin, std::min(kElementsPerMessage, elements.size() - begin));
    messages.push_back(Make(fmt::format("elements of set {}", set.name),
                            adding ? NFT_MSG_NEWSETELEM : NFT_MSG_DELSETELEM, adding ? NLM_F_CREATE : 0, NFPROTO_INET,
                            [&](Attributes& out) {
                              out.PutString(NFTA_SET_ELEM_LIST_TABLE, table);
                              out.PutString(NFTA_SET_ELEM_LIST_SET, set.name);
                              out.Nest(NFTA_SET_ELEM_LIST_ELEMENTS, [&] {
                                for (const Element& element : part) {
                                  out.Nest(NFTA_LIST_ELEM, [&] {
                                    if (element.is_end) out.PutU32(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
                                    if (element.timeout_seconds != 0) {
                                      out.PutU64(NFTA_SET_ELEM_TIMEOUT, std::uint64_t{element.timeout_seconds} * 1000);
                                    }
                                    out.Nest(NFTA_SET_ELEM_KEY, [&] { out.Put(NFTA_DATA_VALUE, element.key); });
                                  });
                                }
                              });
                            }));
  }
}

Message NewSet(const std::string& table, const Set& set, std::uint32_t id) {
  return Make(fmt::format("set {}", set.name), NFT_MSG_NEWSET, NLM_F_CREATE, NFPROTO_INET, [&](Attributes& out) {
    std::uint32_t type = set.is_v6 ? kTypeIpv6 : kTypeIpv4;
    std::uint32_t length = set.is_v6 ? 16 : 4;
    if (set.kind == Set::Kind::kEndpoints) {
      type = (type << kTypeBits) | kTypePort;
      length += 4;
    }
    if (set.kind == Set::Kind::kUser) {
      type = kTypeUser;
      length = sizeof set.uid;
    }
    out.PutString(NFTA_SET_TABLE, table);
    out.PutString(NFTA_SET_NAME, set.name);
    out.PutU32(NFTA_SET_FLAGS, set.kind == Set::Kind::kPrefixes ? NFT_SET_INTERVAL
                               : set.kind == Set::Kind::kUser   ? NFT_SET_TIMEOUT
                                                                : 0);
    out.PutU32(NFTA_SET_KEY_TYPE, type);
    out.PutU32(NFTA_SET_KEY_LEN, length);
    out.PutU32(NFTA_SET_ID, id);
  });
}

Message NewChain(const std::string& table, const Chain& chain) {
  return Make(fmt::format("chain {}", chain.name), NFT_MSG_NEWCHAIN, NLM_F_CREATE, NFPROTO_INET, [&](Attributes& out) {
    out.PutString(NFTA_CHAIN_TABLE, table);
    out.PutString(NFTA_CHAIN_NAME, chain.name);
    if (!chain.base) return;
    out.Nest(NFTA_CHAIN_HOOK, [&] {
      out.PutU32(NFTA_HOOK_HOOKNUM, static_cast<std::uint32_t>(chain.base->hook));
      out.PutU32(NFTA_HOOK_PRIORITY, static_cast<std::uint32_t>(chain.base->priority));
    });
    out.PutU32(NFTA_CHAIN_POLICY, NF_ACCEPT);
    out.PutString(NFTA_CHAIN_TYPE, chain.base->is_nat ? "nat" : "filter");
  });
}

Message NewRule(const std::string& table, const std::string& chain, const Rule& rule) {
  return Make(fmt::format("rule \"{}\"", ToString(rule)), NFT_MSG_NEWRULE, NLM_F_CREATE | NLM_F_APPEND, NFPROTO_INET,
              [&](Attributes& out) {
                out.PutString(NFTA_RULE_TABLE, table);
                out.PutString(NFTA_RULE_CHAIN, chain);
                out.Nest(NFTA_RULE_EXPRESSIONS, [&] {
                  Expressions expressions(out);
                  for (const Statement& statement : rule) std::visit(expressions, statement);
                });
              });
}

void AppendMessage(std::vector<std::uint8_t>& wire, std::uint16_t type, std::uint16_t flags, std::uint32_t sequence,
                   Bytes payload) {
  const nlmsghdr header{.nlmsg_len = static_cast<std::uint32_t>(NLMSG_HDRLEN + payload.size()),
                        .nlmsg_type = type,
                        .nlmsg_flags = static_cast<std::uint16_t>(flags | NLM_F_REQUEST),
                        .nlmsg_seq = sequence,
                        .nlmsg_pid = 0};
  const auto* raw = reinterpret_cast<const std::uint8_t*>(&header);
  wire.insert(wire.end(), raw, raw + sizeof header);
  wire.insert(wire.end(), payload.begin(), payload.end());
  wire.resize(NLMSG_ALIGN(wire.size()));
}

}  // namespace

std::vector<Message> MakeTable(const std::string& table, std::uint32_t flags) {
  return {Make(fmt::format("table inet {}", table), NFT_MSG_NEWTABLE, NLM_F_CREATE, NFPROTO_INET, [&](Attributes& out) {
    out.PutString(NFTA_TABLE_NAME, table);
    out.PutU32(NFTA_TABLE_FLAGS, flags);
  })};
}

std::vector<Message> RemoveTable(const std::string& table) {
  return {Make(fmt::format("table inet {}", table), NFT_MSG_DELTABLE, 0, NFPROTO_INET,
               [&](Attributes& out) { out.PutString(NFTA_TABLE_NAME, table); })};
}

std::vector<Message> MakeContents(const Table& table) {
  std::vector<Message> messages;
  for (const std::string& counter : table.counters) {
    messages.push_back(
        Make(fmt::format("counter {}", counter), NFT_MSG_NEWOBJ, NLM_F_CREATE, NFPROTO_INET, [&](Attributes& out) {
          out.PutString(NFTA_OBJ_TABLE, table.name);
          out.PutString(NFTA_OBJ_NAME, counter);
          out.PutU32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
          out.Nest(NFTA_OBJ_DATA, [] {});
        }));
  }
  std::uint32_t id = 0;
  for (const Set& set : table.sets) {
    messages.push_back(NewSet(table.name, set, ++id));
    AppendElements(messages, table.name, set, true);
  }
  for (const Chain& chain : table.chains) messages.push_back(NewChain(table.name, chain));
  for (const Chain& chain : table.chains) {
    for (const Rule& rule : chain.rules) messages.push_back(NewRule(table.name, chain.name, rule));
  }
  return messages;
}

std::vector<Message> ChangeElements(const std::string& table, const Set& before, const Set& after) {
  const auto without = [](Set set, const Set& others) {
    std::erase_if(set.prefixes,
                  [&](const Prefix& p) { return std::ranges::find(others.prefixes, p) != others.prefixes.end(); });
    std::erase_if(set.endpoints, [&](const SocketAddress& e) {
      return std::ranges::find(others.endpoints, e) != others.endpoints.end();
    });
    return set;
  };
  std::vector<Message> messages;
  AppendElements(messages, table, without(before, after), false);
  AppendElements(messages, table, without(after, before), true);
  return messages;
}

std::vector<Message> ReplaceRules(const std::string& table, const Chain& chain) {
  std::vector<Message> messages;
  messages.push_back(
      Make(fmt::format("rules of chain {}", chain.name), NFT_MSG_DELRULE, 0, NFPROTO_INET, [&](Attributes& out) {
        out.PutString(NFTA_RULE_TABLE, table);
        out.PutString(NFTA_RULE_CHAIN, chain.name);
      }));
  for (const Rule& rule : chain.rules) messages.push_back(NewRule(table, chain.name, rule));
  return messages;
}

std::vector<std::uint8_t> ToBatch(std::span<const Message> messages, std::uint32_t first_sequence) {
  const nfgenmsg frame{.nfgen_family = AF_UNSPEC, .version = NFNETLINK_V0, .res_id = htons(NFNL_SUBSYS_NFTABLES)};
  const Bytes frame_bytes(reinterpret_cast<const std::uint8_t*>(&frame), sizeof frame);
  std::vector<std::uint8_t> wire;
  std::uint32_t sequence = first_sequence;
  AppendMessage(wire, NFNL_MSG_BATCH_BEGIN, 0, sequence++, frame_bytes);
  for (const Message& message : messages) {
    const bool is_last = &message == &messages.back();
    const auto flags = static_cast<std::uint16_t>(message.flags | (is_last ? NLM_F_ACK : 0));
    AppendMessage(wire, message.type, flags, sequence++, message.payload);
  }
  AppendMessage(wire, NFNL_MSG_BATCH_END, 0, sequence, frame_bytes);
  return wire;
}

std::vector<std::uint8_t> ToRequest(const Message& message, std::uint32_t sequence) {
  std::vector<std::uint8_t> wire;
  AppendMessage(wire, message.type, message.flags, sequence, message.payload);
  return wire;
}

Message GetTable(const std::string& table) {
  return Make(fmt::format("table inet {}", table), NFT_MSG_GETTABLE, 0, NFPROTO_INET,
              [&](Attributes& out) { out.PutString(NFTA_TABLE_NAME, table); });
}

Message DumpCounters(const std::string& table) {
  return Make(fmt::format("counters of table inet {}", table), NFT_MSG_GETOBJ, NLM_F_DUMP, NFPROTO_INET,
              [&](Attributes& out) {
                out.PutString(NFTA_OBJ_TABLE, table);
                out.PutU32(NFTA_OBJ_TYPE, NFT_OBJECT_COUNTER);
              });
}

Message DumpChains() {
  return Make("chains", NFT_MSG_GETCHAIN, NLM_F_DUMP, NFPROTO_INET, [](Attributes&) {});
}

Message DumpRules(const std::string& table) {
  return Make(fmt::format("rules of table inet {}", table), NFT_MSG_GETRULE, NLM_F_DUMP, NFPROTO_INET,
              [&](Attributes& out) { out.PutString(NFTA_RULE_TABLE, table); });
}

Message DumpElements(const std::string& table, const std::string& set) {
  return Make(fmt::format("elements of set {}", set), NFT_MSG_GETSETELEM, NLM_F_DUMP, NFPROTO_INET,
              [&](Attributes& out) {
                out.PutString(NFTA_SET_ELEM_LIST_TABLE, table);
                out.PutString(NFTA_SET_ELEM_LIST_SET, set);
              });
}

}  // namespace adit::nft
