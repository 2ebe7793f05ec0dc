// What `adit doctor` says: from facts of the machine to findings, each with a cure. Pure; doctor_command.cc collects
// the facts.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "routing/foreign_filters.h"
#include "routing/snapshot.h"
#include "tun/device.h"

namespace adit {

struct MachineFacts {
  int tun_error = 0;  // of opening /dev/net/tun; 0: it opens
  bool has_net_admin = false;
  // Empty where they could not be tried: that takes a namespace to try them in.
  std::optional<TunOffloads> tun_offloads;
  bool has_udp_segment = true;
  bool has_udp_gro = true;
  std::optional<NetSnapshot> snapshot;  // empty if the kernel did not let us look
  std::string snapshot_error;
  std::optional<ForeignFilters> filters;
  std::string filters_error;
  std::string legacy_iptables;       // the tables of iptables-legacy in use, by commas: nf_tables does not show them
  std::vector<std::string> running;  // tunnels of ours that are up
  std::vector<std::string> crashed;  // and those whose process died
};

enum class FindingLevel : std::uint8_t {
  kGood,
  kNote,     // works, but something is lost or needs to be known
  kProblem,  // a tunnel does not come up, or carries nothing
};

struct DoctorFinding {
  FindingLevel level = FindingLevel::kGood;
  std::string text;
  std::string cure;  // empty only for what is good
  friend bool operator==(const DoctorFinding&, const DoctorFinding&) = default;
};

std::vector<DoctorFinding> Diagnose(const MachineFacts& facts);

}  // namespace adit
