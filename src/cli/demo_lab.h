// The demo's two hosts: network namespaces without names, joined by a veth pair, and the `adit` processes in them. All
// of it vanishes with this process, however that ends.
//
//   laptop: eth0 192.0.2.2/24, default via 192.0.2.1; no IPv6 but the tunnel's
//   server: eth0 192.0.2.1/24; the endpoint 203.0.113.10 and two "sites on the internet" on its loopback
#pragma once

#include <sys/types.h>

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"
#include "routing/snapshot.h"

namespace adit {

struct DemoHost {
  std::string name;        // "laptop"
  std::string tunnel;      // its WireGuard interface
  std::string run_folder;  // ADIT_RUN_DIR of its process
  std::string conf_file;
  Fd netns;
  pid_t process = 0;  // of `adit run`, 0 if none
};

class DemoLab {
 public:
  // Moves the calling process into a mount namespace of its own with an empty /run, where the demo's files go. Codes
  // EPERM, ENOENT (no /dev/net/tun).
  static Result<DemoLab> Create();
  DemoLab(DemoLab&&) = default;
  DemoLab& operator=(DemoLab&&) = default;
  ~DemoLab();  // ends the processes

  DemoHost laptop;
  DemoHost server;

  // `adit run` of its .conf file, as a child that dies with us.
  Status Start(DemoHost& host);
  // What its control socket says; an error if it does not answer, or has ended.
  Result<nlohmann::ordered_json> AskStatus(DemoHost& host) const;
  // SIGTERM, and waits for the end. The exit code; an error if there was none within some seconds.
  Result<int> Stop(DemoHost& host);
  // What its stderr said so far.
  std::string Log(const DemoHost& host) const;

  static Result<NetSnapshot> Snapshot(const DemoHost& host);

 private:
  DemoLab() = default;
  Status BuildNetwork();
  Status WriteFiles();
};

inline constexpr const char* kDemoUplink = "eth0";
inline constexpr std::uint16_t kDemoPort = 51820;
// Documentation addresses (RFC 5737, RFC 3849): they exist nowhere.
inline constexpr const char* kDemoLaptop = "192.0.2.2";
inline constexpr const char* kDemoGateway = "192.0.2.1";
inline constexpr const char* kDemoEndpoint = "203.0.113.10";
inline constexpr const char* kDemoSite = "198.51.100.7";
inline constexpr const char* kDemoSiteV6 = "2001:db8:7::7";
inline constexpr const char* kDemoInnerLaptop = "10.99.0.2";
inline constexpr const char* kDemoInnerServer = "10.99.0.1";

}  // namespace adit
