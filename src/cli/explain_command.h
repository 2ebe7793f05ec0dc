// `adit explain DEST`: where a packet would go, and what decides it.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

Outcome RunExplain(const ExplainCommand& command);

}  // namespace adit
