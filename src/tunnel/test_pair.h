// Two protocol cores, one clock and the wire between them, for tests. A Core is what one device has, with the threads
// folded into one: data half, control half and the queue in between. Nothing moves by itself: a message that was sent
// lies on the wire until the test delivers, loses, copies or alters it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"
#include "base/random.h"
#include "base/time.h"
#include "crypto/aead.h"
#include "crypto/primitives.h"
#include "tunnel/exchange.h"
#include "tunnel/handshake_queue.h"
#include "tunnel/inbound.h"
#include "tunnel/messages.h"
#include "tunnel/outbound.h"
#include "tunnel/tunnel.h"

namespace adit {

using Packet = std::vector<std::uint8_t>;
using Packets = std::vector<Packet>;

inline SocketAddress At(std::string_view text) {
  const auto address = SocketAddress::Parse(text);
  CHECK(address);
  return *address;
}
inline IpAddress Ip(std::string_view text) {
  const auto ip = IpAddress::Parse(text);
  CHECK(ip);
  return *ip;
}
inline Prefix Net(std::string_view text) {
  const auto prefix = Prefix::Parse(text, /*length_optional=*/true);
  CHECK(prefix);
  return *prefix;
}

// An IP packet of `bytes` in all, of the addresses' family, with a correct header; the payload is `fill`.
inline Packet MakePacket(std::string_view source, std::string_view destination, std::size_t bytes = 84,
                         std::uint8_t tos = 0, std::uint8_t fill = 0x5a) {
  const IpAddress from = Ip(source), to = Ip(destination);
  Packet packet(bytes, fill);
  const auto put16 = [&packet](std::size_t at, std::size_t value) {
    packet[at] = static_cast<std::uint8_t>(value >> 8);
    packet[at + 1] = static_cast<std::uint8_t>(value);
  };
  if (from.is_v4()) {
    CHECK(bytes >= 20);
    std::fill_n(packet.begin(), 20, std::uint8_t{0});
    packet[0] = 0x45;
    packet[1] = tos;
    put16(2, bytes);
    packet[8] = 61;  // TTL
    packet[9] = 17;
    std::ranges::copy(from.bytes(), packet.begin() + 12);
    std::ranges::copy(to.bytes(), packet.begin() + 16);
    std::uint32_t sum = 0;
    for (std::size_t i = 0; i < 20; i += 2) sum += static_cast<std::uint32_t>(packet[i] << 8 | packet[i + 1]);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    put16(10, ~sum & 0xffff);
  } else {
    CHECK(bytes >= 40);
    std::fill_n(packet.begin(), 40, std::uint8_t{0});
    packet[0] = static_cast<std::uint8_t>(0x60 | tos >> 4);
    packet[1] = static_cast<std::uint8_t>(tos << 4);
    put16(4, bytes - 40);
    packet[6] = 17;
    packet[7] = 61;  // hop limit
    std::ranges::copy(from.bytes(), packet.begin() + 8);
    std::ranges::copy(to.bytes(), packet.begin() + 24);
  }
  return packet;
}

// A datagram on the wire.
struct Datagram {
  std::vector<std::uint8_t> bytes;
  SocketAddress from;
  SocketAddress to;
  LocalSource sent_from;  // what the sender asked the kernel for
  std::uint8_t tos = 0;
  Instant sent_at;

  bool is(MessageType type) const { return ParseMessage(bytes) == type; }
  bool is_data() const { return is(MessageType::kData); }
  bool is_keepalive() const { return is_data() && bytes.size() == kKeepaliveBytes; }
  std::uint32_t sender_index() const { return LoadAs<U32Le>(bytes.data() + 4); }                    // of handshakes
  std::uint32_t receiver_index() const { return LoadAs<DataHeader>(bytes.data()).receiver_index; }  // of data
  std::uint64_t counter() const { return LoadAs<DataHeader>(bytes.data()).counter; }
};

// Both clocks. The wall clock goes along with the other unless a test moves it.
struct TestClock {
  static constexpr Instant kStart = Instant(1000s);
  static constexpr std::int64_t kWallStart = 1'700'000'000;
  Instant boot = kStart;
  Duration wall_shift{0};

