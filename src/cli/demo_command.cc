#include "cli/demo_command.h"

#include <fmt/color.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <thread>

#include "cli/demo_lab.h"
#include "cli/demo_probe.h"
#include "cli/status.h"
#include "cli/terminal.h"
#include "crypto/primitives.h"

namespace adit {
namespace {

using Json = nlohmann::ordered_json;
using namespace std::chrono_literals;

std::atomic<bool> is_interrupted = false;
static_assert(std::atomic<bool>::is_always_lock_free);
void OnInterrupt(int) { is_interrupted = true; }

constexpr auto kStartTimeout = 8s;
constexpr auto kTransferTime = 3s;
constexpr std::uint16_t kTransferPort = 5201;
constexpr auto kPingTimeout = 1s;
// The first ping waits for a handshake, which is tried again after 5 seconds.
constexpr auto kFirstPingTimeout = 6s;

IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

// What the person sees: numbered headings, findings below them, and ok or failed for each check. After Ctrl-C nothing
// more: what an interrupted step found means nothing.
class Stage {
 public:
  explicit Stage(bool colour) : colour_(colour) {}

  void Heading(std::string_view text) {
    if (is_interrupted) return;
    fmt::print("\n{}\n", Paint(fmt::emphasis::bold, fmt::format("{}. {}", ++heading_count_, text)));
    std::fflush(stdout);
  }
  void Line(std::string_view text) {
    if (!is_interrupted) fmt::print("   {}\n", text);
  }
  bool Check(bool holds, std::string_view text) {
    if (is_interrupted) return false;
    const auto mark = holds ? Paint(fmt::fg(fmt::terminal_color::green), "ok    ")
                            : Paint(fmt::fg(fmt::terminal_color::red) | fmt::emphasis::bold, "failed");
    fmt::print("   {} {}\n", mark, text);
    std::fflush(stdout);
    if (!holds) ++failure_count_;
    return holds;
  }
  void Failed(const Error& error) { Check(false, error.message); }
  unsigned failure_count() const { return failure_count_; }

