// The UDP load of compare.sh. iperf3 spends one system call and a clock reading per packet and takes its receive buffer
// from net.core.rmem_max, so on small machines its own limit is measured instead of the tunnel's.
//
//   udp_load receive ADDRESS PORT SECONDS [gro]              ends 300 ms after the last packet, or after SECONDS
//   udp_load send ADDRESS PORT BYTES SECONDS MBITS [gso]     BYTES of UDP payload; MBITS of payload, 0 = as fast as it
//   goes
//
// Each prints one line, `packets BYTES seconds reordered`: what it sent, or what arrived. Exit status 1: the machine
// refused.

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/udp.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

constexpr std::size_t kBatch = 64;                          // packets per sendmmsg/recvmmsg
constexpr std::size_t kSegments = 44;                       // 1400-byte segments that fit one UDP_SEGMENT send
constexpr auto kTick = std::chrono::microseconds(500);      // a paced sender wakes this often
constexpr std::uint64_t kBurst = 256;                       // and sends at most so much: half of a TUN queue (500)
constexpr int kSocketBuffer = 16 << 20;                     // so that a receiver that waits for a core loses nothing
constexpr std::chrono::milliseconds kQuiet{300};            // silence that ends a measurement
constexpr std::size_t kMinPayload = sizeof(std::uint64_t);  // the sequence number
constexpr std::size_t kMaxPayload = 9000;

[[noreturn]] void Die(const char* what) {
  std::perror(what);
  std::exit(1);
}

int Open(const char* address, const char* port, bool passive) {
  addrinfo hints{};
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | (passive ? AI_PASSIVE : 0);
  hints.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  if (const int error = getaddrinfo(address, port, &hints, &found); error != 0) {
    std::fprintf(stderr, "%s %s: %s\n", address, port, gai_strerror(error));
    std::exit(1);
  }
  const int fd = socket(found->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) Die("socket");
  setsockopt(fd, SOL_SOCKET, passive ? SO_RCVBUFFORCE : SO_SNDBUFFORCE, &kSocketBuffer, sizeof kSocketBuffer);
  if ((passive ? bind : connect)(fd, found->ai_addr, found->ai_addrlen) != 0) Die(passive ? "bind" : "connect");
  freeaddrinfo(found);
  return fd;
}

void Report(std::uint64_t packets, std::uint64_t bytes, Seconds took, std::uint64_t reordered) {
  std::printf("%llu %llu %.6f %llu\n", static_cast<unsigned long long>(packets), static_cast<unsigned long long>(bytes),
              took.count(), static_cast<unsigned long long>(reordered));
}

// Sends `count` packets numbered from `first`, each the next `size` bytes of `buffer`; all in one send with
// UDP_SEGMENT, else by sendmmsg. A full queue is the tunnel's loss, not an error.
class Sender {
 public:
  Sender(int fd, std::size_t size, bool gso)
      : fd_(fd), size_(size), gso_(gso), buffer_(size * (gso ? kSegments : kBatch)) {
    if (!gso) return;
    const int segment = static_cast<int>(size);
    if (setsockopt(fd, SOL_UDP, UDP_SEGMENT, &segment, sizeof segment) != 0) Die("UDP_SEGMENT");
  }

  std::uint64_t Batch() const { return gso_ ? std::min<std::uint64_t>(kSegments, 65000 / size_) : kBatch; }

  void Send(std::uint64_t first, std::uint64_t count) {
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t number = first + i;
      std::memcpy(buffer_.data() + i * size_, &number, sizeof number);
    }
    if (gso_) {
      if (send(fd_, buffer_.data(), count * size_, 0) < 0 && errno != ENOBUFS) Die("send");
      return;
    }
    std::array<mmsghdr, kBatch> messages{};
    std::array<iovec, kBatch> parts{};
    for (std::size_t i = 0; i < count; ++i) {
      parts[i] = {buffer_.data() + i * size_, size_};
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (std::size_t sent = 0; sent < count;) {
      const int n = sendmmsg(fd_, &messages[sent], static_cast<unsigned>(count - sent), 0);
      if (n < 0 && errno != ENOBUFS) Die("sendmmsg");
      sent += n > 0 ? static_cast<std::size_t>(n) : 1;
    }
  }

 private:
  int fd_;
  std::size_t size_;
  bool gso_;
  std::vector<char> buffer_;
};

