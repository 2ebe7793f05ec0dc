#include "routing/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

namespace adit {
namespace {

constexpr std::string_view kMagic = "adit-journal 1";

std::string HeaderText(const JournalHeader& header) {
  return fmt::format("{} dev {} index {} netns {}\n", kMagic, header.interface_name, header.interface_index,
                     header.netns);
}

std::optional<JournalHeader> ParseHeader(const std::string& line) {
  if (!line.starts_with(kMagic)) return std::nullopt;
  std::istringstream words(line.substr(kMagic.size()));
  JournalHeader header;
  std::string dev;
  std::string index;
  std::string netns;
  words >> dev >> header.interface_name >> index >> header.interface_index >> netns >> header.netns;
  if (!words || dev != "dev" || index != "index" || netns != "netns") return std::nullopt;
  return header;
}

// A file's name survives a crash only when its folder reached the disk too.
Status SyncFolder(const std::filesystem::path& file) {
  const std::string folder = file.has_parent_path() ? file.parent_path().string() : ".";
  const Fd fd(open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd || fsync(fd.get()) != 0) return FailErrno(errno, "cannot sync the folder {}: {}", folder, strerror(errno));
  return {};
}

}  // namespace

Result<Journal> Journal::Create(const std::string& path, const JournalHeader& header) {
  const std::filesystem::path file(path);
  std::error_code ignored;
  if (file.has_parent_path()) std::filesystem::create_directories(file.parent_path(), ignored);
  Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600));
  if (!fd && errno == EEXIST) {
    return FailErrno(EEXIST, "{} exists: an earlier run was not taken down; run `adit cleanup {}` first", path,
                     header.interface_name);
  }
  if (!fd) return FailErrno(errno, "cannot create the journal {}: {}", path, strerror(errno));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return FailErrno(errno, "cannot lock the journal {}: {}", path, strerror(errno));
  }
  Journal journal(path, header, std::move(fd));
  Status written = journal.Append(HeaderText(header));
  if (written) written = SyncFolder(file);
  if (!written) {
    unlink(path.c_str());
    return std::unexpected(written.error());
  }
  return journal;
}

Result<Journal> Journal::Adopt(const std::string& path) {
  Fd fd(open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
  if (!fd) return FailErrno(errno, "cannot open the journal {}: {}", path, strerror(errno));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return FailErrno(EBUSY, "the journal {} belongs to a running process; take that tunnel down first", path);
  }
  return Journal(path, {}, std::move(fd));
}

Status Journal::Append(const std::string& text) {
  std::string_view left = text;
  while (!left.empty()) {
    const ssize_t written = write(fd_.get(), left.data(), left.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return FailErrno(errno, "cannot write the journal {}: {}", path_, strerror(errno));
    left.remove_prefix(static_cast<std::size_t>(written));
  }
  if (fdatasync(fd_.get()) != 0) return FailErrno(errno, "cannot sync the journal {}: {}", path_, strerror(errno));
  return {};
}

Status Journal::WriteIntents(std::span<const Op> ops) {
  std::string text;
  for (const Op& op : ops) text += "+ " + ToString(op) + "\n";
  if (Status written = Append(text); !written) return written;
  intent_count_ += ops.size();
  return {};
}

Status Journal::WriteFailure(std::size_t number) { return Append(fmt::format("! {}\n", number + 1)); }

Status Journal::WriteRemovals(std::span<const std::size_t> numbers) {
  std::string text;
  for (const std::size_t number : numbers) text += fmt::format("- {}\n", number + 1);
  return Append(text);
}

Status Journal::Rewrite(std::span<const Op> ops) {
  const std::string fresh = path_ + ".new";
  Fd fd(open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600));
  if (!fd || flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return FailErrno(errno, "cannot create the journal {}: {}", fresh, strerror(errno));
  }
  Journal journal(path_, header_, std::move(fd));
  Status written = journal.Append(HeaderText(header_));
  if (written) written = journal.WriteIntents(ops);
  if (written && rename(fresh.c_str(), path_.c_str()) != 0) {
    written = FailErrno(errno, "cannot replace the journal {}: {}", path_, strerror(errno));
  }
  if (!written) {
    unlink(fresh.c_str());
    return written;
  }
  *this = std::move(journal);
  return SyncFolder(path_);
}

Status Journal::Remove() {
  unlink((path_ + ".new").c_str());  // of a Rewrite that was killed
  if (unlink(path_.c_str()) != 0 && errno != ENOENT) {
    return FailErrno(errno, "cannot remove the journal {}: {}", path_, strerror(errno));
  }
  return {};
}

Result<JournalContents> ReadJournal(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return FailErrno(errno, "cannot read the journal {}: {}", path, strerror(errno));
  std::ostringstream whole;
  whole << file.rdbuf();
  std::string text = std::move(whole).str();
  text.resize(text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1);

  JournalContents contents;
  std::vector<Op> intents;
  std::set<std::size_t> gone;
  std::istringstream lines(text);
  std::string line;
  for (std::size_t number = 1; std::getline(lines, line); ++number) {
    const std::string_view rest = std::string_view(line).substr(std::min<std::size_t>(line.size(), 2));
    bool good = false;
    if (number == 1) {
      const auto header = ParseHeader(line);
      good = header.has_value();
      if (good) contents.header = *header;
    } else if (line.starts_with("+ ")) {
      auto op = ParseOp(rest);
      good = op.has_value();
      if (good) intents.push_back(std::move(*op));
    } else if (line.starts_with("! ") || line.starts_with("- ")) {
      std::size_t which = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), which);
      good = error == std::errc() && end == rest.data() + rest.size() && which >= 1 && which <= intents.size();
      if (good) gone.insert(which - 1);
    }
    if (!good) {
      return Fail("{}:{}: cannot read \"{}\"; undo by hand what the lines starting with + say, then delete the file",
                  path, number, line);
    }
  }
  for (std::size_t i = 0; i < intents.size(); ++i) {
    if (!gone.contains(i)) contents.ops.push_back(std::move(intents[i]));
  }
  return contents;
}

}  // namespace adit
