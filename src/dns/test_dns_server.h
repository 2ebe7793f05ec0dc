// A name server for tests: answers A and AAAA from a zone that the test gives as text, read anew for each question.
//
//   NAME TTL ADDRESS…       ("-" for none: the name exists)
//   silent NAME A|AAAA      such questions get no answer
//   refuse NAME             SERVFAIL
//
// Any other name does not exist (NXDOMAIN).
#pragma once

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "base/address.h"
#include "base/fd.h"

namespace adit {

class FakeDnsServer {
 public:
  FakeDnsServer(const IpAddress& at, std::uint16_t port, std::function<std::string()> zone,
                std::function<void(const std::string&)> on_question = nullptr)
      : zone_(std::move(zone)), on_question_(std::move(on_question)) {
    fd_ = Fd(socket(at.is_v6() ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage address{};
    socklen_t size = SocketAddress{at, port}.ToSockaddr(address);
    is_good_ = bind(fd_.get(), reinterpret_cast<sockaddr*>(&address), size) == 0;
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address), &size);
    if (const auto bound = SocketAddress::FromSockaddr(reinterpret_cast<sockaddr*>(&address))) port_ = bound->port;
    if (is_good_) thread_ = std::thread([this] { Serve(); });
  }
  ~FakeDnsServer() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  FakeDnsServer(const FakeDnsServer&) = delete;
  FakeDnsServer& operator=(const FakeDnsServer&) = delete;

  bool is_good() const { return is_good_; }
  std::uint16_t port() const { return port_; }
  // "home.example AAAA", in the order they came.
  std::vector<std::string> questions() const {
    const std::lock_guard lock(mutex_);
    return questions_;
  }

 private:
  static void Add16(std::string& to, std::size_t value) {
    to += static_cast<char>(value >> 8);
    to += static_cast<char>(value);
  }
  void Serve() {
    while (!stop_) {
      pollfd ready{fd_.get(), POLLIN, 0};
      if (poll(&ready, 1, 20) <= 0) continue;
      char buffer[1500];
      sockaddr_storage from{};
      socklen_t from_size = sizeof from;
      const ssize_t size =
          recvfrom(fd_.get(), buffer, sizeof buffer, 0, reinterpret_cast<sockaddr*>(&from), &from_size);
      if (size < 17) continue;
      const std::string answer = Answer(std::string(buffer, static_cast<std::size_t>(size)));
      if (answer.empty()) continue;
      sendto(fd_.get(), answer.data(), answer.size(), 0, reinterpret_cast<const sockaddr*>(&from), from_size);
    }
  }
  std::string Answer(const std::string& question) {
    std::string name;
    std::size_t at = 12;
    while (at < question.size() && question[at] != 0) {
      const auto length = static_cast<std::size_t>(question[at]);
      if (at + length + 1 >= question.size()) return "";
      name += (name.empty() ? "" : ".") + question.substr(at + 1, length);
      at += length + 1;
    }
    if (at + 5 > question.size()) return "";
    const bool wants_v6 = question[at + 2] == 28;
    const std::string type = wants_v6 ? "AAAA" : "A";
    if (on_question_) on_question_(name + " " + type);
    {
      const std::lock_guard lock(mutex_);
      questions_.push_back(name + " " + type);
    }
    bool exists = false, is_refused = false;
    std::uint32_t ttl = 0;
    std::vector<IpAddress> found;
    std::istringstream lines(zone_());
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string first, second, third;
      words >> first >> second;
      if (first == "silent" && words >> third && second == name && third == type) return "";
      if (first == "refuse" && second == name) is_refused = true;
      if (first != name) continue;
      exists = true;
      ttl = static_cast<std::uint32_t>(std::stoul(second));
      for (std::string text; words >> text;) {
        const auto ip = IpAddress::Parse(text);
        if (ip && ip->is_v6() == wants_v6) found.push_back(*ip);
      }
    }
    std::string reply = question.substr(0, 2);
    Add16(reply, 0x8580u | (is_refused ? 2u : exists ? 0u : 3u));
    Add16(reply, 1);
    Add16(reply, is_refused ? 0 : found.size());
    Add16(reply, 0);
    Add16(reply, 0);
    reply += question.substr(12, at + 5 - 12);
    if (is_refused) return reply;
    for (const IpAddress& ip : found) {
      Add16(reply, 0xc00c);
      Add16(reply, wants_v6 ? 28 : 1);
      Add16(reply, 1);
      Add16(reply, ttl >> 16);
      Add16(reply, ttl & 0xffff);
      Add16(reply, ip.bytes().size());
      reply.append(reinterpret_cast<const char*>(ip.bytes().data()), ip.bytes().size());
    }
    return reply;
  }

  const std::function<std::string()> zone_;
  const std::function<void(const std::string&)> on_question_;
  Fd fd_;
  bool is_good_ = false;
  std::uint16_t port_ = 0;
  std::atomic<bool> stop_ = false;
  mutable std::mutex mutex_;
  std::vector<std::string> questions_;
  std::thread thread_;
};

}  // namespace adit
