#include "config/uapi.h"

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <limits>
#include <utility>

#include "config/text.h"

namespace adit {
namespace {

// Keys go into messages by name only: their values may be secrets.
std::unexpected<Error> BadValue(std::string_view key, std::string_view why) {
  return FailErrno(EINVAL, "{}: {}", key, why);
}

Status ExpectTrue(std::string_view key, std::string_view value) {
  if (value != "true") return BadValue(key, "the only value is \"true\"");
  return {};
}

template <typename T, typename Field>
Status ParseNumber(std::string_view key, std::string_view value, Field& field) {
  const auto number = ParseDecimal<T>(value);
  if (!number) return BadValue(key, "not a decimal number in its range");
  field = *number;
  return {};
}

Result<SecretArray<kKeyBytes>> ParseHexKey(std::string_view key, std::string_view value) {
  auto parsed = ParseKeyHex(value);
  if (!parsed) return BadValue(key, "not a key of 64 hexadecimal digits");
  return *std::move(parsed);
}

Result<AllowedIpChange> ParseAllowedIp(std::string_view key, std::string_view value) {
  AllowedIpChange change;
  change.remove = value.starts_with('-');
  const auto prefix = Prefix::Parse(value.substr(change.remove ? 1 : 0), /*length_optional=*/false);
  if (!prefix) return BadValue(key, "not an address with a prefix length");
  change.prefix = *prefix;
  return change;
}

std::pair<std::string_view, std::string_view> SplitAtEquals(std::string_view line) {
  const auto equals = line.find('=');
  return {line.substr(0, equals), equals == line.npos ? std::string_view() : line.substr(equals + 1)};
}

void AppendKey(SecretText& out, std::string_view name, Bytes key) {
  std::string hex = KeyToHex(key);
  fmt::format_to(std::back_inserter(out), "{}={}\n", name, hex);
  sodium_memzero(hex.data(), hex.size());
}

template <typename... Args>
void AppendLine(SecretText& out, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(out), format, std::forward<Args>(args)...);
  out += '\n';
}

}  // namespace

void UapiParser::AddLine(std::string_view line) {
  ++line_number_;
  if (error_) return;
  if (auto status = ParseLine(line); !status) {
    SetError({fmt::format("line {}: {}", line_number_, status.error().message), status.error().code});
  }
}

void UapiParser::SetError(Error error) {
  if (!error_) error_ = std::move(error);
  update_ = {};
}

Result<DeviceUpdate> UapiParser::Finish() {
  line_number_ = 1;
  if (auto error = std::exchange(error_, std::nullopt)) return std::unexpected(*std::move(error));
  return std::exchange(update_, {});
}

Status UapiParser::ParseLine(std::string_view line) {
  if (line.find('\0') != line.npos) return FailErrno(EINVAL, "a zero byte");
  if (line.find('=') == line.npos) return FailErrno(EPROTO, "no \"=\"");
  const auto [key, value] = SplitAtEquals(line);
  if (key == "public_key") {
    const auto parsed = ParseHexKey(key, value);
    if (!parsed) return std::unexpected(parsed.error());
    update_.peers.emplace_back().public_key = ToPublicKey(*parsed);
    return {};
  }
  return update_.peers.empty() ? ParseDeviceKey(key, value) : ParsePeerKey(update_.peers.back(), key, value);
}

Status UapiParser::ParseDeviceKey(std::string_view key, std::string_view value) {
  if (key == "private_key") {
    const auto parsed = ParseHexKey(key, value);
    if (!parsed) return std::unexpected(parsed.error());
    update_.private_key = PrivateKey(parsed->bytes()).Clamped();
    return {};
  }
  if (key == "listen_port") return ParseNumber<std::uint16_t>(key, value, update_.listen_port);
  if (key == "fwmark") return ParseNumber<std::uint32_t>(key, value, update_.fwmark);
  if (key == "replace_peers") {
    update_.replace_peers = true;
    return ExpectTrue(key, value);
  }
  return FailErrno(EINVAL, "key {} is unknown, or has no public_key before it", Quoted(key));
}

Status UapiParser::ParsePeerKey(PeerUpdate& peer, std::string_view key, std::string_view value) {
  if (key == "allowed_ip") {
    const auto change = ParseAllowedIp(key, value);
    if (!change) return std::unexpected(change.error());
    peer.allowed_ips.push_back(*change);
    return {};
  }
  if (key == "preshared_key") {
    const auto parsed = ParseHexKey(key, value);
    if (!parsed) return std::unexpected(parsed.error());
    peer.preshared_key = PresharedKey(parsed->bytes());
    return {};
  }
  if (key == "endpoint") {
    const auto endpoint = SocketAddress::Parse(value, interface_index_);
    if (!endpoint) return BadValue(key, "not a numeric address and port");
    peer.endpoint = *endpoint;
    return {};
  }
  if (key == "persistent_keepalive_interval") {
    return ParseNumber<std::uint16_t>(key, value, peer.persistent_keepalive_seconds);
  }
  if (key == "replace_allowed_ips") {
    // It acts where it stands: what the section listed before it is gone.
    peer.replace_allowed_ips = true;
    peer.allowed_ips.clear();
    return ExpectTrue(key, value);
  }
  if (key == "update_only") {
    peer.update_only = true;
    return ExpectTrue(key, value);
  }
  if (key == "remove") {
    peer.remove = true;
    return ExpectTrue(key, value);
  }
  if (key == "protocol_version") {
    if (value != "1") return BadValue(key, "the only version is 1");
    return {};
  }
  return FailErrno(EINVAL, "key {} is unknown, or does not belong after public_key", Quoted(key));
}

