// nf_tables netlink (door): batches in, outcomes and counters out. The socket that made an owned table must live as
// long as the table is to be owned.
#pragma once

#include <netlink/socket.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "routing/nft_wire.h"

struct nlmsghdr;

namespace adit {

struct FirewallCount {
  std::uint64_t packets = 0;
  std::uint64_t bytes = 0;
  friend bool operator==(const FirewallCount&, const FirewallCount&) = default;
};

// Bound for good to the network namespace it was opened in. One thread at a time.
class NftSocket {
 public:
  // In the calling thread's namespace.
  static Result<NftSocket> Open();

  // By which the kernel's events name who made a change.
  std::uint32_t port_id() const { return nl_socket_get_local_port(socket_.get()); }

  // All of the messages or none of them. The Error names the message that the kernel refused, with
  // what the kernel remarked on it (NETLINK_EXT_ACK).
  Status Commit(std::span<const nft::Message> messages);
  // Empty if there is no such table.
  Result<std::optional<std::uint32_t>> TableFlags(const std::string& table);
  Result<std::map<std::string, FirewallCount>> Counters(const std::string& table);
  // What stands in the table: equal as long as nobody adds, removes or replaces a chain, a policy, a rule or an element
  // (of `sets`) of it, or makes it dormant. Counters do not count. Empty if there is no such table.
  struct Contents {
    std::uint64_t fingerprint = 0;
    std::size_t rules = 0;
    friend bool operator==(const Contents&, const Contents&) = default;
  };
  Result<std::optional<Contents>> ReadContents(const std::string& table, std::span<const std::string> sets);

 private:
  struct Free {
    void operator()(nl_sock* socket) const { nl_socket_free(socket); }
  };
  explicit NftSocket(std::unique_ptr<nl_sock, Free> socket) : socket_(std::move(socket)) {}
  int fd() const { return nl_socket_get_fd(socket_.get()); }
  Result<std::optional<Contents>> ReadContentsOnce(const std::string& table, std::span<const std::string> sets);
  Status Send(std::span<const std::uint8_t> wire);
  // One request with any number of answers. Error.code is what the kernel said.
  Status Dump(const nft::Message& request, const std::function<void(const nlmsghdr*)>& read);
  // Reads what the kernel has answered already (it does so while we send), until `read` says that it has all.
  Status Receive(const std::function<bool(const nlmsghdr*)>& read);

  std::unique_ptr<nl_sock, Free> socket_;
  std::uint32_t sequence_ = 1;
  bool is_interrupted_ = false;  // the last dump
};

}  // namespace adit
