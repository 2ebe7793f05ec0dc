// The UAPI socket, DIRECTORY/NAME.sock: what `wg` and wgctrl talk to. Runs wholly on the thread that runs the
// io_context. Who may connect is decided by file permissions alone (the socket is 0700).
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "config/device.h"
#include "config/uapi.h"

namespace adit {

inline constexpr char kUapiDirectory[] = "/var/run/wireguard";

// Removes the socket that a crashed process left behind. One that somebody serves, or something else in its place,
// stays.
void RemoveStaleUapiSocket(const std::string& name, const std::string& directory = kUapiDirectory);

struct UapiServerOptions {
  std::string directory = kUapiDirectory;  // made with mode 0755 if it is missing; `wg` has this one compiled in
  std::string name;                        // of the interface
  // WG_UAPI_FD: a listening UNIX socket to serve in place of a new one. DIRECTORY/NAME.sock, if it is there, is taken
  // to be its file.
  Fd listening_socket;
  // Called once, when the socket's file is gone or has been replaced by another: the sign to end (xplatform contract).
  // Not called after the server's end. It may destroy the server.
  std::function<void()> on_removed;

  // Bounds. One client too many: the one that has been silent longest is closed. Requests that together exceed their
  // bound: the one that would go beyond is answered with ENOBUFS.
  std::size_t max_clients = 64;
  std::size_t max_pending_bytes = 2 * kMaxUapiRequestBytes;
  std::chrono::milliseconds idle_timeout{60'000};  // without a byte moved in either direction
};

class UapiServer {
 public:
  // When it returns, the socket is there and answers once `control` runs. Another process that answers on the socket is
  // an error (EADDRINUSE); a socket that nobody serves is replaced. `device` must outlive the server, `control` too.
  static Result<std::unique_ptr<UapiServer>> Start(boost::asio::io_context& control, DeviceControl& device,
                                                   UapiServerOptions options);
  // Closes all clients, and removes the socket's file if it is still ours.
  ~UapiServer();

  std::string path() const;
  std::size_t client_count() const;

 private:
  class Impl;
  explicit UapiServer(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace adit
