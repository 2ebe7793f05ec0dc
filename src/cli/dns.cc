#include "cli/dns.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "cli/process.h"
#include "config/interface_name.h"

namespace adit {
namespace {

// Debian's resolvconf orders its records by name, and an interface that it does not know comes last; wg-quick borrows
// the first prefix of that list ("tun." on most machines).
std::string RecordName(const std::string& interface_name) {
  std::ifstream order("/etc/resolvconf/interface-order");
  std::string line;
  while (std::getline(order, line)) {
    if (line.size() < 2 || !line.ends_with('*')) continue;
    line.pop_back();
    if (line.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == line.npos) {
      return line + "." + interface_name;
    }
  }
  return interface_name;
}

Status RunResolvconf(Loop& loop, std::vector<std::string> words, const std::string& input, bool past_end) {
  const auto code = RunProgram(loop, {std::move(words), {}, input}, past_end);
  if (!code) return std::unexpected(code.error());
  if (*code != 0) return Fail("resolvconf ended with exit code {}", *code);
  return {};
}

}  // namespace

Result<bool> ApplyDns(Loop& loop, const ConfInterface& conf, const std::string& interface_name, const RunFiles& files) {
  if (!IsInPath("resolvconf")) return false;
  const Fd note(open(files.dns.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  if (!note) return FailErrno(errno, "cannot write {}: {}", files.dns, std::strerror(errno));
  std::string input;
  for (const IpAddress& server : conf.dns_servers) input += "nameserver " + server.ToString() + "\n";
  if (!conf.dns_search_domains.empty()) {
    input += "search";
    for (const std::string& domain : conf.dns_search_domains) input += " " + domain;
    input += "\n";
  }
  auto applied = RunResolvconf(loop, {"resolvconf", "-a", RecordName(interface_name), "-m", "0", "-x"}, input, false);
  if (!applied) return std::unexpected(applied.error());
  return true;
}

Status RemoveDns(Loop& loop, const std::string& interface_name, const RunFiles& files) {
  if (access(files.dns.c_str(), F_OK) != 0) return {};
  auto removed = RunResolvconf(loop, {"resolvconf", "-d", RecordName(interface_name), "-f"}, "", true);
  unlink(files.dns.c_str());
  return removed;
}

}  // namespace adit
