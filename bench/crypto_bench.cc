// The cost of each primitive. AEAD figures are per batch; `per_packet` is one message. Key and buffers are warm, as
// they are in the data path: what a figure shows is the cipher and our wrapping of it, so bare library calls stand
// beside it.
#include <benchmark/benchmark.h>
#include <openssl/evp.h>
#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "crypto/aead.h"
#include "crypto/primitives.h"

#ifdef ADIT_HAVE_IPSEC_MB
#include <intel-ipsec-mb.h>
#endif

namespace adit {
namespace {

void CountPackets(benchmark::State& state, std::size_t packets, std::size_t size) {
  const auto total = static_cast<double>(packets) * static_cast<double>(state.iterations());
  state.counters["per_packet"] = benchmark::Counter(total, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.SetBytesProcessed(static_cast<std::int64_t>(total) * static_cast<std::int64_t>(size));
}

// Room for one message and its tag. Not a power of two, which would put all of a batch into one set of the cache.
constexpr std::size_t Slot(std::size_t size) { return (size + kAeadTagBytes + 63) / 64 * 64; }

void SealInPlace(benchmark::State& state, AeadBackend backend, std::size_t packets, std::size_t size) {
  const std::size_t slot = Slot(size);
  const auto engine = AeadEngine::Create(backend);
  const AeadKey key(std::vector<std::uint8_t>(32, 7));
  std::vector<std::uint8_t> memory(packets * slot);
  std::vector<SealJob> jobs(packets);
  std::uint64_t counter = 0;
  for (auto _ : state) {
    for (std::size_t i = 0; i < packets; ++i) {
      std::uint8_t* const at = memory.data() + i * slot;
      jobs[i] = {{}, at, size, 0, counter++, at};
    }
    engine->Seal(key, jobs);
    benchmark::ClobberMemory();
  }
  CountPackets(state, packets, size);
}

// As the engine does it: the head stamped in front of its payload, padding, and the GSO slot as the target.
void SealSplit(benchmark::State& state, AeadBackend backend, std::size_t packets, std::size_t size) {
  const std::size_t slot = Slot(size + 15);  // with padding
  constexpr std::size_t kHead = 52;          // IPv4 and TCP with time stamps
  const auto engine = AeadEngine::Create(backend);
  const AeadKey key(std::vector<std::uint8_t>(32, 7));
  const std::size_t payload = size - kHead;
  const std::size_t padding = (16 - size % 16) % 16;
  std::vector<std::uint8_t> packet(kHead + packets * payload + 16);
  std::vector<std::uint8_t> heads(packets * kHead), out(packets * slot);
  std::vector<SealJob> jobs(packets);
  std::uint64_t counter = 0;
  for (auto _ : state) {
    for (std::size_t i = 0; i < packets; ++i) {
      jobs[i] = {Bytes(heads).subspan(i * kHead, kHead),
                 packet.data() + kHead + i * payload,
                 payload,
                 padding,
                 counter++,
                 out.data() + i * (size + padding + kAeadTagBytes)};
    }
    engine->Seal(key, jobs);
    benchmark::ClobberMemory();
  }
  CountPackets(state, packets, size);
}

// Opening in place destroys the message, so each round starts with a copy; CopyOnly is what that costs.
void OpenInPlace(benchmark::State& state, AeadBackend backend, std::size_t packets, std::size_t size) {
  const std::size_t slot = Slot(size);
  const auto engine = AeadEngine::Create(backend);
  const AeadKey key(std::vector<std::uint8_t>(32, 7));
  std::vector<std::uint8_t> memory(packets * slot);
  for (std::size_t i = 0; i < packets; ++i) {
    std::uint8_t* const at = memory.data() + i * slot;
    const SealJob seal{{}, at, size, 0, i, at};
    engine->Seal(key, {&seal, 1});
  }
  const std::vector<std::uint8_t> sealed = memory;
  std::vector<OpenJob> jobs(packets);
  for (auto _ : state) {
    for (std::size_t i = 0; i < packets; ++i) {
      std::uint8_t* const at = memory.data() + i * slot;
      std::memcpy(at, sealed.data() + i * slot, size + kAeadTagBytes);
      jobs[i] = {at, size + kAeadTagBytes, i};
    }
    engine->Open(key, jobs);
    benchmark::ClobberMemory();
    if (!jobs.back().is_authentic) state.SkipWithError("not authentic");
  }
  CountPackets(state, packets, size);
}

void CopyOnly(benchmark::State& state, std::size_t packets, std::size_t size) {
  const std::size_t slot = Slot(size);
  std::vector<std::uint8_t> memory(packets * slot), sealed(packets * slot);
  for (auto _ : state) {
    for (std::size_t i = 0; i < packets; ++i) {
      std::memcpy(memory.data() + i * slot, sealed.data() + i * slot, size + kAeadTagBytes);
    }
    benchmark::ClobberMemory();
  }
  CountPackets(state, packets, size);
}

// The yardsticks: nothing but the library's calls, over the same memory and with the same copies as SealInPlace and
// OpenInPlace. What is opened is authentic.
#ifdef ADIT_HAVE_IPSEC_MB
class BareIpsecMb {
 public:
  BareIpsecMb() : manager_(alloc_mb_mgr(0)) { init_mb_mgr_avx512(manager_); }
  ~BareIpsecMb() { free_mb_mgr(manager_); }
  void Run(std::uint8_t* at, std::size_t size, std::uint64_t counter, bool seals, std::uint8_t* tag) {
    nonce_[1] = counter;
    IMB_JOB* const job = IMB_GET_NEXT_JOB(manager_);
    job->cipher_direction = seals ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT;
    job->chain_order = seals ? IMB_ORDER_CIPHER_HASH : IMB_ORDER_HASH_CIPHER;
    job->cipher_mode = IMB_CIPHER_CHACHA20_POLY1305;
    job->hash_alg = IMB_AUTH_CHACHA20_POLY1305;
    job->enc_keys = key_.data();
    job->dec_keys = key_.data();
    job->key_len_in_bytes = 32;
    job->src = at;
    job->dst = at;
    job->cipher_start_src_offset_in_bytes = 0;
    job->msg_len_to_cipher_in_bytes = size;
    job->hash_start_src_offset_in_bytes = 0;
    job->msg_len_to_hash_in_bytes = size;
    job->iv = reinterpret_cast<const std::uint8_t*>(nonce_) + 4;
    job->iv_len_in_bytes = 12;
    job->auth_tag_output = tag;
    job->auth_tag_output_len_in_bytes = kAeadTagBytes;
    job->u.CHACHA20_POLY1305.aad = nullptr;
    job->u.CHACHA20_POLY1305.aad_len_in_bytes = 0;
    benchmark::DoNotOptimize(IMB_SUBMIT_JOB_NOCHECK(manager_));
  }
  void Seal(std::uint8_t* at, std::size_t size, std::uint64_t counter) { Run(at, size, counter, true, at + size); }
  bool Open(std::uint8_t* at, std::size_t size, std::uint64_t counter) {
    std::uint8_t tag[kAeadTagBytes];
    Run(at, size, counter, false, tag);
    return sodium_memcmp(tag, at + size, kAeadTagBytes) == 0;
  }

 private:
  IMB_MGR* manager_;
  const std::vector<std::uint8_t> key_ = std::vector<std::uint8_t>(32, 7);
  std::uint64_t nonce_[2] = {};
};
#endif

class BareOpenSsl {
 public:
  BareOpenSsl() {
    EVP_EncryptInit_ex2(seal_, cipher_, key_.data(), nullptr, nullptr);
    EVP_DecryptInit_ex2(open_, cipher_, key_.data(), nullptr, nullptr);
  }
  ~BareOpenSsl() {
    EVP_CIPHER_CTX_free(seal_);
    EVP_CIPHER_CTX_free(open_);
    EVP_CIPHER_free(cipher_);
  }
  void Seal(std::uint8_t* at, std::size_t size, std::uint64_t counter) {
    nonce_[1] = counter;
    int written = 0;
    EVP_EncryptInit_ex2(seal_, nullptr, nullptr, reinterpret_cast<const std::uint8_t*>(nonce_) + 4, nullptr);
    EVP_EncryptUpdate(seal_, at, &written, at, static_cast<int>(size));
    EVP_EncryptFinal_ex(seal_, at + size, &written);
    EVP_CIPHER_CTX_ctrl(seal_, EVP_CTRL_AEAD_GET_TAG, kAeadTagBytes, at + size);
  }
  bool Open(std::uint8_t* at, std::size_t size, std::uint64_t counter) {
    nonce_[1] = counter;
    int written = 0;
    EVP_DecryptInit_ex2(open_, nullptr, nullptr, reinterpret_cast<const std::uint8_t*>(nonce_) + 4, nullptr);
    EVP_CIPHER_CTX_ctrl(open_, EVP_CTRL_AEAD_SET_TAG, kAeadTagBytes, at + size);
    EVP_DecryptUpdate(open_, at, &written, at, static_cast<int>(size));
    return EVP_DecryptFinal_ex(open_, at + size, &written) == 1;
  }

 private:
  EVP_CIPHER* const cipher_ = EVP_CIPHER_fetch(nullptr, "ChaCha20-Poly1305", nullptr);
  EVP_CIPHER_CTX* const seal_ = EVP_CIPHER_CTX_new();
  EVP_CIPHER_CTX* const open_ = EVP_CIPHER_CTX_new();
  const std::vector<std::uint8_t> key_ = std::vector<std::uint8_t>(32, 7);
  std::uint64_t nonce_[2] = {};
};

template <class Library>
void BareSeal(benchmark::State& state, std::size_t packets, std::size_t size) {
  const std::size_t slot = Slot(size);
  Library library;
  std::vector<std::uint8_t> memory(packets * slot);
  std::uint64_t counter = 0;
  for (auto _ : state) {
    for (std::size_t i = 0; i < packets; ++i) library.Seal(memory.data() + i * slot, size, counter++);
    benchmark::ClobberMemory();
  }
  CountPackets(state, packets, size);
}

template <class Library>
void BareOpen(benchmark::State& state, std::size_t packets, std::size_t size) {
  const std::size_t slot = Slot(size);
  Library library;
  std::vector<std::uint8_t> memory(packets * slot);
  for (std::size_t i = 0; i < packets; ++i) library.Seal(memory.data() + i * slot, size, i);
  const std::vector<std::uint8_t> sealed = memory;
  for (auto _ : state) {
    bool is_authentic = true;
    for (std::size_t i = 0; i < packets; ++i) {
      std::uint8_t* const at = memory.data() + i * slot;
      std::memcpy(at, sealed.data() + i * slot, size + kAeadTagBytes);
    }
    for (std::size_t i = 0; i < packets; ++i) is_authentic &= library.Open(memory.data() + i * slot, size, i);
    benchmark::ClobberMemory();
    if (!is_authentic) state.SkipWithError("not authentic");
  }
  CountPackets(state, packets, size);
}

// What a flood makes us pay per packet: the mac1 of an initiation.
void Mac1(benchmark::State& state) {
  const std::vector<std::uint8_t> key(32, 7), message(116, 1);
  for (auto _ : state) benchmark::DoNotOptimize(KeyedBlake2s128(key, {message}));
}
BENCHMARK(Mac1);

void Mac1CheckWithCompare(benchmark::State& state) {
  const std::vector<std::uint8_t> key(32, 7), message(116, 1);
  const Mac mac = KeyedBlake2s128(key, {message});
  for (auto _ : state) benchmark::DoNotOptimize(EqualInConstantTime(KeyedBlake2s128(key, {message}), mac));
}
BENCHMARK(Mac1CheckWithCompare);

void HashOf64Bytes(benchmark::State& state) {
  const std::vector<std::uint8_t> message(64, 1);
  for (auto _ : state) benchmark::DoNotOptimize(Blake2s({message}));
}
BENCHMARK(HashOf64Bytes);

void Kdf(benchmark::State& state) {
  SecretArray<32> chaining_key(std::vector<std::uint8_t>(32, 7)), t1, t2, t3;
  const SecretArray<32> input(std::vector<std::uint8_t>(32, 9));
  for (auto _ : state) {
    switch (state.range(0)) {
      case 1:
        Kdf1(chaining_key, input, t1);
        break;
      case 2:
        Kdf2(chaining_key, input, t1, t2);
        break;
      default:
        Kdf3(chaining_key, input, t1, t2, t3);
    }
    benchmark::ClobberMemory();
  }
}
BENCHMARK(Kdf)->DenseRange(1, 3);

void DiffieHellman(benchmark::State& state) {
  SeededRandom random(1);
  const PrivateKey a = PrivateKey::Generate(random);
  const PublicKey b = PrivateKey::Generate(random).ComputePublicKey();
  SecretArray<32> shared;
  for (auto _ : state) benchmark::DoNotOptimize(X25519(a, b, shared));
}
BENCHMARK(DiffieHellman);

void PublicKeyOfPrivateKey(benchmark::State& state) {
  SeededRandom random(1);
  const PrivateKey key = PrivateKey::Generate(random);
  for (auto _ : state) benchmark::DoNotOptimize(key.ComputePublicKey());
}
BENCHMARK(PublicKeyOfPrivateKey);

void SealHandshakeStatic(benchmark::State& state) {
  const std::vector<std::uint8_t> key(32, 7), hash(32, 1), plaintext(32, 2);
  ByteArray<32 + kTagBytes> out;
  for (auto _ : state) {
    SealHandshake(key, 0, hash, plaintext, out);
    benchmark::ClobberMemory();
  }
}
BENCHMARK(SealHandshakeStatic);

void RegisterAead() {
  struct Shape {
    std::size_t packets, size;
  };
  const auto with = [](std::string name, const Shape& shape, auto&& function) {
    name += "/" + std::to_string(shape.packets) + "x" + std::to_string(shape.size);
    benchmark::RegisterBenchmark(name.c_str(), function);
  };
  const std::vector<AeadBackend> backends = AvailableAeadBackends();
  for (const Shape shape :
       {Shape{1, 64}, Shape{1, 512}, Shape{1, 1420}, Shape{1, 3968}, Shape{45, 1420}, Shape{45, 64}}) {
    const auto [packets, size] = shape;
#ifdef ADIT_HAVE_IPSEC_MB
    if (std::ranges::find(backends, AeadBackend::kIpsecMb) != backends.end()) {
      with("BareSeal/ipsec-mb", shape, [=](benchmark::State& state) { BareSeal<BareIpsecMb>(state, packets, size); });
      with("BareOpen/ipsec-mb", shape, [=](benchmark::State& state) { BareOpen<BareIpsecMb>(state, packets, size); });
    }
#endif
    with("BareSeal/openssl", shape, [=](benchmark::State& state) { BareSeal<BareOpenSsl>(state, packets, size); });
    with("BareOpen/openssl", shape, [=](benchmark::State& state) { BareOpen<BareOpenSsl>(state, packets, size); });
    for (const AeadBackend backend : backends) {
      const std::string name(Name(backend));
      with("Seal/" + name, shape, [=](benchmark::State& state) { SealInPlace(state, backend, packets, size); });
      with("SealSplit/" + name, shape, [=](benchmark::State& state) { SealSplit(state, backend, packets, size); });
      with("Open/" + name, shape, [=](benchmark::State& state) { OpenInPlace(state, backend, packets, size); });
    }
    with("CopyOnly", shape, [=](benchmark::State& state) { CopyOnly(state, packets, size); });
  }
  // Where batches begin to be worth it, by number and by size.
  for (const std::size_t size : {64u, 256u, 512u, 1024u, 1424u, 4096u, 8912u}) {
    for (const std::size_t packets : {2u, 4u, 6u, 8u, 16u, 45u}) {
      for (const AeadBackend backend : backends) {
        const std::string name(Name(backend));
        with("Batch/Seal/" + name, {packets, size},
             [=](benchmark::State& state) { SealSplit(state, backend, packets, size); });
        with("Batch/Open/" + name, {packets, size},
             [=](benchmark::State& state) { OpenInPlace(state, backend, packets, size); });
      }
    }
  }
}

}  // namespace
}  // namespace adit

int main(int argc, char** argv) {
  adit::InitializeCrypto();
  adit::RegisterAead();
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
