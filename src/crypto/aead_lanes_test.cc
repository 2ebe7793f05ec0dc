// The AEAD across the packets of a batch. What every backend must do is in aead_test.cc and vectors_test.cc; here are
// the kernel beside its twins, the plan, the self-test, and the long comparison with libsodium and ipsec-mb.
#include "crypto/aead_lanes.h"

#include <sodium.h>
#include <sys/wait.h>

#include <numeric>

#include "crypto/test_lanes_plain.h"
#include "crypto/test_rfc8439.h"
#include "crypto/test_support.h"

namespace adit {
namespace {

using internal::Lane;
using internal::LaneGroup;
using internal::LanesFunctions;
using internal::LanesScratch;

constexpr LanesFunctions kPlain{internal::SealLanesPlain, internal::OpenLanesPlain};

ByteArray<12> NonceOf(std::uint64_t counter) {
  ByteArray<12> nonce{};
  for (std::size_t i = 0; i < 8; ++i) nonce[4 + i] = static_cast<std::uint8_t>(counter >> (8 * i));
  return nonce;
}

std::vector<std::uint8_t> Libsodium(Bytes key, std::uint64_t counter, Bytes plaintext) {
  std::vector<std::uint8_t> sealed(plaintext.size() + kAeadTagBytes);
  crypto_aead_chacha20poly1305_ietf_encrypt(sealed.data(), nullptr, plaintext.data(), plaintext.size(), nullptr, 0,
                                            nullptr, NonceOf(counter).data(), key.data());
  return sealed;
}

class AeadLanes : public testing::Test {
 protected:
  static void SetUpTestSuite() { InitializeCrypto(); }
};

// RFC 8439, 2.8.2.
TEST_F(AeadLanes, TwinGivesTheExampleOfTheRfc) {
  std::vector<std::uint8_t> key;
  for (std::uint8_t i = 0x80; i < 0xA0; ++i) key.push_back(i);
  const std::string_view text =
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be "
      "it.";
  const std::vector<std::uint8_t> plaintext(text.begin(), text.end());
  const auto sealed =
      rfc8439::Seal(key, FromHex("070000004041424344454647"), FromHex("50515253c0c1c2c3c4c5c6c7"), plaintext);
  EXPECT_EQ(ToHex(Bytes(sealed).first(16)), "d31a8d34648e60db7b86afbc53ef7ec2");
  EXPECT_EQ(ToHex(Bytes(sealed).last(16)), "1ae10b594f09e26a7e902ecbd0600691");
}

TEST_F(AeadLanes, TwinAgreesWithLibsodium) {
  const std::uint64_t seed = DrawSeed();
  SCOPED_TRACE(seed);
  SeededRandom random(seed);
  for (int round = 0; round < 100; ++round) {
    const auto key = RandomBytes(random, 32);
    const auto plaintext = RandomBytes(random, random.Below(300));
    const std::uint64_t counter = std::uint64_t{random.NextU32()} << 32 | random.NextU32();
    ASSERT_EQ(rfc8439::Seal(key, NonceOf(counter), {}, plaintext), Libsodium(key, counter, plaintext));
  }
}

// A group of eight, in memory that ends where each message ends.
struct Group {
  Group(Random& random, std::span<const std::size_t> sizes) : key(RandomBytes(random, 32)) {
    group.key = key.data();
    for (std::size_t i = 0; i < internal::kLanes; ++i) {
      plaintexts.push_back(RandomBytes(random, sizes[i]));
      buffers.push_back(std::make_unique<FencedBuffer>(sizes[i]));
      std::ranges::copy(plaintexts[i], buffers[i]->data());
      Lane& lane = group.lanes[i];
      lane.input = lane.output = buffers[i]->data();
      lane.bytes = lane.input_bytes = sizes[i];
      lane.counter = ~std::uint64_t{0} - random.Below(2) * random.NextU32();
    }
  }
  std::vector<std::uint8_t> sealed(std::size_t i) {
    auto sealed = ToVector(buffers[i]->bytes());
    const auto* const tag = reinterpret_cast<const std::uint8_t*>(group.lanes[i].tag);
    sealed.insert(sealed.end(), tag, tag + kAeadTagBytes);
    return sealed;
  }

