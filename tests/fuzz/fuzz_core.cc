// Two live cores and a network that does what the input says. Each action is a byte, and what it takes behind it: the
// low bits choose what happens, the top bit to whom.
//
// Holds after every action: nothing reaches a TUN but what the other side was given to send, and that no more often
// than it was; what nobody authenticated moves no endpoint, no session and no count of received bytes; no counter is
// sealed twice; what waits is accounted for. And at the end: once the network is good and both know each other again,
// packets pass, whatever happened before.
#include <array>
#include <map>
#include <set>
#include <tuple>
#include <utility>
#include <vector>

#include "fuzz/input.h"
#include "tunnel/cookie.h"
#include "tunnel/ip_packet.h"
#include "tunnel/test_pair.h"

namespace adit {
namespace {

constexpr std::size_t kMaxActions = 48;
constexpr Duration kMaxTime = 1500s;  // virtual; retransmissions cost real time

class World {
 public:
  explicit World(std::uint8_t choice) : pair_(Limits(choice)) {}

  void Act(FuzzInput& input) {
    const std::uint8_t action = input.TakeByte();
    Core& core = action & 0x80 ? pair_.bob : pair_.alice;
    switch (action % 16) {
      case 0:
      case 1:
        FromTun(core, input);
        break;
      case 2:
      case 3:
        if (const Datagram* const message = Pick(core, input)) core.Receive(*message);
        break;
      case 4:
        pair_.Drive();
        break;
      case 5:
        if (const Datagram* const message = Pick(core, input)) Alter(core, *message, input);
        break;
      case 6:
        if (const Datagram* const message = Pick(core, input)) {
          Datagram replayed = *message;
          replayed.from = At("198.51.100.66:6666");
          core.Receive(replayed);
        }
        break;
      case 7:
        if (const Datagram* const message = Pick(core, input)) Truncate(core, *message, input);
        break;
      case 8: {
        const Bytes raw = input.Take(input.TakeByte());
        ExpectNothingChanges(core, {raw.begin(), raw.end()}, input.TakeByte());
        break;
      }
      case 9:
        ValidMac1(core, input);
        break;
      case 10:
        WithGenuineIndex(core, input);
        break;
      case 11:
        PassTime(input);
        break;
      case 12:
        Configure(core, input);
        break;
      case 13:
        Flood(core);
        break;
      case 14:
        SealedByPeer(core, input);
        break;
      case 15:
        Batch(core, input);
        break;
    }
    CheckAlways();
  }

  // Whatever happened: a good network and a right configuration are enough.
  void Recover() {
    for (Core* const core : {&pair_.alice, &pair_.bob}) {
      core->can_send = true;
      core->SetUp(true);
      if (core->public_key() == PublicKey{}) core->SetKey(PrivateKey::Generate(core->random));
    }
    if (pair_.alice.public_key() == pair_.bob.public_key()) pair_.bob.SetKey(PrivateKey::Generate(pair_.bob.random));
    Introduce(pair_.alice, pair_.bob, "10.0.0.2/32");
    Introduce(pair_.bob, pair_.alice, "10.0.0.1/32");
    pair_.Lose();
    pair_.clock.boot += 600s;
    pair_.Pass(10s);
    for (Core* const core : {&pair_.alice, &pair_.bob}) core->received.clear();
    const Packet to_bob = TestPair::ToBob(64, 1), to_alice = TestPair::ToAlice(64, 2);
    pair_.alice.Send(to_bob);
    pair_.Pass(20s);
    pair_.bob.Send(to_alice);
    pair_.Pass(20s);
    CHECK(pair_.bob.received == Packets{to_bob});
    CHECK(pair_.alice.received == Packets{to_alice});
  }

 private:
  static ProtocolLimits Limits(std::uint8_t choice) {
    ProtocolLimits limits;
    if (choice & 1) limits.rekey_after_messages = 4;
    if (choice & 2) limits.reject_after_messages = 8;
    return limits;
  }
  Core& OtherThan(const Core& core) { return &core == &pair_.alice ? pair_.bob : pair_.alice; }

