// What a running tunnel keeps under /run/adit (ADIT_RUN_DIR), and the lock that says whether it is alive.
#pragma once

#include <string>
#include <vector>

#include "base/fd.h"
#include "base/result.h"

namespace adit {

struct RunFiles {
  std::string folder;
  std::string lock;      // NAME.lock, held by the process for its whole life; holds its pid
  std::string socket;    // NAME.sock, control_socket.h
  std::string journal;   // NAME.journal, of the routing module
  std::string firewall;  // NAME.firewall, the journal of the firewall
  std::string dns;       // NAME.dns, there while the machine's resolver knows of our servers: by which way
};

RunFiles RunFilesOf(const std::string& interface_name);
// Those with a lock, a socket or a journal, sorted. Nothing if the folder is missing; an error if it may not be read.
Result<std::vector<std::string>> KnownTunnels();

// A kill -9 releases it; so a lock that can be taken beside a journal means leftovers, and no process id is guessed at.
class TunnelLock {
 public:
  // EWOULDBLOCK if a running process has it; the message then names its pid. Makes the folder if needed.
  static Result<TunnelLock> Take(const RunFiles& files);
  TunnelLock(TunnelLock&&) = default;
  TunnelLock& operator=(TunnelLock&&) = default;
  ~TunnelLock();  // removes the file

 private:
  TunnelLock(std::string path, Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}
  std::string path_;
  Fd fd_;
};

}  // namespace adit
