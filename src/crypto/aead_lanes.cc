// An AEAD of our own, across the messages of a batch: they share a key, so that eight of them fill the lanes of the
// kernel (aead_lanes_kernel.h), and none pays alone for its key block, for powers of r, or for a call. The rules that
// this exception stands under are in ARCHITECTURE.md.
//
// A batch goes this way:
//  1. `PlanLanes` orders the jobs by size and cuts them into groups, where that is cheaper than one by one.
//  2. The groups: heads are copied together with the beginning of their bodies, since they may not yet be written into
//     the payload of the job before; ciphers run from there, and from the bodies where they lie.
//  3. The others, one by one and in order, by the other engine. It writes heads in front of bodies, which by now are
//     needed by none but itself.
#include "crypto/aead_lanes.h"

#include <sodium.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace adit::internal {

LanesPlan PlanLanes(std::span<const std::uint32_t> blocks) {
  CHECK(blocks.size() <= kPlanJobs);
  // In time-stamp cycles on a Xeon with IFMA: a group and a step of the lanes, however few
  // use them; ipsec-mb's job and a block of it.
  constexpr std::uint32_t kGroup = 200, kStep = 690, kJob = 300, kBlock = 40;
  LanesPlan plan;
  const std::size_t count = blocks.size();
  for (std::size_t i = 0; i < count; ++i) plan.order[i] = static_cast<std::uint8_t>(i);
  const auto order = std::span(plan.order).first(count);
  const auto larger = [&](std::uint8_t a, std::uint8_t b) {
    return blocks[a] != blocks[b] ? blocks[a] > blocks[b] : a < b;
  };
  // A super-packet's segments already are: all but the last have one size.
  if (!std::ranges::is_sorted(order, larger)) std::ranges::sort(order, larger);

  for (std::size_t first = 0; first < count;) {
    const std::size_t size = std::min(kLanes, count - first);
    const std::uint32_t together = kGroup + kStep * (blocks[order[first]] / 2 + 1);  // with the block for the MAC key
    std::uint32_t apart = 0;
    for (const std::uint8_t job : order.subspan(first, size)) apart += kJob + kBlock * blocks[job];
    if (size > 1 && together < apart) {
      plan.groups[plan.group_count++] = {static_cast<std::uint8_t>(first), static_cast<std::uint8_t>(size)};
      first += size;
    } else {
      plan.few[plan.few_count++] = order[first++];
    }
  }
  std::ranges::sort(std::span(plan.few).first(plan.few_count));
  return plan;
}

namespace {

constexpr std::size_t kBlockBytes = 64;
// Fewer are never worth a group, of whatever size they are.
constexpr std::size_t kFewest = 3;
// The longest head that the lanes take. tun/split makes none that is longer.
constexpr std::size_t kMaxHead = 256;

std::uint32_t Blocks(std::size_t bytes) { return static_cast<std::uint32_t>((bytes + kBlockBytes - 1) / kBlockBytes); }

Bytes TagOf(const Lane& lane) { return Bytes(reinterpret_cast<const std::uint8_t*>(lane.tag), kAeadTagBytes); }

class LanesEngine final : public AeadEngineForVectors {
 public:
  LanesEngine(const LanesFunctions& lanes, std::unique_ptr<AeadEngineForVectors> few)
      : lanes_(lanes), few_(std::move(few)) {}

  AeadBackend backend() const override { return AeadBackend::kLanes; }

  void Seal(const AeadKey& key, std::span<const SealJob> jobs) override {
    if (jobs.size() < kFewest) return few_->Seal(key, jobs);
    for (; !jobs.empty(); jobs = jobs.subspan(std::min(jobs.size(), kPlanJobs))) {
      SealSome(key, jobs.first(std::min(jobs.size(), kPlanJobs)));
    }
  }

  void Open(const AeadKey& key, std::span<OpenJob> jobs) override {
    if (jobs.size() < kFewest) return few_->Open(key, jobs);
    for (; !jobs.empty(); jobs = jobs.subspan(std::min(jobs.size(), kPlanJobs))) {
      OpenSome(key, jobs.first(std::min(jobs.size(), kPlanJobs)));
    }
  }

  void ForgetKeys() override { few_->ForgetKeys(); }  // what the lanes knew is wiped after every call

  void SealOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, Bytes plaintext,
               std::uint8_t* out) override {
    LaneGroup group = One(key, nonce, associated_data);
    Lane& lane = group.lanes[0];
    lane.input = plaintext.data();
    lane.output = out;
    lane.bytes = lane.input_bytes = plaintext.size();
    lanes_.seal(group, scratch_);
    std::memcpy(out + lane.bytes, lane.tag, kAeadTagBytes);
    Wipe();
  }

