#include "dns/resolver.h"

#include <ares.h>
#include <netdb.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

#ifdef __SANITIZE_ADDRESS__
// c-ares 1.18 loses copies of a name that stands in /etc/hosts (30 bytes for "localhost"); the answer itself is freed.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:libcares.so"; }
#endif

namespace adit {

struct Resolver::Lookup {
  std::function<void(const LookupResult&)> done;
  LookupResult result;
  unsigned pending = 0;
  bool no_such_name = true;  // so far, of all families
  std::optional<Instant> finish_at;
};

// One family of a lookup. It outlives the lookup if that does not wait for it.
struct Resolver::Question {
  Resolver* resolver;
  std::shared_ptr<Lookup> lookup;
};

Result<std::unique_ptr<Resolver>> Resolver::Open(const ResolverSettings& settings) {
  static const int kLibrary = ares_library_init(ARES_LIB_INIT_ALL);
  if (kLibrary != ARES_SUCCESS) return Fail("cannot use c-ares: {}", ares_strerror(kLibrary));
  std::unique_ptr<Resolver> resolver(new Resolver);
  resolver->fwmark_ = settings.fwmark;
  resolver->epoll_ = Fd(epoll_create1(EPOLL_CLOEXEC));
  if (!resolver->epoll_) return FailErrno(errno, "cannot make an epoll descriptor: {}", std::strerror(errno));

  std::vector<char*> domains;
  for (const std::string& domain : settings.search) domains.push_back(const_cast<char*>(domain.c_str()));
  char lookups[] = "fb";  // the file, then the servers
  ares_options options{};
  options.timeout = kResolverTimeoutMilliseconds;
  options.tries = kResolverTries;
  options.domains = domains.data();
  options.ndomains = static_cast<int>(domains.size());
  options.lookups = lookups;
  options.sock_state_cb_data = resolver.get();
  options.sock_state_cb = [](void* self, ares_socket_t fd, int readable, int writable) {
    const int epoll = static_cast<Resolver*>(self)->epoll_.get();
    epoll_event event{};
    event.events = (readable != 0 ? unsigned{EPOLLIN} : 0u) | (writable != 0 ? unsigned{EPOLLOUT} : 0u);
    event.data.fd = fd;
    if (event.events == 0) {
      epoll_ctl(epoll, EPOLL_CTL_DEL, fd, nullptr);
    } else if (epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) != 0) {
      epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
  };
  const int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_DOMAINS | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
  if (const int error = ares_init_options(&resolver->channel_, &options, mask); error != ARES_SUCCESS) {
    return Fail("cannot use c-ares: {}", ares_strerror(error));
  }
  // c-ares 1.18 knows no scopes: servers with one are asked only if there are no others, and then by binding to the
  // link.
  std::vector<NameServer> usable = settings.servers;
  if (std::ranges::any_of(usable, [](const NameServer& server) { return server.scope.empty(); })) {
    std::erase_if(usable, [](const NameServer& server) { return !server.scope.empty(); });
  } else if (!usable.empty()) {
    resolver->device_ = usable.front().scope;
    std::erase_if(usable, [&](const NameServer& server) { return server.scope != resolver->device_; });
  }
  std::string servers;
  for (const NameServer& server : usable) {
    const std::string text = server.ip.is_v6() ? "[" + server.ip.ToString() + "]" : server.ip.ToString();
    servers += fmt::format("{}{}:{}", servers.empty() ? "" : ",", text, settings.port);
  }
  if (const int error = ares_set_servers_ports_csv(resolver->channel_, servers.c_str()); error != ARES_SUCCESS) {
    return Fail("c-ares does not take the name servers {}: {}", servers, ares_strerror(error));
  }
  ares_set_socket_configure_callback(
      resolver->channel_,
      [](ares_socket_t fd, int, void* self) {
        const auto* const resolver_of = static_cast<const Resolver*>(self);
        const std::uint32_t mark = resolver_of->fwmark_;
        const std::string& device = resolver_of->device_;
        // Without the mark the question could go into the tunnel: fail instead.
        if (mark != 0 && setsockopt(fd, SOL_SOCKET, SO_MARK, &mark, sizeof mark) != 0) return -1;
        if (device.empty()) return 0;
        return setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device.c_str(), static_cast<socklen_t>(device.size()));
      },
      resolver.get());
  return resolver;
}

Resolver::~Resolver() {
  is_closing_ = true;
  if (channel_ != nullptr) ares_destroy(channel_);
}