  // The peer as the data threads know it; none if it is not configured.
  static std::shared_ptr<Peer> PeerOf(const Core& core) {
    for (const auto& peer : core.exchange.peers.Get()->peers) {
      if (peer) return peer;
    }
    return nullptr;
  }

  // A message that the other side has sent at any time.
  const Datagram* Pick(Core& core, FuzzInput& input) {
    const auto& sent = OtherThan(core).sent;
    const std::size_t back = input.TakeByte();  // the last ones are the likely ones to matter
    return sent.empty() ? nullptr : &sent[sent.size() - 1 - back % sent.size()];
  }

  void FromTun(Core& core, FuzzInput& input) {
    const bool is_alice = &core == &pair_.alice;
    const std::uint8_t kind = input.TakeByte();
    const std::size_t bytes = 40 + input.TakeU16() % 2000;
    Packet packet = (kind & 1)
                        ? MakePacket(is_alice ? "fd00::1" : "fd00::2", is_alice ? "fd00::2" : "fd00::1", bytes)
                        : MakePacket(is_alice ? "10.0.0.1" : "10.0.0.2", is_alice ? "10.0.0.2" : "10.0.0.1", bytes);
    if (kind & 2) {
      const Bytes overlay = input.Take(40);
      std::ranges::copy(overlay, packet.begin());
    }
    ++may_arrive_[IndexOf(OtherThan(core))][Trimmed(packet)];
    core.Send(packet);
  }
  static Packet Trimmed(const Packet& packet) {
    const auto ip = ParseIp(packet);
    return ip ? Packet(packet.begin(), packet.begin() + static_cast<std::ptrdiff_t>(ip->total_bytes)) : packet;
  }
  std::size_t IndexOf(const Core& core) const { return &core == &pair_.alice ? 0 : 1; }

  auto StateOf(Core& core) {
    const auto peer = PeerOf(core);
    return std::tuple(peer ? peer->endpoint : std::nullopt, peer ? peer->rx_bytes.load() : 0,
                      peer ? peer->keypairs.previous : nullptr, peer ? peer->keypairs.current : nullptr,
                      peer ? peer->keypairs.next : nullptr, peer ? peer->timers.NextDeadline() : std::nullopt,
                      core.exchange.sessions.size(), core.received.size());
  }
  void ExpectNothingChanges(Core& core, const std::vector<std::uint8_t>& bytes, std::size_t segment_bytes = 0) {
    const auto before = StateOf(core);
    core.ReceiveBytes(bytes, At("198.51.100.66:6666"), 3, segment_bytes);
    CHECK(StateOf(core) == before);
  }

  void Alter(Core& core, const Datagram& message, FuzzInput& input) {
    Datagram altered = message;
    const std::size_t at = input.TakeU16() % altered.bytes.size();
    const std::uint8_t change = input.TakeByte();
    altered.bytes[at] = static_cast<std::uint8_t>(altered.bytes[at] ^ change);
    // mac2 is looked at under load only, and is no part of the handshake.
    const bool is_mac2 = (message.is(MessageType::kInitiation) || message.is(MessageType::kResponse)) &&
                         at >= message.bytes.size() - kMacBytes;
    if (change == 0 || is_mac2) {
      core.Receive(altered);
    } else {
      ExpectNothingChanges(core, altered.bytes);
    }
  }
  void Truncate(Core& core, const Datagram& message, FuzzInput& input) {
    auto bytes = message.bytes;
    bytes.resize(input.TakeU16() % bytes.size());
    ExpectNothingChanges(core, bytes);
  }

