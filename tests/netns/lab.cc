// The hands of the hosts in lab.sh: small services and questions whose answers a script can compare. Usage:
//
//   adit_lab serve PORT
//       UDP and TCP, both families, every address. Whatever comes is answered with the address that it came from.
//       Prints "ready" when it listens; runs until killed.
//   adit_lab ask udp|tcp ADDRESS PORT [--device DEV] [--source ADDRESS] [--source-port N] [--mark N] [--wait MS]
//                                     [--broadcast]
//       Prints one line: "answer ADDRESS", what the server saw us as; "error ENAME"; or "silence -" after MS (default
//       1000); and behind it how many microseconds that took. Exit status 0 only for an answer.
//   adit_lab flood ADDRESS PORT PER_SECOND SECONDS
//       UDP, whatever the machine says to it. Prints how many were sent and how many refused.
//   adit_lab hold tcp ADDRESS PORT
//       Connects, prints "connected ADDRESS" (our end), sends a byte every 50 ms; when that ends prints "error ENAME".
//   adit_lab drip PORT COUNT MS
//       Sends COUNT chunks of 16 KiB, one every MS, to the first who connects; prints their checksum.
//   adit_lab download ADDRESS PORT
//       Takes all that comes from there; prints "bytes N sum CHECKSUM gap MS", the longest time in which nothing came.
//   adit_lab advertise DEV [PREFIX/64]
//       One IPv6 router advertisement (RFC 4861 §4.2) of a default router for 1800 s, with a prefix to make addresses
//       of if there is one.
//   adit_lab frame DEV TEXT
//       One broadcast frame of ether type 0x88b5, past every firewall: the oracle's canary.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "adit_lab: %s: %s\n", what, std::strerror(errno));
  std::exit(2);
}

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;
  int family() const { return storage.ss_family; }
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

Address ParseAddress(const std::string& text, int port) {
  Address address;
  sockaddr_in v4{};
  sockaddr_in6 v6{};
  if (inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
    v4.sin_family = AF_INET;
    v4.sin_port = htons(static_cast<std::uint16_t>(port));
    std::memcpy(&address.storage, &v4, sizeof v4);
    address.length = sizeof v4;
  } else if (inet_pton(AF_INET6, text.substr(0, text.find('%')).c_str(), &v6.sin6_addr) == 1) {
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(static_cast<std::uint16_t>(port));
    if (const auto at = text.find('%'); at != std::string::npos) {
      v6.sin6_scope_id = if_nametoindex(text.c_str() + at + 1);
    }
    std::memcpy(&address.storage, &v6, sizeof v6);
    address.length = sizeof v6;
  } else {
    errno = EINVAL;
    Die(text.c_str());
  }
  return address;
}

// As people write it: a v4-mapped address is an IPv4 address.
std::string ToText(const sockaddr_storage& storage) {
  char text[INET6_ADDRSTRLEN] = "?";
  if (storage.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(storage).sin_addr, text, sizeof text);
  } else {
    const in6_addr& ip = reinterpret_cast<const sockaddr_in6&>(storage).sin6_addr;
    if (IN6_IS_ADDR_V4MAPPED(&ip)) {
      inet_ntop(AF_INET, &ip.s6_addr[12], text, sizeof text);
    } else {
      inet_ntop(AF_INET6, &ip, text, sizeof text);
    }
  }
  return text;
}

void SetOption(int fd, int level, int name, int value, const char* what) {
  if (setsockopt(fd, level, name, &value, sizeof value) != 0) Die(what);
}

// ---- serve ------------------------------------------------------------------------------------------------------

// A host with IPv6 switched off has IPv4 services only.
int ListenSocket(int type, int port) {
  int fd = socket(AF_INET6, type | SOCK_CLOEXEC, 0);
  const bool has_v6 = fd >= 0;
  if (!has_v6) fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
  if (fd < 0) Die("socket");
  SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
  if (has_v6) SetOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 0, "IPV6_V6ONLY");
  const Address any = ParseAddress(has_v6 ? "::" : "0.0.0.0", port);
  if (bind(fd, any.get(), any.length) != 0) Die("bind");
  if (type == SOCK_STREAM) {
    if (listen(fd, 64) != 0) Die("listen");
  } else {
    // The answer leaves from the address that was asked, also on a host with many.
    if (has_v6) SetOption(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO");
    SetOption(fd, IPPROTO_IP, IP_PKTINFO, 1, "IP_PKTINFO");
  }
  return fd;
}

