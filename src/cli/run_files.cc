#include "cli/run_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>
#include <thread>

#include "config/interface_name.h"

namespace adit {
namespace {

std::string RunFolder() {
  const char* folder = std::getenv("ADIT_RUN_DIR");
  return folder != nullptr && *folder != '\0' ? folder : "/run/adit";
}

std::string ReadPid(int fd) {
  char text[32];
  const ssize_t size = pread(fd, text, sizeof text, 0);
  std::string pid(text, size > 0 ? static_cast<std::size_t>(size) : 0);
  return pid.substr(0, pid.find('\n'));
}

// What was killed a moment ago holds its lock until the kernel has taken the last of its threads down.
constexpr auto kDeathTimeout = std::chrono::seconds(2);
constexpr auto kDeathPoll = std::chrono::milliseconds(2);

bool IsDying(const std::string& pid) {
  std::ifstream file("/proc/" + pid + "/stat");
  const std::string stat((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  const auto name_end = stat.rfind(')');  // the name may hold anything, spaces and parentheses too
  if (name_end == stat.npos || name_end + 2 >= stat.size()) return false;
  const char state = stat[name_end + 2];
  return state == 'Z' || state == 'X';
}

}  // namespace

RunFiles RunFilesOf(const std::string& interface_name) {
  RunFiles files;
  files.folder = RunFolder();
  const std::string stem = files.folder + "/" + interface_name;
  files.lock = stem + ".lock";
  files.socket = stem + ".sock";
  files.journal = stem + ".journal";
  files.firewall = stem + ".firewall";
  files.dns = stem + ".dns";
  return files;
}

Result<std::vector<std::string>> KnownTunnels() {
  const std::string folder = RunFolder();
  std::error_code error;
  std::set<std::string> names;
  for (std::filesystem::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    const auto& path = at->path();
    const std::string stem = path.stem().string();
    const std::string extension = path.extension().string();
    const bool is_ours =
        extension == ".lock" || extension == ".sock" || extension == ".journal" || extension == ".firewall";
    if (is_ours && IsInterfaceName(stem)) names.insert(stem);
  }
  if (error && error != std::errc::no_such_file_or_directory) {
    return FailErrno(error.value(), "cannot read {}: {}", folder, error.message());
  }
  return std::vector<std::string>(names.begin(), names.end());
}

Result<TunnelLock> TunnelLock::Take(const RunFiles& files) {
  if (mkdir(files.folder.c_str(), 0755) != 0 && errno != EEXIST) {
    return FailErrno(errno, "cannot make {}: {}; run as root, or set ADIT_RUN_DIR to a folder that can be written",
                     files.folder, std::strerror(errno));
  }
  const auto deadline = std::chrono::steady_clock::now() + kDeathTimeout;
  // The previous owner may remove the file between our open and our lock; then the lock is on nothing, and we try
  // again.
  for (;;) {
    Fd fd(open(files.lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) {
      return FailErrno(errno, "cannot open {}: {}; run as root, on a file system that can be written", files.lock,
                       std::strerror(errno));
    }
    if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
      if (IsDying(ReadPid(fd.get())) && std::chrono::steady_clock::now() < deadline) {
        std::this_thread::sleep_for(kDeathPoll);
        continue;
      }
      return FailErrno(errno, "process {} has {}", ReadPid(fd.get()), files.lock);
    }
    struct stat locked{}, current{};
    if (fstat(fd.get(), &locked) != 0 || stat(files.lock.c_str(), &current) != 0 || locked.st_ino != current.st_ino) {
      continue;
    }
    const std::string pid = std::to_string(getpid()) + "\n";
    if (ftruncate(fd.get(), 0) != 0 ||
        pwrite(fd.get(), pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
      const int error = errno;
      unlink(files.lock.c_str());
      return FailErrno(error, "cannot write {}: {}", files.lock, std::strerror(error));
    }
    return TunnelLock(files.lock, std::move(fd));
  }
}

TunnelLock::~TunnelLock() {
  if (fd_) unlink(path_.c_str());
}

}  // namespace adit