  Now now() const {
    const auto wall = std::chrono::duration_cast<std::chrono::nanoseconds>(boot - kStart + wall_shift).count();
    return Now{boot, WallTime{kWallStart + wall / 1'000'000'000, static_cast<std::uint32_t>(wall % 1'000'000'000)}};
  }
};

class Core {
 public:
  static constexpr std::uint32_t kInterface = 7;  // that datagrams come in on

  Core(const TestClock& clock, std::uint64_t seed, const SocketAddress& at, const ProtocolLimits& limits = {})
      : address(at),
        random(seed),
        exchange(limits),
        tunnel(exchange, random, clock.boot),
        engine(AeadEngine::Create(AeadBackend::kSodium)),
        outbound(exchange, random, /*max_run_bytes=*/65473),
        inbound(exchange, queue),
        clock_(clock) {
    exchange.mtu = kDefaultMtu;
    SetKey(PrivateKey::Generate(random));
    tunnel.SetUp(true, clock_.now(), outbox);
    Settle();
  }
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // ---- configuration
  void SetKey(const PrivateKey& key) {
    tunnel.SetPrivateKey(key, clock_.now(), outbox);
    tunnel.Publish();
    Settle();
  }
  PublicKey public_key() const { return tunnel.private_key().ComputePublicKey(); }
  void AddPeer(const PublicKey& key, std::initializer_list<std::string_view> allowed,
               std::optional<SocketAddress> endpoint) {
    CHECK(tunnel.AddPeer(key));
    for (const auto text : allowed) tunnel.AllowIp(key, Net(text));
    if (endpoint) tunnel.SetEndpoint(key, *endpoint);
    tunnel.Publish();
    Settle();
  }
  void RemovePeer(const PublicKey& key) {
    tunnel.RemovePeer(key);
    tunnel.Publish();
    Settle();
  }
  void SetKeepalive(const PublicKey& key, Duration interval) {
    tunnel.SetPersistentKeepalive(key, interval, clock_.now(), outbox);
    Settle();
  }
  void ChangeNetwork() {
    tunnel.OnNetworkChanged(clock_.now(), [this](const Endpoint&) { return links; }, outbox);
    Settle();
  }
  void Resume() {
    tunnel.OnResumed(clock_.now(), outbox);
    Settle();
  }
  void SetUp(bool up) {
    tunnel.SetUp(up, clock_.now(), outbox);
    Settle();
  }
  // The peer with this key, or the only one.
  std::shared_ptr<Peer> peer(const std::optional<PublicKey>& key = std::nullopt) const {
    std::shared_ptr<Peer> found;
    for (const auto& candidate : exchange.peers.Get()->peers) {
      if (!candidate || (key && candidate->public_key != *key)) continue;
      CHECK(!found);
      found = candidate;
    }
    CHECK(found);
    return found;
  }
  PeerView view() const {
    CHECK(tunnel.peer_count() == 1);
    return tunnel.View().front();
  }

  // ---- TUN side
  void Send(const Packet& packet) { SendBatch({packet}); }
  void SendBatch(std::vector<Packet> packets) {
    for (Packet& packet : packets) {
      packet.reserve(packet.size() + StagedPacket::kScratchBytes);
      if (outbound.Add({}, packet, clock_.boot)) continue;
      Collect();
      CHECK(outbound.Add({}, packet, clock_.boot));
    }
    Collect();
    Settle();
  }

