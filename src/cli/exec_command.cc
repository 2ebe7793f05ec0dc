#include "cli/exec_command.h"

#include <spdlog/spdlog.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/conf_io.h"
#include "cli/control_socket.h"
#include "cli/descriptor_limit.h"
#include "cli/endpoint_keeper.h"
#include "cli/engine_settings.h"
#include "cli/isolated.h"
#include "cli/log.h"
#include "cli/loop.h"
#include "cli/resolve.h"
#include "cli/routing_config.h"
#include "cli/run_files.h"
#include "cli/status.h"
#include "config/environment.h"
#include "control/uapi_server.h"
#include "crypto/primitives.h"
#include "engine/engine.h"
#include "engine/fd_watch.h"
#include "routing/netns.h"
#include "routing/routing.h"

namespace adit {
namespace {

constexpr Duration kBindTimeout = 5s;
constexpr Duration kNap = 20ms;
constexpr Duration kEndTimeout = 5s;  // for CMD after SIGTERM, when the tunnel ends first
constexpr std::uint32_t kMainTable = 254;
constexpr char kConfFolder[] = "/etc/wireguard";

// Without --config: the only file there is.
OutcomeOf<std::string> OnlyConf() {
  std::vector<std::string> found;
  std::error_code error;
  for (std::filesystem::directory_iterator at(kConfFolder, error), end; !error && at != end; at.increment(error)) {
    if (at->path().extension() == ".conf") found.push_back(at->path().string());
  }
  if (found.size() == 1) return found.front();
  return FailWith(ExitCode::kUsage, "there are {} files in {}; choose one: adit exec --isolated --config FILE -- CMD",
                  found.size(), kConfFolder);
}

sigset_t Handled() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM}) sigaddset(&set, signal);
  return set;
}

class IsolatedRun {
 public:
  IsolatedRun(std::string name, std::string file, LoadedConf loaded, EngineSettings settings, Duration stale_handshake,
              IsolatedProcess process)
      : name_(std::move(name)),
        files_(RunFilesOf(name_)),
        conf_(std::move(loaded.conf)),
        settings_(std::move(settings)),
        stale_handshake_(stale_handshake),
        process_(std::move(process)) {
    facts_.name = name_;
    facts_.file = std::move(file);
    facts_.state = "starting";
    facts_.pid = getpid();
    facts_.since = std::time(nullptr);
    facts_.warnings = std::move(loaded.warnings);
    for (const ConfPeer& peer : conf_.peers) {
      if (!peer.name.empty()) facts_.peer_names[peer.public_key] = peer.name;
    }
  }

  Outcome Run();

 private:
  Outcome BringUp();
  Outcome OpenDevice();
  Status RouteInside(unsigned mtu);
  void OnSignal();
  int ServeUntilTheEnd();

  const std::string name_;
  const RunFiles files_;
  const ConfFile conf_;
  EngineSettings settings_;
  const Duration stale_handshake_;
  TunnelFacts facts_;
  bool has_begun_ = false;

  Loop loop_;
  Fd signals_;
  std::unique_ptr<FdWatch> signal_watch_;
  std::optional<TunnelLock> lock_;
  IsolatedProcess process_;
  Fd netns_;
  std::unique_ptr<Engine> engine_;
  std::unique_ptr<UapiServer> uapi_;
  std::unique_ptr<ControlSocket> control_;
  std::unique_ptr<EndpointKeeper> endpoints_;
};