void AnswerDatagram(int fd) {
  char data[2048];
  alignas(cmsghdr) char control[256];
  sockaddr_storage peer{};
  iovec part{data, sizeof data};
  msghdr message{};
  message.msg_name = &peer;
  message.msg_namelen = sizeof peer;
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  if (recvmsg(fd, &message, 0) < 0) return;
  // A received PKTINFO is a valid one to send with, but for the interface: the route decides.
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
      auto* info = reinterpret_cast<in6_pktinfo*>(CMSG_DATA(c));
      if (!IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr)) info->ipi6_ifindex = 0;
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
      auto* info = reinterpret_cast<in_pktinfo*>(CMSG_DATA(c));
      info->ipi_spec_dst = info->ipi_addr;
      info->ipi_ifindex = 0;
    }
  }
  const std::string answer = ToText(peer) + "\n";
  part.iov_base = const_cast<char*>(answer.data());
  part.iov_len = answer.size();
  sendmsg(fd, &message, MSG_NOSIGNAL);
}

int Serve(int port) {
  const int udp = ListenSocket(SOCK_DGRAM, port);
  const int tcp = ListenSocket(SOCK_STREAM, port);
  std::puts("ready");
  std::fflush(stdout);
  std::vector<pollfd> polled = {{udp, POLLIN, 0}, {tcp, POLLIN, 0}};
  for (;;) {
    if (poll(polled.data(), polled.size(), -1) < 0 && errno != EINTR) Die("poll");
    if (polled[0].revents != 0) AnswerDatagram(udp);
    // Whatever an open connection says is read away; when it ends, so do we.
    for (std::size_t i = polled.size(); i-- > 2;) {
      char data[4096];
      if (polled[i].revents == 0 || recv(polled[i].fd, data, sizeof data, MSG_DONTWAIT) > 0) continue;
      close(polled[i].fd);
      polled.erase(polled.begin() + static_cast<std::ptrdiff_t>(i));
    }
    if (polled[1].revents != 0) {
      sockaddr_storage peer{};
      socklen_t length = sizeof peer;
      const int fd = accept4(tcp, reinterpret_cast<sockaddr*>(&peer), &length, SOCK_CLOEXEC);
      if (fd < 0) continue;
      const std::string answer = ToText(peer) + "\n";
      send(fd, answer.data(), answer.size(), MSG_NOSIGNAL);
      if (polled.size() < 64) {
        polled.push_back({fd, POLLIN, 0});
      } else {
        close(fd);
      }
    }
  }
}

// ---- ask --------------------------------------------------------------------------------------------------------

struct Question {
  std::string kind;
  Address to;
  std::string device;
  std::optional<Address> source;
  int mark = 0;
  int wait_ms = 1000;
  bool broadcast = false;
};

int OpenFor(const Question& question) {
  const int type = question.kind == "tcp" ? SOCK_STREAM : SOCK_DGRAM;
  const int fd = socket(question.to.family(), type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) Die("socket");
  if (question.mark != 0) SetOption(fd, SOL_SOCKET, SO_MARK, question.mark, "SO_MARK");
  if (question.broadcast) SetOption(fd, SOL_SOCKET, SO_BROADCAST, 1, "SO_BROADCAST");
  if (!question.device.empty() && setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, question.device.c_str(),
                                             static_cast<socklen_t>(question.device.size())) != 0) {
    Die("SO_BINDTODEVICE");
  }
  if (question.source) {
    SetOption(fd, SOL_SOCKET, SO_REUSEADDR, 1, "SO_REUSEADDR");
    if (bind(fd, question.source->get(), question.source->length) != 0) Die("bind");
  }
  return fd;
}

// The error with which it failed; 0 and `answer` otherwise; -1 for silence.
int Exchange(const Question& question, std::string& answer) {
  const int fd = OpenFor(question);
  const auto deadline = Clock::now() + std::chrono::milliseconds(question.wait_ms);
  const auto wait = [&](short events) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd polled{fd, events, 0};
    return poll(&polled, 1, static_cast<int>(std::max<long>(left, 0))) > 0;
  };
  if (connect(fd, question.to.get(), question.to.length) != 0) {
    if (errno != EINPROGRESS) return errno;
    if (!wait(POLLOUT)) return -1;
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error != 0) return error;
  }
  if (send(fd, "who am I?\n", 10, MSG_NOSIGNAL) < 0) return errno;
  if (!wait(POLLIN)) return -1;
  char data[256];
  const ssize_t got = recv(fd, data, sizeof data, 0);
  if (got < 0) return errno;
  answer.assign(data, static_cast<std::size_t>(got));
  while (!answer.empty() && answer.back() == '\n') answer.pop_back();
  return answer.empty() ? -1 : 0;
}

