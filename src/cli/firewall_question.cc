#include "cli/firewall_question.h"

#include <charconv>
#include <nlohmann/json.hpp>
#include <sstream>

namespace adit {

using Json = nlohmann::ordered_json;

std::string ToQuestion(const nft::Packet& packet) {
  const auto word = [](const std::string& device) { return device.empty() ? std::string("-") : device; };
  return fmt::format("{} {} {} {} {} {} {} {} {}", word(packet.input_device), word(packet.output_device), packet.mark,
                     packet.uid, packet.source.ToString(), packet.destination.ToString(), packet.protocol,
                     packet.source_port, packet.destination_port);
}

std::optional<nft::Packet> ParseQuestion(std::string_view question) {
  std::istringstream words{std::string(question)};
  nft::Packet packet;
  std::string mark, uid, source, destination, protocol, source_port, destination_port, more;
  if (!(words >> packet.input_device >> packet.output_device >> mark >> uid >> source >> destination >> protocol >>
        source_port >> destination_port) ||
      words >> more) {
    return std::nullopt;
  }
  for (std::string* device : {&packet.input_device, &packet.output_device}) {
    if (*device == "-") device->clear();
  }
  const auto number = [](const std::string& word, auto& into) {
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), into);
    return error == std::errc() && end == word.data() + word.size();
  };
  const auto from = IpAddress::Parse(source);
  const auto to = IpAddress::Parse(destination);
  if (!number(mark, packet.mark) || !number(uid, packet.uid) || !number(protocol, packet.protocol) ||
      !number(source_port, packet.source_port) || !number(destination_port, packet.destination_port) || !from || !to) {
    return std::nullopt;
  }
  packet.source = *from;
  packet.destination = *to;
  return packet;
}

std::string ToAnswer(const FirewallAnswer& answer) {
  return Json{{"table", answer.table},
              {"passes", answer.verdict.passes},
              {"chain", answer.verdict.chain},
              {"rule", answer.verdict.rule},
              {"counter", answer.verdict.counter}}
      .dump();
}

std::optional<FirewallAnswer> ParseAnswer(const std::string& line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return std::nullopt;
  FirewallAnswer answer;
  const auto text = [&json](const char* key, std::string& into) {
    const auto found = json.find(key);
    if (found == json.end() || !found->is_string()) return false;
    into = found->get<std::string>();
    return true;
  };
  const auto passes = json.find("passes");
  if (passes == json.end() || !passes->is_boolean()) return std::nullopt;
  answer.verdict.passes = passes->get<bool>();
  if (!text("table", answer.table) || !text("chain", answer.verdict.chain) || !text("rule", answer.verdict.rule) ||
      !text("counter", answer.verdict.counter)) {
    return std::nullopt;
  }
  return answer;
}

}  // namespace adit
