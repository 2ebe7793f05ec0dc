// A program in namespaces of its own (network, mounts, processes), for `adit exec --isolated`. Its network has a
// loopback and what the caller puts there; sockets and files that would ask others on its behalf are covered. When the
// first process in there ends, the kernel ends all others; when we end, however that happens, so does the first
// process.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace adit {

struct IsolatedUser {
  uid_t uid = 0;
  gid_t gid = 0;
  std::vector<gid_t> groups;
  std::string name, home, shell;
};
// A name or a number.
Result<IsolatedUser> FindUser(const std::string& text);
// Who called sudo; empty without sudo, or if it was root.
Result<std::optional<IsolatedUser>> UserBehindSudo();
// FindUser() of what --user says; without it UserBehindSudo().
Result<std::optional<IsolatedUser>> ChooseUser(const std::string& option);

struct IsolatedProgram {
  std::vector<std::string> words;    // words[0] is a path, or a name looked up in PATH
  std::optional<IsolatedUser> user;  // it runs as that one, and can gain no rights any more; else as we do
  std::string resolv_conf;           // the text of its /etc/resolv.conf
  std::string scratch_file;          // a path that may be written for a moment
};

// The program in a mount namespace only, with that resolv.conf; all else is as for any other. Returns when it has
// ended: its exit code, 128 + signal if a signal ended it. SIGTERM and SIGHUP are passed on to it; they and the
// terminal's are ignored afterwards.
Result<int> RunWithResolvConf(const IsolatedProgram& program);

class IsolatedProcess {
 public:
  // Makes the namespaces; the program does not run yet. REQUIRES: one thread, and no io_context yet.
  static Result<IsolatedProcess> Prepare(const IsolatedProgram& program);
  IsolatedProcess(IsolatedProcess&&) = default;
  IsolatedProcess& operator=(IsolatedProcess&&) = default;
  ~IsolatedProcess();  // ends everything in there

  // The first process in there: signals sent to it reach the program.
  pid_t pid() const { return pid_; }
  Result<Fd> NetworkNamespace() const;
  Status Begin();
  // After the process has ended: the program's exit code, 128 + signal if a signal ended it.
  int Wait();

 private:
  IsolatedProcess(pid_t pid, Fd channel) : pid_(pid), channel_(std::move(channel)) {}
  pid_t pid_;
  Fd channel_;
};

}  // namespace adit
