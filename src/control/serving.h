// For tests: a UapiServer on a thread of its own, and blocking clients for it.
#pragma once

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

#include "base/check.h"
#include "base/fd.h"
#include "control/fake_device.h"
#include "control/uapi_server.h"

namespace adit {

// A new empty directory that is removed with everything in it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    char name[] = "/tmp/adit_uapi_XXXXXX";
    CHECK(mkdtemp(name) != nullptr);
    path_ = name;
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline sockaddr_un LocalAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

class Serving {
 public:
  explicit Serving(UapiServerOptions options) {
    options.on_removed = [this] { removed_.set_value(); };
    auto server = UapiServer::Start(control_, device_, std::move(options));
    if (!server) {
      error_ = server.error();
      return;
    }
    server_ = *std::move(server);
    thread_ = std::thread([this] { control_.run(); });
  }
  Serving(const Serving&) = delete;
  Serving& operator=(const Serving&) = delete;
  ~Serving() {
    if (!thread_.joinable()) return;
    OnThread([this] {
      server_.reset();
      return 0;
    });
    work_.reset();
    thread_.join();  // ends only if the server left no operation behind
  }

  const Error& error() const { return error_; }  // of Start
  std::future<void>& removed() { return removed_future_; }
  // The device, while no request is under way. Meets the server's thread before and after, since a request that went
  // through another process (wg) orders nothing between the two in the eyes of the thread sanitizer.
  class Device {
   public:
    explicit Device(Serving& serving) : serving_(serving) { serving_.Meet(); }
    Device(const Device&) = delete;
    Device& operator=(const Device&) = delete;
    ~Device() { serving_.Meet(); }
    FakeDevice* operator->() const { return &serving_.device_; }

   private:
    Serving& serving_;
  };
  Device device() { return Device(*this); }
  std::size_t client_count() {
    return OnThread([this] { return server_->client_count(); });
  }

 private:
  template <typename F>
  auto OnThread(F f) -> decltype(f()) {
    std::packaged_task<decltype(f())()> task(std::move(f));
    auto result = task.get_future();
    boost::asio::post(control_, [&task] { task(); });
    return result.get();
  }

  void Meet() {
    if (thread_.joinable()) OnThread([] { return 0; });
  }

  boost::asio::io_context control_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{control_.get_executor()};
  FakeDevice device_;
  std::promise<void> removed_;
  std::future<void> removed_future_ = removed_.get_future();
  Error error_;
  std::unique_ptr<UapiServer> server_;
  std::thread thread_;
};

class TestClient {
 public:
  explicit TestClient(const std::string& path) : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const sockaddr_un address = LocalAddress(path);
    const timeval patience{.tv_sec = 10, .tv_usec = 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    connect_error_ = connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
  }

  int connect_error() const { return connect_error_; }
  int fd() const { return fd_.get(); }
  // False if the server closed the connection, or did not take it all in ten seconds.
  bool Send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  // One answer with its errno line; what came, if the connection ended or ten seconds went by before.
  std::string ReceiveAnswer() {
    std::string answer;
    char c;
    while (!answer.ends_with("\n\n") && recv(fd_.get(), &c, 1, 0) == 1) answer += c;
    return answer;
  }
  std::string Ask(std::string_view request) { return Send(request) ? ReceiveAnswer() : "closed"; }
  // Waits up to ten seconds for the end of the connection.
  bool IsClosed() {
    char c;
    errno = 0;
    const ssize_t received = recv(fd_.get(), &c, 1, 0);
    return received == 0 || (received < 0 && errno == ECONNRESET);
  }
  void HangUp() { fd_.Close(); }
  void EndSending() { shutdown(fd_.get(), SHUT_WR); }

 private:
  Fd fd_;
  int connect_error_ = 0;
};

}  // namespace adit
