// Borrowed views of bytes, and fixed-size byte arrays.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace adit {

// Bytes that somebody else owns. A view does not outlive the call it was passed to, unless the callee says so.
using Bytes = std::span<const std::uint8_t>;
using MutableBytes = std::span<std::uint8_t>;

template <std::size_t N>
using ByteArray = std::array<std::uint8_t, N>;

}  // namespace adit
