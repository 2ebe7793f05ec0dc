// The firewall of one tunnel, in force. It comes up before the routes and goes down after them, so that a crash at any
// moment leaves a machine with a kill switch closed. A journal of its own says what stands: `cleanup` undoes it, the
// next Up adopts it without opening a gap.
//
// Works on the network namespace of the calling thread. Not thread-safe; each call is one or a few netlink messages.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "routing/apply.h"
#include "routing/firewall_plan.h"
#include "routing/journal.h"
#include "routing/nft_socket.h"

namespace adit {

// The table and the sysctls of one firewall.
class FirewallTarget : public OpTarget {
 public:
  FirewallTarget(NftSocket& socket, const FirewallConfig* config) : socket_(socket), config_(config) {}
  Status Prepare(Op& op) override;
  std::vector<Status> Do(std::span<const Op> ops) override;
  std::vector<Status> Undo(std::span<const Op> ops) override;
  // A table takes the old one's place by being made.
  Status Replace(const Op& op) override { return std::move(Do({&op, 1}).front()); }

  // What `Do` left out because the kernel lacks it.
  bool lacks_extras() const { return lacks_extras_; }
  // And because /proc/sys is read-only, as sentences.
  const std::vector<std::string>& refused_settings() const { return refused_settings_; }

 private:
  Status DoTable(const std::string& name);
  Status DoSysctl(const SetSysctl& op);
  NftSocket& socket_;
  const FirewallConfig* config_;  // null where things are only taken back
  bool lacks_extras_ = false;
  std::vector<std::string> refused_settings_;
};

// The operations that a configuration means, in order. Reads the settings as they are now; what cannot be read, or is
// right already, is left alone.
std::vector<Op> FirewallOps(const FirewallConfig& config, const NetSnapshot& snapshot);

class Firewall {
 public:
  // Replaces whatever an earlier run left of this tunnel's table, in one transaction. On an error nothing new is left.
  static Result<std::unique_ptr<Firewall>> Up(const FirewallConfig& config, const NetSnapshot& snapshot,
                                              const std::string& journal_path);
  ~Firewall() = default;
  Firewall(const Firewall&) = delete;
  Firewall& operator=(const Firewall&) = delete;

  // Takes everything back; a KillSwitch = always stays closed. What others changed meanwhile is left as it is.
  Status Down();

  // The same, but a KillSwitch = always goes too: the file does not say so any more.
  Status Discard();

  // Makes the table anew.
  Status Reapply();
  std::uint32_t port_id() const { return socket_.port_id(); }
  bool is_owned() const { return is_owned_; }
  // What somebody did to the table, for a sentence: "removed" or "changed". With a kernel that keeps owned tables (6.9)
  // nobody else can. Cheap with `thoroughly` false, which only sees whether it is there.
  Result<std::optional<std::string_view>> FindHarm(bool thoroughly);

  // Follows what changed: sets by their elements, port forwardings by their chain, and all the rest by replacing the
  // table whole. Counters survive the former two.
  Status Update(const FirewallConfig& config);
  // From one configuration to another, kill switch and gateway too: the table in one transaction, the settings of a
  // gateway when its table stands. On an error everything is as before.
  Status Reload(const FirewallConfig& config, const NetSnapshot& snapshot);
  // Parts of it, for callers who know what changed.
  Status SetEndpoints(std::vector<SocketAddress> endpoints);
  Status SetLan(std::vector<Prefix> lan);

  const FirewallConfig& config() const { return config_; }
  const nft::Table& table() const { return table_; }
  const std::vector<std::string>& warnings() const { return warnings_; }
  Result<std::map<std::string, FirewallCount>> Counters() { return socket_.Counters(table_.name); }
  // What would become of a locally made packet, and which rule decides; for `adit explain`.
  nft::Verdict Judge(const nft::Packet& packet) const { return nft::Judge(table_, packet); }

 private:
  Firewall(FirewallConfig config, NftSocket socket, Journal journal)
      : config_(std::move(config)), socket_(std::move(socket)), journal_(std::move(journal)) {}
  Status Replace();
  bool Remember();
  std::size_t RuleCount() const;
  std::vector<std::string> SetNames() const;
  Status StopBeingGateway();

  FirewallConfig config_;
  NftSocket socket_;
  Journal journal_;
  nft::Table table_;
  std::vector<Op> applied_;
  bool is_owned_ = false;
  std::optional<NftSocket::Contents> contents_;  // as we made it; empty if owned, or if it could not be read
  std::vector<std::string> warnings_;
};

// Takes back what a process that died left behind, by its journal. A KillSwitch = always stays closed; its table's name
// goes to `kept` then.
Status CleanupFirewall(const std::string& journal_path, std::string* kept = nullptr);

// `adit killswitch`: a table that nobody runs for, until an `up` adopts it. Closing fails if a running process owns it.
Status CloseKillSwitch(const FirewallConfig& config);
// False if there was none.
Result<bool> OpenKillSwitch(const std::string& interface_name);
Result<bool> HasFirewallTable(const std::string& interface_name);

}  // namespace adit
