// An attacker on the network, for flood.sh: sends datagrams of one kind to one address for a while, from a socket of
// its own in whatever namespace it is run. Usage: adit_flood KIND ADDRESS PORT PUBLIC_KEY PER_SECOND SECONDS
//
//   garbage    random bytes of every length from 0 to 2048, and now and then 65,507
//   data       data messages for sessions nobody has, of up to 1,452 bytes
//   bad-mac1   initiations whose mac1 is wrong
//   mac1       initiations with a right mac1 and nothing else right: each costs a Diffie-Hellman, or a cookie
//
// Prints how many it sent, and the bytes that came back per byte sent. Bounded in rate and time; the seed is printed.
#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "base/address.h"
#include "base/random.h"
#include "crypto/keys.h"
#include "crypto/primitives.h"
#include "tunnel/cookie.h"
#include "tunnel/messages.h"

namespace {

using namespace adit;

std::vector<std::uint8_t> MakeDatagram(const std::string& kind, std::uint64_t number, CookieJar& jar, Random& random) {
  if (kind == "garbage") {
    std::vector<std::uint8_t> bytes(number % 500 == 499 ? 65507 : number % 2049);
    random.Fill(bytes);
    return bytes;
  }
  if (kind == "data") {
    std::vector<std::uint8_t> bytes(kDataOverhead + random.Below(1421));
    random.Fill(bytes);
    Store(bytes.data(), U32Le(static_cast<std::uint32_t>(MessageType::kData)));
    return bytes;
  }
  InitiationMessage message;
  random.Fill(MutableBytesOf(message));
  message.type = static_cast<std::uint32_t>(MessageType::kInitiation);
  if (kind == "mac1") jar.AddMacs(MutableBytesOf(message), Instant{});
  const Bytes bytes = BytesOf(message);
  return {bytes.begin(), bytes.end()};
}

}  // namespace

int main(int argc, char** argv) {
  InitializeCrypto();
  if (argc != 7) {
    std::fputs("usage: adit_flood KIND ADDRESS PORT PUBLIC_KEY PER_SECOND SECONDS\n", stderr);
    return 2;
  }
  const std::string kind = argv[1];
  const auto ip = IpAddress::Parse(argv[2]);
  const auto key = ParseKeyBase64(argv[4]);
  const auto per_second = static_cast<std::uint64_t>(std::atoi(argv[5]));
  const auto total = per_second * static_cast<std::uint64_t>(std::atoi(argv[6]));
  if (!ip || !key || per_second == 0 || per_second > 200'000 || total > 2'000'000) return 2;

  sockaddr_storage address;
  const socklen_t length = SocketAddress{*ip, static_cast<std::uint16_t>(std::atoi(argv[3]))}.ToSockaddr(address);
  const int fd = socket(address.ss_family, SOCK_DGRAM, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), length) != 0) return 1;

  const std::uint64_t seed =
      std::strtoull(std::getenv("ADIT_SEED") ? std::getenv("ADIT_SEED") : "20261122", nullptr, 10);
  SeededRandom random(seed);
  CookieJar jar(ToPublicKey(*key));
  std::uint64_t sent = 0, sent_bytes = 0, came_back_bytes = 0;
  const auto start = std::chrono::steady_clock::now();
  for (std::uint64_t number = 0; number < total; ++number) {
    const auto due = start + std::chrono::nanoseconds(1'000'000'000 * number / per_second);
    if (number % 64 == 0) std::this_thread::sleep_until(due);
    const auto datagram = MakeDatagram(kind, number, jar, random);
    if (send(fd, datagram.data(), datagram.size(), MSG_DONTWAIT) >= 0) {
      ++sent;
      sent_bytes += datagram.size();
    }
    std::uint8_t answer[2048];
    for (ssize_t got; (got = recv(fd, answer, sizeof answer, MSG_DONTWAIT)) > 0;) {
      came_back_bytes += static_cast<std::uint64_t>(got);
    }
  }
  close(fd);
  std::printf("seed %llu: sent %llu, %.3f bytes back per byte\n", static_cast<unsigned long long>(seed),
              static_cast<unsigned long long>(sent),
              sent_bytes == 0 ? 0.0 : static_cast<double>(came_back_bytes) / static_cast<double>(sent_bytes));
  return sent > 0 ? 0 : 1;
}
