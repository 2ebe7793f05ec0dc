// What the fuzz targets share: taking values off the front of the fuzzer's bytes, and a failure that both libFuzzer and
// the replay program notice.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/bytes.h"
#include "base/check.h"
#include "base/endian.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace adit {

// Never fails: behind the end everything is zero and every range is empty.
class FuzzInput {
 public:
  FuzzInput(const std::uint8_t* data, std::size_t size) : rest_(data, size) {}

  bool empty() const { return rest_.empty(); }
  std::uint8_t TakeByte() {
    if (rest_.empty()) return 0;
    const std::uint8_t byte = rest_.front();
    rest_ = rest_.subspan(1);
    return byte;
  }
  std::uint16_t TakeU16() {
    const std::uint16_t low = TakeByte();
    return static_cast<std::uint16_t>(low | TakeByte() << 8);
  }
  Bytes Take(std::size_t count) {
    const Bytes front = rest_.first(std::min(count, rest_.size()));
    rest_ = rest_.subspan(front.size());
    return front;
  }
  Bytes TakeRest() { return Take(rest_.size()); }
  std::string_view TakeText() {
    const Bytes rest = TakeRest();
    return {reinterpret_cast<const char*>(rest.data()), rest.size()};
  }

 private:
  Bytes rest_;
};

}  // namespace adit
