#!/usr/bin/env bash
# Under attack: datagrams of every length, forged data, initiations with a wrong and with a right mac1. A running transfer goes
# on, memory stays bounded, we never answer with more than we got, and who has the right key still gets in.
#
#   [peer] 192.0.2.1 --------- veth --------- 192.0.2.2 [ours]
#   [mallory] 192.0.2.129 ---- veth ---- 192.0.2.130 [ours]
#
# timeout: 120
# alone: its load takes all cores
# also with: asan
. "$(dirname "$0")/lib.sh"
require_tools wg iperf3 ping
flood=$(dirname "$adit")/adit_flood
[[ -x $flood ]] || skip "needs $flood: ./dev build"

host peer
host ours
host mallory
link peer ours 192.0.2.1/25 192.0.2.2/25
link mallory ours 192.0.2.129/25 192.0.2.130/25
make_keys peer ours
start_device peer wg0
start_device ours wg0
n ours wg set wg0 private-key "$tmp/ours.key" listen-port 51820 peer "$(cat "$tmp/peer.pub")" allowed-ips 10.9.0.1/32
n peer wg set wg0 private-key "$tmp/peer.key" listen-port 51821 peer "$(cat "$tmp/ours.pub")" allowed-ips 10.9.0.2/32 \
  endpoint 192.0.2.2:51820
for side in peer ours; do
  n "$side" ip address add "10.9.0.$([[ $side == peer ]] && echo 1 || echo 2)/24" dev wg0
  n "$side" ip link set wg0 mtu 1420 up
done
check "the tunnel is up" n peer ping -c 1 -W 3 10.9.0.2
endpoint=$(n ours wg show wg0 endpoints)
resident() { awk '/VmRSS/ { print $2 }' "/proc/${pids[ours-wg0]}/status"; }
n peer ping -q -c 50 -i 0.01 10.9.0.2 >/dev/null
before=$(resident)

# attack KIND RATE: 4 s of it beside a transfer of 50 Mb/s.
attack() {
  local rate flood_pid
  n mallory "$flood" "$1" 192.0.2.130 51820 "$(cat "$tmp/ours.pub")" "$2" 4 >"$tmp/flood.out" &
  flood_pid=$!
  sleep 0.5
  rate=$(transfer ours peer 10.9.0.2 2 -b 50M)
  check "$1, $2 a second: the transfer goes on at its 50 Mb/s ($rate)" test "$rate" -ge 40
  check "... the attacker ends" wait "$flood_pid"
  echo "   $(cat "$tmp/flood.out")"
  check "... never more comes back than was sent" awk '{ exit !($(NF - 4) <= 0.7) }' "$tmp/flood.out"
  check "... the peer is where it was" equal "$endpoint" "$(n ours wg show wg0 endpoints)"
}
attack garbage 5000
attack data 20000
attack bad-mac1 20000
attack mac1 60000
check "... and what came back were cookies" awk '{ exit !($(NF - 4) > 0) }' "$tmp/flood.out"

# A new session while the flood goes on: a cookie costs one retry of 5 s.
n mallory "$flood" mac1 192.0.2.130 51820 "$(cat "$tmp/ours.pub")" 60000 12 >/dev/null &
flood_pid=$!
sleep 1
n peer wg set wg0 private-key <(wg genkey)
n peer wg set wg0 private-key "$tmp/peer.key"
check "with the right key a new session is made within 11 s of flood" n peer timeout 11 bash -c 'until ping -c 1 -W 0.5 10.9.0.2; do :; done'
check "the attacker ends" wait "$flood_pid"
after=$(resident)
echo "   resident: $before KiB before, $after KiB after"
limit=$((before + 20000))
[[ ${adit} != */asan/* ]] || limit=$((before + 400000))  # the sanitizer keeps freed memory in quarantine
check "memory is bounded" test "$after" -lt "$limit"
asserts 61 62 63
