#include "routing/apply.h"

#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <ranges>
#include <set>
#include <utility>

#include "routing/links.h"
#include "routing/wire.h"

namespace adit {
namespace {

// Operations that are one netlink request; the others ask and set in turn.
bool IsRequest(const Op& op) {
  return std::holds_alternative<AddAddress>(op) || std::holds_alternative<AddRoute>(op) ||
         std::holds_alternative<AddRule>(op);
}

// The kernel answers ENODEV.
constexpr std::uint32_t kNoSuchLink = INT32_MAX;

NetlinkMessage RequestFor(const Op& op, bool adding, std::uint32_t index) {
  if (const auto* address = std::get_if<AddAddress>(&op)) {
    return AddressMessage(adding ? RTM_NEWADDR : RTM_DELADDR, address->address, index);
  }
  if (const auto* route = std::get_if<AddRoute>(&op)) {
    return RouteMessage(adding ? RTM_NEWROUTE : RTM_DELROUTE, route->route, route->route.device.empty() ? 0 : index);
  }
  return RuleMessage(adding ? RTM_NEWRULE : RTM_DELRULE, std::get<AddRule>(op).rule);
}

// Whether the thing dies with the link of that name.
bool NeedsLink(const Op& op, const std::string& name) {
  if (std::holds_alternative<AddRule>(op)) return false;
  if (const auto* route = std::get_if<AddRoute>(&op)) return route->route.device == name;
  return true;
}

// How the kernel says that what should be deleted is not there: route, rule, address, device.
bool MeansGone(int code) { return code == ESRCH || code == ENOENT || code == EADDRNOTAVAIL || code == ENODEV; }

// `done` outcomes for those that pass `is_request`, in one go, and `single` for the rest, one after the other.
template <typename IndexOf, typename Single>
std::vector<Status> Perform(NetlinkSocket& socket, std::span<const Op> ops, bool adding, IndexOf index_of,
                            Single single) {
  std::vector<Status> outcomes;
  outcomes.reserve(ops.size());
  while (!ops.empty()) {
    if (!IsRequest(ops.front())) {
      outcomes.push_back(single(ops.front()));
      ops = ops.subspan(1);
      continue;
    }
    std::vector<NetlinkMessage> messages;
    for (const Op& op : ops) {
      if (!IsRequest(op)) break;
      messages.push_back(RequestFor(op, adding, index_of(op)));
    }
    ops = ops.subspan(messages.size());
    std::ranges::move(socket.RequestAll(messages), std::back_inserter(outcomes));
  }
  return outcomes;
}

}  // namespace

bool KernelTarget::LinkIsThere() {
  const auto link = FindLink(socket_, name_);
  return link && link->index == index_;
}

// Routes may lead by another link than ours: the uplink.
std::uint32_t KernelTarget::IndexOf(const Op& op) {
  const auto* route = std::get_if<AddRoute>(&op);
  if (route == nullptr || route->route.device.empty() || route->route.device == name_) return index_;
  const auto link = FindLink(socket_, route->route.device);
  return link ? link->index : kNoSuchLink;
}

Status KernelTarget::Prepare(Op& op) {
  if (auto* mtu = std::get_if<SetMtu>(&op)) {
    auto link = FindLink(socket_, mtu->device);
    if (!link) return std::unexpected(link.error());
    mtu->previous = link->mtu;
  }
  if (auto* mode = std::get_if<NoAddressGeneration>(&op)) {
    auto link = FindLink(socket_, mode->device);
    if (!link) return std::unexpected(link.error());
    mode->previous = link->address_generation;
  }
  return {};
}

std::vector<Status> KernelTarget::Do(std::span<const Op> ops) {
  return Perform(
      socket_, ops, /*adding=*/true, [this](const Op& op) { return IndexOf(op); },
      [this](const Op& op) { return DoSetting(op); });
}

Status KernelTarget::DoSetting(const Op& op) {
  if (const auto* mtu = std::get_if<SetMtu>(&op)) return SetLinkMtu(socket_, mtu->device, mtu->mtu);
  if (const auto* mode = std::get_if<NoAddressGeneration>(&op)) {
    return SetAddressGeneration(socket_, mode->device, kAddressGenerationNone);
  }
  return SetLinkUp(socket_, std::get<LinkUp>(op).device, true);
}

Status KernelTarget::UndoSetting(const Op& op) {
  if (const auto* mtu = std::get_if<SetMtu>(&op)) {
    auto link = FindLink(socket_, mtu->device);
    if (!link || link->mtu != mtu->mtu) return {};
    return SetLinkMtu(socket_, mtu->device, mtu->previous);
  }
  if (const auto* mode = std::get_if<NoAddressGeneration>(&op)) {
    auto link = FindLink(socket_, mode->device);
    if (!link || link->address_generation != kAddressGenerationNone || !mode->previous) return {};
    return SetAddressGeneration(socket_, mode->device, *mode->previous);
  }
  return SetLinkUp(socket_, std::get<LinkUp>(op).device, false);
}

std::vector<Status> KernelTarget::Undo(std::span<const Op> ops) {
  const bool link_is_there = LinkIsThere();
  std::vector<Op> standing;
  std::vector<std::size_t> place;
  for (std::size_t i = 0; i < ops.size(); ++i) {
    if (NeedsLink(ops[i], name_) && !link_is_there) continue;
    standing.push_back(ops[i]);
    place.push_back(i);
  }
  std::vector<Status> outcomes(ops.size());
  auto done = Perform(
      socket_, standing, /*adding=*/false, [this](const Op& op) { return IndexOf(op); },
      [this](const Op& op) { return UndoSetting(op); });
  for (std::size_t i = 0; i < done.size(); ++i) {
    if (!done[i] && !MeansGone(done[i].error().code)) outcomes[place[i]] = std::move(done[i]);
  }
  return outcomes;
}

Status KernelTarget::Replace(const Op& op) {
  const auto* route = std::get_if<AddRoute>(&op);
  if (route == nullptr) return std::move(Do({&op, 1}).front());
  NetlinkMessage message = RequestFor(op, /*adding=*/true, route->route.device == name_ ? index_ : 0);
  nlmsghdr* header = message.header();
  header->nlmsg_flags = static_cast<std::uint16_t>((header->nlmsg_flags & ~NLM_F_EXCL) | NLM_F_REPLACE);
  return socket_.Request(std::move(message));
}

ApplyOutcome ApplyOps(OpTarget& target, Journal& journal, std::vector<Op>& ops) {
  std::size_t done = 0;
  const auto failure = [&](const Op& op, const Error& error, std::span<const Op> to_undo) {
    ApplyOutcome outcome{FailErrno(error.code, "cannot do \"{}\": {}", ToString(op), error.message)};
    if (Status undone = UndoOps(target, to_undo); !undone) {
      outcome.status.error().message += "; and taking back what was done failed: " + undone.error().message;
      outcome.something_left = true;
    }
    return outcome;
  };

  while (done < ops.size()) {
    // A setting's previous value must be read after whatever came before it, so it goes alone.
    std::size_t count = 1;
    if (IsRequest(ops[done])) {
      while (count < kApplyBatch && done + count < ops.size() && IsRequest(ops[done + count])) ++count;
    }
    const std::span batch = std::span(ops).subspan(done, count);
    const std::span before = std::span(ops).first(done);
    for (Op& op : batch) {
      if (Status prepared = target.Prepare(op); !prepared) return failure(op, prepared.error(), before);
    }
    const std::size_t first_intent = journal.intent_count();
    if (Status written = journal.WriteIntents(batch); !written) return failure(batch[0], written.error(), before);

    const std::vector<Status> outcomes = target.Do(batch);
    const auto failed = std::ranges::find_if(outcomes, [](const Status& status) { return !status; });
    if (failed != outcomes.end()) {
      std::vector<Op> to_undo(before.begin(), before.end());
      for (std::size_t i = 0; i < count; ++i) {
        if (outcomes[i]) {
          to_undo.push_back(batch[i]);
        } else if (Status noted = journal.WriteFailure(first_intent + i); !noted) {
          return failure(batch[i], noted.error(), to_undo);
        }
      }
      return failure(batch[static_cast<std::size_t>(failed - outcomes.begin())], failed->error(), to_undo);
    }
    done += count;
  }
  return {};
}

namespace {

// One reload in the making. Everything that was done stands in done_, for the way back.
class Changer {
 public:
  Changer(OpTarget& target, Journal& journal, std::vector<InForce>& in_force)
      : target_(target), journal_(journal), in_force_(in_force) {}

