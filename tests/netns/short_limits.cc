// A bare device in the foreground whose protocol limits are lowered, so that rekeying by age and by count, expiry and
// forgetting happen within seconds. Usage: adit_short_limits IFNAME REKEY_SECONDS REKEY_MESSAGES
#include <cstdio>
#include <cstdlib>
#include <string>

#include "cli/device_command.h"
#include "tunnel/limits.h"

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fputs("usage: adit_short_limits IFNAME REKEY_SECONDS REKEY_MESSAGES\n", stderr);
    return 2;
  }
  adit::ProtocolLimits limits;
  limits.rekey_after_time = std::chrono::seconds(std::atoi(argv[2]));
  limits.reject_after_time = limits.rekey_after_time * 3 / 2;  // as 180 s to 120 s
  limits.rekey_after_messages = static_cast<std::uint64_t>(std::atoll(argv[3]));
  limits.reject_after_messages = 64 * limits.rekey_after_messages;
  limits.rekey_timeout = std::chrono::milliseconds(250);
  limits.keepalive_timeout = std::chrono::milliseconds(500);
  limits.handshake_jitter = std::chrono::milliseconds(20);

  adit::DeviceCommand command;
  command.interface_name = argv[1];
  command.foreground = true;
  const adit::Outcome outcome = adit::RunDevice(command, limits);
  if (outcome) return 0;
  std::fprintf(stderr, "%s\n", outcome.error().message.c_str());
  return static_cast<int>(outcome.error().code);
}
