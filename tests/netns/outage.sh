#!/usr/bin/env bash
# The uplink is away for a long time. Topology and oracle: lab.sh.
#
# timeout: 780
# sleeps: 600 s without an uplink
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools ping
lab_up

ping_c() { in_host c ping -q -W 1 "$@"; }
client_conf

scenario 41 "the uplink is gone for 10 min and comes back with another gateway: the tunnel carries again in 3 s"
check "up" adit_up
pid=$(adit_pid)
oracle_start
in_host c ip link set eth0 down
# Somebody goes on trying, as programs do.
spawn trying c bash -c 'while :; do ping -q -c 1 -W 1 8.8.8.8 >/dev/null; sleep 2; done'
sleep 600
control "without an uplink nothing is carried" fails ping_c -c 1 10.9.0.1
in_host c ip link set eth0 up
in_host c ip route add default via 192.168.1.66
check "with the other gateway it is" wait_for 3 ping_c -c 1 8.8.8.8
check "... by the same engine" equal "$pid" "$(adit_pid)"
stop trying
check "the oracle saw everything" oracle_stop
check "nothing leaked" clean
check "... and the other gateway had it" at_least 1 "$outer and ether dst $(in_host e cat /sys/class/net/eth0/address)"
check "down" adit_down
passes
