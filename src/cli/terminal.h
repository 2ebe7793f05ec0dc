// Whether stdout wants colours.
#pragma once

namespace adit {

// WG_COLOR_MODE=always|never decides, then NO_COLOR, then whether stdout is a terminal.
bool UseColour();

}  // namespace adit
