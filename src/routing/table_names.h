// Names for routing tables, as iproute2 keeps them (door): those that others gave, which are numbers to keep off, and
// ours while a tunnel is up, so that `ip rule` says "lookup adit-wg0". Only for people: that it cannot be written is no
// error.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace adit {

// The lines "NUMBER NAME" of a file rt_tables; numbers decimal or 0x. What does not parse is skipped.
std::multimap<std::uint32_t, std::string> ParseTableNames(std::string_view text);

// Where iproute2 looks, the first for changes. A root is put in front by tests.
struct TableNameFolders {
  std::string etc = "/etc/iproute2";
  std::string usr = "/usr/share/iproute2";
};

// What others named in rt_tables and rt_tables.d of both folders; without the names that the kernel's own tables have,
// and without what a tunnel of ours wrote.
std::multimap<std::uint32_t, std::string> ReadForeignTableNames(const TableNameFolders& folders = {});

// Names the tables that are not 0 "adit-NAME" (catch-all) and "adit-NAME-specific" in etc/rt_tables.d/adit-NAME.conf; a
// name that somebody else uses gets a "_" behind it. Does nothing if there is no etc folder.
void WriteTableNames(const std::string& interface_name, std::uint32_t specific_table, std::uint32_t catch_all_table,
                     const TableNameFolders& folders = {});
// Takes the file away, and the folder if it was made for it. For any name, also one that has none.
void RemoveTableNames(const std::string& interface_name, const TableNameFolders& folders = {});

}  // namespace adit
