// A name server for the namespace tests: adit_fake_dns ADDRESS ZONE_FILE. Prints each question as a line, until
// SIGTERM.
#include <csignal>
#include <cstdio>
#include <fstream>
#include <iterator>

#include "dns/test_dns_server.h"

int main(int argc, char** argv) {
  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  sigprocmask(SIG_BLOCK, &end, nullptr);
  const auto at = argc == 3 ? adit::IpAddress::Parse(argv[1]) : std::nullopt;
  if (!at) {
    std::fputs("usage: adit_fake_dns ADDRESS ZONE_FILE\n", stderr);
    return 2;
  }
  const std::string file = argv[2];
  adit::FakeDnsServer server(
      *at, 53,
      [&file] {
        std::ifstream zone(file);
        return std::string((std::istreambuf_iterator<char>(zone)), std::istreambuf_iterator<char>());
      },
      [](const std::string& question) {
        std::puts(question.c_str());
        std::fflush(stdout);
      });
  if (!server.is_good()) {
    std::perror("bind");
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  int signal = 0;
  sigwait(&end, &signal);
  return 0;
}
