// What a checker throws when an invariant does not hold. The run ends there: `sim` prints it with the seed, the time
// and the last events.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace adit::sim {

using HostId = std::size_t;
inline constexpr HostId kNobody = SIZE_MAX;

// Every invariant by name. Defects (defect.h) are matched to these, so that each is known to be able to fail.
enum class Check : std::uint8_t {
  kSealedOnce,        // a (key, counter) pair seals at most one message
  kKeyAge,            // nothing is sent under a key of 180 s or past its count
  kSlots,             // data leaves under `current` only, and nothing before it is confirmed
  kAccepts,           // a datagram is accepted if and only if it is authentic, new, and its session is one of the three
  kNoEffect,          // what is not accepted changes no counter, endpoint or timer
  kRoams,             // the endpoint is where the last authentic packet came from, and changes for nothing else
  kDeliveredOnce,     // an inner packet is delivered at most once
  kUnaltered,         // exactly as it was sent
  kRightHost,         // to whom it was sent
  kSourceAllowed,     // and only from whom its source address belongs to
  kInitiationAnswer,  // an initiation is answered if and only if it is authentic, new and asked for in its turn
  kResponseAccepted,  // a response completes exactly the handshake it answers
  kCookie,            // under load nothing is answered without mac2, and the answer is smaller
  kAmplification,     // no forged source gets more than it sent
  kInitiationRate,    // one handshake message in five seconds
  kAttemptLength,     // 20 initiations an attempt
  kFreshInitiation,   // every initiation has its own index and ephemeral
  kInitiationReason,  // no handshake without a reason
  kHandshakeStarts,   // no waiting packet without a handshake under way
  kKeyConfirmation,   // the initiator writes at once
  kPassiveKeepalive,  // data is acknowledged within 10 s
  kKeepaliveReason,   // no keepalive without a reason
  kNoAnswer,          // 15 s without an answer start a handshake
  kPersistentKeepalive,
  kZeroKeys,      // keys are gone 540 s after the last session
  kTimeouts,      // NextTimeout is not past after HandleTimeouts, and the inbox is empty
  kWakeups,       // an idle tunnel sleeps
  kStaged,        // what waits is bounded and accounted for
  kSessionCount,  // three sessions a peer; none without peers
  kLossless,      // on a perfect network rekeying loses nothing
  kLiveness,      // when faults stop, data flows again
  kRestartHeals,
  kSimultaneous,  // two initiations at once converge
  kCount_,
};

std::string_view Name(Check check);

struct Violation {
  Check check;
  HostId host;
  std::string text;
};

template <typename... Args>
[[noreturn]] void Violate(Check check, HostId host, fmt::format_string<Args...> format, Args&&... args) {
  throw Violation{check, host, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace adit::sim
