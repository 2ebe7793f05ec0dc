#include "tunnel/cookie.h"

#include <algorithm>
#include <string_view>

#include "base/check.h"
#include "base/endian.h"

namespace adit {
namespace {

constexpr std::size_t kMac1FromEnd = 2 * kMacBytes;
constexpr std::size_t kMac2FromEnd = kMacBytes;

Hash LabelledHash(std::string_view label, const PublicKey& key) {
  return Blake2s({Bytes(reinterpret_cast<const std::uint8_t*>(label.data()), label.size()), key.bytes});
}
Hash Mac1Key(const PublicKey& receiver) { return LabelledHash("mac1----", receiver); }
Hash CookieKey(const PublicKey& receiver) { return LabelledHash("cookie--", receiver); }

Bytes Mac1Of(Bytes message) { return message.last(kMac1FromEnd).first(kMacBytes); }
Bytes Mac2Of(Bytes message) { return message.last(kMac2FromEnd); }

Mac ComputeMac1(const Hash& key, Bytes message) {
  return KeyedBlake2s128(key, {message.first(message.size() - kMac1FromEnd)});
}
Mac ComputeMac2(Bytes cookie, Bytes message) {
  return KeyedBlake2s128(cookie, {message.first(message.size() - kMac2FromEnd)});
}

}  // namespace

void CookieChecker::SetPublicKey(const PublicKey& own) {
  mac1_key_ = Mac1Key(own);
  cookie_key_ = CookieKey(own);
  has_key_ = true;
}

MacVerdict CookieChecker::Check(Bytes message, const SocketAddress& from, bool is_under_load, Instant now,
                                Random& random) {
  if (!has_key_ || !EqualInConstantTime(ComputeMac1(mac1_key_, message), Mac1Of(message))) return MacVerdict::kInvalid;
  if (!is_under_load) return MacVerdict::kValidMac1;
  const Mac cookie = MakeCookie(from, now, random);
  return EqualInConstantTime(ComputeMac2(cookie, message), Mac2Of(message)) ? MacVerdict::kValidMac1AndCookie
                                                                            : MacVerdict::kValidMac1;
}

CookieReplyMessage CookieChecker::CreateReply(Bytes message, const SocketAddress& from, Instant now, Random& random) {
  // Both handshake messages begin with their type and the sender's index.
  struct Head {
    U32Le type;
    U32Le sender_index;
  };
  CookieReplyMessage reply;
  reply.type = static_cast<std::uint32_t>(MessageType::kCookieReply);
  reply.receiver_index = LoadAs<Head>(message.data()).sender_index;
  random.Fill(reply.nonce);
  SealCookie(cookie_key_, reply.nonce, Mac1Of(message), MakeCookie(from, now, random), reply.encrypted_cookie);
  return reply;
}

Mac CookieChecker::MakeCookie(const SocketAddress& from, Instant now, Random& random) {
  if (!secret_made_at_ || now - *secret_made_at_ >= secret_max_age_) {
    random.Fill(secret_.mutable_bytes());
    secret_made_at_ = now;
  }
  const U16Be port = from.port;
  return KeyedBlake2s128(secret_, {from.ip.bytes(), BytesOf(port)});
}

CookieJar::CookieJar(const PublicKey& remote, const ProtocolLimits& limits)
    : max_use_(limits.cookie_max_use), mac1_key_(Mac1Key(remote)), cookie_key_(CookieKey(remote)) {}

void CookieJar::AddMacs(MutableBytes message, Instant now) {
  const Mac mac1 = ComputeMac1(mac1_key_, message);
  std::ranges::copy(mac1, message.last(kMac1FromEnd).begin());
  last_mac1_sent_ = mac1;

  Mac mac2{};
  if (cookie_received_at_ && now - *cookie_received_at_ < max_use_) mac2 = ComputeMac2(cookie_, message);
  std::ranges::copy(mac2, message.last(kMac2FromEnd).begin());
}

bool CookieJar::ConsumeReply(const CookieReplyMessage& reply, Instant now) {
  if (!last_mac1_sent_) return false;
  SecretArray<kMacBytes> cookie;
  if (!OpenCookie(cookie_key_, reply.nonce, *last_mac1_sent_, reply.encrypted_cookie, cookie.mutable_bytes())) {
    return false;
  }
  cookie_ = cookie;
  cookie_received_at_ = now;
  last_mac1_sent_.reset();
  return true;
}

}  // namespace adit
