// mac1, mac2 and cookies: what keeps a flood of handshake messages from costing us more than a hash each
// (paper, 5.3 and 5.4.4, 5.4.7).
//
//   mac1 proves that the sender knows our public key. Always checked, before any Diffie-Hellman.
//   mac2 proves that it owns its address: it is keyed with a cookie that we sent there. Checked under load only.
//
// A CookieChecker stands on the receiving side, one a device; a CookieJar on the sending side, one a peer. Neither
// reads a clock. Control thread only.
#pragma once

#include <cstdint>
#include <optional>

#include "base/address.h"
#include "base/bytes.h"
#include "base/random.h"
#include "base/time.h"
#include "crypto/primitives.h"
#include "tunnel/limits.h"
#include "tunnel/messages.h"

namespace adit {

// `message` is always a whole initiation or response, as bytes: mac1 covers all before it, mac2 that and mac1.
enum class MacVerdict {
  kInvalid,             // mac1 is wrong: drop, no answer
  kValidMac1,           // not under load, or without a valid mac2: then answer with a cookie
  kValidMac1AndCookie,  // under load, and the sender owns its address
};

class CookieChecker {
 public:
  explicit CookieChecker(const ProtocolLimits& limits = {}) : secret_max_age_(limits.cookie_secret_max_age) {}

  // Our own public key; call it again when the private key changes. Before the first call every mac1 is invalid.
  void SetPublicKey(const PublicKey& own);

  // `random` is used when the secret has to change.
  MacVerdict Check(Bytes message, const SocketAddress& from, bool is_under_load, Instant now, Random& random);

  // The answer to `message`, 64 bytes to its 148 or 92: nothing to gain for who forges the source. Keeps no state.
  // REQUIRES: Check() of this message did not return kInvalid.
  CookieReplyMessage CreateReply(Bytes message, const SocketAddress& from, Instant now, Random& random);

 private:
  // Changes every two minutes. Covers address and port, so that one host behind a NAT cannot use another's cookie.
  Mac MakeCookie(const SocketAddress& from, Instant now, Random& random);

  Duration secret_max_age_;
  bool has_key_ = false;
  Hash mac1_key_{};
  Hash cookie_key_{};
  SecretArray<32> secret_;
  std::optional<Instant> secret_made_at_;
};

class CookieJar {
 public:
  explicit CookieJar(const PublicKey& remote, const ProtocolLimits& limits = {});

  // Fills mac1, and mac2 if there is a fresh cookie, else zeros it. Remembers mac1: a reply must quote it.
  void AddMacs(MutableBytes message, Instant now);

  // True if the reply is authentic and answers the last message that AddMacs() saw; at most once per message, so a
  // replayed reply changes nothing. The cookie waits for the next message; nothing is to be sent because of it.
  bool ConsumeReply(const CookieReplyMessage& reply, Instant now);

 private:
  Duration max_use_;
  Hash mac1_key_;
  Hash cookie_key_;
  std::optional<Mac> last_mac1_sent_;  // empty once answered
  SecretArray<kMacBytes> cookie_;
  std::optional<Instant> cookie_received_at_;
};

}  // namespace adit
