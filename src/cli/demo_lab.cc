#include "cli/demo_lab.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "cli/conf_io.h"
#include "cli/control_socket.h"
#include "cli/run_files.h"
#include "crypto/primitives.h"
#include "routing/links.h"
#include "routing/netns.h"
#include "routing/take_snapshot.h"

namespace adit {
namespace {

constexpr auto kStopTimeout = std::chrono::seconds(5);
constexpr auto kPoll = std::chrono::milliseconds(2);
constexpr const char* kRunFolder = "/run";

IpAddress Ip(std::string_view text) { return *IpAddress::Parse(text); }

Status MakeFolder(const std::string& path) {
  if (mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    return FailErrno(errno, "cannot make {}: {}", path, std::strerror(errno));
  }
  return {};
}

// Nothing that the demo writes reaches the machine's own /run.
Status HideRun() {
  if (unshare(CLONE_NEWNS) != 0) return FailErrno(errno, "cannot make a mount namespace: {}", std::strerror(errno));
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    return FailErrno(errno, "cannot make the mounts private: {}", std::strerror(errno));
  }
  // /var/run is a link to /run on most machines, and a folder on the others.
  for (const char* folder : {kRunFolder, "/var/run"}) {
    struct stat info{};
    if (lstat(folder, &info) != 0 || !S_ISDIR(info.st_mode)) continue;
    if (mount("tmpfs", folder, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m") != 0) {
      return FailErrno(errno, "cannot mount over {}: {}", folder, std::strerror(errno));
    }
  }
  return {};
}

// A link-local address comes some time after the link is up; without it, the state before and after can be compared.
// Where /proc/sys cannot be written the address stays, and the comparison may fail.
Status DisableIpv6OnUplink(int netns_fd) {
  return RunInNamespace(netns_fd, [] {
    std::ofstream(fmt::format("/proc/sys/net/ipv6/conf/{}/disable_ipv6", kDemoUplink)) << "1\n";
    return Status();
  });
}

// One step after the other; the first failure is the result.
class Steps {
 public:
  void Do(const Status& status) {
    if (result_ && !status) result_ = status;
  }
  bool is_fine() const { return result_.has_value(); }
  const Status& result() const { return result_; }

