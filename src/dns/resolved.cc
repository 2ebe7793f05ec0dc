#include "dns/resolved.h"

#include <sys/socket.h>
#include <systemd/sd-bus.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace adit {
namespace {

constexpr char kService[] = "org.freedesktop.resolve1";
constexpr char kPath[] = "/org/freedesktop/resolve1";
constexpr char kInterface[] = "org.freedesktop.resolve1.Manager";
constexpr Duration kPoll = 50ms;  // while calls are on their way: sd-bus keeps deadlines of its own

struct MessageHolder {
  sd_bus_message* message = nullptr;
  ~MessageHolder() { sd_bus_message_unref(message); }
};

bool NewCall(sd_bus* bus, MessageHolder& call, const char* method) {
  return sd_bus_message_new_method_call(bus, &call.message, kService, kPath, kInterface, method) >= 0 &&
         sd_bus_message_set_auto_start(call.message, 0) >= 0;
}

// The last reference must not write what is queued: that could block on a bus that does not read.
void Drop(sd_bus* bus) {
  if (bus == nullptr) return;
  sd_bus_close(bus);
  sd_bus_unref(bus);
}

// Each of one in the other: what was said twice is kept once.
template <class T>
bool HasSame(const std::vector<T>& a, const std::vector<T>& b) {
  const auto holds = [](const std::vector<T>& all, const std::vector<T>& some) {
    return std::ranges::all_of(some, [&](const T& one) { return std::ranges::find(all, one) != all.end(); });
  };
  return holds(a, b) && holds(b, a);
}

// A name as it may come back: without its last dot, and whatever the letters' case.
std::string Normal(std::string name) {
  if (name.size() > 1 && name.ends_with('.')) name.pop_back();
  for (char& letter : name) {
    if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter - 'A' + 'a');
  }
  return name;
}

}  // namespace

bool ResolvedAnswers() {
  sd_bus* bus = nullptr;
  bool answers = false;
  if (sd_bus_open_system(&bus) >= 0) {
    MessageHolder call, reply;
    int has_owner = 0;
    answers = sd_bus_message_new_method_call(bus, &call.message, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                             "org.freedesktop.DBus", "NameHasOwner") >= 0 &&
              sd_bus_message_append(call.message, "s", kService) >= 0 &&
              sd_bus_call(bus, call.message, 1'000'000, nullptr, &reply.message) >= 0 &&
              sd_bus_message_read(reply.message, "b", &has_owner) >= 0 && has_owner != 0;
  }
  Drop(bus);
  return answers;
}

ResolvedLink ToResolvedLink(const DnsSettings& settings) {
  ResolvedLink link;
  for (const std::string& domain : settings.search_domains) link.domains.push_back({domain, false});
  if (settings.is_full_tunnel) link.domains.push_back({".", true});
  link.is_default = settings.is_full_tunnel || settings.search_domains.empty();
  return link;
}

ResolvedDns::ResolvedDns(DnsSettings settings, std::uint32_t interface_index)
    : settings_(std::move(settings)), interface_index_(static_cast<std::int32_t>(interface_index)) {}

ResolvedDns::~ResolvedDns() { Disconnect(); }

void ResolvedDns::Disconnect() {
  Drop(std::exchange(bus_, nullptr));
  pending_ = 0;
  looking_ = 0;
}

int ResolvedDns::fd() const { return bus_ != nullptr ? sd_bus_get_fd(bus_) : -1; }

bool ResolvedDns::Connect(Instant now) {
  int error = sd_bus_open_system(&bus_);
  if (error >= 0) {
    error = sd_bus_match_signal_async(
        bus_, nullptr, "org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged",
        [](sd_bus_message* signal, void* self, sd_bus_error* failure) { return OnOwner(signal, self, failure); },
        nullptr, this);
  }
  if (error >= 0) {
    error = sd_bus_match_signal_async(
        bus_, nullptr, kService, kPath, "org.freedesktop.DBus.Properties", "PropertiesChanged",
        [](sd_bus_message* signal, void* self, sd_bus_error* failure) { return OnChanged(signal, self, failure); },
        nullptr, this);
  }
  if (error >= 0) return true;
  Disconnect();
  Fails(fmt::format("the system bus cannot be reached: {}", std::strerror(-error)), now);
  return false;
}

