#include "routing/nft_socket.h"

#include <endian.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>

#include "base/endian.h"
#include "routing/netlink.h"

namespace adit {
namespace {

constexpr timeval kReceiveTimeout{.tv_sec = 5, .tv_usec = 0};
constexpr int kReceiveBufferBytes = 4 << 20;
constexpr int kLeastSendBufferBytes = 1 << 20;

int CodeOf(const nlmsghdr* message) { return -static_cast<const nlmsgerr*>(nlmsg_data(message))->error; }

std::string Explain(int code) {
  switch (code) {
    case EPERM:
      return "the kernel refused it (EPERM); this needs CAP_NET_ADMIN, and a table that no running process owns";
    case EOPNOTSUPP:
    case EPROTONOSUPPORT:
    case ENOENT:
      return fmt::format("this kernel has no nftables, or not this part of it ({})", strerror(code));
    default:
      return strerror(code);
  }
}

}  // namespace

Result<NftSocket> NftSocket::Open() {
  Fd fd(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_NETFILTER));
  if (!fd) return FailErrno(errno, "cannot reach nftables: {}", Explain(errno));
  sockaddr_nl own{};
  own.nl_family = AF_NETLINK;
  socklen_t size = sizeof own;
  if (bind(fd.get(), reinterpret_cast<const sockaddr*>(&own), sizeof own) != 0 ||
      getsockname(fd.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0 ||
      setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &kReceiveTimeout, sizeof kReceiveTimeout) != 0) {
    return FailErrno(errno, "cannot reach nftables: {}", strerror(errno));
  }
  // A batch of many elements must fit; without the right to go beyond the limit the kernel's default has to do.
  setsockopt(fd.get(), SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof kReceiveBufferBytes);
  setsockopt(fd.get(), SOL_SOCKET, SO_SNDBUFFORCE, &kLeastSendBufferBytes, sizeof kLeastSendBufferBytes);
  return NftSocket(std::move(fd), own.nl_pid);
}

Status NftSocket::Send(std::span<const std::uint8_t> wire) {
  if (wire.size() > kLeastSendBufferBytes / 2) {
    const int wanted = static_cast<int>(wire.size() * 2);
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof wanted);
  }
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  const ssize_t sent =
      sendto(fd_.get(), wire.data(), wire.size(), 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
  if (sent < 0) return FailErrno(errno, "cannot send to nftables: {}", strerror(errno));
  return {};
}

Status NftSocket::Receive(const std::function<bool(const nlmsghdr*)>& read) {
  alignas(nlmsghdr) std::uint8_t buffer[64 << 10];
  for (;;) {
    const ssize_t size = recv(fd_.get(), buffer, sizeof buffer, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) return FailErrno(size == 0 ? EIO : errno, "no answer from nftables: {}", strerror(errno));
    int left = static_cast<int>(size);
    for (auto* message = reinterpret_cast<nlmsghdr*>(buffer); nlmsg_ok(message, left);
         message = nlmsg_next(message, &left)) {
      if (read(message)) return {};
    }
  }
}

Status NftSocket::Commit(std::span<const nft::Message> messages) {
  if (messages.empty()) return {};
  const std::uint32_t first = sequence_;
  const auto last = static_cast<std::uint32_t>(first + messages.size());
  sequence_ = last + 2;
  if (Status sent = Send(nft::ToBatch(messages, first)); !sent) return sent;
  Status outcome;
  Status received = Receive([&](const nlmsghdr* message) {
    const std::uint32_t which = message->nlmsg_seq - first;
    if (message->nlmsg_type != NLMSG_ERROR || which > messages.size()) return false;
    const int code = CodeOf(message);
    if (code != 0 && outcome) {
      const std::string what = which == 0 ? "the whole" : messages[which - 1].what;
      outcome = FailErrno(code, "nftables does not take {}: {}", what, Explain(code));
    }
    // After an error the rest of the batch may stay unanswered: what failed is all there is to know.
    return message->nlmsg_seq == last || code != 0;
  });
  if (!received) return received;
  // Answers to what came behind the error, so that the next call does not read them.
  std::uint8_t rest[512];
  while (recv(fd_.get(), rest, sizeof rest, MSG_DONTWAIT) >= 0) {
  }
  return outcome;
}

Result<std::optional<std::uint32_t>> NftSocket::TableFlags(const std::string& table) {
  const std::uint32_t sequence = sequence_++;
  if (Status sent = Send(nft::ToRequest(nft::GetTable(table), sequence)); !sent) return std::unexpected(sent.error());
  std::optional<std::uint32_t> flags;
  int code = 0;
  Status received = Receive([&](const nlmsghdr* message) {
    if (message->nlmsg_seq != sequence) return false;
    if (message->nlmsg_type == NLMSG_ERROR) {
      code = CodeOf(message);
    } else {
      const auto attributes = Attributes::Of(const_cast<nlmsghdr*>(message), sizeof(nfgenmsg));
      flags = be32toh(attributes.U32(NFTA_TABLE_FLAGS));
    }
    return true;
  });
  if (!received) return std::unexpected(received.error());
  if (code != 0 && code != ENOENT) return FailErrno(code, "cannot read the table {}: {}", table, Explain(code));
  return flags;
}

Result<std::map<std::string, FirewallCount>> NftSocket::Counters(const std::string& table) {
  const std::uint32_t sequence = sequence_++;
  if (Status sent = Send(nft::ToRequest(nft::DumpCounters(table), sequence)); !sent) {
    return std::unexpected(sent.error());
  }
  std::map<std::string, FirewallCount> counters;
  int code = 0;
  Status received = Receive([&](const nlmsghdr* message) {
    if (message->nlmsg_seq != sequence) return false;
    if (message->nlmsg_type == NLMSG_DONE) return true;
    if (message->nlmsg_type == NLMSG_ERROR) {
      code = CodeOf(message);
      return true;
    }
    const auto attributes = Attributes::Of(const_cast<nlmsghdr*>(message), sizeof(nfgenmsg));
    if (attributes.String(NFTA_OBJ_TABLE) != table) return false;
    const auto data = attributes.Nested(NFTA_OBJ_DATA);
    const auto number = [&](int attribute) {
      const Bytes bytes = data.Data(attribute);
      return bytes.size() == sizeof(std::uint64_t) ? be64toh(LoadAs<std::uint64_t>(bytes.data())) : 0;
    };
    counters[attributes.String(NFTA_OBJ_NAME)] = {number(NFTA_COUNTER_PACKETS), number(NFTA_COUNTER_BYTES)};
    return false;
  });
  if (!received) return std::unexpected(received.error());
  if (code != 0 && code != ENOENT) return FailErrno(code, "cannot read the counters of {}: {}", table, Explain(code));
  return counters;
}

}  // namespace adit
