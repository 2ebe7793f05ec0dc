// Helpers of this folder's tests.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/check.h"
#include "base/random.h"
#include "crypto/aead.h"
#include "crypto/internal.h"
#include "crypto/primitives.h"

namespace adit {

inline std::vector<std::uint8_t> FromHex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::uint8_t> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<std::uint8_t>(digit(hex[i]) * 16 + digit(hex[i + 1])));
  }
  return bytes;
}

inline std::vector<std::uint8_t> FromHex(const nlohmann::json& object, const char* member) {
  return FromHex(object.at(member).get_ref<const std::string&>());
}

inline std::string ToHex(Bytes bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

inline std::vector<std::uint8_t> ToVector(Bytes bytes) { return {bytes.begin(), bytes.end()}; }

// bytes 0, 1, 2, …
inline std::vector<std::uint8_t> Ascending(std::size_t size, std::uint8_t first = 0) {
  std::vector<std::uint8_t> bytes(size);
  for (auto& byte : bytes) byte = first++;
  return bytes;
}

inline nlohmann::json LoadVectors(const std::string& file) {
  std::ifstream in(std::string(ADIT_SOURCE_DIR "/tests/vectors/") + file);
  EXPECT_TRUE(in.good()) << file;
  return nlohmann::json::parse(in);
}

// A new seed for each run; ADIT_SEED in the environment repeats one. Printed by the test that draws it.
inline std::uint64_t DrawSeed() {
  const char* const given = std::getenv("ADIT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : std::random_device{}();
  std::printf("seed: ADIT_SEED=%llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

inline std::vector<std::uint8_t> RandomBytes(Random& random, std::size_t size) {
  std::vector<std::uint8_t> bytes(size);
  random.Fill(bytes);
  return bytes;
}

// Memory between two pages that may not be touched, flush with the one behind: code that reads or writes past the end
// dies, also where it is assembly that no sanitizer sees.
class FencedBuffer {
 public:
  explicit FencedBuffer(std::size_t size) : size_(size) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t inner = (size + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    void* const at = mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    base_ = static_cast<std::uint8_t*>(at);
    CHECK(inner == 0 || mprotect(base_ + page, inner, PROT_READ | PROT_WRITE) == 0);
    data_ = base_ + page + inner - size;
  }
  ~FencedBuffer() { munmap(base_, mapped_); }
  FencedBuffer(const FencedBuffer&) = delete;
  FencedBuffer& operator=(const FencedBuffer&) = delete;

  std::uint8_t* data() { return data_; }
  MutableBytes bytes() { return {data_, size_}; }

 private:
  std::size_t size_;
  std::size_t mapped_ = 0;
  std::uint8_t* base_ = nullptr;
  std::uint8_t* data_ = nullptr;
};

// A test that runs once per AEAD backend, on its engine.
class BackendTest : public testing::TestWithParam<AeadBackend> {
 protected:
  static void SetUpTestSuite() { InitializeCrypto(); }
  void SetUp() override {
    if (std::ranges::find(available_, GetParam()) == available_.end()) {
      GTEST_SKIP() << Name(GetParam()) << " was not built in, or this CPU does not run it";
    }
    engine_ = internal::CreateForVectors(GetParam());
    ASSERT_EQ(engine_->backend(), GetParam());
  }

  std::vector<AeadBackend> available_ = AvailableAeadBackends();
  std::unique_ptr<internal::AeadEngineForVectors> engine_;
};

inline const auto kAllBackends =
    testing::Values(AeadBackend::kLanes, AeadBackend::kIpsecMb, AeadBackend::kOpenSsl, AeadBackend::kSodium);

inline std::string BackendTestName(const testing::TestParamInfo<AeadBackend>& info) {
  std::string name(Name(info.param));
  std::erase(name, '-');
  return name;
}

}  // namespace adit
