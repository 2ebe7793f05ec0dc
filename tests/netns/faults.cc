// A kernel that fails, or a process that dies, at an operation of the test's choice, for a program run with this in
// LD_PRELOAD. An operation is whatever changes the machine: a netlink request that is no question (a batch of them is
// one, as it is sent in one go), a transaction of nftables, a setting below /proc/sys, and of resolv.conf and what is
// kept of it each file that is written, renamed, linked or removed.
//
// ADIT_TEST_FAULT names a file. It says "NUMBER WHAT": how many operations pass before, and an errno value to fail
// with, 0 to be killed before it, or -1 after it. The file is rewritten as operations pass, and gone when the fault has
// been.
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

template <typename Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

enum class Turn { kPass, kFail, kDie, kDieAfter };

// Counts one operation. kFail: errno is set.
Turn TakeTurn() {
  const char* const path = std::getenv("ADIT_TEST_FAULT");
  FILE* const file = path != nullptr ? std::fopen(path, "r") : nullptr;
  if (file == nullptr) return Turn::kPass;
  int left = 0;
  int what = 0;
  const bool is_read = std::fscanf(file, "%d %d", &left, &what) == 2;
  std::fclose(file);
  if (!is_read) return Turn::kPass;
  if (left > 0) {
    FILE* const again = std::fopen(path, "r+");  // not made anew when it is taken away
    if (again == nullptr) return Turn::kPass;
    std::fprintf(again, "%d %d       \n", left - 1, what);
    std::fclose(again);
    return Turn::kPass;
  }
  unlink(path);
  errno = what;
  return what == 0 ? Turn::kDie : what < 0 ? Turn::kDieAfter : Turn::kFail;
}

bool Changes(int fd, const void* data, std::size_t size) {
  int domain = 0;
  int protocol = -1;
  socklen_t length = sizeof domain;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) != 0 || domain != AF_NETLINK) return false;
  length = sizeof protocol;
  if (getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) != 0) return false;
  nlmsghdr header;
  if (size < sizeof header) return false;
  std::memcpy(&header, data, sizeof header);
  if (protocol == NETLINK_NETFILTER) return header.nlmsg_type == NFNL_MSG_BATCH_BEGIN;
  // Of each four kinds of rtnetlink the third asks.
  return protocol == NETLINK_ROUTE && header.nlmsg_type >= RTM_BASE && (header.nlmsg_type - RTM_BASE) % 4 != 2;
}

// The path behind a descriptor, "" if there is none.
struct PathOf {
  explicit PathOf(int fd) {
    char link[32];
    std::snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, text, sizeof text - 1);
    text[size > 0 ? size : 0] = '\0';
  }
  char text[256];
};
bool IsSetting(int fd) { return std::strncmp(PathOf(fd).text, "/proc/sys/", 10) == 0; }
bool IsDns(const char* path) {
  return std::strstr(path, "/etc/resolv.conf") != nullptr || std::strstr(path, "/adit/dns/") != nullptr;
}

template <typename Perform>
ssize_t Counted(bool counts, Perform perform) {
  const Turn turn = counts ? TakeTurn() : Turn::kPass;
  if (turn == Turn::kFail) return -1;
  if (turn == Turn::kDie) raise(SIGKILL);
  const ssize_t result = perform();
  if (turn == Turn::kDieAfter) raise(SIGKILL);
  return result;
}

}  // namespace

extern "C" {

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  const bool counts = message->msg_iovlen > 0 && Changes(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
  return Counted(counts, [&] { return Real<decltype(&sendmsg)>("sendmsg")(fd, message, flags); });
}

ssize_t sendto(int fd, const void* data, size_t size, int flags, const sockaddr* to, socklen_t to_size) {
  return Counted(Changes(fd, data, size),
                 [&] { return Real<decltype(&sendto)>("sendto")(fd, data, size, flags, to, to_size); });
}

ssize_t send(int fd, const void* data, size_t size, int flags) { return sendto(fd, data, size, flags, nullptr, 0); }

ssize_t write(int fd, const void* data, size_t size) {
  return Counted(IsSetting(fd), [&] { return Real<decltype(&write)>("write")(fd, data, size); });
}

ssize_t pwrite(int fd, const void* data, size_t size, off_t at) {
  return Counted(IsDns(PathOf(fd).text), [&] { return Real<decltype(&pwrite)>("pwrite")(fd, data, size, at); });
}
ssize_t pwrite64(int fd, const void* data, size_t size, off64_t at) { return pwrite(fd, data, size, at); }

int rename(const char* from, const char* to) noexcept {
  return static_cast<int>(Counted(IsDns(to), [&] { return Real<decltype(&rename)>("rename")(from, to); }));
}
int symlink(const char* to, const char* path) noexcept {
  return static_cast<int>(Counted(IsDns(path), [&] { return Real<decltype(&symlink)>("symlink")(to, path); }));
}
int unlink(const char* path) noexcept {
  return static_cast<int>(Counted(IsDns(path), [&] { return Real<decltype(&unlink)>("unlink")(path); }));
}
}