Result<DeviceUpdate> ParseUapiSet(std::string_view lines, InterfaceIndex interface_index) {
  UapiParser parser(interface_index);
  while (!lines.empty()) {
    const auto newline = lines.find('\n');
    parser.AddLine(lines.substr(0, newline));
    lines.remove_prefix(newline == lines.npos ? lines.size() : newline + 1);
  }
  return parser.Finish();
}

std::optional<UapiRequest> UapiFramer::Read(std::string_view& bytes) {
  while (!bytes.empty()) {
    if (state_ == State::kEnded) {
      bytes = {};
      break;
    }
    const auto newline = bytes.find('\n');
    const std::string_view part = bytes.substr(0, newline);
    const std::size_t taken = newline == bytes.npos ? bytes.size() : newline + 1;
    bytes.remove_prefix(taken);
    request_bytes_ = std::min(request_bytes_ + taken, max_request_bytes_ + 1);

    if (line_.size() + part.size() > kMaxUapiLineBytes) line_is_too_long_ = true;
    if (line_is_too_long_) {
      line_.clear();
    } else {
      line_ += part;
    }
    if (request_bytes_ > max_request_bytes_) {
      parser_.SetError({fmt::format("a request of more than {} bytes", max_request_bytes_), E2BIG});
    }
    // An operation's name that is too long will not become a known one.
    if (newline == bytes.npos && !(line_is_too_long_ && state_ == State::kStart)) continue;
    if (auto request = EndLine()) return request;
  }
  return std::nullopt;
}

std::optional<UapiRequest> UapiFramer::EndLine() {
  const bool is_too_long = std::exchange(line_is_too_long_, false);
  const SecretText line = std::exchange(line_, {});
  if (state_ == State::kStart) {
    if (!is_too_long && (line == "get=1" || line == "set=1")) {
      state_ = line == "get=1" ? State::kGet : State::kSet;
      return std::nullopt;
    }
    state_ = State::kEnded;
    return UapiRequest{UapiRequest::Kind::kUnknown, FailErrno(EPROTO, "neither \"get=1\" nor \"set=1\"")};
  }
  if (is_too_long) {
    parser_.SetError({fmt::format("a line of more than {} bytes", kMaxUapiLineBytes), EPROTO});
    return std::nullopt;
  }
  if (!line.empty()) {
    if (state_ == State::kSet) {
      parser_.AddLine(line);
    } else {
      parser_.SetError({"a get request has no lines", EINVAL});
    }
    return std::nullopt;
  }
  const auto kind = state_ == State::kGet ? UapiRequest::Kind::kGet : UapiRequest::Kind::kSet;
  state_ = State::kStart;
  request_bytes_ = 0;
  return UapiRequest{kind, parser_.Finish()};
}

void UapiFramer::Refuse(Error error) {
  if (state_ == State::kGet || state_ == State::kSet) parser_.SetError(std::move(error));
}

SecretText WriteUapiGet(const DeviceStatus& status) {
  SecretText out;
  if (!status.private_key.is_zero()) AppendKey(out, "private_key", status.private_key);
  if (status.listen_port != 0) AppendLine(out, "listen_port={}", status.listen_port);
  if (status.fwmark != 0) AppendLine(out, "fwmark={}", status.fwmark);
  for (const PeerStatus& peer : status.peers) {
    AppendKey(out, "public_key", peer.public_key.bytes);
    AppendKey(out, "preshared_key", peer.preshared_key);
    AppendLine(out, "protocol_version=1");
    if (peer.endpoint) AppendLine(out, "endpoint={}", peer.endpoint->ToString());
    // Before 1970 stands for never, as zero does: `wg` reads these fields as unsigned.
    const WallTime handshake = peer.last_handshake.value_or(WallTime{});
    AppendLine(out, "last_handshake_time_sec={}", std::max<std::int64_t>(handshake.seconds, 0));
    AppendLine(out, "last_handshake_time_nsec={}", handshake.seconds < 0 ? 0 : handshake.nanoseconds);
    AppendLine(out, "tx_bytes={}", peer.tx_bytes);
    AppendLine(out, "rx_bytes={}", peer.rx_bytes);
    AppendLine(out, "persistent_keepalive_interval={}", peer.persistent_keepalive_seconds);
    for (const Prefix& prefix : peer.allowed_ips) AppendLine(out, "allowed_ip={}", prefix.ToString());
  }
  return out;
}

