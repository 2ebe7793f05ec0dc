#include "control/uapi_server.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <spdlog/spdlog.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <fstream>
#include <memory>
#include <mutex>
#include <vector>

#include "base/random.h"
#include "control/serving.h"

namespace adit {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

const std::string kKeyA(64, 'a');
const std::string kKeyB(64, 'b');

UapiServerOptions In(const TemporaryDirectory& directory) {
  UapiServerOptions options;
  options.directory = directory.path();
  options.name = "wg0";
  return options;
}
std::string SocketIn(const TemporaryDirectory& directory) { return directory.path() + "/wg0.sock"; }

mode_t ModeOf(const std::string& path) {
  struct stat status;
  return stat(path.c_str(), &status) == 0 ? status.st_mode : 0;
}

std::vector<std::string> FilesIn(const TemporaryDirectory& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory.path()))
    names.push_back(entry.path().filename());
  return names;
}

// A socket's file with nobody behind it, or with `listening` somebody.
Fd BindAt(const std::string& path, bool listening) {
  Fd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = LocalAddress(path);
  CHECK(bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  if (listening) CHECK(listen(fd.get(), 16) == 0);
  return fd;
}

TEST(UapiServer, MakesADirectoryForAllAndASocketForItsOwner_CONF96) {
  for (const mode_t mask : {0000u, 0022u, 0077u, 0027u}) {
    TemporaryDirectory parent;
    UapiServerOptions options = In(parent);
    options.directory += "/wireguard";
    const mode_t previous = umask(mask);
    Serving serving(std::move(options));
    EXPECT_EQ(umask(previous), mask) << "the umask must be as before";
    EXPECT_EQ(serving.error().message, "");
    EXPECT_EQ(ModeOf(parent.path() + "/wireguard"), mode_t{S_IFDIR | 0755});
    EXPECT_EQ(ModeOf(parent.path() + "/wireguard/wg0.sock"), mode_t{S_IFSOCK | 0700});
  }
}

TEST(UapiServer, LeavesOnlyItsSocketBesideItAndNothingBehind_CONF96) {
  TemporaryDirectory directory;
  {
    Serving serving(In(directory));
    EXPECT_THAT(FilesIn(directory), testing::ElementsAre("wg0.sock"));
  }
  EXPECT_THAT(FilesIn(directory), testing::IsEmpty());
}

TEST(UapiServer, ReplacesASocketThatNobodyServes_CONF96) {
  TemporaryDirectory directory;
  BindAt(SocketIn(directory), false).Close();
  Serving serving(In(directory));
  EXPECT_EQ(serving.error().message, "");
  EXPECT_EQ(TestClient(SocketIn(directory)).Ask("get=1\n\n"), "errno=0\n\n");
}

TEST(RemoveStaleUapiSocket, RemovesOneThatNobodyServesAndNothingElse) {
  TemporaryDirectory directory;
  BindAt(SocketIn(directory), false).Close();
  RemoveStaleUapiSocket("wg0", In(directory).directory);
  EXPECT_THAT(FilesIn(directory), testing::IsEmpty());
  RemoveStaleUapiSocket("wg0", In(directory).directory);  // nothing there

  const Fd served = BindAt(SocketIn(directory), true);
  RemoveStaleUapiSocket("wg0", In(directory).directory);
  EXPECT_THAT(FilesIn(directory), testing::ElementsAre("wg0.sock"));
}

TEST(UapiServer, RefusesASocketThatSomebodyServesAndLeavesItAlone_CONF96) {
  TemporaryDirectory directory;
  const Fd other = BindAt(SocketIn(directory), true);
  {
    Serving serving(In(directory));
    EXPECT_EQ(serving.error().code, EADDRINUSE);
    EXPECT_THAT(serving.error().message, HasSubstr("another process serves this interface"));
  }
  EXPECT_EQ(TestClient(SocketIn(directory)).connect_error(), 0);
  EXPECT_THAT(FilesIn(directory), testing::ElementsAre("wg0.sock"));
}

TEST(UapiServer, RefusesAServedSocketWhoseQueueIsFull_CONF96) {
  TemporaryDirectory directory;
  const Fd other(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_un address = LocalAddress(SocketIn(directory));
  ASSERT_EQ(bind(other.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  ASSERT_EQ(listen(other.get(), 0), 0);
  const TestClient waiting(SocketIn(directory));
  Serving serving(In(directory));
  EXPECT_EQ(serving.error().code, EADDRINUSE);
}

TEST(UapiServer, SaysWhatToChangeWhenItCannotStart) {
  TemporaryDirectory directory;
  std::ofstream(SocketIn(directory)) << "precious";
  EXPECT_THAT(Serving(In(directory)).error().message, HasSubstr("is not a socket: remove it"));
  EXPECT_EQ(ModeOf(SocketIn(directory)) & S_IFMT, mode_t{S_IFREG});

  UapiServerOptions options = In(directory);
  options.directory += "/missing/wireguard";
  EXPECT_THAT(Serving(std::move(options)).error().message, HasSubstr("cannot make the directory"));
  options = In(directory);
  options.name = "a/b";
  EXPECT_THAT(Serving(std::move(options)).error().message, HasSubstr("interface name"));
  options = In(directory);
  options.directory += "/" + std::string(100, 'd');
  EXPECT_THAT(Serving(std::move(options)).error().message, HasSubstr("use a directory that leaves at most"));
}

TEST(UapiServer, ServesSeveralRequestsOnOneConnection_CONF97) {
  TemporaryDirectory directory;
  Serving serving(In(directory));
  TestClient client(SocketIn(directory));
  EXPECT_EQ(client.Ask("get=1\n\n"), "errno=0\n\n");
  EXPECT_EQ(client.Ask("set=1\nlisten_port=7\n\n"), "errno=0\n\n");
  EXPECT_EQ(client.Ask("get=1\n\n"), "listen_port=7\nerrno=0\n\n");
  // All at once, and the client has already said that it will send no more.
  EXPECT_TRUE(client.Send("set=1\nlisten_port=8\n\nget=1\n\nset=1\nlisten_port=9\n\n"));
  client.EndSending();
  EXPECT_EQ(client.ReceiveAnswer(), "errno=0\n\n");
  EXPECT_EQ(client.ReceiveAnswer(), "listen_port=8\nerrno=0\n\n");
  EXPECT_EQ(client.ReceiveAnswer(), "errno=0\n\n");
  EXPECT_TRUE(client.IsClosed());
}

TEST(UapiServer, AnswersWithNegativeErrnoOnSetAndPositiveOnGet_CONF98) {
  TemporaryDirectory directory;
  Serving serving(In(directory));
  TestClient client(SocketIn(directory));
  EXPECT_EQ(client.Ask("set=1\nno_such_key=1\n\n"), "errno=-22\n\n");
  EXPECT_EQ(client.Ask("set=1\nlisten_port=x\n\n"), "errno=-22\n\n");
  EXPECT_EQ(client.Ask("set=1\nlisten_port\n\n"), "errno=-71\n\n");
  EXPECT_EQ(client.Ask("get=1\nx\n\n"), "errno=22\n\n");
  EXPECT_EQ(serving.device()->set_calls, 0);
  serving.device()->fail_with = EADDRINUSE;
  EXPECT_EQ(client.Ask("set=1\nlisten_port=80\n\n"), "errno=-98\n\n");
  serving.device()->fail_with = 0;
  EXPECT_EQ(client.Ask("get=1\n\n"), "errno=0\n\n");
  EXPECT_EQ(client.Ask("hello\n"), "errno=71\n\n");
  EXPECT_TRUE(client.IsClosed());
}

TEST(UapiServer, AppliesASetOnceAndWhole_CONF99) {
  TemporaryDirectory directory;
  Serving serving(In(directory));
  TestClient client(SocketIn(directory));
  const std::string peer_a = "public_key=" + kKeyA + "\n";
  EXPECT_EQ(
      client.Ask("set=1\n" + peer_a + "preshared_key=" + kKeyB + "\nallowed_ip=10.1.2.3/8\nallowed_ip=11.0.0.0/8\n\n"),
      "errno=0\n\n");
  EXPECT_EQ(client.Ask("set=1\npublic_key=" + kKeyB + "\nupdate_only=true\n\n"), "errno=0\n\n");
  EXPECT_EQ(client.Ask("set=1\n" + peer_a + "preshared_key=" + std::string(64, '0') + "\nallowed_ip=-10.0.0.0/8\n\n"),
            "errno=0\n\n");
  EXPECT_EQ(client.Ask("get=1\n\n"),
            peer_a + "preshared_key=" + std::string(64, '0') +
                "\nprotocol_version=1\nlast_handshake_time_sec=0\nlast_handshake_time_nsec=0\ntx_bytes=0\nrx_bytes=0\n"
                "persistent_keepalive_interval=0\nallowed_ip=11.0.0.0/8\nerrno=0\n\n");
  EXPECT_EQ(client.Ask("set=1\n" + peer_a + "replace_allowed_ips=true\n\n"), "errno=0\n\n");
  EXPECT_TRUE(serving.device()->GetDevice().peers.at(0).allowed_ips.empty());
  EXPECT_EQ(client.Ask("set=1\n" + peer_a + "remove=true\n\n"), "errno=0\n\n");
  EXPECT_EQ(client.Ask("set=1\nreplace_peers=true\n\n"), "errno=0\n\n");
  EXPECT_EQ(client.Ask("get=1\n\n"), "errno=0\n\n");
  EXPECT_EQ(serving.device()->set_calls, 6);
}

TEST(UapiServer, ChangesNothingWhenASetFails_CONF103) {
  TemporaryDirectory directory;
  Serving serving(In(directory));
  TestClient client(SocketIn(directory));
  EXPECT_EQ(client.Ask("set=1\nlisten_port=7\npublic_key=" + kKeyA + "\nallowed_ip=10.0.0.0/8\npublic_key=" + kKeyB +
                       "\nallowed_ip=nonsense\n\n"),
            "errno=-22\n\n");
  EXPECT_EQ(client.Ask("get=1\n\n"), "errno=0\n\n");
  EXPECT_EQ(serving.device()->set_calls, 0);
}

TEST(UapiServer, ChangesNothingWhenTheClientHangsUpInARequest_CONF103) {
  TemporaryDirectory directory;
  Serving serving(In(directory));
  const std::string request = "set=1\nlisten_port=7\npublic_key=" + kKeyA + "\nallowed_ip=10.0.0.0/8\n\n";
  for (std::size_t length = 0; length < request.size(); ++length) {
    TestClient client(SocketIn(directory));
    ASSERT_TRUE(client.Send(request.substr(0, length)));
    client.EndSending();
    ASSERT_TRUE(client.IsClosed()) << length;
  }
  EXPECT_EQ(serving.device()->set_calls, 0);
  EXPECT_EQ(TestClient(SocketIn(directory)).Ask(request), "errno=0\n\n");
}

TEST(UapiServer, GivesTwoWritersWholeRequests_CONF103) {
  TemporaryDirectory directory;
  Serving serving(In(directory));
  const auto write = [&directory](char digit) {
    TestClient client(SocketIn(directory));
    for (int i = 0; i < 300; ++i) {
      const std::string request = fmt::format(
          "set=1\nreplace_peers=true\npublic_key={:c<64}\nallowed_ip=10.0.0.{}/32\n"
          "public_key={:d<64}\nallowed_ip=11.0.0.{}/32\n\n",
          digit, digit, digit, digit);
      const std::size_t cut = static_cast<std::size_t>(i) % request.size();
      if (!client.Send(request.substr(0, cut)) || client.Ask(request.substr(cut)) != "errno=0\n\n") return false;
    }
    return true;
  };
  auto one = std::async(std::launch::async, write, '1');
  auto two = std::async(std::launch::async, write, '2');
  TestClient reader(SocketIn(directory));
  for (int i = 0; i < 200; ++i) {
    const auto status = ParseUapiGet(reader.Ask("get=1\n\n"));
    ASSERT_TRUE(status);
    if (status->peers.empty()) continue;
    ASSERT_EQ(status->peers.size(), 2u);
    ASSERT_EQ(status->peers[0].public_key.bytes[0] >> 4, status->peers[1].public_key.bytes[0] >> 4);
    ASSERT_EQ(status->peers[0].allowed_ips.size(), 1u);
    ASSERT_EQ(status->peers[0].allowed_ips[0].address().bytes()[3],
              status->peers[1].allowed_ips[0].address().bytes()[3]);
  }
  EXPECT_TRUE(one.get());
  EXPECT_TRUE(two.get());
  EXPECT_EQ(serving.device()->set_calls, 600);
}

TEST(UapiServer, SurvivesTenThousandMutatedRequests_CONF103) {
  constexpr std::uint64_t kSeed = 20260103;
  SCOPED_TRACE(fmt::format("seed {}", kSeed));
  spdlog::set_level(spdlog::level::off);  // thousands of refusals
  SeededRandom random(kSeed);
  TemporaryDirectory directory;
  Serving serving(In(directory));
  const std::string valid =
      "set=1\nlisten_port=7\nfwmark=1\nreplace_peers=true\npublic_key=" + kKeyA + "\npreshared_key=" + kKeyB +
      "\nendpoint=1.2.3.4:5\npersistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=10.0.0.0/8\n\n";
  auto client = std::make_unique<TestClient>(SocketIn(directory));
  for (int i = 0; i < 10'000; ++i) {
    std::string text = valid;
    for (std::uint32_t changes = random.Below(4); changes > 0; --changes) {
      const std::size_t at = random.Below(static_cast<std::uint32_t>(text.size()));
      random.Below(2) == 0 ? text.erase(at, random.Below(20))
                           : text.insert(at, 1, static_cast<char>(random.Below(256)));
      if (text.empty()) text = "\n";
    }
    if (!client->Send(text + "\n\n")) client = std::make_unique<TestClient>(SocketIn(directory));
    // An answer may come for it or not: what counts is that the next client gets one, and that an errno is what it
    // gets.
    if (random.Below(4) == 0) {
      client->EndSending();
      for (std::string answer; !(answer = client->ReceiveAnswer()).empty();) ASSERT_THAT(answer, HasSubstr("errno="));
      client = std::make_unique<TestClient>(SocketIn(directory));
    }
  }
  EXPECT_THAT(TestClient(SocketIn(directory)).Ask("get=1\n\n"), HasSubstr("errno=0\n\n"));
  EXPECT_GT(serving.device()->set_calls, 100);
  spdlog::set_level(spdlog::level::info);
}

TEST(UapiServer, ServesOthersWhileAHundredClientsStall) {
  TemporaryDirectory directory;
  UapiServerOptions options = In(directory);
  options.max_clients = 16;
  Serving serving(std::move(options));
  std::vector<std::unique_ptr<TestClient>> stalled;
  for (int i = 0; i < 100; ++i) {
    stalled.push_back(std::make_unique<TestClient>(SocketIn(directory)));
    ASSERT_EQ(stalled.back()->connect_error(), 0);
    stalled.back()->Send(i % 2 == 0 ? "set=1\nlisten_port=7\n" : "");
  }
  EXPECT_EQ(TestClient(SocketIn(directory)).Ask("get=1\n\n"), "errno=0\n\n");
  EXPECT_LE(serving.client_count(), 16u);
  EXPECT_TRUE(stalled.front()->IsClosed()) << "the one that was silent longest goes first";
  EXPECT_EQ(stalled.back()->Ask("get=1\n\n"), "errno=0\n\n");
}

TEST(UapiServer, StopsReadingAClientThatDoesNotReadItsAnswers) {
  TemporaryDirectory directory;
  Serving serving(In(directory));
  std::string peers = "set=1\n";
  for (int i = 1; i <= 1000; ++i) peers += fmt::format("public_key={:064x}\n", i);
  EXPECT_EQ(TestClient(SocketIn(directory)).Ask(peers + "\n"), "errno=0\n\n");

  TestClient greedy(SocketIn(directory));
  ASSERT_EQ(fcntl(greedy.fd(), F_SETFL, O_NONBLOCK), 0);
  std::size_t sent = 0;
  int waits = 0;
  while (waits < 20) {  // no room for 200 ms
    const ssize_t n = send(greedy.fd(), "get=1\n\nget=1\n\n", 14, MSG_NOSIGNAL);
    if (n > 0) {
      sent += static_cast<std::size_t>(n);
      waits = 0;
      ASSERT_LT(sent, 64u << 20) << "the server goes on reading";
    } else {
      ++waits;
      std::this_thread::sleep_for(10ms);
    }
  }
  EXPECT_THAT(TestClient(SocketIn(directory)).Ask("get=1\n\n"), HasSubstr("errno=0"));
  ASSERT_EQ(fcntl(greedy.fd(), F_SETFL, 0), 0);
  EXPECT_THAT(greedy.ReceiveAnswer(), HasSubstr("errno=0"));
}

TEST(UapiServer, ClosesClientsThatMoveNoByte) {
  TemporaryDirectory directory;
  UapiServerOptions options = In(directory);
  options.idle_timeout = 200ms;
  Serving serving(std::move(options));
  TestClient silent(SocketIn(directory));
  TestClient halfway(SocketIn(directory));
  ASSERT_TRUE(halfway.Send("set=1\nlisten_port=7\n"));
  EXPECT_TRUE(silent.IsClosed());
  EXPECT_TRUE(halfway.IsClosed());
  EXPECT_EQ(serving.device()->set_calls, 0);
  EXPECT_EQ(TestClient(SocketIn(directory)).Ask("get=1\n\n"), "errno=0\n\n");
}

TEST(UapiServer, BoundsTheMemoryOfUnfinishedRequests) {
  TemporaryDirectory directory;
  UapiServerOptions options = In(directory);
  options.max_pending_bytes = 1 << 20;
  Serving serving(std::move(options));
  std::string megabyte = "set=1\npublic_key=" + kKeyA + "\n";
  while (megabyte.size() < 600'000) megabyte += "allowed_ip=10.0.0.0/8\n";
  TestClient first(SocketIn(directory));
  ASSERT_TRUE(first.Send(megabyte));
  // Let the first be read before the second begins; a request of its own shows nothing about the first's progress.
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  int pending = 1;
  while (pending > 0 && std::chrono::steady_clock::now() < deadline) {
    ASSERT_EQ(ioctl(first.fd(), TIOCOUTQ, &pending), 0);
    std::this_thread::sleep_for(1ms);
  }
  TestClient second(SocketIn(directory));
  EXPECT_EQ(second.Ask(megabyte + "\n"), fmt::format("errno=-{}\n\n", ENOBUFS));
  EXPECT_EQ(second.Ask("set=1\nlisten_port=7\n\n"), "errno=0\n\n");
  EXPECT_EQ(first.Ask("\n"), "errno=0\n\n");
  EXPECT_EQ(second.Ask(megabyte + "\n"), "errno=0\n\n");
}

TEST(UapiServer, GoesOnAcceptingAfterDescriptorsRanOut) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own type check needs a descriptor, and says \"invalid vptr\" without one";
#endif
  TemporaryDirectory directory;
  Serving serving(In(directory));
  const Fd client(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit none{.rlim_cur = 0, .rlim_max = before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
  const sockaddr_un address = LocalAddress(SocketIn(directory));
  const int connected = connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  std::this_thread::sleep_for(250ms);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  ASSERT_EQ(connected, 0);
  ASSERT_EQ(send(client.get(), "get=1\n\n", 7, MSG_NOSIGNAL), 7);
  char answer[9];
  EXPECT_EQ(recv(client.get(), answer, sizeof answer, MSG_WAITALL), 9);
  EXPECT_EQ(std::string_view(answer, 9), "errno=0\n\n");
}

TEST(UapiServer, TellsWhenItsFileIsDeletedOrReplaced) {
  TemporaryDirectory directory;
  {
    Serving serving(In(directory));
    std::ofstream(directory.path() + "/other.sock") << "";
    std::filesystem::remove(directory.path() + "/other.sock");
    EXPECT_EQ(serving.removed().wait_for(50ms), std::future_status::timeout) << "another file's end is not ours";
    std::filesystem::remove(SocketIn(directory));
    EXPECT_EQ(serving.removed().wait_for(10s), std::future_status::ready);
  }
  {
    Serving serving(In(directory));
    const Fd other = BindAt(directory.path() + "/new", true);
    std::filesystem::rename(directory.path() + "/new", SocketIn(directory));
    EXPECT_EQ(serving.removed().wait_for(10s), std::future_status::ready);
  }
  EXPECT_EQ(TestClient(SocketIn(directory)).connect_error(), ECONNREFUSED) << "the other's file must stay";
}

TEST(UapiServer, StartsAHundredTimesInARow_CONF96) {
  TemporaryDirectory directory;
  for (int i = 0; i < 100; ++i) {
    Serving serving(In(directory));
    ASSERT_EQ(serving.error().message, "");
    ASSERT_EQ(TestClient(SocketIn(directory)).Ask("get=1\n\n"), "errno=0\n\n");
  }
}

TEST(UapiServer, IsNeverSeenRefusingWhileItStarts_CONF96) {
  TemporaryDirectory directory;
  std::mutex probing;
  std::atomic<bool> stop = false;
  std::atomic<int> refused = 0;
  std::atomic<int> accepted = 0;
  // As `wg show` in a loop, which removes a socket that refuses. Not while a server ends: its file is gone by then, but
  // one who has looked it up before may still be refused.
  std::thread prober([&] {
    while (!stop) {
      std::this_thread::sleep_for(10us);  // lets the other side have the lock
      const std::lock_guard lock(probing);
      const int error = TestClient(SocketIn(directory)).connect_error();
      refused += error == ECONNREFUSED;
      accepted += error == 0;
    }
  });
  for (int i = 0; i < 100; ++i) {
    auto serving = std::make_unique<Serving>(In(directory));
    EXPECT_EQ(serving->error().message, "");
    const int before = accepted;
    while (accepted == before && refused == 0) std::this_thread::yield();
    const std::lock_guard lock(probing);
    serving.reset();
  }
  stop = true;
  prober.join();
  EXPECT_EQ(refused, 0);
}

TEST(UapiServer, AdoptsAListeningSocket_CONF96) {
  TemporaryDirectory directory;
  {
    UapiServerOptions options = In(directory);
    options.listening_socket = BindAt(SocketIn(directory), true);
    const int fd = options.listening_socket.get();
    Serving serving(std::move(options));
    EXPECT_EQ(serving.error().message, "");
    EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    EXPECT_EQ(TestClient(SocketIn(directory)).Ask("get=1\n\n"), "errno=0\n\n");
    std::filesystem::rename(SocketIn(directory), directory.path() + "/moved");
    EXPECT_EQ(serving.removed().wait_for(10s), std::future_status::ready);
    std::filesystem::rename(directory.path() + "/moved", SocketIn(directory));
  }
  EXPECT_EQ(ModeOf(SocketIn(directory)) & S_IFMT, mode_t{S_IFSOCK}) << "once lost, the file is not ours to remove";
}

TEST(UapiServer, RemovesTheFileOfAnAdoptedSocket_CONF96) {
  TemporaryDirectory directory;
  {
    UapiServerOptions options = In(directory);
    options.listening_socket = BindAt(SocketIn(directory), true);
    Serving serving(std::move(options));
  }
  EXPECT_THAT(FilesIn(directory), testing::IsEmpty());
}

TEST(UapiServer, RefusesToAdoptWhatDoesNotListen) {
  TemporaryDirectory directory;
  UapiServerOptions options = In(directory);
  options.listening_socket = BindAt(SocketIn(directory), false);
  EXPECT_THAT(Serving(std::move(options)).error().message, HasSubstr("is not a listening UNIX stream socket"));
  options = In(directory);
  options.listening_socket = Fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
  EXPECT_THAT(Serving(std::move(options)).error().message, HasSubstr("is not a listening UNIX stream socket"));
}

TEST(UapiServer, IsClosedToOtherUsers_CONF96) {
  if (geteuid() != 0) GTEST_SKIP() << "needs root to become nobody";
  TemporaryDirectory directory;
  ASSERT_EQ(chmod(directory.path().c_str(), 0755), 0);
  Serving serving(In(directory));
  const pid_t child = fork();
  if (child == 0) {
    constexpr uid_t kNobody = 65534;
    if (setgid(kNobody) != 0 || setuid(kNobody) != 0) _exit(100);
    _exit(TestClient(SocketIn(directory)).connect_error());
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), EACCES);
}

}  // namespace
}  // namespace adit
