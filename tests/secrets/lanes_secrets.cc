// The AEAD kernel with its secrets marked undefined, to be run under valgrind: memcheck then reports every branch and
// every address that depends on one. crypto_test runs it. Not under valgrind, it says so and fails.
//
// Usage: lanes_secrets [branch|address]: makes such a mistake itself, to show that it would be seen.
#include <valgrind/memcheck.h>

#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "crypto/test_lanes_plain.h"

using namespace adit::internal;

namespace {

constexpr std::size_t kLongest = 600;

struct Run {
  std::uint8_t key[32];
  std::uint8_t input[kLanes][kLongest], output[kLanes][kLongest];
  LaneGroup group;
  LanesScratch scratch;
};

void Fill(Run& run, const std::size_t (&sizes)[kLanes]) {
  run.group = {};
  run.group.key = run.key;
  for (std::size_t i = 0; i < sizeof(run.key); ++i) run.key[i] = static_cast<std::uint8_t>(3 * i + 1);
  for (std::size_t i = 0; i < kLanes; ++i) {
    for (std::size_t k = 0; k < kLongest; ++k) run.input[i][k] = static_cast<std::uint8_t>(i + k * k);
    Lane& lane = run.group.lanes[i];
    lane.input = run.input[i];
    lane.output = run.output[i];
    lane.bytes = lane.input_bytes = sizes[i];
    lane.counter = 1000 + i;
  }
}

// Everything but lengths, places and counters.
void MarkSecrets(Run& run) {
  VALGRIND_MAKE_MEM_UNDEFINED(run.key, sizeof(run.key));
  VALGRIND_MAKE_MEM_UNDEFINED(run.input, sizeof(run.input));
}

void MarkResultsPublic(Run& run) {
  VALGRIND_MAKE_MEM_DEFINED(run.output, sizeof(run.output));
  for (Lane& lane : run.group.lanes) VALGRIND_MAKE_MEM_DEFINED(lane.tag, sizeof(lane.tag));
}

}  // namespace

int main(int argc, char** argv) {
  if (RUNNING_ON_VALGRIND == 0) {
    std::puts("not under valgrind");
    return 2;
  }
  static Run open_run, secret_run;
  static volatile std::uint8_t table[256];
  static volatile std::uint8_t sink;
  const std::size_t shapes[][kLanes] = {
      {0, 1, 15, 16, 17, 63, 64, 65}, {600, 600, 600, 600, 600, 600, 600, 600}, {127, 128, 129, 600, 0, 0, 320, 512}};
  for (const auto& sizes : shapes) {
    for (const bool seals : {true, false}) {
      const auto kernel = seals ? SealLanesPlain : OpenLanesPlain;
      Fill(open_run, sizes);
      kernel(open_run.group, open_run.scratch);
      Fill(secret_run, sizes);
      MarkSecrets(secret_run);
      if (argc > 1 && std::strcmp(argv[1], "branch") == 0 && secret_run.key[5] > 7) sink = 1;
      if (argc > 1 && std::strcmp(argv[1], "address") == 0) sink = table[secret_run.input[3][0]];
      kernel(secret_run.group, secret_run.scratch);
      MarkResultsPublic(secret_run);
      // The marks have changed no result, and there were results.
      for (std::size_t i = 0; i < kLanes; ++i) {
        if (std::memcmp(secret_run.output[i], open_run.output[i], sizes[i]) != 0 ||
            std::memcmp(secret_run.group.lanes[i].tag, open_run.group.lanes[i].tag, 16) != 0) {
          return 3;
        }
      }
    }
  }
  return sink > 1 ? 4 : 0;
}
