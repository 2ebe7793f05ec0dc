#include "crypto/secret.h"

#include <fcntl.h>
#include <gmock/gmock.h>

#include <chrono>
#include <cstring>
#include <fstream>
#include <new>
#include <sstream>

#include "crypto/test_support.h"

namespace adit {
namespace {

class Secret : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitializeCrypto(); }
};

TEST_F(Secret, DestructorLeavesZeros_CONF95) {
  alignas(SecretArray<32>) unsigned char place[sizeof(SecretArray<32>)];
  static_assert(sizeof(place) == 32);
  auto* const secret = new (place) SecretArray<32>(Ascending(32, 1));
  EXPECT_EQ(ToVector(Bytes(place)), Ascending(32, 1));
  secret->~SecretArray();
  EXPECT_EQ(ToVector(Bytes(place)), std::vector<std::uint8_t>(32, 0));

  auto* const key = new (place) PrivateKey(Ascending(32, 1));
  key->~PrivateKey();
  EXPECT_EQ(ToVector(Bytes(place)), std::vector<std::uint8_t>(32, 0));

  auto* const aead_key = new (place) AeadKey(Ascending(32, 1));
  static_assert(sizeof(AeadKey) == 32);
  EXPECT_EQ(ToVector(aead_key->bytes()), Ascending(32, 1));
  aead_key->~AeadKey();
  EXPECT_EQ(ToVector(Bytes(place)), std::vector<std::uint8_t>(32, 0));
}

TEST_F(Secret, WipeLeavesZeros_CONF95) {
  SecretArray<32> secret(Ascending(32, 1));
  EXPECT_FALSE(secret.is_zero());
  secret.Wipe();
  EXPECT_TRUE(secret.is_zero());
  EXPECT_EQ(ToVector(secret), std::vector<std::uint8_t>(32, 0));
}

TEST_F(Secret, ComparisonSeesEveryBit) {
  const SecretArray<32> secret(Ascending(32, 1));
  EXPECT_EQ(secret, SecretArray<32>(Ascending(32, 1)));
  for (std::size_t bit = 0; bit < 256; ++bit) {
    SecretArray<32> other = secret;
    other.data()[bit / 8] = static_cast<std::uint8_t>(other.data()[bit / 8] ^ 1 << bit % 8);
    EXPECT_FALSE(secret == other);
    EXPECT_FALSE(EqualInConstantTime(secret, other));
    SecretArray<32> one_bit;
    one_bit.data()[bit / 8] = static_cast<std::uint8_t>(1 << bit % 8);
    EXPECT_FALSE(one_bit.is_zero());
  }
}

// Over 1 MiB, a comparison that stopped at the first difference would be a thousand times faster when it is the first
// byte that differs than when it is the last; ours may differ by noise, for which a factor of ten is ample.
TEST_F(Secret, ComparisonTakesTheSameTimeWhereverTheDifferenceIs_CONF19) {
  constexpr std::size_t kSize = 1 << 20;
  const auto a = std::make_unique<SecretArray<kSize>>();
  const auto first = std::make_unique<SecretArray<kSize>>();
  const auto last = std::make_unique<SecretArray<kSize>>();
  first->data()[0] = 1;
  last->data()[kSize - 1] = 1;
  const auto best_of = [](const auto& compare) {
    auto best = std::chrono::steady_clock::duration::max();
    for (int i = 0; i < 10; ++i) {
      const auto start = std::chrono::steady_clock::now();
      EXPECT_FALSE(compare());
      best = std::min(best, std::chrono::steady_clock::now() - start);
    }
    return static_cast<double>(best.count());
  };
  EXPECT_GT(best_of([&] { return *a == *first; }) / best_of([&] { return *a == *last; }), 0.1);
  EXPECT_GT(best_of([&] { return EqualInConstantTime(*a, *first); }) /
                best_of([&] { return EqualInConstantTime(*a, *last); }),
            0.1);
  EXPECT_GT(best_of([&] { return first->is_zero(); }) / best_of([&] { return last->is_zero(); }), 0.1);
}