  // Gets past mac1, as everybody does who knows our public key.
  void ValidMac1(Core& core, FuzzInput& input) {
    const bool is_initiation = input.TakeByte() & 1;
    std::vector<std::uint8_t> message(is_initiation ? sizeof(InitiationMessage) : sizeof(ResponseMessage));
    const Bytes body = input.Take(message.size() - 4 - 2 * kMacBytes);
    std::ranges::copy(body, message.begin() + 4);
    message[0] = is_initiation ? 1 : 2;
    if (!is_initiation) PutGenuineIndex(core, message, 8, input);
    CookieJar(core.public_key()).AddMacs(message, pair_.clock.boot);
    std::ranges::copy(input.Take(kMacBytes), message.end() - kMacBytes);
    ExpectNothingChanges(core, message);
  }
  // An index that the core has given out, at `offset`.
  void PutGenuineIndex(Core& core, std::vector<std::uint8_t>& message, std::size_t offset, FuzzInput& input) {
    std::vector<const Datagram*> handshakes;
    for (const Datagram& datagram : core.sent) {
      if (datagram.is(MessageType::kInitiation) || datagram.is(MessageType::kResponse)) handshakes.push_back(&datagram);
    }
    if (handshakes.empty()) return;
    const Datagram& chosen = *handshakes[handshakes.size() - 1 - input.TakeByte() % handshakes.size()];
    std::copy_n(chosen.bytes.begin() + 4, 4, message.begin() + static_cast<std::ptrdiff_t>(offset));
  }
  // Data or a cookie reply to an index that exists, with any content.
  void WithGenuineIndex(Core& core, FuzzInput& input) {
    const bool is_data = input.TakeByte() & 1;
    std::vector<std::uint8_t> message(is_data ? kDataOverhead + input.TakeByte() : sizeof(CookieReplyMessage));
    message[0] = is_data ? 4 : 3;
    PutGenuineIndex(core, message, 4, input);
    std::ranges::copy(input.Take(message.size() - 8), message.begin() + 8);
    ExpectNothingChanges(core, message);
  }

  void PassTime(FuzzInput& input) {
    static constexpr std::array<Duration, 12> kSteps = {1ms, 20ms, 333ms, 1s,   5s,   10s,
                                                        15s, 60s,  115s,  120s, 180s, 540s};
    const std::uint8_t choice = input.TakeByte();
    const Duration step = kSteps[choice % kSteps.size()];
    if (passed_ + step > kMaxTime) return;
    passed_ += step;
    pair_.Pass(step, /*is_connected=*/choice & 0x80);
  }

  void Configure(Core& core, FuzzInput& input) {
    Core& other = OtherThan(core);
    const auto peer = PeerOf(core);
    const std::uint8_t choice = input.TakeByte();
    switch (choice % 12) {
      case 0:
        core.SetUp(!core.tunnel.is_up());
        break;
      case 1:
        core.can_send = !core.can_send;
        break;
      case 2:
        core.SetKey(PrivateKey::Generate(core.random));
        break;
      case 3:
        core.SetKey(PrivateKey());
        break;
      case 4:
        core.SetKey(other.tunnel.private_key());  // our own key as a peer
        break;
      case 5:
        if (peer) core.RemovePeer(peer->public_key);
        break;
      case 6:
        Introduce(core, other, &core == &pair_.alice ? "10.0.0.2/32" : "10.0.0.1/32");
        break;
      case 7:
        if (peer) core.SetKeepalive(peer->public_key, choice & 0x80 ? Duration(25s) : Duration(1s));
        break;
      case 8:
        if (peer) core.SetKeepalive(peer->public_key, 0s);
        break;
      case 9:
        if (peer) core.tunnel.SetPresharedKey(peer->public_key, PresharedKey(Bytes(ByteArray<32>{choice})));
        break;
      case 10:
        if (peer) core.tunnel.SetEndpoint(peer->public_key, choice & 0x80 ? other.address : At("203.0.113.9:9"));
        break;
      case 11:
        if (peer) {
          core.tunnel.DisallowAllIps(peer->public_key);
          core.tunnel.Publish();
        }
        break;
    }
  }
  // Makes `core` know `other` by its key of now, and nobody else.
  void Introduce(Core& core, Core& other, std::string_view allowed) {
    core.tunnel.RemoveAllPeers();
    core.tunnel.Publish();
    if (other.public_key() != core.public_key()) core.AddPeer(other.public_key(), {allowed}, other.address);
  }

  void Flood(Core& core) {
    for (std::size_t i = 0; i < kUnderLoadQueueLength; ++i) {
      Packet forged(sizeof(InitiationMessage));
      forged[0] = 1;
      core.inbound.Process(forged, forged.size(), Endpoint{At("203.0.113.1:1"), {}}, 0, pair_.clock.boot, *core.engine);
      core.inbound.Clear();
    }
    const auto before = StateOf(core);
    core.Settle();
    CHECK(StateOf(core) == before);
  }

