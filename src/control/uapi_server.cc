#include "control/uapi_server.h"

#include <fcntl.h>
#include <net/if.h>
#include <spdlog/spdlog.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "config/interface_name.h"

namespace adit {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;
using LocalSocket = asio::local::stream_protocol::socket;
using Clock = std::chrono::steady_clock;

// `wg show` removes a socket that refuses a connection, so a short queue could cost us the file.
constexpr int kBacklog = 64;
// After an accept that failed for want of descriptors or memory.
constexpr auto kAcceptPause = std::chrono::milliseconds(100);

// Which file a path stands for. A path may come to stand for another file; its owner must not touch that one.
struct FileIdentity {
  dev_t device = 0;
  ino_t inode = 0;
  friend bool operator==(const FileIdentity&, const FileIdentity&) = default;
};

std::optional<FileIdentity> SocketFileAt(const std::string& path) {
  struct stat status;
  if (lstat(path.c_str(), &status) != 0 || !S_ISSOCK(status.st_mode)) return std::nullopt;
  return FileIdentity{status.st_dev, status.st_ino};
}

Result<sockaddr_un> ToAddress(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    return FailErrno(ENAMETOOLONG, "the socket's path {} has {} characters: use a directory that leaves at most {}",
                     path, path.size(), sizeof address.sun_path - 1);
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  return address;
}

Result<Fd> OpenLocalSocket() {
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return FailErrno(errno, "cannot open a UNIX socket: {}", std::strerror(errno));
  return fd;
}

Status MakeDirectory(const std::string& directory) {
  if (mkdir(directory.c_str(), 0755) == 0) {
    // The mode that mkdir gives is cut by the umask.
    if (chmod(directory.c_str(), 0755) != 0) return FailErrno(errno, "chmod {}: {}", directory, std::strerror(errno));
    return {};
  }
  if (errno == EEXIST) return {};
  return FailErrno(errno, "cannot make the directory {} for the control socket: {}", directory, std::strerror(errno));
}

// Ok if nothing is at `path`, or a socket that nobody serves.
Status CheckNobodyServes(const std::string& path) {
  const auto address = ToAddress(path);
  if (!address) return std::unexpected(address.error());
  struct stat status;
  if (lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return FailErrno(errno, "{}: {}", path, std::strerror(errno));
  }
  if (!S_ISSOCK(status.st_mode)) return FailErrno(EEXIST, "{} is not a socket: remove it", path);
  const auto fd = OpenLocalSocket();
  if (!fd) return std::unexpected(fd.error());
  if (connect(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address) == 0 || errno == EAGAIN) {
    return FailErrno(EADDRINUSE, "{} is in use: another process serves this interface, stop it first", path);
  }
  if (errno == ECONNREFUSED || errno == ENOENT) return {};
  return FailErrno(errno, "cannot tell whether {} is in use: {}", path, std::strerror(errno));
}

struct Listener {
  Fd socket;
  FileIdentity file;
};

// Another `wg` deletes a *.sock that refuses a connection, as ours would between bind and listen. So it listens under
// another name first, then takes its own, which replaces a stale one in the same step.
Result<Listener> Listen(const std::string& path, const std::string& temporary_path) {
  const auto address = ToAddress(temporary_path);
  if (!address) return std::unexpected(address.error());
  auto fd = OpenLocalSocket();
  if (!fd) return std::unexpected(fd.error());
  unlink(temporary_path.c_str());
  const mode_t previous = umask(077);
  const int bound = bind(fd->get(), reinterpret_cast<const sockaddr*>(&*address), sizeof *address);
  const int bind_error = errno;
  umask(previous);
  if (bound != 0) {
    return FailErrno(bind_error, "cannot make the control socket {}: {}", path, std::strerror(bind_error));
  }
  const auto file = SocketFileAt(temporary_path);
  if (!file || listen(fd->get(), kBacklog) != 0 || rename(temporary_path.c_str(), path.c_str()) != 0) {
    const int error = errno;
    unlink(temporary_path.c_str());
    return FailErrno(error, "cannot make the control socket {}: {}", path, std::strerror(error));
  }
  return Listener{*std::move(fd), *file};
}

Status CheckIsListening(int fd) {
  const auto option = [fd](int name) {
    int value = -1;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 ? value : -1;
  };
  if (option(SO_DOMAIN) != AF_UNIX || option(SO_TYPE) != SOCK_STREAM || option(SO_ACCEPTCONN) != 1) {
    return FailErrno(ENOTSOCK, "WG_UAPI_FD={} is not a listening UNIX stream socket: bind and listen before passing it",
                     fd);
  }
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return FailErrno(errno, "WG_UAPI_FD={}: {}", fd, std::strerror(errno));
  return {};
}

}  // namespace

void RemoveStaleUapiSocket(const std::string& name, const std::string& directory) {
  const std::string path = fmt::format("{}/{}.sock", directory, name);
  if (CheckNobodyServes(path)) unlink(path.c_str());
}