 private:
  std::string Paint(const fmt::text_style& style, std::string_view text) const {
    return colour_ ? fmt::format(style, "{}", text) : std::string(text);
  }
  bool colour_;
  unsigned heading_count_ = 0;
  unsigned failure_count_ = 0;
};

double Milliseconds(std::chrono::microseconds time) { return static_cast<double>(time.count()) / 1000; }

// Until the tunnel's process says that it is up.
Result<std::chrono::duration<double>> StartAndWait(DemoLab& lab, DemoHost& host) {
  const auto start = std::chrono::steady_clock::now();
  if (auto started = lab.Start(host); !started) return std::unexpected(started.error());
  while (!is_interrupted && std::chrono::steady_clock::now() - start < kStartTimeout) {
    const auto status = lab.AskStatus(host);
    if (status && (*status)["state"] == "up") return std::chrono::steady_clock::now() - start;
    if (!status && status.error().code == ESRCH) return std::unexpected(status.error());
    std::this_thread::sleep_for(2ms);
  }
  return Fail("the {}'s adit is not up: {}", host.name, lab.Log(host));
}

void DrawTopology(Stage& stage) {
  const auto row = [&stage](std::string_view left, std::string_view between, std::string_view right) {
    stage.Line(fmt::format("| {:<31} |{:^11}| {:<34} |", left, between, right));
  };
  const std::string border = fmt::format("+{0:-<33}+{1:11}+{0:-<36}+", "", "");
  stage.Line(border);
  row("laptop", "", "server");
  row("", "", "");
  row(fmt::format("wg-laptop  {}", kDemoInnerLaptop), "== tunnel =", fmt::format("wg-server  {}", kDemoInnerServer));
  row(fmt::format("eth0       {}", kDemoLaptop), "-- veth ---", fmt::format("eth0       {}", kDemoGateway));
  row(fmt::format("default via {}", kDemoGateway), "", fmt::format("endpoint   {}:{}/udp", kDemoEndpoint, kDemoPort));
  row("AllowedIPs = 0.0.0.0/0, ::/0", "", fmt::format("\"internet\" {}", kDemoSite));
  row("", "", fmt::format("           {}", kDemoSiteV6));
  stage.Line(border);
}

void ShowPings(Stage& stage, const PingResult& pings, std::string_view where) {
  auto times = pings.round_trips;
  if (!stage.Check(times.size() == pings.sent && pings.sent > 0,
                   fmt::format("{} of {} pings to {} came back", times.size(), pings.sent, where))) {
    return;
  }
  std::ranges::sort(times);
  stage.Line(fmt::format("       round trip: least {:.3f} ms, median {:.3f} ms, most {:.3f} ms",
                         Milliseconds(times.front()), Milliseconds(times[times.size() / 2]),
                         Milliseconds(times.back())));
}

// The lines of `ip rule` and `ip route` that are there now and were not before.
void ShowRulesAndRoutes(Stage& stage, const NetSnapshot& before, const NetSnapshot& now) {
  const auto family = [](Family f) { return f == Family::kV6 ? "ip -6" : "ip -4"; };
  for (const Rule& rule : now.rules) {
    if (std::ranges::find(before.rules, rule) == before.rules.end()) {
      stage.Line(fmt::format("{} rule   {}", family(rule.family), rule.ToString()));
    }
  }
  for (const Route& route : now.routes) {
    if (route.type == RouteType::kLocal || route.type == RouteType::kMulticast || route.type == RouteType::kBroadcast) {
      continue;
    }
    if (std::ranges::find(before.routes, route) == before.routes.end()) {
      stage.Line(fmt::format("{} route  {}", family(route.family()), route.ToString()));
    }
  }
}

// The story, from the first ping in the clear to the proof. Returns early where going on makes no sense.
Status Tell(Stage& stage, DemoLab& lab) {
  const int laptop = lab.laptop.netns.get();
  const int server = lab.server.netns.get();
  const SocketAddress endpoint{Ip(kDemoEndpoint), kDemoPort, 0};

  stage.Heading("Two hosts in network namespaces of their own; the machine's own network is not touched");
  DrawTopology(stage);

  stage.Heading("Before: the laptop talks to the internet in the clear");
  const auto before = DemoLab::Snapshot(lab.laptop);
  if (!before) return std::unexpected(before.error());
  auto foreign = PacketWatch::Open(laptop, kDemoUplink, FilterForeignPackets(Ip(kDemoLaptop), endpoint));
  if (!foreign) return std::unexpected(foreign.error());
  const auto in_the_clear = Ping(laptop, Ip(kDemoSite), 3, 20ms, kPingTimeout, is_interrupted);
  if (!in_the_clear) return std::unexpected(in_the_clear.error());
  ShowPings(stage, *in_the_clear, kDemoSite);
  const auto seen_before = foreign->TakeCount();
  if (!seen_before) return std::unexpected(seen_before.error());
  stage.Check(*seen_before >= 2 * in_the_clear->round_trips.size() && *seen_before > 0,
              fmt::format("the watch on the laptop's {} sees them: {} packets that anybody could read", kDemoUplink,
                          *seen_before));

  stage.Heading("Both ends come up: `adit run`, a full tunnel on the laptop");
  for (DemoHost* host : {&lab.server, &lab.laptop}) {
    const auto took = StartAndWait(lab, *host);
    if (!took) return std::unexpected(took.error());
    stage.Check(
        true, fmt::format("{}: device, addresses, routes and rules in {:.0f} ms", host->tunnel, took->count() * 1000));
  }
  auto looped = PacketWatch::Open(laptop, lab.laptop.tunnel, FilterLoopedPackets(endpoint));
  if (!looped) return std::unexpected(looped.error());
  // What was on its way while the rules came does not count.
  if (auto reset = foreign->TakeCount(); !reset) return std::unexpected(reset.error());

  stage.Heading("The first packet makes the handshake");
  const auto first = Ping(laptop, Ip(kDemoSite), 1, 0ms, kFirstPingTimeout, is_interrupted);
  if (!first) return std::unexpected(first.error());
  if (!stage.Check(first->round_trips.size() == 1, "the first ping came back through the tunnel")) {
    return Fail("no answer; the laptop's log: {}", lab.Log(lab.laptop));
  }
  stage.Line(fmt::format("       handshake and round trip together: {:.2f} ms", Milliseconds(first->round_trips[0])));
  const auto status = lab.AskStatus(lab.laptop);
  if (!status) return std::unexpected(status.error());
  stage.Check(!(*status)["peers"].empty() && !(*status)["peers"][0]["latest_handshake"].is_null(),
              "both sides have session keys");

  stage.Heading("Ping through the tunnel");
  const auto pings = Ping(laptop, Ip(kDemoSite), 10, 100ms, kPingTimeout, is_interrupted);
  if (!pings) return std::unexpected(pings.error());
  ShowPings(stage, *pings, kDemoSite);
  const auto pings_v6 = Ping(laptop, Ip(kDemoSiteV6), 3, 20ms, kPingTimeout, is_interrupted);
  if (!pings_v6) return std::unexpected(pings_v6.error());
  ShowPings(stage, *pings_v6, fmt::format("{}, over a link without IPv6", kDemoSiteV6));

  stage.Heading("TCP through the tunnel, 3 seconds");
  const auto uplink_before = ReadLinkCounters(laptop, kDemoUplink);
  if (!uplink_before) return std::unexpected(uplink_before.error());
  const auto transfer = TransferTcp(laptop, server, {Ip(kDemoSite), kTransferPort, 0}, kTransferTime, is_interrupted);
  if (!transfer) return std::unexpected(transfer.error());
  const auto uplink_after = ReadLinkCounters(laptop, kDemoUplink);
  if (!uplink_after) return std::unexpected(uplink_after.error());
  stage.Check(transfer->bytes > 0, fmt::format("{:.2f} Gb/s ({} in {:.1f} s)", transfer->GigabitsPerSecond(),
                                               BytesText(transfer->bytes), transfer->time.count()));

  stage.Heading("The rules and routes in force on the laptop");
  const auto during = DemoLab::Snapshot(lab.laptop);
  if (!during) return std::unexpected(during.error());
  ShowRulesAndRoutes(stage, *before, *during);
  stage.Check(during->rules.size() > before->rules.size(), "rules keep the tunnel's own packets out of the tunnel");

  stage.Heading("Proof that nothing loops and nothing leaks");
  const auto seen = foreign->TakeCount();
  if (!seen) return std::unexpected(seen.error());
  stage.Check(*seen == 0, fmt::format("{}: {} packets that were not the tunnel's UDP to {}", kDemoUplink, *seen,
                                      endpoint.ToString()));
  const auto loops = looped->TakeCount();
  if (!loops) return std::unexpected(loops.error());
  stage.Check(*loops == 0, fmt::format("{}: {} of the tunnel's own packets came in again", lab.laptop.tunnel, *loops));
  if (auto sent = SendDatagram(laptop, endpoint); !sent) return sent;
  const auto unmarked = looped->TakeCount();
  if (!unmarked) return std::unexpected(unmarked.error());
  stage.Check(*unmarked == 1, fmt::format("the watch works: a datagram of another program to {}, without the mark, "
                                          "goes into the tunnel and is seen",
                                          endpoint.ToString()));
  const std::uint64_t carried = uplink_after->tx_bytes - uplink_before->tx_bytes;
  // 60 of 1420 bytes are overhead with full packets; retransmissions come on top. A loop would multiply.
  const double ratio = transfer->bytes == 0 ? 0 : static_cast<double>(carried) / static_cast<double>(transfer->bytes);
  stage.Check(ratio >= 1 && ratio < 1.5, fmt::format("{} carried {} for {} of TCP: {:.2f} times as much", kDemoUplink,
                                                     BytesText(carried), BytesText(transfer->bytes), ratio));

  stage.Heading("Down again");
  const auto code = lab.Stop(lab.laptop);
  if (!code) return std::unexpected(code.error());
  stage.Check(*code == 0, fmt::format("the laptop's adit ended with exit code {}", *code));
  const auto after = DemoLab::Snapshot(lab.laptop);
  if (!after) return std::unexpected(after.error());
  stage.Check(after->rules == before->rules && after->routes == before->routes &&
                  after->addresses == before->addresses && after->links == before->links &&
                  after->sysctls == before->sysctls,
              "links, addresses, routes, rules and sysctls are exactly as before");
  return {};
}

}  // namespace

Outcome RunDemo() {
  struct sigaction action{};
  action.sa_handler = OnInterrupt;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  InitializeCrypto();

  auto lab = DemoLab::Create();
  if (!lab && lab.error().code == EPERM) {
    return FailWith(ExitCode::kEnvironment,
                    "the demo makes network namespaces and a TUN device, which needs root (CAP_SYS_ADMIN and "
                    "CAP_NET_ADMIN): sudo adit demo; in a container, --privileged ({})",
                    lab.error().message);
  }
  if (!lab) return FailFrom(lab.error());
  Stage stage(UseColour());
  const Status told = Tell(stage, *lab);
  if (is_interrupted) return FailWith(ExitCode::kFailure, "interrupted; everything is cleaned up");
  if (!told) stage.Failed(told.error());
  if (stage.failure_count() != 0) {
    return FailWith(ExitCode::kFailure, "{} of the demo's checks failed", stage.failure_count());
  }
  fmt::print("\nEverything held.\n");
  return {};
}

}  // namespace adit
