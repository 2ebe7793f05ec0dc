// What a command asks of the tunnel that runs, with failures as sentences for the operator.
#pragma once

#include <string>

#include "base/time.h"
#include "cli/outcome.h"

namespace adit {

// For a tunnel that nobody runs.
Outcome NotRunning(const std::string& name);

// Sends `request` and returns what follows the answer's "ok"; any other answer is the sentence of a failure.
OutcomeOf<std::string> AskRunning(const std::string& name, const std::string& request, Duration timeout);

}  // namespace adit
