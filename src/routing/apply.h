// The executor: performs operations in order through the journal, and takes them back in reverse. What it talks to is
// an OpTarget, so that a test can fail any operation at will.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "routing/diff.h"
#include "routing/journal.h"
#include "routing/netlink.h"
#include "routing/op.h"

namespace adit {

class OpTarget {
 public:
  virtual ~OpTarget() = default;
  // Reads into the op what its inverse will need (`previous`).
  virtual Status Prepare(Op& op) = 0;
  // One outcome each; goes on after a failed one.
  virtual std::vector<Status> Do(std::span<const Op> ops) = 0;
  // Takes each back, in the order given. What is gone already, or is no longer as we set it, is left alone and is
  // success.
  virtual std::vector<Status> Undo(std::span<const Op> ops) = 0;
  // Puts a route or a setting in the place of what stands under the same key.
  virtual Status Replace(const Op& op) = 0;
};

// The kernel, for one interface. Operations on that interface's name are meant for the link with that index: if the
// name has passed to another link, undoing leaves the newcomer alone.
class KernelTarget : public OpTarget {
 public:
  // The socket must outlive the target and be of the calling thread's network namespace.
  KernelTarget(NetlinkSocket& socket, std::string interface_name, std::uint32_t interface_index)
      : socket_(socket), name_(std::move(interface_name)), index_(interface_index) {}

  Status Prepare(Op& op) override;
  std::vector<Status> Do(std::span<const Op> ops) override;
  std::vector<Status> Undo(std::span<const Op> ops) override;
  Status Replace(const Op& op) override;

 private:
  bool LinkIsThere();
  std::uint32_t IndexOf(const Op& op);
  Status DoSetting(const Op& op);
  Status UndoSetting(const Op& op);
  NetlinkSocket& socket_;
  std::string name_;
  std::uint32_t index_;
};

// What became of an attempt to apply.
struct ApplyOutcome {
  Status status;
  bool something_left = false;  // it failed, and so did taking back what was done: the journal is still needed
};

// Performs all of `ops`; requests that follow each other go in batches of kApplyBatch, whose intents reach the disk
// together. Fills in the `previous` fields. On the first failure everything done so far is taken back and the Error
// names the operation and what the kernel said about it.
inline constexpr std::size_t kApplyBatch = 1024;
ApplyOutcome ApplyOps(OpTarget& target, Journal& journal, std::vector<Op>& ops);

// An operation in force, and which of the journal's intents it is.
struct InForce {
  Op op;
  std::size_t intent = 0;
};

// Makes `in_force` what `wanted` says, by Diff's `changes` between the two; `between` is called after the additions and
// before the removals. On an error everything is put back as it was and the outcome says what failed. `in_force` tells
// what is in force at the end, however it ends.
ApplyOutcome ApplyChanges(OpTarget& target, Journal& journal, std::vector<InForce>& in_force, std::vector<Op> wanted,
                          const std::vector<Change>& changes, const std::function<Status()>& between);

// Takes `ops` back, last first. Goes on after a failure; returns the first.
Status UndoOps(OpTarget& target, std::span<const Op> ops);

}  // namespace adit
