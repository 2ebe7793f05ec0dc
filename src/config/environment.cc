#include "config/environment.h"

#include <climits>
#include <utility>

#include "config/text.h"

namespace adit {
namespace {

Result<std::optional<int>> ReadDescriptor(const EnvironmentLookup& lookup, const char* name) {
  const char* const value = lookup(name);
  if (value == nullptr || *value == '\0') return std::nullopt;
  const auto fd = ParseDecimal<unsigned>(value);
  if (!fd || *fd > INT_MAX) return Fail("{}={}: set it to the number of an open descriptor", name, Quoted(value));
  return static_cast<int>(*fd);
}

}  // namespace

std::optional<LogLevel> ParseLogLevel(std::string_view text) {
  static constexpr std::pair<std::string_view, LogLevel> kLevels[] = {
      {"silent", LogLevel::kSilent}, {"error", LogLevel::kError}, {"warn", LogLevel::kWarn},
      {"warning", LogLevel::kWarn},  {"info", LogLevel::kInfo},   {"debug", LogLevel::kDebug},
      {"verbose", LogLevel::kDebug}, {"trace", LogLevel::kTrace},
  };
  for (const auto& [name, level] : kLevels) {
    if (EqualIgnoringCase(text, name)) return level;
  }
  return std::nullopt;
}

Result<Environment> ParseEnvironment(const EnvironmentLookup& lookup) {
  Environment environment;
  for (const auto& [name, field] :
       {std::pair("WG_TUN_FD", &environment.tun_fd), {"WG_UAPI_FD", &environment.uapi_fd}}) {
    const auto fd = ReadDescriptor(lookup, name);
    if (!fd) return std::unexpected(fd.error());
    *field = *fd;
  }
  if (environment.tun_fd && environment.tun_fd == environment.uapi_fd) {
    return Fail("WG_TUN_FD and WG_UAPI_FD are both {}: give each its own descriptor", *environment.tun_fd);
  }
  const char* const foreground = lookup("WG_PROCESS_FOREGROUND");
  environment.foreground = foreground != nullptr && std::string_view(foreground) == "1";

  for (const char* const name : {"LOG_LEVEL", "WG_LOG_LEVEL"}) {
    const char* const value = lookup(name);
    if (value == nullptr || *value == '\0') continue;
    if (const auto level = ParseLogLevel(value)) {
      environment.log_level = *level;
    } else {
      environment.warnings.push_back(fmt::format(
          "{}={} is not known, using info: set silent, error, warn, info, debug or trace", name, Quoted(value)));
    }
    break;
  }
  return environment;
}

}  // namespace adit
