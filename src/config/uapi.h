// WireGuard's cross-platform configuration protocol (wireguard.com/xplatform), as text. A request is "get=1" or
// "set=1", lines of key=value, and a blank line. A set request is validated whole before anything of it can apply.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "config/device.h"
#include "config/secret_text.h"

namespace adit {

// A .conf with 255 * 256 allowed IPs makes a request of about 3 MB. The parsed form is at most about twice the text.
inline constexpr std::size_t kMaxUapiLineBytes = 4096;
inline constexpr std::size_t kMaxUapiRequestBytes = 64 << 20;

// if_nametoindex, or nullptr where names of interfaces in endpoints ("[fe80::1%eth0]:5") are not to be resolved.
using InterfaceIndex = unsigned (*)(const char*);

// Takes the lines of one set request, between "set=1" and the blank line.
//
// What it leaves to the engine: a section with our own public key is to be ignored; fields after `remove` mean nothing.
// Two sections with one key both stay, and apply in order.
class UapiParser {
 public:
  explicit UapiParser(InterfaceIndex interface_index) : interface_index_(interface_index) {}

  // One line without its newline. After the first error, the rest is ignored.
  void AddLine(std::string_view line);
  // Ends the request with another error, unless it has one.
  void SetError(Error error);
  bool has_error() const { return error_.has_value(); }
  // The result; the parser is then as new. Error.code is EINVAL (a bad value, an unknown key) or EPROTO (no "="), and
  // its message, for the log, names line and key but never the value of a key.
  Result<DeviceUpdate> Finish();

 private:
  Status ParseLine(std::string_view line);
  Status ParseDeviceKey(std::string_view key, std::string_view value);
  Status ParsePeerKey(PeerUpdate& peer, std::string_view key, std::string_view value);

  InterfaceIndex interface_index_;
  DeviceUpdate update_;
  std::optional<Error> error_;
  std::size_t line_number_ = 1;  // of the request's text, whose first line is "set=1"
};

// All lines at once; for tests and fuzzing.
Result<DeviceUpdate> ParseUapiSet(std::string_view lines, InterfaceIndex interface_index = nullptr);

struct UapiRequest {
  enum class Kind {
    kGet,
    kSet,
    kUnknown,  // neither: nobody knows where it ends, so the framer reads nothing more
  };
  Kind kind = Kind::kUnknown;
  // Get: empty on success. Codes EINVAL, EPROTO, E2BIG.
  Result<DeviceUpdate> update;
};

// Cuts what a client sends into requests. The end of the stream inside a request means nothing was asked: destroy the
// framer. An error inside a request is reported once, when its blank line has come.
class UapiFramer {
 public:
  explicit UapiFramer(InterfaceIndex interface_index, std::size_t max_request_bytes = kMaxUapiRequestBytes)
      : parser_(interface_index), max_request_bytes_(max_request_bytes) {}

  // Takes bytes from the front of `bytes` until a request is complete or nothing is left. Call again with the rest.
  std::optional<UapiRequest> Read(std::string_view& bytes);

  bool is_inside_request() const { return state_ != State::kStart || !line_.empty(); }
  // Of the unfinished request: what it costs in memory follows this. 0 once it has failed, since then nothing is kept.
  std::size_t request_bytes() const { return parser_.has_error() ? 0 : request_bytes_; }
  // Drops what the unfinished request holds; it will be answered with `error` when its blank line comes.
  void Refuse(Error error);

 private:
  enum class State { kStart, kGet, kSet, kEnded };

  std::optional<UapiRequest> EndLine();

  State state_ = State::kStart;
  UapiParser parser_;
  SecretText line_;  // the unfinished line, at most kMaxUapiLineBytes
  bool line_is_too_long_ = false;
  std::size_t request_bytes_ = 0;
  std::size_t max_request_bytes_;
};

// The answer to a get request, without the "errno=" line. Peers in the order of `status`. An unset preshared key is
// printed as zeros, as wireguard-go does.
SecretText WriteUapiGet(const DeviceStatus& status);
// The line that ends every answer, with the blank line. `code` is 0 or positive; `wg` wants it negated on set.
std::string WriteUapiErrno(UapiRequest::Kind kind, int code);

// For clients: a set request that does what `update` says, with its first line and its blank line.
SecretText WriteUapiSet(const DeviceUpdate& update);
// For clients: the lines of an answer to get, up to its blank line. Keys that we do not know are skipped. An errno in
// the answer becomes the Error's code.
Result<DeviceStatus> ParseUapiGet(std::string_view answer);

}  // namespace adit
