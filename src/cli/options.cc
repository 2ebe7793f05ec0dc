#include "cli/options.h"

#include <netinet/in.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <charconv>
#include <sstream>
#include <tuple>
#include <vector>

#include "cli/version.h"
#include "config/interface_name.h"
#include "config/text.h"

namespace adit {
namespace {

constexpr std::array kCommandNames = {"up",      "run",        "down",   "reload", "status", "check",
                                      "explain", "cleanup",    "genkey", "genpsk", "pubkey", "demo",
                                      "doctor",  "killswitch", "exec",   "portal"};

bool IsCommandName(std::string_view word) { return std::ranges::find(kCommandNames, word) != kCommandNames.end(); }

// Levenshtein's distance; the words are short.
std::size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

std::string UnknownCommand(std::string_view word) {
  const auto nearest =
      std::ranges::min_element(kCommandNames, {}, [&](const char* name) { return EditDistance(word, name); });
  if (EditDistance(word, *nearest) <= 2) {
    return fmt::format("unknown command \"{}\"; did you mean \"adit {}\"?", word, *nearest);
  }
  return fmt::format("unknown command \"{}\"; `adit --help` lists the commands", word);
}

std::unexpected<NoCommand> UsageError(std::string text) {
  return std::unexpected(NoCommand{ExitCode::kUsage, std::move(text)});
}

// wireguard-go's command line, or nothing. `words` is not empty.
std::optional<std::expected<Command, NoCommand>> ParseDeviceForm(std::span<const std::string> words) {
  const bool foreground = words[0] == "-f" || words[0] == "--foreground";
  if (foreground && words.size() < 2) {
    return UsageError("-f needs the name of an interface: adit -f IFNAME");
  }
  const std::string& name = words[foreground ? 1 : 0];
  if (!foreground && (IsCommandName(name) || name.starts_with('-'))) return std::nullopt;
  if (words.size() > (foreground ? 2u : 1u)) {
    if (!foreground) return UsageError(UnknownCommand(name));
    return UsageError(fmt::format("adit -f takes one interface name, not also \"{}\"", words[2]));
  }
  if (const auto good = CheckInterfaceName(name); !good) {
    return UsageError(foreground ? good.error().message : UnknownCommand(name));
  }
  return DeviceCommand{name, foreground};
}

std::optional<std::chrono::seconds> ParseSeconds(std::string_view text) {
  // An hour is more than anybody waits for; the bound keeps the arithmetic with deadlines safe.
  constexpr unsigned kMaxSeconds = 3600;
  unsigned seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  if (error != std::errc{} || end != text.data() + text.size() || seconds > kMaxSeconds) return std::nullopt;
  return std::chrono::seconds(seconds);
}

std::optional<std::uint32_t> ParseNumber(std::string_view text) {
  const bool is_hex = text.starts_with("0x") || text.starts_with("0X");
  if (is_hex) text.remove_prefix(2);
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, is_hex ? 16 : 10);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::optional<std::uint8_t> ParseIpProtocol(std::string_view text) {
  if (text == "tcp") return std::uint8_t{IPPROTO_TCP};
  if (text == "udp") return std::uint8_t{IPPROTO_UDP};
  if (text == "icmp") return std::uint8_t{IPPROTO_ICMP};
  if (text == "icmpv6") return std::uint8_t{IPPROTO_ICMPV6};
  return ParseDecimal<std::uint8_t>(text);
}

}  // namespace

OutcomeOf<ConfTarget> ResolveTarget(std::string_view target) {
  if (target.find('/') == target.npos && !target.ends_with(".conf")) {
    if (const auto good = CheckInterfaceName(target); !good) {
      return FailWith(ExitCode::kUsage, "{}; a file has a slash or ends in .conf", good.error().message);
    }
    return ConfTarget{fmt::format("/etc/wireguard/{}.conf", target), std::string(target)};
  }
  auto name = InterfaceNameOfFile(target);
  if (!name) return FailWith(ExitCode::kUsage, "{}", name.error().message);
  return ConfTarget{std::string(target), std::move(*name)};
}

std::expected<Command, NoCommand> ParseCommandLine(std::span<const std::string> words) {
  if (!words.empty()) {
    if (auto device = ParseDeviceForm(words)) return *device;
  }

  CLI::App app("Adit: a userspace WireGuard client for Linux with integrated routing.", "adit");
  app.set_version_flag("--version", std::string(kVersion));
  app.require_subcommand(1);
  app.footer(
      "adit [-f] IFNAME\n"
      "  A bare device with a UAPI socket for `wg`, as wireguard-go; -f stays in the foreground.\n\n"
      "Exit codes: 0 clean, 1 run-time failure, 2 usage, 3 configuration invalid, 4 environment missing,\n"
      "5 no handshake within --wait.");

  std::string target;
  std::string wait;
  StatusCommand status;
  ExecCommand exec_command;
  const auto add = [&](const char* name, const char* text) { return app.add_subcommand(name, text); };
  const auto add_target = [&](const char* name, const char* text) {
    CLI::App* command = add(name, text);
    command->add_option("TARGET", target, "NAME (of /etc/wireguard/NAME.conf) or FILE")->required();
    return command;
  };
  const auto add_wait = [&](CLI::App* command) {
    command->add_flag(fmt::format("--wait{{{}}}", kDefaultHandshakeWait.count()), wait,
                      "Wait for a first handshake, at most SECONDS (--wait=SECONDS); exit 5 without one");
  };
  CLI::App* up = add_target("up", "Bring a tunnel up in the background: device, addresses, routes, rules, hooks");
  CLI::App* run = add_target("run", "The same in the foreground, until SIGTERM");
  add_wait(up);
  add_wait(run);
  CLI::App* down = add_target("down", "Take a tunnel down and leave the machine as it was");
  CLI::App* reload = add_target("reload", "Read the file of a running tunnel again and apply what is different");
  CLI::App* status_app = add("status", "Show the tunnels that are up");
  status_app->add_option("NAME", status.name, "Only this one");
  status_app->add_flag("--json", status.json, "As JSON");
  status_app->add_flag("--show-keys", status.show_keys, "Show private and preshared keys");
  CLI::App* check = add_target("check", "Validate a file and print what `up` would do, changing nothing");
  std::string destination;
  std::string mark;
  std::string uid;
  std::string protocol, port, source_port;
  ExplainCommand explain;
  CLI::App* explain_app =
      add("explain", "Say where a packet would go, and which rule, route and firewall rule decide it");
  explain_app->add_option("DEST", destination, "An IP address")->required();
  explain_app->add_option("--mark", mark, "The packet's mark (fwmark), 0x1000 or 4096");
  explain_app->add_option("--uid", uid, "The number of the user whose packet it is");
  explain_app->add_option("--iif", explain.input_device, "The interface by which it comes in, if it is not made here");
  explain_app->add_option("--protocol", protocol, "tcp, udp, icmp, icmpv6, or the number of an IP protocol");
  explain_app->add_option("--port", port, "The port it goes to, of tcp or udp");
  explain_app->add_option("--source-port", source_port, "The port it comes from");
  explain_app->add_flag("--json", explain.json, "As JSON");
  CLI::App* cleanup = add_target("cleanup", "Undo what a crashed run left behind");
  DoctorCommand doctor;
  CLI::App* doctor_app = add("doctor", "Look for what stands in a tunnel's way on this machine, with a cure each");
  doctor_app->add_flag("--json", doctor.json, "As JSON");
  CLI::App* killswitch =
      add("killswitch", "The kill switch of a tunnel that is down: on (as the boot unit does), off, status");
  std::string action;
  killswitch->add_option("ACTION", action, "on, off or status")
      ->required()
      ->check(CLI::IsMember({"on", "off", "status"}));
  killswitch->add_option("TARGET", target, "NAME (of /etc/wireguard/NAME.conf) or FILE")->required();
  CLI::App* exec = add("exec", "Run a program whose only way out is a tunnel: exec --isolated [OPTIONS] -- CMD...");
  bool is_isolated = false;
  exec->add_flag("--isolated", is_isolated,
                 "In a network namespace of its own, in which there is nothing but the tunnel");
  exec->add_option("--config", exec_command.config, "NAME or FILE; default the only file in /etc/wireguard");
  exec->add_option("--user", exec_command.user, "Run it as this user; default who called sudo");
  CLI::App* portal = add("portal",
                         "Let one user past a tunnel for some minutes, to log in to a captive portal: portal [OPTIONS] "
                         "NAME [-- CMD...]");
  PortalCommand portal_command;
  unsigned portal_seconds = static_cast<unsigned>(kDefaultPortalTime.count());
  portal->add_option("TARGET", target, "NAME (of /etc/wireguard/NAME.conf) or FILE")->required();
  portal->add_option("--user", portal_command.user, "Whose programs pass; default who called sudo");
  portal
      ->add_option("--for", portal_seconds,
                   fmt::format("Seconds until it closes by itself; default {}", portal_seconds))
      ->check(CLI::Range(1U, static_cast<unsigned>(kLongestPortalTime.count())));
  portal->add_flag("--close", portal_command.close, "Close it now");
  CLI::App* genkey = add("genkey", "Print a new private key");
  CLI::App* genpsk = add("genpsk", "Print a new preshared key");
  CLI::App* pubkey = add("pubkey", "Read a private key from stdin, print its public key");
  add("demo", "Two hosts in namespaces, a full tunnel between them, and a proof that nothing loops");

  if (words.empty()) return UsageError("a command is needed; `adit --help` lists them");
  // What stands behind "--" is another program's.
  std::vector<std::string> program;
  if (words.front() == "exec" || words.front() == "portal") {
    const auto end = std::ranges::find(words, "--");
    if (end != words.end()) program.assign(end + 1, words.end());
    words = words.first(static_cast<std::size_t>(end - words.begin()));
  }
  try {
    std::vector<std::string> reversed(words.rbegin(), words.rend());
    app.parse(reversed);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != 0) return UsageError(error.what());
    std::ostringstream out;
    app.exit(error, out, out);
    return std::unexpected(NoCommand{ExitCode::kClean, out.str()});
  }

