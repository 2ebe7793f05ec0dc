#include "cli/conf_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "base/fd.h"

namespace adit {
namespace {

Status WriteAll(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = write(fd, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FailErrno(errno, "{}", std::strerror(errno));
    text.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace

OutcomeOf<LoadedConf> LoadConf(const std::string& file) {
  const Fd fd(open(file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd && errno == ENOENT) return FailWith(ExitCode::kConfiguration, "{}: there is no such file", file);
  if (!fd) return FailWith(ExitCode::kEnvironment, "{}: cannot be read: {}", file, std::strerror(errno));
  struct stat info{};
  if (fstat(fd.get(), &info) != 0 || S_ISDIR(info.st_mode)) {
    return FailWith(ExitCode::kConfiguration, "{}: is not a file", file);
  }
  // Grows by steps, because it may be a pipe.
  SecretText text;
  constexpr std::size_t kStepBytes = 65536;
  for (;;) {
    const std::size_t size = text.size();
    if (size > kMaxConfFileBytes) {
      return FailWith(ExitCode::kConfiguration, "{}: is larger than {} MiB", file, kMaxConfFileBytes >> 20);
    }
    text.resize(size + kStepBytes);
    const ssize_t got = read(fd.get(), text.data() + size, kStepBytes);
    if (got < 0 && errno != EINTR) {
      return FailWith(ExitCode::kFailure, "{}: cannot be read: {}", file, std::strerror(errno));
    }
    text.resize(size + static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
    if (got == 0) break;
  }
  auto conf = ParseConf(text, file);
  if (!conf) return FailWith(ExitCode::kConfiguration, "{}", conf.error().message);

  LoadedConf loaded;
  if (S_ISREG(info.st_mode) && (info.st_mode & S_IRWXO) != 0) {
    loaded.warnings.push_back(
        fmt::format("{}: everybody on this machine can read the keys in it; `chmod 600` cures that", file));
  }
  for (const ConfWarning& warning : conf->warnings) {
    loaded.warnings.push_back(fmt::format("{}:{}: {}", file, warning.line, warning.text));
  }
  loaded.conf = std::move(*conf);
  return loaded;
}

Status SaveConf(const ConfFile& conf, const std::string& file) {
  // A link is followed: what it points to is replaced, not the link.
  std::error_code error;
  const std::string target = std::filesystem::weakly_canonical(file, error).string();
  if (error) return FailErrno(error.value(), "cannot save {}: {}", file, error.message());
  const std::string folder = std::filesystem::path(target).parent_path().string();
  const std::string temporary = target + ".tmp";
  const SecretText text = WriteConf(conf);
  unlink(temporary.c_str());
  Fd fd(open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!fd) return FailErrno(errno, "cannot save {}: cannot make {}: {}", file, temporary, std::strerror(errno));
  auto written = WriteAll(fd.get(), text);
  if (written && (fsync(fd.get()) != 0 || rename(temporary.c_str(), target.c_str()) != 0)) {
    written = FailErrno(errno, "{}", std::strerror(errno));
  }
  if (!written) {
    unlink(temporary.c_str());
    return FailErrno(written.error().code, "cannot save {}: {}; it is as it was", file, written.error().message);
  }
  const Fd directory(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory) fsync(directory.get());
  return {};
}

}  // namespace adit