  bool OpenOne(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data, MutableBytes sealed) override {
    LaneGroup group = One(key, nonce, associated_data);
    Lane& lane = group.lanes[0];
    lane.input = lane.output = sealed.data();
    lane.bytes = lane.input_bytes = sealed.size() - kAeadTagBytes;
    lanes_.open(group, scratch_);
    Wipe();
    return EqualInConstantTime(TagOf(lane), sealed.last(kAeadTagBytes));
  }

 private:
  void SealSome(const AeadKey& key, std::span<const SealJob> jobs) {
    std::array<std::uint32_t, kPlanJobs> blocks;
    bool has_long_head = false;
    for (std::size_t i = 0; i < jobs.size(); ++i) {
      blocks[i] = Blocks(jobs[i].plaintext_bytes());
      has_long_head |= jobs[i].head.size() > kMaxHead;
    }
    if (has_long_head) return few_->Seal(key, jobs);

    const LanesPlan plan = PlanLanes(std::span(blocks).first(jobs.size()));
    for (std::size_t i = 0; i < plan.group_count; ++i) {
      LaneGroup group;
      group.key = key.bytes().data();
      const auto members = std::span(plan.order).subspan(plan.groups[i].first, plan.groups[i].count);
      for (std::size_t m = 0; m < members.size(); ++m) SetLane(group.lanes[m], jobs[members[m]], starts_[m]);
      lanes_.seal(group, scratch_);
      for (std::size_t m = 0; m < members.size(); ++m) {
        std::memcpy(group.lanes[m].output + group.lanes[m].bytes, group.lanes[m].tag, kAeadTagBytes);
      }
    }
    if (plan.group_count > 0) Wipe();
    for (const std::uint8_t job : std::span(plan.few).first(plan.few_count)) few_->Seal(key, jobs.subspan(job, 1));
  }

  static void SetLane(Lane& lane, const SealJob& job, std::uint8_t* start) {
    CHECK(job.padding_bytes < 16 && (job.body != nullptr || job.plaintext_bytes() == 0));
    const std::size_t head_bytes = job.head.size();
    lane.input = job.body - head_bytes;
    lane.input_bytes = head_bytes + job.body_bytes;
    lane.output = job.out;
    lane.bytes = job.plaintext_bytes();
    lane.counter = job.counter;
    if (head_bytes == 0) return;
    lane.start = start;
    const std::size_t start_bytes = Blocks(head_bytes) * kBlockBytes;
    lane.start_bytes = static_cast<std::ptrdiff_t>(start_bytes);
    std::memcpy(start, job.head.data(), head_bytes);
    std::memcpy(start + head_bytes, job.body, std::min(job.body_bytes, start_bytes - head_bytes));
  }

  void OpenSome(const AeadKey& key, std::span<OpenJob> jobs) {
    std::array<std::uint32_t, kPlanJobs> blocks;
    for (std::size_t i = 0; i < jobs.size(); ++i) blocks[i] = Blocks(jobs[i].bytes - kAeadTagBytes);
    const LanesPlan plan = PlanLanes(std::span(blocks).first(jobs.size()));
    for (std::size_t i = 0; i < plan.group_count; ++i) {
      LaneGroup group;
      group.key = key.bytes().data();
      const auto members = std::span(plan.order).subspan(plan.groups[i].first, plan.groups[i].count);
      for (std::size_t m = 0; m < members.size(); ++m) {
        const OpenJob& job = jobs[members[m]];
        Lane& lane = group.lanes[m];
        lane.input = lane.output = job.data;
        lane.bytes = lane.input_bytes = job.bytes - kAeadTagBytes;
        lane.counter = job.counter;
      }
      lanes_.open(group, scratch_);
      for (std::size_t m = 0; m < members.size(); ++m) {
        const Lane& lane = group.lanes[m];
        jobs[members[m]].is_authentic =
            EqualInConstantTime(TagOf(lane), Bytes(lane.output + lane.bytes, kAeadTagBytes));
      }
    }
    if (plan.group_count > 0) Wipe();
    for (const std::uint8_t job : std::span(plan.few).first(plan.few_count)) few_->Open(key, jobs.subspan(job, 1));
  }

  static LaneGroup One(const AeadKey& key, const AeadNonce& nonce, Bytes associated_data) {
    LaneGroup group;
    group.key = key.bytes().data();
    std::memcpy(&group.nonce_head, nonce.data(), 4);
    std::memcpy(&group.lanes[0].counter, nonce.data() + 4, 8);
    group.associated_data = associated_data.data();
    group.associated_data_bytes = associated_data.size();
    return group;
  }

