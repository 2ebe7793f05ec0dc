// Addresses, endpoints and prefixes as text. Holds: what was understood is written in a form that is understood as the
// same value.
#include <cstring>

#include "base/address.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  const std::string_view text = FuzzInput(data, size).TakeText();

  if (const auto ip = IpAddress::Parse(text)) CHECK(IpAddress::Parse(ip->ToString()) == ip);
  if (const auto address = SocketAddress::Parse(text)) {
    CHECK(SocketAddress::Parse(address->ToString()) == address);
    sockaddr_storage storage;
    std::memset(&storage, 0, sizeof storage);
    address->ToSockaddr(storage);
    CHECK(SocketAddress::FromSockaddr(reinterpret_cast<const sockaddr*>(&storage)) == address);
  }
  bool had_host_bits = false;
  if (const auto prefix = Prefix::Parse(text, true, &had_host_bits)) {
    CHECK(prefix->length() <= prefix->address().bits());
    CHECK(prefix->Contains(prefix->address()));
    bool again_has_host_bits = true;
    CHECK(Prefix::Parse(prefix->ToString(), false, &again_has_host_bits) == prefix);
    CHECK(!again_has_host_bits);
  }
  return 0;
}
