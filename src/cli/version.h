// What `adit --version` prints. The numbers are the build's: the project's version and, where it is known, the commit.
#pragma once

#include <string_view>

namespace adit {

#if defined(ADIT_COMMIT)
inline constexpr std::string_view kVersion = "adit " ADIT_VERSION " (" ADIT_COMMIT ")";
#else
inline constexpr std::string_view kVersion = "adit " ADIT_VERSION;
#endif

}  // namespace adit
