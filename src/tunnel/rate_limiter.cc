#include "tunnel/rate_limiter.h"

#include <algorithm>

namespace adit {
namespace {

constexpr Duration kCost = Duration(1s) / kHandshakesPerSecond;
constexpr Duration kFull = kCost * kHandshakesBurst;
// A source that was quiet for a second has had the time to fill its bucket, so forgetting it changes nothing.
constexpr Duration kQuiet = 1s;
static_assert(kQuiet >= kFull);

}  // namespace

bool RateLimiter::Allow(const IpAddress& source, Instant now) {
  Sweep(now);

  Source key{.is_v6 = source.is_v6()};
  for (const std::uint8_t byte : source.bytes().first(source.is_v6() ? 8 : 4)) key.prefix = key.prefix << 8 | byte;

  if (const auto it = buckets_.find(key); it != buckets_.end()) {
    Bucket& bucket = it->second;
    bucket.tokens = std::min(kFull, bucket.tokens + (now - bucket.last_asked_at));
    bucket.last_asked_at = now;
    if (bucket.tokens < kCost) return false;
    bucket.tokens -= kCost;
    return true;
  }
  if (buckets_.size() >= kMaxRateLimitedSources) return false;
  buckets_.emplace(key, Bucket{.tokens = kFull - kCost, .last_asked_at = now});
  return true;
}

void RateLimiter::Sweep(Instant now) {
  if (now - last_sweep_at_ < kRateLimiterSweepInterval) return;
  last_sweep_at_ = now;
  std::erase_if(buckets_, [now](const auto& entry) { return now - entry.second.last_asked_at > kQuiet; });
}

}  // namespace adit
