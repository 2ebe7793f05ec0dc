// Keeps the tunnel's MTU at what its paths really let through: looks whether a path has come into use, searches it
// (routing/mtu_watch.h says when, routing/mtu_search.h how, cli/path_probe.h sends), and says what limit follows.
//
// Control thread only. One path at a time; between searches a look at the counters of at most 16 peers a second.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cli/path_probe.h"
#include "config/conf_file.h"
#include "engine/engine.h"
#include "routing/mtu_watch.h"

namespace adit {

class MtuKeeper {
 public:
  // `engine`, `conf` and the loop outlive it; `conf` may change between calls, followed by Follow. `on_limit` is called
  // when a search moved limit(), from the loop.
  MtuKeeper(boost::asio::io_context& io, const Engine& engine, const ConfFile& conf, std::string device,
            std::function<void()> on_limit);
  ~MtuKeeper();
  MtuKeeper(const MtuKeeper&) = delete;
  MtuKeeper& operator=(const MtuKeeper&) = delete;

  // The paths may be others now. True if limit() is.
  bool Follow(std::span<const std::optional<SocketAddress>> endpoints, const Plan& plan);
  // To be called each second while WantsLooks().
  void Look();
  // There is an MTU to be found out.
  bool WantsLooks() const { return has_paths_; }

  unsigned limit() const { return watch_.limit(); }
  std::vector<std::string> Warnings() const { return watch_.Warnings(); }

 private:
  void Count();
  void Begin(const MtuWatch::Task& task);
  void Drive();
  void DriveAt(Instant at);
  void End(MtuVerdict verdict);

  boost::asio::io_context& io_;
  const Engine& engine_;
  const ConfFile& conf_;
  const std::string device_;
  const std::function<void()> on_limit_;
  MtuWatch watch_;
  bool has_paths_ = false;
  // The search under way.
  std::string endpoint_;  // for the log
  std::vector<IpAddress> destinations_;
  std::optional<MtuSearch> search_;
  std::unique_ptr<PathProbe> probe_;
  boost::asio::steady_timer timer_;
  const std::shared_ptr<int> alive_ = std::make_shared<int>();
};

}  // namespace adit
