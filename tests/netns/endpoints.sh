#!/usr/bin/env bash
# Endpoints that are names: both families raced, several addresses in turn, asked again when the peer falls silent, by
# questions that stay outside of the tunnel. The name server is off the link, behind the default route that a full tunnel
# takes over.
#
#   [near] 192.0.2.1 ---- veth ---- 192.0.2.2, .3, 2001:db8::2 [far]   198.51.100.53 (lo): the name server
#
# timeout: 280
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools wg nft ping

host near
host far
link near far 192.0.2.1/24 192.0.2.2/24 2001:db8::1/64 2001:db8::2/64
n far ip address add 192.0.2.3/24 dev to_near
n far ip address add 198.51.100.53/32 dev lo
n near ip route add default via 192.0.2.2
n near ip -6 route add default via 2001:db8::2
make_keys near far

rm -f /etc/resolv.conf
echo "nameserver 198.51.100.53" >/etc/resolv.conf
zone() { printf '%s\n' "$@" >"$tmp/zone.new" && mv "$tmp/zone.new" "$tmp/zone"; }
zone ""
spawn dns far "$(dirname "$adit")/adit_fake_dns" 198.51.100.53 "$tmp/zone"
wait_for 5 grep -q ready "$tmp/dns.log"

(umask 077 && cat >"$tmp/wgf.conf") <<CONF
[Interface]
PrivateKey = $(cat "$tmp/far.key")
ListenPort = 51820
Address = 10.9.0.2/24
[Peer]
PublicKey = $(cat "$tmp/near.pub")
AllowedIPs = 10.9.0.1/32
CONF
n far "$adit" up "$tmp/wgf.conf"

# configure ENDPOINT [LINE of [Interface]] [ALLOWED]
configure() {
  (umask 077 && cat >"$tmp/wg0.conf") <<CONF
[Interface]
PrivateKey = $(cat "$tmp/near.key")
Address = 10.9.0.1/24, fd09::1/64
${2:-}
[Peer]
PublicKey = $(cat "$tmp/far.pub")
AllowedIPs = ${3:-0.0.0.0/0, ::/0}
Endpoint = $1
CONF
}
up() { n near env WG_LOG_FILE="$tmp/adit.log" ADIT_RUN_DIR=/run/adit-near "$@" "$adit" up ${wait:-} "$tmp/wg0.conf"; }
down() { n near env ADIT_RUN_DIR=/run/adit-near "$adit" down "$tmp/wg0.conf"; }
endpoint() { n near wg show wg0 endpoints | cut -f2; }
endpoint_is() { equal "$1" "$(endpoint)"; }
# drop EXPRESSION…: far hears nothing of what matches.
drop() {
  n far nft add table inet deaf
  n far nft 'add chain inet deaf in { type filter hook input priority 0; }'
  n far nft "add rule inet deaf in $* drop"
}
hear() { n far nft delete table inet deaf; }

configure server.example:51820
zone "server.example 60 192.0.2.2"
wait=--wait=5
check "a name leads to the peer" up
check "... at its address" endpoint_is 192.0.2.2:51820
down

scenario 43 "A and AAAA, IPv6 broken"
zone "server.example 60 192.0.2.2 2001:db8::2"
drop ip6 daddr 2001:db8::2 udp dport 51820
configure "[2001:db8::2]:51820"
control "by the IPv6 address alone there is no handshake within 5 s" exits 5 up
configure server.example:51820
check "a name with both families: a handshake within 5 s" up
check "... by IPv4" endpoint_is 192.0.2.2:51820
passes
down
hear
check "IPv6 works: it is preferred" up
check "... and kept" endpoint_is "[2001:db8::2]:51820"
down

zone "server.example 60 192.0.2.8 192.0.2.9 192.0.2.3"
wait=--wait=12
check "several addresses: the one that answers is found" up
check "..." endpoint_is 192.0.2.3:51820
down

scenario 42 "endpoint's name changes address"
wait=--wait=5
for way in rules bind; do
  configure server.example:51820 "LoopAvoidance = $way"
  zone "server.example 1 192.0.2.2"
  check "up ($way)" up ADIT_STALE_HANDSHAKE=6
  check "through the tunnel" n near ping -c 1 -W 2 10.9.0.2
  zone "server.example 1 192.0.2.3"
  drop ip daddr 192.0.2.2 udp dport 51820
  : >"$tmp/dns.log"
  spawn ping near ping -i 0.5 10.9.0.2
  check "the peer moved: its new address is found" wait_for 40 endpoint_is 192.0.2.3:51820
  check "... by questions that went around the dead tunnel" grep -q "server.example A" "$tmp/dns.log"
  check "... and traffic flows" wait_for 5 n near ping -c 1 -W 1 10.9.0.2
  stop ping
  down
  hear
done
configure 192.0.2.2:51820
check "up with an address" up ADIT_STALE_HANDSHAKE=6
drop ip daddr 192.0.2.2 udp dport 51820
spawn ping near ping -i 0.5 10.9.0.2
sleep 25
control "an address stays what it is" endpoint_is 192.0.2.2:51820
passes
stop ping
down
hear

# The same behind a kill switch, which lets out the tunnel and the questions for its names and nothing else. A split tunnel
# has no rule that needs a mark, but the kill switch has.
check "without a kill switch the name server is in reach" n near ping -c 1 -W 1 -I to_far 198.51.100.53
for allowed in "0.0.0.0/0, ::/0" "10.9.0.0/24"; do
  configure server.example:51820 "KillSwitch = up" "$allowed"
  zone "server.example 1 192.0.2.2"
  check "kill switch, $allowed: up" up ADIT_STALE_HANDSHAKE=6
  check_fails "... around it the name server is out of reach for others" n near ping -c 1 -W 1 -I to_far 198.51.100.53
  zone "server.example 1 192.0.2.3"
  drop ip daddr 192.0.2.2 udp dport 51820
  spawn ping near ping -i 0.5 10.9.0.2
  check "... the peer moved: its new address is found" wait_for 40 endpoint_is 192.0.2.3:51820
  check "... and traffic flows" wait_for 5 n near ping -c 1 -W 1 10.9.0.2
  check_fails "... around it the peer is out of reach for others" n near ping -c 1 -W 1 -I to_far 192.0.2.3
  stop ping
  down
  hear
done

# What cannot be looked up.
wait=""
configure missing.example:51820
check "a name that does not exist fails at once" exits 1 timeout 5 ip netns exec "$(ns near)" "$adit" up "$tmp/wg0.conf"
zone "refuse server.example"
configure server.example:51820
check "a server in trouble is asked as often as we are told" exits 1 up WG_ENDPOINT_RESOLUTION_RETRIES=1
check "... and nothing is left" fails n near ip link show wg0
echo "192.0.2.2 server.example" >>/etc/hosts
wait=--wait=5
check "/etc/hosts is enough" up
down
sed -i '$d' /etc/hosts

# As in a container: a resolver on loopback, which the mark must not keep from answering.
zone "server.example 60 192.0.2.3"
spawn local-dns near "$(dirname "$adit")/adit_fake_dns" 127.0.0.11 "$tmp/zone"
wait_for 5 grep -q ready "$tmp/local-dns.log"
echo "nameserver 127.0.0.11" >/etc/resolv.conf
check "a resolver on loopback" up
check "... is asked" endpoint_is 192.0.2.3:51820
down