  Status Add(std::vector<Op> ops) {
    for (Op& op : ops) {
      if (Status prepared = target_.Prepare(op); !prepared) return Explained("do", ToString(op), prepared.error());
    }
    const std::size_t first = journal_.intent_count();
    if (Status written = journal_.WriteIntents(ops); !written) return written;
    const std::vector<Status> outcomes = target_.Do(ops);
    Status result;
    for (std::size_t i = 0; i < ops.size(); ++i) {
      if (outcomes[i]) {
        in_force_.push_back({ops[i], first + i});
        done_.push_back({.added = in_force_.back(), .removed = {}});
      } else {
        if (result) result = Explained("do", ToString(ops[i]), outcomes[i].error());
        if (Status noted = journal_.WriteFailure(first + i); !noted) return noted;
      }
    }
    return result;
  }

  Status Replace(const InForce& old, Op op) {
    if (auto* mtu = std::get_if<SetMtu>(&op)) mtu->previous = std::get<SetMtu>(old.op).previous;
    const InForce now{op, journal_.intent_count()};
    if (Status written = journal_.WriteIntents({&op, 1}); !written) return written;
    if (Status replaced = target_.Replace(op); !replaced) {
      if (Status noted = journal_.WriteFailure(now.intent); !noted) return noted;
      return Explained("do", ToString(op), replaced.error());
    }
    Find(old.intent) = now;
    done_.push_back({.added = now, .removed = old});
    return journal_.WriteRemovals({&old.intent, 1});
  }

