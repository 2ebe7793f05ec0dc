#include "routing/routing.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "routing/apply.h"
#include "routing/diff.h"
#include "routing/links.h"
#include "routing/netns.h"
#include "routing/sysctl.h"
#include "routing/take_snapshot.h"
#include "routing/verify.h"

namespace adit {
namespace {

// So many lines more than twice what is in force, and the journal is written anew.
constexpr std::size_t kJournalSlack = 256;

Result<std::string> OwnNamespace() {
  auto fd = CurrentNetworkNamespace();
  if (!fd) return std::unexpected(fd.error());
  return NetworkNamespaceIdentity(fd->get());
}

}  // namespace

Result<Plan> PlanNow(const RoutingConfig& config) {
  auto socket = NetlinkSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  auto snapshot = TakeSnapshot(*socket);
  if (!snapshot) return std::unexpected(snapshot.error());
  return MakePlan(config, *snapshot);
}

Routing::Routing(Plan plan, const std::vector<Op>& applied, Journal journal, NetlinkSocket socket,
                 std::uint32_t interface_index)
    : plan_(std::move(plan)),
      journal_(std::move(journal)),
      socket_(std::move(socket)),
      interface_index_(interface_index) {
  for (std::size_t i = 0; i < applied.size(); ++i) in_force_.push_back({applied[i], i});
  IndexRoutes();
}

Routing::~Routing() = default;

Result<std::unique_ptr<Routing>> Routing::Up(const Plan& plan, const std::string& journal_path) {
  auto socket = NetlinkSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  auto link = FindLink(*socket, plan.interface_name);
  if (!link) return std::unexpected(link.error());
  auto netns = OwnNamespace();
  if (!netns) return std::unexpected(netns.error());
  auto journal = Journal::Create(journal_path, {plan.interface_name, link->index, *netns});
  if (!journal) return std::unexpected(journal.error());

  KernelTarget target(*socket, plan.interface_name, link->index);
  std::vector<Op> ops = plan.ops;
  ApplyOutcome applied = ApplyOps(target, *journal, ops);
  Findings findings;
  if (applied.status) {
    auto verified = VerifyPlan(*socket, plan);
    if (!verified) {
      applied.status = std::unexpected(verified.error());
    } else if (verified->loops) {
      applied.status = FailErrno(ELOOP, "the tunnel would carry its own packets: {}", verified->sentences.front());
    } else {
      findings = std::move(*verified);
    }
    if (!applied.status) {
      if (Status undone = UndoOps(target, ops); !undone) {
        applied.status.error().message += "; and taking back what was done failed: " + undone.error().message;
        applied.something_left = true;
      }
    }
  }
  if (!applied.status) {
    if (!applied.something_left) {
      if (Status removed = journal->Remove(); !removed) return std::unexpected(removed.error());
    }
    return std::unexpected(applied.status.error());
  }
  std::unique_ptr<Routing> routing(new Routing(plan, ops, std::move(*journal), std::move(*socket), link->index));
  routing->findings_ = std::move(findings.sentences);
  return routing;
}

Result<std::unique_ptr<Routing>> Routing::Up(const RoutingConfig& config, const std::string& journal_path) {
  if (Status clean = Cleanup(journal_path); !clean) return std::unexpected(clean.error());
  auto plan = PlanNow(config);
  if (!plan) return std::unexpected(plan.error());
  return Up(*plan, journal_path);
}

std::vector<Op> Routing::ops() const {
  std::vector<Op> ops;
  ops.reserve(in_force_.size());
  for (const InForce& item : in_force_) ops.push_back(item.op);
  return ops;
}

Result<std::vector<std::string>> Routing::Verify() {
  auto findings = VerifyPlan(socket_, plan_);
  if (!findings) return std::unexpected(findings.error());
  findings_ = std::move(findings->sentences);
  return findings_;
}

std::optional<std::string> Routing::NoteHarm(const NetworkEvent& event) {
  std::size_t place = in_force_.size();
  if (const auto* link = std::get_if<Link>(&event.thing)) {
    if (link->name != plan_.interface_name || event.is_removal || link->is_up) return std::nullopt;
    place = FindInForce(LinkUp{link->name});
  } else if (!event.is_removal) {
    return std::nullopt;
  } else if (const auto* rule = std::get_if<Rule>(&event.thing)) {
    place = FindInForce(AddRule{*rule});
  } else if (const auto* route = std::get_if<Route>(&event.thing)) {
    place = FindInForce(AddRoute{*route});
  } else if (const auto* address = std::get_if<LinkAddress>(&event.thing)) {
    place = FindInForce(AddAddress{address->device, address->address});
  }
  if (place == in_force_.size()) return std::nullopt;
  harmed_.insert(place);
  return ToString(in_force_[place].op);
}

// Its place; in_force_.size() if it is not ours. A flush of 20,000 routes asks 20,000 times.
std::size_t Routing::FindInForce(const Op& op) const {
  const auto* route = std::get_if<AddRoute>(&op);
  if (route == nullptr) {
    return static_cast<std::size_t>(std::ranges::find_if(in_force_,
                                                         [&](const InForce& item) {
                                                           return item.op.index() == op.index() &&
                                                                  !std::holds_alternative<AddRoute>(item.op) &&
                                                                  item.op == op;
                                                         }) -
                                    in_force_.begin());
  }
  const auto found = route_places_.find(route->route);
  return found == route_places_.end() ? in_force_.size() : found->second;
}

void Routing::IndexRoutes() {
  harmed_.clear();
  route_places_.clear();
  for (std::size_t i = 0; i < in_force_.size(); ++i) {
    if (const auto* route = std::get_if<AddRoute>(&in_force_[i].op)) route_places_.emplace(route->route, i);
  }
}

RepairReport Routing::Repair() {
  const std::vector<std::size_t> places(harmed_.begin(), harmed_.end());
  harmed_.clear();
  RepairReport report = PutBack(places);
  report.failures.clear();  // a route before its link is up; the look at everything comes in a moment
  return report;
}

// The journal knows of them already, so there is nothing to write.
RepairReport Routing::PutBack(const std::vector<std::size_t>& places) {
  RepairReport report;
  std::vector<Op> ops;
  for (const std::size_t place : places) ops.push_back(in_force_[place].op);
  KernelTarget target(socket_, plan_.interface_name, interface_index_);
  const std::vector<Status> outcomes = target.Do(ops);
  for (std::size_t i = 0; i < ops.size(); ++i) {
    Status outcome = outcomes[i];
    const auto* route = std::get_if<AddRoute>(&ops[i]);
    const bool in_own_table =
        route != nullptr && route->route.table != kMainTable &&
        (route->route.table == plan_.specific_table || route->route.table == plan_.catch_all_table);
    if (!outcome && outcome.error().code == EEXIST && in_own_table) outcome = target.Replace(ops[i]);
    if (outcome) {
      ++report.repaired;
    } else if (outcome.error().code != EEXIST) {
      report.failures.push_back(fmt::format("cannot put back \"{}\": {}", ToString(ops[i]), outcome.error().message));
    }
  }
  return report;
}

RoutingConfig Routing::Anchored(RoutingConfig config) const {
  config.keep = {.mtu = plan_.routes_mtu != 0 ? plan_.routes_mtu : plan_.mtu,
                 .fwmark = plan_.fwmark,
                 .base_priority = plan_.base_priority,
                 .specific_table = plan_.specific_table,
                 .catch_all_table = plan_.catch_all_table};
  // The sockets' mark and the status say which way was chosen at up: no event changes it.
  if (plan_.loop_avoidance != LoopAvoidance::kAuto) config.loop_avoidance = plan_.loop_avoidance;
  return config;
}

Result<NetSnapshot> Routing::NetworkWithoutUs() {
  auto snapshot = TakeSnapshot(socket_);
  if (!snapshot) return std::unexpected(snapshot.error());
  return Without(std::move(*snapshot), ops());
}

Result<Plan> Routing::PlanAgain(const RoutingConfig& config) {
  const auto network = NetworkWithoutUs();
  if (!network) return std::unexpected(network.error());
  return MakePlan(Anchored(config), *network);
}

Status Routing::Reload(const Plan& plan, const std::function<Status()>& between) {
  const std::vector<Op> before = ops();
  const std::vector<Change> changes = Diff(before, plan.ops);
  KernelTarget target(socket_, plan_.interface_name, interface_index_);
  // With its primary address the kernel removes the others of the same network, unless it is told to promote one.
  const bool takes_address = std::ranges::any_of(changes, [&](const Change& change) {
    return change.kind == Change::Kind::kRemove && std::holds_alternative<AddAddress>(before[change.old]);
  });
  const std::string promote = fmt::format("net/ipv4/conf/{}/promote_secondaries", plan_.interface_name);
  const bool promotes = ReadSysctl(promote).value_or("0") != "0";
  if (takes_address && !promotes) SetPromoteSecondaries(socket_, plan_.interface_name, true);
  const ApplyOutcome outcome = ApplyChanges(target, journal_, in_force_, plan.ops, changes, between);
  if (takes_address && !promotes) SetPromoteSecondaries(socket_, plan_.interface_name, false);
  IndexRoutes();
  if (!outcome.status) return outcome.status;
  plan_ = plan;
  return ShortenJournal();
}

// A machine that roams for months must not have a journal of months.
Status Routing::ShortenJournal() {
  if (journal_.intent_count() <= 2 * in_force_.size() + kJournalSlack) return {};
  if (Status written = journal_.Rewrite(ops()); !written) return written;
  for (std::size_t i = 0; i < in_force_.size(); ++i) in_force_[i].intent = i;
  return {};
}

namespace {

// The MTU that we set, if somebody set another one since: that is his, and does not follow the network any more until
// it is ours again.
const SetMtu* OverriddenMtu(std::span<const Op> in_force, const NetSnapshot& snapshot) {
  for (const Op& op : in_force) {
    const auto* const ours = std::get_if<SetMtu>(&op);
    const Link* const link = ours != nullptr ? snapshot.FindLink(ours->device) : nullptr;
    if (link != nullptr && link->mtu != ours->mtu) return ours;
  }
  return nullptr;
}

void Keep(const SetMtu& ours, Plan& plan) {
  for (Op& op : plan.ops) {
    if (auto* const wanted = std::get_if<SetMtu>(&op)) wanted->mtu = plan.mtu = ours.mtu;
  }
}

}  // namespace

RepairReport Routing::Reconcile(const RoutingConfig& config, const std::function<Status(const Plan&)>& between) {
  RepairReport report;
  const auto fail = [&](const Error& error) { report.failures.push_back(error.message); };
  auto snapshot = TakeSnapshot(socket_);
  if (!snapshot) {
    fail(snapshot.error());
    return report;
  }
  harmed_.clear();
  const std::vector<Op> before = ops();
  report = PutBack(Missing(before, *snapshot));
  const SetMtu* const overridden = OverriddenMtu(before, *snapshot);
  auto plan = MakePlan(Anchored(config), Without(std::move(*snapshot), before));
  if (!plan) {
    fail(plan.error());
    return report;
  }
  if (overridden != nullptr) Keep(*overridden, *plan);
  const std::size_t changes = Diff(before, plan->ops).size();
  if (changes == 0) {
    plan_.ways = plan->ways;
    plan_.routes_mtu = plan->routes_mtu;
    plan_.least_mtu = plan->least_mtu;
    plan_.questions = plan->questions;
    plan_.warnings = plan->warnings;
    return report;
  }
  const Status reloaded = Reload(*plan, [&]() -> Status { return between ? between(*plan) : Status(); });
  if (reloaded) {
    report.changed = changes;
  } else {
    fail(reloaded.error());
  }
  return report;
}

Status Routing::Down() {
  if (in_force_.empty()) return journal_.Remove();
  KernelTarget target(socket_, plan_.interface_name, interface_index_);
  if (Status undone = UndoOps(target, ops()); !undone) return undone;
  in_force_.clear();
  IndexRoutes();
  return journal_.Remove();
}

Status Cleanup(const std::string& journal_path) {
  if (access(journal_path.c_str(), F_OK) != 0 && errno == ENOENT) return {};
  auto journal = Journal::Adopt(journal_path);
  if (!journal) return std::unexpected(journal.error());
  auto contents = ReadJournal(journal_path);
  if (!contents) return std::unexpected(contents.error());
  if (contents->ops.empty()) return journal->Remove();

  auto netns = OwnNamespace();
  if (!netns) return std::unexpected(netns.error());
  if (*netns != contents->header.netns) {
    return FailErrno(
        EXDEV,
        "the journal {} belongs to another network namespace; run the command there, or delete the file if "
        "that namespace is gone",
        journal_path);
  }
  auto socket = NetlinkSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  KernelTarget target(*socket, contents->header.interface_name, contents->header.interface_index);
  if (Status undone = UndoOps(target, contents->ops); !undone) return undone;
  return journal->Remove();
}

}  // namespace adit
