// Reload: from what a file says and what the device has to the smallest change that keeps the sessions of unchanged
// peers (`wg syncconf`). Pure.
#pragma once

#include "config/device.h"

namespace adit {

// `wanted` is ToDeviceUpdate's. The result removes peers that are gone first, clears preshared keys and keepalives that
// are gone, and leaves the mark alone, because it belongs to the rules in force. A listen port is changed only to one
// that the file names.
DeviceUpdate MakeSyncUpdate(DeviceUpdate wanted, const DeviceStatus& now);

}  // namespace adit
