#include "cli/device_command.h"

#include <fcntl.h>
#include <spdlog/spdlog.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "base/fd.h"
#include "cli/background.h"
#include "cli/descriptor_limit.h"
#include "cli/engine_settings.h"
#include "cli/log.h"
#include "cli/loop.h"
#include "config/environment.h"
#include "control/uapi_server.h"
#include "crypto/primitives.h"
#include "engine/engine.h"

namespace adit {
namespace {

// A device of our name may still be on its way out (its link was just deleted, or it just got SIGTERM): that takes
// milliseconds. Anything that stands longer is somebody else's.
constexpr auto kDepartureTimeout = std::chrono::seconds(1);
constexpr auto kDeparturePoll = std::chrono::milliseconds(2);

template <typename Make>
auto RetryWhileBusy(int busy, const Make& make) {
  const auto deadline = std::chrono::steady_clock::now() + kDepartureTimeout;
  for (;;) {
    auto made = make();
    if (made || made.error().code != busy || std::chrono::steady_clock::now() >= deadline) return made;
    std::this_thread::sleep_for(kDeparturePoll);
  }
}

Result<std::unique_ptr<TunDevice>> OpenTun(const std::string& name, const Environment& environment,
                                           const TunOptions& options) {
  if (!environment.tun_fd) return RetryWhileBusy(EBUSY, [&] { return TunDevice::Create(name, options); });
  if (fcntl(*environment.tun_fd, F_SETFD, FD_CLOEXEC) != 0) {
    return FailErrno(0, "WG_TUN_FD={} is not an open descriptor", *environment.tun_fd);
  }
  TunOptions adopted = options;
  adopted.queues = 1;
  return TunDevice::FromFd(Fd(*environment.tun_fd), adopted);
}

}  // namespace

Outcome RunDevice(const DeviceCommand& command, const ProtocolLimits& limits) {
  const auto environment = ParseEnvironment([](const char* name) -> const char* { return std::getenv(name); });
  if (!environment) return FailWith(ExitCode::kUsage, "{}", environment.error().message);
  if (const auto ensured = EnsureDescriptors(); !ensured) {
    return FailWith(ExitCode::kEnvironment, "{}", ensured.error().message);
  }
  auto settings = EngineSettingsFromEnvironment();
  if (!settings) return FailWith(ExitCode::kUsage, "{}", settings.error().message);
  settings->engine.limits = limits;

  Readiness readiness;
  if (!command.foreground && !environment->foreground) {
    auto background = GoToBackground();
    if (!background) return FailFrom(background.error());
    readiness = std::move(*background);
  }
  SetUpLog(command.interface_name, environment->log_level);
  for (const std::string& warning : environment->warnings) spdlog::warn("{}", warning);
  InitializeCrypto();

  Loop loop;
  auto tun = OpenTun(command.interface_name, *environment, settings->tun);
  if (!tun) return FailFrom(tun.error());
  const std::string name = (*tun)->name();
  auto engine = Engine::Start(loop.io(), std::move(*tun), settings->engine,
                              [&loop](EngineEnd) { loop.Finish(End::kLinkRemoved); });
  if (!engine) return FailFrom(engine.error());

  auto uapi = RetryWhileBusy(EADDRINUSE, [&] {
    UapiServerOptions options;
    options.name = name;
    if (environment->uapi_fd) options.listening_socket = Fd(*environment->uapi_fd);
    options.on_removed = [&loop] { loop.Finish(End::kSocketRemoved); };
    return UapiServer::Start(loop.io(), **engine, std::move(options));
  });
  if (!uapi) return FailWith(ExitCode::kFailure, "{}", uapi.error().message);

  const char* log_file = std::getenv("WG_LOG_FILE");
  if (const auto announced = readiness.Announce(log_file != nullptr ? log_file : ""); !announced) {
    return FailWith(ExitCode::kFailure, "{}", announced.error().message);
  }
  spdlog::info("the device is ready");
  loop.Run();
  switch (loop.end()) {
    case End::kLinkRemoved:
      spdlog::info("the link was removed");
      break;
    case End::kSocketRemoved:
      spdlog::info("the socket's file was removed");
      break;
    default:
      spdlog::info("told to stop");
      break;
  }
  return {};
}

}  // namespace adit
