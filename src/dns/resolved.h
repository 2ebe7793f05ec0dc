// systemd-resolved over D-Bus (door): org.freedesktop.resolve1, the calls of its VPN guide. It forgets a link's servers
// when the link goes, and everything when it restarts; the latter is heard on the bus and put right at once. So is what
// others say about the link (`resolvectl revert`, a network manager), a bounded number of times (trample.h); a default
// route taken away alone is not noticed, as nothing tells of it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "dns/backend.h"
#include "dns/trample.h"

struct sd_bus;
struct sd_bus_slot;
struct sd_bus_message;

namespace adit {

inline constexpr Duration kBusRetry = 1s;            // between attempts to reach the bus, or to repeat a refused call
inline constexpr unsigned kMaxResolvedRetries = 10;  // in a row; a new owner of the name starts afresh
inline constexpr std::uint64_t kBusCallTimeoutMicroseconds = 5'000'000;

// True if somebody answers for systemd-resolved on the system bus (DBUS_SYSTEM_BUS_ADDRESS, if set). It is not started.
bool ResolvedAnswers();

// What is said about a link: which names are asked there, and whether names that fit nowhere are.
struct ResolvedLink {
  struct Domain {
    std::string name;
    bool is_routing_only = false;  // asked there, but not appended to short names
    friend bool operator==(const Domain&, const Domain&) = default;
  };
  std::vector<Domain> domains;
  bool is_default = false;
};
// Pure. A full tunnel gets all names ("~."). Else the search domains, and all others only if there are none: servers
// without domains are asked beside those of the other links, as nobody said which names are theirs.
ResolvedLink ToResolvedLink(const DnsSettings& settings);

class ResolvedDns : public DnsBackend {
 public:
  ResolvedDns(DnsSettings settings, std::uint32_t interface_index);
  ~ResolvedDns() override;
  ResolvedDns(const ResolvedDns&) = delete;
  ResolvedDns& operator=(const ResolvedDns&) = delete;

  DnsKind kind() const override { return DnsKind::kResolved; }
  void Apply(Instant now) override;
  Status Remove() override;
  int fd() const override;
  void Process(Instant now) override;
  std::optional<Instant> next_at() const override;

 private:
  static int OnReply(sd_bus_message* reply, void* self, void* error);
  static int OnOwner(sd_bus_message* signal, void* self, void* error);
  static int OnChanged(sd_bus_message* signal, void* self, void* error);
  static int OnServers(sd_bus_message* reply, void* self, void* error);
  static int OnDomains(sd_bus_message* reply, void* self, void* error);
  bool Connect(Instant now);
  void Disconnect();
  void CallAll(Instant now);
  bool Send(sd_bus_message* call);
  void OnCallDone(sd_bus_message* reply);
  void Fails(const std::string& why, Instant now);
  bool IsFree() const { return pending_ == 0 && looking_ == 0; }
  void Look();
  void OnSeen(bool is_ours);

  const DnsSettings settings_;
  const std::int32_t interface_index_;
  sd_bus* bus_ = nullptr;
  unsigned pending_ = 0;    // calls without an answer
  std::string call_error_;  // of the first refused call of this round
  bool has_applied_ = false;
  unsigned retries_ = 0;
  bool has_new_owner_ = false;
  std::optional<Instant> retry_at_;
  TrampleGuard guard_;
  unsigned looking_ = 0;   // questions of a look without an answer
  bool sees_ours_ = true;  // in the answers so far
  Instant now_;            // of the call of Process or Apply that is running
};

}  // namespace adit
