#!/usr/bin/env bash
# The network changes under a running tunnel: another address, another gateway. Topology and oracle: lab.sh.
#
# timeout: 150
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools ping
lab_up

outer="udp and dst port $kTunnelPort and dst host 203.0.113.10"
ping_c() { in_host c ping -q -W 1 "$@"; }
client_conf

scenario 39 "the process stands still while the network changes: 3 s after it goes on the tunnel carries"
check "up" adit_up
pid=$(adit_pid)
kill -STOP "$pid"
in_host c ip address add 192.168.1.4/24 dev eth0
in_host c ip address delete 192.168.1.2/24 dev eth0
in_host c ip address show dev eth0 to 192.168.1.4 | grep -q . || in_host c ip address add 192.168.1.4/24 dev eth0
in_host c ip route replace default via 192.168.1.1
sleep 1
control "while it stands still nothing is carried" fails ping_c -c 1 10.9.0.1
kill -CONT "$pid"
check "then it is, within 3 s" wait_for 3 ping_c -c 1 8.8.8.8
check "... from the new address" grep -q '192.168.1.4:' <(n s wg show wgs endpoints)
in_host c ip address add 192.168.1.2/24 dev eth0
in_host c ip address delete 192.168.1.4/24 dev eth0
in_host c ip address show dev eth0 to 192.168.1.2 | grep -q . || in_host c ip address add 192.168.1.2/24 dev eth0
in_host c ip route replace default via 192.168.1.1
check "down" adit_down
passes "1 s instead of 200; expiry by the clock is the simulation's"

scenario 41 "the uplink is gone and comes back with another gateway: the tunnel carries again in 3 s"
check "up" adit_up
oracle_start
in_host c ip link set eth0 down
sleep 1
control "without an uplink nothing is carried" fails ping_c -c 1 10.9.0.1
in_host c ip link set eth0 up
in_host c ip route add default via 192.168.1.66
check "with the other gateway it is" wait_for 3 ping_c -c 1 8.8.8.8
check "the oracle saw everything" oracle_stop
check "nothing leaked" clean
check "... and the other gateway had it" at_least 1 "$outer and ether dst $(in_host e cat /sys/class/net/eth0/address)"
check "down" adit_down
in_host c ip route replace default via 192.168.1.1
passes "2 s instead of 10 min"
