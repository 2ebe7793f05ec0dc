// Where the sockets are bound to the uplink: looks at the network again after each change, and lets nothing leave while
// it could not look.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>

#include "base/result.h"
#include "base/time.h"
#include "routing/snapshot.h"
#include "routing/uplink_choice.h"

namespace adit {

// Control thread only. `choice` stays as it is when this goes.
class UplinkFollower {
 public:
  // Looking takes at most one part in so many of the time: somebody may change routes without end. In between nothing
  // leaves.
  static constexpr int kLookShare = 4;
  static constexpr Duration kRetryAfter = 1s;  // where the kernel could not be asked

  struct Calls {
    std::function<Result<NetSnapshot>()> look;  // the network without what the tunnel put there
    std::function<void()> on_changed;           // a destination in use leaves by another link, or leaves again
  };
  // Fails if the first look does.
  static Result<std::unique_ptr<UplinkFollower>> Start(boost::asio::io_context& io,
                                                       std::shared_ptr<UplinkChoice> choice, Calls calls);

  // Links, addresses or routes changed.
  void OnNetworkEvent();

 private:
  UplinkFollower(boost::asio::io_context& io, std::shared_ptr<UplinkChoice> choice, Calls calls)
      : choice_(std::move(choice)), calls_(std::move(calls)), timer_(io) {}
  Status Look();
  void LookOrRetry();
  void LookIn(Duration wait);

  const std::shared_ptr<UplinkChoice> choice_;
  const Calls calls_;
  boost::asio::steady_timer timer_;
  Instant not_before_;
  bool is_waiting_ = false;
};

}  // namespace adit
