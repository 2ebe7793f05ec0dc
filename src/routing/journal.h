// The write-ahead journal of one interface: what is about to be done stands on disk before it is done, so that after a
// kill -9 at any point `cleanup` knows what may be there. A text file:
//
//   adit-journal 1 dev wg0 index 7 netns 4:4026531840
//   + ip link set dev wg0 mtu 1420 # was 1500
//   + ip -4 route add 10.0.0.0/8 dev wg0 proto static
//   ! 2                                                 operation 2 (from 1) failed: it is not ours to undo
//   - 1                                                 operation 1 was taken back while the tunnel went on
//
// It belongs under /run: rules and routes do not survive a reboot, and neither should it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/result.h"
#include "routing/op.h"

namespace adit {

struct JournalHeader {
  std::string interface_name;
  std::uint32_t interface_index = 0;
  std::string netns;  // "device:inode" of the network namespace
  friend bool operator==(const JournalHeader&, const JournalHeader&) = default;
};

struct JournalContents {
  JournalHeader header;
  std::vector<Op> ops;  // in the order of their intents, without those that failed or were taken back
};

class Journal {
 public:
  // Creates the file (0600) and its folder, writes the header, takes the lock. Fails if the file exists.
  static Result<Journal> Create(const std::string& path, const JournalHeader& header);
  // Opens an existing one for cleaning up. Fails if another process holds the lock.
  static Result<Journal> Adopt(const std::string& path);

  // On disk (fsync) when it returns.
  Status WriteIntents(std::span<const Op> ops);
  // `number` counts the intents from 0.
  Status WriteFailure(std::size_t number);
  // After they were taken back. Until then they may stand here: undoing what is gone is no error.
  Status WriteRemovals(std::span<const std::size_t> numbers);
  // Writes it anew with just these intents, numbered from 0. At every moment one of the two is there whole, and locked.
  Status Rewrite(std::span<const Op> ops);
  // Which number the next intent gets. Of a journal made by Create.
  std::size_t intent_count() const { return intent_count_; }
  // Deletes the file.
  Status Remove();

 private:
  Journal(std::string path, JournalHeader header, Fd fd)
      : path_(std::move(path)), header_(std::move(header)), fd_(std::move(fd)) {}
  Status Append(const std::string& text);
  std::string path_;
  JournalHeader header_;  // of a journal made by Create
  Fd fd_;
  std::size_t intent_count_ = 0;
};

// A last line without its newline was being written when the process died, and its operation was never begun: it is
// ignored. Anything else that does not parse is an error. An empty file has an empty header.
Result<JournalContents> ReadJournal(const std::string& path);

}  // namespace adit
