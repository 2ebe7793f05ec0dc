// Finds out how large a packet may be to get through a tunnel whose path swallows what is too large for it and says
// nothing (a black hole: RFC 2923, 2.1; the remedy is that of RFC 8899). Pure: the time and the answers go in, probes
// come out; cli/path_probe.h sends them, cli/mtu_keeper.h drives both.
//
//   1. a small packet     does the peer answer at all, and how soon? Else nothing is known, and nothing changes.
//   2. one of full size   answered: the path is clear. Two packets, that is all.
//   3. halving            between what passed and what did not
//   4. once more          the smallest that did not pass: loss must not look like a black hole
//
// A size counts as swallowed if none of its kTries was answered and a small packet sent after them was. So a tunnel
// that went down, or a peer that had answered enough for now, is no black hole: nothing is known then.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/time.h"

namespace adit {

enum class MtuVerdict {
  kSearching,
  kUnknown,  // nobody answered, or the answers do not fit together
  kClear,    // the full size passes
  kLimited,  // only packets up to result() pass
};

class MtuSearch {
 public:
  static constexpr unsigned kSmallBytes = 64;  // passes wherever IP does
  static constexpr unsigned kTries = 3;
  // Data messages are padded to this (the paper, 5.4.6), so sizes in between need the same room on the path.
  static constexpr unsigned kStep = 16;
  // How long an answer may take: before one has come, and from then on this much more than the first one took.
  static constexpr Duration kFirstTimeout = 1s;
  static constexpr Duration kLeastTimeout = 250ms;
  static constexpr Duration kLongestTimeout = 3s;
  static constexpr int kTimeoutRtts = 4;
  // Linux sends one address six ICMP errors at once and then one a second (net.ipv4.icmp_ratelimit). One of the six is
  // left for others that ask, and a little time for clocks.
  static constexpr unsigned kAnswerBurst = 5;
  static constexpr Duration kAnswerEvery = 1050ms;
  // 4 destinations and 12 halvings (65535 bytes), with all tries and confirmations, are 96.
  static constexpr std::size_t kMaxDestinations = 4;
  static constexpr std::size_t kMaxProbes = 128;

  struct Probe {
    std::uint16_t id = 0;         // counts from 0, below kMaxProbes
    std::size_t destination = 0;  // which of the candidates
    unsigned bytes = 0;           // of the whole inner packet
  };

  // Sizes from `floor` to `full` are tried. REQUIRES: kSmallBytes < floor < full, destinations in 1..kMaxDestinations.
  MtuSearch(unsigned floor, unsigned full, std::size_t destination_count);

  // What is to be sent now, if anything; until it says nothing, and again at next_at() or after an answer.
  std::optional<Probe> Advance(Instant now);
  Instant next_at() const { return next_at_; }
  // Late ones and strangers' are welcome.
  void OnAnswer(std::uint16_t id, Instant now);

  MtuVerdict verdict() const { return verdict_; }
  // Of kLimited: the largest size that passed; 0 if not even `floor` did.
  unsigned result() const { return passed_ < 0 ? 0 : sizes_[static_cast<std::size_t>(passed_)]; }
  std::size_t probe_count() const { return sent_.size(); }

 private:
  enum class Phase { kGreeting, kMeasuring, kConfirming };
  struct Sent {
    int size = -1;  // place in sizes_; -1: a small one
    std::size_t destination = 0;
    Instant at;
    bool is_answered = false;
  };
  void OnSilence();
  void Ask(int size);
  void AskNext();
  void Spend(Instant now);

  std::vector<unsigned> sizes_;  // rising
  std::size_t destination_count_;
  MtuVerdict verdict_ = MtuVerdict::kSearching;
  Phase phase_ = Phase::kGreeting;
  int passed_ = -1;  // the largest that passed
  int swallowed_;    // the smallest that did not; one past the last while there is none
  int asked_ = -1;   // the size in question
  bool is_last_question_ = false;
  unsigned tries_ = 0;
  bool is_waiting_ = false;  // for the answer to the last probe
  std::size_t destination_ = 0;
  std::size_t confirming_from_ = 0;  // probes from this one on were sent after the size in question
  Duration timeout_ = kFirstTimeout;
  Instant next_at_;
  Instant answers_full_at_;  // when the peer's bucket of answers will be full again
  std::vector<Sent> sent_;   // by id
};

}  // namespace adit
