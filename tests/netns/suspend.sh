#!/usr/bin/env bash
# The process stands still, as in a suspended machine, and finds another network when it goes on. Topology and oracle: lab.sh.
#
# timeout: 780
# sleeps: 200 s of standing still, three times
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools ping
lab_up

ping_c() { in_host c ping -q -W 1 "$@"; }
handshake_at() { n s wg show wgs latest-handshakes | cut -f2 | sort -n | tail -n 1; }
has_shaken_hands_since() { (($(handshake_at) >= $1)); }

for way in rules routes bind; do
  scenario 39 "($way) the process stands still for 200 s while the network changes: within 3 s there is a handshake, and the tunnel carries"
  client_conf "LoopAvoidance = $way"
  check "up" adit_up
  pid=$(adit_pid)
  kill -STOP "$pid"
  in_host c ip address add 192.168.1.4/24 dev eth0
  in_host c ip address delete 192.168.1.2/24 dev eth0
  in_host c ip address show dev eth0 to 192.168.1.4 | grep -q . || in_host c ip address add 192.168.1.4/24 dev eth0
  in_host c ip route replace default via 192.168.1.1
  sleep 200
  control "while it stands still nothing is carried" fails ping_c -c 1 10.9.0.1
  now=$(date +%s)
  kill -CONT "$pid"
  check "then it is, within 3 s" wait_for 3 ping_c -c 1 8.8.8.8
  check "... under a new session" has_shaken_hands_since "$now"
  check "... from the new address" grep -q '192.168.1.4:' <(n s wg show wgs endpoints)
  check "... by the same engine" equal "$pid" "$(adit_pid)"
  check "down" adit_down
  in_host c ip address add 192.168.1.2/24 dev eth0
  in_host c ip address delete 192.168.1.4/24 dev eth0
  in_host c ip address show dev eth0 to 192.168.1.2 | grep -q . || in_host c ip address add 192.168.1.2/24 dev eth0
  in_host c ip route replace default via 192.168.1.1
  passes
done
