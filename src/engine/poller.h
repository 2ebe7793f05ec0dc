// epoll and eventfd (door): how a data thread sleeps and is woken.
#pragma once

#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>

#include "base/check.h"
#include "base/fd.h"
#include "base/result.h"

namespace adit {

// What the kernel said when it had no descriptor for us, and what to change.
inline std::unexpected<Error> FailDescriptor(int code, const char* what) {
  const char* const cure = code == EMFILE   ? ": raise the limit (ulimit -n, LimitNOFILE=)"
                           : code == ENFILE ? ": raise the machine's limit (sysctl fs.file-max)"
                           : code == ENOSPC ? ": raise the limit (sysctl fs.epoll.max_user_watches)"
                                            : "";
  return FailErrno(code, "cannot open {}: {}{}", what, std::strerror(code), cure);
}

// A bell that any thread may ring; it stays rung until it is silenced.
class Bell {
 public:
  static Result<Bell> Open() {
    Fd fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
    if (!fd) return FailDescriptor(errno, "an eventfd");
    return Bell(std::move(fd));
  }
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
  explicit Bell(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
};

class Poller {
 public:
  static Result<Poller> Open() {
    Fd fd(epoll_create1(EPOLL_CLOEXEC));
    if (!fd) return FailDescriptor(errno, "an epoll set");
    return Poller(std::move(fd));
  }
  // Fails only for want of memory, or of watches (ENOSPC).
  Status Add(int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (epoll_ctl(fd_.get(), EPOLL_CTL_ADD, fd, &event) != 0) return FailDescriptor(errno, "a watch");
    return {};
  }
  void Remove(int fd) { epoll_ctl(fd_.get(), EPOLL_CTL_DEL, fd, nullptr); }

  // Sleeps until something is readable. `events` may hold errors and hang-ups too: the reader finds out.
  std::span<const epoll_event> Wait() {
    const int count = epoll_wait(fd_.get(), events_.data(), static_cast<int>(events_.size()), -1);
    CHECK(count >= 0 || errno == EINTR);
    return std::span(events_).first(count > 0 ? static_cast<std::size_t>(count) : 0);
  }

 private:
  explicit Poller(Fd fd) : fd_(std::move(fd)) {}
  Fd fd_;
  std::array<epoll_event, 8> events_{};
};

// What a data thread sleeps in and what wakes it: opened before the thread is, because opening may fail.
struct Bed {
  Bell bell;
  Poller poller;  // watches the bell

  static Result<Bed> Open() {
    auto bell = Bell::Open();
    if (!bell) return std::unexpected(bell.error());
    auto poller = Poller::Open();
    if (!poller) return std::unexpected(poller.error());
    if (const Status added = poller->Add(bell->fd()); !added) return std::unexpected(added.error());
    return Bed{std::move(*bell), std::move(*poller)};
  }
};

}  // namespace adit
