#!/usr/bin/env bash
# Every thread at work at once, also under ThreadSanitizer: TCP both ways with several streams, small packets, peers that come
# and go, dumps, rekeying keys, link down and up, a port that changes, and the end in the middle of it.
#
#   [left] 192.0.2.1 ---- veth ---- 192.0.2.2 [right]
#    wg0   10.9.0.1, fd09::1         10.9.0.2, fd09::2  wg0
#
# timeout: 170
# alone: its load takes all cores
# also with: asan tsan
. "$(dirname "$0")/lib.sh"
require_tools wg iperf3 ping

host left
host right
link left right 192.0.2.1/24 192.0.2.2/24
make_keys left right
export WG_THREADS=4 ADIT_TUN_QUEUES=2  # four threads a direction, outbound two to a TUN queue
start_device left wg0
start_device right wg0
left=$(cat "$tmp/left.pub") right=$(cat "$tmp/right.pub")
n left wg set wg0 private-key "$tmp/left.key" listen-port 51820 \
  peer "$right" allowed-ips 10.9.0.2/32,fd09::2/128 endpoint 192.0.2.2:51821
n right wg set wg0 private-key "$tmp/right.key" listen-port 51821 \
  peer "$left" allowed-ips 10.9.0.1/32,fd09::1/128 endpoint 192.0.2.1:51820
for side in left right; do
  number=$([[ $side == left ]] && echo 1 || echo 2)
  n "$side" ip address add "10.9.0.$number/24" dev wg0
  n "$side" ip address add "fd09::$number/64" dev wg0
  n "$side" ip link set wg0 mtu 1420 up
done
check "the tunnel is up" n left ping -c 1 -W 5 10.9.0.2

# Peers come and go, and are listed, while traffic flows.
churn() {
  local i key
  for i in {1..60}; do
    key=$(wg genkey | wg pubkey)
    n left wg set wg0 peer "$key" allowed-ips "10.20.$i.0/24,10.9.0.2/31" endpoint 192.0.2.2:51899
    n left wg set wg0 peer "$right" allowed-ips 10.9.0.2/32,fd09::2/128
    n left wg show all dump >/dev/null
    n left wg set wg0 peer "$key" remove
    n right wg show wg0 >/dev/null
    if ((i % 20 == 0)); then n left wg set wg0 listen-port $((51830 + i)); fi
    if ((i % 25 == 0)); then n right wg set wg0 fwmark $i; fi
  done
}
churn &
churn=$!
rate=$(transfer right left 10.9.0.2 3 -P 4)
check "four streams, while peers come and go ($rate Mb/s)" test "$rate" -gt 5
rate=$(transfer right left fd09::2 2 --bidir)
check "both directions at once, IPv6 inside ($rate Mb/s)" test "$rate" -gt 5
check "the changes all succeeded" wait "$churn"
rate=$(transfer right left 10.9.0.2 2 -u -b 100M -l 64)
check "small UDP packets ($rate Mb/s)" test "$rate" -ge 1
n left ping -q -f -c 2000 10.9.0.2 >/dev/null &
flood=$!
for i in 1 2 3; do
  n left ip link set wg0 down
  n left ip link set wg0 up
  n left wg set wg0 private-key <(wg genkey)
  n left wg set wg0 private-key "$tmp/left.key"
done
wait "$flood" || true
check "after link changes and key changes it heals" n left timeout 20 bash -c 'until ping -c 1 -W 1 10.9.0.2; do :; done'
n right ping -q -f -c 100000 10.9.0.1 >/dev/null 2>&1 &
n left ping -q -f -c 100000 10.9.0.2 >/dev/null 2>&1 &
sleep 0.3
n left ip link delete wg0
check "the link goes under load: the process ends" wait_for 5 is_gone "${pids[left-wg0]}"
stop right-wg0
check "... and the other one ends at SIGTERM" true
