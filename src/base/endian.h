// Integers on the wire. A wire struct made of these has alignment 1 and no padding, so the struct is the diagram:
//
//   struct DataHeader { U32Le type, receiver_index; U64Le counter; };
//   static_assert(sizeof(DataHeader) == 16);
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace adit {

template <std::unsigned_integral T, std::endian Order>
class WireInteger {
 public:
  constexpr WireInteger() = default;
  constexpr WireInteger(T value) { *this = value; }

  constexpr WireInteger& operator=(T value) {
    for (std::size_t i = 0; i < sizeof(T); ++i) bytes_[i] = static_cast<std::uint8_t>(value >> Shift(i));
    return *this;
  }

  constexpr operator T() const {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
      value = static_cast<T>(value | static_cast<T>(T{bytes_[i]} << Shift(i)));
    return value;
  }

 private:
  static constexpr std::size_t Shift(std::size_t i) {
    return 8 * (Order == std::endian::little ? i : sizeof(T) - 1 - i);
  }
  std::uint8_t bytes_[sizeof(T)] = {};
};

using U16Le = WireInteger<std::uint16_t, std::endian::little>;
using U32Le = WireInteger<std::uint32_t, std::endian::little>;
using U64Le = WireInteger<std::uint64_t, std::endian::little>;
using U16Be = WireInteger<std::uint16_t, std::endian::big>;
using U32Be = WireInteger<std::uint32_t, std::endian::big>;
using U64Be = WireInteger<std::uint64_t, std::endian::big>;

static_assert(sizeof(U64Le) == 8 && alignof(U64Le) == 1);

// Reads or writes one wire struct at `at`. REQUIRES: sizeof(T) bytes there.
template <typename T>
T LoadAs(const void* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

template <typename T>
void Store(void* at, const T& value) {
  std::memcpy(at, &value, sizeof(T));
}

}  // namespace adit
