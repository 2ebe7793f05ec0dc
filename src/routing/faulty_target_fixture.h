// For tests of the routing as a whole: a usual full tunnel, questions about it, and a kernel that fails or a process
// that dies at the operation of the test's choice.
#pragma once

#include <signal.h>
#include <sys/wait.h>

#include <functional>

#include "routing/apply.h"
#include "routing/namespace_fixture.h"
#include "routing/routing.h"
#include "routing/verify.h"

namespace adit {

inline IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

inline RoutingConfig FullTunnel(const std::string& name = "adit0") {
  RoutingConfig config;
  config.interface_name = name;
  config.addresses = {*ParseInterfaceAddress("10.9.0.2/24"), *ParseInterfaceAddress("fd09::2/64")};
  config.allowed_ips = {*Prefix::Parse("0.0.0.0/0", false), *Prefix::Parse("::/0", false),
                        *Prefix::Parse("10.77.0.0/16", false)};
  config.endpoints = {*SocketAddress::Parse("203.0.113.10:51820")};
  return config;
}

// "eth0", or "refused".
inline std::string WayTo(NetlinkSocket& socket, const char* destination, std::uint32_t mark = 0) {
  auto answer = AskRoute(socket, Ip(destination), mark);
  if (!answer) return answer.error().message;
  return answer->refusal != 0 ? "refused" : answer->device;
}

inline std::unique_ptr<Routing> MustUp(const RoutingConfig& config, const std::string& journal) {
  auto routing = Routing::Up(config, journal);
  if (!routing) {
    ADD_FAILURE() << routing.error().message;
    return nullptr;
  }
  return std::move(*routing);
}

// Stands before the kernel and does something else at one operation, counted from 0: done, undone or replaced.
class FaultyTarget : public OpTarget {
 public:
  enum class Fault { kNone, kError, kKillBefore, kKillAfter };
  FaultyTarget(OpTarget& kernel, Fault fault, std::size_t at, int code = ENOBUFS)
      : kernel_(kernel), fault_(fault), at_(at), code_(code) {}

  // How many operations there were.
  std::size_t count() const { return done_; }

  Status Prepare(Op& op) override { return kernel_.Prepare(op); }
  std::vector<Status> Do(std::span<const Op> ops) override {
    return Each(ops, [&](const Op& op) { return kernel_.Do({&op, 1}).front(); });
  }
  std::vector<Status> Undo(std::span<const Op> ops) override {
    return Each(ops, [&](const Op& op) { return kernel_.Undo({&op, 1}).front(); });
  }
  Status Replace(const Op& op) override {
    return Each({&op, 1}, [&](const Op& one) { return kernel_.Replace(one); }).front();
  }

 private:
  std::vector<Status> Each(std::span<const Op> ops, const std::function<Status(const Op&)>& perform) {
    std::vector<Status> outcomes;
    for (const Op& op : ops) {
      const bool here = done_++ == at_;
      if (here && fault_ == Fault::kError) {
        outcomes.push_back(FailErrno(code_, "injected"));
        continue;
      }
      if (here && fault_ == Fault::kKillBefore) raise(SIGKILL);
      outcomes.push_back(perform(op));
      if (here && fault_ == Fault::kKillAfter) raise(SIGKILL);
    }
    return outcomes;
  }

  OpTarget& kernel_;
  const Fault fault_;
  const std::size_t at_;
  const int code_;
  std::size_t done_ = 0;
};

// In a child of its own, which must die of the SIGKILL that `run` meets.
inline void DiesOf(const std::function<void()>& run) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    run();
    _exit(2);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "status " << status;
}

}  // namespace adit
