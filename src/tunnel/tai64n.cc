#include "tunnel/tai64n.h"

#include "base/endian.h"

namespace adit {
namespace {

// 2^62 is TAI64's zero; TAI was 10 s ahead of UTC when UTC got its leap seconds.
constexpr std::uint64_t kTai64Epoch = (std::uint64_t{1} << 62) + 10;
constexpr std::uint32_t kNanosecondsPerSecond = 1'000'000'000;

struct Fields {
  U64Be seconds;
  U32Be nanoseconds;
};
static_assert(sizeof(Fields) == sizeof(Tai64n::bytes));

Tai64n Encode(std::uint64_t seconds, std::uint32_t nanoseconds) {
  Tai64n stamp;
  Store(stamp.bytes.data(), Fields{.seconds = seconds, .nanoseconds = nanoseconds & ~(kTai64nStep - 1)});
  return stamp;
}

}  // namespace

Tai64n ToTai64n(WallTime now) { return Encode(kTai64Epoch + static_cast<std::uint64_t>(now.seconds), now.nanoseconds); }

Tai64n NextTai64n(const Tai64n& stamp) {
  const auto fields = LoadAs<Fields>(stamp.bytes.data());
  const std::uint32_t next = fields.nanoseconds + kTai64nStep;
  return next < kNanosecondsPerSecond ? Encode(fields.seconds, next) : Encode(fields.seconds + 1, 0);
}

}  // namespace adit
