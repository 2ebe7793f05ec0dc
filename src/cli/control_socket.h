// NAME.sock of a tunnel that `up` or `run` made: how `status` and `down` talk to it. Lines, not UAPI:
//
//   "status\n"       one line of JSON (status.h)
//   "status keys\n"  the same with private and preshared keys
//   "reload\n"       reads the file again; the answer comes when that is done: "ok\n", or a sentence what was wrong
//   "judge P\n"      what the tunnel's firewall does to packet P, one line of JSON (firewall_question.h)
//   "portal U S\n"   opens the way past the tunnel for user id U for S seconds: "ok" and the network's servers for
//   names,
//                    or a sentence what was wrong; "portal\n" closes it
//   "stop\n"         takes the tunnel down; the answer comes when that is done: "ok\n", or a sentence what remains
//
// 0600: who may open it may read the keys.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/time.h"

namespace adit {

inline constexpr std::size_t kMaxControlClients = 16;        // one more is refused at once
inline constexpr std::size_t kMaxControlRequestBytes = 160;  // longer: the client is dropped
inline constexpr Duration kControlIdleTimeout = 10s;

struct ControlHandlers {
  std::function<std::string(bool show_keys)> status;  // without a newline
  std::function<void()> stop;
  std::function<void()> reload;
  std::function<std::string(const std::string& packet)> judge = {};  // empty: the packet was none
  std::function<std::string(const std::string& words)> portal = {};  // what follows "portal"
};

// Control thread only.
class ControlSocket {
 public:
  // REQUIRES: the TunnelLock of this name is held, since a stale file is replaced.
  static Result<std::unique_ptr<ControlSocket>> Listen(boost::asio::io_context& io, const std::string& path,
                                                       ControlHandlers handlers);
  ~ControlSocket();  // removes the file

  // Answers those who asked to stop. The last call before the destructor.
  void AnswerStops(const std::string& answer);
  // Answers those who asked to reload, who then may ask for more.
  void AnswerReloads(const std::string& answer);

 private:
  class Impl;
  explicit ControlSocket(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

// The client's side, blocking: sends `request` and returns the answer without its newline. Error.code: ECONNREFUSED or
// ENOENT if nobody listens, EACCES, ETIMEDOUT, ECONNRESET if it hung up without an answer.
Result<std::string> AskTunnel(const std::string& socket_path, const std::string& request, Duration timeout);

}  // namespace adit
