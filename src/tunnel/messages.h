// The four messages of the wire (paper, 5.4): the structs are the diagrams.
#pragma once

#include <cstdint>
#include <optional>
#include <type_traits>

#include "base/bytes.h"
#include "base/endian.h"
#include "crypto/primitives.h"

namespace adit {

// The first byte and three reserved zero bytes, read as one little-endian number.
enum class MessageType : std::uint32_t {
  kInitiation = 1,
  kResponse = 2,
  kCookieReply = 3,
  kData = 4,
};

inline constexpr std::size_t kTimestampBytes = 12;  // TAI64N

struct InitiationMessage {
  U32Le type;
  U32Le sender_index;
  ByteArray<kKeyBytes> ephemeral;
  ByteArray<kKeyBytes + kTagBytes> encrypted_static;
  ByteArray<kTimestampBytes + kTagBytes> encrypted_timestamp;
  Mac mac1;
  Mac mac2;
};
static_assert(sizeof(InitiationMessage) == 148 && alignof(InitiationMessage) == 1);

struct ResponseMessage {
  U32Le type;
  U32Le sender_index;
  U32Le receiver_index;
  ByteArray<kKeyBytes> ephemeral;
  ByteArray<kTagBytes> encrypted_nothing;
  Mac mac1;
  Mac mac2;
};
static_assert(sizeof(ResponseMessage) == 92 && alignof(ResponseMessage) == 1);

struct CookieReplyMessage {
  U32Le type;
  U32Le receiver_index;
  ByteArray<kXNonceBytes> nonce;
  ByteArray<kMacBytes + kTagBytes> encrypted_cookie;
};
static_assert(sizeof(CookieReplyMessage) == 64 && alignof(CookieReplyMessage) == 1);

// Followed by the sealed inner packet, padded, and its tag.
struct DataHeader {
  U32Le type;
  U32Le receiver_index;
  U64Le counter;
};
static_assert(sizeof(DataHeader) == 16 && alignof(DataHeader) == 1);

inline constexpr std::size_t kDataOverhead = sizeof(DataHeader) + kTagBytes;
// The longest inner packet: with header and tag it fills the largest UDP datagram over IPv4, 65,507 bytes.
inline constexpr std::size_t kMaxInnerBytes = 65507 - kDataOverhead;
inline constexpr std::size_t kKeepaliveBytes = kDataOverhead;  // a data message with nothing in it

// What a datagram is: a known type, reserved bytes zero, and exactly the type's length (data: at least kDataOverhead).
// Empty for everything else. Afterwards LoadAs<...>(datagram.data()) of that type's struct is safe.
inline std::optional<MessageType> ParseMessage(Bytes datagram) {
  if (datagram.size() < sizeof(U32Le)) return std::nullopt;
  const auto type = static_cast<MessageType>(std::uint32_t{LoadAs<U32Le>(datagram.data())});
  switch (type) {
    case MessageType::kInitiation:
      if (datagram.size() == sizeof(InitiationMessage)) return type;
      break;
    case MessageType::kResponse:
      if (datagram.size() == sizeof(ResponseMessage)) return type;
      break;
    case MessageType::kCookieReply:
      if (datagram.size() == sizeof(CookieReplyMessage)) return type;
      break;
    case MessageType::kData:
      if (datagram.size() >= kDataOverhead) return type;
      break;
  }
  return std::nullopt;
}

// A wire struct as its bytes; they live as long as the struct does.
template <typename T>
  requires(std::is_trivially_copyable_v<T> && alignof(T) == 1)
Bytes BytesOf(const T& message) {
  return Bytes(reinterpret_cast<const std::uint8_t*>(&message), sizeof(T));
}
template <typename T>
  requires(std::is_trivially_copyable_v<T> && alignof(T) == 1)
MutableBytes MutableBytesOf(T& message) {
  return MutableBytes(reinterpret_cast<std::uint8_t*>(&message), sizeof(T));
}

}  // namespace adit