  std::vector<std::uint8_t> key;
  LaneGroup group;
  std::vector<std::vector<std::uint8_t>> plaintexts;
  std::vector<std::unique_ptr<FencedBuffer>> buffers;
};

TEST_F(AeadLanes, KernelOverPlainVectorsAgreesWithItsTwin) {
  const std::uint64_t seed = DrawSeed();
  SCOPED_TRACE(seed);
  SeededRandom random(seed);
  LanesScratch scratch;
  for (int round = 0; round < 40; ++round) {
    std::array<std::size_t, internal::kLanes> sizes;
    const std::size_t common = random.Below(600);
    for (auto& size : sizes) size = round % 2 == 0 ? common : random.Below(round % 4 == 1 ? 70 : 600);
    Group g(random, sizes);
    internal::SealLanesPlain(g.group, scratch);
    std::vector<std::vector<std::uint8_t>> sealed;
    for (std::size_t i = 0; i < internal::kLanes; ++i) {
      sealed.push_back(rfc8439::Seal(g.key, NonceOf(g.group.lanes[i].counter), {}, g.plaintexts[i]));
      ASSERT_EQ(g.sealed(i), sealed[i]) << "lane " << i << ", " << sizes[i] << " bytes";
    }
    internal::OpenLanesPlain(g.group, scratch);
    for (std::size_t i = 0; i < internal::kLanes; ++i) {
      ASSERT_EQ(ToVector(g.buffers[i]->bytes()), g.plaintexts[i]);
      ASSERT_EQ(ToVector(Bytes(g.sealed(i)).last(kAeadTagBytes)), ToVector(Bytes(sealed[i]).last(kAeadTagBytes)));
    }
  }
}

// Poly1305 where carries and the last reduction matter: r, s and message all ones, and results around p.
TEST_F(AeadLanes, ExtremeKeysAndMessagesAgreeWithTheTwin) {
  LanesScratch scratch;
  for (const int value : {0x00, 0x01, 0xFB, 0xFE, 0xFF}) {
    const auto fill = static_cast<std::uint8_t>(value);
    SeededRandom random(fill);
    const std::array<std::size_t, internal::kLanes> sizes{0, 16, 32, 48, 64, 80, 1024, 4096};
    Group g(random, sizes);
    // The ciphertext is what is authenticated: let it be `fill` everywhere.
    for (std::size_t i = 0; i < internal::kLanes; ++i) std::ranges::fill(g.buffers[i]->bytes(), fill);
    internal::OpenLanesPlain(g.group, scratch);
    for (std::size_t i = 0; i < internal::kLanes; ++i) {
      const auto nonce = NonceOf(g.group.lanes[i].counter);
      const auto expected = rfc8439::Seal(g.key, nonce, {}, g.buffers[i]->bytes());
      EXPECT_EQ(ToVector(Bytes(g.sealed(i)).last(kAeadTagBytes)), ToVector(Bytes(expected).last(kAeadTagBytes)))
          << value << " lane " << i;
    }
  }
}

// ---- the plan ----

void ExpectEachOnce(const internal::LanesPlan& plan, std::size_t count) {
  std::vector<int> seen(count);
  for (std::size_t i = 0; i < plan.group_count; ++i) {
    EXPECT_GE(plan.groups[i].count, 2);
    EXPECT_LE(plan.groups[i].count, internal::kLanes);
    for (std::size_t k = 0; k < plan.groups[i].count; ++k) ++seen.at(plan.order[plan.groups[i].first + k]);
  }
  for (std::size_t i = 0; i < plan.few_count; ++i) ++seen.at(plan.few[i]);
  EXPECT_EQ(seen, std::vector<int>(count, 1));
  EXPECT_TRUE(std::ranges::is_sorted(std::span(plan.few).first(plan.few_count)));
}

TEST_F(AeadLanes, PlanTakesASuperPacketInGroupsOfEightAndTheRestOneByOne) {
  std::vector<std::uint32_t> blocks(45, 23);
  blocks.back() = 4;
  const auto plan = internal::PlanLanes(blocks);
  ExpectEachOnce(plan, 45);
  EXPECT_EQ(plan.group_count, 5u);
  EXPECT_EQ(plan.few_count, 5u);
  EXPECT_EQ(plan.few[4], 44);
}

TEST_F(AeadLanes, PlanLeavesAFewLargePacketsToTheOtherEngine) {
  for (std::uint32_t count = 0; count <= 5; ++count) {
    const auto plan = internal::PlanLanes(std::vector<std::uint32_t>(count, 23));
    ExpectEachOnce(plan, count);
    EXPECT_EQ(plan.group_count, 0u) << count;
  }
  EXPECT_EQ(internal::PlanLanes(std::vector<std::uint32_t>(8, 23)).group_count, 1u);
  EXPECT_EQ(internal::PlanLanes(std::vector<std::uint32_t>(4, 1)).group_count, 1u);
}

TEST_F(AeadLanes, PlanPutsPacketsOfOneSizeTogether) {
  std::vector<std::uint32_t> blocks;
  for (int i = 0; i < 16; ++i) blocks.insert(blocks.end(), {23, 1});
  const auto plan = internal::PlanLanes(blocks);
  ExpectEachOnce(plan, 32);
  ASSERT_EQ(plan.group_count, 4u);
  for (std::size_t i = 0; i < 4; ++i) {
    for (std::size_t k = 0; k < 8; ++k) EXPECT_EQ(blocks[plan.order[plan.groups[i].first + k]], i < 2 ? 23u : 1u);
  }
}

TEST_F(AeadLanes, PlanOfAnySizesHasEachJobOnce) {
  const std::uint64_t seed = DrawSeed();
  SCOPED_TRACE(seed);
  SeededRandom random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::vector<std::uint32_t> blocks(random.Below(internal::kPlanJobs + 1));
    const std::uint32_t most = random.Below(2) == 0 ? 3 : 1025;
    for (auto& b : blocks) b = random.Below(most);
    ExpectEachOnce(internal::PlanLanes(blocks), blocks.size());
  }
}

// ---- the self-test ----

// What is broken in the kernel that goes through the self-test, and in which lane.
struct Fault {
  enum { kNone, kFirstByte, kLastByte, kTag, kTagOfLong, kOpenedByte, kOpenedTag, kUpperCounterWord } where = kNone;
  std::size_t lane = 0;
} fault;

void Flip(std::uint8_t& byte) { byte = static_cast<std::uint8_t>(byte ^ 0x10); }

void SealWithFault(LaneGroup& group, LanesScratch& scratch) {
  Lane& lane = group.lanes[fault.lane];
  const std::uint64_t counter = lane.counter;
  if (fault.where == Fault::kUpperCounterWord) lane.counter &= 0xFFFFFFFF;
  internal::SealLanesPlain(group, scratch);
  lane.counter = counter;
  if (fault.where == Fault::kFirstByte && lane.bytes > 0) Flip(lane.output[0]);
  if (fault.where == Fault::kLastByte && lane.bytes > 0) Flip(lane.output[lane.bytes - 1]);
  if (fault.where == Fault::kTag) lane.tag[1] ^= std::uint64_t{1} << 63;
  if (fault.where == Fault::kTagOfLong && lane.bytes > 1400) lane.tag[0] ^= 1;
}

void OpenWithFault(LaneGroup& group, LanesScratch& scratch) {
  internal::OpenLanesPlain(group, scratch);
  Lane& lane = group.lanes[fault.lane];
  if (fault.where == Fault::kOpenedByte && lane.bytes > 0) Flip(lane.output[lane.bytes / 2]);
  if (fault.where == Fault::kOpenedTag) lane.tag[0] ^= 1;
}

TEST_F(AeadLanes, SelfTestPassesTheKernelAndFindsEachFaultInEachLane) {
  fault = {};
  EXPECT_TRUE(internal::PassesSelfTest({SealWithFault, OpenWithFault}));
  for (const auto where : {Fault::kFirstByte, Fault::kLastByte, Fault::kTag, Fault::kTagOfLong, Fault::kOpenedByte,
                           Fault::kOpenedTag, Fault::kUpperCounterWord}) {
    for (std::size_t lane = 0; lane < internal::kLanes; ++lane) {
      fault = {where, lane};
      EXPECT_FALSE(internal::PassesSelfTest({SealWithFault, OpenWithFault})) << where << " in lane " << lane;
    }
  }
  fault = {};
}

TEST_F(AeadLanes, IsTheFirstChoiceWhereItRunsAndPassedItsTestAndNoneElsewhere) {
  for (const bool has_ipsec_mb : {false, true}) {
    const auto with = internal::ChooseBackends(true, has_ipsec_mb),
               without = internal::ChooseBackends(false, has_ipsec_mb);
    EXPECT_EQ(with.front(), AeadBackend::kLanes);
    EXPECT_EQ(std::ranges::count(without, AeadBackend::kLanes), 0);
    EXPECT_EQ(with.size(), without.size() + 1);
  }
}

// ---- the engine ----

// Also where there is no AVX-512: the engine over plain vectors, with libsodium for the few.
TEST_F(AeadLanes, EngineStampsHeadsOverSealedPayloadsAndPads) {
  const std::uint64_t seed = DrawSeed();
  SCOPED_TRACE(seed);
  SeededRandom random(seed);
  const auto engine = internal::MakeLanesEngineOf(kPlain, internal::MakeSodiumEngine());
  for (int round = 0; round < 60; ++round) {
    const AeadKey key(RandomBytes(random, 32));
    // Longer than the lanes take (256), sometimes.
    const std::size_t segments = 1 + random.Below(20), head = random.Below(round % 5 == 0 ? 300 : 120);
    const std::size_t payload = head + random.Below(200), last = random.Below(static_cast<std::uint32_t>(payload) + 1);
    const std::size_t padding = random.Below(16);
    const auto original = RandomBytes(random, head + segments * payload + 16);
    const auto heads = RandomBytes(random, segments * head);
    auto packet = original;
    std::vector<std::unique_ptr<FencedBuffer>> outputs;
    std::vector<SealJob> jobs;
    for (std::size_t i = 0; i < segments; ++i) {
      const std::size_t size = i + 1 == segments ? last : payload;
      outputs.push_back(std::make_unique<FencedBuffer>(head + size + padding + kAeadTagBytes));
      jobs.push_back({Bytes(heads).subspan(i * head, head), packet.data() + head + i * payload, size, padding,
                      ~std::uint64_t{0} - i, outputs[i]->data()});
    }
    engine->Seal(key, jobs);
    for (std::size_t i = 0; i < segments; ++i) {
      std::vector<std::uint8_t> plaintext = ToVector(jobs[i].head);
      const Bytes body = Bytes(original).subspan(head + i * payload, jobs[i].body_bytes);
      plaintext.insert(plaintext.end(), body.begin(), body.end());
      plaintext.resize(plaintext.size() + padding);
      ASSERT_EQ(ToVector(outputs[i]->bytes()), Libsodium(key.bytes(), jobs[i].counter, plaintext)) << "segment " << i;
    }
  }
}

TEST_F(AeadLanes, EngineSealsAndOpensABatchOfKeepalives) {
  const auto engine = internal::MakeLanesEngineOf(kPlain, internal::MakeSodiumEngine());
  const AeadKey key(Ascending(32));
  FencedBuffer out(11 * kAeadTagBytes);
  std::vector<SealJob> seals;
  std::vector<OpenJob> opens;
  for (std::size_t i = 0; i < 11; ++i) {
    seals.push_back({{}, nullptr, 0, 0, 100 + i, out.data() + i * kAeadTagBytes});
    opens.push_back({out.data() + i * kAeadTagBytes, kAeadTagBytes, 100 + i});
  }
  engine->Seal(key, seals);
  for (std::size_t i = 0; i < 11; ++i) {
    EXPECT_EQ(ToVector(out.bytes().subspan(i * kAeadTagBytes, kAeadTagBytes)), Libsodium(key.bytes(), 100 + i, {}));
  }
  out.data()[4 * kAeadTagBytes] ^= 1;
  engine->Open(key, opens);
  for (std::size_t i = 0; i < 11; ++i) EXPECT_EQ(opens[i].is_authentic, i != 4) << i;
}

// ---- the long comparison ----

// Packets of random lengths and counters through the kernel of this CPU, libsodium and ipsec-mb. ADIT_AEAD_PACKETS in
// the environment says how many; a run of 10^8 takes some minutes of one core, most of them libsodium's.
TEST_F(AeadLanes, AgreesWithLibsodiumAndIpsecMbOverManyPackets) {
  if (!internal::CpuRunsLanes()) GTEST_SKIP() << "this CPU has no AVX-512 with IFMA and VBMI2";
  const char* const wanted = std::getenv("ADIT_AEAD_PACKETS");
  const std::uint64_t packets = wanted != nullptr ? std::strtoull(wanted, nullptr, 10) : 100'000;
  const std::uint64_t seed = DrawSeed();
  SCOPED_TRACE(seed);
  SeededRandom random(seed);
  const auto lanes = AeadEngine::Create(AeadBackend::kLanes);
  const auto ipsec_mb = internal::CpuRunsIpsecMb() ? AeadEngine::Create(AeadBackend::kIpsecMb) : nullptr;

  constexpr std::size_t kMost = 64, kLongest = 2048, kSlot = kLongest + kAeadTagBytes;
  const auto source = RandomBytes(random, 1 << 20);
  std::vector<std::uint8_t> ours(kMost * kSlot), theirs(kMost * kSlot), sodium(kSlot);
  std::vector<SealJob> seals, seals_mb;
  std::vector<OpenJob> opens;
  std::uint64_t done = 0;
  while (done < packets) {
    const auto key_bytes = RandomBytes(random, 32);
    const AeadKey key(key_bytes);
    // A few groups of one length, of similar ones, or of any.
    const std::size_t count = 2 + random.Below(kMost - 1);
    const std::uint32_t longest = std::array<std::uint32_t, 4>{64, 300, 300, kLongest}[random.Below(4)];
    const std::uint32_t spread = std::array<std::uint32_t, 3>{1, 20, longest}[random.Below(3)];
    const std::uint32_t shortest = random.Below(longest - spread + 1);
    seals.clear();
    opens.clear();
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t size = shortest + random.Below(spread + 1) % (kLongest + 1);
      auto* const plaintext = const_cast<std::uint8_t*>(source.data()) + random.Below((1 << 20) - kLongest - 1);
      const std::uint64_t counter = std::uint64_t{random.NextU32()} << 32 | random.NextU32();
      seals.push_back({{}, plaintext, size, 0, counter, ours.data() + i * kSlot});
      opens.push_back({ours.data() + i * kSlot, size + kAeadTagBytes, counter});
    }
    seals_mb = seals;
    for (std::size_t i = 0; i < count; ++i) seals_mb[i].out = theirs.data() + i * kSlot;
    lanes->Seal(key, seals);
    if (ipsec_mb) ipsec_mb->Seal(key, seals_mb);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t size = seals[i].body_bytes;
      crypto_aead_chacha20poly1305_ietf_encrypt(sodium.data(), nullptr, seals[i].body, size, nullptr, 0, nullptr,
                                                NonceOf(seals[i].counter).data(), key_bytes.data());
      ASSERT_EQ(std::memcmp(seals[i].out, sodium.data(), size + kAeadTagBytes), 0) << done << " " << i << " " << size;
      ASSERT_TRUE(!ipsec_mb || std::memcmp(seals[i].out, seals_mb[i].out, size + kAeadTagBytes) == 0);
    }
    lanes->Open(key, opens);
    for (std::size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(opens[i].is_authentic) << done << " " << i;
      ASSERT_EQ(std::memcmp(opens[i].data, seals[i].body, seals[i].body_bytes), 0) << done << " " << i;
    }
    done += count;
  }
  std::printf("compared: %llu packets\n", static_cast<unsigned long long>(done));
}

