// A resolv.conf that anybody on the machine may have written. Holds: lists keep their bounds, what was understood is
// written in a form that is understood as the same, and our own file is known as ours and keeps the options.
#include "dns/resolv_conf.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  const ResolvConf conf = ParseResolvConf(FuzzInput(data, size).TakeText());
  CHECK(conf.servers.size() <= kMaxNameServers);
  CHECK(conf.search.size() <= kMaxSearchDomains);
  CHECK(conf.options.size() <= kMaxResolvOptions);
  const std::string text = WriteResolvConf(conf, "a comment");
  // One line each; what went in was at most kMaxResolvConfBytes, and so is what comes out but for the keywords.
  if (text.size() <= kMaxResolvConfBytes) CHECK(ParseResolvConf(text) == conf);

  const DnsSettings tunnel{"wg0", {*IpAddress::Parse("10.0.0.1")}, conf.search, true};
  const std::string ours = RenderResolvConf(std::span(&tunnel, 1), conf, "/var/lib/adit/dns");
  CHECK(IsOurResolvConf(ours));
  if (ours.size() <= kMaxResolvConfBytes) {
    const ResolvConf back = ParseResolvConf(ours);
    CHECK(back.servers.size() == 1 && back.servers[0].ip == tunnel.servers[0]);
    CHECK(back.options == conf.options);
  }
  CHECK(!ServersForEndpoints(conf, conf, tunnel.servers).empty());
  return 0;
}
