#include "cli/descriptor_limit.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

namespace adit {
namespace {

// Runs EnsureDescriptors in a child with these limits. Its exit code: 0 fine, 1 refused, 2 anything else; and the soft
// limit afterwards through a pipe.
struct Outcome {
  int code = 2;
  rlim_t soft = 0;
};
Outcome EnsureWith(rlim_t soft, rlim_t hard) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    rlimit limit{soft, hard};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) _exit(2);
    const Status ensured = EnsureDescriptors();
    getrlimit(RLIMIT_NOFILE, &limit);
    if (write(ends[1], &limit.rlim_cur, sizeof limit.rlim_cur) != sizeof limit.rlim_cur) _exit(2);
    _exit(ensured ? 0 : ensured.error().code == EMFILE ? 1 : 2);
  }
  Outcome outcome;
  int status = 0;
  waitpid(child, &status, 0);
  close(ends[1]);
  if (read(ends[0], &outcome.soft, sizeof outcome.soft) != sizeof outcome.soft) outcome.soft = 0;
  close(ends[0]);
  outcome.code = WIFEXITED(status) ? WEXITSTATUS(status) : 2;
  return outcome;
}

TEST(DescriptorLimit, RaisesALowSoftLimit) {
  const Outcome outcome = EnsureWith(16, kWantedDescriptors + 100);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.soft, kWantedDescriptors);
}

TEST(DescriptorLimit, LeavesAHighOneAlone) {
  const Outcome outcome = EnsureWith(kWantedDescriptors + 50, kWantedDescriptors + 100);
  EXPECT_EQ(outcome.code, 0);
  EXPECT_EQ(outcome.soft, kWantedDescriptors + 50);
}

TEST(DescriptorLimit, RefusesWhatCannotHoldADevice) {
  EXPECT_EQ(EnsureWith(16, kMinDescriptors - 1).code, 1);
  EXPECT_EQ(EnsureWith(16, kMinDescriptors).code, 0);
}

}  // namespace
}  // namespace adit
