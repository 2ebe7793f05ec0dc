// /etc/resolv.conf itself (door): for machines and containers with nobody to ask.
//
// What was there before us is kept under /var/lib/adit/dns, so that it comes back even if the machine loses power while
// a tunnel is up:
//
//   lock          held for each change; several tunnels share the file
//   original      the file, or where the link led, before the first tunnel; replaced when somebody else writes
//   meanwhile,
//                 so that what comes back belongs to the network we are in and not to one that we left
//   NAME.tunnel   one per tunnel that is up: its servers, its turn, and the boot it belongs to
//
// A file is ours while it begins with kResolvConfMark; one that is not is never overwritten on the way down. Written by
// a temporary file and rename(2); in place where it is a mount point, as in containers.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "dns/backend.h"
#include "dns/trample.h"

namespace adit {

struct ResolvPaths {
  std::string file = "/etc/resolv.conf";
  std::string folder = "/var/lib/adit/dns";
  std::string boot_id;  // of now; empty: not known, and every record counts as of now
};

// With ADIT_STATE_DIR in place of /var/lib/adit, and the kernel's boot id.
ResolvPaths SystemResolvPaths();

// Saves the original if the file is not ours, records the tunnel, writes. Also drops records of earlier boots.
Status WriteResolvFile(const ResolvPaths& paths, const DnsSettings& settings);
// Writes again what the records say; what somebody else wrote is the original from now on.
Status RepairResolvFile(const ResolvPaths& paths);
// True if the file is what the records say.
Result<bool> ResolvFileIsOurs(const ResolvPaths& paths);
// Drops the record. After the last one the original comes back, if the file is still ours. Nothing to do: success.
Status RemoveFromResolvFile(const ResolvPaths& paths, const std::string& interface_name);
// Drops what a boot before this one left; true if there was something.
Result<bool> RemoveEarlierBoots(const ResolvPaths& paths);
bool HasResolvRecord(const ResolvPaths& paths, const std::string& interface_name);

// The machine's own resolv.conf at this moment, whether a tunnel is up or not. Empty text if there is none.
std::string ReadOwnResolvConf(const ResolvPaths& paths);

// Tells that something happened to a file or to what its name leads to. Watches the folder, and for a mount point or
// the target of a link the file itself.
class FileWatch {
 public:
  static Result<std::unique_ptr<FileWatch>> Open(const std::string& path);
  int fd() const { return fd_.get(); }
  // Reads all news; true if the file was meant. Follows a new file of that name.
  bool Process();

 private:
  FileWatch(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  void WatchFile();
  std::string path_;
  std::string name_;
  Fd fd_;
  int folder_watch_ = -1;
  int file_watch_ = -1;
};

class ResolvFileDns : public DnsBackend {
 public:
  ResolvFileDns(ResolvPaths paths, DnsSettings settings) : paths_(std::move(paths)), settings_(std::move(settings)) {}
  DnsKind kind() const override { return DnsKind::kFile; }
  void Apply(Instant now) override;
  Status Remove() override;
  int fd() const override { return watch_ ? watch_->fd() : -1; }
  void Process(Instant now) override;
  std::optional<Instant> next_at() const override { return guard_.next_look(); }

 private:
  void Look(Instant now);
  const ResolvPaths paths_;
  const DnsSettings settings_;
  std::unique_ptr<FileWatch> watch_;
  TrampleGuard guard_;
  std::string no_watch_;  // why there is none
};

}  // namespace adit