  // A peer that has the keys and means harm: any plaintext.
  void SealedByPeer(Core& core, FuzzInput& input) {
    Core& sender = OtherThan(core);
    const auto peer = PeerOf(sender);
    const auto receiver = PeerOf(core);
    const Bytes plaintext = input.Take(input.TakeByte());
    if (!peer || !peer->keypairs.current || !receiver) return;
    const auto keypair = peer->keypairs.current;
    const auto counter = keypair->ReserveCounters(1, sender.exchange.limits);
    if (!counter) return;
    Packet body(plaintext.begin(), plaintext.end());
    body.reserve(body.size() + 16);
    std::vector<std::uint8_t> message(sizeof(DataHeader) + body.size() + kAeadTagBytes);
    Store(message.data(), DataHeader{static_cast<std::uint32_t>(MessageType::kData), keypair->remote_index, *counter});
    SealJob job;
    job.body = body.data();
    job.body_bytes = body.size();
    job.counter = *counter;
    job.out = message.data() + sizeof(DataHeader);
    sender.engine->Seal(keypair->send_key, std::span(&job, 1));
    const auto ip = ParseIp(plaintext);
    const auto table = core.exchange.peers.Get();
    const bool is_allowed = ip && table->allowed_ips->Lookup(ip->source_address()) == receiver->id;
    if (is_allowed) ++may_arrive_[IndexOf(core)][Trimmed({plaintext.begin(), plaintext.end()})];
    const std::size_t before = core.received.size();
    core.ReceiveBytes(message, sender.address);
    CHECK(is_allowed || core.received.size() == before);
  }

  // Several messages in one receive call.
  void Batch(Core& core, FuzzInput& input) {
    std::vector<std::uint8_t> run;
    std::size_t segment = 0;
    for (std::size_t count = 1 + input.TakeByte() % 8; count > 0; --count) {
      const Datagram* const message = Pick(core, input);
      if (message == nullptr) return;
      if (segment == 0) segment = message->bytes.size();
      auto bytes = message->bytes;
      bytes.resize(segment);
      run.insert(run.end(), bytes.begin(), bytes.end());
    }
    core.ReceiveBytes(run, OtherThan(core).address, 0, segment);
  }

  void CheckAlways() {
    for (Core* const core : {&pair_.alice, &pair_.bob}) {
      auto& may_arrive = may_arrive_[IndexOf(*core)];
      for (const Packet& packet : core->received) {
        const auto found = may_arrive.find(packet);
        CHECK(found != may_arrive.end() && found->second > 0);
        --found->second;
      }
      core->received.clear();

      const auto peer = PeerOf(*core);
      CHECK(core->exchange.staged_bytes == (peer ? peer->staged_bytes : 0));
      CHECK(!peer || peer->staged.size() <= kMaxStagedPackets);
      CHECK(core->exchange.sessions.size() <= 3);
      auto& sealed = sealed_[IndexOf(*core)];
      auto& checked = checked_[IndexOf(*core)];
      for (; checked < core->sent.size(); ++checked) {
        const Datagram& datagram = core->sent[checked];
        if (!datagram.is_data()) continue;
        CHECK(sealed.emplace(datagram.receiver_index(), datagram.counter()).second);
        CHECK(datagram.counter() < core->exchange.limits.reject_after_messages);
      }
    }
  }

  TestPair pair_;
  Duration passed_{0};
  std::array<std::map<Packet, int>, 2> may_arrive_;
  std::array<std::set<std::pair<std::uint32_t, std::uint64_t>>, 2> sealed_;  // receiver index and counter
  std::array<std::size_t, 2> checked_{};
};

}  // namespace
}  // namespace adit

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  adit::FuzzInput input(data, size);
  adit::World world(input.TakeByte());
  for (std::size_t action = 0; action < adit::kMaxActions && !input.empty(); ++action) world.Act(input);
  world.Recover();
  return 0;
}
