// Route netlink (door): messages built by hand over libnl-3, and a socket that asks, batches and dumps. Errors carry
// the kernel's own sentence (NETLINK_EXT_ACK) where it gives one, and its errno value as code.
#pragma once

#include <linux/netlink.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/socket.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/result.h"

namespace adit {

// One request under construction. Grows by appending only, in wire order: header struct, then attributes.
class NetlinkMessage {
 public:
  // NLM_F_REQUEST is implied. `type` is RTM_*.
  template <typename Header>
  NetlinkMessage(std::uint16_t type, std::uint16_t flags, const Header& header) : NetlinkMessage(type, flags) {
    Append(&header, sizeof(header));
  }

  void Put(int attribute, Bytes value);
  void PutU8(int attribute, std::uint8_t value) { Put(attribute, {&value, 1}); }
  void PutU32(int attribute, std::uint32_t value);
  void PutU64(int attribute, std::uint64_t value);
  void PutString(int attribute, std::string_view value);  // with its terminating zero
  void PutAddress(int attribute, const IpAddress& ip) { Put(attribute, ip.bytes()); }
  nlattr* BeginNest(int attribute);
  void EndNest(nlattr* nest);
  // A bare struct inside the current nest (IFLA's VETH_INFO_PEER carries an ifinfomsg before its attributes).
  void Append(const void* data, std::size_t size);

  nlmsghdr* header() { return nlmsg_hdr(message_.get()); }

 private:
  NetlinkMessage(std::uint16_t type, std::uint16_t flags);
  struct Free {
    void operator()(nl_msg* message) const { nlmsg_free(message); }
  };
  std::unique_ptr<nl_msg, Free> message_;
};

// The attributes of one received message by number; the bytes live as long as the message.
class Attributes {
 public:
  Attributes(const nlattr* first, int length);
  // Of a message that starts with a header struct of `header_size` bytes.
  static Attributes Of(nlmsghdr* message, std::size_t header_size) {
    return {nlmsg_attrdata(message, static_cast<int>(header_size)),
            nlmsg_attrlen(message, static_cast<int>(header_size))};
  }
  bool Has(int attribute) const { return Find(attribute) != nullptr; }
  // Zero or empty if absent or shorter than asked for.
  std::uint8_t U8(int attribute) const;
  std::uint32_t U32(int attribute) const;
  std::string String(int attribute) const;
  Bytes Data(int attribute) const;
  std::optional<IpAddress> Address(int attribute) const;  // by its size
  Attributes Nested(int attribute) const;

 private:
  static constexpr int kMaxAttribute = 80;  // above every IFLA_, IFA_, RTA_ and FRA_ that is read here
  const nlattr* Find(int attribute) const {
    return attribute >= 0 && attribute <= kMaxAttribute ? table_[attribute] : nullptr;
  }
  const nlattr* table_[kMaxAttribute + 1] = {};
};

// What the kernel says of a request beside the error number (NETLINK_EXT_ACK).
struct KernelRemark {
  std::string text;          // empty: none
  std::uint32_t offset = 0;  // of the attribute that it minds, from the request's nlmsghdr on; 0: of none
};
// Of an NLMSG_ERROR.
KernelRemark ReadRemark(nlmsghdr* message);

// Bound for good to the network namespace it was opened in. One thread at a time.
class NetlinkSocket {
 public:
  // In the calling thread's namespace. `protocol` is NETLINK_ROUTE or NETLINK_NETFILTER.
  static Result<NetlinkSocket> Open(int protocol = NETLINK_ROUTE);
  static Result<NetlinkSocket> OpenIn(int netns_fd);

  // What the kernel calls this socket in the events that its requests cause.
  std::uint32_t port_id() const { return nl_socket_get_local_port(socket_.get()); }

  // One request, one acknowledgement.
  Status Request(NetlinkMessage message);
  // Many requests, kBatch to a send; one outcome each. The kernel goes on after a failed one.
  std::vector<Status> RequestAll(std::span<NetlinkMessage> messages);
  // One request with one answer (RTM_GETLINK, RTM_GETROUTE), which `read` sees.
  Status Ask(NetlinkMessage message, const std::function<void(nlmsghdr*)>& read);
  // A dump. Starts over (calling `restart` first, also before the first attempt) when the kernel says that the table
  // changed under it (NLM_F_DUMP_INTR) or is busy (EBUSY), at most kDumpAttempts times.
  Status Dump(NetlinkMessage message, const std::function<void()>& restart, const std::function<void(nlmsghdr*)>& read);

  // A batch's acknowledgements must fit the receive buffer: about 800 bytes of it each.
  static constexpr std::size_t kBatch = 128;
  static constexpr int kDumpAttempts = 20;

 private:
  struct Free {
    void operator()(nl_sock* socket) const { nl_socket_free(socket); }
  };
  explicit NetlinkSocket(std::unique_ptr<nl_sock, Free> socket) : socket_(std::move(socket)) {}
  std::uint32_t Stamp(NetlinkMessage& message);
  Status Send(Bytes data);
  // Receives one datagram and calls `read` for each of its messages.
  Status Receive(const std::function<void(nlmsghdr*)>& read);

  std::unique_ptr<nl_sock, Free> socket_;
};

}  // namespace adit
