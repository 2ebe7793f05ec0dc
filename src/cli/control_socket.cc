#include "cli/control_socket.h"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/buffer.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <cstring>
#include <list>
#include <utility>
#include <vector>

#include "base/fd.h"

namespace adit {
namespace {

using Stream = boost::asio::local::stream_protocol;

std::string_view ErrorText(int code) { return std::strerror(code); }

}  // namespace

class ControlSocket::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(boost::asio::io_context& io, std::string path, ControlHandlers handlers)
      : io_(io), acceptor_(io), path_(std::move(path)), handlers_(std::move(handlers)) {}

  Status Open() {
    sockaddr_un probe{};
    if (path_.size() >= sizeof probe.sun_path) return FailErrno(ENAMETOOLONG, "{}: the path is too long", path_);
    unlink(path_.c_str());
    boost::system::error_code error;
    const mode_t previous = umask(0177);
    acceptor_.open(Stream(), error);
    if (!error) acceptor_.bind(Stream::endpoint(path_), error);
    umask(previous);
    if (!error) acceptor_.listen(static_cast<int>(kMaxControlClients), error);
    if (error) return FailErrno(error.value(), "cannot listen on {}: {}", path_, error.message());
    Accept();
    return {};
  }

  void AnswerStops(const std::string& answer) {
    for (const auto& client : stoppers_) {
      boost::system::error_code ignored;  // who has gone does not care
      boost::asio::write(client->stream, boost::asio::buffer(answer + "\n"), ignored);
    }
    stoppers_.clear();
  }

  void AnswerReloads(const std::string& answer) {
    for (const auto& client : std::exchange(reloaders_, {})) Write(client, answer);
  }

  void Close() {
    boost::system::error_code ignored;
    acceptor_.close(ignored);
    unlink(path_.c_str());
    for (const auto& client : clients_) client->Close();
    clients_.clear();
    stoppers_.clear();
    reloaders_.clear();
    handlers_ = {};
  }

 private:
  struct Client {
    explicit Client(Stream::socket s) : stream(std::move(s)), idle(stream.get_executor()) {}
    void Close() {
      boost::system::error_code ignored;
      stream.close(ignored);
      idle.cancel();
    }
    Stream::socket stream;
    boost::asio::steady_timer idle;
    std::string input;
    std::string output;
  };

  void Accept() {
    acceptor_.async_accept([self = shared_from_this()](const boost::system::error_code& error, Stream::socket stream) {
      if (error == boost::asio::error::operation_aborted) return;
      if (error) {
        // Out of descriptors, perhaps: the next attempt waits a moment, or it would spin.
        self->pause_.expires_after(std::chrono::milliseconds(100));
        self->pause_.async_wait([self](const boost::system::error_code& stopped) {
          if (!stopped) self->Accept();
        });
        return;
      }
      if (self->clients_.size() < kMaxControlClients) {
        auto client = std::make_shared<Client>(std::move(stream));
        self->clients_.push_back(client);
        self->ReadRequest(client);
      }
      self->Accept();
    });
  }

  void Drop(const std::shared_ptr<Client>& client) {
    client->Close();
    std::erase(clients_, client);
    std::erase(stoppers_, client);
    std::erase(reloaders_, client);
  }

  void ReadRequest(const std::shared_ptr<Client>& client) {
    client->idle.expires_after(kControlIdleTimeout);
    client->idle.async_wait([self = shared_from_this(), client](const boost::system::error_code& error) {
      if (!error) self->Drop(client);
    });
    boost::asio::async_read_until(
        client->stream, boost::asio::dynamic_buffer(client->input, kMaxControlRequestBytes), '\n',
        [self = shared_from_this(), client](const boost::system::error_code& error, std::size_t size) {
          if (error) return self->Drop(client);
          client->idle.cancel();
          const std::string request = client->input.substr(0, size - 1);
          client->input.erase(0, size);
          self->Answer(client, request);
        });
  }

