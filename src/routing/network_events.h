// What happens to the network of this namespace, and who did it (door): links, addresses, routes, rules of both
// families and nftables, as the kernel tells it over netlink. It only reads; reconcile.h decides what to do about it.
#pragma once

#include <netlink/socket.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "routing/netlink.h"
#include "routing/network_event.h"

namespace adit {

// One thread at a time.
class NetworkEvents {
 public:
  // What one Read holds at most; the rest waits in the kernel for the next.
  static constexpr std::size_t kMaxEventsPerRead = 1024;

  // In the calling thread's network namespace. Without nftables in the kernel there are just no firewall events.
  static Result<std::unique_ptr<NetworkEvents>> Open();

  // Readable when there is news. firewall_fd() < 0: this kernel has none.
  int route_fd() const { return nl_socket_get_fd(route_.get()); }
  int firewall_fd() const { return firewall_ ? nl_socket_get_fd(firewall_.get()) : -1; }

  // Changes asked for through the socket with this netlink port are our own, and no news.
  void IgnorePort(std::uint32_t port_id);

  // Never blocks.
  NetworkNews Read();

 private:
  struct Free {
    void operator()(nl_sock* socket) const { nl_socket_free(socket); }
  };
  using Socket = std::unique_ptr<nl_sock, Free>;
  NetworkEvents() = default;
  void ReadSocket(nl_sock* socket, NetworkNews& news);
  void OnMessage(nlmsghdr* message, NetworkNews& news);
  const std::string& Culprit(std::uint32_t port_id);

  Socket route_;
  Socket firewall_;
  std::vector<std::uint32_t> own_ports_;
  std::map<std::uint32_t, std::string> device_names_;  // of the links seen so far, by index
  std::uint32_t last_port_ = 0;
  std::string last_culprit_;
};

// "ip (pid 1234, started by bash)": the process behind a netlink port or pid, while it lives; else "pid 1234".
std::string DescribeProcess(std::uint32_t port_id);

}  // namespace adit
