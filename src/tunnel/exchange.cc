#include "tunnel/exchange.h"

namespace adit {
namespace {

std::shared_ptr<const PeerTable> EmptyTable() {
  auto table = std::make_shared<PeerTable>();
  table->allowed_ips = AllowedIps().Build();
  return table;
}

}  // namespace

Exchange::Exchange(const ProtocolLimits& protocol_limits) : limits(protocol_limits), peers(EmptyTable()) {}

}  // namespace adit
