#include "routing/netlink.h"

#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <netlink/netlink.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "base/check.h"
#include "routing/netns.h"

namespace adit {
namespace {

// Room for the largest message built here (a rule or a veth pair); libnl's default is a page, which a batch of 20,000
// routes would feel.
constexpr std::size_t kMessageBytes = 512;
constexpr int kReceiveBufferBytes = 1 << 20;
// The kernel answers a request inside sendmsg, so waiting means that the answer was lost.
constexpr timeval kReceiveTimeout{.tv_sec = 5, .tv_usec = 0};
constexpr auto kDumpPause = std::chrono::milliseconds(2);

Status Outcome(nlmsghdr* message) {
  const int code = -static_cast<const nlmsgerr*>(nlmsg_data(message))->error;
  if (code == 0) return {};
  const std::string said = ReadRemark(message).text;
  if (code == EPERM) return FailErrno(code, "the kernel refused it (EPERM); this needs CAP_NET_ADMIN");
  if (said.empty()) return FailErrno(code, "{}", strerror(code));
  return FailErrno(code, "{} ({})", strerror(code), said);
}

}  // namespace

KernelRemark ReadRemark(nlmsghdr* message) {
  if (!(message->nlmsg_flags & NLM_F_ACK_TLVS)) return {};
  const auto* error = static_cast<const nlmsgerr*>(nlmsg_data(message));
  std::size_t skip = sizeof(nlmsgerr);
  if (!(message->nlmsg_flags & NLM_F_CAPPED)) skip += error->msg.nlmsg_len - sizeof(nlmsghdr);
  skip = NLMSG_ALIGN(skip);
  const auto payload = static_cast<std::size_t>(nlmsg_datalen(message));
  if (skip >= payload) return {};
  const auto* first = reinterpret_cast<const nlattr*>(static_cast<const std::uint8_t*>(nlmsg_data(message)) + skip);
  const Attributes attributes(first, static_cast<int>(payload - skip));
  return {attributes.String(NLMSGERR_ATTR_MSG), attributes.U32(NLMSGERR_ATTR_OFFS)};
}

NetlinkMessage::NetlinkMessage(std::uint16_t type, std::uint16_t flags) : message_(nlmsg_alloc_size(kMessageBytes)) {
  CHECK(message_ != nullptr);
  CHECK(nlmsg_put(message_.get(), NL_AUTO_PORT, NL_AUTO_SEQ, type, 0, flags | NLM_F_REQUEST) != nullptr);
}

void NetlinkMessage::Append(const void* data, std::size_t size) {
  CHECK(nlmsg_append(message_.get(), const_cast<void*>(data), size, NLMSG_ALIGNTO) == 0);
}

void NetlinkMessage::Put(int attribute, Bytes value) {
  CHECK(nla_put(message_.get(), attribute, static_cast<int>(value.size()), value.data()) == 0);
}

void NetlinkMessage::PutU32(int attribute, std::uint32_t value) {
  CHECK(nla_put_u32(message_.get(), attribute, value) == 0);
}

void NetlinkMessage::PutU64(int attribute, std::uint64_t value) {
  CHECK(nla_put_u64(message_.get(), attribute, value) == 0);
}

void NetlinkMessage::PutString(int attribute, std::string_view value) {
  CHECK(nla_put_string(message_.get(), attribute, std::string(value).c_str()) == 0);
}

nlattr* NetlinkMessage::BeginNest(int attribute) {
  nlattr* nest = nla_nest_start(message_.get(), attribute);
  CHECK(nest != nullptr);
  return nest;
}

void NetlinkMessage::EndNest(nlattr* nest) { CHECK(nla_nest_end(message_.get(), nest) == 0); }

Attributes::Attributes(const nlattr* first, int length) {
  for (const nlattr* at = first; nla_ok(at, length); at = nla_next(at, &length)) {
    if (nla_type(at) <= kMaxAttribute) table_[nla_type(at)] = at;
  }
}

Bytes Attributes::Data(int attribute) const {
  const nlattr* at = Find(attribute);
  if (at == nullptr) return {};
  return {static_cast<const std::uint8_t*>(nla_data(at)), static_cast<std::size_t>(nla_len(at))};
}

std::uint8_t Attributes::U8(int attribute) const {
  const Bytes data = Data(attribute);
  return data.empty() ? std::uint8_t{0} : data[0];
}

std::uint32_t Attributes::U32(int attribute) const {
  const Bytes data = Data(attribute);
  std::uint32_t value = 0;
  if (data.size() >= sizeof(value)) std::memcpy(&value, data.data(), sizeof(value));
  return value;
}

std::string Attributes::String(int attribute) const {
  const Bytes data = Data(attribute);
  const auto* text = reinterpret_cast<const char*>(data.data());
  return data.empty() ? std::string() : std::string(text, strnlen(text, data.size()));
}

std::optional<IpAddress> Attributes::Address(int attribute) const {
  const Bytes data = Data(attribute);
  if (data.size() == 4) return IpAddress::V4(data);
  if (data.size() == 16) return IpAddress::V6(data);
  return std::nullopt;
}

Attributes Attributes::Nested(int attribute) const {
  const Bytes data = Data(attribute);
  return {reinterpret_cast<const nlattr*>(data.data()), static_cast<int>(data.size())};
}

Result<NetlinkSocket> NetlinkSocket::Open(int protocol) {
  std::unique_ptr<nl_sock, Free> socket(nl_socket_alloc());
  CHECK(socket != nullptr);
  errno = 0;
  if (const int error = nl_connect(socket.get(), protocol); error < 0) {
    return FailErrno(errno, "cannot open a netlink socket: {}", nl_geterror(error));
  }
  const int fd = nl_socket_get_fd(socket.get());
  const int on = 1;
  // Old kernels lack some of these: their errors are then terser and their dumps laxer, which the readers here bear.
  setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof(on));
  setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof(on));
  setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof(on));
  // Without CAP_NET_ADMIN the default buffer stays; whoever lacks it makes no batches.
  setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kReceiveBufferBytes, sizeof(kReceiveBufferBytes));
  if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &kReceiveTimeout, sizeof(kReceiveTimeout)) != 0) {
    return FailErrno(errno, "cannot set a netlink socket's timeout: {}", strerror(errno));
  }
  return NetlinkSocket(std::move(socket));
}

