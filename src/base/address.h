// Addresses, where a datagram comes from and goes to, and address prefixes. All are small values.
#pragma once

#include <sys/socket.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/result.h"

namespace adit {

// An IPv4 or IPv6 address in network byte order. `::ffff:1.2.3.4` stays IPv6.
class IpAddress {
 public:
  IpAddress() = default;  // 0.0.0.0
  static IpAddress V4(Bytes four);
  static IpAddress V6(Bytes sixteen);
  // The text form only, no name, no scope, no port.
  static std::optional<IpAddress> Parse(std::string_view text);

  bool is_v4() const { return !is_v6_; }
  bool is_v6() const { return is_v6_; }
  bool is_unspecified() const;
  bool is_v6_link_local() const;
  bool is_multicast() const;
  Bytes bytes() const { return Bytes(bytes_).first(is_v6_ ? 16 : 4); }
  unsigned bits() const { return is_v6_ ? 128 : 32; }
  std::string ToString() const;

  friend auto operator<=>(const IpAddress&, const IpAddress&) = default;

 private:
  bool is_v6_ = false;
  ByteArray<16> bytes_{};  // an IPv4 address uses the first four, the rest stays zero
};

// An address and a UDP port; `scope_id` matters to IPv6 link-local addresses only (an interface index).
struct SocketAddress {
  IpAddress ip;
  std::uint16_t port = 0;
  std::uint32_t scope_id = 0;

  // "1.2.3.4:5", "[::1]:5" or "[fe80::1%2]:5". No host names. With `interface_index` (if_nametoindex) also
  // "[fe80::1%eth0]:5"; it is an argument because this folder asks the kernel nothing.
  static std::optional<SocketAddress> Parse(std::string_view text, unsigned (*interface_index)(const char*) = nullptr);
  // The form that Parse reads; the scope is written as a number, as it is what `wg` can resolve without us.
  std::string ToString() const;
  // Fills `out`; returns the length the kernel wants.
  socklen_t ToSockaddr(sockaddr_storage& out) const;
  // Empty for any family but AF_INET and AF_INET6.
  static std::optional<SocketAddress> FromSockaddr(const sockaddr* from);

  friend auto operator<=>(const SocketAddress&, const SocketAddress&) = default;
};

// The local side of a path: the address the peer wrote to and the interface it came in on (IP_PKTINFO). `ip` unset
// (unspecified) means: let the kernel choose.
struct LocalSource {
  IpAddress ip;
  std::uint32_t interface_index = 0;
  bool is_set() const { return !ip.is_unspecified(); }
  friend auto operator<=>(const LocalSource&, const LocalSource&) = default;
};

// Where a peer is, and how we answer it. Destination and source are one value, built once per peer and replaced whole.
struct Endpoint {
  SocketAddress remote;
  LocalSource source;
  // The route to `remote` leads by the source's own link, and what is sent from the source goes by no other: when
  // another link takes over, the old one's address is not seen on it in the time until the kernel has told of it.
  bool holds_link = false;
  friend auto operator<=>(const Endpoint&, const Endpoint&) = default;
};

// An address prefix in canonical form: host bits are zero.
class Prefix {
 public:
  Prefix() = default;  // 0.0.0.0/0
  // Masks the host bits. REQUIRES: length <= address.bits().
  Prefix(IpAddress address, unsigned length);
  // "ip/len"; without "/len" the whole address when `length_optional`, else empty. `had_host_bits`, if given, tells
  // whether masking changed the address.
  static std::optional<Prefix> Parse(std::string_view text, bool length_optional, bool* had_host_bits = nullptr);

  const IpAddress& address() const { return address_; }
  unsigned length() const { return length_; }
  bool Contains(const IpAddress& ip) const;
  std::string ToString() const;

  friend auto operator<=>(const Prefix&, const Prefix&) = default;

 private:
  IpAddress address_;
  std::uint8_t length_ = 0;
};

}  // namespace adit
