// `adit demo`: two hosts in namespaces of their own, a full tunnel between them by the same code as `adit run`, and
// what can be seen of it. Nothing of it outlives the process.
#pragma once

#include "cli/outcome.h"

namespace adit {

// kClean only if every step held. Under 30 seconds.
Outcome RunDemo();

}  // namespace adit
