// Calls a function on the control thread each time a descriptor is readable.
#pragma once

#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <functional>
#include <memory>
#include <utility>

#include "base/check.h"

namespace adit {

// The descriptor stays its owner's, who keeps it open for as long as this lives. `on_ready` reads it empty and does not
// destroy this object.
class FdWatch {
 public:
  FdWatch(boost::asio::io_context& context, int fd, std::function<void()> on_ready)
      : state_(std::make_shared<State>(context, std::move(on_ready))) {
    // A duplicate, because Asio closes what it is given.
    const int duplicate = dup(fd);
    CHECK(duplicate >= 0);
    state_->descriptor.assign(duplicate);
    Arm(state_);
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
