#include "routing/firewall.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iterator>
#include <utility>

#include "base/check.h"
#include "routing/netns.h"
#include "routing/nft_wire.h"
#include "routing/sysctl.h"

namespace adit {
namespace {

// What a table of ours may be now, and what it is to be. A table that is owned by nobody any more is taken over with
// the flags it has; one of a kernel, or of a time, without owners has none.
struct Flags {
  std::uint32_t now;
  std::uint32_t then;
};
constexpr Flags kAttempts[] = {
    {nft::kOwned | nft::kPersistent, nft::kOwned | nft::kPersistent}, {0, nft::kOwned | nft::kPersistent}, {0, 0}};

bool LacksSomething(int code) {
  return code == EOPNOTSUPP || code == EINVAL || code == ENOENT || code == EPROTONOSUPPORT;
}

// The old table, if there is one, goes in the transaction in which the new one comes: no packet sees neither.
Status CommitTable(NftSocket& socket, const nft::Table& table) {
  Status outcome;
  for (const Flags& flags : kAttempts) {
    std::vector<nft::Message> messages = nft::MakeTable(table.name, flags.now);
    std::ranges::move(nft::RemoveTable(table.name), std::back_inserter(messages));
    std::ranges::move(nft::MakeTable(table.name, flags.then), std::back_inserter(messages));
    std::ranges::move(nft::MakeContents(table), std::back_inserter(messages));
    outcome = socket.Commit(messages);
    if (outcome || !LacksSomething(outcome.error().code)) return outcome;
  }
  return outcome;
}

Result<std::string> OwnNamespace() {
  auto fd = CurrentNetworkNamespace();
  if (!fd) return std::unexpected(fd.error());
  return NetworkNamespaceIdentity(fd->get());
}

bool JournalExists(const std::string& path) { return access(path.c_str(), F_OK) == 0; }

// A journal that a process which died left here, in this network namespace.
struct OldJournal {
  Journal journal;
  JournalContents contents;
};
Result<OldJournal> OpenOldJournal(const std::string& path) {
  auto journal = Journal::Adopt(path);
  if (!journal) return std::unexpected(journal.error());
  auto contents = ReadJournal(path);
  if (!contents) return std::unexpected(contents.error());
  auto netns = OwnNamespace();
  if (!netns) return std::unexpected(netns.error());
  if (!contents->ops.empty() && *netns != contents->header.netns) {
    return FailErrno(EXDEV,
                     "the journal {} belongs to another network namespace; run the command there, or delete the file "
                     "if that namespace is gone",
                     path);
  }
  return OldJournal{std::move(*journal), std::move(*contents)};
}

std::string RefusalOf(const Error& error, const FirewallConfig& config) {
  if (config.kill_switch == KillSwitch::kOff) return error.message;
  return fmt::format("KillSwitch = {} is not possible here: {}", ToString(config.kill_switch), error.message);
}

// What a gateway needs beside the table.
std::vector<Op> SettingsOf(std::vector<Op> ops) {
  std::erase_if(ops, [](const Op& op) { return !std::holds_alternative<SetSysctl>(op); });
  return ops;
}

}  // namespace

Status FirewallTarget::Prepare(Op& op) {
  auto* const sysctl = std::get_if<SetSysctl>(&op);
  if (sysctl == nullptr) return {};
  auto value = ReadSysctl(sysctl->key);
  if (!value) return std::unexpected(value.error());
  sysctl->previous = *value;
  return {};
}

Status FirewallTarget::DoTable(const std::string& name) {
  CHECK(config_ != nullptr);
  FirewallConfig config = *config_;
  Status outcome = CommitTable(socket_, MakeFirewallTable(config));
  if (!outcome && config.has_extras && LacksSomething(outcome.error().code)) {
    config.has_extras = false;
    if (Status plain = CommitTable(socket_, MakeFirewallTable(config)); plain) {
      lacks_extras_ = true;
      return {};
    }
  }
  if (!outcome) return FailErrno(outcome.error().code, "{}: {}", name, RefusalOf(outcome.error(), *config_));
  return outcome;
}

// Without IPv4's switch nothing is forwarded. A read-only /proc/sys that lacks no more than IPv6's is no reason to
// refuse.
Status FirewallTarget::DoSysctl(const SetSysctl& op) {
  const Status written = WriteSysctl(op.key, op.value);
  if (written || op.key == "net/ipv4/ip_forward" || (written.error().code != EROFS && written.error().code != EACCES)) {
    return written;
  }
  refused_settings_.push_back(written.error().message);
  return {};
}

std::vector<Status> FirewallTarget::Do(std::span<const Op> ops) {
  std::vector<Status> outcomes;
  for (const Op& op : ops) {
    if (const auto* table = std::get_if<AddTable>(&op)) outcomes.push_back(DoTable(table->name));
    if (const auto* sysctl = std::get_if<SetSysctl>(&op)) outcomes.push_back(DoSysctl(*sysctl));
  }
  return outcomes;
}

std::vector<Status> FirewallTarget::Undo(std::span<const Op> ops) {
  std::vector<Status> outcomes;
  for (const Op& op : ops) {
    Status outcome;
    if (const auto* table = std::get_if<AddTable>(&op); table != nullptr && !table->stays) {
      outcome = socket_.Commit(nft::RemoveTable(table->name));
      if (!outcome && outcome.error().code == ENOENT) outcome = {};
    }
    if (const auto* sysctl = std::get_if<SetSysctl>(&op)) {
      const auto value = ReadSysctl(sysctl->key);
      // A device that went took its settings along.
      if (value && *value == sysctl->value && !sysctl->previous.empty()) {
        outcome = WriteSysctl(sysctl->key, sysctl->previous);
      }
    }
    outcomes.push_back(std::move(outcome));
  }
  return outcomes;
}

namespace {

// Each change of a forwarding switch for all links writes over the links' own, and IPv4's over `accept_redirects` of
// all. What was otherwise is first given the value that switching back will leave: undone later than the switch, it is
// put back then, also by who cleans up after a crash.
void KeepWhatForwardingResets(const NetSnapshot& snapshot, const std::string& tunnel, std::vector<Op>& ops) {
  const auto keep = [&](const std::string& key, const char* original, const char* left) {
    if (ReadSysctl(key).value_or(left) == original) ops.push_back(SetSysctl{key, left, {}});
  };
  for (const char* const family : {"ipv4", "ipv6"}) {
    const std::string conf = fmt::format("net/{}/conf", family);
    if (ReadSysctl(conf + "/all/forwarding").value_or("1") != "0") continue;
    if (conf == "net/ipv4/conf") keep(conf + "/all/accept_redirects", "0", "1");
    keep(conf + "/default/forwarding", "1", "0");
    for (const Link& link : snapshot.links) {
      if (link.name != tunnel) keep(fmt::format("{}/{}/forwarding", conf, link.name), "1", "0");
    }
  }
}

}  // namespace

std::vector<Op> FirewallOps(const FirewallConfig& config, const NetSnapshot& snapshot) {
  std::vector<Op> ops;
  ops.push_back(AddTable{FirewallTableName(config.interface_name), config.kill_switch == KillSwitch::kAlways});
  if (!config.gateway) return ops;
  const auto set = [&](const std::string& key, const std::string& value) {
    const auto now = ReadSysctl(key);
    if (now && *now != value) ops.push_back(SetSysctl{key, value, {}});
  };
  // A router hears no router advertisements unless told to (accept_ra = 2), and so would lose its own default route.
  for (const Link& link : snapshot.links) {
    const std::string key = fmt::format("net/ipv6/conf/{}/accept_ra", link.name);
    const auto now = ReadSysctl(key);
    if (now && *now == "1" && link.name != config.interface_name && link.name != "lo") set(key, "2");
  }
  KeepWhatForwardingResets(snapshot, config.interface_name, ops);
  set("net/ipv4/ip_forward", "1");
  set("net/ipv6/conf/all/forwarding", "1");
  return ops;
}

Result<std::unique_ptr<Firewall>> Firewall::Up(const FirewallConfig& config, const NetSnapshot& snapshot,
                                               const std::string& journal_path) {
  auto socket = NftSocket::Open();
  if (!socket) return FailErrno(socket.error().code, "{}", RefusalOf(socket.error(), config));
  // What an earlier run changed of the sysctls is put back first, so that what we find is the original; its table
  // stays until ours replaces it.
  if (JournalExists(journal_path)) {
    auto old = OpenOldJournal(journal_path);
    if (!old) return std::unexpected(old.error());
    std::erase_if(old->contents.ops, [](const Op& op) { return std::holds_alternative<AddTable>(op); });
    FirewallTarget undoing(*socket, nullptr);
    if (Status undone = UndoOps(undoing, old->contents.ops); !undone) return std::unexpected(undone.error());
    if (Status removed = old->journal.Remove(); !removed) return std::unexpected(removed.error());
  }
  auto netns = OwnNamespace();
  if (!netns) return std::unexpected(netns.error());
  auto journal = Journal::Create(journal_path, {config.interface_name, 0, *netns});
  if (!journal) return std::unexpected(journal.error());

  std::unique_ptr<Firewall> firewall(new Firewall(config, std::move(*socket), std::move(*journal)));
  firewall->applied_ = FirewallOps(config, snapshot);
  FirewallTarget target(firewall->socket_, &firewall->config_);
  ApplyOutcome applied = ApplyOps(target, firewall->journal_, firewall->applied_);
  if (!applied.status) {
    if (!applied.something_left) {
      if (Status removed = firewall->journal_.Remove(); !removed) return std::unexpected(removed.error());
    }
    return std::unexpected(applied.status.error());
  }
  if (target.lacks_extras()) {
    firewall->config_.has_extras = false;
    firewall->warnings_.push_back(
        "this kernel's nftables has no fib, nat, rt or conntrack: the spoof guard, the MSS clamp and masquerading are "
        "left out");
  }
  for (const std::string& refused : target.refused_settings()) firewall->warnings_.push_back(refused);
  firewall->table_ = MakeFirewallTable(firewall->config_);
  const auto flags = firewall->socket_.TableFlags(firewall->table_.name);
  firewall->is_owned_ = flags && *flags && (**flags & nft::kOwned) != 0 && (**flags & nft::kPersistent) != 0;
  if (!firewall->Remember()) {
    firewall->warnings_.push_back("the firewall cannot be read back: what others change in it goes unnoticed");
  }
  return firewall;
}

Status Firewall::Down() {
  if (!applied_.empty()) {
    FirewallTarget target(socket_, nullptr);
    if (Status undone = UndoOps(target, applied_); !undone) return undone;
    applied_.clear();
  }
  return journal_.Remove();
}

Status Firewall::Discard() {
  for (Op& op : applied_) {
    if (auto* table = std::get_if<AddTable>(&op)) table->stays = false;
  }
  return Down();
}

Status Firewall::Replace() {
  nft::Table table = MakeFirewallTable(config_);
  if (Status committed = CommitTable(socket_, table); !committed) return committed;
  table_ = std::move(table);
  Remember();
  return {};
}

Status Firewall::Reapply() { return Replace(); }

// Reads what was just made, so that it can be told from what others make of it. False if that is not possible: the
// table stands all the same.
bool Firewall::Remember() {
  contents_.reset();
  if (is_owned_) return true;
  const auto contents = socket_.ReadContents(table_.name, SetNames());
  if (contents) contents_ = *contents;
  return contents_.has_value();
}

std::size_t Firewall::RuleCount() const {
  std::size_t count = 0;
  for (const nft::Chain& chain : table_.chains) count += chain.rules.size();
  return count;
}

std::vector<std::string> Firewall::SetNames() const {
  std::vector<std::string> names;
  for (const nft::Set& set : table_.sets) {
    if (set.kind != nft::Set::Kind::kUser) names.push_back(set.name);  // its element goes when its time is over
  }
  return names;
}

Result<std::optional<std::string_view>> Firewall::FindHarm(bool thoroughly) {
  constexpr std::optional<std::string_view> kNone, kRemoved = "removed", kChanged = "changed";
  if (is_owned_ || !thoroughly || !contents_) {
    const auto flags = socket_.TableFlags(table_.name);
    if (!flags) return std::unexpected(flags.error());
    return *flags ? kNone : kRemoved;
  }
  const auto contents = socket_.ReadContents(table_.name, SetNames());
  if (!contents) return std::unexpected(contents.error());
  if (!*contents) return kRemoved;
  // The count is what we meant: who changed the table between our making and our reading it is found out by it.
  return *contents == contents_ && (*contents)->rules == RuleCount() ? kNone : kChanged;
}

Status Firewall::Update(const FirewallConfig& config) {
  FirewallConfig wanted = config;
  wanted.has_extras = config_.has_extras;
  if (wanted == config_) return {};
  nft::Table table = MakeFirewallTable(wanted);
  FirewallConfig elsewhere = wanted;
  elsewhere.endpoints = config_.endpoints;
  elsewhere.lan = config_.lan;
  elsewhere.own = config_.own;
  // Whether the chain of the port forwardings stays one, so that the chains that jump there stay right.
  const bool had_forwards = !config_.forwards.empty();
  if (had_forwards == !wanted.forwards.empty()) elsewhere.forwards = config_.forwards;
  if (elsewhere != config_) {
    std::swap(config_, wanted);
    Status replaced = Replace();
    if (!replaced) std::swap(config_, wanted);
    return replaced;
  }
  std::vector<nft::Message> messages;
  for (const nft::Set& set : table.sets) {
    const nft::Set* const before = table_.FindSet(set.name);
    if (before != nullptr)
      std::ranges::move(nft::ChangeElements(table.name, *before, set), std::back_inserter(messages));
  }
  if (wanted.forwards != config_.forwards && table.FindChain("forwards") != nullptr) {
    for (const char* name : {"forwards", "hairpin4", "hairpin6"}) {
      std::ranges::move(nft::ReplaceRules(table.name, *table.FindChain(name)), std::back_inserter(messages));
    }
  }
  // Found before it is covered by the change of ours.
  const auto harm = FindHarm(/*thoroughly=*/true);
  if (!harm) return std::unexpected(harm.error());
  if (Status committed = socket_.Commit(messages); !committed) return committed;
  config_ = std::move(wanted);
  table_ = std::move(table);
  if (!*harm) Remember();
  return {};
}

Status Firewall::StopBeingGateway() {
  FirewallTarget target(socket_, nullptr);
  if (Status undone = UndoOps(target, SettingsOf(applied_)); !undone) return undone;
  std::erase_if(applied_, [](const Op& op) { return std::holds_alternative<SetSysctl>(op); });
  return {};
}

Status Firewall::Reload(const FirewallConfig& config, const NetSnapshot& snapshot) {
  const FirewallConfig before = config_;
  const bool was_gateway = before.gateway;
  const std::vector<Op> applied_before = applied_;
  if (Status updated = Update(config); !updated)
    return FailErrno(updated.error().code, "{}", RefusalOf(updated.error(), config));
  Status outcome;
  if (config.gateway && !was_gateway) {
    std::vector<Op> settings = SettingsOf(FirewallOps(config, snapshot));
    FirewallTarget target(socket_, &config_);
    outcome = ApplyOps(target, journal_, settings).status;
    if (outcome) std::ranges::copy(settings, std::back_inserter(applied_));
  } else if (!config.gateway && was_gateway) {
    outcome = StopBeingGateway();
  }
  // A crash between here and the table leaves it as the former configuration would have: to be undone, or to stay.
  if (outcome && (config.kill_switch != before.kill_switch || config.gateway != was_gateway)) {
    std::vector<Op> ops = applied_;
    for (Op& op : ops) {
      if (auto* table = std::get_if<AddTable>(&op)) table->stays = config.kill_switch == KillSwitch::kAlways;
    }
    outcome = journal_.Rewrite(ops);
    if (outcome) applied_ = std::move(ops);
  }
  if (outcome) return {};
  Error error = outcome.error();
  if (config.gateway && !was_gateway) {
    if (Status undone = StopBeingGateway(); !undone) error.message += "; and: " + undone.error().message;
  } else if (!config.gateway && was_gateway) {
    // The journal has them still.
    applied_ = applied_before;
    FirewallTarget target(socket_, nullptr);
    for (const Status& again : target.Do(SettingsOf(applied_))) {
      if (!again) error.message += "; and: " + again.error().message;
    }
  }
  if (Status back = Update(before); !back) {
    error.message += "; and putting back the table failed: " + back.error().message;
  }
  return std::unexpected(error);
}

Status Firewall::SetEndpoints(std::vector<SocketAddress> endpoints) {
  FirewallConfig wanted = config_;
  wanted.endpoints = std::move(endpoints);
  return Update(wanted);
}

Status Firewall::SetLan(std::vector<Prefix> lan) {
  FirewallConfig wanted = config_;
  wanted.lan = std::move(lan);
  return Update(wanted);
}

Status CleanupFirewall(const std::string& journal_path, std::string* kept) {
  if (!JournalExists(journal_path)) return {};
  auto old = OpenOldJournal(journal_path);
  if (!old) return std::unexpected(old.error());
  auto socket = NftSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  FirewallTarget target(*socket, nullptr);
  if (Status undone = UndoOps(target, old->contents.ops); !undone) return undone;
  for (const Op& op : old->contents.ops) {
    const auto* const table = std::get_if<AddTable>(&op);
    if (table != nullptr && table->stays && kept != nullptr) *kept = table->name;
  }
  return old->journal.Remove();
}

Status CloseKillSwitch(const FirewallConfig& config) {
  auto socket = NftSocket::Open();
  if (!socket) return FailErrno(socket.error().code, "{}", RefusalOf(socket.error(), config));
  FirewallTarget target(*socket, &config);
  const Op op = AddTable{FirewallTableName(config.interface_name), true};
  return std::move(target.Do({&op, 1}).front());
}

Result<bool> OpenKillSwitch(const std::string& interface_name) {
  const std::string table = FirewallTableName(interface_name);
  auto socket = NftSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  const auto flags = socket->TableFlags(table);
  if (!flags) return std::unexpected(flags.error());
  if (!*flags) return false;
  if (Status removed = socket->Commit(nft::RemoveTable(table)); !removed) return std::unexpected(removed.error());
  return true;
}

Result<bool> HasFirewallTable(const std::string& interface_name) {
  auto socket = NftSocket::Open();
  if (!socket) return std::unexpected(socket.error());
  const auto flags = socket->TableFlags(FirewallTableName(interface_name));
  if (!flags) return std::unexpected(flags.error());
  return flags->has_value();
}

}  // namespace adit