void Send(int fd, std::size_t size, Seconds duration, double bits_per_second, bool gso) {
  prctl(PR_SET_TIMERSLACK, 1000UL);
  Sender sender(fd, size, gso);
  const double packets_per_second = bits_per_second / (8.0 * static_cast<double>(size));
  const auto begin = Clock::now();
  std::uint64_t sent = 0;
  Seconds elapsed{};
  for (; elapsed < duration; elapsed = Clock::now() - begin) {
    std::uint64_t due = kBatch;
    if (bits_per_second > 0) {
      const auto target = static_cast<std::uint64_t>(elapsed.count() * packets_per_second);
      due = std::min(target > sent ? target - sent : 0, kBurst);
    }
    for (std::uint64_t n = 0; due > 0; due -= n) {
      n = std::min(due, sender.Batch());
      sender.Send(sent, n);
      sent += n;
    }
    if (bits_per_second > 0) std::this_thread::sleep_for(kTick);
  }
  Report(sent, sent * size, elapsed, 0);
}

// Calls `take(bytes)` for each datagram of the message, which UDP_GRO may have made of several.
template <typename Take>
void ForEachDatagram(const msghdr& header, std::size_t length, Take take) {
  std::size_t segment = length;
  for (cmsghdr* c = CMSG_FIRSTHDR(&header); c != nullptr; c = CMSG_NXTHDR(const_cast<msghdr*>(&header), c)) {
    if (c->cmsg_level != SOL_UDP || c->cmsg_type != UDP_GRO) continue;
    int size = 0;
    std::memcpy(&size, CMSG_DATA(c), sizeof size);
    if (size > 0) segment = static_cast<std::size_t>(size);
  }
  const auto* data = static_cast<const char*>(header.msg_iov->iov_base);
  for (std::size_t at = 0; at < length; at += segment) take(std::span(data + at, std::min(segment, length - at)));
}

void Receive(int fd, Seconds limit, bool gro) {
  const int on = 1;
  if (gro && setsockopt(fd, SOL_UDP, UDP_GRO, &on, sizeof on) != 0) Die("UDP_GRO");
  const std::size_t room = gro ? 65536 : kMaxPayload;
  std::vector<char> buffer(room * kBatch);
  std::array<mmsghdr, kBatch> messages{};
  std::array<iovec, kBatch> parts{};
  std::array<std::array<char, CMSG_SPACE(sizeof(int))>, kBatch> controls{};
  std::uint64_t packets = 0, bytes = 0, reordered = 0, highest = 0;
  const auto begin = Clock::now();
  Clock::time_point first{}, last{};
  for (;;) {
    pollfd waiting{fd, POLLIN, 0};
    const int ready = poll(&waiting, 1, static_cast<int>(kQuiet.count()));
    const auto now = Clock::now();
    if (now - begin > limit || (ready == 0 && packets > 0)) break;
    if (ready <= 0) continue;
    for (std::size_t i = 0; i < kBatch; ++i) {
      parts[i] = {buffer.data() + i * room, room};
      messages[i].msg_hdr = {};
      messages[i].msg_hdr.msg_iov = &parts[i];
      messages[i].msg_hdr.msg_iovlen = 1;
      messages[i].msg_hdr.msg_control = controls[i].data();
      messages[i].msg_hdr.msg_controllen = controls[i].size();
    }
    const int n = recvmmsg(fd, messages.data(), kBatch, MSG_DONTWAIT, nullptr);
    if (n < 0 && errno != EAGAIN && errno != EINTR) Die("recvmmsg");
    for (int i = 0; i < n; ++i) {
      const auto& message = messages[static_cast<std::size_t>(i)];
      ForEachDatagram(message.msg_hdr, message.msg_len, [&](std::span<const char> datagram) {
        if (datagram.size() < kMinPayload) return;
        std::uint64_t number = 0;
        std::memcpy(&number, datagram.data(), sizeof number);
        if (packets > 0 && number < highest) ++reordered;
        highest = std::max(highest, number);
        ++packets;
        bytes += datagram.size();
      });
    }
    if (n <= 0) continue;
    last = Clock::now();
    if (first == Clock::time_point{}) first = last;
  }
  Report(packets, bytes, last - first, reordered);
}

[[noreturn]] void Usage() {
  std::fputs("udp_load receive ADDRESS PORT SECONDS [gro]\nudp_load send ADDRESS PORT BYTES SECONDS MBITS [gso]\n",
             stderr);
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string_view> words(argv + 1, argv + argc);
  if (words.size() >= 4 && words[0] == "receive") {
    Receive(Open(argv[2], argv[3], true), Seconds(std::atof(argv[4])), words.size() > 4 && words[4] == "gro");
  } else if (words.size() >= 6 && words[0] == "send") {
    const auto size = static_cast<std::size_t>(std::strtoul(argv[4], nullptr, 10));
    if (size < kMinPayload || size > kMaxPayload) Usage();
    Send(Open(argv[2], argv[3], false), size, Seconds(std::atof(argv[5])), std::atof(argv[6]) * 1e6,
         words.size() > 6 && words[6] == "gso");
  } else {
    Usage();
  }
}
