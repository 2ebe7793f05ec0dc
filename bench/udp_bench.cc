// What a datagram costs at the UDP edge: one run is sent and received over the loopback of a network namespace of its
// own. On the loopback a send also carries the datagrams up to the receiver's queue, so `send_ns` includes the network
// stack of both sides; `receive_ns` is the copy to user space and the system call.
#include <benchmark/benchmark.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <chrono>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "udp/socket.h"

namespace adit {
namespace {

std::chrono::nanoseconds CpuTime() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// Arguments: IP version, datagrams in the run, bytes of each, GSO, GRO.
void BM_SendAndReceive(benchmark::State& state) {
  const bool v4 = state.range(0) == 4;
  const auto count = static_cast<std::size_t>(state.range(1));
  const auto bytes = static_cast<std::size_t>(state.range(2));
  const SocketFamily family = v4 ? SocketFamily::kV4 : SocketFamily::kV6;
  const auto sender = UdpSockets::Open(0, 0, {.gso = state.range(3) != 0});
  const auto receiver = UdpSockets::Open(0, 0, {.gro = state.range(4) != 0});
  if (!sender || !receiver) return state.SkipWithError("cannot open the sockets");

  const std::vector<std::uint8_t> data(count * bytes, 0x5a);
  SendRun run{data, bytes, {}, 0};
  run.to.remote = {*IpAddress::Parse(v4 ? "127.0.0.1" : "::1"), (*receiver)->port(), 0};
  run.to.source = {run.to.remote.ip, 0};  // as an answer has it
  UdpReceiver buffers;
  std::chrono::nanoseconds sending{};
  std::chrono::nanoseconds receiving{};
  for (auto _ : state) {
    SendOutcome outcome;
    const auto start = CpuTime();
    (*sender)->Send({&run, 1}, Instant{1h}, {&outcome, 1});
    const auto sent = CpuTime();
    std::size_t received = 0;
    while (received < data.size()) {
      std::span<ReceivedRun> runs;
      if ((*receiver)->fd(family) < 0 || buffers.Receive(**receiver, family, runs) != ReceiveStatus::kOk) {
        return state.SkipWithError("a datagram was lost");
      }
      for (const ReceivedRun& got : runs) received += got.data.size();
    }
    receiving += CpuTime() - sent;
    sending += sent - start;
  }
  const double datagrams = static_cast<double>(state.iterations()) * static_cast<double>(count);
  state.counters["send_ns"] = static_cast<double>(sending.count()) / datagrams;
  state.counters["receive_ns"] = static_cast<double>(receiving.count()) / datagrams;
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * data.size()));
}
BENCHMARK(BM_SendAndReceive)
    ->ArgNames({"ip", "datagrams", "bytes", "gso", "gro"})
    ->ArgsProduct({{4, 6}, {45}, {1452}, {1, 0}, {1, 0}})
    ->ArgsProduct({{4, 6}, {64}, {128}, {1, 0}, {1, 0}})
    ->ArgsProduct({{4, 6}, {1}, {128, 1452}, {1}, {1}});

bool EnterOwnNamespace() {
  if (::unshare(CLONE_NEWNET) != 0) return false;
  const Fd fd(::socket(AF_INET, SOCK_DGRAM, 0));
  ifreq link{};
  std::strcpy(link.ifr_name, "lo");
  link.ifr_flags = IFF_UP | IFF_RUNNING;
  return ::ioctl(fd.get(), SIOCSIFFLAGS, &link) == 0;
}

}  // namespace
}  // namespace adit

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (!adit::EnterOwnNamespace()) {
    std::fputs("udp_bench: skipped: needs root for a network namespace of its own\n", stderr);
    return 0;
  }
  benchmark::RunSpecifiedBenchmarks();
}
