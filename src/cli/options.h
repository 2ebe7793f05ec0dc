// The command line: from words to one of the commands below. Pure; it neither prints nor exits.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/address.h"
#include "cli/outcome.h"

namespace adit {

// `adit [-f|--foreground] IFNAME`, wireguard-go's command line: a bare device with a UAPI socket.
struct DeviceCommand {
  std::string interface_name;
  bool foreground = false;
};

struct UpCommand {
  std::string target;                        // a name or a file
  bool foreground = false;                   // `adit run`
  std::optional<std::chrono::seconds> wait;  // for the first handshake
};

struct DownCommand {
  std::string target;
};

struct ReloadCommand {
  std::string target;
};

struct ExplainCommand {
  IpAddress destination;
  std::uint32_t mark = 0;
  std::uint32_t uid = 0;
  std::string input_device;   // empty: made on this machine
  std::uint8_t protocol = 0;  // of IP; 0: any
  std::uint16_t source_port = 0, destination_port = 0;
  bool json = false;
};

struct CleanupCommand {
  std::string target;
};

struct StatusCommand {
  std::string name;  // empty: all
  bool json = false;
  bool show_keys = false;
};

struct CheckCommand {
  std::string target;
};

struct DoctorCommand {
  bool json = false;
};

struct KillSwitchCommand {
  enum class Action { kOn, kOff, kStatus };
  Action action = Action::kStatus;
  std::string target;
};

// A program whose only way out is the tunnel.
struct ExecCommand {
  std::string config;              // a name or a file; empty: the only one in /etc/wireguard
  std::string user;                // empty: who called sudo, else as we are
  std::vector<std::string> words;  // behind "--"
};

inline constexpr std::chrono::seconds kDefaultPortalTime{600};
inline constexpr std::chrono::seconds kLongestPortalTime{3600};

// A way past the tunnel for one user, for a time.
struct PortalCommand {
  std::string target;
  std::string user;  // empty: who called sudo
  std::chrono::seconds seconds = kDefaultPortalTime;
  bool close = false;
  std::vector<std::string> words;  // behind "--"; closed when it ends
};

struct GenkeyCommand {};
struct GenpskCommand {};
struct PubkeyCommand {};
struct DemoCommand {};

using Command = std::variant<DeviceCommand, UpCommand, DownCommand, ReloadCommand, ExplainCommand, CleanupCommand,
                             StatusCommand, CheckCommand, KillSwitchCommand, GenkeyCommand, GenpskCommand,
                             PubkeyCommand, DemoCommand, DoctorCommand, ExecCommand, PortalCommand>;

// There is no command to run: help or the version was asked for (kClean, `text` goes to stdout), or the words make no
// sense (kUsage, `text` is a sentence for stderr).
struct NoCommand {
  ExitCode code = ExitCode::kClean;
  std::string text;
};

inline constexpr std::chrono::seconds kDefaultHandshakeWait{30};

// `words` are argv[1..].
std::expected<Command, NoCommand> ParseCommandLine(std::span<const std::string> words);

// Which file and which interface `adit up TARGET` means. A word with a slash or ending in ".conf" is a file, anything
// else stands for /etc/wireguard/NAME.conf; the interface is called like the file without ".conf".
struct ConfTarget {
  std::string file;
  std::string interface_name;
};
OutcomeOf<ConfTarget> ResolveTarget(std::string_view target);

}  // namespace adit
