// The environment variables that control the process, as other userspace WireGuard programs name them.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace adit {

enum class LogLevel { kSilent, kError, kWarn, kInfo, kDebug, kTrace };

struct Environment {
  std::optional<int> tun_fd;             // WG_TUN_FD: an open TUN descriptor to adopt
  std::optional<int> uapi_fd;            // WG_UAPI_FD: a listening UNIX socket to adopt
  bool foreground = false;               // WG_PROCESS_FOREGROUND=1
  LogLevel log_level = LogLevel::kInfo;  // LOG_LEVEL, else WG_LOG_LEVEL
  std::vector<std::string> warnings;
};

// silent, error, warn (or warning), info, debug (or verbose, as wireguard-go says), trace; any case.
std::optional<LogLevel> ParseLogLevel(std::string_view text);

// getenv, or a test's. Null: not set.
using EnvironmentLookup = std::function<const char*(const char* name)>;

// An empty value counts as not set. A descriptor that is no number is an error; a log level that we do not know is a
// warning, since other programs in the same environment may mean something by it.
Result<Environment> ParseEnvironment(const EnvironmentLookup& lookup);

}  // namespace adit