// Before CMD runs, a signal ends us; afterwards it is CMD's. What comes from the terminal it has had already.
void IsolatedRun::OnSignal() {
  signalfd_siginfo info{};
  while (read(signals_.get(), &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    const auto signal = static_cast<int>(info.ssi_signo);
    if (!has_begun_) {
      if (signal == SIGTERM || signal == SIGINT || signal == SIGHUP || signal == SIGQUIT) loop_.Finish(End::kSignal);
    } else if (info.ssi_code <= 0) {
      kill(process_.pid(), signal);
    }
  }
}

Outcome IsolatedRun::OpenDevice() {
  auto netns = process_.NetworkNamespace();
  if (!netns) return FailFrom(netns.error());
  netns_ = std::move(*netns);
  std::unique_ptr<TunDevice> tun;
  const Status made = RunInNamespace(netns_.get(), [&]() -> Status {
    auto created = TunDevice::Create(name_, settings_.tun);
    if (!created) return std::unexpected(created.error());
    tun = std::move(*created);
    return {};
  });
  if (!made) return FailFrom(made.error());
  auto engine = Engine::Start(loop_.io(), std::move(tun), settings_.engine,
                              [this](EngineEnd) { loop_.Finish(End::kLinkRemoved); });
  if (!engine) return FailFrom(engine.error());
  engine_ = std::move(*engine);

  UapiServerOptions options;
  options.name = name_;
  options.on_removed = [this] { loop_.Finish(End::kSocketRemoved); };
  auto uapi = UapiServer::Start(loop_.io(), *engine_, std::move(options));
  if (!uapi) return FailWith(ExitCode::kFailure, "{}", uapi.error().message);
  uapi_ = std::move(*uapi);
  ControlHandlers handlers;
  handlers.status = [this](bool show_keys) {
    return StatusToJson(facts_, engine_->GetDevice(), engine_->GetEngine(), show_keys).dump();
  };
  handlers.stop = [this] { loop_.Finish(End::kAsked); };
  auto control = ControlSocket::Listen(loop_.io(), files_.socket, std::move(handlers));
  if (!control) return FailFrom(control.error());
  control_ = std::move(*control);
  return {};
}

// No rules and nothing to take back: the namespace is new, holds nothing else, and ends with CMD.
Status IsolatedRun::RouteInside(unsigned mtu) {
  RoutingConfig config = ToRoutingConfig(conf_, {}, name_);
  config.mtu = mtu;
  config.fwmark = 0;
  if (config.table_mode == TableMode::kAuto) {
    config.table_mode = TableMode::kNumber;
    config.table = kMainTable;
  }
  const std::string journal = files_.folder + "/" + name_ + ".isolated";
  return RunInNamespace(netns_.get(), [&]() -> Status {
    auto plan = PlanNow(config);
    if (!plan) return std::unexpected(plan.error());
    unlink(journal.c_str());
    auto routing = Routing::Up(*plan, journal);
    unlink(journal.c_str());
    if (!routing) return std::unexpected(routing.error());
    for (const Op& op : plan->ops) facts_.routing.push_back(ToString(op));
    for (const std::string& finding : (*routing)->findings()) PrintWarning(finding);
    return {};
  });
}

Outcome IsolatedRun::BringUp() {
  for (const std::string& warning : facts_.warnings) PrintWarning(warning);
  auto lock = TunnelLock::Take(files_);
  if (!lock && lock.error().code == EWOULDBLOCK) {
    return FailWith(ExitCode::kFailure, "{} is already up ({}): one key cannot be in two places", name_,
                    lock.error().message);
  }
  if (!lock) return FailFrom(lock.error());
  lock_.emplace(std::move(*lock));
  if (auto done = OpenDevice(); !done) return done;

  const EndpointNames names = NamesBeforeTunnel(conf_.interface.fwmark.value_or(0), {});
  std::vector<EndpointAddresses> found;
  const auto resolved = ResolveEndpoints(loop_, conf_.peers, ResolutionRetriesFromEnvironment(), names, &found);
  if (!resolved) return FailWith(ExitCode::kFailure, "{}", resolved.error().message);
  if (const int error = engine_->SetDevice(ToDeviceUpdate(conf_, *resolved)); error != 0) {
    return FailFrom(
        {fmt::format("the device does not take what {} says: {}", facts_.file, std::strerror(error)), error});
  }
  // The way to the endpoints is outside, and so is its MTU.
  const auto outside = PlanNow(ToRoutingConfig(conf_, *resolved, name_));
  if (!outside) return FailFrom(outside.error());
  facts_.mtu = outside->mtu;
  if (const Status routed = RouteInside(outside->mtu); !routed) return FailFrom(routed.error());
  for (const auto& address : conf_.interface.addresses) facts_.addresses.push_back(address.ToString());

  const auto is_bound = [this] { return engine_->GetEngine().is_up && engine_->GetDevice().listen_port != 0; };
  const auto deadline = std::chrono::steady_clock::now() + kBindTimeout;
  while (!is_bound() && !loop_.has_ended() && std::chrono::steady_clock::now() < deadline) {
    loop_.RunUntil(is_bound, kNap);
  }
  if (loop_.has_ended()) return FailWith(ExitCode::kFailure, "stopped before {} was up", name_);
  if (!is_bound()) return FailWith(ExitCode::kFailure, "no UDP port can be opened; choose another ListenPort, or none");
  endpoints_ = std::make_unique<EndpointKeeper>(
      loop_.io(), *engine_, names, stale_handshake_,
      [](const PublicKey&, const SocketAddress&, const SocketAddress&) {});  // no exceptions, so none to follow
  endpoints_->Watch(conf_.peers, found);
  facts_.state = "up";
  return {};
}

int IsolatedRun::ServeUntilTheEnd() {
  const auto pidfd = static_cast<int>(syscall(SYS_pidfd_open, process_.pid(), 0));
  bool has_exited = false;
  boost::asio::posix::stream_descriptor exit(loop_.io());
  if (pidfd >= 0) {
    exit.assign(pidfd);
    exit.async_wait(exit.wait_read, [&](const boost::system::error_code&) { has_exited = true; });
    const auto done = [&] { return has_exited; };
    if (!loop_.RunUntil(done)) {
      spdlog::warn("the tunnel ends, and with it {}", name_);
      kill(process_.pid(), SIGTERM);
      loop_.RunUntil(done, kEndTimeout, true);
      if (!has_exited) kill(process_.pid(), SIGKILL);
    }
  }
  return process_.Wait();
}

Outcome IsolatedRun::Run() {
  const sigset_t handled = Handled();
  signals_ = Fd(signalfd(-1, &handled, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!signals_) return FailWith(ExitCode::kFailure, "cannot make a signalfd: {}", std::strerror(errno));
  auto watch = FdWatch::Open(loop_.io(), signals_.get(), [this] { OnSignal(); });
  if (!watch) return FailFrom(watch.error());
  signal_watch_ = std::move(*watch);
  if (auto up = BringUp(); !up) return up;
  has_begun_ = true;
  if (const Status begun = process_.Begin(); !begun) return FailFrom(begun.error());
  const int code = ServeUntilTheEnd();
  signal_watch_.reset();
  endpoints_.reset();
  uapi_.reset();
  engine_.reset();
  if (control_) control_->AnswerStops("ok");
  control_.reset();
  lock_.reset();
  if (code == 0) return {};
  return std::unexpected(Failure{static_cast<ExitCode>(code), ""});
}

}  // namespace

Outcome RunExec(const ExecCommand& command) {
  std::string file = command.config;
  if (file.empty()) {
    auto only = OnlyConf();
    if (!only) return std::unexpected(only.error());
    file = *only;
  }
  auto target = ResolveTarget(file);
  if (!target) return std::unexpected(target.error());
  const auto environment = ParseEnvironment([](const char* name) -> const char* { return std::getenv(name); });
  if (!environment) return FailWith(ExitCode::kUsage, "{}", environment.error().message);
  if (const auto ensured = EnsureDescriptors(); !ensured) {
    return FailWith(ExitCode::kEnvironment, "{}", ensured.error().message);
  }
  auto settings = EngineSettingsFromEnvironment();
  if (!settings) return FailWith(ExitCode::kUsage, "{}", settings.error().message);
  const auto stale = StaleHandshakeFromEnvironment();
  if (!stale) return FailWith(ExitCode::kUsage, "{}", stale.error().message);
  InitializeCrypto();
  auto loaded = LoadConf(target->file);
  if (!loaded) return std::unexpected(loaded.error());

  const ConfInterface& interface = loaded->conf.interface;
  if (!interface.pre_up.empty() || !interface.post_up.empty() || !interface.pre_down.empty() ||
      !interface.post_down.empty()) {
    loaded->warnings.push_back("hooks are not run: they are meant for the machine, and the tunnel is not there");
  }
  if (interface.dns_servers.empty()) {
    loaded->warnings.push_back(fmt::format(
        "no DNS = in {}: names cannot be looked up in there, since the machine's resolver is outside of the "
        "tunnel",
        target->file));
  }
  IsolatedProgram program;
  program.words = command.words;
  auto user = ChooseUser(command.user);
  if (!user) return FailWith(ExitCode::kUsage, "{}", user.error().message);
  program.user = std::move(*user);
  ResolvConf resolv_conf;
  for (const IpAddress& server : interface.dns_servers) resolv_conf.servers.push_back({server, ""});
  resolv_conf.search = interface.dns_search_domains;
  program.resolv_conf = WriteResolvConf(resolv_conf, fmt::format("The tunnel's, by adit exec for {}.", target->file));
  const RunFiles files = RunFilesOf(target->interface_name);
  std::error_code ignored;
  std::filesystem::create_directories(files.folder, ignored);  // TunnelLock says what is wrong with it
  program.scratch_file = files.folder + "/" + target->interface_name + ".resolv.conf";

  // From here on signals come by descriptor only, to us and to all our threads.
  const sigset_t handled = Handled();
  sigprocmask(SIG_BLOCK, &handled, nullptr);
  auto process = IsolatedProcess::Prepare(program);
  if (!process) return FailFrom(process.error());
  // What CMD prints is what people want to see; warnings come through.
  const bool says_level = std::getenv("LOG_LEVEL") != nullptr || std::getenv("WG_LOG_LEVEL") != nullptr;
  SetUpLog(target->interface_name, says_level ? environment->log_level : LogLevel::kWarn);
  for (const std::string& warning : environment->warnings) spdlog::warn("{}", warning);
  const std::string name = target->interface_name;
  return IsolatedRun(name, std::filesystem::absolute(target->file).lexically_normal().string(), std::move(*loaded),
                     std::move(*settings), *stale, std::move(*process))
      .Run();
}

}  // namespace adit
