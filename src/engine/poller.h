// epoll and eventfd (door): how a data thread sleeps and is woken.
#pragma once

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <span>

#include "base/check.h"
#include "base/fd.h"

namespace adit {

// A bell that any thread may ring; it stays rung until it is silenced.
class Bell {
 public:
  Bell() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) { CHECK(fd_); }
  int fd() const { return fd_.get(); }
  void Ring() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = write(fd_.get(), &one, sizeof one);  // EAGAIN: it rings already
  }
  void Silence() {
    std::uint64_t rung;
    [[maybe_unused]] const auto got = read(fd_.get(), &rung, sizeof rung);
  }

 private:
  Fd fd_;
};

class Poller {
 public:
  Poller() : fd_(epoll_create1(EPOLL_CLOEXEC)) { CHECK(fd_); }
  void Add(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    CHECK(epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) == 0);
  }
  void Remove(int fd) { epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  // Sleeps until something is readable. `events` may hold errors and hang-ups too: the reader finds out.
  std::span<const epoll_event> Wait() {
    const int count = epoll_wait(fd_.get(), events_.data(), static_cast<int>(events_.size()), -1);
    CHECK(count >= 0 || errno == EINTR);
    return std::span(events_).first(count > 0 ? static_cast<std::size_t>(count) : 0);
  }

 private:
  Fd fd_;
  std::array<epoll_event, 8> events_;
};

}  // namespace adit
