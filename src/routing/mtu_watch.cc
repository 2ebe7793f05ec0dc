#include "routing/mtu_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>
#include <utility>

namespace adit {
namespace {

// A data message's header and tag (the paper, 5.4.6), and UDP's header; the IP header comes on top.
constexpr unsigned kMessageOverhead = 32 + 8;
unsigned OuterBytes(unsigned inner, const IpAddress& endpoint) {
  return inner + kMessageOverhead + (endpoint.is_v6() ? 40 : 20);
}

// RFC 5737, RFC 3849: nobody's. A peer that has all traffic would pass packets to there on, and with a hop limit of 1
// says so.
constexpr std::string_view kNobodys[] = {"192.0.2.1", "2001:db8::1"};

// Who gets packets to there: the peer with the longest prefix, as in tunnel/allowed_ips.h.
std::optional<std::size_t> OwnerOf(const ConfFile& conf, const IpAddress& ip) {
  std::optional<std::size_t> owner;
  int longest = -1;
  for (std::size_t i = 0; i < conf.peers.size(); ++i) {
    for (const Prefix& prefix : conf.peers[i].allowed_ips) {
      // Of two that say the same the later one has it.
      if (static_cast<int>(prefix.length()) < longest || !prefix.Contains(ip)) continue;
      longest = static_cast<int>(prefix.length());
      owner = i;
    }
  }
  return owner;
}

IpAddress FirstHost(const InterfaceAddress& address) {
  const Prefix network(address.ip, address.prefix_length);
  ByteArray<16> bytes{};
  std::ranges::copy(network.address().bytes(), bytes.begin());
  const std::size_t size = network.address().bytes().size();
  bytes[size - 1] |= 1;
  return address.ip.is_v4() ? IpAddress::V4(Bytes(bytes).first(size)) : IpAddress::V6(Bytes(bytes).first(size));
}

}  // namespace

std::vector<PeerPath> PathsOf(const ConfFile& conf, std::span<const std::optional<SocketAddress>> endpoints,
                              const Plan& plan) {
  std::vector<PeerPath> paths;
  if (plan.routes_mtu == 0) return paths;
  for (std::size_t i = 0; i < conf.peers.size() && i < endpoints.size(); ++i) {
    if (paths.size() == MtuWatch::kMaxPeers) break;
    if (!endpoints[i]) continue;
    const auto way = std::ranges::find(plan.ways, endpoints[i]->ip, &EndpointWay::endpoint);
    if (way == plan.ways.end()) continue;
    paths.push_back({.peer = conf.peers[i].public_key, .way = *way, .mtu = plan.routes_mtu, .floor = plan.least_mtu});
  }
  return paths;
}

std::vector<IpAddress> ProbeDestinations(const ConfFile& conf, std::size_t index) {
  std::vector<IpAddress> candidates = conf.interface.dns_servers;
  const std::vector<Prefix>& allowed = conf.peers[index].allowed_ips;
  for (const Prefix& prefix : allowed) {
    if (prefix.length() == prefix.address().bits()) {
      candidates.push_back(prefix.address());
      break;
    }
  }
  for (const InterfaceAddress& address : conf.interface.addresses) {
    if (address.prefix_length < address.ip.bits()) candidates.push_back(FirstHost(address));
  }
  for (const std::string_view nobodys : kNobodys) candidates.push_back(*IpAddress::Parse(nobodys));

  const auto is_usable = [&](const IpAddress& ip) {
    const auto& own = conf.interface.addresses;
    const bool has_source =
        std::ranges::any_of(own, [&](const InterfaceAddress& address) { return address.ip.is_v6() == ip.is_v6(); });
    const bool is_own = std::ranges::any_of(own, [&](const InterfaceAddress& address) { return address.ip == ip; });
    const bool is_excluded =
        std::ranges::any_of(conf.interface.excluded_ips, [&](const Prefix& prefix) { return prefix.Contains(ip); });
    return has_source && !is_own && !is_excluded && !ip.is_v6_link_local() && !ip.is_multicast() &&
           OwnerOf(conf, ip) == index;
  };
  for (const bool is_v6 : {false, true}) {
    std::vector<IpAddress> usable;
    for (const IpAddress& ip : candidates) {
      if (usable.size() == MtuSearch::kMaxDestinations) break;
      if (ip.is_v6() == is_v6 && std::ranges::find(usable, ip) == usable.end() && is_usable(ip)) usable.push_back(ip);
    }
    if (!usable.empty()) return usable;
  }
  return {};
}

bool MtuWatch::Follow(std::vector<PeerPath> paths) {
  const unsigned before = limit();
  std::vector<Row> rows;
  for (PeerPath& path : paths) {
    const auto known = std::ranges::find(rows_, path, &Row::path);
    if (known != rows_.end()) {
      rows.push_back(std::move(*known));
    } else {
      Row& row = rows.emplace_back();
      row.is_new_peer = std::ranges::none_of(rows_, [&](const Row& one) { return one.path.peer == path.peer; });
      row.path = std::move(path);
    }
  }
  rows_ = std::move(rows);
  const unsigned after = limit();
  // Clear up to a limit of another peer's, which is gone: not known for more.
  for (Row& row : rows_) {
    if (row.state != State::kKnown || row.limit != 0 || row.searched_up_to == 0) continue;
    if (row.searched_up_to >= (after == 0 ? row.path.mtu : std::min(after, row.path.mtu))) continue;
    row.state = State::kWaiting;
    row.searches = 0;
    row.window_at.reset();
  }
  return after != before;
}

std::vector<PublicKey> MtuWatch::Waiting() const {
  std::vector<PublicKey> waiting;
  for (const Row& row : rows_) {
    if (row.state == State::kWaiting) waiting.push_back(row.path.peer);
  }
  return waiting;
}

void MtuWatch::OnTraffic(const PublicKey& peer, std::uint64_t tx_bytes, std::uint64_t rx_bytes, Instant now) {
  const auto row = std::ranges::find_if(rows_, [&](const Row& one) { return one.path.peer == peer; });
  if (row == rows_.end() || row->state != State::kWaiting || now < row->not_before) return;
  // A peer that was taken out and put in again counts from zero.
  const bool is_other = tx_bytes < row->tx_bytes || rx_bytes < row->rx_bytes;
  if (!row->window_at || now - *row->window_at > kUseWindow || is_other) {
    row->window_at = now;
    const bool counts_from_zero = std::exchange(row->is_new_peer, false);
    row->tx_bytes = counts_from_zero ? 0 : tx_bytes;
    row->rx_bytes = counts_from_zero ? 0 : rx_bytes;
  }
  const std::uint64_t tx = tx_bytes - row->tx_bytes, rx = rx_bytes - row->rx_bytes;
  if (rx > 0 && tx + rx >= kUsedBytes) row->state = State::kDue;
}

MtuWatch::Row* MtuWatch::Searched() {
  const auto row = std::ranges::find(rows_, State::kSearching, &Row::state);
  return row == rows_.end() ? nullptr : &*row;
}

bool MtuWatch::IsSearching() const { return std::ranges::find(rows_, State::kSearching, &Row::state) != rows_.end(); }

std::optional<MtuWatch::Task> MtuWatch::Take() {
  if (IsSearching()) return std::nullopt;
  for (Row& row : rows_) {
    if (row.state != State::kDue) continue;
    const unsigned full = limit() == 0 ? row.path.mtu : std::min(limit(), row.path.mtu);
    row.searched_up_to = full;
    if (full <= row.path.floor) {
      row.state = State::kKnown;  // it can go no lower
      continue;
    }
    row.state = State::kSearching;
    ++row.searches;
    return Task{row.path, full};
  }
  return std::nullopt;
}

bool MtuWatch::OnVerdict(MtuVerdict verdict, unsigned result, Instant now) {
  Row* const row = Searched();
  if (row == nullptr) return false;
  const unsigned before = limit();
  row->state = State::kKnown;
  if (verdict == MtuVerdict::kLimited) {
    row->limit = result;
    row->is_hopeless = result == 0;
  } else if (verdict != MtuVerdict::kClear) {
    row->searched_up_to = 0;
    if (row->searches < kMaxSearches) {
      row->state = State::kWaiting;
      row->not_before = now + kSearchAgainAfter;
      row->window_at.reset();
    }
  }
  return limit() != before;
}

unsigned MtuWatch::limit() const {
  unsigned limit = 0;
  for (const Row& row : rows_) {
    if (row.limit != 0 && (limit == 0 || row.limit < limit)) limit = row.limit;
  }
  return limit;
}

std::vector<std::string> MtuWatch::Warnings() const {
  std::vector<std::string> warnings;
  for (const Row& row : rows_) {
    const IpAddress& endpoint = row.path.way.endpoint;
    if (row.is_hopeless) {
      warnings.push_back(fmt::format(
          "the path to {} swallows even packets of {} bytes without a word, and the tunnel's MTU cannot be "
          "below {}: its MTU stays; {}",
          endpoint.ToString(), OuterBytes(row.path.floor, endpoint), row.path.floor,
          row.path.floor < 1280 ? "the path must be mended" : "leave IPv6 out of Address, or give a smaller MTU"));
    } else if (row.limit != 0) {
      warnings.push_back(
          fmt::format("the path to {} swallows packets above {} bytes without a word: the tunnel's MTU is {} instead "
                      "of {}",
                      endpoint.ToString(), OuterBytes(row.limit, endpoint), limit(), row.path.mtu));
    }
  }
  return warnings;
}

}  // namespace adit
