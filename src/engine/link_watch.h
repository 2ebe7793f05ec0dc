// What happens to our link, and to the network around our sockets (door, over rtnetlink).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/address.h"
#include "base/result.h"

struct nl_sock;
struct nl_msg;

namespace adit {

struct FreeNetlinkSocket {
  void operator()(nl_sock* socket) const;
};
using OwnedNetlinkSocket = std::unique_ptr<nl_sock, FreeNetlinkSocket>;

struct LinkState {
  bool exists = false;
  bool is_up = false;
  unsigned mtu = 0;
  friend bool operator==(const LinkState&, const LinkState&) = default;
};

// Follows one link in one network namespace. Control thread only. The descriptor becomes readable when there is news.
class LinkWatch {
 public:
  // `namespace_fd` < 0: the caller's namespace. The link is looked up by name once and followed by index afterwards.
  static Result<std::unique_ptr<LinkWatch>> Open(int namespace_fd, const std::string& name);

  int fd() const;
  // Reads all news. After a lost message (ENOBUFS) the state is asked for again.
  void Process();
  const LinkState& state() const { return state_; }

  // Asks that the kernel put no more than this many segments into one super-packet. Not an error if it cannot.
  void LimitSegments(unsigned segments);

 private:
  LinkWatch() = default;
  void Request();
  int OnMessage(nl_msg* message);

  OwnedNetlinkSocket socket_;
  int index_ = 0;
  LinkState state_;
};

struct WatchNews {
  bool places = false;  // addresses or routes
  bool rules = false;
};

// Tells that addresses, routes or rules of this namespace changed. Control thread only.
class NetworkWatch {
 public:
  static Result<std::unique_ptr<NetworkWatch>> Open();

  int fd() const;
  // Reads all news (a lost message counts as one of each).
  WatchNews Process();

 private:
  NetworkWatch() = default;
  OwnedNetlinkSocket socket_;
  WatchNews news_;
};

// Asks the kernel which links a datagram has to do with. Control thread only; one question takes some 10 us.
class LinkLookup {
 public:
  static Result<std::unique_ptr<LinkLookup>> Open();

  // The interface by which a datagram of this mark leaves for `to`, from `from` if it is set; 0 if it does not, or if
  // the kernel does not say.
  std::uint32_t RouteTo(const IpAddress& to, const IpAddress& from, std::uint32_t mark);
  // The interface that `ip` is an address of; 0 if of none.
  std::uint32_t HomeOf(const IpAddress& ip);

 private:
  LinkLookup() = default;
  OwnedNetlinkSocket socket_;
};

}  // namespace adit
