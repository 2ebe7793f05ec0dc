#include "cli/isolated.h"

#include <fcntl.h>
#include <grp.h>
#include <net/if.h>
#include <pwd.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "config/text.h"

namespace adit {
namespace {

// Where a program would ask somebody outside for names, past the tunnel: systemd-resolved's and nscd's sockets, mDNS.
constexpr std::array kAskers = {"/run/systemd/resolve", "/run/nscd", "/var/run/nscd", "/run/avahi-daemon"};
constexpr char kReady = 'r';
constexpr char kBegin = 'b';
// What reaches the program when it is sent to us. The terminal's own signals reach it without us.
constexpr std::array kPassedOn = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM};

Result<IsolatedUser> ToUser(const passwd& entry) {
  IsolatedUser user{entry.pw_uid, entry.pw_gid, {}, entry.pw_name, entry.pw_dir, entry.pw_shell};
  int count = 64;
  user.groups.resize(static_cast<std::size_t>(count));
  if (getgrouplist(entry.pw_name, entry.pw_gid, user.groups.data(), &count) < 0) {
    user.groups.resize(static_cast<std::size_t>(count));
    if (getgrouplist(entry.pw_name, entry.pw_gid, user.groups.data(), &count) < 0) {
      return Fail("cannot find the groups of {}", user.name);
    }
  }
  user.groups.resize(static_cast<std::size_t>(count));
  return user;
}

// ---- inside

Status Errno(const char* what) { return FailErrno(errno, "{}: {}", what, std::strerror(errno)); }

bool IsUnder(const std::string& path, const std::string& folder) { return path.starts_with(folder + "/"); }

// A file that covers `target`, where /etc/resolv.conf led before anything was covered. Its own name goes at once:
// nothing is left of it later.
Status CoverResolvConf(const IsolatedProgram& program, const std::string& target,
                       const std::vector<std::string>& covered_folders) {
  std::error_code error;
  for (const std::string& folder : covered_folders) {
    if (!IsUnder(target, folder)) continue;
    // Ours to fill: it was emptied a moment ago.
    std::filesystem::create_directories(std::filesystem::path(target).parent_path(), error);
    const Fd made(open(target.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
    if (!made) return Errno("cannot make a resolv.conf");
  }
  unlink(program.scratch_file.c_str());
  const Fd file(open(program.scratch_file.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file) return Errno("cannot write a resolv.conf");
  const ssize_t written = write(file.get(), program.resolv_conf.data(), program.resolv_conf.size());
  Status status;
  if (written != static_cast<ssize_t>(program.resolv_conf.size()) || fchmod(file.get(), 0644) != 0) {
    status = Errno("cannot write a resolv.conf");
  } else if (mount(program.scratch_file.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    status = Errno("cannot cover /etc/resolv.conf");
  }
  unlink(program.scratch_file.c_str());
  return status;
}

Status CoverNames(const IsolatedProgram& program) {
  // What is mounted in here stays in here; what is unmounted outside goes in here too.
  if (mount(nullptr, "/", nullptr, MS_REC | MS_SLAVE, nullptr) != 0) return Errno("cannot keep mounts apart");
  std::error_code error;
  const std::string resolv_conf = std::filesystem::canonical("/etc/resolv.conf", error).string();
  if (error) return Fail("there is no /etc/resolv.conf to cover ({}); make an empty one", error.message());
  std::vector<std::string> covered;
  for (const char* folder : kAskers) {
    const auto real = std::filesystem::canonical(folder, error);
    if (error || !std::filesystem::is_directory(real, error)) continue;
    if (mount("tmpfs", real.c_str(), "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=755,size=1m") != 0) {
      return Errno(folder);
    }
    covered.push_back(real.string());
  }
  return CoverResolvConf(program, resolv_conf, covered);
}

Status SetUpInside(const IsolatedProgram& program) {
  if (Status done = CoverNames(program); !done) return done;
  if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    return Errno("cannot mount /proc");
  // For /sys/class/net. Containers may not; then it shows what is outside, which does no harm.
  if (mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, nullptr) != 0) errno = 0;

  const Fd socket_fd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request{};
  std::strncpy(request.ifr_name, "lo", IFNAMSIZ - 1);
  if (!socket_fd || ioctl(socket_fd.get(), SIOCGIFFLAGS, &request) != 0) return Errno("cannot find the loopback");
  request.ifr_flags = static_cast<short>(request.ifr_flags | IFF_UP);
  if (ioctl(socket_fd.get(), SIOCSIFFLAGS, &request) != 0) return Errno("cannot bring the loopback up");
  // `ping` without rights of its own; a new namespace begins with nobody allowed.
  if (const Fd range(open("/proc/sys/net/ipv4/ping_group_range", O_WRONLY | O_CLOEXEC)); range) {
    [[maybe_unused]] const ssize_t written = write(range.get(), "0 2147483647", 12);
  }
  return {};
}

[[noreturn]] void RunProgramInside(const IsolatedProgram& program) {
  sigset_t none;
  sigemptyset(&none);
  for (const int signal : {SIGPIPE, SIGCHLD, SIGTTOU, SIGTTIN}) std::signal(signal, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  const auto give_up = [](const char* what) {
    std::fprintf(stderr, "adit: %s: %s\n", what, std::strerror(errno));
    _exit(1);
  };
  if (program.user) {
    const IsolatedUser& user = *program.user;
    if (setgroups(user.groups.size(), user.groups.data()) != 0) give_up("cannot take on the user's groups");
    if (setresgid(user.gid, user.gid, user.gid) != 0) give_up("cannot take on the user's group");
    if (setresuid(user.uid, user.uid, user.uid) != 0) give_up("cannot become the user");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) give_up("cannot give up rights");
    setenv("HOME", user.home.c_str(), 1);
    setenv("USER", user.name.c_str(), 1);
    setenv("LOGNAME", user.name.c_str(), 1);
    setenv("SHELL", user.shell.c_str(), 1);
    for (const char* name : {"SUDO_UID", "SUDO_GID", "SUDO_USER", "SUDO_COMMAND"}) unsetenv(name);
  }
  std::vector<char*> words;
  for (const std::string& word : program.words) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  execvp(words[0], words.data());
  const int error = errno;
  std::fprintf(stderr, "adit: cannot run %s: %s\n", words[0], std::strerror(error));
  _exit(error == ENOENT ? 127 : 126);
}

int CodeOf(int status) { return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status); }

// The first process of its namespace: passes signals on, buries the dead, ends with the program.
[[noreturn]] void RunInside(const IsolatedProgram& program, const Fd& channel) {
  // If our parent is gone already, the channel says so below.
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  sigset_t handled;
  sigemptyset(&handled);
  sigaddset(&handled, SIGCHLD);
  for (const int signal : kPassedOn) sigaddset(&handled, signal);
  sigprocmask(SIG_SETMASK, &handled, nullptr);

  const Status set_up = SetUpInside(program);
  const std::string answer = set_up ? std::string(1, kReady) : "!" + set_up.error().message;
  if (write(channel.get(), answer.data(), answer.size()) != static_cast<ssize_t>(answer.size()) || !set_up) _exit(1);
  char begin = 0;
  ssize_t got;
  do {
    got = read(channel.get(), &begin, 1);
  } while (got < 0 && errno == EINTR);
  if (got != 1 || begin != kBegin) _exit(1);

  const pid_t child = fork();
  if (child < 0) {
    std::fprintf(stderr, "adit: cannot make a process: %s\n", std::strerror(errno));
    _exit(1);
  }
  if (child == 0) RunProgramInside(program);
  for (;;) {
    siginfo_t info{};
    const int signal = sigwaitinfo(&handled, &info);
    if (signal < 0) continue;
    if (signal != SIGCHLD) {
      if (info.si_code <= 0) kill(child, signal);  // sent by somebody, not by the terminal
      continue;
    }
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
      if (ended == child) _exit(CodeOf(status));
    }
  }
}

}  // namespace

Result<IsolatedUser> FindUser(const std::string& text) {
  errno = 0;
  const passwd* entry = getpwnam(text.c_str());
  if (entry == nullptr) {
    if (const auto uid = ParseDecimal<std::uint32_t>(text)) {
      entry = getpwuid(*uid);
      if (entry == nullptr) return IsolatedUser{*uid, *uid, {*uid}, text, "/", "/bin/sh"};
    }
  }
  if (entry == nullptr) return Fail("there is no user {}", text);
  return ToUser(*entry);
}

Result<std::optional<IsolatedUser>> UserBehindSudo() {
  const char* const uid = std::getenv("SUDO_UID");
  if (geteuid() != 0 || uid == nullptr || *uid == '\0') return std::nullopt;
  const auto number = ParseDecimal<std::uint32_t>(uid);
  if (!number) return Fail("SUDO_UID={} is not a number", uid);
  if (*number == 0) return std::nullopt;
  auto user = FindUser(uid);
  if (!user) return std::unexpected(user.error());
  return *user;
}

Result<std::optional<IsolatedUser>> ChooseUser(const std::string& option) {
  if (option.empty()) return UserBehindSudo();
  auto user = FindUser(option);
  if (!user) return std::unexpected(user.error());
  return std::move(*user);
}

Result<IsolatedProcess> IsolatedProcess::Prepare(const IsolatedProgram& program) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0)
    return std::unexpected(Errno("socketpair").error());
  Fd ours(ends[0]), theirs(ends[1]);
  std::fflush(nullptr);
  // As fork, but into new namespaces.
  const unsigned long flags = CLONE_NEWNET | CLONE_NEWNS | CLONE_NEWPID | SIGCHLD;
  const auto pid = static_cast<pid_t>(syscall(SYS_clone, flags, nullptr, nullptr, nullptr, nullptr));
  if (pid < 0) {
    return FailErrno(errno, "cannot make namespaces: {}; this needs CAP_SYS_ADMIN (run it as root)",
                     std::strerror(errno));
  }
  if (pid == 0) {
    ours.Close();
    RunInside(program, theirs);
  }
  theirs.Close();
  IsolatedProcess process(pid, std::move(ours));
  std::array<char, 512> answer{};
  ssize_t size;
  do {
    size = read(process.channel_.get(), answer.data(), answer.size());
  } while (size < 0 && errno == EINTR);
  if (size >= 1 && answer[0] == kReady) return process;
  return Fail("cannot set the namespaces up: {}",
              size > 1 ? std::string(answer.data() + 1, static_cast<std::size_t>(size - 1)) : "the process there died");
}