// Tags, keys and macs are compared by libsodium's or OpenSSL's functions only: no memcmp in this folder's product code.
TEST_F(Secret, ProductCodeOfThisFolderHasNoOrdinaryComparisonOfMemory_CONF19) {
  for (const char* const file :
       {"secret.h", "keys.cc", "primitives.cc", "internal.h", "aead.cc", "aead_ipsec_mb.cc", "aead_lanes.cc",
        "aead_lanes_kernel.h", "aead_lanes_avx512.cc", "aead_openssl.cc", "aead_sodium.cc"}) {
    std::ifstream in(std::string(ADIT_SOURCE_DIR "/src/crypto/") + file);
    ASSERT_TRUE(in.good()) << file;
    std::ostringstream text;
    text << in.rdbuf();
    std::string code = text.str();
    for (std::size_t at; (at = code.find("sodium_memcmp")) != std::string::npos;) code.replace(at, 13, "");
    for (const char* const banned : {"memcmp", "ranges::equal", "std::equal"}) {
      EXPECT_EQ(code.find(banned), std::string::npos) << file << " has " << banned;
    }
  }
}

// Looks for a secret in all memory of this process that can be written: objects that live, the heap's freed pieces,
// contexts inside the libraries. Stacks are left out, since what a finished call left there is overwritten by the next.
class MemorySearch {
 public:
  MemorySearch() {
    // Between guards, so that the kernel does not merge it with a neighbour and it is found, and left out, by its size.
    void* const at = mmap(nullptr, kChunk + 2 * kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    chunk_ = static_cast<std::uint8_t*>(at) + kGuard;
    CHECK(mprotect(chunk_, kChunk, PROT_READ | PROT_WRITE) == 0);
  }
  ~MemorySearch() { munmap(chunk_ - kGuard, kChunk + 2 * kGuard); }
  MemorySearch(const MemorySearch&) = delete;
  MemorySearch& operator=(const MemorySearch&) = delete;

  // How often each of the secrets is there. They are given masked (each byte XOR kMask), so that the search does not
  // find its own arguments.
  std::vector<int> Count(const std::vector<std::vector<std::uint8_t>>& masked_secrets) {
    std::vector<int> found(masked_secrets.size());
    const int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    CHECK(memory >= 0);
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) {
      unsigned long long begin = 0, end = 0;
      char permissions[5] = {};
      if (std::sscanf(line.c_str(), "%llx-%llx %4s", &begin, &end, permissions) != 3) continue;
      const auto own = reinterpret_cast<std::uintptr_t>(chunk_);
      const bool is_own = begin <= own && own < end && end - begin == kChunk;
      const bool is_sanitizers_shadow = end - begin > (1u << 30);
      if (permissions[1] != 'w' || is_own || is_sanitizers_shadow || line.ends_with("[stack]")) continue;
      for (unsigned long long at = begin; at < end; at += kChunk - kSecretBytes + 1) {
        const ssize_t got = pread(memory, chunk_, std::min<std::size_t>(kChunk, end - at), static_cast<off_t>(at));
        if (got < static_cast<ssize_t>(kSecretBytes)) break;
        const auto size = static_cast<std::size_t>(got);
        if (chunk_[0] == 0 && std::memcmp(chunk_, chunk_ + 1, size - 1) == 0) continue;  // zeros, mostly
        for (std::size_t i = 0; i < size; ++i) chunk_[i] = static_cast<std::uint8_t>(chunk_[i] ^ kMask);
        for (std::size_t i = 0; i < found.size(); ++i) found[i] += CountIn(Bytes(chunk_, size), masked_secrets[i]);
      }
    }
    close(memory);
    return found;
  }
  int CountOne(const std::vector<std::uint8_t>& masked) {
    return Count(std::vector<std::vector<std::uint8_t>>(1, masked))[0];
  }

  static constexpr std::uint8_t kMask = 0x5A;

 private:
  static int CountIn(Bytes memory, Bytes secret) {
    int found = 0;
    const void* at = nullptr;
    while ((at = memmem(memory.data(), memory.size(), secret.data(), secret.size())) != nullptr) {
      ++found;
      memory = memory.subspan(static_cast<std::size_t>(static_cast<const std::uint8_t*>(at) - memory.data()) + 1);
    }
    return found;
  }

  static constexpr std::size_t kChunk = 1 << 20;
  static constexpr std::size_t kGuard = 64 * 1024;
  static constexpr std::size_t kSecretBytes = 32;
  std::uint8_t* chunk_;
};

std::vector<std::uint8_t> Masked(Bytes secret, std::uint8_t mask = MemorySearch::kMask) {
  std::vector<std::uint8_t> masked(secret.begin(), secret.end());
  for (auto& byte : masked) byte = static_cast<std::uint8_t>(byte ^ mask);
  return masked;
}

