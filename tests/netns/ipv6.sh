#!/usr/bin/env bash
# IPv6 beside a tunnel that has none, and machines without it. Topology and oracle: lab.sh.
#
# timeout: 90
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
lab_up

scenario 14 "a tunnel without IPv6: IPv6 connections fail at once with EHOSTUNREACH, and nothing leaves"
oracle_start
control "without a tunnel IPv6 leaves" sees c tcp 2001:db8::1 fd00:1::2
oracle_stop
control "... and the oracle says so" leaks "dst host 2001:db8::1"
for allowed in "0.0.0.0/0" "0.0.0.0/0, ::/0"; do
  addresses="10.9.0.2/24"
  client_conf
  check "up with AllowedIPs = $allowed and an IPv4 address only" adit_up
  oracle_start
  for kind in tcp udp; do check "$kind: EHOSTUNREACH" gets c $kind 2001:db8::1 EHOSTUNREACH; done
  # The fastest of five: a busy machine may be late, a refusal that waits for something is never fast.
  fastest() { for _ in 1 2 3 4 5; do took "$(ask c tcp 2001:db8::1)"; done | sort -n | head -n 1; }
  check "... in less than 10 ms" test "$(fastest)" -lt 10000
  check "IPv4 goes through the tunnel" sees c tcp 8.8.8.8 10.9.0.2
  check "the LAN's IPv6 is kept" sees c tcp fd00:1::77 fd00:1::2
  check "the oracle saw everything" oracle_stop
  check "nothing leaked" clean
  check "down" adit_down
done
passes

scenario 18 "a gateway forwards IPv6 and keeps the default route that a router advertised (accept_ra)"
addresses="10.9.0.2/24, fd09::2/64"
endpoint="[2001:db8:f::10]:$kTunnelPort"
client_conf "Gateway = yes"
set_sysctl c net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.all.forwarding=0
in_host c ip -6 route delete default
has_advertised_route() { in_host c ip -6 route show default | grep -q "proto ra"; }
advertised() { in_host r "$lab" advertise br0 fd00:1:: && wait_for 3 has_advertised_route; }
check "a router advertises itself" advertised
set_sysctl c net.ipv6.conf.all.forwarding=1
control "forwarding alone takes its route away" wait_for 3 fails has_advertised_route
control "... and with it the other side" fails ask c udp 2001:db8:f::10
set_sysctl c net.ipv6.conf.all.forwarding=0
check "advertised again" advertised
ra_settings() { in_host c bash -c 'grep -H "" /proc/sys/net/ipv6/conf/*/{accept_ra,forwarding}'; }
ra_settings >"$tmp/ra-before"
check "up as a gateway, to an IPv6 endpoint" adit_up
check "it forwards" equal 1 "$(in_host c sysctl -n net.ipv6.conf.all.forwarding)"
check "the route is kept" has_advertised_route
check "... and taken: the tunnel carries" sees c udp 2001:db8::1 fd09::2
# Advertisements that come later are heard too, as the route would else end with its lifetime.
in_host c ip -6 route delete default proto ra
check "the next advertisement is heard" advertised
check "the tunnel carries by it" wait_for 3 sees c udp 2001:db8::1 fd09::2
check "down" adit_down
check "... puts the settings back" equal "$(cat "$tmp/ra-before")" "$(ra_settings)"
check "... and the route is still there" has_advertised_route
in_host c ip -6 route delete default
in_host c ip -6 route add default via fd00:1::1
endpoint=203.0.113.10:$kTunnelPort
passes

scenario 15 "no IPv6 on the machine (disable_ipv6=1): up succeeds, the configuration's IPv6 address is a warning"
addresses="10.9.0.2/24, fd09::2/64"
client_conf
check "up with IPv6" adit_up
control "there: no such warning" fails grep -q 'IPv6 is switched off' <(a status wg0)
control "there: IPv6 works" sees c tcp 2001:db8::1 fd09::2
check "down" adit_down
set_sysctl c net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
snapshot c
check "up without" adit_up
check "IPv4 works" sees c tcp 8.8.8.8 10.9.0.2
check "the status says what was left out" grep -q 'IPv6 is switched off' <(a status wg0)
oracle_start
check_fails "IPv6 is refused" ask c tcp 2001:db8::1
oracle_stop
check "nothing leaked" clean
check "down" adit_down
check "... leaves everything as before" unchanged c
set_sysctl c net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
passes

scenario 16 "MTU = 1200 with an IPv6 address: IPv6 is left out, the status says so, and none leaves beside the tunnel"
client_conf "MTU = 1280"
check "up with 1280" adit_up
control "there: IPv6 works" sees c tcp 2001:db8::1 fd09::2
control "there: no such warning" fails grep -q 'below IPv6' <(a status wg0)
check "down" adit_down
client_conf "MTU = 1200"
check "up with 1200" adit_up
check "the device has it" equal 1200 "$(in_host c cat /sys/class/net/wg0/mtu)"
check "IPv4 works" sees c tcp 8.8.8.8 10.9.0.2
check "the status says what was left out, and what to change" grep -q 'below IPv6.s minimum of 1280.*set MTU' <(a status wg0)
oracle_start
check "IPv6 is refused" gets c tcp 2001:db8::1 EHOSTUNREACH
check "the oracle saw everything" oracle_stop
check "nothing leaked" clean
check "down" adit_down
passes

scenario 62 "addresses that are tentative while the device comes up: 200 times up and down, no error, no delay for DAD"
set_sysctl c net.ipv6.conf.all.accept_dad=1 net.ipv6.conf.default.accept_dad=1 net.ipv6.conf.default.dad_transmits=3
addresses="10.9.0.2/24, fd09::2/64, fd09::12/64, fe80::12/64"
client_conf
# A device of the kernel's own making waits for its addresses: that is what must not happen.
in_host c ip link add slow0 type veth peer name slow1
in_host c ip link set slow1 up
in_host c ip link set slow0 up
in_host c ip address add fd77::1/64 dev slow0
control "an address is tentative on an ordinary device" grep -q tentative <(in_host c ip -6 address show dev slow0)
in_host c ip link delete slow0
many_times() {
  local i
  for ((i = 0; i < 200; i++)); do
    a up "$conf" || { echo "up $i failed"; return 1; }
    [[ -z $(in_host c ip -6 address show dev wg0 tentative) ]] || { echo "tentative at $i"; return 1; }
    adit_down || { echo "down $i failed"; return 1; }
  done
}
check "200 times" many_times
passes
