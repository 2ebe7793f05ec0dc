#include "cli/uplink_follower.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "engine/clock.h"

namespace adit {

Result<std::unique_ptr<UplinkFollower>> UplinkFollower::Start(boost::asio::io_context& io,
                                                              std::shared_ptr<UplinkChoice> choice, Calls calls) {
  std::unique_ptr<UplinkFollower> follower(new UplinkFollower(io, std::move(choice), std::move(calls)));
  if (Status looked = follower->Look(); !looked) return std::unexpected(looked.error());
  return follower;
}

void UplinkFollower::OnNetworkEvent() {
  if (is_waiting_) return;
  const Instant now = BootNow();
  if (now >= not_before_) return LookOrRetry();
  choice_->Forget();
  LookIn(not_before_ - now);
}

Status UplinkFollower::Look() {
  const Instant begin = BootNow();
  const auto network = calls_.look();
  const Instant end = BootNow();
  not_before_ = end + kLookShare * (end - begin);
  if (!network) return std::unexpected(network.error());
  if (choice_->Decide(*network)) calls_.on_changed();
  return {};
}

void UplinkFollower::LookOrRetry() {
  const Status looked = Look();
  if (looked) return;
  choice_->Forget();
  spdlog::error("nothing leaves by the uplink: {}", looked.error().message);
  LookIn(kRetryAfter);
}

void UplinkFollower::LookIn(Duration wait) {
  is_waiting_ = true;
  timer_.expires_after(wait);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;  // this may be gone
    is_waiting_ = false;
    LookOrRetry();
  });
}

}  // namespace adit
