#include "config/interface_name.h"

#include <algorithm>

#include "config/text.h"

namespace adit {
namespace {

constexpr std::size_t kMaxInterfaceNameBytes = 15;  // IFNAMSIZ without the terminating zero

bool IsNameCharacter(char c) {
  return IsAsciiAlphanumeric(c) || std::string_view("_=+.-").find(c) != std::string_view::npos;
}

}  // namespace

bool IsInterfaceName(std::string_view name) {
  return !name.empty() && name.size() <= kMaxInterfaceNameBytes && name != "." && name != ".." &&
         std::ranges::all_of(name, IsNameCharacter);
}

Status CheckInterfaceName(std::string_view name) {
  if (IsInterfaceName(name)) return {};
  if (name.size() > kMaxInterfaceNameBytes) {
    return Fail("interface name {} has {} characters: use at most {}", Quoted(name), name.size(),
                kMaxInterfaceNameBytes);
  }
  return Fail("interface name {} is not allowed: use 1 to {} of a-z A-Z 0-9 _ = + . -", Quoted(name),
              kMaxInterfaceNameBytes);
}

Result<std::string> InterfaceNameOfFile(std::string_view path) {
  const std::string_view file = path.substr(path.rfind('/') + 1);
  if (!file.ends_with(".conf")) {
    return Fail("{} does not end in .conf: the interface is named after the file, as in wg0.conf", Quoted(path));
  }
  const std::string_view name = file.substr(0, file.size() - 5);
  if (const auto status = CheckInterfaceName(name); !status) {
    return Fail("{}: the interface is named after the file: {}", path, status.error().message);
  }
  return std::string(name);
}

}  // namespace adit
