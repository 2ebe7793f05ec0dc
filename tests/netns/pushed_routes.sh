#!/usr/bin/env bash
# Routes that the LAN pushes at us (DHCP option 121, a public prefix as the LAN, router advertisements) take nothing out of a
# full tunnel. Topology and oracle: lab.sh; e is the attacker.
#
# timeout: 90
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
lab_up

# What wg-quick has in front of its catch-all: main, but for its default route.
like_wg_quick() {
  in_host c ip -4 rule add priority 100 not fwmark 0x1000/0x3000 lookup main suppress_prefixlength 0
  in_host c ip -6 rule add priority 100 not fwmark 0x1000/0x3000 lookup main suppress_prefixlength 0
}
mend() {
  in_host c ip -4 rule delete priority 100
  in_host c ip -6 rule delete priority 100
}

scenario 44 "TunnelVision: pushed routes for 0.0.0.0/1, 128.0.0.0/1, 8.8.8.0/24 and 8.8.8.8/32 stay without effect"
client_conf
check "up" adit_up
for prefix in 0.0.0.0/1 128.0.0.0/1 8.8.8.0/24 8.8.8.8/32; do in_host c ip route add "$prefix" via 192.168.1.66; done
in_host c ip -6 route add 2001:db8::1/128 via fd00:1::66
in_host c ip -6 route add 2000::/3 via fd00:1::66
oracle_start
for ip in 8.8.8.8 9.9.9.9; do
  check "$ip sees the tunnel's address, udp" sees c udp $ip 10.9.0.2
  check "... tcp" sees c tcp $ip 10.9.0.2
done
check "2001:db8::1 sees the tunnel's address" sees c udp 2001:db8::1 fd09::2
check "the oracle saw everything" oracle_stop
check "the tunnel was used" at_least 1 "udp dst port $kTunnelPort"
check "nothing leaked" clean
like_wg_quick
oracle_start
control "behind wg-quick's rule the attacker has them" sees c udp 8.8.8.8 192.168.1.2
control "... IPv6 too" sees c udp 2001:db8::1 fd00:1::2
oracle_stop
control "... and the oracle says so" leaks "dst host 8.8.8.8"
mend
for prefix in 0.0.0.0/1 128.0.0.0/1 8.8.8.0/24 8.8.8.8/32; do in_host c ip route delete "$prefix" via 192.168.1.66; done
in_host c ip -6 route delete 2001:db8::1/128 via fd00:1::66
in_host c ip -6 route delete 2000::/3 via fd00:1::66
check "down" adit_down
passes "replayed: the DHCP client that installs option 121"

scenario 45 "TunnelCrack LocalNet: a LAN of 8.0.0.0/6 takes no public address out of the tunnel; its gateway still serves us"
# The whole LAN is numbered so: r is the gateway 8.0.0.1.
in_host r ip address add 8.0.0.1/6 dev br0
in_host r ip route add 8.8.8.8/32 via 203.0.113.10
in_host r ip route add 9.9.9.9/32 via 203.0.113.10
in_host c ip address add 8.0.0.2/6 dev eth0
in_host c ip route replace default via 8.0.0.1
in_host s ip route add 8.0.0.2/32 via 203.0.113.1
set_sysctl r net.ipv4.conf.br0.proxy_arp=1 net.ipv4.neigh.br0.proxy_delay=0
check "up, the endpoint behind that gateway" adit_up
oracle_start
for ip in 8.8.8.8 9.9.9.9; do check "$ip sees the tunnel's address" sees c udp $ip 10.9.0.2; done
check "the oracle saw everything" oracle_stop
check "the gateway carried the tunnel" at_least 2 "udp dst port $kTunnelPort"
check "nothing leaked" clean
like_wg_quick
oracle_start
ask c udp 9.9.9.9 || true
oracle_stop
control "behind wg-quick's rule they leave by the LAN" leaks "dst host 9.9.9.9"
mend
check "down" adit_down
in_host c ip route replace default via 192.168.1.1
in_host c ip address delete 8.0.0.2/6 dev eth0
in_host r ip address delete 8.0.0.1/6 dev br0
passes

scenario 47 "TunnelCrack ServerIP: the endpoint's name resolves to a web site's address: all but the tunnel's own port stays in it"
# s answers on 8.8.8.8 too, with the engine behind port 51820 there: the lie costs nothing but the loop.
echo "8.8.8.8 vpn.example.test" >>/etc/hosts
endpoint=vpn.example.test:$kTunnelPort
client_conf
check "up" adit_up
check "the endpoint is the site" grep -q "8.8.8.8:$kTunnelPort" <(n c wg show wg0 endpoints)
approved_too="udp dst port $kTunnelPort and dst host 8.8.8.8"
oracle_start
for kind in tcp udp; do check "the site sees the tunnel's address, $kind" sees c $kind 8.8.8.8 10.9.0.2; done
check "... also on the tunnel's own port, without the engine's mark" fails in_host c "$lab" ask tcp 8.8.8.8 $kTunnelPort --wait 200
check "the oracle saw everything" oracle_stop
check "the tunnel was used" at_least 2 "$approved_too"
check "nothing leaked" clean
oracle_start c wg0 out
in_host c "$lab" ask udp 8.8.8.8 $kTunnelPort --wait 200 >/dev/null || true
check "the oracle saw everything" oracle_stop
check "what others send to the very port is in the tunnel: the mark decides, not the port" at_least 1 "udp dst port $kTunnelPort and dst host 8.8.8.8"
# What a host route for the endpoint does: everything to that address goes beside the tunnel.
in_host c ip rule add priority 100 to 8.8.8.8 lookup main
oracle_start
control "behind a route for the endpoint it sees our own address" sees c tcp 8.8.8.8 192.168.1.2
oracle_stop
control "... and the oracle says so" leaks "tcp and dst host 8.8.8.8"
in_host c ip rule delete priority 100
check "down" adit_down
approved_too=""
endpoint=203.0.113.10:$kTunnelPort
client_conf
passes

scenario 17 "a router advertisement that comes after up: IPv6 stays in the tunnel"
set_sysctl c net.ipv6.conf.eth0.accept_ra=2
in_host c ip -6 route delete default
check "up" adit_up
in_host r "$lab" advertise br0 fd00:1::
check "the advertised default route is there" wait_for 3 bash -c 'ip netns exec "$1" ip -6 route show default | grep -q "proto ra"' _ "$(ns c)"
oracle_start
check "the internet sees the tunnel's address" sees c udp 2001:db8::1 fd09::2
check "... tcp" sees c tcp 2001:db8::1 fd09::2
check "the oracle saw everything" oracle_stop
check "nothing leaked" clean
check "down" adit_down
oracle_start
control "without the tunnel the advertised route is taken" ask c udp 2001:db8::1
oracle_stop
control "... and the oracle says so" leaks "dst host 2001:db8::1"
passes
