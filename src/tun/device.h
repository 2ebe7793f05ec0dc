// The TUN device (door): opens it, probes its offloads, reads and writes super-packets. IFF_TUN, no packet information,
// IFF_VNET_HDR where the kernel has it.
#pragma once

#include <sys/uio.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/fd.h"
#include "base/result.h"
#include "tun/coalesce.h"
#include "tun/virtio.h"

namespace adit {

// The two system calls of the data path, as a value: a test hands in ones that fail.
struct TunCalls {
  ssize_t (*readv)(int fd, const iovec* parts, int count) = ::readv;
  ssize_t (*writev)(int fd, const iovec* parts, int count) = ::writev;
};

// Each offload is probed by a real operation at start and can be forbidden here.
struct TunOptions {
  unsigned queues = 1;  // IFF_MULTI_QUEUE when more than one; at most kMaxTunQueues
  bool vnet_hdr = true;
  bool tso = true;   // TUN_F_TSO4|TSO6|TSO_ECN (needs checksum offload)
  bool uso = true;   // TUN_F_USO4|USO6, Linux 6.2
  unsigned mtu = 0;  // 0: leave as it is
  // Called once per kind of merging that the kernel turned out not to take, on the thread that wrote; may be empty.
  std::function<void(std::string_view)> on_degrade{};
  TunCalls calls{};
};

inline constexpr unsigned kMaxTunQueues = 256;  // MAX_TAP_QUEUES of the kernel

// The kernel's default of 500 packets overflows in one burst of UDP and drops silently; memory is used only when
// filled.
inline constexpr int kTunQueueLength = 4000;

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
  VirtioHeader header;  // all zeros without vnet_hdr
  MutableBytes packet;  // inside the buffer that was passed
};

// Thread-safe as the kernel is: different threads may use different queues, and any thread may write to any queue.
class TunDevice {
 public:
  // Creates (or attaches to a persistent, unused) TUN `name`; an empty name or one with %d lets the kernel choose.
  // Errors name the cure: no /dev/net/tun, no CAP_NET_ADMIN, name taken, name too long. The Error's code is the errno
  // value.
  static Result<std::unique_ptr<TunDevice>> Create(const std::string& name, const TunOptions& options);
  // Adopts WG_TUN_FD: an open TUN descriptor with its flags set by whoever made it. One queue. It may lack
  // IFF_VNET_HDR. It must have been made with IFF_NO_PI, which cannot be checked: the kernel reports that flag in any
  // case (Linux 6.18).
  static Result<std::unique_ptr<TunDevice>> FromFd(Fd fd, const TunOptions& options);

  // The current name: the link may have been renamed or moved. Asks the kernel; once the link is gone, the name it
  // began with.
  std::string name() const;
  unsigned queue_count() const { return static_cast<unsigned>(queues_.size()); }
  int queue_fd(unsigned queue) const { return queues_[queue].get(); }  // non-blocking; for epoll
  // tso and uso turn false when Write() found that the kernel refuses such super-packets; reads may still carry them.
  TunOffloads offloads() const;

  // One read: one packet or super-packet. The packet starts at buffer[headroom]; buffer.size() is at least headroom +
  // kMaxPacketBytes (else long packets are cut off, as the kernel does it).
  TunRead Read(unsigned queue, MutableBytes buffer, std::size_t headroom);
  // One write of one (super-)packet. On EINVAL for a super-packet whose single packets the kernel takes, the device
  // switches that kind of merging off by itself (offloads() changes, one line through `on_degrade`) and returns kOk.
  IoStatus Write(unsigned queue, const TunWrite& write);

  // In the device's own network namespace, wherever the link was moved.
  Result<unsigned> Mtu() const;
  Result<int> NetworkNamespaceFd() const;  // TUNGETDEVNETNS; the caller owns it. Follows the link when it is moved
  std::uint64_t degrade_count() const { return degrade_count_.load(std::memory_order_relaxed); }

 private:
  explicit TunDevice(const TunOptions& options) : options_(options) {}
  void ProbeOffloads();
  Status SetMtu(unsigned mtu) const;
  IoStatus WriteParts(unsigned queue, VirtioHeader header, std::span<const iovec> parts);
  IoStatus WriteSingly(unsigned queue, const TunWrite& write);
  void Degrade(std::atomic<bool>& kind, std::string_view sentence);

  // Constant after Create() or FromFd().
  TunOptions options_;
  std::string first_name_;
  std::vector<Fd> queues_;
  bool has_vnet_hdr_ = false;
  bool has_checksum_ = false;

  // Any thread.
  std::atomic<bool> has_tso_ = false;
  std::atomic<bool> has_uso_ = false;
  std::atomic<std::uint64_t> degrade_count_ = 0;
};

}  // namespace adit