  void Wipe() { sodium_memzero(&scratch_, sizeof(scratch_)); }

  const LanesFunctions lanes_;
  const std::unique_ptr<AeadEngineForVectors> few_;
  LanesScratch scratch_;
  std::uint8_t starts_[kLanes][kMaxHead];
};

}  // namespace

std::unique_ptr<AeadEngineForVectors> MakeLanesEngineOf(const LanesFunctions& lanes,
                                                        std::unique_ptr<AeadEngineForVectors> few) {
  return std::make_unique<LanesEngine>(lanes, std::move(few));
}

bool PassesSelfTest(const LanesFunctions& lanes) {
  // Groups of one length and of mixed ones, around blocks, steps and the longest that the data path has at MTU 1500.
  constexpr std::size_t kLargest = 1500;
  constexpr std::uint16_t kSizes[][kLanes] = {
      {1424, 1424, 1424, 1424, 1424, 1424, 1424, 1424},
      {64, 64, 64, 64, 64, 64, 64, 64},
      {0, 1, 15, 16, 17, 63, 64, 65},
      {127, 128, 129, 191, 192, 193, 255, 256},
      {1500, 0, 1408, 1471, 1472, 1473, 32, 1488},
      {576, 1280, 575, 577, 1281, 1279, 960, 320},
  };
  LanesScratch scratch;
  std::uint8_t key[32];
  std::uint8_t plaintext[kLargest], expected[kLargest + kAeadTagBytes];
  std::uint8_t messages[kLanes][kLargest];
  for (std::size_t i = 0; i < sizeof(key); ++i) key[i] = static_cast<std::uint8_t>(7 * i + 1);
  for (std::size_t i = 0; i < kLargest; ++i) plaintext[i] = static_cast<std::uint8_t>(i * i / 3 + i);

  bool is_right = true;
  std::uint64_t counter = (std::uint64_t{1} << 32) - 20;  // both words of it count
  for (const auto& sizes : kSizes) {
    LaneGroup group;
    group.key = key;
    for (std::size_t i = 0; i < kLanes; ++i) {
      std::memcpy(messages[i], plaintext, sizes[i]);
      group.lanes[i].input = group.lanes[i].output = messages[i];
      group.lanes[i].bytes = group.lanes[i].input_bytes = sizes[i];
      group.lanes[i].counter = counter + i;
    }
    const auto agrees_with_libsodium = [&](const Lane& lane, bool is_sealed) {
      const CounterNonce nonce(lane.counter);
      crypto_aead_chacha20poly1305_ietf_encrypt(expected, nullptr, plaintext, lane.bytes, nullptr, 0, nullptr,
                                                nonce.data(), key);
      const std::uint8_t* const text = is_sealed ? expected : plaintext;
      return (lane.bytes == 0 || sodium_memcmp(lane.output, text, lane.bytes) == 0) &&
             EqualInConstantTime(TagOf(lane), Bytes(expected + lane.bytes, kAeadTagBytes));
    };
    lanes.seal(group, scratch);
    for (const Lane& lane : group.lanes) is_right = agrees_with_libsodium(lane, true) && is_right;
    for (Lane& lane : group.lanes) lane.tag[0] = lane.tag[1] = 0;
    lanes.open(group, scratch);
    for (const Lane& lane : group.lanes) is_right = agrees_with_libsodium(lane, false) && is_right;
    counter += kLanes;
  }
  return is_right;
}

#ifdef ADIT_HAVE_LANES

constexpr LanesFunctions kAvx512{SealLanesAvx512, OpenLanesAvx512};

bool CpuRunsLanes() {
  // The compiler's answer also covers whether the kernel saves these registers.
  static const bool runs = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                           __builtin_cpu_supports("avx512ifma") && __builtin_cpu_supports("avx512vbmi2") &&
                           __builtin_cpu_supports("bmi2") && PassesSelfTest(kAvx512);
  return runs;
}

std::unique_ptr<AeadEngineForVectors> MakeLanesEngine() {
  CHECK(CpuRunsLanes());
  return MakeLanesEngineOf(kAvx512, CpuRunsIpsecMb() ? MakeIpsecMbEngine() : MakeOpenSslEngine());
}

#else

bool CpuRunsLanes() { return false; }

std::unique_ptr<AeadEngineForVectors> MakeLanesEngine() { CHECK(false); }

#endif

}  // namespace adit::internal
