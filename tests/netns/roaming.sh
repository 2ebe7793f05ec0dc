#!/usr/bin/env bash
# Whose address changes, and what it does to the tunnel: only authenticated packets move an endpoint; we answer from the
# address that was written to, but let go of it when it goes; the mark is on every datagram.
#
#   [client] 192.0.2.1, .3, fd00:1::1 ---- veth ---- 192.0.2.2, .4, fd00:1::2 [server]
#    wg0     10.9.0.1                                10.9.0.2           wg0
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
require_tools wg ping

host client
host server
link client server 192.0.2.1/24 192.0.2.2/24 fd00:1::1/64 fd00:1::2/64
make_keys client server
start_device client wg0
start_device server wg0
n client wg set wg0 private-key "$tmp/client.key" listen-port 51820 \
  peer "$(cat "$tmp/server.pub")" allowed-ips 10.9.0.2/32 endpoint 192.0.2.2:51821
n server wg set wg0 private-key "$tmp/server.key" listen-port 51821 peer "$(cat "$tmp/client.pub")" allowed-ips 10.9.0.1/32
for side in client server; do
  n "$side" ip address add "10.9.0.$([[ $side == client ]] && echo 1 || echo 2)/24" dev wg0
  n "$side" ip link set wg0 mtu 1420 up
done
endpoint() { n "$1" wg show wg0 endpoints | cut -f2; }
ping_once() { n client ping -c 1 -W "${1:-3}" 10.9.0.2; }

check "up" ping_once
check "the server learned the client's address" equal 192.0.2.1:51820 "$(endpoint server)"

# The client's address changes: one packet from the new one moves the endpoint.
n client ip address delete 192.0.2.1/24 dev to_server  # first: it would take a second one of its subnet with it
n client ip address add 192.0.2.3/24 dev to_server
check "after a change of the client's address, at once" ping_once
check "... the endpoint followed" equal 192.0.2.3:51820 "$(endpoint server)"

# To the other family and back, each by one packet.
n client wg set wg0 peer "$(cat "$tmp/server.pub")" endpoint "[fd00:1::2]:51821"
check "to outer IPv6" ping_once
check "... the endpoint followed" equal "[fd00:1::1]:51820" "$(endpoint server)"
n client wg set wg0 peer "$(cat "$tmp/server.pub")" endpoint 192.0.2.2:51821
check "back to outer IPv4" ping_once
check "... the endpoint followed" equal 192.0.2.3:51820 "$(endpoint server)"

# The client's port changes (a NAT that rebinds).
n client wg set wg0 listen-port 51830
check "after a change of the client's port" ping_once
check "... the endpoint followed" equal 192.0.2.3:51830 "$(endpoint server)"

# Rubbish and forgeries from elsewhere move nothing.
n client ip address add 192.0.2.5/24 dev to_server
for size in 0 1 31 32 64 92 148 1400; do
  n client bash -c 'head -c "$0" /dev/urandom >/dev/udp/192.0.2.2/51821' "$size"
  # a data message's type, for an index nobody has
  n client bash -c '{ printf "\4\0\0\0"; head -c "$0" /dev/urandom; } >/dev/udp/192.0.2.2/51821' "$size"
done
check "unauthenticated datagrams leave the endpoint alone" equal 192.0.2.3:51830 "$(endpoint server)"
check "... and the tunnel" ping_once

# Two addresses at the server: the answer comes from the one that was written to.
heard_by_client() { n client wg show wg0 transfer | cut -f2; }
has_heard_more() { (($(heard_by_client) > $1)); }
before=$(heard_by_client)
n server ip address add 192.0.2.4/24 dev to_client
# It tells of the change from where the kernel sends, which moves the client's endpoint: before what follows, not after.
check "a change of the server's own addresses is told to the client" wait_for 5 has_heard_more "$before"
n client wg set wg0 peer "$(cat "$tmp/server.pub")" endpoint 192.0.2.4:51821
check "written to its second address, the server answers" ping_once
check "... from that address: the client's endpoint stays" equal 192.0.2.4:51821 "$(endpoint client)"
check "... also to what the server sends of itself" n server ping -c 1 -W 3 10.9.0.1
check "... (the control for what follows)" equal 192.0.2.4:51821 "$(endpoint client)"
# Another mark or port may mean another way out: the source is the kernel's choice again.
n server wg set wg0 fwmark 0x77
check "another mark: the server's next packet" n server ping -c 1 -W 3 10.9.0.1
check "... leaves from what the kernel chooses" equal 192.0.2.2:51821 "$(endpoint client)"
n client wg set wg0 peer "$(cat "$tmp/server.pub")" endpoint 192.0.2.4:51821
check "written to its second address again" ping_once
n server wg set wg0 listen-port 51822
check "another port: the server's next packet" n server ping -c 1 -W 3 10.9.0.1
check "... leaves from what the kernel chooses" equal 192.0.2.2:51822 "$(endpoint client)"
n server wg set wg0 listen-port 51821 fwmark 0
n client wg set wg0 peer "$(cat "$tmp/server.pub")" endpoint 192.0.2.4:51821
check "back to where we were" ping_once
# Sticky, but not too sticky: the address goes, the kernel chooses another, the peer follows.
n server ip address delete 192.0.2.4/24 dev to_client
check "the address goes: the server's next packet leaves from another" n server ping -c 1 -W 3 10.9.0.1
check "... and the client follows" equal 192.0.2.2:51821 "$(endpoint client)"

# The mark, at run time: with a rule that blackholes it nothing passes, handshakes included; without, all is as before.
n client ip rule add fwmark 0x51 unreachable
n client wg set wg0 fwmark 0x51
check_fails "marked datagrams obey the rule for the mark" ping_once 1
n client wg set wg0 fwmark 0
check "unmarked again, the tunnel is back" wait_for 8 n client ping -c 1 -W 1 10.9.0.2

# Errors of the socket lose neither the loop nor the peer.
n client ip route add blackhole 192.0.2.2/32
check_fails "no route: nothing passes" ping_once 1
n client ip route delete blackhole 192.0.2.2/32
check "the route is back: so is the tunnel" wait_for 8 n client ping -c 1 -W 1 10.9.0.2
n client ip link set to_server down
check_fails "no link: nothing passes" ping_once 1
n client ip link set to_server up
check "the link is back: so is the tunnel" wait_for 8 n client ping -c 1 -W 1 10.9.0.2
n client ip link set to_server mtu 1280
n server ip link set to_client mtu 1280
check "a path of 1280 bytes carries full packets in fragments" n client ping -c 3 -i 0.2 -W 2 -s 1300 10.9.0.2

# A private key that changes: the peer is told, and a handshake happens at once.
make_keys other
n server wg set wg0 peer "$(cat "$tmp/other.pub")" allowed-ips 10.9.0.1/32
n client wg set wg0 private-key "$tmp/other.key"
check "a new private key shakes hands at once" ping_once
asserts 55 73 77 79 86 88 89 92
