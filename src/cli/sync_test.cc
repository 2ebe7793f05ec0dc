#include "cli/sync.h"

#include <gtest/gtest.h>

namespace adit {
namespace {

PublicKey Key(int number) {
  PublicKey key;
  key.bytes[0] = static_cast<std::uint8_t>(number);
  return key;
}

TEST(Sync, RemovesVanishedPeersFirstAndKeepsTheRest) {
  DeviceStatus now;
  for (const int number : {1, 2, 3}) now.peers.emplace_back().public_key = Key(number);
  DeviceUpdate wanted;
  wanted.replace_peers = true;
  for (const int number : {2, 4}) {
    PeerUpdate peer;
    peer.public_key = Key(number);
    wanted.peers.push_back(peer);
  }
  const DeviceUpdate update = MakeSyncUpdate(wanted, now);
  EXPECT_FALSE(update.replace_peers) << "that would end every session";
  ASSERT_EQ(update.peers.size(), 4u);
  EXPECT_EQ(update.peers[0].public_key, Key(1));
  EXPECT_TRUE(update.peers[0].remove);
  EXPECT_EQ(update.peers[1].public_key, Key(3));
  EXPECT_TRUE(update.peers[1].remove);
  EXPECT_EQ(update.peers[2].public_key, Key(2));
  EXPECT_FALSE(update.peers[2].remove);
  EXPECT_EQ(update.peers[3].public_key, Key(4));
}

TEST(Sync, WhatVanishedFromAPeerIsCleared) {
  DeviceUpdate wanted;
  wanted.peers.emplace_back();
  const DeviceUpdate update = MakeSyncUpdate(wanted, {});
  ASSERT_EQ(update.peers.size(), 1u);
  ASSERT_TRUE(update.peers[0].preshared_key);
  EXPECT_TRUE(update.peers[0].preshared_key->is_zero());
  EXPECT_EQ(update.peers[0].persistent_keepalive_seconds, 0);
  EXPECT_TRUE(update.peers[0].replace_allowed_ips);
  EXPECT_FALSE(update.peers[0].endpoint) << "an endpoint that is not in the file may have been learnt: it stays";
}

TEST(Sync, UnchangedDeviceFieldsAreLeftAlone) {
  DeviceStatus now;
  now.private_key.data()[0] = 8;
  now.listen_port = 4000;
  now.fwmark = 0x1000;
  DeviceUpdate wanted;
  wanted.private_key = now.private_key;
  wanted.listen_port = 4000;
  wanted.fwmark = 0;
  DeviceUpdate update = MakeSyncUpdate(wanted, now);
  EXPECT_FALSE(update.private_key);
  EXPECT_FALSE(update.listen_port);
  EXPECT_FALSE(update.fwmark) << "the rules in force rely on it";

  wanted.private_key->data()[1] = 1;
  wanted.listen_port = 5000;
  update = MakeSyncUpdate(wanted, now);
  EXPECT_TRUE(update.private_key);
  EXPECT_EQ(update.listen_port, 5000);

  wanted.listen_port = 0;
  EXPECT_FALSE(MakeSyncUpdate(wanted, now).listen_port) << "a new random port would break NAT mappings";
}

}  // namespace
}  // namespace adit
