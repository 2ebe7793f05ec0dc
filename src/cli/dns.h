// DNS = of a .conf file: handed to resolvconf where that is installed, as wg-quick does.
#pragma once

#include <string>

#include "base/result.h"
#include "cli/loop.h"
#include "cli/run_files.h"
#include "config/conf_file.h"

namespace adit {

// False, with nothing done, if there is no resolvconf. The note in files.dns is written first, so that a crash leaves
// word of what to take back.
Result<bool> ApplyDns(Loop& loop, const ConfInterface& conf, const std::string& interface_name, const RunFiles& files);

// Takes it back if files.dns is there.
Status RemoveDns(Loop& loop, const std::string& interface_name, const RunFiles& files);

}  // namespace adit
