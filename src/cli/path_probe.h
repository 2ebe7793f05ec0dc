// Sends packets of a given size into the tunnel and hears whether they came out at its other end: UDP with a hop limit
// of 1 to a port where nobody listens, to which the peer's kernel answers "time exceeded" or "port unreachable". As
// tracepath does it: no raw socket, the answers come by the socket's error queue, and each probe has its own port.
//
// The socket is bound to the TUN: no probe ever leaves beside the tunnel, whatever the routes say.
#pragma once

#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"
#include "engine/fd_watch.h"

namespace adit {

// Control thread only.
class PathProbe {
 public:
  // `id` as given to Send. Called by the watch of this object: it must not destroy it.
  using OnAnswer = std::function<void(std::uint16_t id)>;

  // `own`: the tunnel's own addresses. What they answer never left the machine.
  static Result<std::unique_ptr<PathProbe>> Open(boost::asio::io_context& io, const std::string& device, bool is_v6,
                                                 std::vector<IpAddress> own, OnAnswer on_answer);
  PathProbe(const PathProbe&) = delete;
  PathProbe& operator=(const PathProbe&) = delete;

  // A packet of `packet_bytes`, IP header included. 0, or the errno value: then nothing was sent.
  int Send(const IpAddress& to, std::uint16_t id, unsigned packet_bytes);

 private:
  PathProbe(Fd fd, bool is_v6, std::vector<IpAddress> own, OnAnswer on_answer);
  void ReadAnswers();

  Fd fd_;
  const bool is_v6_;
  const std::vector<IpAddress> own_;
  const OnAnswer on_answer_;
  std::unique_ptr<FdWatch> watch_;
};

}  // namespace adit
