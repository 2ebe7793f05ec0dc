#include "violation.h"

#include <array>

namespace adit::sim {

std::string_view Name(Check check) {
  static constexpr std::array<std::string_view, static_cast<std::size_t>(Check::kCount_)> kNames = {
      "sealed once",      "key age",           "slots",
      "accepts",          "no effect",         "roams",
      "delivered once",   "unaltered",         "right host",
      "source allowed",   "initiation answer", "response accepted",
      "cookie",           "amplification",     "initiation rate",
      "attempt length",   "fresh initiation",  "initiation reason",
      "handshake starts", "key confirmation",  "passive keepalive",
      "keepalive reason", "no answer",         "persistent keepalive",
      "zero keys",        "timeouts",          "wake-ups",
      "staged",           "session count",     "lossless",
      "liveness",         "restart heals",     "simultaneous initiations"};
  return kNames[static_cast<std::size_t>(check)];
}

}  // namespace adit::sim
