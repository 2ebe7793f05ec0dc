// `adit genkey`, `genpsk` and `pubkey`, as `wg` does them.
#pragma once

#include "cli/outcome.h"

namespace adit {

Outcome RunGenkey();
Outcome RunGenpsk();
// Reads a private key in base64 from stdin, one line.
Outcome RunPubkey();

}  // namespace adit
