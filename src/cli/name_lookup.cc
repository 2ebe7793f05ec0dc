#include "cli/name_lookup.h"

#include <net/if.h>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fstream>
#include <iterator>
#include <optional>

#include "dns/endpoint_watch.h"
#include "dns/resolv_file.h"
#include "engine/clock.h"
#include "engine/fd_watch.h"

namespace adit {
namespace {

// systemd-resolved's list of the servers of all links.
constexpr char kResolvedUplinks[] = "/run/systemd/resolve/resolv.conf";

std::string ReadWhole(const char* path) {
  std::ifstream file(path);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

// A server with a link is asked by that link. One that no link leads to would be asked through the tunnel.
void BindServers(std::vector<NameServer>& servers, UplinkChoice& uplinks) {
  std::erase_if(servers, [&](NameServer& server) {
    const auto link = uplinks.LinkTo(server.ip);
    if (!link || !server.scope.empty()) return false;
    char name[IF_NAMESIZE] = {};
    if (*link == 0 || if_indextoname(*link, name) == nullptr) return true;
    server.scope = name;
    return false;
  });
}

bool HasWay(const IpAddress& to, const EndpointNames& names) {
  const auto link = names.uplinks ? names.uplinks->LinkTo(to) : std::nullopt;
  return link ? *link != 0 : HasRoute(to, names.fwmark);
}

}  // namespace

EndpointNames NamesBeforeTunnel(std::uint32_t fwmark, std::vector<IpAddress> tunnel_servers) {
  return {fwmark, nullptr, std::move(tunnel_servers), ParseResolvConf(ReadOwnResolvConf(SystemResolvPaths()))};
}

ResolverSettings EndpointNames::Settings() const {
  ResolvConf own = ParseResolvConf(ReadOwnResolvConf(SystemResolvPaths()));
  // resolvconf shows the tunnel's servers only, and does not tell what it shows otherwise.
  if (own.servers.empty() || NamesOnly(own, tunnel_servers)) own = before;
  ResolverSettings settings;
  settings.servers = ServersForEndpoints(own, ParseResolvConf(ReadWhole(kResolvedUplinks)), tunnel_servers);
  if (uplinks) BindServers(settings.servers, *uplinks);
  settings.search = before.search;
  settings.fwmark = fwmark;
  return settings;
}

class NameLookup::Impl : public std::enable_shared_from_this<NameLookup::Impl> {
 public:
  Impl(boost::asio::io_context& io, std::unique_ptr<Resolver> resolver, std::function<void(const LookupResult&)> done)
      : io_(io), resolver_(std::move(resolver)), done_(std::move(done)), timer_(io) {}

  Status Start(const std::string& name) {
    auto watch = FdWatch::Open(io_, resolver_->fd(), [this] { Drive(); });
    if (!watch) return std::unexpected(watch.error());
    watch_ = std::move(*watch);
    resolver_->Start(
        name,
        [this](const LookupResult& found) {
          // Not from within the resolver, which `done` may destroy.
          boost::asio::post(io_, [self = shared_from_this(), found] {
            self->Stop();
            if (auto done = std::exchange(self->done_, nullptr)) done(found);
          });
        },
        BootNow());
    SetTimer();
    return {};
  }
  void Forget() {
    done_ = nullptr;
    Stop();
  }

 private:
  void Stop() {
    timer_.cancel();
    watch_.reset();
    resolver_.reset();
  }
  void Drive() {
    if (!resolver_) return;
    resolver_->Process(BootNow());
    SetTimer();
  }
  void SetTimer() {
    const auto at = resolver_->next_at();
    if (!at) return;
    timer_.expires_after(std::max(Duration(1ms), *at - BootNow()));
    timer_.async_wait([weak = weak_from_this()](const boost::system::error_code& error) {
      if (const auto self = weak.lock(); self && !error) self->Drive();
    });
  }

  boost::asio::io_context& io_;
  std::unique_ptr<Resolver> resolver_;
  std::function<void(const LookupResult&)> done_;
  std::unique_ptr<FdWatch> watch_;
  boost::asio::steady_timer timer_;
};

Result<std::unique_ptr<NameLookup>> NameLookup::Start(boost::asio::io_context& io, const ResolverSettings& settings,
                                                      const std::string& name,
                                                      std::function<void(const LookupResult&)> done) {
  auto resolver = Resolver::Open(settings);
  if (!resolver) return std::unexpected(resolver.error());
  auto impl = std::make_shared<Impl>(io, std::move(*resolver), std::move(done));
  if (Status started = impl->Start(name); !started) return std::unexpected(started.error());
  return std::unique_ptr<NameLookup>(new NameLookup(std::move(impl)));
}

NameLookup::NameLookup(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
NameLookup::~NameLookup() { impl_->Forget(); }

std::vector<IpAddress> OrderByRoute(const LookupResult& found, const EndpointNames& names) {
  return OrderAddresses(found.v6, found.v4, !found.v6.empty() && HasWay(found.v6.front(), names),
                        !found.v4.empty() && HasWay(found.v4.front(), names));
}

}  // namespace adit