void ResolvedDns::Fails(const std::string& why, Instant now) {
  SetState(DnsHealth::kDegraded, why);
  if (retries_ < kMaxResolvedRetries) {
    ++retries_;
    retry_at_ = now + kBusRetry;
  }
}

void ResolvedDns::Apply(Instant now) {
  now_ = now;
  retry_at_.reset();
  SetState(DnsHealth::kPending);
  if (bus_ == nullptr && !Connect(now)) return;
  CallAll(now);
}

bool ResolvedDns::Send(sd_bus_message* call) {
  const int sent = sd_bus_call_async(
      bus_, nullptr, call,
      [](sd_bus_message* reply, void* self, sd_bus_error* failure) { return OnReply(reply, self, failure); }, this,
      kBusCallTimeoutMicroseconds);
  if (sent >= 0) ++pending_;
  return sent >= 0;
}

// Which names come first, then where to ask them: the other way round every name would go to the tunnel for a moment,
// or none.
void ResolvedDns::CallAll(Instant now) {
  const ResolvedLink link = ToResolvedLink(settings_);
  call_error_.clear();
  bool sent = true;
  {
    MessageHolder call;
    sent = sent && NewCall(bus_, call, "SetLinkDomains") &&
           sd_bus_message_append(call.message, "i", interface_index_) >= 0 &&
           sd_bus_message_open_container(call.message, 'a', "(sb)") >= 0;
    for (const ResolvedLink::Domain& domain : link.domains) {
      sent = sent && sd_bus_message_append(call.message, "(sb)", domain.name.c_str(), int{domain.is_routing_only}) >= 0;
    }
    sent = sent && sd_bus_message_close_container(call.message) >= 0 && Send(call.message);
  }
  {
    MessageHolder call;
    sent = sent && NewCall(bus_, call, "SetLinkDefaultRoute") &&
           sd_bus_message_append(call.message, "ib", interface_index_, int{link.is_default}) >= 0 && Send(call.message);
  }
  {
    MessageHolder call;
    sent = sent && NewCall(bus_, call, "SetLinkDNS") &&
           sd_bus_message_append(call.message, "i", interface_index_) >= 0 &&
           sd_bus_message_open_container(call.message, 'a', "(iay)") >= 0;
    for (const IpAddress& server : settings_.servers) {
      sent = sent && sd_bus_message_open_container(call.message, 'r', "iay") >= 0 &&
             sd_bus_message_append(call.message, "i", server.is_v6() ? AF_INET6 : AF_INET) >= 0 &&
             sd_bus_message_append_array(call.message, 'y', server.bytes().data(), server.bytes().size()) >= 0 &&
             sd_bus_message_close_container(call.message) >= 0;
    }
    sent = sent && sd_bus_message_close_container(call.message) >= 0 && Send(call.message);
  }
  if (sent) return;
  Disconnect();
  Fails("the system bus does not take our calls", now);
}

int ResolvedDns::OnReply(sd_bus_message* reply, void* self, void*) {
  static_cast<ResolvedDns*>(self)->OnCallDone(reply);
  return 1;
}

void ResolvedDns::OnCallDone(sd_bus_message* reply) {
  --pending_;
  if (sd_bus_message_is_method_error(reply, nullptr) > 0) {
    const sd_bus_error* const error = sd_bus_message_get_error(reply);
    // SetLinkDefaultRoute came with systemd 240; before that "~." alone decided.
    const bool is_old = sd_bus_message_is_method_error(reply, SD_BUS_ERROR_UNKNOWN_METHOD) > 0;
    if (!is_old && call_error_.empty()) {
      call_error_ =
          fmt::format("systemd-resolved refuses: {}", error->message != nullptr ? error->message : error->name);
    }
  }
  if (pending_ != 0) return;
  if (!call_error_.empty()) return Fails(call_error_, now_);
  if (has_applied_) ++state_.repairs;
  has_applied_ = true;
  retries_ = 0;
  SetState(DnsHealth::kGood);
}

