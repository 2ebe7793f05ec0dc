// Runs one fuzz target without libFuzzer: every file of a corpus, then mutations of them that follow from a seed.
//
//   fuzz_X CORPUS_FOLDER [MUTATIONS [SEED]]
//
// Without SEED each run takes another one. It is printed first; a run that dies is repeated by passing it.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "fuzz/input.h"

namespace adit {
namespace {

using Sample = std::vector<std::uint8_t>;

constexpr std::uint64_t kDefaultMutations = 2000;
constexpr std::size_t kMaxMutatedBytes = 128 << 10;  // twice the largest packet

std::vector<Sample> ReadCorpus(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) paths.push_back(entry.path());
  std::ranges::sort(paths);  // the order of a directory is no order: the same seed must give the same run
  std::vector<Sample> corpus;
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  return corpus;
}

// A position in [0, size].
std::ptrdiff_t PositionIn(const Sample& sample, Random& random) {
  return static_cast<std::ptrdiff_t>(random.Below(static_cast<std::uint32_t>(sample.size() + 1)));
}

void MutateOnce(Sample& sample, const std::vector<Sample>& corpus, Random& random) {
  static constexpr std::uint8_t kEdgeBytes[] = {0x00, 0x01, 0x7f, 0x80, 0xff, '\n', '\r', '=', '0', '[', ',', '#'};
  const std::ptrdiff_t at = PositionIn(sample, random);
  const bool is_inside = at < std::ssize(sample);
  const auto index = static_cast<std::size_t>(at);
  switch (random.Below(7)) {
    case 0:  // one bit
      if (is_inside) sample[index] = static_cast<std::uint8_t>(sample[index] ^ (1u << random.Below(8)));
      break;
    case 1:  // one byte
      if (is_inside) sample[index] = static_cast<std::uint8_t>(random.NextU32());
      break;
    case 2:  // one byte that parsers care about
      if (is_inside) sample[index] = kEdgeBytes[random.Below(std::size(kEdgeBytes))];
      break;
    case 3:  // cut off
      sample.resize(index);
      break;
    case 4: {  // take a range out
      const std::ptrdiff_t other = PositionIn(sample, random);
      sample.erase(sample.begin() + std::min(at, other), sample.begin() + std::max(at, other));
      break;
    }
    case 5: {  // put random bytes in
      Sample noise(1 + random.Below(16));
      random.Fill(noise);
      sample.insert(sample.begin() + at, noise.begin(), noise.end());
      break;
    }
    case 6: {  // put a part of another sample in
      const Sample& other = corpus[random.Below(static_cast<std::uint32_t>(corpus.size()))];
      const std::ptrdiff_t from = PositionIn(other, random), to = PositionIn(other, random);
      sample.insert(sample.begin() + at, other.begin() + std::min(from, to), other.begin() + std::max(from, to));
      break;
    }
  }
  if (sample.size() > kMaxMutatedBytes) sample.resize(kMaxMutatedBytes);
}

// In memory of exactly its size, so that AddressSanitizer sees one byte too many.
void Run(const Sample& sample) {
  const Sample exact(sample);
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
}

bool ParseNumber(std::string_view text, std::uint64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size();
}

int Replay(int argc, char** argv) {
  std::uint64_t mutations = kDefaultMutations;
  std::uint64_t seed = std::random_device{}();
  if (argc < 2 || argc > 4 || (argc > 2 && !ParseNumber(argv[2], mutations)) ||
      (argc > 3 && !ParseNumber(argv[3], seed))) {
    std::fprintf(stderr, "usage: %s CORPUS_FOLDER [MUTATIONS [SEED]]\n", argv[0]);
    return 2;
  }
  std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
  std::fflush(stdout);

  const std::vector<Sample> corpus = ReadCorpus(argv[1]);
  if (corpus.empty()) {
    std::fprintf(stderr, "%s: no corpus there\n", argv[1]);
    return 1;
  }
  for (const Sample& sample : corpus) Run(sample);
  Run({});

  SeededRandom random(seed);
  for (std::uint64_t i = 0; i < mutations; ++i) {
    Sample sample = corpus[random.Below(static_cast<std::uint32_t>(corpus.size()))];
    for (std::uint32_t count = 1 + random.Below(8); count > 0; --count) MutateOnce(sample, corpus, random);
    Run(sample);
  }
  std::printf("%zu corpus files, %llu mutations\n", corpus.size(), static_cast<unsigned long long>(mutations));
  return 0;
}

}  // namespace
}  // namespace adit

int main(int argc, char** argv) { return adit::Replay(argc, argv); }
