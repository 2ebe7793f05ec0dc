#include "routing/nft_socket.h"

#include <endian.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <sys/socket.h>
#include <sys/time.h>

#include <cerrno>
#include <cstring>
#include <functional>

#include "base/check.h"
#include "base/endian.h"
#include "routing/netlink.h"

namespace adit {
namespace {

constexpr timeval kReceiveTimeout{.tv_sec = 5, .tv_usec = 0};
constexpr int kReceiveBufferBytes = 4 << 20;
constexpr int kLeastSendBufferBytes = 1 << 20;
constexpr int kReadAttempts = 20;

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

// What the kernel adds to an error number. nf_tables mostly points at the attribute that it minds, and says nothing.
std::string RemarkOn(const nft::Message& request, const nlmsghdr* answer) {
  const KernelRemark remark = ReadRemark(const_cast<nlmsghdr*>(answer));
  if (!remark.text.empty()) return fmt::format(" (the kernel says: {})", remark.text);
  if (remark.offset < sizeof(nlmsghdr)) return {};
  const std::size_t at = remark.offset - sizeof(nlmsghdr);
  if (at + sizeof(nlattr) > request.payload.size()) return {};
  const int type = LoadAs<nlattr>(request.payload.data() + at).nla_type & NLA_TYPE_MASK;
  return fmt::format(" (the kernel points at attribute {}, byte {})", type, remark.offset);
}

}  // namespace

Result<NftSocket> NftSocket::Open() {
  std::unique_ptr<nl_sock, Free> socket(nl_socket_alloc());
  CHECK(socket != nullptr);
  errno = 0;
  if (nl_connect(socket.get(), NETLINK_NETFILTER) < 0) {
    return FailErrno(errno, "cannot reach nftables: {}", Explain(errno));
  }
  const int fd = nl_socket_get_fd(socket.get());
  if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kReceiveTimeout, sizeof kReceiveTimeout) != 0) {
    return FailErrno(errno, "cannot reach nftables: {}", strerror(errno));
  }
  // Kernels before 4.12 lack these; their errors are terser.
  const int on = 1;
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on);
  // A batch of many elements must fit; without the right to go beyond the limit the kernel's default has to do.
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof kReceiveBufferBytes);
  setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kLeastSendBufferBytes, sizeof kLeastSendBufferBytes);
  return NftSocket(std::move(socket));
}

Status NftSocket::Send(std::span<const std::uint8_t> wire) {
  if (wire.size() > kLeastSendBufferBytes / 2) {
    const int wanted = static_cast<int>(wire.size() * 2);
    setsockopt(fd(), SOL_SOCKET, SO_SNDBUFFORCE, &wanted, sizeof wanted);
  }
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  const ssize_t sent =
      sendto(fd(), wire.data(), wire.size(), 0, reinterpret_cast<const sockaddr*>(&kernel), sizeof kernel);
  if (sent < 0) return FailErrno(errno, "cannot send to nftables: {}", strerror(errno));
  return {};
}

