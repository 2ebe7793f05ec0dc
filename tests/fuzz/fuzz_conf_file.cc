// A .conf file. Holds: an error names file and line; a file that was understood is understood the same when we write
// it, and makes a valid request for the device.
#include <optional>
#include <vector>

#include "config/conf_file.h"
#include "fuzz/input.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  const std::string_view text = FuzzInput(data, size).TakeText();
  const auto conf = ParseConf(text, "fuzz.conf");
  if (!conf) {
    CHECK(conf.error().message.starts_with("fuzz.conf"));
    return 0;
  }
  CHECK(conf->warnings.size() <= kMaxConfWarnings + 1);

  const SecretText written = WriteConf(*conf);
  const auto again = ParseConf(written, "written.conf");
  CHECK(again.has_value());
  CHECK(WriteConf(*again) == written);
  CHECK(again->peers.size() == conf->peers.size());

  std::vector<std::optional<SocketAddress>> endpoints(conf->peers.size());
  for (std::size_t i = 0; i < endpoints.size(); ++i) {
    if (conf->peers[i].endpoint) endpoints[i] = conf->peers[i].endpoint->Numeric(nullptr);
  }
  const SecretText request = WriteUapiSet(ToDeviceUpdate(*conf, endpoints));
  UapiFramer framer(nullptr);
  std::string_view rest = request;
  const auto read = framer.Read(rest);
  CHECK(read && read->update && rest.empty());
  return 0;
}
