#include "cli/outcome.h"

#include <gtest/gtest.h>

#include <cerrno>

namespace adit {
namespace {

TEST(Outcome, ALackOfTheMachineIsNotAFailureOfTheMoment) {
  for (const int code : {EPERM, EACCES, ENOENT, EOPNOTSUPP, EPROTONOSUPPORT}) {
    EXPECT_EQ(FromError(Error{.message = "x", .code = code}).code, ExitCode::kEnvironment) << code;
  }
  // ENODEV: the link was deleted while it came up.
  for (const int code : {0, ENODEV, EBUSY, EIO}) {
    EXPECT_EQ(FromError(Error{.message = "x", .code = code}).code, ExitCode::kFailure) << code;
  }
}

}  // namespace
}  // namespace adit
