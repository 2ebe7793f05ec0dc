// Against the kernel's own loopback, which answers as a peer would.
#include "cli/path_probe.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>

namespace adit {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

class PathProbeTest : public ::testing::Test {
 protected:
  void Open(bool is_v6, std::vector<IpAddress> own) {
    auto probe = PathProbe::Open(io_, "lo", is_v6, std::move(own), [this](std::uint16_t id) { ids_.push_back(id); });
    if (!probe) GTEST_SKIP() << probe.error().message;
    probe_ = std::move(*probe);
  }
  // Loopback answers before the call that sends returns.
  std::vector<std::uint16_t> Answers() {
    io_.restart();
    io_.run_for(std::chrono::milliseconds(50));
    return std::exchange(ids_, {});
  }

  boost::asio::io_context io_;
  std::vector<std::uint16_t> ids_;
  std::unique_ptr<PathProbe> probe_;
};

TEST_F(PathProbeTest, TellsAnswersApart) {
  Open(false, {});
  if (!probe_) return;
  const IpAddress peer = *IpAddress::Parse("127.0.0.1");
  EXPECT_THAT(Answers(), IsEmpty());
  EXPECT_EQ(probe_->Send(peer, 17, 64), 0);
  EXPECT_THAT(Answers(), ElementsAre(17));
  EXPECT_EQ(probe_->Send(peer, 3, 1420), 0);
  EXPECT_EQ(probe_->Send(peer, 4, 9000), 0) << "the answer to the one before is no error of this one";
  EXPECT_THAT(Answers(), UnorderedElementsAre(3, 4));
}

TEST_F(PathProbeTest, HearsIpv6) {
  Open(true, {});
  if (!probe_) return;
  if (probe_->Send(*IpAddress::Parse("::1"), 17, 1280) != 0) GTEST_SKIP() << "no IPv6 here";
  EXPECT_THAT(Answers(), ElementsAre(17));
}

TEST_F(PathProbeTest, WhatTheMachineItselfAnswersIsNoAnswer) {
  const IpAddress peer = *IpAddress::Parse("127.0.0.1");
  Open(false, {peer});
  if (!probe_) return;
  EXPECT_EQ(probe_->Send(peer, 17, 64), 0);
  EXPECT_THAT(Answers(), IsEmpty());
}

TEST_F(PathProbeTest, ADatagramIsAnAnswerToo) {
  Open(false, {});
  if (!probe_) return;
  const Fd service(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_storage at;
  const IpAddress peer = *IpAddress::Parse("127.0.0.1");
  const socklen_t length = SocketAddress{peer, 33434 + 21}.ToSockaddr(at);
  if (bind(service.get(), reinterpret_cast<const sockaddr*>(&at), length) != 0) GTEST_SKIP() << "the port is taken";
  EXPECT_EQ(probe_->Send(peer, 21, 100), 0);
  char received[200];
  sockaddr_storage from;
  socklen_t from_length = sizeof from;
  ASSERT_EQ(recvfrom(service.get(), received, sizeof received, 0, reinterpret_cast<sockaddr*>(&from), &from_length),
            100 - 28)
      << "the size is that of the whole packet";
  EXPECT_THAT(Answers(), IsEmpty());
  sendto(service.get(), "hm", 2, 0, reinterpret_cast<const sockaddr*>(&from), from_length);
  EXPECT_THAT(Answers(), ElementsAre(21));
}

TEST_F(PathProbeTest, APacketThatIsTooLargeForTheDeviceIsNotSent) {
  Open(false, {});
  if (!probe_) return;
  // Loopback takes 65536, IP 65535.
  EXPECT_EQ(probe_->Send(*IpAddress::Parse("127.0.0.1"), 0, 65536), EMSGSIZE);
}

}  // namespace
}  // namespace adit
