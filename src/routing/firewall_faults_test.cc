// The firewall with a fault at each operation of up, reload and down, by every error that the kernel has for it. The
// kernel is real; what it would answer, or that the process dies, is the test's.
#include <gmock/gmock.h>
#include <linux/netlink.h>

#include <cstring>

#include "routing/faulty_target_fixture.h"
#include "routing/firewall.h"
#include "routing/netlink.h"

namespace adit {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Fault = FaultyTarget::Fault;

constexpr const char* kForwarding4 = "net/ipv4/ip_forward";
constexpr const char* kForwarding6 = "net/ipv6/conf/all/forwarding";
constexpr const char* kAdvertisements = "net/ipv6/conf/eth0/accept_ra";
constexpr const char* kRedirects = "net/ipv4/conf/all/accept_redirects";
constexpr const char* kLinkForwarding4 = "net/ipv4/conf/eth0/forwarding";
constexpr const char* kLinkForwarding6 = "net/ipv6/conf/eth0/forwarding";

FirewallConfig Gateway() {
  FirewallConfig config;
  config.interface_name = "adit0";
  config.kill_switch = KillSwitch::kUp;
  config.is_full = true;
  config.own = {Ip("10.9.0.2")};
  config.endpoints = {*SocketAddress::Parse("203.0.113.10:51820")};
  config.masquerades = true;
  config.gateway = true;
  config.mtu = 1420;
  return config;
}

class FirewallFaultsTest : public NamespaceTest {
 protected:
  void SetUp() override {
    NamespaceTest::SetUp();
    if (IsSkipped()) return;
    firewall_journal_ = folder_ + "/adit0.firewall";
    InMachine([](NetlinkSocket&) {
      if (!NftSocket::Open()) GTEST_SKIP() << "no nftables";
      Must(WriteSysctl(kForwarding4, "0"));
      Must(WriteSysctl(kForwarding6, "0"));
      Must(WriteSysctl(kAdvertisements, "1"));
      // Which the kernel resets along with forwarding.
      Must(WriteSysctl(kRedirects, "0"));
      Must(WriteSysctl(kLinkForwarding4, "1"));
      Must(WriteSysctl(kLinkForwarding6, "1"));
    });
  }

  // What a firewall changes: "table 0 1 0", and what changes along: "0 1 1".
  static std::string State() {
    const auto has_table = HasFirewallTable("adit0");
    EXPECT_TRUE(has_table);
    return fmt::format("{} {} {} {}, {} {} {}", has_table.value_or(false) ? "table" : "no table",
                       ReadSysctl(kForwarding4).value_or("?"), ReadSysctl(kForwarding6).value_or("?"),
                       ReadSysctl(kAdvertisements).value_or("?"), ReadSysctl(kRedirects).value_or("?"),
                       ReadSysctl(kLinkForwarding4).value_or("?"), ReadSysctl(kLinkForwarding6).value_or("?"));
  }

  Result<Journal> CreateJournal() const {
    return Journal::Create(firewall_journal_,
                           {"adit0", 0, *NetworkNamespaceIdentity(CurrentNetworkNamespace()->get())});
  }

