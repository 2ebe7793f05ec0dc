// resolvconf's interface: the command of openresolv, of Debian's resolvconf or of systemd, as wg-quick calls it. When
// resolv.conf no longer names our servers, because somebody wrote it or removed the record, the record is made again, a
// bounded number of times (trample.h). Behind a resolver on this machine that cannot be seen.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dns/backend.h"
#include "dns/resolv_file.h"
#include "dns/trample.h"

namespace adit {

// Runs a program with this input and returns its exit code. `past_end`: also while the program is shutting down.
using RunCommand =
    std::function<Result<int>(const std::vector<std::string>& words, const std::string& input, bool past_end)>;

// Debian's resolvconf orders its records by name, and an interface that it does not know comes last; wg-quick borrows
// the first prefix of that list ("tun." on most machines). `interface_order` is the text of that list, "" without one.
std::string ResolvconfRecordName(const std::string& interface_name, std::string_view interface_order);
std::string SystemResolvconfRecordName(const std::string& interface_name);

Status RemoveResolvconfRecord(const RunCommand& run, const std::string& record);

class ResolvconfDns : public DnsBackend {
 public:
  ResolvconfDns(RunCommand run, ResolvPaths paths, DnsSettings settings);
  DnsKind kind() const override { return DnsKind::kResolvconf; }
  // Blocks while the command runs; the caller's `run` may serve others meanwhile.
  void Apply(Instant now) override;
  Status Remove() override;
  int fd() const override { return watch_ ? watch_->fd() : -1; }
  void Process(Instant now) override;
  std::optional<Instant> next_at() const override { return is_adding_ ? std::nullopt : guard_.next_look(); }

 private:
  Status AddRecord();
  bool IsShown() const;
  void Look(Instant now);

  const RunCommand run_;
  const ResolvPaths paths_;
  const DnsSettings settings_;
  const std::string record_;
  bool was_taken_ = false;
  bool is_adding_ = false;  // the command runs, and serves others meanwhile
  std::unique_ptr<FileWatch> watch_;
  TrampleGuard guard_;
};

}  // namespace adit
