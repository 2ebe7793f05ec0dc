#include "crypto/aead.h"

#include <sodium.h>

#include <new>
#include <thread>

#include "crypto/test_support.h"

namespace adit {
namespace {

// What libsodium's own function gives, with the nonce written out here once more.
std::vector<std::uint8_t> Reference(Bytes key, std::uint64_t counter, Bytes plaintext) {
  ByteArray<12> nonce{};
  for (std::size_t i = 0; i < 8; ++i) nonce[4 + i] = static_cast<std::uint8_t>(counter >> (8 * i));
  std::vector<std::uint8_t> sealed(plaintext.size() + kAeadTagBytes);
  crypto_aead_chacha20poly1305_ietf_encrypt(sealed.data(), nullptr, plaintext.data(), plaintext.size(), nullptr, 0,
                                            nullptr, nonce.data(), key.data());
  return sealed;
}

std::uint64_t RandomCounter(Random& random) {
  const std::uint64_t low = random.NextU32();
  switch (random.Below(4)) {
    case 0:
      return low % 4096;
    case 1:
      return (std::uint64_t{1} << 32) - 2 + low % 5;  // around the carry into the upper half
    case 2:
      return ~std::uint64_t{0} - (1 << 13) - low % 4096;  // around the last counter that is ever used
    default:
      return std::uint64_t{random.NextU32()} << 32 | low;
  }
}

std::size_t RandomSize(Random& random) {
  if (random.Below(200) == 0) return 65536 - random.Below(64);
  if (random.Below(4) == 0) return random.Below(130);  // the edges of a block or two
  return random.Below(2001);
}

class Aead : public BackendTest {};
INSTANTIATE_TEST_SUITE_P(Backends, Aead, kAllBackends, BackendTestName);

// One message in memory as the data path has it: room for the head, the body, what stands behind it; and the output,
// both flush with a page that may not be touched.
struct Message {
  Message(Random& random, bool is_in_place, std::size_t size)
      : in_place(is_in_place),
        head(RandomBytes(random, is_in_place ? 0 : std::min<std::size_t>(size, random.Below(2) * random.Below(80)))),
        body(RandomBytes(random, size - head.size())),
        padding(random.Below(16)),
        counter(RandomCounter(random)),
        before(RandomBytes(random, kMargin + head.size())),
        behind(RandomBytes(random, is_in_place ? padding + kAeadTagBytes : padding)),
        input(before.size() + body.size() + behind.size()),
        output(is_in_place ? 0 : size + padding + kAeadTagBytes) {
    std::ranges::copy(before, input.data());
    std::ranges::copy(body, body_at());
    std::ranges::copy(behind, body_at() + body.size());
    plaintext = head;
    plaintext.insert(plaintext.end(), body.begin(), body.end());
    plaintext.resize(plaintext.size() + padding);
  }

  std::uint8_t* body_at() { return input.data() + before.size(); }
  std::uint8_t* out() { return in_place ? body_at() : output.data(); }
  MutableBytes sealed() { return {out(), plaintext.size() + kAeadTagBytes}; }
  SealJob job() { return {head, body_at(), body.size(), padding, counter, out()}; }

  static constexpr std::size_t kMargin = 24;