void Resolver::Start(const std::string& name, std::function<void(const LookupResult&)> done, Instant now) {
  now_ = now;
  auto lookup = std::make_shared<Lookup>();
  lookup->done = std::move(done);
  lookup->pending = 2;
  lookups_.push_back(lookup);
  for (const int family : {AF_INET6, AF_INET}) {
    ares_addrinfo_hints hints{};
    hints.ai_family = family;
    hints.ai_socktype = SOCK_DGRAM;
    hints.ai_flags = ARES_AI_NOSORT;
    ares_getaddrinfo(
        channel_, name.c_str(), nullptr, &hints,
        [](void* question_pointer, int status, int, ares_addrinfo* answer) {
          const std::unique_ptr<Question> question(static_cast<Question*>(question_pointer));
          if (!question->resolver->is_closing_) question->resolver->OnAnswer(*question, status, answer);
          if (answer != nullptr) ares_freeaddrinfo(answer);
        },
        new Question{this, lookup});
  }
  FinishDue(now);
}

void Resolver::OnAnswer(Question& question, int status, void* answer) {
  Lookup& lookup = *question.lookup;
  --lookup.pending;
  LookupResult& result = lookup.result;
  if (status == ARES_SUCCESS) {
    for (const auto* node = static_cast<ares_addrinfo*>(answer)->nodes; node != nullptr; node = node->ai_next) {
      const auto address = SocketAddress::FromSockaddr(node->ai_addr);
      if (!address) continue;
      auto& list = address->ip.is_v6() ? result.v6 : result.v4;
      if (list.size() >= kMaxAddressesPerName || std::ranges::find(list, address->ip) != list.end()) continue;
      const Duration ttl = std::chrono::seconds(std::max(0, node->ai_ttl));
      result.ttl = result.v6.empty() && result.v4.empty() ? ttl : std::min(result.ttl, ttl);
      list.push_back(address->ip);
    }
  }
  const bool has_addresses = !result.v6.empty() || !result.v4.empty();
  if (!has_addresses) {
    if (status != ARES_ENOTFOUND && status != ARES_ENODATA && status != ARES_SUCCESS) lookup.no_such_name = false;
    // "No such name" and "no address of this family" may come for one, a reason that passes for the other: that counts.
    if (result.error.empty() || !lookup.no_such_name) {
      result.error = ares_strerror(status == ARES_SUCCESS ? ARES_ENODATA : status);
    }
  }
  if (lookup.pending == 0) {
    lookup.finish_at = now_;
  } else if (has_addresses) {
    lookup.finish_at = now_ + kOtherFamilyWait;
  }
}

void Resolver::FinishDue(Instant now) {
  for (std::size_t i = 0; i < lookups_.size();) {
    if (!lookups_[i]->finish_at || *lookups_[i]->finish_at > now) {
      ++i;
      continue;
    }
    const std::shared_ptr<Lookup> lookup = lookups_[i];
    lookups_.erase(lookups_.begin() + static_cast<std::ptrdiff_t>(i));
    LookupResult& result = lookup->result;
    if (!result.v6.empty() || !result.v4.empty()) {
      result.error.clear();
    } else {
      result.is_final = lookup->no_such_name;
    }
    lookup->done(result);
    i = 0;  // it may have started others
  }
}

void Resolver::Process(Instant now) {
  now_ = now;
  epoll_event events[16];
  const int count = epoll_wait(epoll_.get(), events, 16, 0);
  for (int i = 0; i < count; ++i) {
    const bool readable = (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0;
    const bool writable = (events[i].events & EPOLLOUT) != 0;
    ares_process_fd(channel_, readable ? events[i].data.fd : ARES_SOCKET_BAD,
                    writable ? events[i].data.fd : ARES_SOCKET_BAD);
  }
  if (count <= 0) ares_process_fd(channel_, ARES_SOCKET_BAD, ARES_SOCKET_BAD);  // what timed out
  FinishDue(now);
}

std::optional<Instant> Resolver::next_at() const {
  if (lookups_.empty()) return std::nullopt;
  std::optional<Instant> next;
  timeval wait{};
  // c-ares keeps deadlines on a clock of its own: relative to the last call.
  if (ares_timeout(channel_, nullptr, &wait) != nullptr) {
    next = now_ + std::chrono::seconds(wait.tv_sec) + std::chrono::microseconds(wait.tv_usec);
  }
  for (const auto& lookup : lookups_) {
    if (lookup->finish_at && (!next || *lookup->finish_at < *next)) next = lookup->finish_at;
  }
  return next;
}

bool HasRoute(const IpAddress& to, std::uint32_t fwmark) {
  const Fd fd(socket(to.is_v6() ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!fd) return false;
  if (fwmark != 0 && setsockopt(fd.get(), SOL_SOCKET, SO_MARK, &fwmark, sizeof fwmark) != 0) return false;
  sockaddr_storage address{};
  const socklen_t size = SocketAddress{to, 9}.ToSockaddr(address);
  return connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), size) == 0;
}

}  // namespace adit
