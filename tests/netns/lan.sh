#!/usr/bin/env bash
# The LAN and containers beside a full tunnel. Topology and oracle: lab.sh; here also
#
#   [d] eth0 10.77.0.1 ---- 10.77.0.2 eth1 [c], a link that appears while the tunnel is up
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
lab_up
lab_container
host d
service d

# divert PREFIX…: in front of ours, rules that send these prefixes to the tunnel, as a rule set without LAN tiers does.
divert() {
  local prefix
  for prefix in "$@"; do in_host c ip "$([[ $prefix == *:* ]] && echo -6 || echo -4)" rule add priority 100 to "$prefix" lookup 30568; done
}
mend() {
  while in_host c ip rule delete priority 100 2>/dev/null; do :; done
  while in_host c ip -6 rule delete priority 100 2>/dev/null; do :; done
}

scenario 6 "the LAN is kept under a full tunnel, in both directions"
client_conf
check "up" adit_up
check "the internet sees the tunnel's address" sees c tcp 8.8.8.8 10.9.0.2
check "... of IPv6 too" sees c tcp 2001:db8::1 fd09::2
for kind in tcp udp; do
  check "from here to the LAN, $kind" sees c $kind 192.168.1.77 192.168.1.2
  check "... IPv6" sees c $kind fd00:1::77 fd00:1::2
  check "from the LAN to here, $kind" sees l $kind 192.168.1.2 192.168.1.77
  check "... IPv6" sees l $kind fd00:1::2 fd00:1::77
done
divert 192.168.1.0/24 fd00:1::/64
control "without the LAN tiers the LAN is lost" gets c tcp 192.168.1.77 silence --wait 300
control "... of IPv6 too" gets c tcp fd00:1::77 silence --wait 300
control "... and from the LAN to here" gets l tcp 192.168.1.2 silence --wait 300
mend
passes

scenario 7 "a link that appears while the tunnel is up is reached at once, with no event needed"
ip -n "$(ns c)" link add eth1 type veth peer name eth0 netns "$(ns d)"
ipb d <<<"address add 10.77.0.1/24 dev eth0
link set eth0 up"
in_host c ip link set eth1 up
# The process stands still: what is reached is reached by the kernel alone.
kill -STOP "$(adit_pid)"
in_host c ip address add 10.77.0.2/24 dev eth1
check "the neighbour answers" sees c udp 10.77.0.1 10.77.0.2
kill -CONT "$(adit_pid)"
divert 10.0.0.0/8
control "without the LAN tiers it does not" gets c udp 10.77.0.1 silence --wait 300
mend
in_host c ip link delete eth1
check "down" adit_down
passes

scenario 9 "a container behind the full tunnel: its packets go through it, from the tunnel's address, rp_filter 0 and 1"
for strict in 0 1; do
  set_sysctl c net.ipv4.conf.all.rp_filter=$strict net.ipv4.conf.default.rp_filter=$strict net.ipv4.conf.docker0.rp_filter=$strict
  check "up" adit_up
  oracle_start
  check "rp_filter=$strict: the internet sees the tunnel's address, udp" sees k udp 8.8.8.8 10.9.0.2
  check "... tcp" sees k tcp 8.8.8.8 10.9.0.2
  check "the host reaches the container" sees c tcp 172.17.0.2 172.17.0.1
  check "the container reaches the host" sees k tcp 172.17.0.1 172.17.0.2
  check "the container reaches the LAN" sees k tcp 192.168.1.77 192.168.1.2
  check "the oracle saw everything" oracle_stop
  check "nothing leaked" clean
  ((strict)) || check "down" adit_down
done
in_host c ip rule add priority 100 iif docker0 lookup main
oracle_start
control "with main in front the container leaves beside the tunnel" sees k udp 8.8.8.8 192.168.1.2
oracle_stop
control "... and the oracle says so" leaks "dst host 8.8.8.8"
mend
check "down" adit_down
set_sysctl c net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.docker0.rp_filter=0
passes "replayed: Docker's bridge and masquerade"

scenario 11 "up adds nothing to table main but the tunnel's own network, so that Docker still finds a pool"
addresses="10.9.0.2/32, fd09::2/128"
main_v4() { in_host c ip -4 route show table main; }
main_v6() { in_host c ip -6 route show table main | grep -v '^fd09::2 dev wg0'; }
before="$(main_v4) $(main_v6)"
client_conf
check "up" adit_up
check "main is as before" equal "$before" "$(main_v4) $(main_v6)"
check "... and the tunnel takes all" sees c udp 8.8.8.8 10.9.0.2
check "down" adit_down
allowed="0.0.0.0/1"
client_conf "Table = 254"
check "up into table main" a up "$conf"
control "with routes in main it is not" fails equal "$before" "$(main_v4) $(main_v6)"
check "down" adit_down
allowed="0.0.0.0/0, ::/0"
addresses="10.9.0.2/24, fd09::2/64"
passes "replayed: Docker"

scenario 8 "a LAN that is also in the allowed IPs: the tunnel wins, and the status says so"
in_host s ip address add 192.168.1.77/32 dev lo
client_conf
check "up without an overlap" adit_up
control "no warning" fails grep -q '192.168.1.0/24' <(a status wg0)
control "the LAN's host answers" sees c udp 192.168.1.77 192.168.1.2
check "down" adit_down
allowed="192.168.1.0/24, 10.9.0.0/24"
client_conf
check "up with one" adit_up
check "the status warns" grep -q '192.168.1.0/24 is in AllowedIPs' <(a status wg0)
check "the host behind the tunnel answers" sees c udp 192.168.1.77 10.9.0.2
check "... and the tunnel itself still finds its way by that LAN's gateway" sees c udp 10.9.0.1 10.9.0.2
check "down" adit_down
allowed="0.0.0.0/0, ::/0"
in_host s ip address delete 192.168.1.77/32 dev lo
passes
