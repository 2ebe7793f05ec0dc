// Text that may hold keys: as std::string, but its memory is wiped before it goes back to the heap.
#pragma once

#include <sodium.h>

#include <cstddef>
#include <memory>
#include <string>

namespace adit {

template <typename T>
struct WipingAllocator {
  using value_type = T;

  WipingAllocator() = default;
  template <typename U>
  WipingAllocator(const WipingAllocator<U>&) {}

  T* allocate(std::size_t n) { return std::allocator<T>().allocate(n); }
  void deallocate(T* at, std::size_t n) {
    sodium_memzero(at, n * sizeof(T));
    std::allocator<T>().deallocate(at, n);
  }
  friend bool operator==(const WipingAllocator&, const WipingAllocator&) { return true; }
};

// Texts of up to 15 characters live inside the object and are not wiped; every text form of a key is longer.
using SecretText = std::basic_string<char, std::char_traits<char>, WipingAllocator<char>>;

}  // namespace adit
