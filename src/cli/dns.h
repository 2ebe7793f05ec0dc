// DNS = of a .conf file, in force on this machine: chooses one of the ways of src/dns, drives it while the tunnel is
// up, and takes it back, also after a crash. What fails here is said and costs the tunnel nothing.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/loop.h"
#include "cli/run_files.h"
#include "config/conf_file.h"
#include "dns/backend.h"
#include "dns/resolv_file.h"
#include "engine/fd_watch.h"

namespace adit {

// What `adit status` shows.
struct DnsReport {
  std::string backend;  // Name(DnsKind), "" if there is nothing to do
  std::string health;   // "pending", "good", "degraded"
  std::string detail;   // why it is degraded
  unsigned repairs = 0;
  std::vector<std::string> servers;
  std::vector<std::string> search_domains;
};

// ADIT_DNS: auto, resolved, resolvconf, file or off. Empty: auto.
Result<std::optional<DnsKind>> DnsKindFromEnvironment();

DnsSettings ToDnsSettings(const ConfFile& conf, const std::string& interface_name);

class TunnelDns {
 public:
  TunnelDns(Loop& loop, RunFiles files, DnsSettings settings);
  ~TunnelDns();
  TunnelDns(const TunnelDns&) = delete;
  TunnelDns& operator=(const TunnelDns&) = delete;

  // Tries one way after the other, `wanted` alone if given; waits at most kDnsWait for each. The interface exists. A
  // note in files.dns is written first, so that a crash leaves word of what to take back.
  void Apply(std::optional<DnsKind> wanted, std::uint32_t interface_index);
  Status Remove();
  DnsReport report() const;

 private:
  std::unique_ptr<DnsBackend> Make(DnsKind kind, std::uint32_t interface_index);
  void Drive();
  void Arm();

  Loop& loop_;
  const RunFiles files_;
  const DnsSettings settings_;
  const ResolvPaths paths_;
  std::unique_ptr<DnsBackend> backend_;
  std::string failed_ways_;  // what was tried before the present one and did not work
  bool is_off_ = false;
  std::string logged_;  // the last detail that was logged
  int watched_fd_ = -1;
  std::unique_ptr<FdWatch> watch_;
  boost::asio::steady_timer timer_;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
};

inline constexpr Duration kDnsWait = 5s;

// After a crash: takes back what files.dns and the records of resolv.conf speak of. Nothing there: success.
Status RemoveLeftDns(Loop& loop, const std::string& interface_name, const RunFiles& files);
bool HasLeftDns(const std::string& interface_name, const RunFiles& files);

}  // namespace adit
