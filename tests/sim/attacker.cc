#include "attacker.h"

#include "host.h"
#include "tunnel/cookie.h"

namespace adit::sim {

void Attacker::Capture(std::span<const Datagram> group) {
  if (!is_present_) return;
  for (const Datagram& datagram : group) {
    if (datagram.id == 0) continue;
    const bool is_data = ParseMessage(datagram.bytes) == MessageType::kData;
    if (is_data && !rng_.Chance(0.1)) continue;
    auto& kept = is_data ? data_ : handshakes_;
    kept.push_back(datagram);
    if (kept.size() > kKept) kept.pop_front();
  }
}

void Attacker::Shoot(Host& victim) {
  const auto& kept = rng_.Chance(0.5) ? handshakes_ : data_;
  if (kept.empty() || rng_.Chance(0.3)) {
    Forge(victim);
  } else if (rng_.Chance(0.6)) {
    Replay(kept[rng_.Below(kept.size())]);
  } else {
    Damage(kept[rng_.Below(kept.size())]);
  }
}

void Attacker::Replay(Datagram captured) {
  const HostId victim = network_.OwnerOf(captured.to);
  if (victim == kNobody) return;
  if (rng_.Chance(0.5) && observer_.IsStaleFor(victim, captured.id)) {
    captured.from = Network::Stranger(captured.from.ip.is_v6());
  }
  ++shots_;
  network_.Inject(std::move(captured), Duration(0));
}

void Attacker::Damage(Datagram captured) {
  std::size_t bytes = captured.bytes.size();
  if (bytes == 0) return;
  // mac2 counts under load only; leave it alone, so that "altered" means "must be refused".
  if (bytes == sizeof(InitiationMessage) || bytes == sizeof(ResponseMessage)) bytes -= sizeof(Mac);
  captured.bytes[rng_.Below(bytes)] ^= static_cast<std::uint8_t>(1u << rng_.Below(8));
  captured.is_altered = true;
  if (rng_.Chance(0.5)) captured.from = Network::Stranger(captured.from.ip.is_v6());
  ++shots_;
  network_.Inject(std::move(captured), Duration(0));
}

void Attacker::Forge(Host& victim) {
  const bool is_v6 = rng_.Chance(0.5);
  Datagram forged;
  forged.from = Network::Stranger(is_v6);
  forged.to = network_.AddressOf(victim.id(), is_v6);
  constexpr std::array<std::size_t, 4> kBytes = {sizeof(InitiationMessage), sizeof(ResponseMessage),
                                                 sizeof(CookieReplyMessage), kKeepaliveBytes + 64};
  const std::size_t kind = rng_.Below(6);
  forged.bytes.resize(kind < 4 ? kBytes[kind] : rng_.Below(300));
  for (std::uint8_t& byte : forged.bytes) byte = static_cast<std::uint8_t>(rng_.Next());
  if (kind < 4) Store(forged.bytes.data(), U32Le(static_cast<std::uint32_t>(kind + 1)));
  if (kind == 3) {  // a real receiver index
    for (const auto& [remote, config] : victim.configured()) {
      if (const auto index = victim.CurrentIndexOf(remote)) Store(forged.bytes.data() + 4, U32Le(*index));
    }
  }
  if (kind < 2) {  // the victim's public key is no secret: mac1 can be right
    CookieJar jar(victim.public_key());
    jar.AddMacs(forged.bytes, network_.now());
    if (rng_.Chance(0.3)) forged.bytes.back() = 1;  // and mac2 a guess
  }
  ++shots_;
  network_.Inject(std::move(forged), Duration(0));
}

}  // namespace adit::sim
