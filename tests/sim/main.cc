// sim: runs seeds, one after the other or in several processes, and says which of them break an invariant.
//
//   sim --seeds=1000 --hours=1 --first-seed=1 --jobs=2
//   sim --seed=123 --verbose       the same run again, every event printed
//   sim --self-test                each checker against a defect planted for it
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include "base/check.h"
#include "crypto/primitives.h"
#include "defect.h"
#include "world.h"

namespace adit::sim {
namespace {

// Rows of the conformance checklist that the checkers assert in every run.
constexpr std::array kAsserted = {25, 36, 37, 38, 40, 42, 43, 44, 45, 47, 48, 49, 50, 51, 52,
                                  53, 54, 56, 58, 60, 63, 67, 73, 75, 76, 77, 78, 79, 82};

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

struct Totals {  // in memory that the processes share; each writes its own
  std::uint64_t running_seed = 0;
  std::uint64_t done = 0, failed = 0;
  RunCounts counts;
};

void Add(RunCounts& to, const RunCounts& more) {
  to.events += more.events;
  to.packets_sent += more.packets_sent;
  to.packets_delivered += more.packets_delivered;
  to.datagrams += more.datagrams;
  to.lost += more.lost;
  to.altered += more.altered;
  to.duplicated += more.duplicated;
  to.held_back += more.held_back;
  to.injected += more.injected;
  to.initiations += more.initiations;
  to.sessions += more.sessions;
  to.restarts += more.restarts;
  to.slowest_heal = std::max(to.slowest_heal, more.slowest_heal);
  to.slowest_restart_heal = std::max(to.slowest_restart_heal, more.slowest_restart_heal);
  to.slowest_convergence = std::max(to.slowest_convergence, more.slowest_convergence);
}

void PrintFailure(const RunOptions& options, const RunResult& result) {
  const Violation& violation = *result.violation;
  std::string text = fmt::format("seed {} failed after {:.6f} s of virtual time ({})\n", options.seed,
                                 Seconds(result.at), result.scenario);
  for (const std::string& line : result.last_events) text += fmt::format("  {}\n", line);
  text += fmt::format("  {}: {} at host {}\n  again: sim --seed={} --hours={} --verbose\n", Name(violation.check),
                      violation.text, violation.host == kNobody ? "-" : std::to_string(violation.host), options.seed,
                      options.hours);
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// Runs are quick because they log nothing; a failing one is run again for its last events.
bool RunAndPrint(RunOptions options, AeadEngine& aead, RunCounts& counts) {
  RunResult result = Run(options, aead);
  Add(counts, result.counts);
  if (!result.violation) return true;
  if (options.log == EventLog::Mode::kOff) {
    options.log = EventLog::Mode::kLast;
    const RunResult again = Run(options, aead);
    CHECK(again.violation && again.digest == result.digest);  // a run follows from its seed
    result = again;
  }
  PrintFailure(options, result);
  return false;
}

void PrintTotals(const RunCounts& c) {
  fmt::print(
      "packets {} sent, {} delivered; datagrams {} sent, {} lost, {} altered, {} duplicated, {} held back, {} "
      "injected; {} initiations, {} sessions, {} restarts; {} events\n",
      c.packets_sent, c.packets_delivered, c.datagrams, c.lost, c.altered, c.duplicated, c.held_back, c.injected,
      c.initiations, c.sessions, c.restarts, c.events);
  fmt::print(
      "slowest: {:.3f} s after faults stopped, {:.3f} s after a restart, {:.3f} s after two initiations at once\n",
      Seconds(c.slowest_heal), Seconds(c.slowest_restart_heal), Seconds(c.slowest_convergence));
}

void PrintVerdict(std::uint64_t seeds, std::uint64_t failed) {
  std::string rows;
  for (const int row : kAsserted) rows += fmt::format(" CONF-{}", row);
  fmt::print("asserts{}\nsim: {} seeds, {} failed\n", rows, seeds, failed);
}

std::unique_ptr<AeadEngine> CreateEngine() { return AeadEngine::Create(AvailableAeadBackends().front()); }

int RunSeeds(std::uint64_t first, std::uint64_t count, double hours, unsigned jobs) {
  auto* const totals = static_cast<Totals*>(
      mmap(nullptr, sizeof(Totals) * jobs, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
  CHECK(totals != MAP_FAILED);
  std::vector<pid_t> children;
  for (unsigned job = 0; job < jobs; ++job) {
    totals[job] = Totals{};
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0) {
      children.push_back(child);
      continue;
    }
    const auto aead = CreateEngine();
    Totals& mine = totals[job];
    for (std::uint64_t i = job; i < count; i += jobs) {
      mine.running_seed = first + i;
      const RunOptions options{.seed = first + i, .hours = hours};
      if (!RunAndPrint(options, *aead, mine.counts)) ++mine.failed;
      ++mine.done;
      if (job == 0 && mine.done % 100 == 0) {
        fmt::print("seed {} of {}\n", first + i, first + count - 1);
        std::fflush(stdout);
      }
    }
    std::fflush(stdout);
    _exit(0);
  }
  Totals sum;
  for (unsigned job = 0; job < jobs; ++job) {
    int status = 0;
    CHECK(waitpid(children[job], &status, 0) == children[job]);
    Totals& each = totals[job];
    if (status != 0) {
      // A CHECK of the core, or a sanitizer: the process is gone, and with it the seeds it had not run yet.
      fmt::print("seed {} ended its process with status {}\n", each.running_seed, status);
      ++each.failed;
    }
    sum.done += each.done;
    sum.failed += each.failed;
    Add(sum.counts, each.counts);
  }
  PrintTotals(sum.counts);
  PrintVerdict(count, sum.failed);
  return sum.failed == 0 ? 0 : 1;
}

int RunOneSeed(const RunOptions& options) {
  const auto aead = CreateEngine();
  RunCounts counts;
  const bool is_good = RunAndPrint(options, *aead, counts);
  PrintTotals(counts);
  PrintVerdict(1, is_good ? 0 : 1);
  return is_good ? 0 : 1;
}

// Some defects show in some scenarios only, so each may use several seeds; but every checker must catch its own.
int SelfTest(unsigned seeds) {
  const auto aead = CreateEngine();
  unsigned failed = 0;
  std::array<bool, static_cast<std::size_t>(Check::kCount_)> has_failed{};
  for (const DefectCase& each : kDefectCases) {
    bool is_caught = false;
    std::string others;
    for (std::uint64_t seed = 1; seed <= seeds && !is_caught; ++seed) {
      const RunResult result = Run(RunOptions{.seed = seed, .hours = 1, .defect = each.defect}, *aead);
      if (!result.violation) continue;
      is_caught = result.violation->check == each.caught_by;
      if (is_caught) {
        fmt::print("caught   {} (seed {}: {}: {})\n", each.name, seed, Name(each.caught_by), result.violation->text);
        has_failed[static_cast<std::size_t>(each.caught_by)] = true;
      } else {
        others += fmt::format(" [{}: {}]", Name(result.violation->check), result.violation->text);
      }
    }
    if (!is_caught) {
      ++failed;
      fmt::print("MISSED   {}: expected \"{}\" within {} seeds, got{}\n", each.name, Name(each.caught_by), seeds,
                 others.empty() ? " nothing" : others.substr(0, 300));
    }
    std::fflush(stdout);
  }
  for (std::size_t i = 0; i < has_failed.size(); ++i) {
    if (has_failed[i]) continue;
    ++failed;
    fmt::print("never seen to fail: {}\n", Name(static_cast<Check>(i)));
  }
  const RunOptions options{.seed = 7, .hours = 0.5};
  if (Run(options, *aead).digest != Run(options, *aead).digest) {
    ++failed;
    fmt::print("the same seed gave two different runs\n");
  }
  fmt::print("sim --self-test: {} defects, {} failed\n", kDefectCases.size(), failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace

int Main(int argc, char** argv) {
  CLI::App app("Deterministic simulation of the protocol core");
  std::uint64_t seeds = 1000, first_seed = 1;
  std::optional<std::uint64_t> seed;
  double hours = 1;
  unsigned jobs = 1, self_test_seeds = 40;
  bool is_verbose = false, is_self_test = false;
  app.add_option("--seeds", seeds, "how many seeds")->check(CLI::PositiveNumber);
  app.add_option("--first-seed", first_seed, "the first of them");
  app.add_option("--seed", seed, "only this one");
  app.add_option("--hours", hours, "virtual time of each run")->check(CLI::PositiveNumber);
  app.add_option("--jobs", jobs, "processes")->check(CLI::Range(1u, 256u));
  app.add_flag("--verbose", is_verbose, "print every event (with --seed)");
  app.add_flag("--self-test", is_self_test, "plant defects and require that they are caught");
  app.add_option("--self-test-seeds", self_test_seeds, "seeds tried for each defect");
  CLI11_PARSE(app, argc, argv);

  InitializeCrypto();
  if (is_self_test) return SelfTest(self_test_seeds);
  if (seed) {
    return RunOneSeed(
        RunOptions{.seed = *seed, .hours = hours, .log = is_verbose ? EventLog::Mode::kAll : EventLog::Mode::kOff});
  }
  return RunSeeds(first_seed, seeds, hours, jobs);
}

}  // namespace adit::sim

int main(int argc, char** argv) { return adit::sim::Main(argc, argv); }