// Its handlers share its ownership, so it outlives the UapiServer until the last of them has run; after Stop they do
// nothing.
class UapiServer::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& control, DeviceControl& device, UapiServerOptions options)
      : device_(&device),
        options_(std::move(options)),
        path_(fmt::format("{}/{}.sock", options_.directory, options_.name)),
        acceptor_(control),
        directory_watch_(control),
        accept_pause_(control),
        idle_sweep_(control) {}

  Status Start();
  void Stop();
  const std::string& path() const { return path_; }
  std::size_t client_count() const { return clients_.size(); }

 private:
  // One connection: reads, answers, reads on; never both at once, so a client that does not read its answer stops being
  // read.
  class Client : public std::enable_shared_from_this<Client> {
   public:
    Client(std::shared_ptr<Impl> server, LocalSocket socket)
        : server_(std::move(server)), socket_(std::move(socket)), framer_(if_nametoindex) {}
    ~Client() { sodium_memzero(input_.data(), input_.size()); }

    void Read();
    void Close();
    Clock::time_point last_activity() const { return last_activity_; }
    std::size_t pending_bytes() const { return framer_.request_bytes(); }

   private:
    void HandleInput();
    void Write();

    std::shared_ptr<Impl> server_;
    LocalSocket socket_;
    UapiFramer framer_;
    std::array<char, 1 << 16> input_{};
    std::string_view unread_;  // of input_
    SecretText answer_;
    std::size_t answer_written_ = 0;
    bool is_last_answer_ = false;
    Clock::time_point last_activity_ = Clock::now();
  };
  friend class Client;

  void Accept();
  void AddClient(LocalSocket socket);
  void SweepIdle();
  void WatchDirectory();
  void WaitForDirectoryEvent();
  bool StillHasFile() const { return file_ && SocketFileAt(path_) == file_; }
  std::size_t pending_bytes() const;
  SecretText Answer(const UapiRequest& request);

  DeviceControl* device_;  // null after Stop
  UapiServerOptions options_;
  std::string path_;
  std::optional<FileIdentity> file_;
  bool accept_failed_ = false;
  asio::local::stream_protocol::acceptor acceptor_;
  asio::posix::stream_descriptor directory_watch_;
  asio::steady_timer accept_pause_;
  asio::steady_timer idle_sweep_;
  std::vector<std::shared_ptr<Client>> clients_;
};

Status UapiServer::Impl::Start() {
  if (auto status = CheckInterfaceName(options_.name); !status) return status;
  if (options_.listening_socket) {
    if (auto status = CheckIsListening(options_.listening_socket.get()); !status) return status;
    file_ = SocketFileAt(path_);
    WatchDirectory();
  } else {
    if (auto status = MakeDirectory(options_.directory); !status) return status;
    if (auto status = CheckNobodyServes(path_); !status) return status;
    auto listener = Listen(path_, fmt::format("{}/{}.{}.tmp", options_.directory, options_.name, getpid()));
    if (!listener) return std::unexpected(std::move(listener.error()));
    options_.listening_socket = std::move(listener->socket);
    file_ = listener->file;
    WatchDirectory();
  }
  error_code error;
  acceptor_.assign(asio::local::stream_protocol(), options_.listening_socket.get(), error);
  if (error) return FailErrno(error.value(), "cannot serve {}: {}", path_, error.message());
  options_.listening_socket.Release();
  Accept();
  return {};
}

void UapiServer::Impl::Stop() {
  device_ = nullptr;
  options_.on_removed = nullptr;
  error_code ignored;
  directory_watch_.close(ignored);
  // First, so that nobody finds a file that refuses.
  if (StillHasFile()) unlink(path_.c_str());
  acceptor_.close(ignored);
  accept_pause_.cancel();
  idle_sweep_.cancel();
  for (const auto& client : std::exchange(clients_, {})) client->Close();
}

void UapiServer::Impl::Accept() {
  acceptor_.async_accept([self = shared_from_this()](error_code error, LocalSocket socket) {
    if (self->device_ == nullptr) return;
    if (!error) {
      self->accept_failed_ = false;
      self->AddClient(std::move(socket));
    } else if (error != asio::error::connection_aborted) {
      // Once until it works again, not ten times a second.
      if (!std::exchange(self->accept_failed_, true)) spdlog::warn("uapi: accept: {}", error.message());
      self->accept_pause_.expires_after(kAcceptPause);
      self->accept_pause_.async_wait([self](error_code cancelled) {
        if (!cancelled && self->device_ != nullptr) self->Accept();
      });
      return;
    }
    self->Accept();
  });
}

void UapiServer::Impl::AddClient(LocalSocket socket) {
  if (clients_.size() >= options_.max_clients) {
    const auto oldest = std::ranges::min_element(clients_, {}, &Client::last_activity);
    spdlog::debug("uapi: {} clients: closing the one that was silent longest", clients_.size());
    (*oldest)->Close();
  }
  clients_.push_back(std::make_shared<Client>(shared_from_this(), std::move(socket)));
  clients_.back()->Read();
  if (clients_.size() == 1) SweepIdle();
}

