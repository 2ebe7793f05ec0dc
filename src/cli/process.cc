#include "cli/process.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/fd.h"

namespace adit {
namespace {

// Attributes and actions of posix_spawn, freed together.
struct SpawnSettings {
  posix_spawnattr_t attributes;
  posix_spawn_file_actions_t actions;
  SpawnSettings() {
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_init(&actions);
  }
  ~SpawnSettings() {
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
};

std::vector<std::string> EnvironmentWith(std::span<const std::pair<std::string, std::string>> added) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    bool is_replaced = false;
    for (const auto& [name, value] : added) {
      is_replaced |= text.starts_with(name) && text.substr(name.size()).starts_with('=');
    }
    if (!is_replaced) result.emplace_back(text);
  }
  for (const auto& [name, value] : added) result.push_back(name + "=" + value);
  return result;
}

std::vector<char*> Pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

// A pipe filled with `input`, its reading end.
Result<Fd> InputPipe(const std::string& input) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, "cannot make a pipe: {}", std::strerror(errno));
  Fd reading(ends[0]);
  const Fd writing(ends[1]);
  const ssize_t written = input.size() > kMaxInputBytes ? -1 : write(writing.get(), input.data(), input.size());
  if (written != static_cast<ssize_t>(input.size())) return FailErrno(E2BIG, "too much input for a program");
  return reading;
}

}  // namespace

Result<int> RunProgram(Loop& loop, const Program& program, bool past_end) {
  SpawnSettings settings;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  posix_spawnattr_setsigmask(&settings.attributes, &none);
  posix_spawnattr_setsigdefault(&settings.attributes, &all);
  posix_spawnattr_setflags(&settings.attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  Fd input;
  if (!program.input.empty()) {
    auto pipe = InputPipe(program.input);
    if (!pipe) return std::unexpected(pipe.error());
    input = std::move(*pipe);
    posix_spawn_file_actions_adddup2(&settings.actions, input.get(), STDIN_FILENO);
  }

  std::vector<std::string> words = program.words;
  std::vector<std::string> environment = EnvironmentWith(program.environment);
  pid_t pid = 0;
  if (const int error = posix_spawnp(&pid, words[0].c_str(), &settings.actions, &settings.attributes,
                                     Pointers(words).data(), Pointers(environment).data());
      error != 0) {
    return FailErrno(error, "cannot run {}: {}", program.words[0], std::strerror(error));
  }

  const auto pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
  if (pidfd >= 0) {
    bool has_exited = false;
    boost::asio::posix::stream_descriptor exit(loop.io(), pidfd);
    exit.async_wait(exit.wait_read, [&](const boost::system::error_code&) { has_exited = true; });
    const auto done = [&] { return has_exited; };
    if (!loop.RunUntil(done, Duration::max(), past_end)) {
      kill(pid, SIGTERM);
      loop.RunUntil(done, Duration::max(), true);
    }
  }
  // Without pidfd_open (before Linux 5.3) the program blocks the loop.
  int status = 0;
  while (waitpid(pid, &status, 0) < 0) {
    if (errno != EINTR) return FailErrno(errno, "lost track of {}: {}", program.words[0], std::strerror(errno));
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool IsInPath(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path != nullptr ? path : "/usr/sbin:/usr/bin:/sbin:/bin";
  while (!rest.empty()) {
    const auto colon = rest.find(':');
    const std::string folder(rest.substr(0, colon));
    if (!folder.empty() && access((folder + "/" + name).c_str(), X_OK) == 0) return true;
    rest = colon == rest.npos ? std::string_view() : rest.substr(colon + 1);
  }
  return false;
}

}  // namespace adit
