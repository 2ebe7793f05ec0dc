// Small text helpers of the parsers in this folder. ASCII only: no locale decides what a configuration means.
#pragma once

#include <charconv>
#include <concepts>
#include <optional>
#include <string>
#include <string_view>

namespace adit {

constexpr bool IsAsciiAlphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
constexpr bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }
constexpr char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

constexpr std::string_view Trim(std::string_view text) {
  while (!text.empty() && IsBlank(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsBlank(text.back())) text.remove_suffix(1);
  return text;
}

std::string Lowercase(std::string_view text);
bool EqualIgnoringCase(std::string_view a, std::string_view b);

// In double quotes, shortened to 64 characters and without control characters: fit for a log or a terminal. A text that
// holds what could be a misplaced key, or most of one, is described and not shown.
std::string Quoted(std::string_view text);

// Decimal digits only: no sign, no blanks, no prefix. Empty on anything else and when T cannot hold it.
template <std::unsigned_integral T>
std::optional<T> ParseDecimal(std::string_view text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, value);
  if (text.empty() || error != std::errc{} || stopped_at != end) return std::nullopt;
  return value;
}

// The same, and hexadecimal behind "0x".
template <std::unsigned_integral T>
std::optional<T> ParseDecimalOrHex(std::string_view text) {
  if (!text.starts_with("0x") && !text.starts_with("0X")) return ParseDecimal<T>(text);
  text.remove_prefix(2);
  T value{};
  const char* const end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, value, 16);
  if (text.empty() || error != std::errc{} || stopped_at != end) return std::nullopt;
  return value;
}

}  // namespace adit
