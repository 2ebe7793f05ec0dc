#include "tunnel/inbound.h"

#include <algorithm>
#include <utility>

#include "tunnel/ip_packet.h"
#include "tunnel/messages.h"

namespace adit {
namespace {

// What one receive call can hold: 65,535 bytes of keepalives.
constexpr std::size_t kMaxMessagesPerRun = 65535 / kKeepaliveBytes + 1;

}  // namespace

Inbound::Inbound(Exchange& exchange, HandshakeQueue& handshakes, AeadEngine& engine)
    : exchange_(exchange), handshakes_(handshakes), engine_(engine), peers_(exchange.peers) {
  messages_.reserve(kMaxMessagesPerRun);
  jobs_.reserve(kMaxMessagesPerRun);
}

void Inbound::Process(MutableBytes data, std::size_t segment_bytes, const Endpoint& from, std::uint8_t ecn,
                      Instant now) {
  messages_.clear();
  std::uint32_t run_index = 0;
  const auto end_run = [&] {
    if (!messages_.empty()) ProcessRun(run_index, messages_, from, ecn, now);
    messages_.clear();
  };
  for (std::size_t at = 0; at < data.size(); at += segment_bytes) {
    const MutableBytes message = data.subspan(at, std::min(segment_bytes, data.size() - at));
    const auto type = ParseMessage(message);
    if (!type) {
      Drop(DropReason::kUnknownMessage);
    } else if (*type == MessageType::kData) {
      const std::uint32_t index = LoadAs<DataHeader>(message.data()).receiver_index;
      if (index != run_index) end_run();
      run_index = index;
      messages_.push_back(message);
    } else {
      const auto pushed = handshakes_.Push(message, from);
      wake_control_ |= pushed == HandshakeQueue::PushResult::kQueuedFirst;
      if (pushed == HandshakeQueue::PushResult::kDropped) Drop(DropReason::kHandshakeQueueFull);
    }
  }
  end_run();
}

void Inbound::ProcessRun(std::uint32_t receiver_index, std::span<const MutableBytes> messages, const Endpoint& from,
                         std::uint8_t ecn, Instant now) {
  const Session session = exchange_.sessions.Find(receiver_index);
  if (!session.keypair) return Drop(DropReason::kUnknownReceiver, messages.size());
  Keypair& keypair = *session.keypair;
  if (keypair.IsExpired(now, exchange_.limits)) return Drop(DropReason::kKeyExpired, messages.size());

  jobs_.clear();
  for (const MutableBytes message : messages) {
    OpenJob job;
    job.data = message.data() + sizeof(DataHeader);
    job.bytes = message.size() - sizeof(DataHeader);
    job.counter = LoadAs<DataHeader>(message.data()).counter;
    jobs_.push_back(job);
  }
  engine_.Open(keypair.receive_key, jobs_);

  std::size_t bad_tags = 0, replayed = 0, expired = 0;
  std::uint64_t bytes = 0;
  ReceivedFacts facts;
  facts.from = from;
  {
    const std::scoped_lock lock(keypair.replay_mutex);
    for (OpenJob& job : jobs_) {
      if (!job.is_authentic) {
        ++bad_tags;
      } else if (job.counter >= exchange_.limits.reject_after_messages) {
        job.is_authentic = false;
        ++expired;
      } else if (!keypair.replay.Accept(job.counter, exchange_.limits.reject_after_messages)) {
        job.is_authentic = false;
        ++replayed;
      } else {
        bytes += sizeof(DataHeader) + job.bytes;
        facts.has_data |= job.bytes > kAeadTagBytes;
      }
    }
  }
  if (bad_tags > 0) Drop(DropReason::kBadTag, bad_tags);
  if (replayed > 0) Drop(DropReason::kReplayed, replayed);
  if (expired > 0) Drop(DropReason::kKeyExpired, expired);
  if (bytes == 0) return;

  const ReceiveVerdict verdict = OnReceived(session.peer, session.keypair, facts, now, exchange_.inbox, wake_control_);
  if (verdict.is_removed) return Drop(DropReason::kUnknownReceiver, jobs_.size());
  if (verdict.flush_staged) to_flush_.push_back(session.peer);
  session.peer->rx_bytes.fetch_add(bytes, std::memory_order_relaxed);

  const PeerTable& table = peers_.Refresh();
  std::size_t malformed = 0, not_allowed = 0;
  for (const OpenJob& job : jobs_) {
    if (!job.is_authentic || job.bytes == kAeadTagBytes) continue;  // dropped above, or a keepalive
    ++packets_opened_;
    const MutableBytes plaintext(job.data, job.bytes - kAeadTagBytes);
    const auto ip = ParseIp(plaintext);
    if (!ip) {
      ++malformed;
      continue;
    }
    const auto owner = ip->is_v4() ? table.allowed_ips->LookupV4(ip->source) : table.allowed_ips->LookupV6(ip->source);
    if (!owner || table.Find(*owner) != session.peer) {
      ++not_allowed;
      continue;
    }
    const MutableBytes packet = plaintext.first(ip->total_bytes);
    MergeEcn(packet, ecn);
    packets_.push_back(packet);
  }
  if (malformed > 0) Drop(DropReason::kMalformedInner, malformed);
  if (not_allowed > 0) Drop(DropReason::kSourceNotAllowed, not_allowed);
}

void Inbound::Drop(DropReason reason, std::size_t count) { exchange_.drops.Add(reason, count); }

void Inbound::Clear() {
  packets_.clear();
  to_flush_.clear();
  wake_control_ = false;
  peers_.Release();
}

}  // namespace adit
