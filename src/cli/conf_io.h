// Reading and writing .conf files on disk.
#pragma once

#include <string>
#include <vector>

#include "cli/outcome.h"
#include "config/conf_file.h"

namespace adit {

struct LoadedConf {
  ConfFile conf;
  std::vector<std::string> warnings;  // "FILE:LINE: ...", the file's permissions included
};

// kConfiguration for what the file says and for a file that is not there, kEnvironment for one that may not be read.
OutcomeOf<LoadedConf> LoadConf(const std::string& file);

// Replaces the file in one step (a temporary one beside it, fsync, rename), readable by its owner only.
Status SaveConf(const ConfFile& conf, const std::string& file);

}  // namespace adit
