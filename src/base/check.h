// CHECK(x): an invariant of ours that stays on in release builds. Input from the network or from the operator never
// reaches a CHECK; it gets a drop reason or an Error.
#pragma once

namespace adit::internal {
[[noreturn]] void CheckFailed(const char* expression, const char* file, int line);
}

#define CHECK(x)                                             \
  do {                                                       \
    if (!(x)) [[unlikely]]                                   \
      ::adit::internal::CheckFailed(#x, __FILE__, __LINE__); \
  } while (false)
