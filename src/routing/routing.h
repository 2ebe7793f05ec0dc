// The routing module's front door: plans, applies through a journal, verifies, and takes everything back.
//
//   Cleanup(journal)  ->  PlanNow(config)  ->  engine's sockets get plan.fwmark  ->  Routing::Up(plan, journal)  ->
//   Down()
//
// Works on the network namespace of the calling thread. Not thread-safe; blocks for milliseconds (20,000 allowed IPs:
// well below a second).
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.h"
#include "routing/journal.h"
#include "routing/plan.h"

namespace adit {

// MakePlan on a fresh snapshot. Changes nothing.
Result<Plan> PlanNow(const RoutingConfig& config);

// What is in force for one interface. The changes outlive this object and its process: only Down or Cleanup take them
// back. The journal file is held (flock) while the object lives, so that nobody cleans up under a running tunnel; a
// child process made by fork holds it too.
class Routing {
 public:
  // Applies `plan` to its interface, which must exist, and verifies it. On any error everything is taken back, the
  // journal is removed, and the Error names the operation and what the kernel said about it (code: its errno value). A
  // marked packet to an endpoint that would leave by the tunnel is such an error. Fails if `journal_path` exists: call
  // Cleanup first.
  static Result<std::unique_ptr<Routing>> Up(const Plan& plan, const std::string& journal_path);
  // The same with Cleanup and PlanNow in front; for callers that know the mark already (config.fwmark) or need none.
  static Result<std::unique_ptr<Routing>> Up(const RoutingConfig& config, const std::string& journal_path);

  ~Routing();
  Routing(const Routing&) = delete;
  Routing& operator=(const Routing&) = delete;

  const Plan& plan() const { return plan_; }
  std::uint32_t fwmark() const { return plan_.fwmark; }
  // What the verifier found wrong at Up, as sentences; empty is good.
  const std::vector<std::string>& findings() const { return findings_; }

  // Asks the kernel again.
  Result<std::vector<std::string>> Verify() const;

  // Takes everything back in reverse order. What is gone already is fine, what others changed meanwhile stays. Goes on
  // after a failure and returns the first one; the journal is then kept for another try.
  Status Down();

 private:
  Routing(Plan plan, std::vector<Op> applied, Journal journal, std::uint32_t interface_index);
  Plan plan_;
  std::vector<Op> applied_;
  Journal journal_;
  std::uint32_t interface_index_;
  std::vector<std::string> findings_;
};

// Takes back what a process that died left behind, by its journal, and removes the journal. No journal: nothing to do,
// success. Fails if a running process holds it, or if it belongs to another network namespace.
Status Cleanup(const std::string& journal_path);

}  // namespace adit