int Ask(const std::vector<std::string>& words) {
  Question question;
  question.kind = words.at(0);
  question.to = ParseAddress(words.at(1), std::stoi(words.at(2)));
  std::string source;
  int source_port = 0;
  for (std::size_t i = 3; i < words.size(); ++i) {
    if (words[i] == "--broadcast") {
      question.broadcast = true;
    } else if (words[i] == "--device") {
      question.device = words.at(++i);
    } else if (words[i] == "--source") {
      source = words.at(++i);
    } else if (words[i] == "--source-port") {
      source_port = std::stoi(words.at(++i));
    } else if (words[i] == "--mark") {
      question.mark = std::stoi(words.at(++i), nullptr, 0);
    } else if (words[i] == "--wait") {
      question.wait_ms = std::stoi(words.at(++i));
    } else {
      errno = EINVAL;
      Die(words[i].c_str());
    }
  }
  if (source.empty() && source_port != 0) source = question.to.family() == AF_INET ? "0.0.0.0" : "::";
  if (!source.empty()) question.source = ParseAddress(source, source_port);

  std::string answer;
  const auto start = Clock::now();
  const int error = Exchange(question, answer);
  const long took =
      static_cast<long>(std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - start).count());
  if (error == 0) {
    std::printf("answer %s %ld\n", answer.c_str(), took);
  } else if (error > 0) {
    std::printf("error %s %ld\n", strerrorname_np(error), took);
  } else {
    std::printf("silence - %ld\n", took);
  }
  return error == 0 ? 0 : 1;
}

// ---- flood, hold ------------------------------------------------------------------------------------------------

int Flood(const std::string& to, int port, int per_second, double seconds) {
  const Address address = ParseAddress(to, port);
  const int fd = socket(address.family(), SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) Die("socket");
  long sent = 0, refused = 0;
  const auto start = Clock::now();
  const auto end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  for (auto next = start; next < end; next += std::chrono::nanoseconds(1'000'000'000 / per_second)) {
    std::this_thread::sleep_until(next);
    ++(sendto(fd, "flood", 5, 0, address.get(), address.length) == 5 ? sent : refused);
  }
  std::printf("sent %ld refused %ld\n", sent, refused);
  return 0;
}

int Hold(const std::string& to, int port) {
  const Address address = ParseAddress(to, port);
  const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) Die("socket");
  if (connect(fd, address.get(), address.length) != 0) Die("connect");
  Address own;
  own.length = sizeof own.storage;
  getsockname(fd, own.get(), &own.length);
  std::printf("connected %s\n", ToText(own.storage).c_str());
  std::fflush(stdout);
  for (;;) {
    if (send(fd, ".", 1, MSG_NOSIGNAL) < 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  std::printf("error %s\n", strerrorname_np(errno));
  return 0;
}

// ---- drip, download ---------------------------------------------------------------------------------------------

// FNV-1a, over whatever pieces the data comes in.
struct Checksum {
  std::uint64_t value = 0xcbf29ce484222325;
  void Add(const char* data, std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) value = (value ^ static_cast<std::uint8_t>(data[i])) * 0x100000001b3;
  }
};

int Drip(int port, int count, int milliseconds) {
  const int listener = ListenSocket(SOCK_STREAM, port);
  std::puts("ready");
  std::fflush(stdout);
  const int fd = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  if (fd < 0) Die("accept");
  Checksum sum;
  std::uint32_t state = 1;
  for (int i = 0; i < count; ++i) {
    std::vector<char> chunk(16384);
    for (char& byte : chunk) {
      state = state * 1664525 + 1013904223;
      byte = static_cast<char>(state >> 24);
    }
    for (std::size_t sent = 0; sent < chunk.size();) {
      const ssize_t n = send(fd, chunk.data() + sent, chunk.size() - sent, MSG_NOSIGNAL);
      if (n <= 0) Die("send");
      sent += static_cast<std::size_t>(n);
    }
    sum.Add(chunk.data(), chunk.size());
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds));
  }
  std::printf("sum %016lx\n", static_cast<unsigned long>(sum.value));
  return 0;
}