  // ---- network side
  void Receive(const Datagram& datagram) { ReceiveBytes(datagram.bytes, datagram.from, datagram.tos & 3); }
  void ReceiveBytes(std::vector<std::uint8_t> bytes, const SocketAddress& from, std::uint8_t ecn = 0,
                    std::size_t segment_bytes = 0) {
    if (bytes.empty()) return;
    const std::size_t segment = segment_bytes == 0 ? bytes.size() : segment_bytes;
    inbound.Process(bytes, segment, Endpoint{from, LocalSource{address.ip, kInterface}}, ecn, clock_.boot, *engine);
    for (const MutableBytes packet : inbound.packets()) received.emplace_back(packet.begin(), packet.end());
    const std::vector<std::shared_ptr<Peer>> to_flush(inbound.to_flush().begin(), inbound.to_flush().end());
    inbound.Clear();
    for (const auto& peer : to_flush) SendStaged(peer, /*keepalive_if_none=*/false);
    Settle();
  }
  // With the only peer, as if a data thread had asked for it.
  void BeginHandshake() {
    {
      const std::scoped_lock lock(peer()->mutex);
      peer()->wants_handshake = true;
      exchange.inbox.Push(peer());
    }
    Settle();
  }
  void SendStaged(const std::shared_ptr<Peer>& peer, bool keepalive_if_none) {
    outbound.ReserveStaged(peer, keepalive_if_none, clock_.boot);
    Collect();
  }

  // ---- the control thread's turn
  void HandleTimeouts() {
    tunnel.HandleTimeouts(clock_.now(), outbox);
    Settle();
  }
  // All that waits for the control thread, and what it asks for, until nothing is left.
  void Settle() {
    for (;;) {
      tunnel.HandleInbox(clock_.now(), outbox);
      handshakes_.clear();
      const std::size_t depth = queue.Take(kHandshakeQueueLength, handshakes_);
      tunnel.HandleHandshakes(handshakes_, depth, clock_.now(), outbox);
      if (outbox.to_network.empty() && outbox.to_flush.empty() && exchange.inbox.empty()) return;
      const ControlOutbox work = std::exchange(outbox, {});
      for (const OutgoingHandshake& message : work.to_network) {
        if (can_send) {
          const Bytes bytes = message.datagram.message();
          Put(bytes, message.to, message.tos);
        }
        tunnel.OnSent(message, can_send, /*clear_source=*/false);
      }
      for (const LinkQuestion& question : work.to_find) tunnel.OnLinkFound(question, links.route);
      for (const FlushRequest& request : work.to_flush) SendStaged(request.peer, request.keepalive_if_none);
    }
  }

  // What was sent, all of it and in order. The network takes from `next_to_take` on.
  std::vector<Datagram> sent;
  std::size_t next_to_take = 0;
  std::vector<Datagram> Take() {
    std::vector<Datagram> taken(sent.begin() + static_cast<std::ptrdiff_t>(next_to_take), sent.end());
    next_to_take = sent.size();
    return taken;
  }
  // Throws if it is not exactly one, which fails the test.
  Datagram TakeOne() {
    const auto taken = Take();
    if (taken.size() != 1) throw std::logic_error(std::to_string(taken.size()) + " messages were sent, not one");
    return taken.front();
  }
  std::size_t CountSent(MessageType type) const {
    return static_cast<std::size_t>(std::ranges::count_if(sent, [type](const Datagram& d) { return d.is(type); }));
  }
  std::uint64_t drops(DropReason reason) const { return exchange.drops.Get(reason); }
  std::uint64_t all_drops() const {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < kDropReasonCount; ++i) sum += drops(static_cast<DropReason>(i));
    return sum;
  }

  std::vector<Packet> received;  // what went into the TUN, but for:
  std::vector<Packet> icmp_answers;
  bool can_send = true;  // false: the kernel refuses every datagram
  LinksOfPath links;     // of every path

  SocketAddress address;
  SeededRandom random;
  Exchange exchange;
  HandshakeQueue queue;
  Tunnel tunnel;
  ControlOutbox outbox;
  std::unique_ptr<AeadEngine> engine;
  Outbound outbound;
  Inbound inbound;

 private:
  void Put(Bytes bytes, const Endpoint& to, std::uint8_t tos) {
    sent.push_back(Datagram{{bytes.begin(), bytes.end()}, address, to.remote, to.source, tos, clock_.boot});
  }
  // Seals what was added and puts it on the wire, as the data thread does.
  void Collect() {
    outbound.Flush(clock_.boot, *engine);
    for (const SealedRun& run : outbound.runs()) {
      std::size_t count = 0;
      for (std::size_t at = 0; can_send && at < run.data.size(); at += run.segment_bytes, ++count) {
        Put(run.data.subspan(at, std::min(run.segment_bytes, run.data.size() - at)), run.to, run.tos);
      }
      outbound.OnSent(run, count, /*clear_source=*/false);
    }
    for (const auto& answer : outbound.icmp_answers()) icmp_answers.push_back(answer);
    outbound.Clear();
  }

  const TestClock& clock_;
  std::vector<HandshakeDatagram> handshakes_;
};

