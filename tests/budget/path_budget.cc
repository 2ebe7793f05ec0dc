// Runs one stage of the data path over and over, for instructions.sh to count its instructions under callgrind.
//
//   path_budget                    prints the stages, one a line, with the packets of one repeat
//   path_budget STAGE REPEATS      what counts happens inside adit_measured(), after a first run that warms everything
//   path_budget --wasteful STAGE REPEATS   the same, and one plain pass too many over each packet: must exceed any
//   budget
//
// Most stages are without a cipher: what stands in for it moves no byte, so the figures are what Adit adds to the
// cipher and the kernel. seal and open are the cipher, by the backend for CPUs without AVX-512, which valgrind knows
// nothing of: the library's instructions and those around it.
#include <charconv>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "crypto/aead.h"
#include "crypto/primitives.h"
#include "tun/coalesce.h"
#include "tun/split.h"
#include "tun/test_packet.h"
#include "tunnel/allowed_ips.h"
#include "tunnel/test_pair.h"

namespace {

using namespace adit;

constexpr std::size_t kSegments = 45;  // what fits one UDP_SEGMENT send at an MTU of 1420
constexpr std::size_t kPacketBytes = 1420;
constexpr std::size_t kSmallPackets = 64;

class NoCipher final : public AeadEngine {
 public:
  AeadBackend backend() const override { return AeadBackend::kSodium; }
  void Seal(const AeadKey&, std::span<const SealJob>) override {}
  void Open(const AeadKey&, std::span<OpenJob> jobs) override {
    for (OpenJob& job : jobs) job.is_authentic = true;
  }
  void ForgetKeys() override {}
};

// One repeat of a stage.
using Stage = std::function<void()>;

struct Row {
  std::string_view name;
  std::size_t packets;
  Stage (*make)();
};

bool is_wasteful = false;

void Waste(Bytes data) {
  if (!is_wasteful) return;
  volatile std::uint32_t sum = 0;
  for (const std::uint8_t byte : data) sum = sum + byte;
}

test::SuperPacket Super(bool is_v6, bool is_tcp) {
  test::PacketSpec spec;
  spec.is_v6 = is_v6;
  spec.is_tcp = is_tcp;
  if (is_tcp) spec.tcp_options = {1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 9};
  const std::size_t segment_bytes = kPacketBytes - (is_v6 ? 40 : 20) - (is_tcp ? 32 : 8);
  SeededRandom random(7);
  spec.payload = test::RandomPayload(random, kSegments * segment_bytes);
  return test::BuildSuper(spec, static_cast<std::uint16_t>(segment_bytes));
}

// The packets that Super() is cut into.
std::vector<test::Packet> Train(bool is_v6, bool is_tcp) {
  test::SuperPacket super = Super(is_v6, is_tcp);
  std::vector<test::Packet> packets;
  Splitter splitter(super.header, super.packet);
  while (const auto segment = splitter.Next()) {
    packets.emplace_back(segment->head.begin(), segment->head.end());
    packets.back().insert(packets.back().end(), segment->body.begin(), segment->body.end());
  }
  CHECK(packets.size() == kSegments);
  return packets;
}

template <bool is_v6, bool is_tcp>
Stage Split() {
  auto super = std::make_shared<test::SuperPacket>(Super(is_v6, is_tcp));
  return [super] {
    Splitter splitter(super->header, super->packet);
    while (const auto segment = splitter.Next()) Waste(segment->body);
  };
}

template <bool is_v6, bool is_tcp>
Stage Coalesce() {
  auto packets = std::make_shared<std::vector<test::Packet>>(Train(is_v6, is_tcp));
  auto first = std::make_shared<test::Packet>(packets->front());
  auto coalescer = std::make_shared<Coalescer>(CoalesceOptions{});
  return [=] {
    for (test::Packet& packet : *packets) {
      coalescer->Add(packet);
      Waste(packet);
    }
    CHECK(coalescer->Finish().size() == 1);
    coalescer->Clear();
    std::memcpy(packets->front().data(), first->data(), 72);  // the headers of the first were rewritten
  };
}

// Two ends with a session, and both halves of the data path without a cipher beside it. The packets of test_packet.h
// go from 10.0.0.1 or fd00::1, Alice's, to 10.0.0.2 or fd00::2, Bob's.
struct Ends {
  Ends() {
    pair.Connect();
    now = pair.clock.boot;
  }
  TestPair pair;
  NoCipher no_cipher;
  SeededRandom random{5};
  Outbound outbound{pair.alice.exchange, random, /*max_run_bytes=*/65473};
  Inbound inbound{pair.bob.exchange, pair.bob.queue};
  Instant now;
};

void FinishOutbound(Ends& ends, std::size_t runs) {
  ends.outbound.Flush(ends.now, ends.no_cipher);
  CHECK(ends.outbound.runs().size() == runs);
  for (const SealedRun& run : ends.outbound.runs()) ends.outbound.OnSent(run, kSegments, /*clear_source=*/false);
  ends.outbound.Clear();
}

// Steps 2 to 8 of the way out.
template <bool is_v6>
Stage Out() {
  auto super = std::make_shared<test::SuperPacket>(Super(is_v6, /*is_tcp=*/true));
  auto ends = std::make_shared<Ends>();
  return [super, ends] {
    Splitter splitter(super->header, super->packet);
    while (const auto segment = splitter.Next()) {
      CHECK(ends->outbound.Add(segment->head, segment->body, ends->now));
      Waste(segment->body);
    }
    FinishOutbound(*ends, 1);
  };
}

Stage OutSmall() {
  auto packets = std::make_shared<std::vector<Packet>>(kSmallPackets, TestPair::ToBob(64));
  for (Packet& packet : *packets) packet.reserve(packet.size() + StagedPacket::kScratchBytes);
  auto ends = std::make_shared<Ends>();
  return [packets, ends] {
    for (Packet& packet : *packets) {
      Splitter splitter(VirtioHeader{}, packet);
      const auto segment = splitter.Next();
      CHECK(segment && ends->outbound.Add(segment->head, segment->body, ends->now));
      Waste(packet);
    }
    FinishOutbound(*ends, 1);
  };
}

// Steps 2 to 11 of the way in, for packets that have been sealed to equal lengths and lie one behind the other.
Stage In(const std::vector<test::Packet>& packets, std::size_t writes) {
  struct Run {
    std::vector<std::uint8_t> data;
    std::size_t message_bytes = 0;
    std::vector<std::vector<std::uint8_t>> heads;  // which the coalescer rewrites
    std::uint64_t next_counter = 1000;
  };
  auto run = std::make_shared<Run>();
  const std::size_t padded = (packets.front().size() + 15) / 16 * 16;
  run->message_bytes = sizeof(DataHeader) + padded + kAeadTagBytes;
  auto ends = std::make_shared<Ends>();
  const std::uint32_t index = ends->pair.bob.peer()->keypairs.current->local_index;
  for (const test::Packet& packet : packets) {
    const std::size_t at = run->data.size();
    run->data.resize(at + run->message_bytes);
    Store(&run->data[at], DataHeader{static_cast<std::uint32_t>(MessageType::kData), index, 0});
    std::ranges::copy(packet, run->data.begin() + static_cast<std::ptrdiff_t>(at + sizeof(DataHeader)));
    run->heads.emplace_back(packet.begin(), packet.begin() + std::min<std::ptrdiff_t>(72, std::ssize(packet)));
  }
  auto coalescer = std::make_shared<Coalescer>(CoalesceOptions{});
  const Endpoint from{ends->pair.alice.address, {}};
  return [=] {
    for (std::size_t i = 0; i < run->heads.size(); ++i) {
      std::uint8_t* const message = &run->data[i * run->message_bytes];
      Store(message + 8, U64Le(run->next_counter++));
      std::memcpy(message + sizeof(DataHeader), run->heads[i].data(), run->heads[i].size());
    }
    ends->inbound.Process(run->data, run->message_bytes, from, 0, ends->now, ends->no_cipher);
    CHECK(ends->inbound.packets().size() == run->heads.size());
    for (const MutableBytes packet : ends->inbound.packets()) {
      coalescer->Add(packet);
      Waste(packet);
    }
    CHECK(coalescer->Finish().size() == writes);
    coalescer->Clear();
    ends->inbound.Clear();
  };
}

Stage InTcp4() { return In(Train(false, true), 1); }
Stage InTcp6() { return In(Train(true, true), 1); }
Stage InSmall() {
  test::PacketSpec spec;
  spec.is_tcp = false;
  spec.payload.assign(36, 1);
  std::vector<test::Packet> packets;
  for (std::size_t i = 0; i < kSmallPackets; ++i) {
    spec.flow = 1;
    packets.push_back(test::Build(spec));
    spec.id += 1;
  }
  return In(packets, 1);
}

// A super-packet's messages, all but the last bytes of their places in the datagrams.
struct Messages {
  Messages() : data(kSegments * kMessageBytes), original(data.size()) {
    SeededRandom random(11);
    random.Fill(key_bytes);
    random.Fill(original);
    key = AeadKey(key_bytes);
    InitializeCrypto();
    engine = AeadEngine::Create(AeadBackend::kOpenSsl);
  }
  static constexpr std::size_t kPadded = (kPacketBytes + 15) / 16 * 16;
  static constexpr std::size_t kMessageBytes = kPadded + kAeadTagBytes;
  std::vector<std::uint8_t> data, original;
  ByteArray<32> key_bytes{};
  AeadKey key;
  std::unique_ptr<AeadEngine> engine;
};

Stage SealAll() {
  auto messages = std::make_shared<Messages>();
  return [messages] {
    std::vector<SealJob> jobs(kSegments);
    for (std::size_t i = 0; i < kSegments; ++i) {
      jobs[i].body = messages->original.data() + i * Messages::kMessageBytes;
      jobs[i].body_bytes = Messages::kPadded;
      jobs[i].counter = i;
      jobs[i].out = messages->data.data() + i * Messages::kMessageBytes;
      Waste(Bytes(jobs[i].body, jobs[i].body_bytes));
    }
    messages->engine->Seal(messages->key, jobs);
  };
}

Stage OpenAll() {
  auto messages = std::make_shared<Messages>();
  const auto in_place = [messages](std::size_t i) { return messages->original.data() + i * Messages::kMessageBytes; };
  std::vector<SealJob> seals(kSegments);
  for (std::size_t i = 0; i < kSegments; ++i) {
    seals[i] = {{}, in_place(i), Messages::kPadded, 0, i, in_place(i)};
  }
  messages->engine->Seal(messages->key, seals);
  return [messages] {
    messages->data = messages->original;  // sealed: the same again each time
    std::vector<OpenJob> jobs(kSegments);
    for (std::size_t i = 0; i < kSegments; ++i) {
      jobs[i] = {messages->data.data() + i * Messages::kMessageBytes, Messages::kMessageBytes, i};
      Waste(Bytes(jobs[i].data, jobs[i].bytes));
    }
    messages->engine->Open(messages->key, jobs);
    for (const OpenJob& job : jobs) CHECK(job.is_authentic);
  };
}

constexpr std::size_t kLookups = 1000;

// 100,000 prefixes, addresses from all over.
Stage Lookup() {
  AllowedIps configured;
  SeededRandom random(3);
  for (std::uint32_t i = 0; i < 100'000; ++i) {
    const std::uint32_t address = 0x0a000000 + (i << 7);
    configured.Insert(Prefix(IpAddress::V4(ByteArray<4>{
                                 static_cast<std::uint8_t>(address >> 24), static_cast<std::uint8_t>(address >> 16),
                                 static_cast<std::uint8_t>(address >> 8), static_cast<std::uint8_t>(address)}),
                             26),
                      i % 1000);
  }
  auto table = configured.Build();
  auto addresses = std::make_shared<std::vector<ByteArray<4>>>(kLookups);
  for (auto& address : *addresses) {
    random.Fill(address);
    address[0] = 10;
  }
  return [table, addresses] {
    PeerId sum = 0;
    for (const auto& address : *addresses) {
      sum += table->LookupV4(address.data()).value_or(0);
      if (is_wasteful) Waste(ByteArray<64>{});
    }
    [[maybe_unused]] volatile PeerId sink = sum;
  };
}

constexpr Row kRows[] = {
    {"split_tcp4", kSegments, Split<false, true>},
    {"split_tcp6", kSegments, Split<true, true>},
    {"split_udp4", kSegments, Split<false, false>},
    {"coalesce_tcp4", kSegments, Coalesce<false, true>},
    {"coalesce_tcp6", kSegments, Coalesce<true, true>},
    {"coalesce_udp4", kSegments, Coalesce<false, false>},
    {"out_tcp4", kSegments, Out<false>},
    {"out_tcp6", kSegments, Out<true>},
    {"out_small", kSmallPackets, OutSmall},
    {"in_tcp4", kSegments, InTcp4},
    {"in_tcp6", kSegments, InTcp6},
    {"in_small", kSmallPackets, InSmall},
    {"seal", kSegments, SealAll},
    {"open", kSegments, OpenAll},
    {"lookup_100000", kLookups, Lookup},
};

int Usage() {
  std::fputs("usage: path_budget [[--wasteful] STAGE REPEATS]\n", stderr);
  return 2;
}

}  // namespace

extern "C" [[gnu::noinline]] void adit_measured(const Stage* stage, unsigned repeats) {
  for (unsigned i = 0; i < repeats; ++i) (*stage)();
}

int main(int count, char** arguments) {
  std::vector<std::string_view> words(arguments + 1, arguments + count);
  if (words.empty()) {
    for (const Row& row : kRows) std::printf("%s %zu\n", row.name.data(), row.packets);
    return 0;
  }
  if (words.front() == "--wasteful") {
    is_wasteful = true;
    words.erase(words.begin());
  }
  if (words.size() != 2) return Usage();
  unsigned repeats = 0;
  const auto parsed = std::from_chars(words[1].data(), words[1].data() + words[1].size(), repeats);
  if (parsed.ec != std::errc() || repeats == 0) return Usage();
  for (const Row& row : kRows) {
    if (row.name != words[0]) continue;
    const Stage stage = row.make();
    stage();
    adit_measured(&stage, repeats);
    return 0;
  }
  return Usage();
}
