#include "tunnel/inbound.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "base/check.h"
#include "tunnel/ip_packet.h"
#include "tunnel/messages.h"

namespace adit {
namespace {

// What one receive call can hold: 65,535 bytes of keepalives.
constexpr std::size_t kMaxMessagesPerRun = 65535 / kKeepaliveBytes + 1;

}  // namespace

Inbound::Inbound(Exchange& exchange, HandshakeQueue& handshakes)
    : exchange_(exchange), handshakes_(handshakes), peers_(exchange.peers) {
  jobs_.reserve(kMaxMessagesPerRun);
}

void Inbound::Add(MutableBytes data, std::size_t segment_bytes, const Endpoint& from, std::uint8_t ecn, Instant now) {
  std::optional<std::uint32_t> run_index;
  bool is_known = false;
  DropReason unknown = DropReason::kUnknownReceiver;
  for (std::size_t at = 0; at < data.size(); at += segment_bytes) {
    const MutableBytes message = data.subspan(at, std::min(segment_bytes, data.size() - at));
    const auto type = ParseMessage(message);
    if (!type) {
      Drop(DropReason::kUnknownMessage);
    } else if (*type == MessageType::kData) {
      const auto header = LoadAs<DataHeader>(message.data());
      if (run_index != header.receiver_index) {
        run_index = header.receiver_index;
        is_known = BeginRun(*run_index, from, ecn, now, unknown);
      }
      if (!is_known) {
        Drop(unknown);
        continue;
      }
      OpenJob& job = jobs_.emplace_back();
      job.data = message.data() + sizeof(DataHeader);
      job.bytes = message.size() - sizeof(DataHeader);
      job.counter = header.counter;
      runs_.back().end = jobs_.size();
    } else {
      const auto pushed = handshakes_.Push(message, from);
      wake_control_ |= pushed == HandshakeQueue::PushResult::kQueuedFirst;
      if (pushed == HandshakeQueue::PushResult::kDropped) Drop(DropReason::kHandshakeQueueFull);
    }
  }
}

bool Inbound::BeginRun(std::uint32_t receiver_index, const Endpoint& from, std::uint8_t ecn, Instant now,
                       DropReason& reason) {
  Session session = exchange_.sessions.Find(receiver_index);
  if (!session.keypair) {
    reason = DropReason::kUnknownReceiver;
    return false;
  }
  if (session.keypair->IsExpired(now, exchange_.limits)) {
    reason = DropReason::kKeyExpired;
    return false;
  }
  runs_.push_back(Run{std::move(session), from, now, ecn, jobs_.size()});
  return true;
}

void Inbound::Open(AeadEngine& engine) {
  for (; opened_runs_ < runs_.size(); ++opened_runs_) {
    const std::size_t begin = opened_runs_ == 0 ? 0 : runs_[opened_runs_ - 1].end;
    const Run& run = runs_[opened_runs_];
    engine.Open(run.session.keypair->receive_key, std::span(jobs_).subspan(begin, run.end - begin));
  }
}

void Inbound::Accept() {
  CHECK(opened_runs_ == runs_.size());
  for (; accepted_runs_ < runs_.size(); ++accepted_runs_) {
    const std::size_t begin = accepted_runs_ == 0 ? 0 : runs_[accepted_runs_ - 1].end;
    const Run& run = runs_[accepted_runs_];
    AcceptRun(run, std::span(jobs_).subspan(begin, run.end - begin));
  }
}

void Inbound::AcceptRun(const Run& run, std::span<OpenJob> jobs) {
  const Session& session = run.session;
  Keypair& keypair = *session.keypair;
  std::size_t bad_tags = 0, replayed = 0, expired = 0;
  std::uint64_t bytes = 0;
  ReceivedFacts facts;
  facts.from = run.from;
  {
    const std::scoped_lock lock(keypair.replay_mutex);
    for (OpenJob& job : jobs) {
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

  const ReceiveVerdict verdict =
      OnReceived(session.peer, session.keypair, facts, run.at, exchange_.inbox, wake_control_);
  if (verdict.is_removed) return Drop(DropReason::kUnknownReceiver, jobs.size());
  if (verdict.flush_staged) to_flush_.push_back(session.peer);
  session.peer->rx_bytes.fetch_add(bytes, std::memory_order_relaxed);

  const PeerTable& table = Snapshot();
  std::size_t malformed = 0, not_allowed = 0;
  for (const OpenJob& job : jobs) {
    if (!job.is_authentic || job.bytes == kAeadTagBytes) continue;  // dropped above, or a keepalive
    ++packet_count_;
    const MutableBytes plaintext(job.data, job.bytes - kAeadTagBytes);
    const auto ip = ParseIp(plaintext);
    if (!ip) {
      ++malformed;
      continue;
    }
    if (!IsAllowed(table, ip->source, ip->is_v4(), *session.peer)) {
      ++not_allowed;
      continue;
    }
    const MutableBytes packet = plaintext.first(ip->total_bytes);
    MergeEcn(packet, run.ecn);
    packets_.push_back(packet);
  }
  if (malformed > 0) Drop(DropReason::kMalformedInner, malformed);
  if (not_allowed > 0) Drop(DropReason::kSourceNotAllowed, not_allowed);
}

bool Inbound::IsAllowed(const PeerTable& table, const std::uint8_t* source, bool is_v4, const Peer& peer) {
  const std::size_t bytes = is_v4 ? 4 : 16;
  if (last_owner_.peer == nullptr || last_owner_.is_v4 != is_v4 ||
      std::memcmp(last_owner_.address.data(), source, bytes) != 0) {
    const auto owner = is_v4 ? table.allowed_ips->LookupV4(source) : table.allowed_ips->LookupV6(source);
    if (!owner) return false;
    last_owner_.is_v4 = is_v4;
    std::memcpy(last_owner_.address.data(), source, bytes);
    last_owner_.peer = table.Find(*owner).get();
  }
  return last_owner_.peer == &peer;
}

void Inbound::Drop(DropReason reason, std::size_t count) { exchange_.drops.Add(reason, count); }

// One for the whole batch: what is known of an owner holds for the snapshot it was looked up in.
const PeerTable& Inbound::Snapshot() {
  if (!has_snapshot_) peers_.Refresh();
  has_snapshot_ = true;
  return peers_.Current();
}

void Inbound::Clear() {
  jobs_.clear();
  runs_.clear();
  opened_runs_ = accepted_runs_ = 0;
  last_owner_ = {};
  has_snapshot_ = false;
  packet_count_ = 0;
  packets_.clear();
  to_flush_.clear();
  wake_control_ = false;
  peers_.Release();
}

}  // namespace adit
