#include "tun/device.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <thread>
#include <utility>

#include "tun/split.h"

// Newer than the headers of Debian 12; the values are the kernel's ABI.
#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif
#ifndef TUNGETDEVNETNS
#define TUNGETDEVNETNS _IO('T', 227)
#endif

namespace adit {
namespace {

constexpr char kTunPath[] = "/dev/net/tun";

ifreq NamedRequest(const std::string& name) {
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof(request.ifr_name) - 1));
  return request;
}

Result<Fd> OpenTun() {
  Fd fd(open(kTunPath, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (fd) return fd;
  const int code = errno;
  switch (code) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
      // Not ENODEV, which is also what a link says that somebody has deleted.
      return FailErrno(code == ENODEV ? EOPNOTSUPP : code,
                       "there is no TUN driver behind {}: run `modprobe tun`, or in a container add the device "
                       "(--device /dev/net/tun)",
                       kTunPath);
    case EACCES:
    case EPERM:
      return FailErrno(code,
                       "{} may not be opened: run as root, or in a container allow the device "
                       "(--device /dev/net/tun)",
                       kTunPath);
    default:
      return FailErrno(code, "{} cannot be opened: {}", kTunPath, std::strerror(code));
  }
}

std::unexpected<Error> ExplainAttach(int code, const std::string& name) {
  switch (code) {
    case EPERM:
    case EACCES:
      return FailErrno(code,
                       "no permission to create the interface {}: run as root or grant CAP_NET_ADMIN (in a container: "
                       "--cap-add NET_ADMIN)",
                       name);
    case EBUSY:
      return FailErrno(code, "the interface {} is in use by another program: stop it or choose another name", name);
    case EINVAL:
      if (if_nametoindex(name.c_str()) != 0) {
        return FailErrno(
            EEXIST,
            "an interface named {} exists and is no free TUN device of the wanted kind: remove it with `ip "
            "link del {}` or choose another name",
            name, name);
      }
      return FailErrno(code, "the kernel does not accept {} as an interface name: choose another", name);
    default:
      return FailErrno(code, "the interface {} cannot be created: {}", name, std::strerror(code));
  }
}

Status CheckName(const std::string& name) {
  if (name.size() >= IFNAMSIZ) {
    return FailErrno(ENAMETOOLONG, "the interface name {} is too long: at most {} characters", name, IFNAMSIZ - 1);
  }
  const auto is_bad = [](char c) { return c == '/' || c == ':' || static_cast<unsigned char>(c) <= ' ' || c == 0x7f; };
  if (name == "." || name == ".." || std::ranges::any_of(name, is_bad)) {
    return FailErrno(EINVAL, "'{}' cannot be an interface name: no spaces, slashes or colons", name);
  }
  return {};
}

// Runs `work` with a socket of the network namespace `space`. A thread of its own enters another namespace, so that
// ours never leaves its own; the common case, the same namespace, needs none.
Status WithSocketIn(const Fd& space, const std::function<Status(int)>& work) {
  const auto run = [&]() -> Status {
    const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    const Fd fallback(socket ? -1 : ::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    if (!socket && !fallback) return FailErrno(errno, "no socket to ask the kernel with: {}", std::strerror(errno));
    return work(socket ? socket.get() : fallback.get());
  };
  struct stat ours{};
  struct stat theirs{};
  if (!space || (stat("/proc/thread-self/ns/net", &ours) == 0 && fstat(space.get(), &theirs) == 0 &&
                 ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino)) {
    return run();
  }
  Status status;
  std::thread([&] {
    if (setns(space.get(), CLONE_NEWNET) != 0) {
      status = FailErrno(errno, "the link's network namespace cannot be entered: {}", std::strerror(errno));
    } else {
      status = run();
    }
  }).join();
  return status;
}

IoStatus ClassifyRead(int code) {
  switch (code) {
    case EAGAIN:
      return IoStatus::kWouldBlock;
    case EBADFD:  // what Linux answers once the link is deleted
    case EBADF:
    case ENODEV:
    case ENXIO:
      return IoStatus::kGone;
    default:
      return IoStatus::kRetry;
  }
}

// As for reading, but an unknown refusal is this packet's: the next one may pass.
IoStatus ClassifyWrite(int code) {
  switch (code) {
    case EINTR:
    case EIO:
    case ENOBUFS:
    case ENOMEM:
      return IoStatus::kRetry;
    default:
      const IoStatus status = ClassifyRead(code);
      return status == IoStatus::kRetry ? IoStatus::kInvalid : status;
  }
}

}  // namespace

Result<std::unique_ptr<TunDevice>> TunDevice::Create(const std::string& name, const TunOptions& options) {
  if (auto status = CheckName(name); !status) return std::unexpected(status.error());
  if (options.queues == 0 || options.queues > kMaxTunQueues) {
    return FailErrno(EINVAL, "{} TUN queues: choose 1 to {}", options.queues, kMaxTunQueues);
  }
  std::unique_ptr<TunDevice> device(new TunDevice(options));
  device->first_name_ = name;
  for (unsigned i = 0; i < options.queues; ++i) {
    auto fd = OpenTun();
    if (!fd) return std::unexpected(fd.error());
    if (i == 0) {
      unsigned features = 0;
      if (ioctl(fd->get(), TUNGETFEATURES, &features) != 0) features = 0;
      device->has_vnet_hdr_ = options.vnet_hdr && (features & IFF_VNET_HDR) != 0;
    }
    ifreq request = NamedRequest(device->first_name_);
    request.ifr_flags = static_cast<short>(IFF_TUN | IFF_NO_PI | (device->has_vnet_hdr_ ? IFF_VNET_HDR : 0) |
                                           (options.queues > 1 ? IFF_MULTI_QUEUE : 0));
    if (ioctl(fd->get(), TUNSETIFF, &request) != 0) return ExplainAttach(errno, device->first_name_);
    device->first_name_ = request.ifr_name;
    device->queues_.push_back(std::move(*fd));
  }
  device->ProbeOffloads();

  // Wanted, not needed: without it bursts of small packets are lost in the kernel's queue.
  const Fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  ifreq request = NamedRequest(device->first_name_);
  request.ifr_qlen = kTunQueueLength;
  if (socket) (void)ioctl(socket.get(), SIOCSIFTXQLEN, &request);

  if (options.mtu != 0) {
    if (auto status = device->SetMtu(options.mtu); !status) return std::unexpected(status.error());
  }
  return device;
}

Result<std::unique_ptr<TunDevice>> TunDevice::FromFd(Fd fd, const TunOptions& options) {
  std::unique_ptr<TunDevice> device(new TunDevice(options));
  ifreq request{};
  if (ioctl(fd.get(), TUNGETIFF, &request) != 0) {
    const int code = errno;
    return FailErrno(code, "the inherited descriptor {} is not an attached TUN device: {}", fd.get(),
                     std::strerror(code));
  }
  const unsigned flags = static_cast<unsigned short>(request.ifr_flags);
  if ((flags & IFF_TUN) == 0) {
    return FailErrno(EINVAL, "the inherited device {} is a TAP device: open it with IFF_TUN | IFF_NO_PI",
                     request.ifr_name);
  }
  const int status_flags = fcntl(fd.get(), F_GETFL);
  if (status_flags < 0 || fcntl(fd.get(), F_SETFL, status_flags | O_NONBLOCK) != 0 ||
      fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    const int code = errno;
    return FailErrno(code, "the inherited device {} cannot be made non-blocking: {}", request.ifr_name,
                     std::strerror(code));
  }
  device->first_name_ = request.ifr_name;
  device->has_vnet_hdr_ = (flags & IFF_VNET_HDR) != 0;
  device->queues_.push_back(std::move(fd));
  device->ProbeOffloads();
  if (device->has_vnet_hdr_) {
    int header_bytes = 0;
    if (ioctl(device->queue_fd(0), TUNGETVNETHDRSZ, &header_bytes) != 0 || header_bytes != sizeof(VirtioHeader)) {
      return FailErrno(EINVAL,
                       "the inherited device {} has a virtio header of {} bytes and keeps it: open it without "
                       "IFF_VNET_HDR or with one of {} bytes",
                       request.ifr_name, header_bytes, sizeof(VirtioHeader));
    }
  }
  if (options.mtu != 0) {
    if (auto status = device->SetMtu(options.mtu); !status) return std::unexpected(status.error());
  }
  return device;
}

// Steps down from everything that is allowed to nothing. The kernel takes a set whole or not at all (EINVAL), USO4 and
// USO6 only together, and all of them only with TUN_F_CSUM.
void TunDevice::ProbeOffloads() {
  if (!has_vnet_hdr_) return;
  int header_bytes = sizeof(VirtioHeader);
  (void)ioctl(queue_fd(0), TUNSETVNETHDRSZ, &header_bytes);  // 10 is also the default; a persistent device may differ

  constexpr unsigned kTso = TUN_F_TSO4 | TUN_F_TSO6;
  constexpr unsigned kTsoEcn = kTso | TUN_F_TSO_ECN;
  constexpr unsigned kUso = TUN_F_USO4 | TUN_F_USO6;
  unsigned allowed = 0;
  if (options_.vnet_hdr) allowed |= TUN_F_CSUM;
  if (options_.vnet_hdr && options_.tso) allowed |= kTsoEcn;
  if (options_.vnet_hdr && options_.uso) allowed |= kUso;
  for (const unsigned offered : {TUN_F_CSUM | kTsoEcn | kUso, TUN_F_CSUM | kTsoEcn, TUN_F_CSUM | kTso | kUso,
                                 TUN_F_CSUM | kTso, TUN_F_CSUM | kUso, unsigned{TUN_F_CSUM}, 0U}) {
    const unsigned set = offered & allowed;
    if (ioctl(queue_fd(0), TUNSETOFFLOAD, static_cast<unsigned long>(set)) != 0) continue;
    has_checksum_ = (set & TUN_F_CSUM) != 0;
    has_tso_ = (set & kTso) != 0;
    has_uso_ = (set & kUso) != 0;
    return;
  }
}

std::string TunDevice::name() const {
  ifreq request{};
  return ioctl(queue_fd(0), TUNGETIFF, &request) == 0 ? std::string(request.ifr_name) : first_name_;
}

TunOffloads TunDevice::offloads() const {
  return {.vnet_hdr = has_vnet_hdr_,
          .checksum = has_checksum_,
          .tso = has_tso_.load(std::memory_order_relaxed),
          .uso = has_uso_.load(std::memory_order_relaxed)};
}

TunRead TunDevice::Read(unsigned queue, MutableBytes buffer, std::size_t headroom) {
  TunRead result;
  const MutableBytes room = buffer.subspan(headroom);
  const iovec parts[2] = {{.iov_base = &result.header, .iov_len = sizeof(VirtioHeader)},
                          {.iov_base = room.data(), .iov_len = std::min(room.size(), kMaxPacketBytes)}};
  const std::size_t header_bytes = has_vnet_hdr_ ? sizeof(VirtioHeader) : 0;
  const ssize_t got = has_vnet_hdr_ ? options_.calls.readv(queue_fd(queue), parts, 2)
                                    : options_.calls.readv(queue_fd(queue), parts + 1, 1);
  if (got < 0) {
    result.status = ClassifyRead(errno);
  } else if (static_cast<std::size_t>(got) <= header_bytes) {
    result.status = IoStatus::kRetry;
  } else {
    result.packet = room.first(static_cast<std::size_t>(got) - header_bytes);
  }
  return result;
}

IoStatus TunDevice::Write(unsigned queue, const TunWrite& write) {
  if (!has_vnet_hdr_ && write.header.gso_type != kVirtioGsoNone) return WriteSingly(queue, write);
  const IoStatus status = WriteParts(queue, write.header, write.parts);
  if (status != IoStatus::kInvalid || write.header.gso_type == kVirtioGsoNone) return status;

  const IoStatus single_status = WriteSingly(queue, write);
  if (single_status == IoStatus::kOk) {
    if (write.header.gso_type == kVirtioGsoUdpL4) {
      Degrade(has_uso_, "the kernel refuses merged UDP packets on the TUN device: writing them one by one from now on");
    } else {
      Degrade(has_tso_, "the kernel refuses merged TCP packets on the TUN device: writing them one by one from now on");
    }
  }
  return single_status;
}

IoStatus TunDevice::WriteParts(unsigned queue, VirtioHeader header, std::span<const iovec> parts) {
  std::array<iovec, 1 + kMaxWriteParts> all;
  if (parts.size() > kMaxWriteParts) return IoStatus::kInvalid;
  all[0] = {.iov_base = &header, .iov_len = sizeof(header)};
  std::ranges::copy(parts, all.begin() + 1);
  const iovec* const from = has_vnet_hdr_ ? all.data() : all.data() + 1;
  const int count = static_cast<int>(parts.size()) + (has_vnet_hdr_ ? 1 : 0);
  return options_.calls.writev(queue_fd(queue), from, count) < 0 ? ClassifyWrite(errno) : IoStatus::kOk;
}

// The way back for a super-packet that the kernel does not take: gather it and split it again. Rare, so it may
// allocate. kOk if at least one packet was taken.
IoStatus TunDevice::WriteSingly(unsigned queue, const TunWrite& write) {
  std::vector<std::uint8_t> whole;
  whole.reserve(write.bytes);
  for (const iovec& part : write.parts) {
    const auto* const from = static_cast<const std::uint8_t*>(part.iov_base);
    whole.insert(whole.end(), from, from + part.iov_len);
  }
  Splitter splitter(write.header, whole);
  IoStatus status = IoStatus::kInvalid;
  while (const auto segment = splitter.Next()) {
    const iovec parts[2] = {
        {.iov_base = const_cast<std::uint8_t*>(segment->head.data()), .iov_len = segment->head.size()},
        {.iov_base = segment->body.data(), .iov_len = segment->body.size()}};
    const IoStatus one = WriteParts(queue, VirtioHeader{}, parts);
    if (one == IoStatus::kGone) return one;
    if (one == IoStatus::kOk || status != IoStatus::kOk) status = one;
  }
  return status;
}

void TunDevice::Degrade(std::atomic<bool>& kind, std::string_view sentence) {
  if (!kind.exchange(false)) return;
  degrade_count_.fetch_add(1, std::memory_order_relaxed);
  if (options_.on_degrade) options_.on_degrade(sentence);
}

Result<int> TunDevice::NetworkNamespaceFd() const {
  const int space = ioctl(queue_fd(0), TUNGETDEVNETNS);
  if (space >= 0) return space;
  const int code = errno;
  return FailErrno(code, "the network namespace of {} is not known: {}", name(), std::strerror(code));
}

Result<unsigned> TunDevice::Mtu() const {
  Fd space;
  if (auto found = NetworkNamespaceFd()) space = Fd(*found);  // else (before Linux 5.11): it never left ours
  unsigned mtu = 0;
  auto status = WithSocketIn(space, [&](int socket) -> Status {
    ifreq request = NamedRequest(name());
    if (ioctl(socket, SIOCGIFMTU, &request) != 0) {
      const int code = errno;
      return FailErrno(code, "the MTU of {} cannot be read: {}", request.ifr_name, std::strerror(code));
    }
    mtu = static_cast<unsigned>(request.ifr_mtu);
    return {};
  });
  if (!status) return std::unexpected(status.error());
  return mtu;
}

Status TunDevice::SetMtu(unsigned mtu) const {
  Fd space;
  if (auto found = NetworkNamespaceFd()) space = Fd(*found);
  return WithSocketIn(space, [&](int socket) -> Status {
    ifreq request = NamedRequest(name());
    request.ifr_mtu = static_cast<int>(mtu);
    if (ioctl(socket, SIOCSIFMTU, &request) == 0) return {};
    const int code = errno;
    return FailErrno(code, "{} does not take an MTU of {}: choose 576 to 65535 ({})", request.ifr_name, mtu,
                     std::strerror(code));
  });
}

}  // namespace adit
