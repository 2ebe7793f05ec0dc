#include "cli/background.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

namespace adit {
namespace {

pid_t child_to_signal = 0;  // set before the handler is installed

// Ctrl-C reaches the child by itself, since it is in the terminal's process group as well.
void PassOn(int signal, siginfo_t* info, void*) {
  const int saved = errno;
  if (info->si_code <= 0) kill(child_to_signal, signal);
  errno = saved;
}

[[noreturn]] void WaitForChild(pid_t child, Fd from_child) {
  child_to_signal = child;
  struct sigaction action{};
  action.sa_sigaction = PassOn;
  action.sa_flags = SA_SIGINFO | SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaction(signal, &action, nullptr);

  char ready = 0;
  ssize_t got;
  do {
    got = read(from_child.get(), &ready, 1);
  } while (got < 0 && errno == EINTR);
  if (got == 1) _exit(0);

  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status)) {
    // A child that ends well before it was ready has been told to.
    _exit(WEXITSTATUS(status));
  }
  std::fprintf(stderr, "adit: the process in the background was ended by signal %d\n", WTERMSIG(status));
  _exit(1);
}

}  // namespace

Status Readiness::Announce(const std::string& log_file) {
  if (!to_parent_) return {};
  const Fd null(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return FailErrno(errno, "cannot open /dev/null: {}", std::strerror(errno));
  Fd log;
  if (!log_file.empty()) {
    log = Fd(open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    if (!log) return FailErrno(errno, "cannot open the log file {}: {}", log_file, std::strerror(errno));
  }
  setsid();
  if (chdir("/") != 0) return FailErrno(errno, "cannot change to /: {}", std::strerror(errno));
  dup2(null.get(), STDIN_FILENO);
  dup2(null.get(), STDOUT_FILENO);
  dup2(log ? log.get() : null.get(), STDERR_FILENO);
  const char ready = 1;
  // A parent that was killed meanwhile changes nothing for us.
  [[maybe_unused]] const ssize_t sent = write(to_parent_.get(), &ready, 1);
  to_parent_.Close();
  return {};
}

Result<Readiness> GoToBackground() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return FailErrno(errno, "cannot make a pipe: {}", std::strerror(errno));
  Fd from_child(ends[0]);
  Fd to_parent(ends[1]);
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return FailErrno(errno, "cannot make a process: {}", std::strerror(errno));
  if (child > 0) {
    to_parent.Close();
    WaitForChild(child, std::move(from_child));
  }
  from_child.Close();
  std::signal(SIGPIPE, SIG_IGN);
  return Readiness(std::move(to_parent));
}

}  // namespace adit
