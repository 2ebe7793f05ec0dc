// The protocol core's own costs: a whole handshake, and finding the peer that owns an address.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/random.h"
#include "crypto/primitives.h"
#include "tunnel/allowed_ips.h"
#include "tunnel/test_pair.h"

namespace adit {
namespace {

using namespace std::chrono_literals;

// Initiation, response, and the keepalive that confirms the session, at both ends: four X25519 each, the hashes, the
// tables and the timers. No system call, and no datagram that waits.
void WholeHandshake(benchmark::State& state) {
  TestPair pair;
  pair.Connect();
  for (auto _ : state) {
    pair.clock.boot += 10s;  // past what limits how often they may come
    pair.alice.BeginHandshake();
    pair.Drive();
    if (pair.bob.peer()->keypairs.current->created_at != pair.clock.boot) state.SkipWithError("no new session");
    state.PauseTiming();
    pair.alice.sent.clear();
    pair.bob.sent.clear();
    pair.alice.next_to_take = pair.bob.next_to_take = 0;
    state.ResumeTiming();
  }
}
BENCHMARK(WholeHandshake)->Unit(benchmark::kMicrosecond);

// So many prefixes, a thousand peers, addresses from all over them; some belong to nobody.
template <bool is_v6>
void Lookup(benchmark::State& state) {
  AllowedIps configured;
  for (std::uint32_t i = 0; i < static_cast<std::uint32_t>(state.range(0)); ++i) {
    ByteArray<16> address{0x20, 0x01, 0x0d, 0xb8};
    Store(address.data() + (is_v6 ? 4 : 0), U32Be(i << 8));
    const IpAddress ip =
        is_v6 ? IpAddress::V6(address) : IpAddress::V4(ByteArray<4>{address[0], address[1], address[2], 0});
    configured.Insert(Prefix(ip, is_v6 ? 56 : 24), i % 1000);
  }
  const auto table = configured.Build();
  SeededRandom random(3);
  std::vector<ByteArray<16>> addresses(4096);
  for (auto& address : addresses) {
    random.Fill(address);
    const std::uint32_t place = random.NextU32() % static_cast<std::uint32_t>(state.range(0) + state.range(0) / 8 + 1)
                                << 8;
    if (is_v6) {
      address = {0x20, 0x01, 0x0d, 0xb8};
      Store(address.data() + 4, U32Be(place));
    } else {
      Store(address.data(), U32Be(place));
    }
  }
  std::size_t next = 0;
  for (auto _ : state) {
    const std::uint8_t* const address = addresses[next++ % addresses.size()].data();
    benchmark::DoNotOptimize(is_v6 ? table->LookupV6(address) : table->LookupV4(address));
  }
}
BENCHMARK(Lookup<false>)->Name("LookupV4")->Arg(1)->Arg(100)->Arg(10'000)->Arg(100'000);
BENCHMARK(Lookup<true>)->Name("LookupV6")->Arg(1)->Arg(100)->Arg(10'000)->Arg(100'000);

}  // namespace
}  // namespace adit

BENCHMARK_MAIN();