// ---- secrets ----

// Runs `lanes_secrets` under valgrind with the argument; its exit status, 9 if valgrind found an error. -1: not there.
int UnderValgrind(const std::string& argument) {
#ifdef ADIT_LANES_SECRETS
  if (std::system("valgrind --version >/dev/null 2>&1") != 0) return -1;
  const int status = std::system(
      ("valgrind --quiet --error-exitcode=9 " ADIT_LANES_SECRETS " " + argument + " >/dev/null 2>&1").c_str());
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
#else
  static_cast<void>(argument);
  return -1;
#endif
}

// The kernel's source over plain vectors; that of AVX-512 differs in what an instruction is, and in no branch and no
// address. valgrind does not know AVX-512.
TEST_F(AeadLanes, NoBranchAndNoAddressDependsOnASecret_CONF19) {
  const int status = UnderValgrind("");
  if (status == -1)
    GTEST_SKIP() << "no valgrind, or not built for it (its header was missing, or there is a sanitizer)";
  EXPECT_EQ(status, 0);
}

TEST_F(AeadLanes, ValgrindWouldFindABranchOrAnAddressThatDoes) {
  const int status = UnderValgrind("branch");
  if (status == -1)
    GTEST_SKIP() << "no valgrind, or not built for it (its header was missing, or there is a sanitizer)";
  EXPECT_EQ(status, 9);
  EXPECT_EQ(UnderValgrind("address"), 9);
}

}  // namespace
}  // namespace adit
