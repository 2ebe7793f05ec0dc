#include "base/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include <algorithm>
#include <charconv>
#include <cstring>

#include "base/check.h"

namespace adit {
namespace {

template <typename T>
std::optional<T> ParseDecimal(std::string_view text) {
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

IpAddress IpAddress::V4(Bytes four) {
  CHECK(four.size() == 4);
  IpAddress ip;
  std::ranges::copy(four, ip.bytes_.begin());
  return ip;
}

IpAddress IpAddress::V6(Bytes sixteen) {
  CHECK(sixteen.size() == 16);
  IpAddress ip;
  ip.is_v6_ = true;
  std::ranges::copy(sixteen, ip.bytes_.begin());
  return ip;
}

std::optional<IpAddress> IpAddress::Parse(std::string_view text) {
  char buffer[INET6_ADDRSTRLEN];
  if (text.empty() || text.size() >= sizeof buffer || text.find('\0') != text.npos) return std::nullopt;
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  IpAddress ip;
  ip.is_v6_ = text.find(':') != text.npos;
  if (inet_pton(ip.is_v6_ ? AF_INET6 : AF_INET, buffer, ip.bytes_.data()) != 1) return std::nullopt;
  return ip;
}

bool IpAddress::is_unspecified() const {
  return std::ranges::all_of(bytes(), [](std::uint8_t b) { return b == 0; });
}

bool IpAddress::is_v6_link_local() const { return is_v6_ && bytes_[0] == 0xfe && (bytes_[1] & 0xc0) == 0x80; }

bool IpAddress::is_multicast() const { return is_v6_ ? bytes_[0] == 0xff : (bytes_[0] & 0xf0) == 0xe0; }

std::string IpAddress::ToString() const {
  char buffer[INET6_ADDRSTRLEN];
  CHECK(inet_ntop(is_v6_ ? AF_INET6 : AF_INET, bytes_.data(), buffer, sizeof buffer) != nullptr);
  return buffer;
}

std::optional<SocketAddress> SocketAddress::Parse(std::string_view text, unsigned (*interface_index)(const char*)) {
  const auto colon = text.rfind(':');
  if (colon == text.npos) return std::nullopt;
  std::string_view host = text.substr(0, colon);
  const auto port = ParseDecimal<std::uint16_t>(text.substr(colon + 1));
  if (!port) return std::nullopt;

  SocketAddress address;
  address.port = *port;
  if (host.starts_with('[')) {
    if (!host.ends_with(']')) return std::nullopt;
    host = host.substr(1, host.size() - 2);
    if (const auto percent = host.find('%'); percent != host.npos) {
      const std::string scope(host.substr(percent + 1));
      if (const auto number = ParseDecimal<std::uint32_t>(scope)) {
        address.scope_id = *number;
      } else {
        address.scope_id = interface_index != nullptr ? interface_index(scope.c_str()) : 0;
        if (address.scope_id == 0) return std::nullopt;
      }
      host = host.substr(0, percent);
    }
  }
  const auto ip = IpAddress::Parse(host);
  if (!ip || ip->is_v6() != text.starts_with('[')) return std::nullopt;
  address.ip = *ip;
  return address;
}

std::string SocketAddress::ToString() const {
  if (ip.is_v4()) return fmt::format("{}:{}", ip.ToString(), port);
  if (scope_id != 0) return fmt::format("[{}%{}]:{}", ip.ToString(), scope_id, port);
  return fmt::format("[{}]:{}", ip.ToString(), port);
}

socklen_t SocketAddress::ToSockaddr(sockaddr_storage& out) const {
  std::memset(&out, 0, sizeof out);
  if (ip.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    in.sin_port = htons(port);
    std::memcpy(&in.sin_addr, ip.bytes().data(), 4);
    std::memcpy(&out, &in, sizeof in);
    return sizeof in;
  }
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_port = htons(port);
  in6.sin6_scope_id = scope_id;
  std::memcpy(&in6.sin6_addr, ip.bytes().data(), 16);
  std::memcpy(&out, &in6, sizeof in6);
  return sizeof in6;
}

std::optional<SocketAddress> SocketAddress::FromSockaddr(const sockaddr* from) {
  SocketAddress address;
  if (from->sa_family == AF_INET) {
    sockaddr_in in;
    std::memcpy(&in, from, sizeof in);
    address.ip = IpAddress::V4(Bytes(reinterpret_cast<const std::uint8_t*>(&in.sin_addr), 4));
    address.port = ntohs(in.sin_port);
    return address;
  }
  if (from->sa_family == AF_INET6) {
    sockaddr_in6 in6;
    std::memcpy(&in6, from, sizeof in6);
    address.ip = IpAddress::V6(Bytes(reinterpret_cast<const std::uint8_t*>(&in6.sin6_addr), 16));
    address.port = ntohs(in6.sin6_port);
    address.scope_id = in6.sin6_scope_id;
    return address;
  }
  return std::nullopt;
}

Prefix::Prefix(IpAddress address, unsigned length) : length_(static_cast<std::uint8_t>(length)) {
  CHECK(length <= address.bits());
  ByteArray<16> masked{};
  const Bytes bytes = address.bytes();
  for (unsigned i = 0; i < bytes.size(); ++i) {
    const unsigned kept = length >= 8 * (i + 1) ? 8 : length > 8 * i ? length - 8 * i : 0;
    masked[i] = static_cast<std::uint8_t>(bytes[i] & (0xff00u >> kept));
  }
  address_ = address.is_v6() ? IpAddress::V6(masked) : IpAddress::V4(Bytes(masked).first(4));
}

std::optional<Prefix> Prefix::Parse(std::string_view text, bool length_optional, bool* had_host_bits) {
  const auto slash = text.find('/');
  if (slash == text.npos && !length_optional) return std::nullopt;
  const auto ip = IpAddress::Parse(text.substr(0, slash));
  if (!ip) return std::nullopt;
  unsigned length = ip->bits();
  if (slash != text.npos) {
    const auto parsed = ParseDecimal<unsigned>(text.substr(slash + 1));
    if (!parsed || *parsed > ip->bits()) return std::nullopt;
    length = *parsed;
  }
  const Prefix prefix(*ip, length);
  if (had_host_bits != nullptr) *had_host_bits = prefix.address() != *ip;
  return prefix;
}

bool Prefix::Contains(const IpAddress& ip) const {
  return ip.is_v6() == address_.is_v6() && Prefix(ip, length_).address_ == address_;
}

std::string Prefix::ToString() const { return fmt::format("{}/{}", address_.ToString(), length_); }

}  // namespace adit
