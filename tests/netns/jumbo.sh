#!/usr/bin/env bash
# Large and small MTUs: whole packets of every size, and TCP in both directions, over a wire that carries them whole and over
# one that does not.
#
#   [left] 192.0.2.1 ---- veth ---- 192.0.2.2 [right]
#    wg0   10.9.0.1, fd09::1         10.9.0.2, fd09::2  wg0
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
require_tools wg iperf3 ping

host left
host right
link left right 192.0.2.1/24 192.0.2.2/24
make_keys left right
start_device left wg0
start_device right wg0
n left wg set wg0 private-key "$tmp/left.key" listen-port 51820 \
  peer "$(cat "$tmp/right.pub")" allowed-ips 10.9.0.2/32,fd09::2/128 endpoint 192.0.2.2:51821
n right wg set wg0 private-key "$tmp/right.key" listen-port 51821 \
  peer "$(cat "$tmp/left.pub")" allowed-ips 10.9.0.1/32,fd09::1/128 endpoint 192.0.2.1:51820
for side in left right; do
  number=$([[ $side == left ]] && echo 1 || echo 2)
  n "$side" ip address add "10.9.0.$number/24" dev wg0
  n "$side" ip link set wg0 up
done

# mtus OUTER INNER
mtus() {
  n left ip link set to_right mtu "$1"
  n right ip link set to_left mtu "$1"
  n left ip link set wg0 mtu "$2"
  n right ip link set wg0 mtu "$2"
  n left ip route flush cache
  n right ip route flush cache
}

# carries LARGEST WHAT: packets of 28 … LARGEST bytes, and TCP in both directions.
carries() {
  local size rate
  for size in 28 29 $(($1 / 2)) $(($1 - 17)) $(($1 - 1)) "$1"; do
    check "$2: a packet of $size bytes, and its answer" n left ping -M do -c 1 -W 2 -s $((size - 28)) 10.9.0.2
  done
  rate=$(transfer right left 10.9.0.2 1)
  check "$2: TCP ($rate Mb/s)" test "$rate" -gt 5
  rate=$(transfer right left 10.9.0.2 1 -R)
  check "$2: TCP the other way ($rate Mb/s)" test "$rate" -gt 5
}

mtus 1500 576
carries 576 "MTU 576"
mtus 9060 9000
carries 9000 "MTU 9000"
mtus 1500 9000
carries 9000 "MTU 9000 over a wire of 1500"
# The largest datagram that UDP can carry, 65507 bytes, holds a packet of 65475.
mtus 65535 65535
carries 65475 "MTU 65535"
check "a longer packet is answered: fragmentation needed" \
  bash -c 'grep -q "mtu *= *65475" <<<"$1"' _ "$(n left ping -M do -c 1 -W 1 -s $((65535 - 28)) 10.9.0.2 2>&1 || true)"
check "... and the tunnel goes on" n left ping -c 1 -W 2 10.9.0.2
