// One host: the product's whole protocol core (control half and both data halves) with the work of the engine's threads
// around it, on the virtual clock. What the product's threads do when they are woken, this does in events of their own,
// each late by a little, so that the three run in any order.
//
// A restart loses the Core and keeps the configuration. While suspended nothing runs, and time goes on.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "crypto/aead.h"
#include "defect.h"
#include "network.h"
#include "observer.h"
#include "packets.h"
#include "simulator.h"
#include "tunnel/exchange.h"
#include "tunnel/handshake_queue.h"
#include "tunnel/inbound.h"
#include "tunnel/outbound.h"
#include "tunnel/tunnel.h"

namespace adit::sim {

// The last events of a run, or all of them; nothing is formatted unless somebody wants to read it.
class EventLog {
 public:
  enum class Mode { kOff, kLast, kAll };
  EventLog(const Simulator& simulator, Mode mode) : simulator_(simulator), mode_(mode) {}

  template <typename... Args>
  void Add(HostId host, fmt::format_string<Args...> format, Args&&... args) {
    if (mode_ != Mode::kOff) AddLine(host, fmt::format(format, std::forward<Args>(args)...));
  }
  const std::deque<std::string>& last() const { return last_; }

 private:
  static constexpr std::size_t kKept = 30;
  void AddLine(HostId host, std::string text);

  const Simulator& simulator_;
  const Mode mode_;
  std::deque<std::string> last_;
};

struct PeerConfig {
  PublicKey key;
  PresharedKey psk;
  std::uint64_t psk_version = 0;  // 0: none
  std::optional<SocketAddress> endpoint;
  Duration keepalive{0};
  std::vector<Prefix> allowed_ips;
};

struct HostServices {
  Simulator& simulator;
  Network& network;
  Observer& observer;
  PacketLedger& ledger;
  AeadEngine& aead;
  EventLog& log;
};

class Host {
 public:
  using OnDelivered = std::function<void(const PacketRecord&)>;

  // `lag`: how late its threads are at most.
  Host(HostId id, const HostServices& services, const ProtocolLimits& limits, Duration lag, std::uint64_t seed,
       Defect defect, OnDelivered on_delivered);

  HostId id() const { return id_; }
  PublicKey public_key() const { return private_key_.ComputePublicKey(); }

  // ---- configuration; what is configured survives a restart
  void Configure(HostId remote, const PeerConfig& config);  // adds the peer or changes it
  void Remove(HostId remote);
  void Unconfigure(HostId remote);  // removes it for good
  void ChangeKey();
  void SetPresharedKey(HostId remote, const PresharedKey& psk, std::uint64_t version);
  void SetPersistentKeepalive(HostId remote, Duration interval);
  void SetEndpoint(HostId remote, const SocketAddress& endpoint);
  const std::map<HostId, PeerConfig>& configured() const { return configured_; }
  bool HasPeer(HostId remote) const { return present_.contains(remote); }
  void SetUp(bool up);

  // ---- life
  void Start();
  void Stop();
  bool is_running() const { return core_ != nullptr; }
  bool is_up() const { return core_ && core_->tunnel.is_up(); }
  // Sleeping machines hear nothing; a stopped process's socket fills up meanwhile.
  void Suspend(bool keeps_datagrams);
  void Resume();
  bool is_suspended() const { return is_suspended_; }
  void JumpWallClock(Duration by) { wall_offset_ += by; }
  // NTP: no clock lags behind what it has already shown to others.
  void CorrectWallClock();
  void set_under_load(bool is_under_load) { is_under_load_ = is_under_load; }
  void set_send_failures(double probability) { send_failures_ = probability; }

  // ---- traffic
  void SendInner(HostId remote, std::vector<std::vector<std::uint8_t>> packets);
  void Receive(std::span<Datagram> group);

  void Sweep();
  // The end: removes all peers and looks at what is left.
  void RequireCleanExit();
  std::optional<std::uint32_t> CurrentIndexOf(HostId remote) const;
  void set_deaf(bool is_deaf) { is_deaf_ = is_deaf; }

 private:
  // All that a restart loses.
  struct Core {
    Core(const ProtocolLimits& limits, Random& random, Instant now);
    Exchange exchange;
    HandshakeQueue handshakes;
    Outbound outbound;
    Inbound inbound;
    Tunnel tunnel;
  };

  Now BothNow();
  Snapshot Snap() const;
  HostId RemoteOf(const PublicKey& key) const;
  void AddToCore(HostId remote, const PeerConfig& config);
  void WakeControl();
  void ControlTurn();
  void HandleOneHandshake(std::size_t depth);
  void CarryOut();
  void TimerTurn();
  void ScheduleTimer();
  void RequestFlush(const FlushRequest& request);
  void FlushTurn();
  void FlushAndSend();
  void ReceiveRun(std::vector<std::uint8_t>& data, std::span<Datagram> group);
  void AfterStep();
  // Runs `action` a little later, unless the core is another one by then; while suspended it waits.
  void Later(void (Host::*action)());
  void PlantInControl();
  void PlantInData(const Snapshot& before, std::span<const Datagram> group);
  void ForEachPeer(const std::function<void(HostId, Peer&)>& visit) const;

  const HostId id_;
  HostServices services_;
  const ProtocolLimits limits_;
  const Duration lag_;
  const Defect defect_;
  const OnDelivered on_delivered_;
  Rng rng_;
  SeededRandom random_;
  PrivateKey private_key_;

  std::map<HostId, PeerConfig> configured_;
  std::map<HostId, PublicKey> present_;    // with the key the core knows them by
  std::map<PublicKey, HostId> remote_of_;  // never forgets: late events name peers of the past
  std::unique_ptr<Core> core_;
  std::uint64_t incarnation_ = 0;
  bool is_suspended_ = false;
  bool keeps_datagrams_ = false;
  std::vector<std::vector<Datagram>> kept_;
  std::vector<void (Host::*)()> postponed_;
  Duration wall_offset_{0};
  WallTime greatest_wall_;
  bool is_under_load_ = false;
  double send_failures_ = 0;

  bool is_control_woken_ = false;
  bool is_flush_woken_ = false;
  std::optional<Instant> timer_at_;
  std::uint64_t timer_generation_ = 0;
  std::deque<FlushRequest> to_flush_;
  ControlOutbox outbox_;
  std::deque<Arrived> queued_;  // beside HandshakeQueue: what is known of each message in it
  std::vector<HandshakeDatagram> taken_;
  bool is_deaf_ = false;
  bool loses_delivery_ = false;
  std::vector<std::uint8_t> last_response_;
};

}  // namespace adit::sim
