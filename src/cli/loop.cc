#include "cli/loop.h"

#include <unistd.h>

#include <csignal>
#include <utility>

namespace adit {

Loop::Loop(std::function<void()> on_hangup) : signals_(io_, SIGTERM, SIGINT, SIGHUP), on_hangup_(std::move(on_hangup)) {
  std::signal(SIGPIPE, SIG_IGN);
  WaitForSignal();
}

void Loop::WaitForSignal() {
  signals_.async_wait([this](const boost::system::error_code& error, int signal) {
    if (error) return;
    if (signal == SIGHUP) {
      if (on_hangup_) on_hangup_();
    } else {
      if (stop_was_signalled_) _exit(128 + signal);
      stop_was_signalled_ = true;
      Finish(End::kSignal);
    }
    WaitForSignal();
  });
}

void Loop::Finish(End end) {
  if (end_ == End::kNone) end_ = end;
}

bool Loop::RunUntil(const std::function<bool()>& done, Duration timeout, bool past_end) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const Clock::time_point deadline =
      timeout >= Clock::time_point::max() - start ? Clock::time_point::max() : start + timeout;
  while (!done()) {
    if (has_ended() && !past_end) return false;
    // The signal set always waits, so there is always work. wait_until with max() overflows in libstdc++.
    if (deadline == Clock::time_point::max()) {
      io_.run_one();
    } else if (Clock::now() >= deadline) {
      return false;
    } else {
      io_.run_one_until(deadline);
    }
  }
  return true;
}

void Loop::Run() {
  RunUntil([] { return false; });
}

}  // namespace adit
