// Which names an interface may have, and which name a .conf file gives it.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace adit {

// wg-quick's rule, ^[a-zA-Z0-9_=+.-]{1,15}$, without "." and "..", which the kernel refuses.
bool IsInterfaceName(std::string_view name);
// As above, with the sentence that says what is wrong.
Status CheckInterfaceName(std::string_view name);

// "/etc/wireguard/wg0.conf" names "wg0". The path need not exist.
Result<std::string> InterfaceNameOfFile(std::string_view path);

}  // namespace adit
