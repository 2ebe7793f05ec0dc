#!/usr/bin/env bash
# The network changes under a running tunnel: another address, another gateway. Topology and oracle: lab.sh.
#
# timeout: 400
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools ping nc
lab_up

outer="udp and dst port $kTunnelPort and dst host 203.0.113.10"
ping_c() { in_host c ping -q -W 1 "$@"; }
client_conf

# A download of 4 MiB through the tunnel, 64 KiB every 100 ms, in which the client has nothing to say but what TCP says.
kChunks=64
head -c $((kChunks * 65536)) /dev/urandom >"$tmp/file"
got() { stat -c %s "$tmp/got" 2>/dev/null || echo 0; }
got_at_least() { (($(got) >= $1)); }
# download LIMIT_S CHANGE…: runs CHANGE when a quarter has come. True if the file is here LIMIT_S seconds after it, and whole;
# $pause_ms is the longest time in which nothing came. Each has a port of its own: one that was cut off may still be listening.
port=9000
download() {
  local limit=$1 start last=0 last_at now size
  shift
  ((++port))
  rm -f "$tmp/got"
  spawn sender s bash -c "for ((i = 0; i < $kChunks; i++)); do
      dd if='$tmp/file' bs=64K skip=\$i count=1 status=none; sleep 0.1; done | nc -N -l 10.9.0.1 $port"
  wait_for 5 listens
  spawn receiver c bash -c "exec nc -d 10.9.0.1 $port >'$tmp/got'"
  wait_for 10 got_at_least $((kChunks * 65536 / 4)) || { echo "it does not begin"; return 1; }
  "$@" || return 1
  start=${EPOCHREALTIME/./} last_at=$start pause_ms=0
  while now=${EPOCHREALTIME/./} && ((now < start + limit * 1000000)); do
    size=$(got)
    ((size == last)) || last_at=$now last=$size
    ((now - last_at <= pause_ms * 1000)) || pause_ms=$(((now - last_at) / 1000))
    ((size < kChunks * 65536)) || break
    sleep 0.02
  done
  stop sender
  stop receiver
  echo "longest pause $pause_ms ms, $(got) bytes"
  cmp "$tmp/file" "$tmp/got"
}
listens() { in_host s ss -Hltn "sport = $port" | grep -q .; }
pause_is_at_most() { (($pause_ms <= $1)) || { echo "$pause_ms ms"; return 1; }; }

# What tells the other side where we are is a keepalive, 32 bytes of WireGuard.
drop_keepalives() {
  in_host c nft -f - <<NFT
table ip foreign_test {
  chain output { type filter hook output priority 300; udp dport $kTunnelPort udp length 40 drop; }
}
NFT
}

# The link is gone for a moment, so that nothing is under way that would tell of the new address; as with a Wi-Fi that
# joins another network and gets another lease.
change_address() {
  ipb c <<IP
link set eth0 down
address delete $1/24 dev eth0
address add $2/24 dev eth0
IP
  sleep 0.3
  ipb c <<IP
link set eth0 up
route add default via 192.168.1.1
IP
}

# ethernet_up [MTU]: a second uplink, another network of r's.
ethernet_up() {
  ipb r <<IP
link add lan_c2 mtu ${1:-1500} type veth peer name eth1 mtu ${1:-1500} netns $(ns c)
address add 192.168.2.1/24 dev lan_c2
link set lan_c2 up
IP
  oracle_start r lan_c2 in
  ipb c <<IP
address add 192.168.2.2/24 dev eth1
link set eth1 up
route add default via 192.168.2.1 dev eth1 metric 100
IP
}
server_sees() { n s wg show wgs endpoints | grep -q "$1:"; }

# Both uplinks stay for a second, in which the download goes on by the better one.
ethernet_then_no_wifi() {
  ethernet_up
  sleep 1
  in_host c ip link set eth0 down
}
from_the_old_address() { ping_c -c 1 -I 192.168.1.2 203.0.113.10 >/dev/null || true; }

