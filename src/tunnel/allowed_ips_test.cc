#include "tunnel/allowed_ips.h"

#include <gtest/gtest.h>

#include <chrono>

#include "crypto/test_support.h"

namespace adit {
namespace {

constexpr PeerId kA = 0, kB = 1, kC = 2, kD = 3, kE = 4;

Prefix P(const char* text) { return *Prefix::Parse(text, true); }
IpAddress Ip(const char* text) { return *IpAddress::Parse(text); }

struct Query {
  const char* address;
  std::optional<PeerId> owner;
};

void ExpectOwners(const AllowedIps& ips, std::initializer_list<Query> queries) {
  const auto table = ips.Build();
  for (const Query& query : queries) {
    EXPECT_EQ(table->Lookup(Ip(query.address)), query.owner) << query.address;
  }
}

TEST(AllowedIps, AreEmptyAtFirst) {
  const AllowedIps ips;
  ExpectOwners(ips, {{"0.0.0.0", {}}, {"255.255.255.255", {}}, {"::", {}}});
  EXPECT_EQ(ips.size(), 0u);
}

TEST(AllowedIps, TheLongestPrefixDecides_CONF74) {
  AllowedIps ips;
  ips.Insert(P("10.0.0.0/8"), kA);
  ips.Insert(P("10.1.0.0/16"), kB);
  ips.Insert(P("10.1.2.0/24"), kC);
  ips.Insert(P("10.1.2.3/32"), kD);
  ips.Insert(P("10.1.3.0/24"), kA);
  ExpectOwners(ips, {{"9.255.255.255", {}},
                     {"10.0.0.0", kA},
                     {"10.0.255.255", kA},
                     {"10.1.0.0", kB},
                     {"10.1.1.255", kB},
                     {"10.1.2.0", kC},
                     {"10.1.2.2", kC},
                     {"10.1.2.3", kD},
                     {"10.1.2.4", kC},
                     {"10.1.2.255", kC},
                     {"10.1.3.0", kA},
                     {"10.1.3.255", kA},
                     {"10.1.4.0", kB},
                     {"10.1.255.255", kB},
                     {"10.2.0.0", kA},
                     {"10.255.255.255", kA},
                     {"11.0.0.0", {}}});
}

TEST(AllowedIps, OrderOfInsertionDoesNotMatter_CONF74) {
  const Prefix prefixes[] = {P("0.0.0.0/0"), P("128.0.0.0/1"), P("192.0.0.0/2"), P("192.0.2.0/24"),
                             P("192.0.2.128/25")};
  std::array<std::size_t, 5> order = {0, 1, 2, 3, 4};
  do {
    AllowedIps ips;
    for (const std::size_t i : order) ips.Insert(prefixes[i], static_cast<PeerId>(i));
    ExpectOwners(ips, {{"1.2.3.4", 0}, {"128.0.0.1", 1}, {"200.0.0.1", 2}, {"192.0.2.1", 3}, {"192.0.2.200", 4}});
  } while (std::ranges::next_permutation(order).found);
}

TEST(AllowedIps, WholeAddressSpaceAndItsEnds_CONF74) {
  AllowedIps ips;
  ips.Insert(P("0.0.0.0/0"), kA);
  ips.Insert(P("0.0.0.0/32"), kB);
  ips.Insert(P("255.255.255.255/32"), kC);
  ips.Insert(P("::/0"), kD);
  ips.Insert(P("::/128"), kA);
  ips.Insert(P("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"), kE);
  ExpectOwners(ips, {{"0.0.0.0", kB},
                     {"0.0.0.1", kA},
                     {"255.255.255.254", kA},
                     {"255.255.255.255", kC},
                     {"::", kA},
                     {"::1", kD},
                     {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", kD},
                     {"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", kE}});
}

TEST(AllowedIps, FamiliesDoNotMix_CONF74) {
  AllowedIps ips;
  ips.Insert(P("0.0.0.0/0"), kA);
  ExpectOwners(ips, {{"1.2.3.4", kA}, {"::ffff:1.2.3.4", {}}, {"::", {}}});
}

TEST(AllowedIps, EveryLengthOfBothFamiliesCounts_CONF74) {
  for (const bool is_v6 : {false, true}) {
    const IpAddress address = is_v6 ? Ip("2001:db8:55aa:aa55:123:4567:89ab:cdef") : Ip("172.21.85.170");
    AllowedIps ips;
    for (unsigned length = 0; length <= address.bits(); ++length) ips.Insert(Prefix(address, length), length);
    const auto table = ips.Build();
    EXPECT_EQ(table->Lookup(address), address.bits());
    for (unsigned bit = 0; bit < address.bits(); ++bit) {
      std::vector<std::uint8_t> bytes(address.bytes().begin(), address.bytes().end());
      bytes[bit / 8] ^= static_cast<std::uint8_t>(0x80u >> (bit % 8));
      // Differs first at `bit`, so that prefixes up to that length match.
      EXPECT_EQ(is_v6 ? table->LookupV6(bytes.data()) : table->LookupV4(bytes.data()), bit);
    }
  }
}

// One lookup of the inner source must name this very peer: that some prefix of the peer contains it is not enough.
TEST(AllowedIps, NameOneOwnerAlsoWhereAnothersPrefixIsWider_CONF75) {
  AllowedIps ips;
  ips.Insert(P("10.0.0.0/8"), kA);
  ips.Insert(P("10.5.0.0/16"), kB);
  ips.Insert(P("fd00::/8"), kA);
  ips.Insert(P("fd00:5::/32"), kB);
  ExpectOwners(ips, {{"10.5.0.1", kB}, {"10.6.0.1", kA}, {"fd00:5::1", kB}, {"fd00:6::1", kA}});
}

TEST(AllowedIps, MoveToWhomTheyWereGivenLast_CONF100) {
  AllowedIps ips;
  EXPECT_EQ(ips.Insert(P("192.0.2.0/24"), kA), std::nullopt);
  EXPECT_EQ(ips.Insert(P("192.0.2.0/24"), kA), std::nullopt);
  EXPECT_EQ(ips.Insert(P("192.0.2.77/24"), kB), kA);  // the same prefix: host bits do not count
  EXPECT_EQ(ips.size(), 1u);
  EXPECT_TRUE(ips.PrefixesOf(kA).empty());
  EXPECT_EQ(ips.PrefixesOf(kB), std::vector{P("192.0.2.0/24")});
  ExpectOwners(ips, {{"192.0.2.1", kB}});
}

TEST(AllowedIps, AreRemovedByTheirOwnerOnly) {
  AllowedIps ips;
  ips.Insert(P("10.0.0.0/8"), kA);
  ips.Insert(P("10.1.0.0/16"), kB);
  EXPECT_FALSE(ips.Remove(P("10.1.0.0/16"), kA));
  EXPECT_FALSE(ips.Remove(P("10.1.0.0/17"), kB));
  EXPECT_FALSE(ips.Remove(P("::/0"), kB));
  ExpectOwners(ips, {{"10.1.0.1", kB}});
  EXPECT_TRUE(ips.Remove(P("10.1.0.0/16"), kB));
  EXPECT_FALSE(ips.Remove(P("10.1.0.0/16"), kB));
  ExpectOwners(ips, {{"10.1.0.1", kA}});
}

TEST(AllowedIps, GoWithTheirPeer) {
  AllowedIps ips;
  ips.Insert(P("10.0.0.0/8"), kA);
  ips.Insert(P("10.1.0.0/16"), kB);
  ips.Insert(P("10.1.2.0/24"), kA);
  ips.Insert(P("fd00::/8"), kA);
  ips.RemovePeer(kA);
  ips.RemovePeer(kA);
  EXPECT_EQ(ips.size(), 1u);
  ExpectOwners(ips, {{"10.0.0.1", {}}, {"10.1.2.3", kB}, {"fd00::1", {}}});
}

TEST(AllowedIps, AreListedInTheOrderTheyWereGiven) {
  AllowedIps ips;
  const std::vector<Prefix> given = {P("fd00::/8"), P("10.0.0.0/8"), P("192.0.2.0/24"), P("10.0.0.0/24"), P("::/0")};
  for (const Prefix& prefix : given) ips.Insert(prefix, kA);
  EXPECT_EQ(ips.PrefixesOf(kA), given);
  ips.Insert(P("10.0.0.0/8"), kA);  // already there: keeps its place
  EXPECT_EQ(ips.PrefixesOf(kA), given);

  ips.Insert(P("10.0.0.0/8"), kB);
  ips.Insert(P("10.0.0.0/8"), kA);  // came back: last
  EXPECT_EQ(ips.PrefixesOf(kA),
            (std::vector{P("fd00::/8"), P("192.0.2.0/24"), P("10.0.0.0/24"), P("::/0"), P("10.0.0.0/8")}));
}

TEST(AllowedIps, ATableDoesNotChangeAfterwards) {
  AllowedIps ips;
  ips.Insert(P("10.0.0.0/8"), kA);
  const auto before = ips.Build();
  ips.Insert(P("10.0.0.0/8"), kB);
  const auto after = ips.Build();
  ips.RemovePeer(kB);
  EXPECT_EQ(before->Lookup(Ip("10.0.0.1")), kA);
  EXPECT_EQ(after->Lookup(Ip("10.0.0.1")), kB);
}

// The obvious table: look at every prefix, keep the longest.
class NaiveIps {
 public:
  void Insert(const Prefix& prefix, PeerId peer) {
    Remove(prefix);
    entries_.emplace_back(prefix, peer);
  }
  void Remove(const Prefix& prefix) {
    std::erase_if(entries_, [&](const auto& entry) { return entry.first == prefix; });
  }
  void RemovePeer(PeerId peer) {
    std::erase_if(entries_, [&](const auto& entry) { return entry.second == peer; });
  }
  std::optional<PeerId> Lookup(const IpAddress& address) const {
    std::optional<PeerId> owner;
    unsigned longest = 0;
    for (const auto& [prefix, peer] : entries_) {
      if (prefix.Contains(address) && (!owner || prefix.length() >= longest)) {
        owner = peer;
        longest = prefix.length();
      }
    }
    return owner;
  }
  const std::vector<std::pair<Prefix, PeerId>>& entries() const { return entries_; }

 private:
  std::vector<std::pair<Prefix, PeerId>> entries_;
};

// Random addresses out of a small part of the space, so that prefixes nest and queries hit.
IpAddress RandomAddress(Random& random, bool is_v6) {
  ByteArray<16> bytes{};
  const std::size_t size = is_v6 ? 16 : 4;
  for (std::size_t i = 0; i < size; ++i) {
    // Ones and zeros at every place, and all ones and all zeros often.
    const std::uint8_t choices[] = {0, 0xff, 0x80, static_cast<std::uint8_t>(random.Below(256))};
    bytes[i] = choices[random.Below(4)];
  }
  return is_v6 ? IpAddress::V6(bytes) : IpAddress::V4(Bytes(bytes).first(4));
}

TEST(AllowedIps, AgreeWithALinearSearch_CONF74_CONF75) {
  SeededRandom random(DrawSeed());
  for (int round = 0; round < 60; ++round) {
    AllowedIps ips;
    NaiveIps naive;
    const std::uint32_t peers = 1 + random.Below(20);
    const int inserts = static_cast<int>(random.Below(120));
    const auto insert = [&](const Prefix& prefix) {
      const PeerId peer = random.Below(peers);
      ips.Insert(prefix, peer);
      naive.Insert(prefix, peer);
    };
    for (int i = 0; i < inserts; ++i) {
      const IpAddress address = RandomAddress(random, random.Below(2) == 0);
      insert(Prefix(address, random.Below(address.bits() + 1)));
      // A relative: the same address, another length.
      if (random.Below(2) == 0) insert(Prefix(address, random.Below(address.bits() + 1)));
      if (random.Below(8) == 0 && !naive.entries().empty()) {
        const auto [prefix, peer] = naive.entries()[random.Below(static_cast<std::uint32_t>(naive.entries().size()))];
        ASSERT_TRUE(ips.Remove(prefix, peer));
        naive.Remove(prefix);
      }
    }
    if (random.Below(3) == 0) {
      const PeerId peer = random.Below(peers);
      ips.RemovePeer(peer);
      naive.RemovePeer(peer);
    }
    ASSERT_EQ(ips.size(), naive.entries().size());
    const auto table = ips.Build();
    const auto ask = [&](const IpAddress& address) {
      ASSERT_EQ(table->Lookup(address), naive.Lookup(address)) << "round " << round << ": " << address.ToString();
    };
    for (int i = 0; i < 500; ++i) ask(RandomAddress(random, random.Below(2) == 0));
    // The edges of every prefix: first and last address, and their neighbours outside.
    for (const auto& [prefix, peer] : naive.entries()) {
      const Bytes first = prefix.address().bytes();
      std::vector<std::uint8_t> last(first.begin(), first.end()), before = last;
      for (unsigned bit = prefix.length(); bit < prefix.address().bits(); ++bit) {
        last[bit / 8] |= static_cast<std::uint8_t>(0x80u >> (bit % 8));
      }
      std::vector<std::uint8_t> after = last;
      for (std::size_t i = before.size(); i-- > 0 && before[i]-- == 0;) continue;
      for (std::size_t i = after.size(); i-- > 0 && ++after[i] == 0;) continue;
      for (const auto& edge : {std::vector<std::uint8_t>(first.begin(), first.end()), last, before, after}) {
        ask(prefix.address().is_v6() ? IpAddress::V6(edge) : IpAddress::V4(edge));
      }
    }
  }
}

TEST(AllowedIps, TakeAFullSetOf255Times256) {
  AllowedIps ips;
  std::vector<Prefix> prefixes;
  for (unsigned peer = 0; peer < 255; ++peer) {
    for (unsigned i = 0; i < 256; ++i) {
      const auto a = static_cast<std::uint8_t>(peer), b = static_cast<std::uint8_t>(i);
      prefixes.emplace_back(IpAddress::V4(ByteArray<4>{10, a, b, 0}), 24);
      prefixes.emplace_back(IpAddress::V6(ByteArray<16>{0xfd, 0, a, b}), 32);
    }
  }
  const auto start = std::chrono::steady_clock::now();
  for (std::size_t i = 0; i < prefixes.size(); ++i) ips.Insert(prefixes[i], static_cast<PeerId>(i / 512));
  const auto table = ips.Build();
  const auto took = std::chrono::steady_clock::now() - start;
  std::printf("%zu prefixes set and built in %.1f ms\n", prefixes.size(),
              std::chrono::duration<double, std::milli>(took).count());

  ASSERT_EQ(ips.size(), 130'560u);
  for (std::size_t i = 0; i < prefixes.size(); ++i) {
    ASSERT_EQ(table->Lookup(prefixes[i].address()), static_cast<PeerId>(i / 512));
  }
  EXPECT_EQ(table->Lookup(Ip("10.255.0.1")), std::nullopt);
  EXPECT_EQ(ips.PrefixesOf(254).size(), 512u);
}

}  // namespace
}  // namespace adit
