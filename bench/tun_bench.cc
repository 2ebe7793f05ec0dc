// The cost of splitting and coalescing super-packets, in user space only. `per_packet` is one inner packet. `buffers`
// is how many super-packets are taken in turn: 1 keeps the bytes in the nearest cache, as they are behind the cipher;
// 64 (4 MiB) shows the price of bytes that come from further away.
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "tun/coalesce.h"
#include "tun/split.h"
#include "tun/test_packet.h"

namespace adit {
namespace {

using test::Packet;
using test::PacketSpec;

void CountPackets(benchmark::State& state, std::size_t packets, std::size_t bytes) {
  const auto rounds = static_cast<double>(state.iterations());
  state.counters["per_packet"] = benchmark::Counter(static_cast<double>(packets) * rounds,
                                                    benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * static_cast<std::int64_t>(bytes));
}

void Sum(benchmark::State& state) {
  const std::vector<std::uint8_t> data(static_cast<std::size_t>(state.range(0)), 0x5a);
  for (auto _ : state) {
    WordSum sum = SumWords(data);
    benchmark::DoNotOptimize(sum);
  }
  CountPackets(state, 1, data.size());
}
BENCHMARK(Sum)->Arg(20)->Arg(40)->Arg(100)->Arg(576)->Arg(1420)->Arg(65535);

PacketSpec SuperSpec(bool is_v6, bool is_tcp, std::size_t packets, std::size_t segment_bytes) {
  PacketSpec spec;
  spec.is_v6 = is_v6;
  spec.is_tcp = is_tcp;
  if (is_tcp) spec.tcp_options = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 9};
  SeededRandom random(7);
  spec.payload = test::RandomPayload(random, packets * segment_bytes);
  return spec;
}

// Payload of a packet of 1420 bytes.
std::size_t SegmentBytes(bool is_v6, bool is_tcp) { return std::size_t{1420} - (is_v6 ? 40 : 20) - (is_tcp ? 32 : 8); }

// 45 packets of 1420 bytes, which is what fits one UDP_SEGMENT send.
void Split(benchmark::State& state, bool is_v6, bool is_tcp) {
  const std::size_t segment_bytes = SegmentBytes(is_v6, is_tcp);
  const auto super =
      test::BuildSuper(SuperSpec(is_v6, is_tcp, 45, segment_bytes), static_cast<std::uint16_t>(segment_bytes));
  std::vector<Packet> buffers(static_cast<std::size_t>(state.range(0)), super.packet);
  std::size_t turn = 0;
  for (auto _ : state) {
    Splitter splitter(super.header, buffers[turn++ % buffers.size()]);
    while (auto segment = splitter.Next()) {
      benchmark::DoNotOptimize(segment);
      benchmark::ClobberMemory();
    }
  }
  CountPackets(state, 45, super.packet.size());
}
BENCHMARK_CAPTURE(Split, tcp4, false, true)->ArgName("buffers")->Arg(1)->Arg(64);
BENCHMARK_CAPTURE(Split, tcp6, true, true)->ArgName("buffers")->Arg(1)->Arg(64);
BENCHMARK_CAPTURE(Split, udp4, false, false)->ArgName("buffers")->Arg(1)->Arg(64);

// A packet that needs no more than a look: what each small packet pays.
void SplitSingle(benchmark::State& state, bool needs_checksum) {
  PacketSpec spec;
  spec.payload.assign(20, 1);
  auto super = test::BuildSuper(spec, 0);
  super.header.gso_type = kVirtioGsoNone;
  if (!needs_checksum) super.header.flags = 0;
  for (auto _ : state) {
    Splitter splitter(super.header, super.packet);
    auto segment = splitter.Next();
    benchmark::DoNotOptimize(segment);
    benchmark::ClobberMemory();
  }
  CountPackets(state, 1, super.packet.size());
}
BENCHMARK_CAPTURE(SplitSingle, plain, false);
BENCHMARK_CAPTURE(SplitSingle, checksum, true);

struct Batch {
  std::vector<Packet> packets;
  std::vector<Packet> heads;  // of all packets: the first of a run gets other headers
};

// `flows` trains taken in turn, 45 packets in all; `payload_bytes` 0 makes pure ACKs of them.
Batch BuildBatch(bool is_v6, bool is_tcp, std::size_t flows, std::size_t payload_bytes) {
  std::vector<PacketSpec> next;
  for (std::size_t i = 0; i < flows; ++i) {
    next.push_back(SuperSpec(is_v6, is_tcp, 1, payload_bytes));
    next.back().flow = static_cast<std::uint8_t>(i);
  }
  Batch batch;
  for (std::size_t i = 0; i < 45; ++i) {
    PacketSpec& spec = next[i % flows];
    batch.packets.push_back(test::Build(spec));
    batch.heads.emplace_back(
        batch.packets.back().begin(),
        batch.packets.back().begin() + static_cast<std::ptrdiff_t>(batch.packets.back().size() - payload_bytes));
    spec.sequence += static_cast<std::uint32_t>(payload_bytes);
    spec.id += 1;
  }
  return batch;
}

void Coalesce(benchmark::State& state, bool is_v6, bool is_tcp, std::size_t flows, std::size_t payload_bytes) {
  const Batch batch = BuildBatch(is_v6, is_tcp, flows, payload_bytes);
  std::vector<Batch> buffers(static_cast<std::size_t>(state.range(0)), batch);
  Coalescer coalescer({});
  std::size_t turn = 0;
  std::size_t writes = 0;
  for (auto _ : state) {
    Batch& now = buffers[turn++ % buffers.size()];
    for (Packet& packet : now.packets) coalescer.Add(packet);
    auto made = coalescer.Finish();
    benchmark::DoNotOptimize(made);
    writes = made.size();
    coalescer.Clear();
    for (std::size_t i = 0; i < flows; ++i)
      std::memcpy(now.packets[i].data(), batch.heads[i].data(), batch.heads[i].size());
  }
  state.counters["writes"] = static_cast<double>(writes);
  CountPackets(state, 45, 45 * batch.packets[0].size());
}
BENCHMARK_CAPTURE(Coalesce, tcp4, false, true, 1, SegmentBytes(false, true))->ArgName("buffers")->Arg(1)->Arg(64);
BENCHMARK_CAPTURE(Coalesce, tcp6, true, true, 1, SegmentBytes(true, true))->ArgName("buffers")->Arg(1)->Arg(64);
BENCHMARK_CAPTURE(Coalesce, udp4, false, false, 1, SegmentBytes(false, false))->ArgName("buffers")->Arg(1)->Arg(64);
BENCHMARK_CAPTURE(Coalesce, tcp4_9_flows, false, true, 9, SegmentBytes(false, true))->ArgName("buffers")->Arg(1);
BENCHMARK_CAPTURE(Coalesce, tcp4_45_flows, false, true, 45, SegmentBytes(false, true))->ArgName("buffers")->Arg(1);
BENCHMARK_CAPTURE(Coalesce, acks_1_flow, false, true, 1, 0)->ArgName("buffers")->Arg(1);

}  // namespace
}  // namespace adit

BENCHMARK_MAIN();
