// A stand-in for systemd-resolved for the namespace tests: prints each call as a line, until SIGTERM.
// With `revert INDEX` it is somebody else, who takes back what the service was told of a link.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dns/test_resolved_service.h"

int main(int count, char** words) {
  if (count == 3 && std::strcmp(words[1], "revert") == 0)
    return adit::FakeResolve1::Revert(std::atoi(words[2])) ? 0 : 1;
  // Before the service's thread is there, so that it never gets the signal.
  sigset_t end;
  sigemptyset(&end);
  sigaddset(&end, SIGTERM);
  sigprocmask(SIG_BLOCK, &end, nullptr);
  adit::FakeResolve1 service("", "", [](const std::string& call) {
    std::puts(call.c_str());
    std::fflush(stdout);
  });
  if (!service.is_good()) {
    std::fputs("the bus does not give us the name\n", stderr);
    return 1;
  }
  std::puts("ready");
  std::fflush(stdout);
  int signal = 0;
  sigwait(&end, &signal);
  return 0;
}
