#include "config/text.h"

#include <algorithm>

namespace adit {

std::string Lowercase(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), ToLower);
  return result;
}

bool EqualIgnoringCase(std::string_view a, std::string_view b) {
  return std::ranges::equal(a, b, {}, ToLower, ToLower);
}

std::string Quoted(std::string_view text) {
  constexpr std::size_t kMaxShown = 64;
  std::string result = "\"";
  for (const char c : text.substr(0, kMaxShown)) {
    result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return result + (text.size() > kMaxShown ? "...\"" : "\"");
}

}  // namespace adit