Result<NetlinkSocket> NetlinkSocket::OpenIn(int netns_fd) {
  std::optional<Result<NetlinkSocket>> opened;
  Status entered = RunInNamespace(netns_fd, [&]() -> Status {
    opened.emplace(Open());
    return {};
  });
  if (!entered) return std::unexpected(entered.error());
  return std::move(*opened);
}

std::uint32_t NetlinkSocket::Stamp(NetlinkMessage& message) {
  message.header()->nlmsg_seq = nl_socket_use_seq(socket_.get());
  message.header()->nlmsg_pid = nl_socket_get_local_port(socket_.get());
  return message.header()->nlmsg_seq;
}

Status NetlinkSocket::Send(Bytes data) {
  if (send(nl_socket_get_fd(socket_.get()), data.data(), data.size(), 0) >= 0) return {};
  return FailErrno(errno, "cannot send to the kernel over netlink: {}", strerror(errno));
}

Status NetlinkSocket::Receive(const std::function<void(nlmsghdr*)>& read) {
  sockaddr_nl from{};
  unsigned char* buffer = nullptr;
  errno = 0;
  const int size = nl_recv(socket_.get(), &from, &buffer, nullptr);
  if (size <= 0) {
    const int code = errno == 0 || errno == EWOULDBLOCK ? ETIMEDOUT : errno;
    return FailErrno(code, "no answer from the kernel over netlink: {}", size < 0 ? nl_geterror(size) : "timed out");
  }
  const std::unique_ptr<unsigned char, decltype(&free)> owner(buffer, &free);
  if (from.nl_pid != 0) return {};  // another process may write to us; only the kernel counts
  int left = size;
  for (auto* message = reinterpret_cast<nlmsghdr*>(buffer); nlmsg_ok(message, left);
       message = nlmsg_next(message, &left)) {
    read(message);
  }
  return {};
}

