#include "routing/netns.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <thread>

namespace adit {
namespace {

constexpr char kOwnNamespace[] = "/proc/thread-self/ns/net";

Status OnFreshThread(const std::function<Status()>& fn) {
  Status status;
  std::thread([&] { status = fn(); }).join();
  return status;
}

}  // namespace

Result<Fd> CurrentNetworkNamespace() {
  Fd fd(open(kOwnNamespace, O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno(errno, "cannot open {}: {}; /proc must be mounted", kOwnNamespace, strerror(errno));
  return fd;
}

Result<Fd> CreateNetworkNamespace() {
  Result<Fd> created;
  Status status = OnFreshThread([&]() -> Status {
    if (unshare(CLONE_NEWNET) != 0) {
      return FailErrno(errno, "cannot create a network namespace: {}; this needs CAP_SYS_ADMIN (run it as root)",
                       strerror(errno));
    }
    created = CurrentNetworkNamespace();
    return {};
  });
  if (!status) return std::unexpected(status.error());
  return created;
}

Result<std::string> NetworkNamespaceIdentity(int netns_fd) {
  struct stat info{};
  if (fstat(netns_fd, &info) != 0) return FailErrno(errno, "cannot stat a network namespace: {}", strerror(errno));
  return fmt::format("{}:{}", info.st_dev, info.st_ino);
}

Status RunInNamespace(int netns_fd, const std::function<Status()>& fn) {
  return OnFreshThread([&]() -> Status {
    if (setns(netns_fd, CLONE_NEWNET) != 0) {
      return FailErrno(errno, "cannot enter a network namespace: {}; this needs CAP_SYS_ADMIN", strerror(errno));
    }
    return fn();
  });
}

}  // namespace adit