 private:
  Status result_;
};

}  // namespace

Result<DemoLab> DemoLab::Create() {
  if (access("/dev/net/tun", F_OK) != 0) {
    return FailErrno(ENOENT,
                     "there is no /dev/net/tun; load the module tun, or give the container --device /dev/net/tun");
  }
  DemoLab lab;
  lab.laptop.name = "laptop";
  lab.server.name = "server";
  if (auto hidden = HideRun(); !hidden) return std::unexpected(hidden.error());
  for (DemoHost* host : {&lab.laptop, &lab.server}) {
    host->tunnel = "wg-" + host->name;
    host->run_folder = fmt::format("{}/{}", kRunFolder, host->name);
    host->conf_file = fmt::format("{}/{}.conf", host->run_folder, host->tunnel);
    if (auto made = MakeFolder(host->run_folder); !made) return std::unexpected(made.error());
    auto netns = CreateNetworkNamespace();
    if (!netns) return std::unexpected(netns.error());
    host->netns = std::move(*netns);
  }
  if (auto built = lab.BuildNetwork(); !built) return std::unexpected(built.error());
  if (auto written = lab.WriteFiles(); !written) return std::unexpected(written.error());
  return lab;
}

Status DemoLab::BuildNetwork() {
  auto laptop_socket = NetlinkSocket::OpenIn(laptop.netns.get());
  if (!laptop_socket) return std::unexpected(laptop_socket.error());
  auto server_socket = NetlinkSocket::OpenIn(server.netns.get());
  if (!server_socket) return std::unexpected(server_socket.error());

  Steps steps;
  steps.Do(CreateVethPair({kDemoUplink, laptop.netns.get()}, {kDemoUplink, server.netns.get()}));
  if (!steps.is_fine()) return steps.result();
  steps.Do(DisableIpv6OnUplink(laptop.netns.get()));
  steps.Do(DisableIpv6OnUplink(server.netns.get()));
  for (NetlinkSocket* socket : {&*laptop_socket, &*server_socket}) {
    steps.Do(SetLinkUp(*socket, "lo", true));
    steps.Do(SetLinkUp(*socket, kDemoUplink, true));
  }
  steps.Do(AddLinkAddress(*laptop_socket, kDemoUplink, {Ip(kDemoLaptop), 24}));
  Route uplink;
  uplink.device = kDemoUplink;
  uplink.gateway = Ip(kDemoGateway);
  steps.Do(AddKernelRoute(*laptop_socket, uplink));
  steps.Do(AddLinkAddress(*server_socket, kDemoUplink, {Ip(kDemoGateway), 24}));
  steps.Do(AddLinkAddress(*server_socket, "lo", {Ip(kDemoEndpoint), 32}));
  steps.Do(AddLinkAddress(*server_socket, "lo", {Ip(kDemoSite), 32}));
  steps.Do(AddLinkAddress(*server_socket, "lo", {Ip(kDemoSiteV6), 128}));
  return steps.result();
}

Status DemoLab::WriteFiles() {
  SystemRandom random;
  const auto everywhere = [](bool v6) { return Prefix(v6 ? Ip("::") : Ip("0.0.0.0"), 0); };
  ConfFile laptop_conf, server_conf;
  laptop_conf.interface.private_key = PrivateKey::Generate(random);
  laptop_conf.interface.addresses = {{Ip(kDemoInnerLaptop), 32}, {Ip("fd99::2"), 128}};
  server_conf.interface.private_key = PrivateKey::Generate(random);
  server_conf.interface.addresses = {{Ip(kDemoInnerServer), 24}, {Ip("fd99::1"), 64}};
  server_conf.interface.listen_port = kDemoPort;

  PresharedKey shared;
  random.Fill(shared.mutable_bytes());
  ConfPeer to_server;
  to_server.public_key = server_conf.interface.private_key->ComputePublicKey();
  to_server.preshared_key = shared;
  to_server.endpoint = ConfEndpoint{kDemoEndpoint, kDemoPort};
  to_server.allowed_ips = {everywhere(false), everywhere(true)};
  laptop_conf.peers.push_back(to_server);
  ConfPeer to_laptop;
  to_laptop.public_key = laptop_conf.interface.private_key->ComputePublicKey();
  to_laptop.preshared_key = shared;
  to_laptop.allowed_ips = {Prefix(Ip(kDemoInnerLaptop), 32), Prefix(Ip("fd99::2"), 128)};
  server_conf.peers.push_back(to_laptop);

  Steps steps;
  steps.Do(SaveConf(laptop_conf, laptop.conf_file));
  steps.Do(SaveConf(server_conf, server.conf_file));
  return steps.result();
}

DemoLab::~DemoLab() {
  for (DemoHost* host : {&laptop, &server}) {
    if (host->process != 0) [[maybe_unused]]
      const auto ignored = Stop(*host);
  }
}

Status DemoLab::Start(DemoHost& host) {
  // Everything that allocates comes before the fork.
  const std::string log = host.run_folder + "/log";
  std::array<std::string, 3> words = {"adit", "run", host.conf_file};
  std::array<char*, 4> arguments = {words[0].data(), words[1].data(), words[2].data(), nullptr};
  std::array<std::string, 3> variables = {"ADIT_RUN_DIR=" + host.run_folder, "LOG_LEVEL=info",
                                          "PATH=/usr/sbin:/usr/bin:/sbin:/bin"};
  std::array<char*, 4> environment = {variables[0].data(), variables[1].data(), variables[2].data(), nullptr};
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child < 0) return FailErrno(errno, "cannot make a process: {}", std::strerror(errno));
  if (child == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);  // Ctrl-C is the demo's; it ends its hosts in order
    const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    const int null = open("/dev/null", O_RDONLY);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    if (getppid() == parent && output >= 0 && null >= 0 && setns(host.netns.get(), CLONE_NEWNET) == 0) {
      dup2(null, STDIN_FILENO);
      dup2(output, STDOUT_FILENO);
      dup2(output, STDERR_FILENO);
      execve("/proc/self/exe", arguments.data(), environment.data());
    }
    _exit(1);
  }
  host.process = child;
  return {};
}

Result<nlohmann::ordered_json> DemoLab::AskStatus(DemoHost& host) const {
  int code = 0;
  if (host.process == 0 || waitpid(host.process, &code, WNOHANG) == host.process) {
    host.process = 0;
    return FailErrno(ESRCH, "the {}'s adit has ended: {}", host.name, Log(host));
  }
  const auto answer = AskTunnel(fmt::format("{}/{}.sock", host.run_folder, host.tunnel), "status", 2s);
  if (!answer) return std::unexpected(answer.error());
  auto json = nlohmann::ordered_json::parse(*answer, nullptr, false);
  if (json.is_discarded()) return Fail("the {}'s status is not JSON", host.name);
  return json;
}

Result<int> DemoLab::Stop(DemoHost& host) {
  if (host.process == 0) return 0;
  kill(host.process, SIGTERM);
  const auto deadline = std::chrono::steady_clock::now() + kStopTimeout;
  int status = 0;
  pid_t gone = 0;
  while ((gone = waitpid(host.process, &status, WNOHANG)) == 0 && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kPoll);
  }
  if (gone == 0) {
    kill(host.process, SIGKILL);
    waitpid(host.process, &status, 0);
    host.process = 0;
    return Fail("the {}'s adit did not stop by itself", host.name);
  }
  host.process = 0;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

std::string DemoLab::Log(const DemoHost& host) const {
  std::ifstream file(host.run_folder + "/log");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

Result<NetSnapshot> DemoLab::Snapshot(const DemoHost& host) {
  Result<NetSnapshot> snapshot;
  const Status taken = RunInNamespace(host.netns.get(), [&]() -> Status {
    auto socket = NetlinkSocket::Open();
    if (!socket) return std::unexpected(socket.error());
    snapshot = TakeSnapshot(*socket);
    return {};
  });
  if (!taken) return std::unexpected(taken.error());
  return snapshot;
}

}  // namespace adit
