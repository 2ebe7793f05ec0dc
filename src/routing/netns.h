// Network namespaces without names: made, entered on a thread of their own, and gone when the last descriptor and the
// last device user is.
#pragma once

#include <functional>
#include <string>

#include "base/fd.h"
#include "base/result.h"

namespace adit {

// A new, empty network namespace (its loopback is down). The caller's own namespace does not change. Needs
// CAP_SYS_ADMIN.
Result<Fd> CreateNetworkNamespace();

// The calling thread's.
Result<Fd> CurrentNetworkNamespace();

// "device:inode", which two descriptors of one namespace have in common.
Result<std::string> NetworkNamespaceIdentity(int netns_fd);

// Runs `fn` on a fresh thread inside the namespace and waits for it. Sockets, TUN devices and child processes that `fn`
// makes stay in that namespace for good. `fn` returns its outcome; other results go through its captures.
Status RunInNamespace(int netns_fd, const std::function<Status()>& fn);

}  // namespace adit
