// The routing module's front door: plans, applies through a journal, verifies, and takes everything back.
//
//   Cleanup(journal)  ->  PlanNow(config)  ->  engine's sockets get plan.fwmark  ->  Routing::Up(plan, journal)  ->
//   Down()
//
// While it is up: NoteHarm and Repair put back what somebody else removed, Reconcile makes everything right again after
// any change of the machine, Reload takes another configuration.
//
// Works on the network namespace of the calling thread. Not thread-safe; blocks for milliseconds (20,000 allowed IPs:
// well below a second).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "routing/apply.h"
#include "routing/journal.h"
#include "routing/netlink.h"
#include "routing/network_event.h"
#include "routing/plan.h"

namespace adit {

// MakePlan on a fresh snapshot. Changes nothing.
Result<Plan> PlanNow(const RoutingConfig& config);

// What came of looking after things.
struct RepairReport {
  std::size_t repaired = 0;           // what had gone is back
  std::size_t changed = 0;            // what should be different by now is
  std::vector<std::string> failures;  // sentences: what could not be put right, and why
};

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
  // What the verifier found wrong the last time, as sentences; empty is good.
  const std::vector<std::string>& findings() const { return findings_; }
  // Events that carry this netlink port are our own doing.
  std::uint32_t port_id() const { return socket_.port_id(); }
  // The operations in force.
  std::vector<Op> ops() const;

  // Asks the kernel again.
  Result<std::vector<std::string>> Verify();

  // If the event took away something of ours: what, as text. It is remembered for Repair.
  std::optional<std::string> NoteHarm(const NetworkEvent& event);
  // Puts back at once what NoteHarm was told of, without looking at anything else. What cannot be put back now is left
  // to Reconcile.
  RepairReport Repair();

  // The machine as it would be if nothing of ours were there.
  Result<NetSnapshot> NetworkWithoutUs();
  // What `config` would need on this machine as it is now, as if nothing of ours were there; mark, tables and
  // priorities stay where that is possible.
  Result<Plan> PlanAgain(const RoutingConfig& config);
  // From what is in force to `plan`, by as few changes as possible. `between` is called when what is new is there and
  // what is old has not gone yet: the moment to give the sockets another mark. On an error everything is as before.
  Status Reload(const Plan& plan, const std::function<Status()>& between = {});
  // A look at everything: what is gone comes back, and what the machine's network asks for now is done (PlanAgain,
  // Reload). Foreign things stay, but for a route that took the place of ours in a table of ours.
  RepairReport Reconcile(const RoutingConfig& config, const std::function<Status(const Plan&)>& between = {});

  // Takes everything back in reverse order. What is gone already is fine, what others changed meanwhile stays. Goes on
  // after a failure and returns the first one; the journal is then kept for another try.
  Status Down();

 private:
  Routing(Plan plan, const std::vector<Op>& applied, Journal journal, NetlinkSocket socket,
          std::uint32_t interface_index);
  std::size_t FindInForce(const Op& op) const;
  void IndexRoutes();
  Status ShortenJournal();
  RoutingConfig Anchored(RoutingConfig config) const;
  RepairReport PutBack(const std::vector<std::size_t>& places);

  Plan plan_;
  std::vector<InForce> in_force_;
  Journal journal_;
  NetlinkSocket socket_;
  std::uint32_t interface_index_;
  std::set<std::size_t> harmed_;               // places in in_force_
  std::map<Route, std::size_t> route_places_;  // in in_force_
  std::vector<std::string> findings_;
};

// Takes back what a process that died left behind, by its journal, and removes the journal. No journal: nothing to do,
// success. Fails if a running process holds it, or if it belongs to another network namespace.
Status Cleanup(const std::string& journal_path);

}  // namespace adit