  Status Remove(const std::vector<InForce>& olds) {
    std::vector<Op> ops;
    for (const InForce& old : olds) ops.push_back(old.op);
    const std::vector<Status> outcomes = target_.Undo(ops);
    std::vector<std::size_t> removed;
    Status result;
    for (std::size_t i = 0; i < olds.size(); ++i) {
      if (!outcomes[i]) {
        if (result) result = Explained("do", InverseToString(ops[i]), outcomes[i].error());
        continue;
      }
      removed.push_back(olds[i].intent);
      done_.push_back({.added = {}, .removed = olds[i]});
    }
    const std::set<std::size_t> gone(removed.begin(), removed.end());
    std::erase_if(in_force_, [&](const InForce& item) { return gone.contains(item.intent); });
    if (Status written = journal_.WriteRemovals(removed); !written) return written;
    return result;
  }

  // Back to the beginning. Goes on after a failure and returns the first.
  Status RollBack() {
    Status result;
    const auto note = [&result](const Status& status) {
      if (!status && result) result = status;
    };
    const std::vector<Done> done = std::exchange(done_, {});
    for (const Done& step : std::views::reverse(done)) {
      if (step.added && step.removed) {
        note(Replace(*step.added, step.removed->op));
      } else if (step.added) {
        note(Remove({*step.added}));
      } else {
        note(Add({step.removed->op}));
      }
    }
    return result;
  }

 private:
  struct Done {
    std::optional<InForce> added;
    std::optional<InForce> removed;
  };
  static Status Explained(const char* verb, const std::string& what, const Error& error) {
    return FailErrno(error.code, "cannot {} \"{}\": {}", verb, what, error.message);
  }
  InForce& Find(std::size_t intent) { return *std::ranges::find(in_force_, intent, &InForce::intent); }

  OpTarget& target_;
  Journal& journal_;
  std::vector<InForce>& in_force_;
  std::vector<Done> done_;
};

}  // namespace

ApplyOutcome ApplyChanges(OpTarget& target, Journal& journal, std::vector<InForce>& in_force, std::vector<Op> wanted,
                          const std::vector<Change>& changes, const std::function<Status()>& between) {
  const std::vector<InForce> before = in_force;
  Changer changer(target, journal, in_force);
  const auto perform = [&]() -> Status {
    std::size_t at = 0;
    bool is_between_called = false;
    const auto call_between = [&]() -> Status {
      if (std::exchange(is_between_called, true) || !between) return {};
      return between();
    };
    while (at < changes.size()) {
      const Change& change = changes[at];
      // As in ApplyOps: requests of one kind that follow each other go together, settings alone.
      const auto goes_on = [&](std::size_t next) {
        return next < changes.size() && next - at < kApplyBatch && changes[next].kind == change.kind;
      };
      std::size_t end = at + 1;
      Status status;
      switch (change.kind) {
        case Change::Kind::kAdd: {
          std::vector<Op> ops{wanted[change.wanted]};
          while (IsRequest(ops.back()) && goes_on(end) && IsRequest(wanted[changes[end].wanted])) {
            ops.push_back(wanted[changes[end++].wanted]);
          }
          status = changer.Add(std::move(ops));
          break;
        }
        case Change::Kind::kReplace:
          status = changer.Replace(before[change.old], wanted[change.wanted]);
          break;
        case Change::Kind::kRemove: {
          if (status = call_between(); !status) break;
          std::vector<InForce> olds{before[change.old]};
          while (goes_on(end)) olds.push_back(before[changes[end++].old]);
          status = changer.Remove(olds);
          break;
        }
      }
      if (!status) return status;
      at = end;
    }
    return call_between();
  };

  ApplyOutcome outcome{perform()};
  if (outcome.status) return outcome;
  if (Status back = changer.RollBack(); !back) {
    outcome.status.error().message += "; and putting back what was there failed: " + back.error().message;
    outcome.something_left = true;
  }
  return outcome;
}

Status UndoOps(OpTarget& target, std::span<const Op> ops) {
  std::vector<Op> reversed(ops.rbegin(), ops.rend());
  const std::vector<Status> outcomes = target.Undo(reversed);
  for (std::size_t i = 0; i < outcomes.size(); ++i) {
    if (outcomes[i]) continue;
    return FailErrno(outcomes[i].error().code, "cannot do \"{}\": {}", InverseToString(reversed[i]),
                     outcomes[i].error().message);
  }
  return {};
}

}  // namespace adit
