// Failures an operator can act on: a sentence that says what to change. What the peer does wrong is a drop reason, what
// we do wrong is a CHECK; neither comes here.
#pragma once

#include <fmt/format.h>

#include <expected>
#include <string>
#include <utility>

namespace adit {

struct Error {
  std::string message;
  int code = 0;  // an errno value where there is one, else 0
};

template <typename T>
using Result = std::expected<T, Error>;
using Status = Result<void>;

template <typename... Args>
std::unexpected<Error> Fail(fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...)});
}

template <typename... Args>
std::unexpected<Error> FailErrno(int code, fmt::format_string<Args...> format, Args&&... args) {
  return std::unexpected(Error{fmt::format(format, std::forward<Args>(args)...), code});
}

}  // namespace adit
