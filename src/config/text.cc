#include "config/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>

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
  constexpr std::ptrdiff_t kSecretRun =
      24;  // a key has 43 in base64, 64 in hexadecimal; no number or address has as many
  const auto may_be_of_a_key = [](char c) { return IsAsciiAlphanumeric(c) || c == '+' || c == '/' || c == '='; };
  for (auto at = text.begin(); at != text.end();) {
    const auto run = std::find_if(at, text.end(), may_be_of_a_key);
    at = std::find_if_not(run, text.end(), may_be_of_a_key);
    if (at - run >= kSecretRun) return fmt::format("the text of {} characters", text.size());
  }
  std::string result = "\"";
  for (const char c : text.substr(0, kMaxShown)) {
    result += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
  }
  return result + (text.size() > kMaxShown ? "...\"" : "\"");
}

}  // namespace adit
