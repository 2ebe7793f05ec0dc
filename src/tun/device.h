// The TUN device (door): opens it, probes its offloads, reads and writes super-packets. IFF_TUN, no packet information,
// IFF_VNET_HDR where the kernel has it.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "tun/coalesce.h"
#include "tun/virtio.h"

namespace adit {

// Each offload is probed by a real operation at start and can be forbidden here.
struct TunOptions {
  unsigned queues = 1;  // IFF_MULTI_QUEUE when more than one
  bool vnet_hdr = true;
  bool tso = true;  // TUN_F_TSO4|TSO6|TSO_ECN (needs checksum offload)
  bool uso = true;  // TUN_F_USO4|USO6, Linux 6.2
  unsigned mtu = 0;  // 0: leave as it is
};

struct TunOffloads {
  bool vnet_hdr = false;
  bool checksum = false;
  bool tso = false;
  bool uso = false;
};

enum class IoStatus {
  kOk,
  kWouldBlock,
  kRetry,    // a passing condition (EINTR, ENOBUFS, EIO because the link is down): nothing was moved
  kInvalid,  // the kernel refused this packet (EINVAL): drop it
  kGone,     // the device was removed: the engine ends
};

struct TunRead {
  IoStatus status = IoStatus::kOk;
  VirtioHeader header;   // all zeros without vnet_hdr
  MutableBytes packet;   // inside the buffer that was passed
};

// Thread-safe as the kernel is: different threads may use different queues, and any thread may write to any queue.
class TunDevice {
 public:
  // Creates (or attaches to a persistent, unused) TUN `name`. Errors name the cure: no /dev/net/tun, no CAP_NET_ADMIN, name taken, name too long. The
  // Error's code is the errno value.
  static Result<std::unique_ptr<TunDevice>> Create(const std::string& name, const TunOptions& options);
  // Adopts WG_TUN_FD: an open TUN descriptor with its flags set by whoever made it.
  static Result<std::unique_ptr<TunDevice>> FromFd(Fd fd, const TunOptions& options);
  ~TunDevice();

  // The current name: the link may have been renamed or moved.
  const std::string& name() const { return name_; }
  unsigned queue_count() const;
  int queue_fd(unsigned queue) const;  // non-blocking; for epoll
  TunOffloads offloads() const;

  // One read: one packet or super-packet. `buffer` holds at least sizeof(VirtioHeader) + kMaxPacketBytes bytes; the packet starts at
  // an offset of at least `headroom` bytes, which the caller may scribble on.
  TunRead Read(unsigned queue, MutableBytes buffer, std::size_t headroom);
  // One write of one (super-)packet. On EINVAL for a super-packet the device switches that kind of merging off by itself
  // (offloads() changes, one log line through `on_degrade`), writes the packets singly where it can and returns kOk.
  IoStatus Write(unsigned queue, TunWrite& write);

  Result<unsigned> Mtu() const;          // ioctl in the device's own network namespace
  Result<int> NetworkNamespaceFd() const;  // TUNGETDEVNETNS; the caller owns it. Follows the link when it is moved
  std::uint64_t degrade_count() const;

 private:
  TunDevice() = default;
  std::string name_;
};

}  // namespace adit
