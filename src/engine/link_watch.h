// What happens to our link, and to the network around our sockets (door, over rtnetlink).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "base/result.h"

struct nl_sock;
struct nl_msg;

namespace adit {

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
  ~LinkWatch();
  LinkWatch(const LinkWatch&) = delete;
  LinkWatch& operator=(const LinkWatch&) = delete;

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

  nl_sock* socket_ = nullptr;
  int index_ = 0;
  LinkState state_;
};

// Tells that addresses or routes of this namespace changed. Control thread only.
class NetworkWatch {
 public:
  static Result<std::unique_ptr<NetworkWatch>> Open();
  ~NetworkWatch();
  NetworkWatch(const NetworkWatch&) = delete;
  NetworkWatch& operator=(const NetworkWatch&) = delete;

  int fd() const;
  // Reads all news; true if there was any (a lost message counts as one).
  bool Process();

 private:
  NetworkWatch() = default;
  nl_sock* socket_ = nullptr;
  bool has_news_ = false;
};

}  // namespace adit
