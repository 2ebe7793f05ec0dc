// A stand-in for systemd-resolved on a bus: takes the calls of its Manager interface, writes each down as one line, and
// refuses what it is told to. It keeps what it was told of each link, shows it as DNS and Domains, and says on the bus
// when that changed. No names are looked up.
#pragma once

#include <arpa/inet.h>
#include <systemd/sd-bus.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace adit {

class FakeResolve1 {
 public:
  // Takes the name on the bus of DBUS_SYSTEM_BUS_ADDRESS. `refused_method` answers with an error of that name.
  explicit FakeResolve1(std::string refused_method = "", std::string refusal = "",
                        std::function<void(const std::string&)> on_call = nullptr)
      : refused_method_(std::move(refused_method)), refusal_(std::move(refusal)), on_call_(std::move(on_call)) {
    static const sd_bus_vtable kVtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD("SetLinkDNS", "ia(iay)", "", &FakeResolve1::OnSetDns, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD("SetLinkDomains", "ia(sb)", "", &FakeResolve1::OnSetDomains, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD("SetLinkDefaultRoute", "ib", "", &FakeResolve1::OnSetDefault, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD("RevertLink", "i", "", &FakeResolve1::OnRevert, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("DNS", "a(iiay)", &FakeResolve1::GetDns, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_PROPERTY("Domains", "a(isb)", &FakeResolve1::GetDomains, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE),
        SD_BUS_VTABLE_END};
    is_good_ = sd_bus_open_system(&bus_) >= 0 &&
               sd_bus_add_object_vtable(bus_, nullptr, "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager",
                                        kVtable, this) >= 0 &&
               sd_bus_request_name(bus_, "org.freedesktop.resolve1", 0) >= 0;
    if (is_good_) thread_ = std::thread([this] { Serve(); });
  }
  ~FakeResolve1() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
    sd_bus_flush_close_unref(bus_);
  }
  FakeResolve1(const FakeResolve1&) = delete;
  FakeResolve1& operator=(const FakeResolve1&) = delete;

  bool is_good() const { return is_good_; }
  // As `resolvectl revert` does it, by somebody else on the bus.
  static bool Revert(int index) {
    sd_bus* bus = nullptr;
    const bool done =
        sd_bus_open_system(&bus) >= 0 &&
        sd_bus_call_method(bus, "org.freedesktop.resolve1", "/org/freedesktop/resolve1",
                           "org.freedesktop.resolve1.Manager", "RevertLink", nullptr, nullptr, "i", index) >= 0;
    sd_bus_flush_close_unref(bus);
    return done;
  }
  std::vector<std::string> calls() const {
    const std::lock_guard lock(mutex_);
    return calls_;
  }

 private:
  void Serve() {
    while (!stop_) {
      const int result = sd_bus_process(bus_, nullptr);
      if (result < 0) return;
      if (result == 0) sd_bus_wait(bus_, 20'000);
    }
  }
  int Note(sd_bus_message* call, std::string text) {
    if (on_call_) on_call_(text);
    {
      const std::lock_guard lock(mutex_);
      calls_.push_back(std::move(text));
    }
    if (!refused_method_.empty() && refused_method_ == sd_bus_message_get_member(call)) {
      return sd_bus_reply_method_errorf(call, refusal_.c_str(), "refused by the test");
    }
    sd_bus_emit_properties_changed(bus_, "/org/freedesktop/resolve1", "org.freedesktop.resolve1.Manager", "DNS",
                                   "Domains", nullptr);
    return sd_bus_reply_method_return(call, "");
  }
  struct Server {
    int family;
    std::vector<std::uint8_t> address;
  };
  struct Domain {
    std::string name;
    int is_routing_only;
  };
  static int GetDns(sd_bus*, const char*, const char*, const char*, sd_bus_message* reply, void* self, sd_bus_error*) {
    sd_bus_message_open_container(reply, 'a', "(iiay)");
    for (const auto& [index, servers] : static_cast<FakeResolve1*>(self)->servers_) {
      for (const Server& server : servers) {
        sd_bus_message_open_container(reply, 'r', "iiay");
        sd_bus_message_append(reply, "ii", index, server.family);
        sd_bus_message_append_array(reply, 'y', server.address.data(), server.address.size());
        sd_bus_message_close_container(reply);
      }
    }
    return sd_bus_message_close_container(reply);
  }
  static int GetDomains(sd_bus*, const char*, const char*, const char*, sd_bus_message* reply, void* self,
                        sd_bus_error*) {
    sd_bus_message_open_container(reply, 'a', "(isb)");
    for (const auto& [index, domains] : static_cast<FakeResolve1*>(self)->domains_) {
      for (const Domain& domain : domains) {
        sd_bus_message_append(reply, "(isb)", index, domain.name.c_str(), domain.is_routing_only);
      }
    }
    return sd_bus_message_close_container(reply);
  }
  static int OnSetDns(sd_bus_message* call, void* self, sd_bus_error*) {
    int index = 0, family = 0;
    sd_bus_message_read(call, "i", &index);
    std::string text = "dns " + std::to_string(index);
    std::vector<Server> servers;
    sd_bus_message_enter_container(call, 'a', "(iay)");
    while (sd_bus_message_enter_container(call, 'r', "iay") > 0) {
      const void* bytes = nullptr;
      std::size_t size = 0;
      sd_bus_message_read(call, "i", &family);
      sd_bus_message_read_array(call, 'y', &bytes, &size);
      char name[INET6_ADDRSTRLEN] = "?";
      if (size == (family == AF_INET6 ? 16u : 4u)) inet_ntop(family, bytes, name, sizeof name);
      text += std::string(" ") + name;
      const auto* const first = static_cast<const std::uint8_t*>(bytes);
      Server server{family, {first, first + size}};
      if (std::ranges::find(servers, server.address, &Server::address) == servers.end())
        servers.push_back(std::move(server));
      sd_bus_message_exit_container(call);
    }
    static_cast<FakeResolve1*>(self)->servers_[index] = std::move(servers);
    return static_cast<FakeResolve1*>(self)->Note(call, text);
  }
  static int OnSetDomains(sd_bus_message* call, void* self, sd_bus_error*) {
    int index = 0, is_routing_only = 0;
    const char* name = nullptr;
    sd_bus_message_read(call, "i", &index);
    std::string text = "domains " + std::to_string(index);
    std::vector<Domain> domains;
    sd_bus_message_enter_container(call, 'a', "(sb)");
    while (sd_bus_message_read(call, "(sb)", &name, &is_routing_only) > 0) {
      text += std::string(is_routing_only ? " ~" : " ") + name;
      std::string normal = name;  // as the real one keeps it
      if (normal.size() > 1 && normal.ends_with('.')) normal.pop_back();
      domains.push_back({std::move(normal), is_routing_only});
    }
    static_cast<FakeResolve1*>(self)->domains_[index] = std::move(domains);
    return static_cast<FakeResolve1*>(self)->Note(call, text);
  }
  static int OnSetDefault(sd_bus_message* call, void* self, sd_bus_error*) {
    int index = 0, is_default = 0;
    sd_bus_message_read(call, "ib", &index, &is_default);
    return static_cast<FakeResolve1*>(self)->Note(call,
                                                  "default " + std::to_string(index) + (is_default ? " yes" : " no"));
  }
  static int OnRevert(sd_bus_message* call, void* self, sd_bus_error*) {
    int index = 0;
    sd_bus_message_read(call, "i", &index);
    static_cast<FakeResolve1*>(self)->servers_.erase(index);
    static_cast<FakeResolve1*>(self)->domains_.erase(index);
    return static_cast<FakeResolve1*>(self)->Note(call, "revert " + std::to_string(index));
  }

  const std::string refused_method_;
  const std::string refusal_;
  const std::function<void(const std::string&)> on_call_;
  sd_bus* bus_ = nullptr;
  bool is_good_ = false;
  std::atomic<bool> stop_ = false;
  mutable std::mutex mutex_;
  std::vector<std::string> calls_;
  std::map<int, std::vector<Server>> servers_;  // by link; the service's thread's
  std::map<int, std::vector<Domain>> domains_;
  std::thread thread_;
};

}  // namespace adit