std::string WriteUapiErrno(UapiRequest::Kind kind, int code) {
  return fmt::format("errno={}\n\n", kind == UapiRequest::Kind::kSet ? -code : code);
}

SecretText WriteUapiSet(const DeviceUpdate& update) {
  SecretText out = "set=1\n";
  if (update.private_key) AppendKey(out, "private_key", *update.private_key);
  if (update.listen_port) AppendLine(out, "listen_port={}", *update.listen_port);
  if (update.fwmark) AppendLine(out, "fwmark={}", *update.fwmark);
  if (update.replace_peers) AppendLine(out, "replace_peers=true");
  for (const PeerUpdate& peer : update.peers) {
    AppendKey(out, "public_key", peer.public_key.bytes);
    if (peer.update_only) AppendLine(out, "update_only=true");
    if (peer.remove) AppendLine(out, "remove=true");
    if (peer.preshared_key) AppendKey(out, "preshared_key", *peer.preshared_key);
    if (peer.endpoint) AppendLine(out, "endpoint={}", peer.endpoint->ToString());
    if (peer.persistent_keepalive_seconds) {
      AppendLine(out, "persistent_keepalive_interval={}", *peer.persistent_keepalive_seconds);
    }
    if (peer.replace_allowed_ips) AppendLine(out, "replace_allowed_ips=true");
    for (const AllowedIpChange& change : peer.allowed_ips) {
      AppendLine(out, "allowed_ip={}{}", change.remove ? "-" : "", change.prefix.ToString());
    }
  }
  out += '\n';
  return out;
}

namespace {

// One line of an answer. False if the value is not what the key demands.
bool ReadStatusLine(DeviceStatus& status, std::string_view key, std::string_view value) {
  const auto read_number = [&value]<typename T>(T& field) {
    const auto number = ParseDecimal<T>(value);
    if (number) field = *number;
    return number.has_value();
  };
  if (key == "public_key" || key == "private_key" || key == "preshared_key") {
    const auto parsed = ParseKeyHex(value);
    if (!parsed) return false;
    if (key == "public_key") {
      status.peers.emplace_back().public_key = ToPublicKey(*parsed);
    } else if (key == "private_key") {
      status.private_key = PrivateKey(parsed->bytes());
    } else {
      if (status.peers.empty()) return false;
      status.peers.back().preshared_key = PresharedKey(parsed->bytes());
    }
    return true;
  }
  if (key == "listen_port") return read_number(status.listen_port);
  if (key == "fwmark") return read_number(status.fwmark);
  if (status.peers.empty()) return true;

  PeerStatus& peer = status.peers.back();
  if (key == "endpoint") {
    peer.endpoint = SocketAddress::Parse(value);
    return peer.endpoint.has_value();
  }
  if (key == "allowed_ip") {
    const auto prefix = Prefix::Parse(value, /*length_optional=*/false);
    if (prefix) peer.allowed_ips.push_back(*prefix);
    return prefix.has_value();
  }
  if (key == "tx_bytes") return read_number(peer.tx_bytes);
  if (key == "rx_bytes") return read_number(peer.rx_bytes);
  if (key == "persistent_keepalive_interval") return read_number(peer.persistent_keepalive_seconds);
  if (key == "last_handshake_time_sec" || key == "last_handshake_time_nsec") {
    const auto number = ParseDecimal<std::uint64_t>(value);
    if (!number || *number > std::numeric_limits<std::int64_t>::max()) return false;
    if (*number == 0) return true;
    if (!peer.last_handshake) peer.last_handshake.emplace();
    if (key == "last_handshake_time_sec") {
      peer.last_handshake->seconds = static_cast<std::int64_t>(*number);
    } else {
      peer.last_handshake->nanoseconds = static_cast<std::uint32_t>(std::min<std::uint64_t>(*number, 999'999'999));
    }
  }
  return true;
}

}  // namespace

Result<DeviceStatus> ParseUapiGet(std::string_view answer) {
  DeviceStatus status;
  for (std::size_t line_number = 1; !answer.empty(); ++line_number) {
    const auto newline = answer.find('\n');
    if (newline == answer.npos) break;
    const std::string_view line = answer.substr(0, newline);
    answer.remove_prefix(newline + 1);
    const auto [key, value] = SplitAtEquals(line);
    if (key == "errno") {
      const auto code = ParseDecimal<unsigned>(value.substr(value.starts_with('-') ? 1 : 0));
      if (code == 0u) return status;
      return FailErrno(static_cast<int>(code.value_or(EPROTO)), "the device answered with errno {}", Quoted(value));
    }
    if (!ReadStatusLine(status, key, value)) {
      return FailErrno(EPROTO, "line {} of the device's answer: bad value of {}", line_number, Quoted(key));
    }
  }
  return FailErrno(EPROTO, "the device's answer ends without an errno line");
}

}  // namespace adit
