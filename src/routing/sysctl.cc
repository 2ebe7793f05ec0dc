#include "routing/sysctl.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/fd.h"

namespace adit {

Result<std::string> ReadSysctl(const std::string& key) {
  const Fd fd(open(("/proc/sys/" + key).c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno(errno, "cannot read the setting {}: {}", key, strerror(errno));
  char buffer[256];
  const ssize_t size = read(fd.get(), buffer, sizeof(buffer));
  if (size < 0) return FailErrno(errno, "cannot read the setting {}: {}", key, strerror(errno));
  std::string value(buffer, static_cast<std::size_t>(size));
  while (!value.empty() && value.back() == '\n') value.pop_back();
  return value;
}

Status WriteSysctl(const std::string& key, const std::string& value) {
  const Fd fd(open(("/proc/sys/" + key).c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd || write(fd.get(), value.data(), value.size()) != static_cast<ssize_t>(value.size())) {
    return FailErrno(errno, "cannot set {} to {}: {}", key, value, strerror(errno));
  }
  return {};
}

}  // namespace adit
