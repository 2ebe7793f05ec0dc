#include "dns/resolv_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "config/interface_name.h"
#include "config/text.h"

namespace adit {
namespace {

constexpr std::string_view kOriginalHead = "adit-resolv-conf 1 ";
constexpr std::string_view kRecordHead = "adit-dns-tunnel 1 ";
constexpr std::string_view kRecordEnd = ".tunnel";
constexpr unsigned kSymlinkTries = 100;

struct Original {
  enum class Kind { kFile, kLink, kAbsent } kind = Kind::kAbsent;
  mode_t mode = 0644;
  std::string text;  // the file's content, or where the link leads
};

struct Record {
  DnsSettings settings;
  std::string boot_id;
  std::uint64_t turn = 0;
};

std::string FolderOf(const std::string& path) {
  const auto slash = path.rfind('/');
  return slash == path.npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

// At most kMaxResolvConfBytes. ENOENT is an error like any other.
Result<std::string> ReadText(const std::string& path) {
  const Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return FailErrno(errno, "cannot read {}: {}", path, std::strerror(errno));
  std::string text(kMaxResolvConfBytes, '\0');
  std::size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd.get(), text.data() + size, text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailErrno(errno, "cannot read {}: {}", path, std::strerror(errno));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  text.resize(size);
  return text;
}

Status WriteAll(int fd, std::string_view text, const std::string& path) {
  std::size_t done = 0;
  while (done < text.size()) {
    const ssize_t put = pwrite(fd, text.data() + done, text.size() - done, static_cast<off_t>(done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return FailErrno(errno, "cannot write {}: {}", path, std::strerror(errno));
    done += static_cast<std::size_t>(put);
  }
  // Cut afterwards: whoever reads meanwhile finds the old lines or the new ones, never nothing.
  if (ftruncate(fd, static_cast<off_t>(text.size())) != 0 || fsync(fd) != 0) {
    return FailErrno(errno, "cannot write {}: {}", path, std::strerror(errno));
  }
  return {};
}

// The name of what was put in its place reaches the disk with its folder. That it could not be made sure of is no
// failure: the file is in force.
void SyncFolderOf(const std::string& path) {
  const Fd fd(open(FolderOf(path).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd) fsync(fd.get());
}

bool IsLink(const std::string& path) {
  struct stat info{};
  return lstat(path.c_str(), &info) == 0 && S_ISLNK(info.st_mode);
}

// A mount point cannot be renamed over, and its folder may be read-only while it is not. A link is never written
// through: what it leads to is somebody else's.
Status WriteInPlace(const std::string& path, std::string_view text, int error) {
  if (IsLink(path)) {
    return FailErrno(error, "cannot replace the link {}: {}", path, std::strerror(error));
  }
  const Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOFOLLOW));
  if (!fd) return FailErrno(errno, "cannot write {}: {}", path, std::strerror(errno));
  return WriteAll(fd.get(), text, path);
}

Status ReplaceFile(const std::string& path, std::string_view text, mode_t mode) {
  std::string temporary = path + ".adit-XXXXXX";
  const Fd fd(mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return WriteInPlace(path, text, errno);
  Status written = WriteAll(fd.get(), text, path);
  if (written && fchmod(fd.get(), mode) != 0) written = FailErrno(errno, "cannot chmod {}", path);
  if (written) {
    if (rename(temporary.c_str(), path.c_str()) == 0) {
      SyncFolderOf(path);
      return {};
    }
    const int error = errno;
    unlink(temporary.c_str());
    if (error == EBUSY || error == EXDEV || error == EPERM || error == EACCES) return WriteInPlace(path, text, error);
    return FailErrno(error, "cannot replace {}: {}", path, std::strerror(error));
  }
  unlink(temporary.c_str());
  return written;
}

Status ReplaceByLink(const std::string& path, const std::string& target) {
  for (unsigned i = 0; i < kSymlinkTries; ++i) {
    const std::string temporary = fmt::format("{}.adit-{}", path, i);
    if (symlink(target.c_str(), temporary.c_str()) != 0) {
      if (errno == EEXIST) continue;
      return FailErrno(errno, "cannot put back the link {}: {}", path, std::strerror(errno));
    }
    if (rename(temporary.c_str(), path.c_str()) == 0) {
      SyncFolderOf(path);
      return {};
    }
    const int error = errno;
    unlink(temporary.c_str());
    return FailErrno(error, "cannot put back the link {}: {}", path, std::strerror(error));
  }
  return FailErrno(EEXIST, "cannot put back the link {}: temporary files are in the way", path);
}

std::string OriginalToText(const Original& original) {
  switch (original.kind) {
    case Original::Kind::kFile:
      return fmt::format("{}file {:o}\n{}", kOriginalHead, original.mode & 07777, original.text);
    case Original::Kind::kLink:
      return fmt::format("{}link\n{}", kOriginalHead, original.text);
    case Original::Kind::kAbsent:
      break;
  }
  return fmt::format("{}absent\n", kOriginalHead);
}

std::optional<Original> ParseOriginal(std::string_view text) {
  if (!text.starts_with(kOriginalHead)) return std::nullopt;
  text.remove_prefix(kOriginalHead.size());
  const auto end = text.find('\n');
  if (end == text.npos) return std::nullopt;
  const std::string_view head = text.substr(0, end);
  Original original;
  original.text = text.substr(end + 1);
  if (head == "absent") {
    original.kind = Original::Kind::kAbsent;
  } else if (head == "link" && !original.text.empty()) {
    original.kind = Original::Kind::kLink;
  } else if (head.starts_with("file ")) {
    original.kind = Original::Kind::kFile;
    const std::string_view mode = head.substr(5);
    unsigned value = 0;
    const auto [stopped, error] = std::from_chars(mode.data(), mode.data() + mode.size(), value, 8);
    if (error != std::errc{} || stopped != mode.data() + mode.size() || value > 07777) return std::nullopt;
    original.mode = value;
  } else {
    return std::nullopt;
  }
  return original;
}

std::string RecordToText(const Record& record) {
  ResolvConf lines;
  for (const IpAddress& server : record.settings.servers) lines.servers.push_back({server, ""});
  lines.search = record.settings.search_domains;
  return fmt::format("{}{} {} {}\n{}", kRecordHead, record.turn, record.settings.is_full_tunnel ? "full" : "split",
                     record.boot_id.empty() ? "-" : record.boot_id, WriteResolvConf(lines, ""));
}

// A record that cannot be read stands for a tunnel without wishes of an earlier boot, so that it is dropped.
Record ParseRecord(std::string_view text, const std::string& interface_name) {
  Record record;
  record.settings.interface_name = interface_name;
  record.boot_id = "?";
  if (!text.starts_with(kRecordHead)) return record;
  text.remove_prefix(kRecordHead.size());
  const auto end = text.find('\n');
  if (end == text.npos) return record;
  const std::string_view head = text.substr(0, end);
  const auto first = head.find(' ');
  const auto second = first == head.npos ? head.npos : head.find(' ', first + 1);
  if (second == head.npos) return record;
  const auto turn = ParseDecimal<std::uint64_t>(head.substr(0, first));
  if (!turn) return record;
  record.turn = *turn;
  record.settings.is_full_tunnel = head.substr(first + 1, second - first - 1) == "full";
  record.boot_id = head.substr(second + 1);
  if (record.boot_id == "-") record.boot_id.clear();
  const ResolvConf lines = ParseResolvConf(text.substr(end + 1));
  for (const NameServer& server : lines.servers) record.settings.servers.push_back(server.ip);
  record.settings.search_domains = lines.search;
  return record;
}

// The folder with its lock held.
class Store {
 public:
  static Result<Store> Open(const ResolvPaths& paths, bool make_folder) {
    if (make_folder) {
      for (std::size_t slash = paths.folder.find('/', 1);; slash = paths.folder.find('/', slash + 1)) {
        const std::string part = paths.folder.substr(0, slash);
        if (mkdir(part.c_str(), 0755) != 0 && errno != EEXIST) {
          return FailErrno(
              errno,
              "cannot make {} to keep the original of {} in: {}; set ADIT_STATE_DIR to a folder that can be "
              "written",
              part, paths.file, std::strerror(errno));
        }
        if (slash == paths.folder.npos) break;
      }
    }
    const std::string lock = paths.folder + "/lock";
    Fd fd(open(lock.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!fd) {
      return FailErrno(errno, "cannot open {}: {}; set ADIT_STATE_DIR to a folder that can be written", lock,
                       std::strerror(errno));
    }
    // Held for milliseconds by whoever has it.
    while (flock(fd.get(), LOCK_EX) != 0) {
      if (errno != EINTR) return FailErrno(errno, "cannot lock {}: {}", lock, std::strerror(errno));
    }
    return Store(paths, std::move(fd));
  }

  std::string RecordPath(const std::string& name) const { return paths_.folder + "/" + name + std::string(kRecordEnd); }
  std::string OriginalPath() const { return paths_.folder + "/original"; }

  // By turn.
  std::vector<Record> Records() const {
    std::vector<Record> records;
    DIR* const folder = opendir(paths_.folder.c_str());
    if (folder == nullptr) return records;
    while (const dirent* entry = readdir(folder)) {
      std::string_view name(entry->d_name);
      if (!name.ends_with(kRecordEnd)) continue;
      name.remove_suffix(kRecordEnd.size());
      if (!IsInterfaceName(name)) continue;
      records.push_back(ParseRecord(ReadText(RecordPath(std::string(name))).value_or(""), std::string(name)));
    }
    closedir(folder);
    std::ranges::sort(records, {}, &Record::turn);
    return records;
  }

  bool IsOfNow(const Record& record) const { return paths_.boot_id.empty() || record.boot_id == paths_.boot_id; }

  // Those of this boot; the others are deleted. True if there were others.
  bool DropEarlierBoots(std::vector<Record>& records) const {
    const auto count = std::erase_if(records, [this](const Record& record) {
      if (IsOfNow(record)) return false;
      unlink(RecordPath(record.settings.interface_name).c_str());
      return true;
    });
    return count != 0;
  }

  Result<Original> SavedOriginal() const {
    auto text = ReadText(OriginalPath());
    if (!text && text.error().code == ENOENT) return Original{};
    if (!text) return std::unexpected(text.error());
    const auto original = ParseOriginal(*text);
    if (!original) return Fail("{} is damaged; put {} right by hand and delete it", OriginalPath(), paths_.file);
    return *original;
  }

  // What the file is now, ours or not.
  Result<Original> Current() const {
    struct stat info{};
    Original current;
    if (lstat(paths_.file.c_str(), &info) != 0) {
      if (errno == ENOENT) return current;
      return FailErrno(errno, "cannot look at {}: {}", paths_.file, std::strerror(errno));
    }
    if (S_ISLNK(info.st_mode)) {
      std::string target(4096, '\0');
      const ssize_t size = readlink(paths_.file.c_str(), target.data(), target.size());
      if (size <= 0) return FailErrno(errno, "cannot read the link {}: {}", paths_.file, std::strerror(errno));
      target.resize(static_cast<std::size_t>(size));
      current = {Original::Kind::kLink, 0644, std::move(target)};
      return current;
    }
    auto text = ReadText(paths_.file);
    if (!text) return std::unexpected(text.error());
    current = {Original::Kind::kFile, static_cast<mode_t>(info.st_mode & 07777), std::move(*text)};
    return current;
  }

  static bool IsOurs(const Original& current) {
    return current.kind == Original::Kind::kFile && IsOurResolvConf(current.text);
  }

  Status SaveOriginal(const Original& original) const {
    return ReplaceFile(OriginalPath(), OriginalToText(original), 0600);
  }

  // The text behind it: for a link what it leads to now.
  std::string OriginalText(const Original& original) const {
    if (original.kind != Original::Kind::kLink) return original.text;
    const std::string target =
        original.text.starts_with('/') ? original.text : FolderOf(paths_.file) + "/" + original.text;
    return ReadText(target).value_or("");
  }

  std::string Render(const std::vector<Record>& records, const Original& original) const {
    std::vector<DnsSettings> tunnels;
    for (const Record& record : records) tunnels.push_back(record.settings);
    return RenderResolvConf(tunnels, ParseResolvConf(OriginalText(original)), paths_.folder);
  }

  Status Write(const std::vector<Record>& records, const Original& original) const {
    return ReplaceFile(paths_.file, Render(records, original), 0644);
  }

  // After the last record is gone. In this order: a crash in between finds the same work to do.
  Status PutBack() const {
    const auto current = Current();
    if (!current) return std::unexpected(current.error());
    if (IsOurs(*current)) {
      const auto original = SavedOriginal();
      if (!original) return std::unexpected(original.error());
      Status done;
      switch (original->kind) {
        case Original::Kind::kFile:
          done = ReplaceFile(paths_.file, original->text, original->mode);
          break;
        case Original::Kind::kLink:
          done = ReplaceByLink(paths_.file, original->text);
          break;
        case Original::Kind::kAbsent:
          if (unlink(paths_.file.c_str()) != 0 && errno == EBUSY) done = WriteInPlace(paths_.file, "", EBUSY);
          break;
      }
      if (!done) return done;
    }
    unlink(OriginalPath().c_str());
    return {};
  }

 private:
  Store(const ResolvPaths& paths, Fd lock) : paths_(paths), lock_(std::move(lock)) {}
  const ResolvPaths& paths_;
  Fd lock_;
};

}  // namespace

ResolvPaths SystemResolvPaths() {
  ResolvPaths paths;
  const char* const state = std::getenv("ADIT_STATE_DIR");
  if (state != nullptr && *state != '\0') paths.folder = std::string(state) + "/dns";
  if (auto id = ReadText("/proc/sys/kernel/random/boot_id")) paths.boot_id = Trim(id->substr(0, id->find('\n')));
  return paths;
}

Status WriteResolvFile(const ResolvPaths& paths, const DnsSettings& settings) {
  auto store = Store::Open(paths, true);
  if (!store) return std::unexpected(store.error());
  auto current = store->Current();
  if (!current) return std::unexpected(current.error());
  Original original;
  if (Store::IsOurs(*current)) {
    auto saved = store->SavedOriginal();
    if (!saved) return std::unexpected(saved.error());
    original = std::move(*saved);
  } else {
    if (auto saved = store->SaveOriginal(*current); !saved) return saved;
    original = std::move(*current);
  }
  auto records = store->Records();
  store->DropEarlierBoots(records);
  std::erase_if(records, [&](const Record& r) { return r.settings.interface_name == settings.interface_name; });
  records.push_back({settings, paths.boot_id, records.empty() ? 1 : records.back().turn + 1});
  if (auto done = ReplaceFile(store->RecordPath(settings.interface_name), RecordToText(records.back()), 0600); !done) {
    return done;
  }
  return store->Write(records, original);
}

Status RepairResolvFile(const ResolvPaths& paths) {
  auto store = Store::Open(paths, false);
  if (!store) return std::unexpected(store.error());
  auto records = store->Records();
  store->DropEarlierBoots(records);
  if (records.empty()) return Fail("the records in {} are gone", paths.folder);
  auto current = store->Current();
  if (!current) return std::unexpected(current.error());
  auto original = store->SavedOriginal();
  if (!original) return std::unexpected(original.error());
  // Absent is no wish of anybody's: a file that is being replaced looks like that. Nor is a copy of our own lines.
  const bool is_news = !Store::IsOurs(*current) && current->kind != Original::Kind::kAbsent &&
                       !NamesOnly(ParseResolvConf(store->OriginalText(*current)), records.back().settings.servers);
  if (is_news) {
    if (auto saved = store->SaveOriginal(*current); !saved) return saved;
    original = std::move(*current);
  }
  return store->Write(records, *original);
}

Result<bool> ResolvFileIsOurs(const ResolvPaths& paths) {
  auto store = Store::Open(paths, false);
  if (!store) return std::unexpected(store.error());
  auto records = store->Records();
  std::erase_if(records, [&](const Record& record) { return !store->IsOfNow(record); });
  const auto current = store->Current();
  if (!current) return std::unexpected(current.error());
  const auto original = store->SavedOriginal();
  if (!original) return std::unexpected(original.error());
  return Store::IsOurs(*current) && !records.empty() && current->text == store->Render(records, *original);
}

Status RemoveFromResolvFile(const ResolvPaths& paths, const std::string& interface_name) {
  if (!HasResolvRecord(paths, interface_name)) return {};
  auto store = Store::Open(paths, false);
  if (!store) return std::unexpected(store.error());
  auto records = store->Records();
  store->DropEarlierBoots(records);
  std::erase_if(records, [&](const Record& r) { return r.settings.interface_name == interface_name; });
  if (records.empty()) {
    if (auto done = store->PutBack(); !done) return done;
  } else {
    const auto current = store->Current();
    if (!current) return std::unexpected(current.error());
    const auto original = store->SavedOriginal();
    if (!original) return std::unexpected(original.error());
    if (Store::IsOurs(*current)) {
      if (auto done = store->Write(records, *original); !done) return done;
    }
  }
  unlink(store->RecordPath(interface_name).c_str());
  return {};
}

Result<bool> RemoveEarlierBoots(const ResolvPaths& paths) {
  if (access(paths.folder.c_str(), F_OK) != 0) return false;
  auto store = Store::Open(paths, false);
  if (!store) return std::unexpected(store.error());
  auto records = store->Records();
  const auto is_earlier = [&](const Record& record) { return !store->IsOfNow(record); };
  if (!std::ranges::any_of(records, is_earlier)) return false;
  if (std::ranges::all_of(records, is_earlier)) {
    if (auto done = store->PutBack(); !done) return std::unexpected(done.error());
  }
  store->DropEarlierBoots(records);
  return true;
}

bool HasResolvRecord(const ResolvPaths& paths, const std::string& interface_name) {
  return access((paths.folder + "/" + interface_name + std::string(kRecordEnd)).c_str(), F_OK) == 0;
}

std::string ReadOwnResolvConf(const ResolvPaths& paths) {
  auto text = ReadText(paths.file).value_or("");
  if (!IsOurResolvConf(text)) return text;
  auto store = Store::Open(paths, false);
  if (!store) return "";
  const auto original = store->SavedOriginal();
  return original ? store->OriginalText(*original) : "";
}

// ---- the watch

namespace {
constexpr std::uint32_t kFolderEvents = IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CLOSE_WRITE;
constexpr std::uint32_t kFileEvents = IN_CLOSE_WRITE | IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;
}  // namespace

Result<std::unique_ptr<FileWatch>> FileWatch::Open(const std::string& path) {
  Fd fd(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
  if (!fd) return FailErrno(errno, "cannot watch {}: {}", path, std::strerror(errno));
  std::unique_ptr<FileWatch> watch(new FileWatch(path, std::move(fd)));
  watch->name_ = path.substr(path.rfind('/') + 1);
  watch->folder_watch_ = inotify_add_watch(watch->fd(), FolderOf(path).c_str(), kFolderEvents | IN_ONLYDIR);
  if (watch->folder_watch_ < 0) {
    return FailErrno(errno, "cannot watch {}: {}", FolderOf(path), std::strerror(errno));
  }
  watch->WatchFile();
  return watch;
}

void FileWatch::WatchFile() {
  const int before = file_watch_;
  file_watch_ = inotify_add_watch(fd(), path_.c_str(), kFileEvents);
  if (before >= 0 && before != file_watch_) inotify_rm_watch(fd(), before);
}

bool FileWatch::Process() {
  bool is_meant = false;
  alignas(inotify_event) char buffer[4096];
  for (;;) {
    const ssize_t size = read(fd(), buffer, sizeof buffer);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    for (const char* at = buffer; at < buffer + size;) {
      const auto* event = reinterpret_cast<const inotify_event*>(at);
      at += sizeof(inotify_event) + event->len;
      if ((event->mask & IN_Q_OVERFLOW) != 0) is_meant = true;
      if (event->wd == folder_watch_) is_meant |= event->len != 0 && name_ == event->name;
      if (event->wd == file_watch_ && (event->mask & IN_IGNORED) == 0) is_meant = true;
    }
  }
  if (is_meant) WatchFile();
  return is_meant;
}

// ---- the backend

void ResolvFileDns::Apply(Instant) {
  if (auto written = WriteResolvFile(paths_, settings_); !written) {
    return SetState(DnsHealth::kDegraded, written.error().message);
  }
  auto watch = FileWatch::Open(paths_.file);
  if (!watch) {
    return SetState(DnsHealth::kDegraded, watch.error().message + "; whoever writes it will not be noticed");
  }
  watch_ = std::move(*watch);
  SetState(DnsHealth::kGood);
}

Status ResolvFileDns::Remove() {
  watch_.reset();
  return RemoveFromResolvFile(paths_, settings_.interface_name);
}

void ResolvFileDns::Process(Instant now) {
  if (!watch_) return;
  if (watch_->Process()) guard_.OnEvent(now);
  if (guard_.next_look() && *guard_.next_look() <= now) Look(now);
}

void ResolvFileDns::Look(Instant now) {
  const auto is_ours = ResolvFileIsOurs(paths_);
  switch (guard_.OnLook(is_ours.value_or(false), now)) {
    case TrampleGuard::Verdict::kFine:
      SetState(DnsHealth::kGood);
      break;
    case TrampleGuard::Verdict::kLeaveIt:
      SetState(DnsHealth::kDegraded,
               fmt::format("another program keeps writing {}; it was put right {} times and is left alone now",
                           paths_.file, guard_.repair_count()));
      break;
    case TrampleGuard::Verdict::kRepair: {
      const Status repaired = RepairResolvFile(paths_);
      guard_.OnRepaired(repaired.has_value(), now);
      if (repaired) {
        SetState(DnsHealth::kGood);
      } else {
        SetState(DnsHealth::kDegraded, repaired.error().message);
      }
      state_.repairs = guard_.repair_count();
      break;
    }
  }
}

}  // namespace adit
