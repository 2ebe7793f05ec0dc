// Inner packets that carry their own proof: an id, from which the whole packet can be made again. The ledger knows of
// each who sent it to whom, and checks what comes out of a tunnel against it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "base/address.h"
#include "base/bytes.h"
#include "base/time.h"
#include "violation.h"

namespace adit::sim {

// The one inner address of a host in each family.
IpAddress InnerAddress(HostId host, bool is_v6);

struct PacketRecord {
  HostId from = kNobody;
  HostId to = kNobody;
  IpAddress source;
  IpAddress destination;
  std::size_t bytes = 0;
  std::uint8_t tos = 0;
  bool may_arrive = true;  // false: its source address is not the sender's to use
  Instant sent_at;
  std::optional<Instant> delivered_at;
};

class PacketLedger {
 public:
  static constexpr std::size_t kMinBytes = 48;  // an IPv6 header and the id

  // A new packet's bytes. REQUIRES: record.bytes >= kMinBytes.
  std::vector<std::uint8_t> Create(const PacketRecord& record);
  // `host` took `packet` out of its tunnel. `is_congested`: the path marked the datagram it came in.
  const PacketRecord& OnDelivered(HostId host, Bytes packet, bool is_congested, Instant now);

  const std::vector<PacketRecord>& records() const { return records_; }
  std::uint64_t delivered() const { return delivered_; }

 private:
  std::vector<PacketRecord> records_;  // by id
  std::uint64_t delivered_ = 0;
};

}  // namespace adit::sim