  bool in_place;
  std::vector<std::uint8_t> head, body;
  std::size_t padding;
  std::uint64_t counter;
  std::vector<std::uint8_t> before, behind, plaintext;
  FencedBuffer input, output;
};

TEST_P(Aead, AgreesWithLibsodiumInBatchesOfAnyShape_CONF10) {
  const std::uint64_t seed = DrawSeed();
  SCOPED_TRACE(seed);
  SeededRandom random(seed);
  for (int round = 0; round < 40; ++round) {
    const auto key_bytes = RandomBytes(random, 32);
    const AeadKey key(key_bytes);
    std::vector<std::unique_ptr<Message>> messages(1 + random.Below(64));
    std::vector<SealJob> seals;
    for (auto& m : messages) {
      m = std::make_unique<Message>(random, random.Below(2) == 0, RandomSize(random));
      seals.push_back(m->job());
    }
    engine_->Seal(key, seals);

    std::vector<OpenJob> opens;
    std::vector<bool> forged;
    for (auto& m : messages) {
      ASSERT_EQ(ToVector(m->sealed()), Reference(key_bytes, m->counter, m->plaintext)) << m->plaintext.size();
      // In front of the body stands what stood there, but that the head may have been put right before it.
      const std::vector<std::uint8_t> before(m->input.data(), m->body_at());
      auto with_head = m->before;
      std::ranges::copy(m->head, with_head.end() - static_cast<std::ptrdiff_t>(m->head.size()));
      ASSERT_TRUE(before == m->before || before == with_head);
      if (!m->in_place) {
        ASSERT_EQ(std::vector(m->body_at(), m->body_at() + m->body.size()), m->body);
        ASSERT_EQ(std::vector(m->body_at() + m->body.size(), m->body_at() + m->body.size() + m->padding), m->behind);
      }
      forged.push_back(random.Below(4) == 0);
      if (forged.back()) {
        std::uint8_t& byte = m->sealed()[random.Below(static_cast<std::uint32_t>(m->sealed().size()))];
        byte = static_cast<std::uint8_t>(byte ^ 1 << random.Below(8));
      }
      opens.push_back({m->out(), m->sealed().size(), m->counter, !forged.back()});
    }
    std::vector<std::vector<std::uint8_t>> tags;
    for (auto& m : messages) tags.push_back(ToVector(m->sealed().last(kAeadTagBytes)));

    engine_->Open(key, opens);
    for (std::size_t i = 0; i < messages.size(); ++i) {
      Message& m = *messages[i];
      ASSERT_EQ(opens[i].is_authentic, !forged[i]) << "message " << i << ", " << m.plaintext.size() << " bytes";
      ASSERT_EQ(ToVector(m.sealed().last(kAeadTagBytes)), tags[i]);
      if (forged[i]) continue;
      ASSERT_EQ(ToVector(m.sealed().first(m.plaintext.size())), m.plaintext);
    }
  }
}

TEST_P(Aead, EveryFlippedBitIsRejected) {
  const AeadKey key(Ascending(32));
  for (const std::size_t size : {0u, 1u, 16u, 63u, 64u, 65u, 255u, 256u, 257u}) {
    const auto sealed = Reference(key.bytes(), 9, Ascending(size));
    for (std::size_t bit = 0; bit < 8 * sealed.size(); ++bit) {
      auto forged = sealed;
      forged[bit / 8] = static_cast<std::uint8_t>(forged[bit / 8] ^ 1 << bit % 8);
      OpenJob job{forged.data(), forged.size(), 9, true};
      engine_->Open(key, {&job, 1});
      ASSERT_FALSE(job.is_authentic) << "size " << size << " bit " << bit;
    }
    auto intact = sealed;
    OpenJob right{intact.data(), intact.size(), 9}, wrong_counter{intact.data(), intact.size(), 10, true};
    engine_->Open(key, {&right, 1});
    EXPECT_TRUE(right.is_authentic);
    intact = sealed;
    engine_->Open(key, {&wrong_counter, 1});
    EXPECT_FALSE(wrong_counter.is_authentic);
  }
}

TEST_P(Aead, KeepaliveHasNoBodyAtAll) {
  const AeadKey key(Ascending(32));
  FencedBuffer out(kAeadTagBytes);
  const SealJob job{{}, nullptr, 0, 0, 77, out.data()};
  engine_->Seal(key, {&job, 1});
  EXPECT_EQ(ToVector(out.bytes()), Reference(key.bytes(), 77, {}));
  OpenJob open{out.data(), kAeadTagBytes, 77};
  engine_->Open(key, {&open, 1});
  EXPECT_TRUE(open.is_authentic);
}

TEST_P(Aead, EmptyBatchDoesNothing) {
  const AeadKey key(Ascending(32));
  engine_->Seal(key, {});
  engine_->Open(key, {});
}

// The trick that SealJob is made for: one super-packet, a header stamped in front of each payload, over the end of the
// payload before, which is sealed already.
TEST_P(Aead, HeadsMayOverwriteThePayloadsThatAreSealed) {
  constexpr std::size_t kSegments = 9, kPayload = 100, kHead = 52;
  SeededRandom random(3);
  const AeadKey key(Ascending(32));
  const auto original = RandomBytes(random, kHead + kSegments * kPayload + 16);
  const auto heads = RandomBytes(random, kSegments * kHead);
  auto packet = original;
  std::vector<std::vector<std::uint8_t>> outputs(kSegments);
  std::vector<SealJob> jobs;
  for (std::size_t i = 0; i < kSegments; ++i) {
    outputs[i].resize(kHead + kPayload + 8 + kAeadTagBytes);
    jobs.push_back({Bytes(heads).subspan(i * kHead, kHead), packet.data() + kHead + i * kPayload, kPayload, 8, i,
                    outputs[i].data()});
  }
  engine_->Seal(key, jobs);
  for (std::size_t i = 0; i < kSegments; ++i) {
    std::vector<std::uint8_t> plaintext(kHead + kPayload + 8);
    std::ranges::copy(Bytes(heads).subspan(i * kHead, kHead), plaintext.begin());
    std::ranges::copy(Bytes(original).subspan(kHead + i * kPayload, kPayload), plaintext.begin() + kHead);
    EXPECT_EQ(outputs[i], Reference(key.bytes(), i, plaintext)) << "segment " << i;
  }
}

TEST_P(Aead, AlternatingKeysAreNotConfused) {
  const AeadKey keys[] = {AeadKey(Ascending(32)), AeadKey(Ascending(32, 100))};
  const auto plaintext = Ascending(200);
  for (std::uint64_t counter = 0; counter < 100; ++counter) {
    const AeadKey& key = keys[counter * counter / 3 % 2];
    auto body = plaintext;
    body.resize(body.size() + kAeadTagBytes);
    const SealJob seal{{}, body.data(), plaintext.size(), 0, counter, body.data()};
    engine_->Seal(key, {&seal, 1});
    ASSERT_EQ(body, Reference(key.bytes(), counter, plaintext));
    OpenJob open{body.data(), body.size(), counter};
    engine_->Open(key, {&open, 1});
    ASSERT_TRUE(open.is_authentic);
    if (counter % 17 == 0) engine_->ForgetKeys();
  }
}

TEST_P(Aead, NewKeyAtTheAddressOfAFreedOneIsANewKey) {
  alignas(AeadKey) std::byte place[sizeof(AeadKey)];
  const auto plaintext = Ascending(64);
  for (std::uint8_t i = 0; i < 10; ++i) {
    const AeadKey* const key = new (place) AeadKey(Ascending(32, i));
    auto body = plaintext;
    body.resize(body.size() + kAeadTagBytes);
    const SealJob seal{{}, body.data(), plaintext.size(), 0, 5, body.data()};
    engine_->Seal(*key, {&seal, 1});
    EXPECT_EQ(body, Reference(Ascending(32, i), 5, plaintext));
    OpenJob open{body.data(), body.size(), 5};
    engine_->Open(*key, {&open, 1});
    EXPECT_TRUE(open.is_authentic);
    key->~AeadKey();
  }
}

TEST_P(Aead, EnginesOfSeveralThreadsShareOneKey) {
  const AeadKey key(Ascending(32));
  const auto plaintext = Ascending(1420);
  std::vector<std::jthread> threads;
  for (std::uint64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t, backend = GetParam()] {
      const auto engine = AeadEngine::Create(backend);
      for (std::uint64_t i = 0; i < 200; ++i) {
        auto body = plaintext;
        body.resize(body.size() + kAeadTagBytes);
        const SealJob seal{{}, body.data(), plaintext.size(), 0, t << 40 | i, body.data()};
        engine->Seal(key, {&seal, 1});
        EXPECT_EQ(body, Reference(key.bytes(), t << 40 | i, plaintext));
      }
    });
  }
}

TEST(AeadBackends, NamesAreReadAsTheyAreWritten) {
  for (const AeadBackend backend :
       {AeadBackend::kLanes, AeadBackend::kIpsecMb, AeadBackend::kOpenSsl, AeadBackend::kSodium}) {
    EXPECT_EQ(ParseAeadBackend(Name(backend)), backend);
  }
  EXPECT_FALSE(ParseAeadBackend("").has_value());
  EXPECT_FALSE(ParseAeadBackend("OpenSSL").has_value());
}

TEST(AeadBackends, MaskedAvx512LeavesThePortableOnesInTheSameOrder) {
  const std::vector<AeadBackend> portable{AeadBackend::kOpenSsl, AeadBackend::kSodium};
  EXPECT_EQ(AvailableAeadBackends(false), portable);
  auto all = AvailableAeadBackends(true);
  std::erase(all, AeadBackend::kLanes);
  std::erase(all, AeadBackend::kIpsecMb);
  EXPECT_EQ(all, portable);
}

}  // namespace
}  // namespace adit
