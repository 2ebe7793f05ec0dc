#include "routing/routing.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "routing/apply.h"
#include "routing/links.h"
#include "routing/netns.h"
#include "routing/take_snapshot.h"
#include "routing/verify.h"

namespace adit {
namespace {

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

Routing::Routing(Plan plan, std::vector<Op> applied, Journal journal, std::uint32_t interface_index)
    : plan_(std::move(plan)),
      applied_(std::move(applied)),
      journal_(std::move(journal)),
      interface_index_(interface_index) {}

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
  std::unique_ptr<Routing> routing(new Routing(plan, std::move(ops), std::move(*journal), link->index));
  routing->findings_ = std::move(findings.sentences);
  return routing;
}

Result<std::unique_ptr<Routing>> Routing::Up(const RoutingConfig& config, const std::string& journal_path) {
  if (Status clean = Cleanup(journal_path); !clean) return std::unexpected(clean.error());
  auto plan = PlanNow(config);
  if (!plan) return std::unexpected(plan.error());
  return Up(*plan, journal_path);
}

Result<std::vector<std::string>> Routing::Verify() const {
  auto socket = NetlinkSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  auto findings = VerifyPlan(*socket, plan_);
  if (!findings) return std::unexpected(findings.error());
  return std::move(findings->sentences);
}

Status Routing::Down() {
  if (applied_.empty()) return journal_.Remove();
  auto socket = NetlinkSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  KernelTarget target(*socket, plan_.interface_name, interface_index_);
  if (Status undone = UndoOps(target, applied_); !undone) return undone;
  applied_.clear();
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