int ResolvedDns::OnOwner(sd_bus_message* signal, void* self_pointer, void*) {
  auto* const self = static_cast<ResolvedDns*>(self_pointer);
  const char *name = nullptr, *before = nullptr, *after = nullptr;
  if (sd_bus_message_read(signal, "sss", &name, &before, &after) < 0 || std::strcmp(name, kService) != 0) return 0;
  if (*after != '\0') {
    self->has_new_owner_ = true;
  } else {
    self->SetState(DnsHealth::kDegraded, "systemd-resolved is not running");
  }
  return 0;
}

int ResolvedDns::OnChanged(sd_bus_message*, void* self_pointer, void*) {
  auto* const self = static_cast<ResolvedDns*>(self_pointer);
  if (self->has_applied_) self->guard_.OnEvent(self->now_);  // of ours, too: the look will say that it is
  return 0;
}

// What it says about the link by now.
void ResolvedDns::Look() {
  sees_ours_ = true;
  const auto ask = [&](const char* property, sd_bus_message_handler_t on_reply) {
    MessageHolder call;
    const bool sent = sd_bus_message_new_method_call(bus_, &call.message, kService, kPath,
                                                     "org.freedesktop.DBus.Properties", "Get") >= 0 &&
                      sd_bus_message_append(call.message, "ss", kInterface, property) >= 0 &&
                      sd_bus_call_async(bus_, nullptr, call.message, on_reply, this, kBusCallTimeoutMicroseconds) >= 0;
    if (sent) ++looking_;
  };
  ask("DNS", [](sd_bus_message* reply, void* self, sd_bus_error* failure) { return OnServers(reply, self, failure); });
  ask("Domains",
      [](sd_bus_message* reply, void* self, sd_bus_error* failure) { return OnDomains(reply, self, failure); });
  if (looking_ == 0) OnSeen(true);  // nobody to ask: the bus itself will tell
}

int ResolvedDns::OnServers(sd_bus_message* reply, void* self_pointer, void*) {
  auto* const self = static_cast<ResolvedDns*>(self_pointer);
  // One that does not answer, or not so, cannot be compared.
  if (sd_bus_message_is_method_error(reply, nullptr) > 0 || sd_bus_message_enter_container(reply, 'v', "a(iiay)") < 0 ||
      sd_bus_message_enter_container(reply, 'a', "(iiay)") < 0) {
    self->OnSeen(true);
    return 1;
  }
  std::vector<IpAddress> servers;
  while (sd_bus_message_enter_container(reply, 'r', "iiay") > 0) {
    int link = 0, family = 0;
    const void* bytes = nullptr;
    std::size_t size = 0;
    if (sd_bus_message_read(reply, "ii", &link, &family) >= 0 &&
        sd_bus_message_read_array(reply, 'y', &bytes, &size) >= 0 && link == self->interface_index_) {
      const Bytes address(static_cast<const std::uint8_t*>(bytes), size);
      if (size == 4) servers.push_back(IpAddress::V4(address));
      if (size == 16) servers.push_back(IpAddress::V6(address));
    }
    sd_bus_message_exit_container(reply);
  }
  self->OnSeen(HasSame(servers, self->settings_.servers));
  return 1;
}