void UapiServer::Impl::SweepIdle() {
  idle_sweep_.expires_after(options_.idle_timeout / 4);
  idle_sweep_.async_wait([self = shared_from_this()](error_code cancelled) {
    if (cancelled || self->device_ == nullptr) return;
    const auto limit = Clock::now() - self->options_.idle_timeout;
    for (const auto& client : std::vector(self->clients_)) {
      if (client->last_activity() < limit) client->Close();
    }
    if (!self->clients_.empty()) self->SweepIdle();
  });
}

void UapiServer::Impl::WatchDirectory() {
  if (!file_) return;
  Fd fd(inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
  constexpr std::uint32_t kEvents = IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF;
  error_code error;
  if (!fd || inotify_add_watch(fd.get(), options_.directory.c_str(), kEvents) < 0) {
    error = error_code(errno, boost::system::system_category());
  } else {
    directory_watch_.assign(fd.get(), error);
  }
  if (error) {
    spdlog::warn("uapi: cannot watch {}, so removing the socket will not end the interface: {}", options_.directory,
                 error.message());
    return;
  }
  fd.Release();
  WaitForDirectoryEvent();
}

void UapiServer::Impl::WaitForDirectoryEvent() {
  directory_watch_.async_wait(asio::posix::descriptor_base::wait_read, [self = shared_from_this()](error_code error) {
    if (error || self->device_ == nullptr) return;
    // Which event it was does not matter: the file is looked at afresh. An overflow of the queue is an event too.
    alignas(inotify_event) std::array<char, 4096> events;
    while (read(self->directory_watch_.native_handle(), events.data(), events.size()) > 0) {
    }
    if (self->StillHasFile()) return self->WaitForDirectoryEvent();
    self->file_.reset();
    if (const auto on_removed = std::exchange(self->options_.on_removed, nullptr)) on_removed();
  });
}

std::size_t UapiServer::Impl::pending_bytes() const {
  std::size_t sum = 0;
  for (const auto& client : clients_) sum += client->pending_bytes();
  return sum;
}

SecretText UapiServer::Impl::Answer(const UapiRequest& request) {
  const bool is_get = request.kind == UapiRequest::Kind::kGet;
  SecretText answer;
  int code = 0;
  if (!request.update) {
    code = request.update.error().code;
    spdlog::warn("uapi: request refused, nothing changed: {}", request.update.error().message);
  } else if (is_get) {
    answer = WriteUapiGet(device_->GetDevice());
  } else {
    code = device_->SetDevice(*request.update);
    if (code != 0) spdlog::warn("uapi: set failed, nothing changed: {}", std::strerror(code));
  }
  answer += WriteUapiErrno(request.kind, code);
  return answer;
}

void UapiServer::Impl::Client::Close() {
  error_code ignored;
  socket_.close(ignored);
  std::erase(server_->clients_, shared_from_this());
}

void UapiServer::Impl::Client::Read() {
  socket_.async_read_some(asio::buffer(input_), [self = shared_from_this()](error_code error, std::size_t bytes) {
    if (self->server_->device_ == nullptr) return;
    if (error) return self->Close();
    self->last_activity_ = Clock::now();
    self->unread_ = std::string_view(self->input_.data(), bytes);
    self->HandleInput();
  });
}

void UapiServer::Impl::Client::HandleInput() {
  const auto request = framer_.Read(unread_);
  if (!request) {
    if (server_->pending_bytes() > server_->options_.max_pending_bytes) {
      framer_.Refuse({"too many requests at once do not fit into memory", ENOBUFS});
    }
    return Read();
  }
  answer_ = server_->Answer(*request);
  answer_written_ = 0;
  is_last_answer_ = request->kind == UapiRequest::Kind::kUnknown;
  Write();
}

void UapiServer::Impl::Client::Write() {
  socket_.async_write_some(asio::buffer(answer_.data() + answer_written_, answer_.size() - answer_written_),
                           [self = shared_from_this()](error_code error, std::size_t bytes) {
                             if (self->server_->device_ == nullptr) return;
                             if (error) return self->Close();
                             self->last_activity_ = Clock::now();
                             self->answer_written_ += bytes;
                             if (self->answer_written_ < self->answer_.size()) return self->Write();
                             self->answer_ = {};
                             if (self->is_last_answer_) return self->Close();
                             self->HandleInput();
                           });
}

Result<std::unique_ptr<UapiServer>> UapiServer::Start(asio::io_context& control, DeviceControl& device,
                                                      UapiServerOptions options) {
  auto impl = std::make_shared<Impl>(control, device, std::move(options));
  if (auto status = impl->Start(); !status) {
    impl->Stop();
    return std::unexpected(std::move(status.error()));
  }
  return std::unique_ptr<UapiServer>(new UapiServer(std::move(impl)));
}

UapiServer::UapiServer(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
UapiServer::~UapiServer() { impl_->Stop(); }
std::string UapiServer::path() const { return impl_->path(); }
std::size_t UapiServer::client_count() const { return impl_->client_count(); }

}  // namespace adit
