// nfnetlink messages for the tables of nft_ruleset.h, as one batch that the kernel takes whole or not at all. Bytes
// only; no socket in sight. Numbers and layouts are those of linux/netfilter/nf_tables.h.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "routing/nft_ruleset.h"

namespace adit::nft {

// NFT_TABLE_F_OWNER and NFT_TABLE_F_PERSIST (Linux 6.9; the headers of Debian 12 lack the latter): nobody but the
// socket that made it may change the table, and it stays when the socket goes.
inline constexpr std::uint32_t kOwned = 2;
inline constexpr std::uint32_t kPersistent = 4;

struct Message {
  std::string what;  // for error sentences: "chain out", "rule \"oifname \"lo\" accept\""
  std::uint16_t type = 0;
  std::uint16_t flags = 0;
  std::vector<std::uint8_t> payload;  // nfgenmsg and attributes
};

// Each returns the messages of one step; steps are joined to one batch by the caller.
std::vector<Message> MakeTable(const std::string& table, std::uint32_t flags);
std::vector<Message> RemoveTable(const std::string& table);
// Counters, sets with their elements, chains and rules; the table itself must exist by then.
std::vector<Message> MakeContents(const Table& table);
// The set's elements from one list to another.
std::vector<Message> ChangeElements(const std::string& table, const Set& before, const Set& after);
// All rules of a chain.
std::vector<Message> ReplaceRules(const std::string& table, const Chain& chain);

// The messages between NFNL_MSG_BATCH_BEGIN and _END, numbered from `first_sequence` (begin) upwards. The last one
// before the end asks for an acknowledgement.
std::vector<std::uint8_t> ToBatch(std::span<const Message> messages, std::uint32_t first_sequence);

// One request outside of a batch.
std::vector<std::uint8_t> ToRequest(const Message& message, std::uint32_t sequence);
Message GetTable(const std::string& table);
Message DumpCounters(const std::string& table);
Message DumpChains();  // of all tables: the kernel has no narrower question
Message DumpRules(const std::string& table);
Message DumpElements(const std::string& table, const std::string& set);

}  // namespace adit::nft
