// Kernel settings below /proc/sys (door), of the calling thread's network namespace. Keys have slashes:
// "net/ipv4/conf/eth0/rp_filter".
#pragma once

#include <string>

#include "base/result.h"

namespace adit {

// Without the newline. ENOENT if this kernel (or namespace) has no such setting.
Result<std::string> ReadSysctl(const std::string& key);
Status WriteSysctl(const std::string& key, const std::string& value);

}  // namespace adit
