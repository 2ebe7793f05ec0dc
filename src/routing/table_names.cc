#include "routing/table_names.h"

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace adit {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFilePrefix = "adit-";
constexpr std::string_view kMadeFolder = "# the folder was made for this file\n";
constexpr std::uint32_t kOwnTables[] = {0, 253, 254, 255};

std::string ReadWhole(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

fs::path FileOf(const std::string& interface_name, const TableNameFolders& folders) {
  return fs::path(folders.etc) / "rt_tables.d" / (std::string(kFilePrefix) + interface_name + ".conf");
}

}  // namespace

std::multimap<std::uint32_t, std::string> ParseTableNames(std::string_view text) {
  std::multimap<std::uint32_t, std::string> names;
  std::istringstream lines{std::string(text)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string number, name;
    if (!(words >> number >> name)) continue;
    const bool is_hex = number.starts_with("0x");
    const char* begin = number.data() + (is_hex ? 2 : 0);
    const char* end = number.data() + number.size();
    std::uint32_t table = 0;
    const auto [stopped, error] = std::from_chars(begin, end, table, is_hex ? 16 : 10);
    if (error == std::errc() && stopped == end) names.emplace(table, name);
  }
  return names;
}

std::multimap<std::uint32_t, std::string> ReadForeignTableNames(const TableNameFolders& folders) {
  std::multimap<std::uint32_t, std::string> names;
  for (const std::string& folder : {folders.etc, folders.usr}) {
    names.merge(ParseTableNames(ReadWhole(fs::path(folder) / "rt_tables")));
    std::error_code error;
    for (fs::directory_iterator at(fs::path(folder) / "rt_tables.d", error), end; !error && at != end;
         at.increment(error)) {
      const std::string file = at->path().filename().string();
      if (file.ends_with(".conf") && !file.starts_with(kFilePrefix))
        names.merge(ParseTableNames(ReadWhole(at->path())));
    }
  }
  for (const std::uint32_t table : kOwnTables) names.erase(table);
  return names;
}

void WriteTableNames(const std::string& interface_name, std::uint32_t specific_table, std::uint32_t catch_all_table,
                     const TableNameFolders& folders) {
  RemoveTableNames(interface_name, folders);
  std::error_code error;
  if ((specific_table == 0 && catch_all_table == 0) || !fs::is_directory(folders.etc, error)) return;
  const auto foreign = ReadForeignTableNames(folders);
  const auto free_name = [&](std::string name) {
    while (std::ranges::any_of(foreign, [&](const auto& entry) { return entry.second == name; })) name += '_';
    return name;
  };
  const fs::path file = FileOf(interface_name, folders);
  std::ostringstream text;
  text << "# the tables of the tunnel " << interface_name << " while it is up\n";
  if (fs::create_directory(file.parent_path(), error)) text << kMadeFolder;
  const std::string name = std::string(kFilePrefix) + interface_name;
  if (catch_all_table != 0) text << catch_all_table << ' ' << free_name(name) << '\n';
  if (specific_table != 0) text << specific_table << ' ' << free_name(name + "-specific") << '\n';
  // iproute2 reads only what ends in .conf, and so never half a file.
  const fs::path fresh = file.string() + ".new";
  std::ofstream out(fresh, std::ios::binary | std::ios::trunc);
  out << text.str();
  out.close();
  if (out) fs::rename(fresh, file, error);
  if (!out || error) fs::remove(fresh, error);
}

void RemoveTableNames(const std::string& interface_name, const TableNameFolders& folders) {
  const fs::path file = FileOf(interface_name, folders);
  std::error_code error;
  const bool made_folder = ReadWhole(file).contains(kMadeFolder);
  fs::remove(file.string() + ".new", error);
  if (fs::remove(file, error) && made_folder) fs::remove(file.parent_path(), error);  // only if it is empty
}

}  // namespace adit
