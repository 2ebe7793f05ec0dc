// ChaCha20-Poly1305 for the data path (RFC 8439; paper, 5.4.6): empty associated data, nonce = 4 zero bytes and the
// 64-bit counter, little-endian. The unit of work is a batch of messages under one key.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "crypto/secret.h"

namespace adit {

inline constexpr std::size_t kAeadTagBytes = 16;

// The key of one direction of a session. Immutable; any number of threads may use it at once, each with its own engine.
class AeadKey {
 public:
  AeadKey() = default;
  explicit AeadKey(Bytes key) : key_(key) {}
  Bytes bytes() const { return key_; }
  void Wipe() { key_.Wipe(); }

 private:
  SecretArray<32> key_;
};

// One message to seal. The plaintext is head, then body, then `padding_bytes` zeros. `out` receives ciphertext and tag
// (head.size() + body_bytes + padding_bytes + 16 bytes).
//
// `head` lets the caller stamp a segment's headers without moving its payload. An engine needs contiguous input, so it
// writes the head into the head.size() bytes in front of `body`, and zeros into the `padding_bytes` behind it; those
// behind it puts back before it goes on to the next job. REQUIRES: those bytes are writable; what stands in front of a
// body is not needed once the jobs before it are sealed; `out` overlaps neither the input nor those bytes, unless head
// is empty and out == body exactly (in place). `body` may be null when nothing is to be sealed but the tag.
struct SealJob {
  Bytes head;
  std::uint8_t* body = nullptr;
  std::size_t body_bytes = 0;
  std::size_t padding_bytes = 0;  // 0..15
  std::uint64_t counter = 0;
  std::uint8_t* out = nullptr;

  std::size_t plaintext_bytes() const { return head.size() + body_bytes + padding_bytes; }
};

// One message to open in place: `bytes` counts the tag. Afterwards `is_authentic` tells whether data[0, bytes - 16)
// is plaintext; if not, its contents are unspecified and must not be used. REQUIRES: bytes >= 16.
struct OpenJob {
  std::uint8_t* data = nullptr;
  std::size_t bytes = 0;
  std::uint64_t counter = 0;
  bool is_authentic = false;
};

enum class AeadBackend { kLanes, kIpsecMb, kOpenSsl, kSodium };

std::string_view Name(AeadBackend backend);  // "lanes", "ipsec-mb", …: what status shows and options take
std::optional<AeadBackend> ParseAeadBackend(std::string_view name);
// Those that were built in and that this CPU can run at full speed, best first; never empty. Without `allow_avx512`
// none that we choose for its AVX-512 (what OpenSSL does inside is its own affair).
std::vector<AeadBackend> AvailableAeadBackends(bool allow_avx512 = true);

// Seals and opens, without allocating. One per thread, used by one thread at a time; holds no packet between calls.
// A key may be freed after the call: what an engine keeps of it are its bytes, not its address.
class AeadEngine {
 public:
  // Takes up to 10 ms (ipsec-mb tests itself). REQUIRES: InitializeCrypto() was called; AvailableAeadBackends() has it.
  static std::unique_ptr<AeadEngine> Create(AeadBackend backend);
  virtual ~AeadEngine() = default;

  virtual AeadBackend backend() const = 0;
  virtual void Seal(const AeadKey& key, std::span<const SealJob> jobs) = 0;
  virtual void Open(const AeadKey& key, std::span<OpenJob> jobs) = 0;
  // Forgets any copy of a key that the engine keeps between calls, wiping it.
  virtual void ForgetKeys() = 0;
};

}  // namespace adit
