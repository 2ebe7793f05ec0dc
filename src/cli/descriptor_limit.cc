#include "cli/descriptor_limit.h"

#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace adit {

Status EnsureDescriptors() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return FailErrno(errno, "cannot read a limit: {}", std::strerror(errno));
  if (limit.rlim_cur < kWantedDescriptors) {
    limit.rlim_cur = std::min<rlim_t>(kWantedDescriptors, limit.rlim_max);
    // A refusal shows in the check below, which is on what there is.
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= kMinDescriptors) return {};
  return FailErrno(EMFILE,
                   "only {} files may be open at a time, {} are needed: raise the limit (ulimit -n, LimitNOFILE=)",
                   limit.rlim_cur, kMinDescriptors);
}

}  // namespace adit
