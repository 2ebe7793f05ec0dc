#include "dns/resolv_conf.h"

#include <algorithm>

#include "config/text.h"

namespace adit {
namespace {

bool IsPlain(std::string_view word) {
  return !word.empty() && std::ranges::all_of(word, [](char c) { return c > ' ' && c < '\x7f'; });
}

std::vector<std::string_view> Words(std::string_view line) {
  std::vector<std::string_view> words;
  while (true) {
    line = Trim(line);
    if (line.empty()) return words;
    const auto end = std::ranges::find_if(line, IsBlank);
    const auto size = static_cast<std::size_t>(end - line.begin());
    words.push_back(line.substr(0, size));
    line.remove_prefix(size);
  }
}

std::optional<NameServer> ParseNameServer(std::string_view word) {
  const auto percent = word.find('%');
  const auto ip = IpAddress::Parse(word.substr(0, percent));
  if (!ip) return std::nullopt;
  NameServer server{*ip, ""};
  if (percent != word.npos) {
    const std::string_view scope = word.substr(percent + 1);
    if (!IsPlain(scope)) return std::nullopt;
    server.scope = scope;
  }
  return server;
}

void AddWords(std::vector<std::string>& to, std::span<const std::string_view> words, std::size_t limit) {
  for (const std::string_view word : words) {
    if (to.size() < limit && IsPlain(word)) to.emplace_back(word);
  }
}

std::string Joined(std::string_view key, const std::vector<std::string>& words) {
  if (words.empty()) return "";
  std::string line(key);
  for (const std::string& word : words) line += " " + word;
  return line + "\n";
}

bool IsResolvedStub(const NameServer& server) {
  static const IpAddress kStub = *IpAddress::Parse("127.0.0.53");
  static const IpAddress kProxy = *IpAddress::Parse("127.0.0.54");
  return server.ip == kStub || server.ip == kProxy;
}

}  // namespace

std::string NameServer::ToString() const { return scope.empty() ? ip.ToString() : ip.ToString() + "%" + scope; }

ResolvConf ParseResolvConf(std::string_view text) {
  ResolvConf conf;
  text = text.substr(0, kMaxResolvConfBytes);
  while (!text.empty()) {
    const auto end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text = end == text.npos ? std::string_view() : text.substr(end + 1);
    // A comment has its sign in the first column; behind a server's address everything is ignored.
    if (line.starts_with('#') || line.starts_with(';')) continue;
    const auto words = Words(line);
    if (words.size() < 2) continue;
    const auto rest = std::span(words).subspan(1);
    if (words[0] == "nameserver") {
      const auto server = ParseNameServer(words[1]);
      if (server && conf.servers.size() < kMaxNameServers) conf.servers.push_back(*server);
    } else if (words[0] == "search" || words[0] == "domain") {
      conf.search.clear();
      AddWords(conf.search, words[0] == "domain" ? rest.first(1) : rest, kMaxSearchDomains);
    } else if (words[0] == "options") {
      AddWords(conf.options, rest, kMaxResolvOptions);
    }
  }
  return conf;
}

std::string WriteResolvConf(const ResolvConf& conf, std::string_view comment) {
  std::string text;
  while (!comment.empty()) {
    const auto end = comment.find('\n');
    text += "# " + std::string(comment.substr(0, end)) + "\n";
    comment = end == comment.npos ? std::string_view() : comment.substr(end + 1);
  }
  for (const NameServer& server : conf.servers) text += "nameserver " + server.ToString() + "\n";
  text += Joined("search", conf.search);
  text += Joined("options", conf.options);
  return text;
}

std::string RenderResolvConf(std::span<const DnsSettings> tunnels, const ResolvConf& original,
                             std::string_view kept_in) {
  ResolvConf conf;
  std::string names;
  for (auto tunnel = tunnels.rbegin(); tunnel != tunnels.rend(); ++tunnel) {
    names += (names.empty() ? "" : ", ") + tunnel->interface_name;
    if (conf.servers.empty()) {
      for (const IpAddress& server : tunnel->servers) conf.servers.push_back({server, ""});
    }
    for (const std::string& domain : tunnel->search_domains) {
      if (std::ranges::find(conf.search, domain) == conf.search.end()) conf.search.push_back(domain);
    }
  }
  if (conf.servers.empty()) conf.servers = original.servers;
  if (conf.search.empty()) conf.search = original.search;
  conf.options = original.options;
  return WriteResolvConf(conf, fmt::format("{} for {}. What was here before is kept in {}\nand comes back when the "
                                           "tunnel goes down; after a crash: adit cleanup NAME.",
                                           kResolvConfMark.substr(2), names, kept_in));
}

bool AsksResolvedOnly(const ResolvConf& conf) {
  return !conf.servers.empty() && std::ranges::all_of(conf.servers, IsResolvedStub);
}

bool NamesOnly(const ResolvConf& conf, std::span<const IpAddress> servers) {
  return !conf.servers.empty() && std::ranges::all_of(conf.servers, [&](const NameServer& server) {
    return std::ranges::find(servers, server.ip) != servers.end();
  });
}

std::vector<NameServer> ServersForEndpoints(const ResolvConf& own, const ResolvConf& resolved_uplinks,
                                            std::span<const IpAddress> tunnel_servers) {
  std::vector<NameServer> result;
  const auto add = [&](const NameServer& server) {
    const bool is_tunnels = std::ranges::find(tunnel_servers, server.ip) != tunnel_servers.end();
    if (!is_tunnels && std::ranges::find(result, server) == result.end()) result.push_back(server);
  };
  const bool behind_stub = std::ranges::any_of(own.servers, IsResolvedStub);
  if (behind_stub) std::ranges::for_each(resolved_uplinks.servers, add);
  std::ranges::for_each(own.servers, add);
  // resolv.conf(5): without a server, the one on this machine.
  if (result.empty()) result.push_back({*IpAddress::Parse("127.0.0.1"), ""});
  return result;
}

std::string_view Name(DnsKind kind) {
  switch (kind) {
    case DnsKind::kResolved:
      return "systemd-resolved";
    case DnsKind::kResolvconf:
      return "resolvconf";
    case DnsKind::kFile:
      return "resolv.conf";
    case DnsKind::kOff:
      break;
  }
  return "off";
}

std::vector<DnsKind> DnsWays(const DnsFacts& facts) {
  std::vector<DnsKind> ways;
  if (facts.resolved_answers && AsksResolvedOnly(facts.resolv_conf)) ways.push_back(DnsKind::kResolved);
  if (facts.has_resolvconf) ways.push_back(DnsKind::kResolvconf);
  ways.push_back(DnsKind::kFile);
  return ways;
}

}  // namespace adit
