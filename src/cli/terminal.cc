#include "cli/terminal.h"

#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace adit {

bool UseColour() {
  const char* mode = std::getenv("WG_COLOR_MODE");
  if (mode != nullptr && std::string_view(mode) == "always") return true;
  if (mode != nullptr && std::string_view(mode) == "never") return false;
  const char* no_colour = std::getenv("NO_COLOR");
  if (no_colour != nullptr && *no_colour != '\0') return false;
  return isatty(STDOUT_FILENO) == 1;
}

}  // namespace adit
