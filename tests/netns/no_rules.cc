// A machine without policy rules, or where nobody may mark packets, for a program run with this in LD_PRELOAD. Requests
// about rules get a number that no kernel knows, so that the kernel itself refuses them as one without
// CONFIG_IP_MULTIPLE_TABLES does (EOPNOTSUPP); with ADIT_TEST_NO_MARK=1 SO_MARK is refused as without CAP_NET_ADMIN.
// With ADIT_TEST_NO_SUPPRESS=1 only rules that suppress a default route are refused (EINVAL); with
// ADIT_TEST_OLD_KERNEL=1 the kernel says that it is 3.10, and takes such rules without what it does not know. With
// ADIT_TEST_NO_OWNER=1 a table cannot outlive its owner, as before Linux 6.9. With ADIT_TEST_NO_NFTABLES=1 there are
// rules and marks, and no nftables (CONFIG_NETFILTER_NETLINK).
#include <dlfcn.h>
#include <linux/fib_rules.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <sys/utsname.h>

#include <cerrno>
#include <cstdint>
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

bool IsSet(const char* variable) { return std::getenv(variable) != nullptr; }

template <typename Change>
void ForEachMessage(void* data, std::size_t size, Change change) {
  for (auto* at = static_cast<nlmsghdr*>(data); size >= sizeof(nlmsghdr) && at->nlmsg_len >= sizeof(nlmsghdr);) {
    change(*at);
    const std::size_t step = NLMSG_ALIGN(at->nlmsg_len);
    if (step >= size) return;
    size -= step;
    at = reinterpret_cast<nlmsghdr*>(reinterpret_cast<char*>(at) + step);
  }
}

nlattr* FindAttribute(nlmsghdr& message, std::size_t header_bytes, int type) {
  auto* at = reinterpret_cast<char*>(&message) + NLMSG_HDRLEN + NLMSG_ALIGN(header_bytes);
  auto* const end = reinterpret_cast<char*>(&message) + message.nlmsg_len;
  while (at + sizeof(nlattr) <= end) {
    auto* attribute = reinterpret_cast<nlattr*>(at);
    if (attribute->nla_len < sizeof(nlattr)) return nullptr;
    if ((attribute->nla_type & NLA_TYPE_MASK) == type) return attribute;
    at += NLA_ALIGN(attribute->nla_len);
  }
  return nullptr;
}

void TakeSuppressAway(nlmsghdr& message) {
  if (message.nlmsg_type != RTM_NEWRULE && message.nlmsg_type != RTM_DELRULE) return;
  nlattr* const suppress = FindAttribute(message, sizeof(fib_rule_hdr), FRA_SUPPRESS_PREFIXLEN);
  if (suppress == nullptr) return;
  if (IsSet("ADIT_TEST_NO_SUPPRESS")) {
    // A prefix longer than an address, which any kernel refuses with EINVAL.
    static_cast<fib_rule_hdr*>(NLMSG_DATA(&message))->src_len = 255;
  } else {
    suppress->nla_type = 1000;
  }
}

// An older kernel refuses a flag that it does not know.
void TakeOwnerAway(nlmsghdr& message) {
  constexpr std::uint8_t kUnknownFlag = 0x80;
  if (message.nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWTABLE)) return;
  nlattr* const flags = FindAttribute(message, sizeof(nfgenmsg), NFTA_TABLE_FLAGS);
  if (flags == nullptr) return;
  auto* const last_byte = reinterpret_cast<std::uint8_t*>(flags) + NLA_HDRLEN + 3;  // big-endian
  if ((*last_byte & 4) != 0) *last_byte |= kUnknownFlag;
}

void MakeOld(void* data, std::size_t size) {
  if (IsSet("ADIT_TEST_NO_SUPPRESS") || IsSet("ADIT_TEST_OLD_KERNEL")) ForEachMessage(data, size, TakeSuppressAway);
  if (IsSet("ADIT_TEST_NO_OWNER")) ForEachMessage(data, size, TakeOwnerAway);
}

bool LacksOneFeature() {
  return IsSet("ADIT_TEST_NO_SUPPRESS") || IsSet("ADIT_TEST_OLD_KERNEL") || IsSet("ADIT_TEST_NO_OWNER");
}

bool HasNftables() { return !IsSet("ADIT_TEST_NO_NFTABLES"); }
bool MayMark() { return !IsSet("ADIT_TEST_NO_MARK"); }

void HideRuleRequests(nlmsghdr& message) {
  if (message.nlmsg_type >= RTM_NEWRULE && message.nlmsg_type <= RTM_GETRULE) message.nlmsg_type = RTM_MAX + 100;
}

void Disturb(int fd, void* data, std::size_t size) {
  if (!IsNetlink(fd)) return;
  if (LacksOneFeature()) return MakeOld(data, size);
  if (MayMark() && HasNftables()) ForEachMessage(data, size, HideRuleRequests);
}

}  // namespace

extern "C" {

ssize_t sendmsg(int fd, const msghdr* message, int flags) {
  for (std::size_t i = 0; i < message->msg_iovlen; ++i) {
    Disturb(fd, message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
  }
  return Real<decltype(&sendmsg)>("sendmsg")(fd, message, flags);
}

ssize_t sendto(int fd, const void* data, size_t size, int flags, const sockaddr* to, socklen_t to_size) {
  Disturb(fd, const_cast<void*>(data), size);
  return Real<decltype(&sendto)>("sendto")(fd, data, size, flags, to, to_size);
}

ssize_t send(int fd, const void* data, size_t size, int flags) { return sendto(fd, data, size, flags, nullptr, 0); }

int uname(utsname* name) {
  const int result = Real<decltype(&uname)>("uname")(name);
  if (IsSet("ADIT_TEST_OLD_KERNEL")) std::strcpy(name->release, "3.10.108");
  return result;
}

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
