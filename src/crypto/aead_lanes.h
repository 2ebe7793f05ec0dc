// The AEAD across the messages of a batch, for this folder, its tests and its benchmark. Nobody else includes it.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "crypto/aead_lanes_kernel.h"
#include "crypto/internal.h"

namespace adit::internal {

// The kernel (aead_lanes_kernel.h) over one vector type.
struct LanesFunctions {
  void (*seal)(LaneGroup& group, LanesScratch& scratch);
  void (*open)(LaneGroup& group, LanesScratch& scratch);
};

// Eight messages of every kind of length, sealed and opened, beside libsodium. Takes some 50 us.
bool PassesSelfTest(const LanesFunctions& lanes);

// Seals and opens by `lanes` what comes in batches, and by `few` what comes in smaller numbers.
std::unique_ptr<AeadEngineForVectors> MakeLanesEngineOf(const LanesFunctions& lanes,
                                                        std::unique_ptr<AeadEngineForVectors> few);

// Which messages of a batch are sealed or opened together: a pure function of their sizes in blocks of 64 bytes.
inline constexpr std::size_t kPlanJobs = 64;
struct LanesPlan {
  struct Group {
    std::uint8_t first = 0, count = 0;  // in `order`
  };
  std::array<std::uint8_t, kPlanJobs> order;  // the jobs, each once
  std::array<Group, kPlanJobs / 2> groups;    // those for the lanes, 2 to 8 jobs each, of similar size
  std::size_t group_count = 0;
  std::array<std::uint8_t, kPlanJobs> few;  // the others, in the order of the batch
  std::size_t few_count = 0;
};
// REQUIRES: blocks.size() <= kPlanJobs.
LanesPlan PlanLanes(std::span<const std::uint32_t> blocks);

}  // namespace adit::internal
