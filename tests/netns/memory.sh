#!/usr/bin/env bash
# What a tunnel keeps in memory: idle, and at its peak under all the load that the machine can make, with one thread a
# direction and with sixteen.
#
#   [left] 192.0.2.1 ---- veth ---- 192.0.2.2 [right]
#    wg0   10.9.0.1                  10.9.0.2  wg0
#
# timeout: 120
# alone: its load takes all cores
. "$(dirname "$0")/lib.sh"
require_tools wg iperf3 ping

idle_limit=30000 loaded_limit=100000  # kB

host left
host right
link left right 192.0.2.1/24 192.0.2.2/24
make_keys left right
left=$(cat "$tmp/left.pub") right=$(cat "$tmp/right.pub")

# kilobytes HOST FIELD: of /proc/PID/status.
kilobytes() { awk -v field="$2:" '$1 == field { print $2 }' "/proc/${pids[$1-wg0]}/status"; }
below() { (($1 > 0 && $1 < $2)); }

for threads in 1 16; do
  export WG_THREADS=$threads
  start_device left wg0
  start_device right wg0
  n left wg set wg0 private-key "$tmp/left.key" listen-port 51820 \
    peer "$right" allowed-ips 10.9.0.2/32 endpoint 192.0.2.2:51821
  n right wg set wg0 private-key "$tmp/right.key" listen-port 51821 \
    peer "$left" allowed-ips 10.9.0.1/32 endpoint 192.0.2.1:51820
  n left ip address add 10.9.0.1/24 dev wg0
  n right ip address add 10.9.0.2/24 dev wg0
  for side in left right; do n "$side" ip link set wg0 mtu 1420 up; done
  check "$threads threads: the tunnel is up" n left ping -c 1 -W 5 10.9.0.2
  for side in left right; do
    idle=$(kilobytes "$side" VmRSS)
    check "... idle, $side: $idle kB, below $idle_limit" below "$idle" "$idle_limit"
  done
  rate=$(transfer right left 10.9.0.2 3 -P 8 --bidir)
  check "... eight streams both ways ($rate Mb/s)" test "$rate" -gt 5
  rate=$(transfer right left 10.9.0.2 2 -u -b 0 -l 64)
  check "... small packets without end ($rate Mb/s)" test "$rate" -ge 1
  for side in left right; do
    peak=$(kilobytes "$side" VmHWM)
    check "... peak under load, $side: $peak kB, below $loaded_limit" below "$peak" "$loaded_limit"
  done
  for side in left right; do stop "$side-wg0"; done
done
