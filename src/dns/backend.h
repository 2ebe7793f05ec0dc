// One way to tell the machine's resolver about a tunnel's servers: three stand behind it (resolved.h, resolvconf.h,
// resolv_file.h). None of them can take a tunnel down: what does not work is said in its state.
//
// Control thread only. Whoever drives one calls Process when fd() is readable and at next_at().
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/time.h"
#include "dns/resolv_conf.h"

namespace adit {

enum class DnsHealth {
  kPending,   // asked for, no answer yet
  kGood,      // in force
  kDegraded,  // not, or not for sure; `detail` says why
};

struct DnsState {
  DnsHealth health = DnsHealth::kPending;
  std::string detail;
  unsigned repairs = 0;  // how often it was put right after somebody else had changed it
};

class DnsBackend {
 public:
  virtual ~DnsBackend() = default;  // what is in force stays
  virtual DnsKind kind() const = 0;
  // Puts the settings in force, or begins to; the state tells.
  virtual void Apply(Instant now) = 0;
  // Takes them back.
  virtual Status Remove() = 0;

  virtual int fd() const { return -1; }
  virtual void Process(Instant) {}
  virtual std::optional<Instant> next_at() const { return std::nullopt; }

  const DnsState& state() const { return state_; }

 protected:
  void SetState(DnsHealth health, std::string detail = "") {
    state_.health = health;
    state_.detail = std::move(detail);
  }
  DnsState state_;
};

}  // namespace adit
