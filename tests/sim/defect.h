// Defects planted on purpose, one at a time, to show that each checker can fail: `sim --self-test`. They live in the
// harness around the core (host.cc, world.cc); the core is always the product's.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "violation.h"

namespace adit::sim {

enum class Defect : std::uint8_t {
  kNone,
  kDeliverTwice,
  kAlterPayload,
  kDeliverElsewhere,
  kAllowSpoofedSource,
  kReuseCounter,
  kOldKeys,
  kSendUnconfirmed,
  kForgetReplays,
  kLoseSession,
  kTouchTimers,
  kRoamOnBadPackets,
  kAnswerReplays,
  kAcceptBadResponses,
  kIgnoreLoad,
  kAmplify,
  kEagerInitiations,
  kEndlessAttempt,
  kSameEphemeral,
  kNeedlessHandshakes,
  kNoHandshakes,
  kNoKeyConfirmation,
  kNoPassiveKeepalive,
  kKeepaliveEcho,
  kNoAnswerTimer,
  kSlowPersistentKeepalive,
  kKeepKeys,
  kSkipTimeouts,
  kBusyTimer,
  kLeakStaged,
  kLeakSession,
  kLoseAtRekey,
  kDeafWhenQuiet,
  kDeafAfterRestart,
  kDeafWhenSimultaneous,
};

struct DefectCase {
  Defect defect;
  std::string_view name;
  Check caught_by;
};

inline constexpr std::array<DefectCase, 34> kDefectCases = {{
    {Defect::kDeliverTwice, "a packet is delivered twice", Check::kDeliveredOnce},
    {Defect::kAlterPayload, "a byte of the payload changes", Check::kUnaltered},
    {Defect::kDeliverElsewhere, "a packet comes out at another host", Check::kRightHost},
    {Defect::kAllowSpoofedSource, "a peer may use a source that is not its own", Check::kSourceAllowed},
    {Defect::kReuseCounter, "a counter is used again", Check::kSealedOnce},
    {Defect::kOldKeys, "a key is used for twice its time", Check::kKeyAge},
    {Defect::kSendUnconfirmed, "the responder sends before it is confirmed", Check::kSlots},
    {Defect::kForgetReplays, "the replay window forgets", Check::kAccepts},
    {Defect::kLoseSession, "a live session is not in the table", Check::kSessionCount},
    {Defect::kTouchTimers, "a bad packet sets a timer", Check::kNoEffect},
    {Defect::kRoamOnBadPackets, "a bad packet moves the endpoint", Check::kRoams},
    {Defect::kAnswerReplays, "a replayed initiation is answered", Check::kInitiationAnswer},
    {Defect::kAcceptBadResponses, "a response to no handshake is accepted", Check::kResponseAccepted},
    {Defect::kIgnoreLoad, "load is ignored", Check::kCookie},
    {Defect::kAmplify, "cookie replies go out by the hundred", Check::kAmplification},
    {Defect::kEagerInitiations, "initiations are not held back", Check::kInitiationRate},
    {Defect::kEndlessAttempt, "an attempt does not end", Check::kAttemptLength},
    {Defect::kSameEphemeral, "the random generator repeats itself", Check::kFreshInitiation},
    {Defect::kNeedlessHandshakes, "handshakes without a reason", Check::kInitiationReason},
    {Defect::kNoHandshakes, "requests for a handshake get lost", Check::kHandshakeStarts},
    {Defect::kNoKeyConfirmation, "the initiator stays silent", Check::kKeyConfirmation},
    {Defect::kNoPassiveKeepalive, "passive keepalives are not sent", Check::kPassiveKeepalive},
    {Defect::kKeepaliveEcho, "keepalives are answered", Check::kKeepaliveReason},
    {Defect::kNoAnswerTimer, "silence is not noticed", Check::kNoAnswer},
    {Defect::kSlowPersistentKeepalive, "the persistent keepalive is late", Check::kPersistentKeepalive},
    {Defect::kKeepKeys, "keys are kept for ever", Check::kZeroKeys},
    {Defect::kSkipTimeouts, "what is due is left undone", Check::kTimeouts},
    {Defect::kBusyTimer, "the timer runs for nothing", Check::kWakeups},
    {Defect::kLeakStaged, "a waiting packet's memory is not given back", Check::kStaged},
    {Defect::kLeakSession, "a session stays in the table", Check::kSessionCount},
    {Defect::kLoseAtRekey, "packets get lost at a rekey", Check::kLossless},
    {Defect::kDeafWhenQuiet, "a host stays deaf when faults are over", Check::kLiveness},
    {Defect::kDeafAfterRestart, "a restarted host stays deaf", Check::kRestartHeals},
    {Defect::kDeafWhenSimultaneous, "simultaneous initiations do not converge", Check::kSimultaneous},
}};

}  // namespace adit::sim