  // Whether a packet that no tunnel carries gets out of the machine. Through the real table.
  static bool IsClosed() {
    const Fd client(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_storage to{};
    const socklen_t size = SocketAddress::Parse("192.0.2.9:7")->ToSockaddr(to);
    const ssize_t sent = sendto(client.get(), "x", 1, 0, reinterpret_cast<sockaddr*>(&to), size);
    return sent < 0 && (errno == EPERM || errno == EACCES);
  }

  std::string firewall_journal_;
};

constexpr int kErrors[] = {EPERM, EBUSY, EEXIST, ENOBUFS};
constexpr const char* kBefore = "no table 0 0 1, 0 1 1";
constexpr const char* kUp = "table 1 1 2, 0 1 1";

TEST_F(FirewallFaultsTest, AnErrorOfNftablesSaysWhichAttributeTheKernelMinds) {
  InMachine([&](NetlinkSocket&) {
    auto nft = NftSocket::Open();
    ASSERT_TRUE(nft);
    // The table is attribute 1 (NFTA_RULE_TABLE), the first after nlmsghdr and nfgenmsg, and it is not there.
    const nft::Table table = MakeFirewallTable(Gateway());
    const Status refused = nft->Commit(nft::ReplaceRules("absent", table.chains.front()));
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, ENOENT);
    EXPECT_THAT(refused.error().message, HasSubstr("(the kernel points at attribute 1, byte 20)"));
  });
}

TEST_F(FirewallFaultsTest, TheKernelsSentenceIsReadFromAnAnswerThatHoldsTheRequestOrNot) {
  for (const bool is_capped : {true, false}) {
    SCOPED_TRACE(is_capped);
    constexpr char kSaid[] = "no such thing";
    struct {
      nlmsghdr header;
      nlmsgerr error;
      std::uint8_t rest[64];
    } answer{};
    answer.error.error = -EINVAL;
    answer.error.msg.nlmsg_len = sizeof(nlmsghdr) + 8;
    const std::size_t skip = is_capped ? 0 : 8;
    const nlattr head{.nla_len = NLA_HDRLEN + sizeof(kSaid), .nla_type = NLMSGERR_ATTR_MSG};
    memcpy(answer.rest + skip, &head, sizeof(head));
    memcpy(answer.rest + skip + NLA_HDRLEN, kSaid, sizeof(kSaid));
    answer.header.nlmsg_type = NLMSG_ERROR;
    answer.header.nlmsg_len =
        static_cast<std::uint32_t>(sizeof(nlmsghdr) + sizeof(nlmsgerr) + skip + NLA_ALIGN(head.nla_len));
    answer.header.nlmsg_flags = NLM_F_ACK_TLVS | (is_capped ? NLM_F_CAPPED : 0);
    EXPECT_EQ(ReadRemark(&answer.header).text, kSaid);
    answer.header.nlmsg_flags = 0;
    EXPECT_EQ(ReadRemark(&answer.header).text, "");
  }
}

TEST_F(FirewallFaultsTest, AnErrorAtAnyOperationOfUpRollsEverythingBack_SCENARIO32) {
  InMachine([&](NetlinkSocket& socket) {
    const FirewallConfig config = Gateway();
    const std::vector<Op> planned = FirewallOps(config, Snapshot(socket));
    ASSERT_EQ(planned.size(), 7U);
    for (const int code : kErrors) {
      for (std::size_t at = 0; at <= planned.size(); ++at) {
        SCOPED_TRACE(fmt::format("{} at {}", strerror(code), at));
        auto nft = NftSocket::Open();
        auto journal = CreateJournal();
        ASSERT_TRUE(nft && journal);
        FirewallTarget kernel(*nft, &config);
        FaultyTarget target(kernel, Fault::kError, at, code);
        std::vector<Op> ops = planned;
        const ApplyOutcome outcome = ApplyOps(target, *journal, ops);
        if (at == planned.size()) {  // the control: without a fault it stands
          ASSERT_TRUE(outcome.status);
          EXPECT_EQ(State(), kUp);
          EXPECT_TRUE(IsClosed());
          Must(UndoOps(kernel, ops));
        } else {
          ASSERT_FALSE(outcome.status);
          EXPECT_EQ(outcome.status.error().code, code);
          EXPECT_THAT(outcome.status.error().message, HasSubstr(ToString(ops[at])));
          EXPECT_FALSE(outcome.something_left);
        }
        EXPECT_EQ(State(), kBefore);
        EXPECT_FALSE(IsClosed());
        Must(journal->Remove());
      }
    }
  });
}

TEST_F(FirewallFaultsTest, AKillAtAnyOperationOfUpLeavesItClosedOrAsItWas_SCENARIO31) {
  InMachine([&](NetlinkSocket& socket) {
    const FirewallConfig config = Gateway();
    const std::vector<Op> planned = FirewallOps(config, Snapshot(socket));
    std::size_t left_something = 0;
    for (const Fault fault : {Fault::kKillBefore, Fault::kKillAfter}) {
      for (std::size_t at = 0; at < planned.size(); ++at) {
        // By `cleanup`, and by the next `up`.
        for (const bool by_up : {false, true}) {
          SCOPED_TRACE(at);
          DiesOf([&] {
            auto nft = NftSocket::Open();
            auto journal = CreateJournal();
            FirewallTarget kernel(*nft, &config);
            FaultyTarget target(kernel, fault, at);
            std::vector<Op> ops = planned;
            static_cast<void>(ApplyOps(target, *journal, ops));
          });
          left_something += State() == kBefore ? 0 : 1;
          // The table is the first that comes: nothing of a gateway is there without it.
          EXPECT_EQ(IsClosed(), fault == Fault::kKillAfter || at > 0);
          if (by_up) {
            auto firewall = Firewall::Up(config, Snapshot(socket), firewall_journal_);
            ASSERT_TRUE(firewall) << firewall.error().message;
            EXPECT_EQ(State(), kUp);
            Must((*firewall)->Down());
          } else {
            Must(CleanupFirewall(firewall_journal_));
          }
          ASSERT_EQ(State(), kBefore);
          ASSERT_NE(access(firewall_journal_.c_str(), F_OK), 0);
        }
      }
    }
    // The control: each time but for a kill before the first operation.
    EXPECT_EQ(left_something, 2 * (2 * planned.size() - 1));
  });
}

TEST_F(FirewallFaultsTest, DownGoesOnAfterAnErrorAndCleanupDoesTheRest_SCENARIO32) {
  InMachine([&](NetlinkSocket& socket) {
    const FirewallConfig config = Gateway();
    const std::vector<Op> planned = FirewallOps(config, Snapshot(socket));
    for (const int code : kErrors) {
      for (std::size_t at = 0; at < planned.size(); ++at) {
        SCOPED_TRACE(fmt::format("{} at {}", strerror(code), at));
        {
          auto nft = NftSocket::Open();
          auto journal = CreateJournal();
          ASSERT_TRUE(nft && journal);
          FirewallTarget kernel(*nft, &config);
          std::vector<Op> ops = planned;
          ASSERT_TRUE(ApplyOps(kernel, *journal, ops).status);
          FaultyTarget target(kernel, Fault::kError, at, code);
          const Status undone = UndoOps(target, ops);
          ASSERT_FALSE(undone);
          EXPECT_EQ(undone.error().code, code);
          EXPECT_NE(State(), kBefore) << "one stayed";
          // All others went. The table is the last.
          EXPECT_EQ(IsClosed(), at + 1 == planned.size());
        }
        Must(CleanupFirewall(firewall_journal_));
        ASSERT_EQ(State(), kBefore);
      }
    }
  });
}

TEST_F(FirewallFaultsTest, AKillAtAnyOperationOfDownKeepsItClosedToTheEnd_SCENARIO31) {
  InMachine([&](NetlinkSocket& socket) {
    const FirewallConfig config = Gateway();
    const std::vector<Op> planned = FirewallOps(config, Snapshot(socket));
    for (const Fault fault : {Fault::kKillBefore, Fault::kKillAfter}) {
      for (std::size_t at = 0; at < planned.size(); ++at) {
        SCOPED_TRACE(at);
        DiesOf([&] {
          auto nft = NftSocket::Open();
          auto journal = CreateJournal();
          FirewallTarget kernel(*nft, &config);
          std::vector<Op> ops = planned;
          if (!ApplyOps(kernel, *journal, ops).status) return;
          FaultyTarget target(kernel, fault, at);
          static_cast<void>(UndoOps(target, ops));
        });
        EXPECT_EQ(IsClosed(), fault == Fault::kKillBefore || at + 1 < planned.size());
        Must(CleanupFirewall(firewall_journal_));
        ASSERT_EQ(State(), kBefore);
      }
    }
  });
}

// From each configuration to each other: as if the second had come up first, and nothing left afterwards.
TEST_F(FirewallFaultsTest, ReloadLeavesWhatAFreshUpWouldHaveMade) {
  InMachine([&](NetlinkSocket& socket) {
    const FirewallConfig open = [] {
      FirewallConfig config = Gateway();
      config.kill_switch = KillSwitch::kOff;
      config.gateway = false;
      return config;
    }();
    FirewallConfig always = Gateway();
    always.kill_switch = KillSwitch::kAlways;
    FirewallConfig closed = open;
    closed.kill_switch = KillSwitch::kUp;
    const std::vector<FirewallConfig> configs = {open, Gateway(), always, closed};
    for (const FirewallConfig& from : configs) {
      for (const FirewallConfig& to : configs) {
        SCOPED_TRACE(fmt::format("{} {} to {} {}", ToString(from.kill_switch), from.gateway, ToString(to.kill_switch),
                                 to.gateway));
        const bool stays = to.kill_switch == KillSwitch::kAlways;
        for (const bool crashes : {false, true}) {
          auto firewall = Firewall::Up(from, Snapshot(socket), firewall_journal_);
          ASSERT_TRUE(firewall) << firewall.error().message;
          Must((*firewall)->Reload(to, Snapshot(socket)));
          EXPECT_EQ(State(), to.gateway ? kUp : "table 0 0 1, 0 1 1");
          EXPECT_EQ(IsClosed(), to.kill_switch != KillSwitch::kOff);
          EXPECT_EQ((*firewall)->config(), to);
          if (crashes) {
            firewall->reset();
            Must(CleanupFirewall(firewall_journal_));
          } else {
            Must((*firewall)->Down());
            firewall->reset();
          }
          EXPECT_EQ(State(), stays ? "table 0 0 1, 0 1 1" : kBefore);
          if (stays) {
            EXPECT_TRUE(OpenKillSwitch("adit0").value_or(false));
          }
        }
      }
    }
  });
}

}  // namespace
}  // namespace adit