IsolatedProcess::~IsolatedProcess() {
  if (!channel_) return;  // moved from
  kill(pid_, SIGKILL);
  while (waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

Result<Fd> IsolatedProcess::NetworkNamespace() const {
  const std::string path = fmt::format("/proc/{}/ns/net", pid_);
  Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno(errno, "cannot open {}: {}", path, std::strerror(errno));
  return fd;
}

Status IsolatedProcess::Begin() {
  if (write(channel_.get(), &kBegin, 1) != 1) return Errno("the process in the namespaces is gone");
  return {};
}

int IsolatedProcess::Wait() {
  int status = 0;
  while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  channel_.Close();
  return CodeOf(status);
}

namespace {
// Of the one program that RunWithResolvConf() waits for; a signal handler can be told in no other way.
volatile pid_t waited_for = 0;
void PassOn(int signal) { kill(waited_for, signal); }
}  // namespace

Result<int> RunWithResolvConf(const IsolatedProgram& program) {
  // The terminal's own signals reach the program without us; we stay, to see its end.
  for (const int signal : {SIGINT, SIGQUIT}) std::signal(signal, SIG_IGN);
  std::fflush(nullptr);
  const pid_t pid = fork();
  if (pid < 0) return FailErrno(errno, "cannot start a process: {}", std::strerror(errno));
  if (pid == 0) {
    for (const int signal : {SIGINT, SIGQUIT, SIGTERM, SIGHUP}) std::signal(signal, SIG_DFL);
    if (unshare(CLONE_NEWNS) != 0) {
      std::fprintf(stderr, "adit: cannot make a mount namespace: %s; this needs CAP_SYS_ADMIN (run it as root)\n",
                   std::strerror(errno));
      _exit(1);
    }
    if (const Status covered = CoverNames(program); !covered) {
      std::fprintf(stderr, "adit: %s\n", covered.error().message.c_str());
      _exit(1);
    }
    RunProgramInside(program);
  }
  waited_for = pid;
  for (const int signal : {SIGTERM, SIGHUP}) std::signal(signal, PassOn);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  for (const int signal : {SIGTERM, SIGHUP}) std::signal(signal, SIG_IGN);
  return CodeOf(status);
}

}  // namespace adit