  if (up->parsed() || run->parsed()) {
    UpCommand command{target, run->parsed(), std::nullopt};
    if (!wait.empty()) {
      command.wait = ParseSeconds(wait);
      if (!command.wait) return UsageError(fmt::format("--wait={} is not a number of seconds up to 3600", wait));
    }
    return command;
  }
  if (portal->parsed()) {
    if (portal_command.close && !program.empty()) return UsageError("adit portal --close takes no program");
    portal_command.target = target;
    portal_command.seconds = std::chrono::seconds(portal_seconds);
    portal_command.words = std::move(program);
    return portal_command;
  }
  if (exec->parsed()) {
    exec_command.words = std::move(program);
    if (!is_isolated) return UsageError("adit exec needs --isolated: adit exec --isolated -- CMD");
    if (exec_command.words.empty()) return UsageError("a program is needed: adit exec --isolated -- CMD");
    return exec_command;
  }
  if (down->parsed()) return DownCommand{target};
  if (reload->parsed()) return ReloadCommand{target};
  if (cleanup->parsed()) return CleanupCommand{target};
  if (explain_app->parsed()) {
    const auto ip = IpAddress::Parse(destination);
    if (!ip) return UsageError(fmt::format("\"{}\" is no IP address; `adit explain` takes no names", destination));
    explain.destination = *ip;
    for (const auto& [text, value, what] :
         {std::tuple{&mark, &explain.mark, "--mark"}, std::tuple{&uid, &explain.uid, "--uid"}}) {
      if (text->empty()) continue;
      const auto number = ParseNumber(*text);
      if (!number) return UsageError(fmt::format("{}={} is not a number up to 0xffffffff", what, *text));
      *value = *number;
    }
    if (!protocol.empty()) {
      const auto number = ParseIpProtocol(protocol);
      if (!number) {
        return UsageError(
            fmt::format("--protocol={} is none of tcp, udp, icmp, icmpv6, or a number up to 255", protocol));
      }
      explain.protocol = *number;
    }
    for (const auto& [text, value, what] : {std::tuple{&port, &explain.destination_port, "--port"},
                                            std::tuple{&source_port, &explain.source_port, "--source-port"}}) {
      if (text->empty()) continue;
      const auto number = ParseDecimal<std::uint16_t>(*text);
      if (!number || *number == 0) return UsageError(fmt::format("{}={} is not a port, 1 to 65535", what, *text));
      if (explain.protocol != IPPROTO_TCP && explain.protocol != IPPROTO_UDP) {
        return UsageError(fmt::format("{} needs --protocol tcp or udp", what));
      }
      *value = *number;
    }
    return explain;
  }
  if (check->parsed()) return CheckCommand{target};
  if (killswitch->parsed()) {
    using enum KillSwitchCommand::Action;
    return KillSwitchCommand{action == "on" ? kOn : action == "off" ? kOff : kStatus, target};
  }
  if (genkey->parsed()) return GenkeyCommand{};
  if (genpsk->parsed()) return GenpskCommand{};
  if (pubkey->parsed()) return PubkeyCommand{};
  if (status_app->parsed()) return status;
  if (doctor_app->parsed()) return doctor;
  return DemoCommand{};
}

}  // namespace adit