int Download(const std::string& from, int port) {
  const Address address = ParseAddress(from, port);
  const int fd = socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) Die("socket");
  if (connect(fd, address.get(), address.length) != 0) Die("connect");
  Checksum sum;
  std::size_t bytes = 0;
  Clock::duration gap{};
  auto last = Clock::now();
  for (;;) {
    char data[65536];
    const ssize_t n = recv(fd, data, sizeof data, 0);
    if (n < 0) Die("recv");
    gap = std::max(gap, Clock::now() - last);
    last = Clock::now();
    if (n == 0) break;
    sum.Add(data, static_cast<std::size_t>(n));
    bytes += static_cast<std::size_t>(n);
  }
  std::printf("bytes %zu sum %016lx gap %ld\n", bytes, static_cast<unsigned long>(sum.value),
              static_cast<long>(std::chrono::duration_cast<std::chrono::milliseconds>(gap).count()));
  return 0;
}

// ---- advertise --------------------------------------------------------------------------------------------------

int Advertise(const std::string& device, const std::string& prefix) {
  struct {
    nd_router_advert header;
    nd_opt_prefix_info prefix;
  } packet{};
  packet.header.nd_ra_type = ND_ROUTER_ADVERT;
  packet.header.nd_ra_curhoplimit = 64;
  packet.header.nd_ra_router_lifetime = htons(1800);
  std::size_t length = sizeof packet.header;
  if (!prefix.empty()) {
    packet.prefix.nd_opt_pi_type = ND_OPT_PREFIX_INFORMATION;
    packet.prefix.nd_opt_pi_len = 4;
    packet.prefix.nd_opt_pi_prefix_len = 64;
    packet.prefix.nd_opt_pi_flags_reserved = ND_OPT_PI_FLAG_ONLINK | ND_OPT_PI_FLAG_AUTO;
    packet.prefix.nd_opt_pi_valid_time = htonl(3600);
    packet.prefix.nd_opt_pi_preferred_time = htonl(1800);
    if (inet_pton(AF_INET6, prefix.substr(0, prefix.find('/')).c_str(), &packet.prefix.nd_opt_pi_prefix) != 1) {
      errno = EINVAL;
      Die(prefix.c_str());
    }
    length = sizeof packet;
  }
  const int fd = socket(AF_INET6, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMPV6);  // the kernel fills in the checksum
  if (fd < 0) Die("socket");
  SetOption(fd, IPPROTO_IPV6, IPV6_MULTICAST_HOPS, 255, "IPV6_MULTICAST_HOPS");
  const Address everybody = ParseAddress("ff02::1%" + device, 0);
  if (sendto(fd, &packet, length, 0, everybody.get(), everybody.length) < 0) Die("sendto");
  return 0;
}

// ---- frame ------------------------------------------------------------------------------------------------------

constexpr std::uint16_t kCanaryEtherType = 0x88b5;  // IEEE 802's "local experimental"

int Frame(const std::string& device, const std::string& text) {
  const int fd = socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) Die("packet socket");
  sockaddr_ll to{};
  to.sll_family = AF_PACKET;
  to.sll_protocol = htons(kCanaryEtherType);
  to.sll_ifindex = static_cast<int>(if_nametoindex(device.c_str()));
  to.sll_halen = ETH_ALEN;
  std::fill_n(to.sll_addr, ETH_ALEN, std::uint8_t{0xff});
  if (sendto(fd, text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&to), sizeof to) < 0) Die("sendto");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> words(argv + 1, argv + argc);
  const std::string command = words.empty() ? "" : words[0];
  if (!words.empty()) words.erase(words.begin());
  if (command == "serve" && words.size() == 1) return Serve(std::stoi(words[0]));
  if (command == "ask" && words.size() >= 3) return Ask(words);
  if (command == "flood" && words.size() == 4) {
    return Flood(words[0], std::stoi(words[1]), std::stoi(words[2]), std::stod(words[3]));
  }
  if (command == "drip" && words.size() == 3) {
    return Drip(std::stoi(words[0]), std::stoi(words[1]), std::stoi(words[2]));
  }
  if (command == "download" && words.size() == 2) return Download(words[0], std::stoi(words[1]));
  if (command == "hold" && words.size() == 3) return Hold(words[1], std::stoi(words[2]));
  if (command == "frame" && words.size() == 2) return Frame(words[0], words[1]);
  if (command == "advertise" && !words.empty()) return Advertise(words[0], words.size() > 1 ? words[1] : "");
  std::fprintf(stderr, "usage: see the head of tests/netns/lab.cc\n");
  return 2;
}
