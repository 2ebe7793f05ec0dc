// Calls a function on the control thread each time a descriptor is readable.
#pragma once

#include <fcntl.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "engine/poller.h"

namespace adit {

// The descriptor stays its owner's, who keeps it open for as long as this lives. `on_ready` reads it empty and does not
// destroy this object.
class FdWatch {
 public:
  static Result<std::unique_ptr<FdWatch>> Open(boost::asio::io_context& context, int fd,
                                               std::function<void()> on_ready) {
    // A duplicate, because Asio closes what it is given.
    Fd duplicate(fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!duplicate) return FailDescriptor(errno, "a descriptor a second time");
    auto state = std::make_shared<State>(context, std::move(on_ready));
    boost::system::error_code error;
    state->descriptor.assign(duplicate.get(), error);
    if (error) return FailDescriptor(error.value(), "a watch");
    static_cast<void>(duplicate.Release());
    Arm(state);
    return std::unique_ptr<FdWatch>(new FdWatch(std::move(state)));
  }
  ~FdWatch() {
    state_->on_ready = nullptr;
    state_->descriptor.close();
  }
  FdWatch(const FdWatch&) = delete;
  FdWatch& operator=(const FdWatch&) = delete;

 private:
  struct State {
    State(boost::asio::io_context& context, std::function<void()> ready)
        : descriptor(context), on_ready(std::move(ready)) {}
    boost::asio::posix::stream_descriptor descriptor;
    std::function<void()> on_ready;  // empty once the watch is gone
  };

  explicit FdWatch(std::shared_ptr<State> state) : state_(std::move(state)) {}

  static void Arm(const std::shared_ptr<State>& state) {
    state->descriptor.async_wait(boost::asio::posix::stream_descriptor::wait_read,
                                 [state](const boost::system::error_code& error) {
                                   if (error || !state->on_ready) return;
                                   state->on_ready();
                                   if (state->on_ready) Arm(state);
                                 });
  }

  std::shared_ptr<State> state_;
};

}  // namespace adit
