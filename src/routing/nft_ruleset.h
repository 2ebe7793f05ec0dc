// An nftables table as plain data: what the firewall planner makes, the wire format carries and a person reads. Only
// the statements that Adit needs, each with one text (nft's own) and one encoding. Pure.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/address.h"

namespace adit::nft {

// Matches; a rule goes on with its next statement where one holds.
struct InputName {
  std::string device;
  bool is = true;  // false: "!="
};
struct OutputName {
  std::string device;
  bool is = true;
};
struct MarkIs {
  std::uint32_t value = 0;
  std::uint32_t mask = 0xffffffff;
  bool is = true;
};
struct ProtocolIs {  // meta l4proto
  std::uint8_t protocol = 0;
};
struct Port {  // of TCP or UDP
  std::uint8_t protocol = 0;
  bool is_destination = true;
  std::uint16_t first = 0;
  std::uint16_t last = 0;
};
struct AddressIn {  // by a set of addresses or prefixes of one family
  bool is_v6 = false;
  bool is_destination = true;
  std::string set;
  bool is = true;
};
struct EndpointIn {  // address and UDP port
  bool is_v6 = false;
  bool is_destination = true;
  std::string set;
};
struct UserIn {  // whose socket it is
  std::string set;
};
struct Icmp6Type {
  std::uint8_t type = 0;
};
struct HopLimit255 {};     // IPv6: sent by a neighbour, not forwarded (RFC 4861, 7.1)
struct SourceNotLocal {};  // fib: the source is no address of this machine
struct WasAddressedTo {    // conntrack: before translation
  bool is_v6 = false;
  std::string set;  // of addresses of that family
};
struct WasTranslated {};  // ct status dnat

// Effects; the rule goes on.
struct Count {
  std::string counter;
};
struct SetMark {  // bits outside of `mask` stay
  std::uint32_t value = 0;
  std::uint32_t mask = 0;
};
struct ClampToRoute {};  // the MSS of a SYN
struct ClampTo {
  bool is_v6 = false;
  std::uint16_t mss_bytes = 0;
};

// Ends of a rule.
struct Accept {};
struct Drop {};
struct Return {};
struct Jump {
  std::string chain;
};
struct Reject {
  bool with_reset = false;  // TCP; else ICMP "administratively prohibited"
};
struct Masquerade {};
struct Translate {  // destination
  IpAddress target;
  std::optional<std::uint16_t> port;
};

using Statement = std::variant<InputName, OutputName, MarkIs, ProtocolIs, Port, AddressIn, EndpointIn, UserIn,
                               Icmp6Type, HopLimit255, SourceNotLocal, WasAddressedTo, WasTranslated, Count, SetMark,
                               ClampToRoute, ClampTo, Accept, Drop, Return, Jump, Reject, Masquerade, Translate>;
using Rule = std::vector<Statement>;

enum class Hook : std::uint8_t { kPrerouting = 0, kInput = 1, kForward = 2, kOutput = 3, kPostrouting = 4 };

struct Chain {
  std::string name;
  struct Base {
    bool is_nat = false;
    Hook hook = Hook::kOutput;
    int priority = 0;
  };
  std::optional<Base> base;  // policy accept; empty: reached by jumps only
  std::vector<Rule> rules;
};

struct Set {
  enum class Kind : std::uint8_t {
    kAddresses,  // single ones
    kPrefixes,
    kEndpoints,  // address . port
    kUser,       // one, for a time
  };
  std::string name;
  Kind kind = Kind::kAddresses;
  bool is_v6 = false;
  std::vector<Prefix> prefixes;          // kAddresses (whole length), kPrefixes (none inside another)
  std::vector<SocketAddress> endpoints;  // kEndpoints
  std::uint32_t uid = 0;                 // kUser
  unsigned timeout_seconds = 0;          // kUser
  friend bool operator==(const Set&, const Set&) = default;
};

struct Table {  // of family inet
  std::string name;
  std::vector<std::string> counters;
  std::vector<Set> sets;
  std::vector<Chain> chains;  // those jumped to stand before those that jump

  const Chain* FindChain(std::string_view chain) const;
  const Set* FindSet(std::string_view set) const;
};

// As `nft list table inet NAME` prints it, but for line breaks inside of element lists and for the counts.
std::string ToString(const Table& table);
std::string ToString(const Rule& rule);

// A packet as far as rules can tell it apart. One that came in by a device is a neighbour's: its source is not ours.
struct Packet {
  std::string input_device{};   // empty: locally made
  std::string output_device{};  // empty: for this machine itself
  std::uint32_t mark = 0;
  std::uint32_t uid = 0;  // of a locally made one
  IpAddress source;
  IpAddress destination;
  std::uint8_t protocol = 0;
  std::uint16_t source_port = 0;
  std::uint16_t destination_port = 0;
};

struct Verdict {
  bool passes = true;
  std::string chain;    // where it was dropped
  std::string rule;     // the rule that did it, as nft prints it
  std::string counter;  // that counted it; may be empty
};

// What the table's filters do to a packet on its way, hook by hook, chain by chain in the order of their priorities.
// Translation is left out: the packet is judged as it is.
Verdict Judge(const Table& table, Packet packet);

}  // namespace adit::nft
