// What `adit explain` asks a running tunnel about its firewall, over the control socket: the packet as words, the
// verdict as a line of JSON. Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "routing/nft_ruleset.h"

namespace adit {

// "INPUT_DEVICE OUTPUT_DEVICE MARK UID SOURCE DESTINATION PROTOCOL SOURCE_PORT DESTINATION_PORT", "-" for no device, 0
// for any protocol or port.
std::string ToQuestion(const nft::Packet& packet);
// Empty if it is not one.
std::optional<nft::Packet> ParseQuestion(std::string_view question);

// What one tunnel's table does to it.
struct FirewallAnswer {
  std::string table;  // empty: the tunnel has no firewall
  nft::Verdict verdict;
};
std::string ToAnswer(const FirewallAnswer& answer);
// Empty if it is not one, as from a program of another version.
std::optional<FirewallAnswer> ParseAnswer(const std::string& line);

}  // namespace adit