Status NetlinkSocket::Request(NetlinkMessage message) { return std::move(RequestAll({&message, 1}).front()); }

std::vector<Status> NetlinkSocket::RequestAll(std::span<NetlinkMessage> messages) {
  std::vector<Status> outcomes;
  outcomes.reserve(messages.size());
  std::vector<std::uint8_t> wire;
  while (!messages.empty()) {
    const auto batch = messages.first(std::min(messages.size(), kBatch));
    messages = messages.subspan(batch.size());
    wire.clear();
    std::uint32_t first_sequence = 0;
    for (std::size_t i = 0; i < batch.size(); ++i) {
      batch[i].header()->nlmsg_flags |= NLM_F_ACK;
      const std::uint32_t sequence = Stamp(batch[i]);
      if (i == 0) first_sequence = sequence;
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(batch[i].header());
      wire.insert(wire.end(), bytes, bytes + batch[i].header()->nlmsg_len);
      wire.resize(NLMSG_ALIGN(wire.size()));
    }

    const std::size_t begin = outcomes.size();
    outcomes.resize(begin + batch.size());
    std::vector<bool> answered(batch.size());
    std::size_t missing = batch.size();
    Status io = Send(wire);
    while (io && missing > 0) {
      io = Receive([&](nlmsghdr* message) {
        const std::size_t i = message->nlmsg_seq - first_sequence;
        if (message->nlmsg_type != NLMSG_ERROR || i >= batch.size() || answered[i]) return;
        outcomes[begin + i] = Outcome(message);
        answered[i] = true;
        --missing;
      });
    }
    for (std::size_t i = 0; i < batch.size(); ++i) {
      if (!answered[i]) outcomes[begin + i] = std::unexpected(io.error());
    }
  }
  return outcomes;
}

Status NetlinkSocket::Ask(NetlinkMessage message, const std::function<void(nlmsghdr*)>& read) {
  const std::uint32_t sequence = Stamp(message);
  Status io = Send({reinterpret_cast<const std::uint8_t*>(message.header()), message.header()->nlmsg_len});
  Status outcome;
  bool done = false;
  while (io && !done) {
    io = Receive([&](nlmsghdr* answer) {
      if (answer->nlmsg_seq != sequence || done) return;
      done = true;
      if (answer->nlmsg_type == NLMSG_ERROR) {
        outcome = Outcome(answer);
      } else {
        read(answer);
      }
    });
  }
  return io ? outcome : io;
}

Status NetlinkSocket::Dump(NetlinkMessage message, const std::function<void()>& restart,
                           const std::function<void(nlmsghdr*)>& read) {
  Status outcome;
  message.header()->nlmsg_flags |= NLM_F_DUMP;
  for (int attempt = 0; attempt < kDumpAttempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(kDumpPause);
    restart();
    const std::uint32_t sequence = Stamp(message);
    Status io = Send({reinterpret_cast<const std::uint8_t*>(message.header()), message.header()->nlmsg_len});
    bool done = false;
    bool interrupted = false;
    outcome = {};
    while (io && !done) {
      io = Receive([&](nlmsghdr* answer) {
        if (answer->nlmsg_seq != sequence || done) return;
        interrupted |= (answer->nlmsg_flags & NLM_F_DUMP_INTR) != 0;
        if (answer->nlmsg_type == NLMSG_ERROR) {
          outcome = Outcome(answer);
          done = true;
        } else if (answer->nlmsg_type == NLMSG_DONE) {
          // DONE carries the dump's own errno.
          if (nlmsg_datalen(answer) >= static_cast<int>(sizeof(int))) {
            const int code = -*static_cast<const int*>(nlmsg_data(answer));
            if (code != 0) outcome = FailErrno(code, "{}", strerror(code));
          }
          done = true;
        } else {
          read(answer);
        }
      });
    }
    if (!io) return io;
    const bool busy = !outcome && outcome.error().code == EBUSY;
    if (!interrupted && !busy) return outcome;
  }
  return FailErrno(EBUSY, "the kernel's routing tables changed during each of {} attempts to read them", kDumpAttempts);
}

}  // namespace adit
