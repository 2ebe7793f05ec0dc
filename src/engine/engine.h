// The engine: joins the TUN device, the UDP sockets and the protocol core. Data threads move packets; everything else
// (handshakes, timers, configuration) runs on the control thread, which is whoever runs the io_context.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"
#include "config/device.h"
#include "crypto/aead.h"
#include "engine/sleep_watch.h"
#include "tun/device.h"
#include "tunnel/limits.h"
#include "tunnel/tunnel.h"
#include "udp/socket.h"

namespace adit {

struct EngineOptions {
  UdpOptions udp;
  std::optional<AeadBackend> aead;  // empty: the best available
  unsigned threads = 0;             // of each direction; 0: by the number of cores
  ProtocolLimits limits;            // lowered by tests, so that a rekey takes seconds
  std::function<void()> disturb;    // for tests: called on a data thread before each unit's cipher, to delay it
  UdpSyscalls udp_calls;            // a test hands in ones that fail
  std::function<Duration()> time_asleep = TimeAsleep;  // a test's machine sleeps without sleeping
};

// What `adit status` shows beside the DeviceStatus.
struct EngineStatus {
  std::string interface_name;
  bool is_up = false;
  AeadBackend aead = AeadBackend::kSodium;
  TunOffloads tun_offloads;
  bool udp_gso = false;
  bool udp_gro = false;
  std::uint64_t degrade_count = 0;
  std::vector<std::pair<std::string, std::uint64_t>> drops;     // by reason, only non-zero ones
  std::vector<std::pair<std::string, std::uint64_t>> counters;  // packets, batches, handshakes, ...
};

enum class EngineEnd { kStopped, kLinkRemoved };

class Engine : public DeviceControl {
 public:
  // Starts the data threads: as many inbound as outbound, and outbound at least one for each TUN queue. From then on
  // the engine follows the link: it binds its sockets when the link goes up and clears sessions and closes them when it
  // goes down. `on_end` is called on the control thread, once, when the link is removed. An error
  // if there are not enough descriptors (Error.code EMFILE): nothing is left behind then.
  static Result<std::unique_ptr<Engine>> Start(boost::asio::io_context& control, std::unique_ptr<TunDevice> tun,
                                               const EngineOptions& options, std::function<void(EngineEnd)> on_end);
  ~Engine() override;  // joins the data threads and wipes all keys

  DeviceStatus GetDevice() const override;
  int SetDevice(const DeviceUpdate& update) override;
  EngineStatus GetEngine() const;
  // Empty for a peer that is not there.
  std::optional<PeerReach> GetReach(const PublicKey& key) const;
  // Of all peers that have one. Cheap, other than GetDevice(), which copies each peer's allowed IPs.
  std::vector<SocketAddress> GetEndpoints() const;
  // The peer is to be found there from now on; Tunnel::Redirect.
  void Redirect(const PublicKey& key, const SocketAddress& remote);
  // UdpOptions::choose_link answers otherwise from now on. Changes of addresses and routes need no telling.
  void OnUplinksChanged();

 private:
  class Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace adit
