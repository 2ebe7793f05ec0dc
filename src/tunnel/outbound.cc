#include "tunnel/outbound.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"
#include "tunnel/icmp.h"
#include "tunnel/ip_packet.h"
#include "tunnel/messages.h"

namespace adit {
namespace {

// Header, padding and tag: what a message has beyond its packet, at most.
constexpr std::size_t kMaxOverhead = kDataOverhead + kPaddingMultiple - 1;

// Where an IP packet that ParseIpHeader() accepted, of which `start` is the beginning, goes to, if it is a UDP datagram
// (or its first fragment) from this port.
std::optional<SocketAddress> DestinationOfUdpFrom(Bytes start, std::uint16_t from_port) {
  constexpr std::uint8_t kProtocolUdp = 17;
  const bool is_v4 = start[0] >> 4 == 4;
  if (start[is_v4 ? 9 : 6] != kProtocolUdp) return std::nullopt;
  if (is_v4 && (LoadAs<U16Be>(&start[6]) & 0x1fff) != 0) return std::nullopt;  // a later fragment: no ports
  const std::size_t ports = is_v4 ? std::size_t{4} * (start[0] & 0x0f) : 40;
  if (start.size() < ports + 4 || LoadAs<U16Be>(&start[ports]) != from_port) return std::nullopt;
  const IpAddress ip = is_v4 ? IpAddress::V4(start.subspan(16, 4)) : IpAddress::V6(start.subspan(24, 16));
  return SocketAddress{ip, LoadAs<U16Be>(&start[ports + 2]), 0};
}

bool IsSamePlace(const SocketAddress& a, const SocketAddress& b) { return a.ip == b.ip && a.port == b.port; }

std::size_t TotalBytes(const auto& packets) {
  std::size_t bytes = 0;
  for (const StagedPacket& packet : packets) bytes += packet.size();
  return bytes;
}

}  // namespace

Outbound::Outbound(Exchange& exchange, Random& random, std::size_t max_run_bytes)
    : exchange_(exchange),
      peers_(exchange.peers),
      jitter_(std::uint64_t{random.NextU32()} << 32 | random.NextU32()),
      max_run_bytes_(max_run_bytes),
      heads_memory_(std::make_unique_for_overwrite<std::uint8_t[]>(kOutboundHeadBytes)),
      arena_memory_(std::make_unique_for_overwrite<std::uint8_t[]>(kOutboundArenaBytes)),
      heads_(heads_memory_.get(), kOutboundHeadBytes),
      arena_(arena_memory_.get(), kOutboundArenaBytes) {
  pending_.reserve(kMaxOutboundPackets);
  jobs_.reserve(kMaxOutboundPackets + kMaxStagedPackets);
  runs_.reserve(kMaxOutboundPackets + kMaxStagedPackets);
}

bool Outbound::Add(Bytes head, MutableBytes body, Instant now) {
  const std::size_t size = head.size() + body.size();
  if (pending_.size() == kMaxOutboundPackets || arena_promised_ + size + kMaxOverhead > arena_.size() ||
      heads_used_ + head.size() > heads_.size()) {
    CHECK(!empty());  // one packet always fits
    return false;
  }
  const Bytes start = head.empty() ? Bytes(body) : head;
  const auto ip = ParseIpHeader(start, size);
  if (!ip) {
    Drop(DropReason::kMalformedIp);
    return true;
  }
  const std::size_t address_bytes = ip->is_v4() ? 4 : 16;
  if (last_owner_.peer == nullptr || last_owner_.is_v4 != ip->is_v4() ||
      std::memcmp(last_owner_.address.data(), ip->destination, address_bytes) != 0) {
    // A newer snapshot only between batches: pending_ points into this one.
    const PeerTable& table = pending_.empty() ? peers_.Refresh() : peers_.Current();
    const auto id =
        ip->is_v4() ? table.allowed_ips->LookupV4(ip->destination) : table.allowed_ips->LookupV6(ip->destination);
    if (!id) {
      Drop(DropReason::kNoPeerForDestination);
      Answer(head, body, now, &BuildUnreachable);
      return true;
    }
    last_owner_.is_v4 = ip->is_v4();
    std::memcpy(last_owner_.address.data(), ip->destination, address_bytes);
    last_owner_.peer = &table.Find(*id);
  }

  if (size > kMaxInnerBytes) {
    Drop(DropReason::kTooLong);
    Answer(head, body, now, [](Bytes packet, const std::optional<IpAddress>& source) {
      return BuildTooBig(packet, kMaxInnerBytes, source);
    });
    return true;
  }

  Pending packet;
  packet.peer = last_owner_.peer;
  if (!head.empty()) {
    std::ranges::copy(head, heads_.begin() + static_cast<std::ptrdiff_t>(heads_used_));
    packet.head = heads_.subspan(heads_used_, head.size());
    heads_used_ += head.size();
  }
  packet.body = body.data();
  packet.body_bytes = body.size();
  packet.tos = OuterTos(ip->tos);
  pending_.push_back(packet);
  arena_promised_ += size + kMaxOverhead;
  return true;
}

void Outbound::Reserve(Instant now) {
  for (std::size_t first = 0; first < pending_.size();) {
    const std::shared_ptr<Peer>& peer = *pending_[first].peer;
    std::size_t last = first + 1;
    while (last < pending_.size() && *pending_[last].peer == peer) ++last;
    auto packets = std::span(pending_).subspan(first, last - first);
    first = last;

    SendGrant grant;
    switch (BeginSend(peer, packets.size(), /*is_data=*/true, now, jitter_, exchange_.inbox, grant, wake_control_)) {
      case SendVerdict::kGranted:
        Place(peer, grant, WithoutLoops(packets, grant.endpoint.remote));
        break;
      case SendVerdict::kNeedsHandshake:
        packets = WithoutLoops(packets, grant.endpoint.remote);
        if (!packets.empty() && Stage(peer, packets, now)) SendWhatWaits(peer, /*keepalive_if_none=*/false, now);
        break;
      case SendVerdict::kNoEndpoint:
        Drop(DropReason::kNoEndpoint, packets.size());
        for (const Pending& packet : packets) {
          Answer(packet.head, MutableBytes(packet.body, packet.body_bytes), now, &BuildUnreachable);
        }
        break;
      case SendVerdict::kRemoved:
        Drop(DropReason::kNoPeerForDestination, packets.size());
        break;
    }
  }
}

// A route that leads the way to an endpoint into the tunnel would else make every packet a longer one, for ever, and
// two of it once it is longer than the MTU. The counters that were reserved for what is dropped here stay unused.
std::span<Outbound::Pending> Outbound::WithoutLoops(std::span<Pending> packets, const SocketAddress& endpoint) {
  const std::uint16_t own_port = exchange_.own_port.load(std::memory_order_relaxed);
  if (own_port == 0) return packets;
  const auto looping = std::ranges::remove_if(packets, [&](const Pending& packet) {
    const Bytes start = packet.head.empty() ? Bytes(packet.body, packet.body_bytes) : packet.head;
    const auto to = DestinationOfUdpFrom(start, own_port);
    return to && (IsSamePlace(*to, endpoint) || LeadsToAPeer(*to));
  });
  if (looping.empty()) return packets;
  Drop(DropReason::kLoop, looping.size());
  return packets.first(packets.size() - looping.size());
}

// A full tunnel to one peer may be given what we sent to another. Only who has our port for its source is looked at,
// and once for all its packets of a batch to one place: there may be thousands of peers.
bool Outbound::LeadsToAPeer(const SocketAddress& to) {
  if (!last_place_ || !IsSamePlace(last_place_->to, to)) {
    const bool is_endpoint = std::ranges::any_of(peers_.Current().peers, [&to](const std::shared_ptr<Peer>& peer) {
      if (!peer) return false;
      const std::scoped_lock lock(peer->mutex);
      return peer->endpoint && IsSamePlace(peer->endpoint->remote, to);
    });
    last_place_ = LastPlace{to, is_endpoint};
  }
  return last_place_->is_endpoint;
}

void Outbound::ReserveStaged(const std::shared_ptr<Peer>& peer, bool keepalive_if_none, Instant now) {
  CHECK(empty() && jobs_.empty());
  SendWhatWaits(peer, keepalive_if_none, now);
}

void Outbound::SendWhatWaits(const std::shared_ptr<Peer>& peer, bool keepalive_if_none, Instant now) {
  SendGrant grant;
  if (BeginSend(peer, keepalive_if_none ? 1 : 0, /*is_data=*/false, now, jitter_, exchange_.inbox, grant,
                wake_control_) != SendVerdict::kGranted ||
      !grant.keypair) {
    return;
  }
  const std::array<Pending, 1> keepalive{};
  Place(peer, grant,
        keepalive_if_none && grant.staged.empty() ? std::span<const Pending>(keepalive) : std::span<const Pending>());
}

void Outbound::Place(const std::shared_ptr<Peer>& peer, SendGrant& grant, std::span<const Pending> packets) {
  const std::size_t staged_count = grant.staged.size();
  std::unique_ptr<std::uint8_t[]> overflow;
  if (staged_count > 0) {
    const std::vector<Pending> staged = PendingOf(grant.staged);
    const std::size_t bytes = TotalBytes(grant.staged) + staged_count * kMaxOverhead;
    if (arena_promised_ + bytes <= arena_.size()) {
      arena_promised_ += bytes;
      arena_used_ += PlaceRun(peer, *grant.keypair, grant.first_counter, grant.endpoint, staged, FreeArena());
    } else {
      overflow = std::make_unique_for_overwrite<std::uint8_t[]>(bytes);
      PlaceRun(peer, *grant.keypair, grant.first_counter, grant.endpoint, staged, MutableBytes(overflow.get(), bytes));
    }
  }
  arena_used_ +=
      PlaceRun(peer, *grant.keypair, grant.first_counter + staged_count, grant.endpoint, packets, FreeArena());
  grants_.push_back(Grant{std::move(grant.keypair), std::move(grant.staged), std::move(overflow), jobs_.size()});
}

std::vector<Outbound::Pending> Outbound::PendingOf(std::span<StagedPacket> staged) {
  std::vector<Pending> packets;
  packets.reserve(staged.size());
  for (StagedPacket& packet : staged) {
    Pending& pending = packets.emplace_back();
    pending.body = packet.data();
    pending.body_bytes = packet.size();
    if (const auto ip = ParseIpHeader(Bytes(packet.data(), packet.size()), packet.size())) {
      pending.tos = OuterTos(ip->tos);
    }
  }
  return packets;
}

std::size_t Outbound::PlaceRun(const std::shared_ptr<Peer>& peer, const Keypair& keypair, std::uint64_t first_counter,
                               const Endpoint& endpoint, std::span<const Pending> packets, MutableBytes memory) {
  const std::uint32_t mtu = exchange_.mtu.load(std::memory_order_relaxed);
  std::size_t used = 0;
  bool is_open = false;  // the last run is of this call, and no shorter datagram has ended it
  for (std::size_t i = 0; i < packets.size(); ++i) {
    const Pending& packet = packets[i];
    const std::size_t size = packet.head.size() + packet.body_bytes;
    const std::size_t padding = std::min(PaddingBytes(size, mtu), kMaxInnerBytes - size);
    std::uint8_t* const message = memory.data() + used;
    const std::size_t message_bytes = sizeof(DataHeader) + size + padding + kAeadTagBytes;
    CHECK(used + message_bytes <= memory.size());
    used += message_bytes;

    const std::uint64_t counter = first_counter + i;
    Store(message, DataHeader{static_cast<std::uint32_t>(MessageType::kData), keypair.remote_index, counter});
    SealJob& job = jobs_.emplace_back();
    job.head = packet.head;
    job.body = packet.body != nullptr ? packet.body : message + sizeof(DataHeader);
    job.body_bytes = packet.body_bytes;
    job.padding_bytes = padding;
    job.counter = counter;
    job.out = message + sizeof(DataHeader);

    if (is_open) {
      SealedRun& run = runs_.back();
      if (run.tos == packet.tos && message_bytes <= run.segment_bytes &&
          run.data.size() + message_bytes <= max_run_bytes_) {
        run.data = Bytes(run.data.data(), run.data.size() + message_bytes);
        is_open = message_bytes == run.segment_bytes;
        continue;
      }
    }
    runs_.push_back(SealedRun{Bytes(message, message_bytes), message_bytes, endpoint, packet.tos, peer});
    is_open = true;
  }
  return used;
}

void Outbound::Seal(AeadEngine& engine) {
  std::size_t begin = 0;
  for (Grant& grant : grants_) {
    engine.Seal(grant.keypair->send_key, std::span(jobs_).subspan(begin, grant.end - begin));
    begin = grant.end;
    ReleaseStaged(TotalBytes(grant.staged));
    grant.staged.clear();
  }
}

bool Outbound::Stage(const std::shared_ptr<Peer>& peer, std::span<const Pending> packets, Instant now) {
  std::vector<StagedPacket> copies;
  copies.reserve(std::min(packets.size(), kMaxStagedPackets));
  // Of a run longer than the queue only the newest would stay.
  if (packets.size() > kMaxStagedPackets) {
    Drop(DropReason::kStagedFull, packets.size() - kMaxStagedPackets);
    packets = packets.last(kMaxStagedPackets);
  }
  for (const Pending& packet : packets) {
    const std::size_t size = packet.head.size() + packet.body_bytes;
    if (exchange_.staged_bytes.fetch_add(size, std::memory_order_relaxed) + size > kMaxStagedBytes) {
      ReleaseStaged(size);
      Drop(DropReason::kNoMemory);
      continue;
    }
    StagedPacket& copy = copies.emplace_back(size);
    std::ranges::copy(packet.head, copy.data());
    std::copy_n(packet.body, packet.body_bytes, copy.data() + packet.head.size());
  }

  // The peer was not locked since BeginSend(). Who removed it meanwhile has emptied its queue for the last time, and
  // who confirmed a session meanwhile found nothing to send.
  std::size_t dropped = 0;
  bool has_session = false;
  {
    const std::scoped_lock lock(peer->mutex);
    if (peer->is_removed) {
      ReleaseStaged(TotalBytes(copies));
      Drop(DropReason::kNoPeerForDestination, copies.size());
      return false;
    }
    for (StagedPacket& copy : copies) {
      peer->staged_bytes += copy.size();
      peer->staged.push_back(std::move(copy));
    }
    while (peer->staged.size() > kMaxStagedPackets || peer->staged_bytes > kMaxStagedBytesPerPeer) {
      const std::size_t size = peer->staged.front().size();
      peer->staged_bytes -= size;
      ReleaseStaged(size);
      peer->staged.pop_front();
      ++dropped;
    }
    has_session = peer->keypairs.current && !peer->keypairs.current->IsExpired(now, exchange_.limits);
  }
  if (dropped > 0) Drop(DropReason::kStagedFull, dropped);
  return has_session;
}

void Outbound::ReleaseStaged(std::size_t bytes) { exchange_.staged_bytes.fetch_sub(bytes, std::memory_order_relaxed); }

void Outbound::Answer(Bytes head, Bytes body, Instant now, BuildAnswer build) {
  if (!exchange_.icmp_limiter.Allow(now)) return;
  std::vector<std::uint8_t> packet(head.begin(), head.end());
  packet.insert(packet.end(), body.begin(), body.end());
  if (auto answer = build(packet, std::nullopt)) icmp_answers_.push_back(std::move(*answer));
}

void Outbound::Drop(DropReason reason, std::size_t count) { exchange_.drops.Add(reason, count); }

void Outbound::OnSent(const SealedRun& run, std::size_t datagrams_sent, bool clear_source) {
  const std::size_t bytes = std::min(datagrams_sent * run.segment_bytes, run.data.size());
  run.peer->tx_bytes.fetch_add(bytes, std::memory_order_relaxed);
  const std::size_t datagrams = (run.data.size() + run.segment_bytes - 1) / run.segment_bytes;
  if (datagrams_sent < datagrams) Drop(DropReason::kSendFailed, datagrams - datagrams_sent);
  if (clear_source) ForgetSource(*run.peer, run.to);
}

void Outbound::Clear() {
  pending_.clear();
  last_owner_ = {};
  last_place_.reset();
  jobs_.clear();
  grants_.clear();
  runs_.clear();
  icmp_answers_.clear();
  heads_used_ = 0;
  arena_used_ = 0;
  arena_promised_ = 0;
  wake_control_ = false;
  peers_.Release();
}

}  // namespace adit
