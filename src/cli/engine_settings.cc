#include "cli/engine_settings.h"

#include <algorithm>
#include <cstdlib>
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

Result<EngineSettings> EngineSettingsFromEnvironment() {
  EngineSettings settings;
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
    const auto available = AvailableAeadBackends();
    settings.engine.aead = ParseAeadBackend(text);
    if (!settings.engine.aead || std::ranges::find(available, *settings.engine.aead) == available.end()) {
      std::string names;
      for (const AeadBackend backend : available) names += fmt::format(" {}", Name(backend));
      return Fail("ADIT_AEAD={} is not available here; these are:{}", text, names);
    }
  }
  if (const auto text = Variable("WIREGUARD_GSO"); text == "off") {
    settings.engine.udp.gso = false;
    settings.engine.udp.gro = false;
    settings.tun.tso = false;
    settings.tun.uso = false;
  } else if (!text.empty() && text != "on" && text != "auto") {
    return Fail("WIREGUARD_GSO={} is none of on, off, auto", text);
  }
  return settings;
}

}  // namespace adit
