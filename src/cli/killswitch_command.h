// `adit killswitch on|off|status NAME`: the kill switch of a tunnel that is not up. The boot unit closes it before the
// network comes (dist/adit-killswitch@.service.in); `up` takes it over, `down` leaves it where KillSwitch = always.
#pragma once

#include "cli/options.h"
#include "cli/outcome.h"

namespace adit {

Outcome RunKillSwitch(const KillSwitchCommand& command);

}  // namespace adit
