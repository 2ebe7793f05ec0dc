#include "network.h"

#include <utility>

#include "tunnel/messages.h"

namespace adit::sim {
namespace {

// Documentation prefixes (RFC 5737, RFC 3849).
SocketAddress FixedAddress(HostId host, bool is_v6) {
  const auto low = static_cast<std::uint8_t>(host + 1);
  if (!is_v6) return {IpAddress::V4(ByteArray<4>{192, 0, 2, low}), 51820, 0};
  return {IpAddress::V6(ByteArray<16>{0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, low}), 51820, 0};
}

SocketAddress MappedAddress(std::uint16_t mapping, bool is_v6) {
  const auto high = static_cast<std::uint8_t>(mapping >> 8), low = static_cast<std::uint8_t>(mapping);
  const auto port = static_cast<std::uint16_t>(1024 + mapping);
  if (!is_v6) return {IpAddress::V4(ByteArray<4>{198, 51, high, low}), port, 0};
  return {IpAddress::V6(ByteArray<16>{0x20, 0x01, 0x0d, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, high, low}), port, 0};
}

}  // namespace

Network::Network(Simulator& simulator, Rng rng, std::size_t hosts, Deliver deliver)
    : simulator_(simulator), rng_(rng), hosts_(hosts), deliver_(std::move(deliver)), faults_(hosts * hosts) {
  for (HostId host = 0; host < hosts; ++host) {
    addresses_.push_back({FixedAddress(host, false), FixedAddress(host, true)});
    for (const SocketAddress& address : addresses_.back()) owners_[address] = host;
  }
}

void Network::Rebind(HostId host) {
  for (const bool is_v6 : {false, true}) {
    SocketAddress& address = addresses_[host][is_v6 ? 1 : 0];
    owners_.erase(address);
    address = MappedAddress(next_mapping_, is_v6);
    owners_[address] = host;
  }
  ++next_mapping_;
}

HostId Network::OwnerOf(const SocketAddress& address) const {
  const auto found = owners_.find(address);
  return found == owners_.end() ? kNobody : found->second;
}

SocketAddress Network::Stranger(bool is_v6) {
  if (!is_v6) return {IpAddress::V4(ByteArray<4>{203, 0, 113, 66}), 666, 0};
  return {IpAddress::V6(ByteArray<16>{0x20, 0x01, 0x0d, 0xb8, 0x66, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}), 666, 0};
}

void Network::Alter(Datagram& datagram, const PathFaults& faults) {
  if (datagram.bytes.empty()) return;
  if (rng_.Chance(faults.truncate)) {
    datagram.bytes.resize(rng_.Below(datagram.bytes.size()));
    datagram.is_altered = true;
    ++counts_.altered;
    return;
  }
  if (!rng_.Chance(faults.corrupt)) return;
  ++counts_.altered;
  const bool has_mac2 =
      datagram.bytes.size() == sizeof(InitiationMessage) || datagram.bytes.size() == sizeof(ResponseMessage);
  const std::size_t mac2_at = has_mac2 && datagram.bytes[0] <= 2 ? datagram.bytes.size() - sizeof(Mac) : SIZE_MAX;
  for (std::uint64_t flips = 1 + rng_.Below(3); flips > 0; --flips) {
    const std::size_t at = rng_.Below(datagram.bytes.size());
    // Different bits of each flip, so that two cannot undo each other.
    datagram.bytes[at] ^= static_cast<std::uint8_t>(1u << (flips * 2 + rng_.Below(2)));
    (at >= mac2_at ? datagram.is_mac2_altered : datagram.is_altered) = true;
  }
}

void Network::Send(HostId from, std::vector<Datagram> run) {
  if (run.empty()) return;
  counts_.sent += run.size();
  const SocketAddress to = run.front().to;
  const SocketAddress source = AddressOf(from, to.ip.is_v6());
  for (Datagram& datagram : run) datagram.from = source;
  const HostId owner = OwnerOf(to);
  if (owner == kNobody || owner == from) {
    for (const Datagram& datagram : run) {
      // Answers only: whoever passes on an authentic packet from his own address is sent what its sender would be.
      const auto type = ParseMessage(datagram.bytes);
      const bool is_answer = type == MessageType::kResponse || type == MessageType::kCookieReply;
      if (is_answer && to == Stranger(to.ip.is_v6())) bytes_to_stranger_ += datagram.bytes.size();
    }
    counts_.undeliverable += run.size();
    return;
  }
  const PathFaults& faults = this->faults(from, owner);
  const Duration delay = faults.delay + rng_.Between(Duration(0), faults.jitter);
  std::vector<Datagram> group;
  for (Datagram& datagram : run) {
    if (faults.is_cut || datagram.bytes.size() > faults.mtu || rng_.Chance(faults.loss)) {
      ++counts_.lost;
      continue;
    }
    if (rng_.Chance(faults.duplicate)) {
      ++counts_.duplicated;
      Arrive({datagram}, delay + rng_.Between(Duration(0), faults.hold));
    }
    const std::size_t bytes = datagram.bytes.size();
    Alter(datagram, faults);
    if ((datagram.tos & 3) != 0 && rng_.Chance(faults.congest)) {
      datagram.tos |= 3;
      datagram.is_congested = true;
    }
    const bool is_held = rng_.Chance(faults.reorder);
    if (is_held) ++counts_.held_back;
    if (is_held || datagram.bytes.size() != bytes) {
      Arrive({std::move(datagram)}, delay + rng_.Between(Duration(0), faults.hold));
      continue;
    }
    // The kernel joins only datagrams of the same header fields.
    if (!group.empty() &&
        (group.front().tos != datagram.tos || group.back().bytes.size() != group.front().bytes.size() ||
         group.front().bytes.size() < datagram.bytes.size())) {
      Arrive(std::exchange(group, {}), delay);
    }
    group.push_back(std::move(datagram));
  }
  Arrive(std::move(group), delay);
}

void Network::Inject(Datagram datagram, Duration delay) {
  if (datagram.from == Stranger(datagram.from.ip.is_v6())) bytes_from_stranger_ += datagram.bytes.size();
  Arrive({std::move(datagram)}, delay);
}

void Network::Arrive(std::vector<Datagram> group, Duration delay) {
  if (group.empty()) return;
  simulator_.After(delay, [this, arriving = std::move(group)]() mutable {
    const HostId owner = OwnerOf(arriving.front().to);
    if (owner == kNobody) {
      counts_.undeliverable += arriving.size();
      return;
    }
    deliver_(owner, arriving);
  });
}

}  // namespace adit::sim
