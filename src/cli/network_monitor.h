// Follows the network of this namespace on the control thread: reads its events (routing/network_events.h), does what
// routing/reconcile.h decides, and tells those who asked to know. Idle it costs one wake-up a minute.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/result.h"
#include "cli/status.h"
#include "routing/reconcile.h"
#include "routing/routing.h"

namespace adit {

// Control thread only.
class NetworkMonitor {
 public:
  using Observer = std::function<void(const NetworkChange&)>;

  static Result<std::unique_ptr<NetworkMonitor>> Start(boost::asio::io_context& io);
  ~NetworkMonitor();
  NetworkMonitor(const NetworkMonitor&) = delete;
  NetworkMonitor& operator=(const NetworkMonitor&) = delete;

  // Called after changes have come to rest (ReconcilePolicy::kQuiet) and the routing has been looked after: addresses,
  // routes or links are others now. For endpoint sources, endpoint names, the MTU, DNS. Observers live as long as this.
  void Subscribe(Observer observer);
  // Called at once when links, addresses or routes changed, or may have.
  void OnNetworkEvent(std::function<void()> follow);
  // Called at once when an nftables transaction that was not ours took place, or may have: the table may be gone, or
  // another. Returns what was put right, if anything: "table inet adit-wg0, removed". Who did it is ours to tell.
  void OnFirewallChange(std::function<std::optional<std::string>()> repair);
  // From now on `routing` is looked after; null ends that. It and what the functions need must live until then.
  struct Guarded {
    Routing* routing = nullptr;
    std::function<RoutingConfig()> config;  // what should be in force
    std::function<Status(const Plan&)>
        prepare_sockets;  // before a plan that asks otherwise of them is complete; see Routing::Reload
  };
  void Guard(Guarded guarded);
  // As status shows it; all zero while nothing is guarded.
  RoutingHealth health() const;
  // Asks the kernel where packets would go, now.
  void Verify();

  // Changes asked for through the socket with this netlink port (of either family) are ours and no news.
  void IgnorePort(std::uint32_t port_id);

 private:
  class Impl;
  explicit NetworkMonitor(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace adit
