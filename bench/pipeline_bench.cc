// What it costs to share a path among threads: CPU time of the whole process per unit of work, which is where a
// hand-over shows (`unit_cpu`). A super-packet's cipher is 10 to 20 us of work.
#include <benchmark/benchmark.h>

#include <chrono>
#include <thread>
#include <vector>

#include "engine/pipeline.h"

namespace adit {
namespace {

struct Unit {
  std::uint64_t result = 0;
};

constexpr std::uint64_t kUnits = 2000;

// About a nanosecond a step, and none that the compiler can leave out.
std::uint64_t Work(std::uint64_t steps) {
  std::uint64_t x = steps;
  for (std::uint64_t i = 0; i < steps; ++i) benchmark::DoNotOptimize(x = x * 0x9e3779b97f4a7c15 + i);
  return x;
}

void Share(benchmark::State& state) {
  const auto thread_count = static_cast<unsigned>(state.range(0));
  const auto steps = static_cast<std::uint64_t>(state.range(1));
  for (auto _ : state) {
    std::vector<std::unique_ptr<Unit>> units;
    for (unsigned i = 0; i < (thread_count == 1 ? 1 : 2 * thread_count); ++i) units.push_back(std::make_unique<Unit>());
    Pipeline<Unit> pipeline(std::move(units));
    std::uint64_t read = 0;  // the reader's
    const auto run = [&] {
      while (Unit* const unit = pipeline.BeginRead([] {})) {
        if (read++ == kUnits) return pipeline.Close();
        pipeline.EndRead(unit, /*calls_help=*/true);
        unit->result = Work(steps);
        pipeline.Finish(unit, [](Unit& first) { benchmark::DoNotOptimize(first.result); });
      }
    };
    std::vector<std::thread> threads;
    for (unsigned i = 1; i < thread_count; ++i) threads.emplace_back(run);
    run();
    for (std::thread& thread : threads) thread.join();
  }
  state.counters["unit_cpu"] = benchmark::Counter(static_cast<double>(state.iterations() * kUnits),
                                                  benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}
BENCHMARK(Share)->ArgNames({"threads", "steps"})->MeasureProcessCPUTime()->ArgsProduct({{1, 2, 4}, {0, 10'000}});

}  // namespace
}  // namespace adit

BENCHMARK_MAIN();