TEST_F(Secret, SearchFindsASecretThatIsThere) {
  SystemRandom random;
  const auto secret = std::make_unique<SecretArray<32>>();
  random.Fill(secret->mutable_bytes());
  const auto masked = Masked(*secret);
  MemorySearch search;
  EXPECT_EQ(search.CountOne(masked), 1);
  secret->Wipe();
  EXPECT_EQ(search.CountOne(masked), 0);
}

// HMAC of an empty message by its definition (RFC 2104): the key that HKDF extracts, which no caller ever sees.
SecretArray<32> Extracted(const SecretArray<32>& key) {
  SecretArray<64> inner, outer;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint8_t byte = i < 32 ? key.data()[i] : std::uint8_t{0};
    inner.data()[i] = static_cast<std::uint8_t>(byte ^ 0x36);
    outer.data()[i] = static_cast<std::uint8_t>(byte ^ 0x5C);
  }
  return SecretArray<32>(Blake2s({outer, Blake2s({inner})}));
}

TEST_F(Secret, KdfAndMacLeaveNoCopyOfTheirKeys_CONF95) {
  SystemRandom random;
  const auto key = std::make_unique<SecretArray<32>>();
  random.Fill(key->mutable_bytes());
  const auto masked = Masked(*key);
  // The two pads of HMAC (RFC 2104), which are as good as the key.
  const auto inner_pad = Masked(*key, MemorySearch::kMask ^ 0x36), outer_pad = Masked(*key, MemorySearch::kMask ^ 0x5C);
  auto extracted = std::make_unique<SecretArray<32>>(Extracted(*key));
  const auto masked_extracted = Masked(*extracted);
  const auto inner_pad_extracted = Masked(*extracted, MemorySearch::kMask ^ 0x36);
  const auto outer_pad_extracted = Masked(*extracted, MemorySearch::kMask ^ 0x5C);
  extracted.reset();
  auto t = std::make_unique<std::array<SecretArray<32>, 3>>();
  Kdf3(*key, Bytes(), (*t)[0], (*t)[1], (*t)[2]);
  const auto first = Masked((*t)[0]), second = Masked((*t)[1]), third = Masked((*t)[2]);
  KeyedBlake2s128(*key, {*key});
  SecretArray<32> hash_of_key(Blake2s({*key}));
  hash_of_key.Wipe();
  key->Wipe();
  t.reset();
  MemorySearch search;
  EXPECT_THAT(search.Count({masked, inner_pad, outer_pad, masked_extracted, inner_pad_extracted, outer_pad_extracted,
                            first, second, third}),
              testing::Each(0));
}

class SecretOfEngine : public BackendTest {};
INSTANTIATE_TEST_SUITE_P(Backends, SecretOfEngine, kAllBackends, BackendTestName);

TEST_P(SecretOfEngine, ForgottenKeyIsNowhereInMemory_CONF95) {
  SystemRandom random;
  const auto bytes = std::make_unique<SecretArray<32>>();
  random.Fill(bytes->mutable_bytes());
  const auto masked = Masked(*bytes);
  auto key = std::make_unique<AeadKey>(*bytes);
  bytes->Wipe();
  auto message = Ascending(100 + kAeadTagBytes);
  const SealJob seal{{}, message.data(), 100, 0, 1, message.data()};
  engine_->Seal(*key, {&seal, 1});
  OpenJob open{message.data(), message.size(), 1};
  engine_->Open(*key, {&open, 1});
  EXPECT_TRUE(open.is_authentic);
  // A batch, which a backend may treat in another way.
  std::vector<std::vector<std::uint8_t>> batch(20, Ascending(100 + kAeadTagBytes));
  std::vector<SealJob> seals;
  std::vector<OpenJob> opens;
  for (auto& one : batch) {
    seals.push_back({{}, one.data(), 100, 0, 2, one.data()});
    opens.push_back({one.data(), one.size(), 2});
  }
  engine_->Seal(*key, seals);
  engine_->Open(*key, opens);
  EXPECT_TRUE(opens.back().is_authentic);

  MemorySearch search;
  EXPECT_GE(search.CountOne(masked), 1);
  key.reset();
  engine_->ForgetKeys();
  EXPECT_EQ(search.CountOne(masked), 0);
}

}  // namespace
}  // namespace adit
