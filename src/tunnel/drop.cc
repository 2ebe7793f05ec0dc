#include "tunnel/drop.h"

#include "base/check.h"

namespace adit {

std::string_view Name(DropReason reason) {
  static constexpr std::array<std::string_view, kDropReasonCount> kNames = {
      "malformed_ip", "too_long",         "no_peer",          "no_endpoint",
      "staged_full",  "staged_expired",   "no_memory",        "loop",
      "send_failed",  "unknown_message",  "unknown_receiver", "key_expired",
      "bad_tag",      "replayed",         "malformed_inner",  "source_not_allowed",
      "truncated",    "tun_write_failed", "bad_mac1",         "handshake_queue_full",
      "rate_limited", "cookie_required",  "handshake_invalid"};
  CHECK(reason < DropReason::kCount_);
  return kNames[static_cast<std::size_t>(reason)];
}

}  // namespace adit