  void Answer(const std::shared_ptr<Client>& client, const std::string& request) {
    if (!handlers_.stop) return Drop(client);
    if (request == "stop") {
      stoppers_.push_back(client);
      handlers_.stop();
      return;
    }
    if (request == "reload" && handlers_.reload) {
      reloaders_.push_back(client);
      handlers_.reload();
      return;
    }
    if (constexpr std::string_view kJudge = "judge "; request.starts_with(kJudge) && handlers_.judge) {
      const std::string answer = handlers_.judge(request.substr(kJudge.size()));
      return answer.empty() ? Drop(client) : Write(client, answer);
    }
    if (constexpr std::string_view kPortal = "portal"; request.starts_with(kPortal) && handlers_.portal) {
      return Write(client, handlers_.portal(request.substr(kPortal.size())));
    }
    if (request != "status" && request != "status keys") return Drop(client);
    Write(client, handlers_.status(request == "status keys"));
  }

  void Write(const std::shared_ptr<Client>& client, const std::string& answer) {
    client->output = answer + "\n";
    boost::asio::async_write(client->stream, boost::asio::buffer(client->output),
                             [self = shared_from_this(), client](const boost::system::error_code& error, std::size_t) {
                               if (error) return self->Drop(client);
                               self->ReadRequest(client);
                             });
  }

  boost::asio::io_context& io_;
  Stream::acceptor acceptor_;
  boost::asio::steady_timer pause_{io_};
  std::string path_;
  ControlHandlers handlers_;
  std::vector<std::shared_ptr<Client>> clients_;  // at most kMaxControlClients
  std::vector<std::shared_ptr<Client>> stoppers_;
  std::vector<std::shared_ptr<Client>> reloaders_;  // those of `clients_` that wait for the end
};

Result<std::unique_ptr<ControlSocket>> ControlSocket::Listen(boost::asio::io_context& io, const std::string& path,
                                                             ControlHandlers handlers) {
  auto impl = std::make_shared<Impl>(io, path, std::move(handlers));
  if (auto opened = impl->Open(); !opened) return std::unexpected(opened.error());
  return std::unique_ptr<ControlSocket>(new ControlSocket(std::move(impl)));
}

ControlSocket::ControlSocket(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlSocket::~ControlSocket() { impl_->Close(); }
void ControlSocket::AnswerStops(const std::string& answer) { impl_->AnswerStops(answer); }
void ControlSocket::AnswerReloads(const std::string& answer) { impl_->AnswerReloads(answer); }

Result<std::string> AskTunnel(const std::string& socket_path, const std::string& request, Duration timeout) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path) {
    return FailErrno(ENAMETOOLONG, "{}: the path is too long", socket_path);
  }
  std::ranges::copy(socket_path, address.sun_path);
  const Fd stream(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!stream) return FailErrno(errno, "cannot make a socket: {}", ErrorText(errno));
  const auto seconds = std::chrono::ceil<std::chrono::seconds>(timeout).count();
  const timeval limit{static_cast<time_t>(seconds), 0};
  setsockopt(stream.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  setsockopt(stream.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
  if (connect(stream.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    return FailErrno(errno, "cannot connect to {}: {}", socket_path, ErrorText(errno));
  }
  const std::string line = request + "\n";
  if (send(stream.get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size())) {
    return FailErrno(errno, "cannot write to {}: {}", socket_path, ErrorText(errno));
  }
  std::string answer;
  char buffer[16384];
  while (!answer.ends_with('\n')) {
    const ssize_t size = recv(stream.get(), buffer, sizeof buffer, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return FailErrno(ETIMEDOUT, "{} gave no answer within {} s", socket_path, seconds);
    }
    if (size <= 0) return FailErrno(ECONNRESET, "{} was closed without an answer", socket_path);
    answer.append(buffer, static_cast<std::size_t>(size));
  }
  answer.pop_back();
  return answer;
}

}  // namespace adit
