// `adit doctor`: looks at the machine, changes nothing, and says what stands in a tunnel's way, with a cure each.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

// kEnvironment if there is a problem, kClean otherwise.
Outcome RunDoctor(const DoctorCommand& command);

}  // namespace adit
