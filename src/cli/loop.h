// The control thread: its io_context, the signals, and what ends the program. Set-up runs as plain sequential code that
// calls RunUntil where it has to wait, so that sockets are served and signals heard meanwhile.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>
#include <functional>

#include "base/time.h"

namespace adit {

enum class End {
  kNone,
  kSignal,
  kAsked,  // `adit down`
  kLinkRemoved,
  kSocketRemoved,  // the UAPI socket's file
};

// One per process; all members are for the thread that runs it.
class Loop {
 public:
  // SIGTERM and SIGINT end the loop; a second one ends the process on the spot, leaving what is there to `cleanup`.
  // SIGHUP calls `on_hangup`, or does nothing without one. SIGPIPE is ignored.
  explicit Loop(std::function<void()> on_hangup = nullptr);

  boost::asio::io_context& io() { return io_; }

  // The first one counts.
  void Finish(End end);
  End end() const { return end_; }
  bool has_ended() const { return end_ != End::kNone; }

  // Runs handlers until `done`; it is asked after each one. False if the loop ended first (unless `past_end`, for
  // taking things down) or the time is over.
  bool RunUntil(const std::function<bool()>& done, Duration timeout = Duration::max(), bool past_end = false);
  // Runs handlers until the loop ends.
  void Run();

 private:
  void WaitForSignal();

  boost::asio::io_context io_{1};
  boost::asio::signal_set signals_;
  std::function<void()> on_hangup_;
  End end_ = End::kNone;
  bool stop_was_signalled_ = false;
};

}  // namespace adit
