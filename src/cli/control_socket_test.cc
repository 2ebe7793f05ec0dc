#include "cli/control_socket.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <filesystem>
#include <thread>

#include "base/fd.h"

namespace adit {
namespace {

// A socket served by a thread of its own.
class Served {
 public:
  explicit Served(const std::string& path)
      : path_(path),
        socket_(
            *ControlSocket::Listen(io_, path,
                                   {[](bool keys) { return keys ? std::string(100000, 'k') : "{}"; },
                                    [this] { boost::asio::post(io_, [this] { socket_->AnswerStops("ok"); }); },
                                    [this] { boost::asio::post(io_, [this] { socket_->AnswerReloads("done"); }); },
                                    [](const std::string& packet) { return packet == "none" ? "" : "of " + packet; },
                                    [](const std::string& words) { return "portal of " + words; }})),
        thread_([this] { io_.run(); }) {}
  ~Served() {
    io_.stop();
    thread_.join();
  }

 private:
  boost::asio::io_context io_;
  std::string path_;
  std::unique_ptr<ControlSocket> socket_;
  std::thread thread_;
};

class ControlSocketTest : public ::testing::Test {
 protected:
  ControlSocketTest() {
    char path[] = "/tmp/adit-control-XXXXXX";
    folder_ = mkdtemp(path);
    path_ = folder_ + "/wg0.sock";
  }
  ~ControlSocketTest() override { std::filesystem::remove_all(folder_); }
  Fd Connect() const {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    const timeval limit{10, 0};
    setsockopt(fd.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return fd;
  }
  std::string folder_;
  std::string path_;
};

TEST_F(ControlSocketTest, AnswersStatusOfAnySize) {
  const Served served(path_);
  EXPECT_EQ(AskTunnel(path_, "status", 5s).value(), "{}");
  EXPECT_EQ(AskTunnel(path_, "status keys", 5s).value(), std::string(100000, 'k'));
}

TEST_F(ControlSocketTest, JudgesPackets) {
  const Served served(path_);
  EXPECT_EQ(AskTunnel(path_, "judge a b", 5s).value(), "of a b");
  EXPECT_EQ(AskTunnel(path_, "judge none", 5s).error().code, ECONNRESET);
}

TEST_F(ControlSocketTest, PassesPortalRequestsOn) {
  const Served served(path_);
  EXPECT_EQ(AskTunnel(path_, "portal 1000 60", 5s).value(), "portal of  1000 60");
  EXPECT_EQ(AskTunnel(path_, "portal", 5s).value(), "portal of ");
}

TEST_F(ControlSocketTest, AnswersReloadsAndServesOn) {
  const Served served(path_);
  const Fd client = Connect();
  for (const std::string request : {"reload\n", "reload\n", "status\n"}) {
    ASSERT_EQ(send(client.get(), request.data(), request.size(), 0), static_cast<ssize_t>(request.size()));
    char buffer[64];
    const ssize_t size = recv(client.get(), buffer, sizeof buffer, 0);
    ASSERT_GT(size, 0);
    EXPECT_EQ(std::string(buffer, static_cast<std::size_t>(size)), request == "status\n" ? "{}\n" : "done\n");
  }
}

TEST_F(ControlSocketTest, AnswersStopWhenToldTo) {
  const Served served(path_);
  EXPECT_EQ(AskTunnel(path_, "stop", 5s).value(), "ok");
}

TEST_F(ControlSocketTest, OnlyItsOwnerMayOpenIt) {
  const Served served(path_);
  struct stat info{};
  ASSERT_EQ(stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

TEST_F(ControlSocketTest, ReplacesAStaleFileAndRemovesItsOwn) {
  {
    const Served first(path_);
  }
  EXPECT_FALSE(std::filesystem::exists(path_));
  {
    // What a kill -9 leaves: a file that nobody listens on.
    const Fd stale(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path_.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(bind(stale.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  EXPECT_EQ(AskTunnel(path_, "status", 5s).error().code, ECONNREFUSED);
  const Served second(path_);
  EXPECT_TRUE(AskTunnel(path_, "status", 5s));
}

TEST_F(ControlSocketTest, NobodyThereIsToldApart) {
  EXPECT_EQ(AskTunnel(path_, "status", 1s).error().code, ENOENT);
  EXPECT_EQ(AskTunnel("/" + std::string(200, 'x'), "status", 1s).error().code, ENAMETOOLONG);
}

TEST_F(ControlSocketTest, DropsNonsenseAndOverlongLines) {
  const Served served(path_);
  EXPECT_EQ(AskTunnel(path_, "make tea", 5s).error().code, ECONNRESET);
  EXPECT_EQ(AskTunnel(path_, std::string(1000, 'x'), 5s).error().code, ECONNRESET);
  EXPECT_TRUE(AskTunnel(path_, "status", 5s)) << "others are still served";
}

TEST_F(ControlSocketTest, OneClientTooManyIsRefusedAndTheRestServed) {
  const Served served(path_);
  std::vector<Fd> silent;
  for (std::size_t i = 0; i < kMaxControlClients; ++i) silent.push_back(Connect());
  EXPECT_EQ(AskTunnel(path_, "status", 5s).error().code, ECONNRESET);
  silent.pop_back();
  // The server hears of the hang-up a moment later.
  Result<std::string> answer = AskTunnel(path_, "status", 5s);
  for (int i = 0; i < 500 && !answer; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    answer = AskTunnel(path_, "status", 5s);
  }
  EXPECT_TRUE(answer);
}

TEST_F(ControlSocketTest, TwoRequestsInOnePieceAreBothAnswered) {
  const Served served(path_);
  const Fd client = Connect();
  ASSERT_EQ(send(client.get(), "status\nstatus\n", 14, 0), 14);
  std::string answer;
  char buffer[16];
  while (answer.size() < 6) {
    const ssize_t size = recv(client.get(), buffer, sizeof buffer, 0);
    ASSERT_GT(size, 0);
    answer.append(buffer, static_cast<std::size_t>(size));
  }
  EXPECT_EQ(answer, "{}\n{}\n");
}

}  // namespace
}  // namespace adit