Status NftSocket::Receive(const std::function<bool(const nlmsghdr*)>& read) {
  alignas(nlmsghdr) std::uint8_t buffer[64 << 10];
  for (;;) {
    const ssize_t size = recv(fd(), buffer, sizeof buffer, 0);
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
      const std::string remark = which == 0 ? "" : RemarkOn(messages[which - 1], message);
      outcome = FailErrno(code, "nftables does not take {}: {}{}", what, Explain(code), remark);
    }
    // After an error the rest of the batch may stay unanswered: what failed is all there is to know.
    return message->nlmsg_seq == last || code != 0;
  });
  if (!received) return received;
  // Answers to what came behind the error, so that the next call does not read them.
  std::uint8_t rest[512];
  while (recv(fd(), rest, sizeof rest, MSG_DONTWAIT) >= 0) {
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

Status NftSocket::Dump(const nft::Message& request, const std::function<void(const nlmsghdr*)>& read) {
  const std::uint32_t sequence = sequence_++;
  if (Status sent = Send(nft::ToRequest(request, sequence)); !sent) return sent;
  int code = 0;
  Status received = Receive([&](const nlmsghdr* message) {
    if (message->nlmsg_seq != sequence) return false;
    if (message->nlmsg_type == NLMSG_DONE) {
      is_interrupted_ |= (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
      return true;
    }
    if (message->nlmsg_type == NLMSG_ERROR) {
      code = CodeOf(message);
      return true;
    }
    is_interrupted_ |= (message->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
    read(message);
    return false;
  });
  if (!received) return received;
  if (code != 0) return FailErrno(code, "cannot read the {}: {}", request.what, Explain(code));
  return {};
}

Result<std::map<std::string, FirewallCount>> NftSocket::Counters(const std::string& table) {
  std::map<std::string, FirewallCount> counters;
  Status read = Dump(nft::DumpCounters(table), [&](const nlmsghdr* message) {
    const auto attributes = Attributes::Of(const_cast<nlmsghdr*>(message), sizeof(nfgenmsg));
    if (attributes.String(NFTA_OBJ_TABLE) != table) return;
    const auto data = attributes.Nested(NFTA_OBJ_DATA);
    const auto number = [&](int attribute) {
      const Bytes bytes = data.Data(attribute);
      return bytes.size() == sizeof(std::uint64_t) ? be64toh(LoadAs<std::uint64_t>(bytes.data())) : 0;
    };
    counters[attributes.String(NFTA_OBJ_NAME)] = {number(NFTA_COUNTER_PACKETS), number(NFTA_COUNTER_BYTES)};
  });
  if (!read && read.error().code != ENOENT) return std::unexpected(read.error());
  return counters;
}

Result<std::optional<NftSocket::Contents>> NftSocket::ReadContents(const std::string& table,
                                                                   std::span<const std::string> sets) {
  // Somebody's transaction in the midst of it makes a mixture of before and after.
  for (int attempt = 1;; ++attempt) {
    is_interrupted_ = false;
    auto contents = ReadContentsOnce(table, sets);
    if (!is_interrupted_ || attempt == kReadAttempts) return contents;
  }
}

Result<std::optional<NftSocket::Contents>> NftSocket::ReadContentsOnce(const std::string& table,
                                                                       std::span<const std::string> sets) {
  constexpr std::uint32_t kDormant = 1;  // NFT_TABLE_F_DORMANT
  const auto flags = TableFlags(table);
  if (!flags) return std::unexpected(flags.error());
  if (!*flags) return std::nullopt;
  Contents contents;
  // A sum, so that the order in which a set's elements come does not matter; that of rules is in their handles.
  const auto add = [&](auto&&... parts) {
    const std::string text = (std::string{} + ... + (std::string(parts) + '\0'));
    contents.fingerprint += std::hash<std::string>{}(text);
  };
  const auto text = [](Bytes bytes) { return std::string(bytes.begin(), bytes.end()); };
  add("table", std::to_string(**flags & kDormant));
  const auto attributes_of = [](const nlmsghdr* message) {
    return Attributes::Of(const_cast<nlmsghdr*>(message), sizeof(nfgenmsg));
  };
  Status read = Dump(nft::DumpChains(), [&](const nlmsghdr* message) {
    const auto chain = attributes_of(message);
    if (chain.String(NFTA_CHAIN_TABLE) != table) return;
    add("chain", chain.String(NFTA_CHAIN_NAME), text(chain.Data(NFTA_CHAIN_HANDLE)),
        text(chain.Data(NFTA_CHAIN_POLICY)));
  });
  if (!read) return std::unexpected(read.error());
  // A rule that takes the place of another has its handle. None of ours holds what counts or ages: named counters do.
  read = Dump(nft::DumpRules(table), [&](const nlmsghdr* message) {
    const auto rule = attributes_of(message);
    if (rule.String(NFTA_RULE_TABLE) != table) return;
    ++contents.rules;
    add("rule", rule.String(NFTA_RULE_CHAIN), text(rule.Data(NFTA_RULE_HANDLE)),
        text(rule.Data(NFTA_RULE_EXPRESSIONS)));
  });
  if (!read) return std::unexpected(read.error());
  for (const std::string& set : sets) {
    read = Dump(nft::DumpElements(table, set), [&](const nlmsghdr* message) {
      const auto list = attributes_of(message);
      const nlattr* element = nullptr;
      int left = 0;
      const Bytes elements = list.Data(NFTA_SET_ELEM_LIST_ELEMENTS);
      const auto* const first = reinterpret_cast<const nlattr*>(elements.data());
      for (element = first, left = static_cast<int>(elements.size()); nla_ok(element, left);
           element = nla_next(element, &left)) {
        const Attributes parts(static_cast<const nlattr*>(nla_data(element)), nla_len(element));
        add("element", set, text(parts.Data(NFTA_SET_ELEM_KEY)), text(parts.Data(NFTA_SET_ELEM_FLAGS)),
            text(parts.Data(NFTA_SET_ELEM_KEY_END)));
      }
    });
    if (!read && read.error().code == ENOENT) {
      add("no set", set);
    } else if (!read) {
      return std::unexpected(read.error());
    }
  }
  return contents;
}

}  // namespace adit
