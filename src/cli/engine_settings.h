// The knobs of the data plane that the environment may turn; everything else is found out at start.
#pragma once

#include "base/result.h"
#include "engine/engine.h"
#include "tun/device.h"

namespace adit {

struct EngineSettings {
  EngineOptions engine;
  TunOptions tun;
};

// WG_THREADS: data threads of each direction, 1 to kMaxThreads (default by the number of cores). ADIT_TUN_QUEUES: TUN
// queues, the outbound threads divided among them, 1 to kMaxThreads (default 1). ADIT_AEAD: a backend by
// name. WIREGUARD_GSO=off: no offload on any edge. ADIT_AVX512=off: no cipher that needs AVX-512. The error says which
// value is wrong.
inline constexpr unsigned kMaxThreads = 64;
Result<EngineSettings> EngineSettingsFromEnvironment();

// For ADIT_AVX512=off, before anything else: libcrypto, too, is to see a CPU without it, which has to be said before it
// is loaded, so the program starts itself anew, once. Returns if there is nothing to do, or in failure.
bool HidesAvx512();
Status HideAvx512FromLibcrypto(char* const argv[]);

}  // namespace adit