int ResolvedDns::OnDomains(sd_bus_message* reply, void* self_pointer, void*) {
  auto* const self = static_cast<ResolvedDns*>(self_pointer);
  if (sd_bus_message_is_method_error(reply, nullptr) > 0 || sd_bus_message_enter_container(reply, 'v', "a(isb)") < 0 ||
      sd_bus_message_enter_container(reply, 'a', "(isb)") < 0) {
    self->OnSeen(true);
    return 1;
  }
  std::vector<ResolvedLink::Domain> domains;
  int link = 0, is_routing_only = 0;
  const char* name = nullptr;
  while (sd_bus_message_read(reply, "(isb)", &link, &name, &is_routing_only) > 0) {
    if (link == self->interface_index_) domains.push_back({Normal(name), is_routing_only != 0});
  }
  std::vector<ResolvedLink::Domain> wanted = ToResolvedLink(self->settings_).domains;
  for (ResolvedLink::Domain& domain : wanted) domain.name = Normal(domain.name);
  self->OnSeen(HasSame(domains, wanted));
  return 1;
}

void ResolvedDns::OnSeen(bool is_ours) {
  sees_ours_ = sees_ours_ && is_ours;
  if (looking_ > 0 && --looking_ > 0) return;
  switch (guard_.OnLook(sees_ours_, now_)) {
    case TrampleGuard::Verdict::kFine:
      if (pending_ == 0) SetState(DnsHealth::kGood);
      break;
    case TrampleGuard::Verdict::kLeaveIt:
      SetState(
          DnsHealth::kDegraded,
          fmt::format("another program keeps changing what systemd-resolved knows of {}; it was put right {} times "
                      "and is left alone now",
                      settings_.interface_name, guard_.repair_count()));
      break;
    case TrampleGuard::Verdict::kRepair:
      guard_.OnRepaired(true, now_);  // a refusal is tried again by itself
      Apply(now_);
      break;
  }
}

void ResolvedDns::Process(Instant now) {
  now_ = now;
  while (bus_ != nullptr) {
    const int result = sd_bus_process(bus_, nullptr);
    if (result > 0) continue;
    if (result < 0) {
      Disconnect();
      retries_ = 0;
      Fails(fmt::format("the system bus is gone: {}", std::strerror(-result)), now);
    }
    break;
  }
  if (std::exchange(has_new_owner_, false)) {
    retries_ = 0;
    Apply(now);
  } else if (retry_at_ && *retry_at_ <= now) {
    Apply(now);
  } else if (bus_ != nullptr && IsFree() && guard_.next_look() && *guard_.next_look() <= now) {
    Look();
  }
}

std::optional<Instant> ResolvedDns::next_at() const {
  std::optional<Instant> at = retry_at_;
  const auto no_later_than = [&](Instant other) { at = at ? std::min(*at, other) : other; };
  if (!IsFree()) {
    no_later_than(now_ + kPoll);
  } else if (bus_ != nullptr && guard_.next_look()) {
    no_later_than(*guard_.next_look());
  }
  return at;
}

Status ResolvedDns::Remove() {
  if (bus_ == nullptr || !has_applied_) return {};
  MessageHolder call, reply;
  sd_bus_error error{};
  Status result;
  if (!NewCall(bus_, call, "RevertLink") || sd_bus_message_append(call.message, "i", interface_index_) < 0) {
    result = Fail("the system bus does not take our calls");
  } else if (const int code = sd_bus_call(bus_, call.message, 1'000'000, &error, &reply.message); code < 0) {
    // It forgets the link with the device in a moment, and has forgotten it already if it is not there.
    const bool is_gone = sd_bus_error_has_name(&error, "org.freedesktop.resolve1.NoSuchLink") ||
                         sd_bus_error_has_name(&error, SD_BUS_ERROR_SERVICE_UNKNOWN) ||
                         sd_bus_error_has_name(&error, SD_BUS_ERROR_NAME_HAS_NO_OWNER) || code == -ENOTCONN ||
                         code == -ECONNRESET;
    if (!is_gone) {
      result = FailErrno(-code, "systemd-resolved does not take back the servers of {}: {}", settings_.interface_name,
                         error.message != nullptr ? error.message : std::strerror(-code));
    }
  }
  sd_bus_error_free(&error);
  Disconnect();
  has_applied_ = false;
  return result;
}

}  // namespace adit
