// What the demo measures with: pings, a TCP transfer, and packet watches that count in the kernel. Each is told the
// network namespace to work in; the calling thread stays where it is.
#pragma once

#include <linux/filter.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"

namespace adit {

// Sends ICMP echo requests one after the other, from a raw socket.
struct PingResult {
  unsigned sent = 0;
  std::vector<std::chrono::microseconds> round_trips;  // of those that were answered
};
Result<PingResult> Ping(int netns_fd, const IpAddress& to, unsigned count, std::chrono::milliseconds interval,
                        std::chrono::milliseconds timeout, const std::atomic<bool>& stop);

struct TransferResult {
  std::uint64_t bytes = 0;  // that arrived
  std::chrono::duration<double> time{};
  double GigabitsPerSecond() const { return static_cast<double>(bytes) * 8 / time.count() / 1e9; }
};
// One TCP connection from a socket in `from_fd` to `to`, an address of the namespace `to_fd`.
Result<TransferResult> TransferTcp(int from_fd, int to_fd, const SocketAddress& to, std::chrono::milliseconds time,
                                   const std::atomic<bool>& stop);

// Counts the packets on one link that a filter picks. The kernel counts; nothing has to keep up with the link.
class PacketWatch {
 public:
  static Result<PacketWatch> Open(int netns_fd, const std::string& link, std::span<const sock_filter> filter);
  // Since the last call.
  Result<std::uint64_t> TakeCount();

 private:
  explicit PacketWatch(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

// Picks what a link beneath the tunnel must not carry while all traffic is tunnelled: anything but UDP between
// `local` and `endpoint`, ARP, and IPv6's own link-local chatter.
std::vector<sock_filter> FilterForeignPackets(const IpAddress& local, const SocketAddress& endpoint);
// Picks what must never enter the TUN device: the tunnel's own datagrams to `endpoint`.
std::vector<sock_filter> FilterLoopedPackets(const SocketAddress& endpoint);

// One UDP datagram of no meaning, from a socket without any mark, as any program could send it.
Status SendDatagram(int netns_fd, const SocketAddress& to);

struct LinkCounters {
  std::uint64_t rx_bytes = 0, rx_packets = 0, tx_bytes = 0, tx_packets = 0;
};
Result<LinkCounters> ReadLinkCounters(int netns_fd, const std::string& link);

}  // namespace adit