for way in rules routes bind; do
  scenario 37 "($way) another address during a download: it goes on after at most 2 s, and comes whole"
  client_conf "LoopAvoidance = $way"
  check "up" adit_up
  pid=$(adit_pid)
  check "the download goes on" download 12 change_address 192.168.1.2 192.168.1.5
  check "... after at most 2 s" pause_is_at_most 2000
  check "... to the new address" grep -q '192.168.1.5:' <(n s wg show wgs endpoints)
  check "... with the same engine" equal "$pid" "$(adit_pid)"
  drop_keepalives
  control "if the peer is not told, it does not" fails download 6 change_address 192.168.1.5 192.168.1.2
  in_host c nft delete table ip foreign_test
  check "down" adit_down
  passes

  scenario 38 "($way) Wi-Fi, then Ethernet with a better metric too, then no Wi-Fi: the source follows, and the download goes on"
  in_host c ip route replace default via 192.168.1.1 dev eth0 metric 600
  in_host c ip route delete default via 192.168.1.1 metric 0 2>/dev/null || true
  client_conf "LoopAvoidance = $way"
  check "up" adit_up
  pid=$(adit_pid)
  for round in 1 2 3; do
    check "the download goes on ($round)" download 12 ethernet_then_no_wifi
    check "... after at most 2 s" pause_is_at_most 2000
    check "... by the Ethernet" server_sees 192.168.2.2
    check "... with the same engine" equal "$pid" "$(adit_pid)"
    in_host c ip link set eth0 up
    check "the oracle saw everything" oracle_stop
    check "what went by the new link had its address" at_least 10 "$outer and src host 192.168.2.2"
    check "... and nothing the old one" no_more_than 0 "udp and dst port $kTunnelPort and not src host 192.168.2.2"
    in_host c ip route add default via 192.168.1.1 dev eth0 metric 600
    in_host r ip link delete lan_c2
    check "the tunnel is back on the Wi-Fi" wait_for 3 server_sees 192.168.1.2
  done
  check "down" adit_down
  ethernet_up
  from_the_old_address
  check "the oracle saw everything" oracle_stop
  control "without the tunnel an address of the old link is seen on the new one" at_least 1 "icmp and src host 192.168.1.2"
  in_host r ip link delete lan_c2
  in_host c ip route replace default via 192.168.1.1
  in_host c ip route delete default via 192.168.1.1 metric 600
  passes
done
client_conf

scenario 56 "roaming to an uplink with a smaller MTU: the tunnel's MTU goes down with it and up again, and so does the clamp"
mtu_is() { [[ $(in_host c cat /sys/class/net/wg0/mtu) == "$1" ]]; }
clamp_is() { in_host c nft list chain inet adit-wg0 clamp | grep -q "maxseg size set $1"; }
roams_to_smaller() {
  ethernet_up 1400
  in_host c ip link set eth0 down
}
in_host c ip route replace default via 192.168.1.1 dev eth0 metric 600
in_host c ip route delete default via 192.168.1.1 metric 0 2>/dev/null || true
for mtu in "" 1420; do
  client_conf "Gateway = yes" ${mtu:+"MTU = $mtu"}
  check "up (MTU = ${mtu:-by itself})" adit_up
  check "its MTU is 1420" mtu_is 1420
  check "the clamp is 1380" clamp_is 1380
  if [[ ! $mtu ]]; then
    check "a download survives the way to the smaller one" download 15 roams_to_smaller
    check "its MTU is 1320" wait_for 2 mtu_is 1320
    check "the clamp is 1280" wait_for 3 clamp_is 1280
  else
    roams_to_smaller
    check "the tunnel is there too" wait_for 3 server_sees 192.168.2.2
    control "an MTU of the file's does not follow" mtu_is 1420
  fi
  in_host c ip link set eth0 up
  in_host c ip route add default via 192.168.1.1 dev eth0 metric 600
  in_host r ip link delete lan_c2
  check "back on the first uplink it is 1420" wait_for 3 mtu_is 1420
  check "the clamp too" wait_for 3 clamp_is 1380
  stop oracle
  check "down" adit_down
done
in_host c ip route replace default via 192.168.1.1
client_conf
passes
