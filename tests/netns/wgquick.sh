#!/usr/bin/env bash
# Debian's wg-quick drives us as it drives wireguard-go: WG_QUICK_USERSPACE_IMPLEMENTATION=adit. A full tunnel for IPv4 and
# IPv6, a saved file, and the way down.
#
#   [client] 192.0.2.1 ---- veth ---- 192.0.2.2 [server]   198.51.100.7, 2001:db8:7::7: "the internet"
#    wgq0    10.9.0.2, fd09::2        10.9.0.1, fd09::1 wg0
#
# timeout: 90
. "$(dirname "$0")/lib.sh"
require_tools wg wg-quick ping nft

host client
host server
link client server 192.0.2.1/24 192.0.2.2/24
n client ip route add default via 192.0.2.2
n server ip address add 198.51.100.7/32 dev lo
n server ip address add 2001:db8:7::7/128 dev lo
make_keys client server
start_device server wg0
n server wg set wg0 private-key "$tmp/server.key" listen-port 51820 peer "$(cat "$tmp/client.pub")" allowed-ips 10.9.0.2/32,fd09::2/128
n server ip address add 10.9.0.1/24 dev wg0
n server ip address add fd09::1/64 dev wg0
n server ip link set wg0 up

# wg-quick calls the program by name, as a user has it on PATH. It is a link, so the process shows as "adit".
mkdir "$tmp/bin"
ln -s "$adit" "$tmp/bin/adit"
cat >"$tmp/wgq0.conf" <<CONF
[Interface]
PrivateKey = $(cat "$tmp/client.key")
Address = 10.9.0.2/24, fd09::2/64
SaveConfig = true
[Peer]
PublicKey = $(cat "$tmp/server.pub")
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 192.0.2.2:51820
CONF
chmod 600 "$tmp/wgq0.conf"
quick() { n client env PATH="$tmp/bin:$PATH" WG_QUICK_USERSPACE_IMPLEMENTATION=adit wg-quick "$1" "$tmp/wgq0.conf"; }
state() {
  n client ip rule
  n client ip -6 rule
  n client ip route show table all
  n client ip -br address
  n client nft list ruleset
}
# wg-quick asks the kernel for a link of type wireguard first; a kernel that has one would not test us.
if n client ip link add probe0 type wireguard 2>/dev/null; then
  n client ip link delete probe0
  skip "this kernel has its own WireGuard, which wg-quick prefers"
fi

before=$(state)
check "wg-quick up" quick up
check "it is us that runs" pgrep -f "adit wgq0"
check "ping to the internet goes through the tunnel, IPv4" n client ping -c 2 -i 0.1 -W 3 198.51.100.7
check "... and IPv6" n client ping -c 2 -i 0.1 -W 3 2001:db8:7::7
check "the tunnel carried it" bash -c '(( $1 > 0 ))' _ "$(n client wg show wgq0 transfer | cut -f2)"
check "wg-quick save" quick save
check "... keeps the peer" grep -q "$(cat "$tmp/server.pub")" "$tmp/wgq0.conf"
check "wg-quick down" quick down
check "the process has ended" wait_for 3 bash -c '! pgrep -f "[a]dit wgq0"'
check "rules, routes, addresses and firewall are as before" equal "$before" "$(state)"
check "and up again from the saved file" quick up
check "... works" n client ping -c 1 -W 5 198.51.100.7
check "... and down" quick down