// Alice and Bob, who know each other and each other's address.
class TestPair {
 public:
  static constexpr std::string_view kAliceIp = "10.0.0.1", kBobIp = "10.0.0.2";
  static constexpr std::string_view kAliceAt = "192.0.2.1:1111", kBobAt = "192.0.2.2:2222";

  explicit TestPair(const ProtocolLimits& limits = {}, std::uint64_t seed = 1)
      : alice((InitializeCrypto(), clock), seed, At(kAliceAt), limits),
        bob(clock, seed + 1'000'000, At(kBobAt), limits) {
    alice.AddPeer(bob.public_key(), {"10.0.0.2/32", "fd00::2/128"}, bob.address);
    bob.AddPeer(alice.public_key(), {"10.0.0.1/32", "fd00::1/128"}, alice.address);
  }

  static Packet ToBob(std::size_t bytes = 84, std::uint8_t fill = 0x5a) {
    return MakePacket(kAliceIp, kBobIp, bytes, 0, fill);
  }
  static Packet ToAlice(std::size_t bytes = 84, std::uint8_t fill = 0x5a) {
    return MakePacket(kBobIp, kAliceIp, bytes, 0, fill);
  }

  // Delivers what is on the wire, and what is sent in answer, until it is empty. A datagram to nobody's address is
  // lost.
  void Drive() {
    for (bool moved = true; moved;) {
      moved = false;
      for (Core* const sender : {&alice, &bob}) {
        for (const Datagram& datagram : sender->Take()) {
          Deliver(datagram);
          moved = true;
        }
      }
    }
  }
  void Deliver(const Datagram& datagram) {
    for (Core* const receiver : {&alice, &bob}) {
      if (receiver->address == datagram.to) receiver->Receive(datagram);
    }
  }
  void Lose() { alice.Take(), bob.Take(); }

  // A session that Alice initiated, confirmed on both sides by a keepalive; no packet was delivered to a TUN.
  void Connect() {
    alice.BeginHandshake();
    Drive();
    CHECK(alice.peer()->keypairs.current && bob.peer()->keypairs.current);
  }
  // A new session beside the old one, six seconds later: sooner it would not be allowed.
  void Rekey() {
    clock.boot += 6s;
    Connect();
  }

  // Time passes, each timer is served at its very deadline. What is sent on the way is delivered at once, or lost.
  void Pass(Duration duration, bool is_connected) {
    const Instant end = clock.boot + duration;
    for (;;) {
      std::optional<Instant> next;
      for (const Core* const core : {&alice, &bob}) {
        const auto timeout = core->tunnel.NextTimeout();
        if (timeout && (!next || *timeout < *next)) next = timeout;
      }
      if (!next || *next > end) break;
      clock.boot = std::max(clock.boot, *next);
      alice.HandleTimeouts();
      bob.HandleTimeouts();
      if (is_connected) {
        Drive();
      } else {
        Lose();
      }
    }
    clock.boot = end;
  }
  void Pass(Duration duration) { Pass(duration, /*is_connected=*/true); }
  void PassInSilence(Duration duration) { Pass(duration, /*is_connected=*/false); }

  TestClock clock;
  Core alice;
  Core bob;
};

}  // namespace adit
