// A machine without policy rules, or where nobody may mark packets, for a program run with this in LD_PRELOAD. Requests
// about rules get a number that no kernel knows, so that the kernel itself refuses them as one without
// CONFIG_IP_MULTIPLE_TABLES does (EOPNOTSUPP); with ADIT_TEST_NO_MARK=1 SO_MARK is refused as without CAP_NET_ADMIN.
// With ADIT_TEST_NO_NFTABLES=1 there are rules and marks, and no nftables (CONFIG_NETFILTER_NETLINK).
#include <dlfcn.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace {

template <typename Function>
Function Real(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

bool IsNetlink(int fd) {
  int domain = 0;
  socklen_t length = sizeof domain;
  return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_NETLINK;
}

void HideRuleRequests(void* data, std::size_t size) {
  for (auto* at = static_cast<nlmsghdr*>(data); size >= sizeof(nlmsghdr) && at->nlmsg_len >= sizeof(nlmsghdr);) {
    if (at->nlmsg_type >= RTM_NEWRULE && at->nlmsg_type <= RTM_GETRULE) at->nlmsg_type = RTM_MAX + 100;
    const std::size_t step = NLMSG_ALIGN(at->nlmsg_len);
    if (step >= size) return;
    size -= step;
    at = reinterpret_cast<nlmsghdr*>(reinterpret_cast<char*>(at) + step);
  }
}

bool HasNftables() { return std::getenv("ADIT_TEST_NO_NFTABLES") == nullptr; }
bool MayMark() { return std::getenv("ADIT_TEST_NO_MARK") == nullptr; }
bool HidesRules() { return MayMark() && HasNftables(); }

}  // namespace

extern "C" {

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  if (HidesRules() && IsNetlink(fd)) {
    for (std::size_t i = 0; i < message->msg_iovlen; ++i) {
      HideRuleRequests(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    }
  }
  return Real<decltype(&sendmsg)>("sendmsg")(fd, message, flags);
}

ssize_t sendto(int fd, const void* data, size_t size, int flags, const sockaddr* to, socklen_t to_size) {
  if (HidesRules() && IsNetlink(fd)) HideRuleRequests(const_cast<void*>(data), size);
  return Real<decltype(&sendto)>("sendto")(fd, data, size, flags, to, to_size);
}

ssize_t send(int fd, const void* data, size_t size, int flags) { return sendto(fd, data, size, flags, nullptr, 0); }

int socket(int domain, int type, int protocol) {
  if (!HasNftables() && domain == AF_NETLINK && protocol == NETLINK_NETFILTER) {
    errno = EPROTONOSUPPORT;
    return -1;
  }
  return Real<decltype(&socket)>("socket")(domain, type, protocol);
}

int setsockopt(int fd, int level, int option, const void* value, socklen_t size) {
  if (!MayMark() && level == SOL_SOCKET && option == SO_MARK) {
    errno = EPERM;
    return -1;
  }
  return Real<decltype(&setsockopt)>("setsockopt")(fd, level, option, value, size);
}
}
