// Looks up addresses of names (door): c-ares over sockets that carry our mark, so that the questions leave by the
// uplink while a full tunnel is up. Both families are asked at once; /etc/hosts is read first.
//
// Control thread only. Whoever drives one calls Process when fd() is readable and at next_at().
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/fd.h"
#include "base/result.h"
#include "base/time.h"
#include "dns/resolv_conf.h"

struct ares_channeldata;

namespace adit {

inline constexpr int kResolverTimeoutMilliseconds = 1500;  // of the first question to a server
inline constexpr int kResolverTries = 2;                   // rounds over all servers
// When one family has answered, the other gets this long (RFC 8305, 3 says 50 ms; endpoints are looked up rarely).
inline constexpr Duration kOtherFamilyWait = 300ms;
inline constexpr std::size_t kMaxAddressesPerName = 32;  // the rest of an answer is not used

struct ResolverSettings {
  std::vector<NameServer> servers;  // in the order to ask
  std::vector<std::string> search;
  std::uint16_t port = 53;
  std::uint32_t fwmark = 0;  // 0: none
};

struct LookupResult {
  std::vector<IpAddress> v6, v4;  // in the order of the answer
  Duration ttl{0};                // the shortest; 0 for /etc/hosts
  bool is_final = false;          // no addresses, and asking again will not help: there is no such name
  std::string error;              // why there are none
};

class Resolver {
 public:
  static Result<std::unique_ptr<Resolver>> Open(const ResolverSettings& settings);
  ~Resolver();  // lookups under way are forgotten, their callbacks are not called
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;

  // `done` is called once, perhaps before this returns (/etc/hosts), and may start others.
  void Start(const std::string& name, std::function<void(const LookupResult&)> done, Instant now);

  int fd() const { return epoll_.get(); }
  void Process(Instant now);
  std::optional<Instant> next_at() const;

 private:
  struct Lookup;
  struct Question;
  Resolver() = default;
  void OnAnswer(Question& question, int status, void* answer);
  void FinishDue(Instant now);

  Fd epoll_;
  std::uint32_t fwmark_ = 0;
  std::string device_;  // bound to it; empty: not bound
  ares_channeldata* channel_ = nullptr;
  bool is_closing_ = false;
  Instant now_;
  std::vector<std::shared_ptr<Lookup>> lookups_;
};

// Whether a packet with this mark would find a way to that address. Asks the kernel; sends nothing.
bool HasRoute(const IpAddress& to, std::uint32_t fwmark);

}  // namespace adit
