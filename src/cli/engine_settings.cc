#include "cli/engine_settings.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "config/text.h"

namespace adit {
namespace {

std::string_view Variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : std::string_view();
}

}  // namespace

bool HidesAvx512() { return Variable("ADIT_AVX512") == "off"; }

Status HideAvx512FromLibcrypto(char* const argv[]) {
  // libcrypto reads it once, before main(). The words are masks over CPUID leaf 7's EBX, behind the colon: F, DQ, IFMA,
  // CD, BW and VL (OPENSSL_ia32cap(3)).
  constexpr const char* kName = "OPENSSL_ia32cap";
  if (!HidesAvx512() || std::getenv(kName) != nullptr) return {};
  setenv(kName, ":~0xd0230000", 1);
  execv("/proc/self/exe", argv);
  return FailErrno(errno, "cannot start anew for ADIT_AVX512=off: {}", std::strerror(errno));
}

Result<EngineSettings> EngineSettingsFromEnvironment() {
  EngineSettings settings;
  settings.engine.udp.on_degrade =
      settings.tun.on_degrade = [](std::string_view what) { spdlog::warn("{}; the tunnel goes on without", what); };
  const bool allow_avx512 = !HidesAvx512();
  if (const auto text = Variable("WG_THREADS"); !text.empty()) {
    const auto threads = ParseDecimal<unsigned>(text);
    if (!threads || *threads < 1 || *threads > kMaxThreads) {
      return Fail("WG_THREADS={} is not a number from 1 to {}", text, kMaxThreads);
    }
    settings.engine.threads = *threads;
  }
  if (const auto text = Variable("ADIT_TUN_QUEUES"); !text.empty()) {
    const auto queues = ParseDecimal<unsigned>(text);
    if (!queues || *queues < 1 || *queues > kMaxThreads) {
      return Fail("ADIT_TUN_QUEUES={} is not a number from 1 to {}", text, kMaxThreads);
    }
    settings.tun.queues = *queues;
  }
  if (const auto text = Variable("ADIT_AEAD"); !text.empty()) {
    const auto available = AvailableAeadBackends(allow_avx512);
    settings.engine.aead = ParseAeadBackend(text);
    if (!settings.engine.aead || std::ranges::find(available, *settings.engine.aead) == available.end()) {
      std::string names;
      for (const AeadBackend backend : available) names += fmt::format(" {}", Name(backend));
      return Fail("ADIT_AEAD={} is not available here; these are:{}", text, names);
    }
  }
  if (!settings.engine.aead && !allow_avx512) settings.engine.aead = AvailableAeadBackends(false).front();
  if (const auto text = Variable("WIREGUARD_GSO"); text == "off") {
    settings.engine.udp.gso = false;
    settings.engine.udp.gro = false;
    settings.tun.tso = false;
    settings.tun.uso = false;
  } else if (!text.empty() && text != "on" && text != "auto") {
    return Fail("WIREGUARD_GSO={} is none of on, off, auto", text);
  }
  if (const auto text = Variable("ADIT_AVX512"); !text.empty() && text != "on" && text != "off") {
    return Fail("ADIT_AVX512={} is neither on nor off", text);
  }
  return settings;
}

}  // namespace adit
