// Logging to stderr through spdlog's default logger, and the one-line messages that a person at a terminal reads.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

#include "config/environment.h"

namespace adit {

// `name` stands in every line, so that several tunnels can share a log.
void SetUpLog(const std::string& name, LogLevel level);

// "adit: text" on stderr.
void PrintError(std::string_view text);
// "adit: warning: text" on stderr.
void PrintWarning(std::string_view text);

}  // namespace adit
