#!/usr/bin/env bash
# The path swallows large packets and says nothing: the tunnel finds out what gets through. Topology and oracle: lab.sh.
#
# timeout: 400
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools ping nc
lab_up
lab_container

# Several datagrams that leave as one must not look like a large one to the router.
for where in c s; do in_host "$where" ip link set eth0 gso_max_segs 1; done

# swallow BYTES: r drops outer packets that are larger, both ways. heal: no more.
swallow() {
  in_host r nft -f - <<NFT
table inet swallows
delete table inet swallows
table inet swallows {
  chain forward { type filter hook forward priority 0; meta l4proto udp meta length > $1 counter drop; }
}
NFT
}
heal() { in_host r nft delete table inet swallows; }
swallowed_any() { grep -q 'packets [1-9]' <(in_host r nft list table inet swallows); }

mtu_is() { [[ $(in_host c cat /sys/class/net/wg0/mtu) == "$1" ]] || { in_host c cat /sys/class/net/wg0/mtu; return 1; }; }
warns_of() { a_status_says "warning.*: the path to $1 swallows packets above $2 bytes"; }
a_status_says() { grep -q "$1" <(a status wg0); }
warns() { a status wg0 | grep 'warning.*swallows'; }
# Enough to count as use: the looks of two seconds have to see it.
some_traffic() { in_host c ping -q -W 2 -c 15 -i 0.2 -s 500 "${1:-10.9.0.1}"; }

# 2 MB by TCP. moves SECONDS FROM TO ADDRESS: FROM connects to TO, which listens at ADDRESS, and sends; fetches: receives. True
# if it is there, whole, in time. Each has a port of its own: one that was cut off may still be listening.
head -c 2000000 /dev/urandom >"$tmp/file"
port=9000
listens() { grep -q . <(in_host "$1" ss -Hltn "sport = $port"); }
moves() {
  ((++port))
  rm -f "$tmp/got"
  spawn "to-$port" "$3" bash -c "exec nc -d -l $4 $port >'$tmp/got'"
  wait_for 5 listens "$3" || { echo "nobody listens"; return 1; }
  finishes "$1" "to-$port" "$2" bash -c "exec nc -N $4 $port <'$tmp/file' >/dev/null"
}
fetches() {
  ((++port))
  rm -f "$tmp/got"
  spawn "from-$port" "$3" bash -c "exec nc -N -l $4 $port <'$tmp/file' >/dev/null"
  wait_for 5 listens "$3" || { echo "nobody listens"; return 1; }
  finishes "$1" "from-$port" "$2" bash -c "exec nc -d $4 $port >'$tmp/got'"
}
is_here() { [[ $(stat -c %s "$tmp/got" 2>/dev/null) == 2000000 ]]; }
finishes() {
  local limit=$1 other=$2 here=0
  local start=${EPOCHREALTIME/./}
  shift 2
  spawn "near-$port" "$@"
  wait_for "$limit" is_here || here=1
  echo "$(stat -c %s "$tmp/got") bytes after $(((${EPOCHREALTIME/./} - start) / 1000)) ms" | tee -a "$tmp/transfers.log"
  stop "near-$port" KILL
  stop "$other" KILL
  ((here == 0)) && cmp "$tmp/file" "$tmp/got"
}

# The probes are counted by c's kernel: a capture does not keep up with a transfer.
in_host c nft -f - <<'NFT'
table inet counts_probes {
  counter probes { }
  chain out { type filter hook output priority 400; oifname "wg0" udp dport 33434-33561 counter name probes; }
}
NFT
probe_count() { in_host c nft reset counter inet counts_probes probes | awk '/packets/ { print $2 }'; }
# Since the last question. A search that has nothing more to say for 4 s is over.
probe_count_is() {
  sleep 4
  equal "$1" "$(probe_count)"
}

scenario 55 "a path that swallows large packets: the tunnel's MTU is what gets through, and TCP flows, from here and from a container"

# ---- a healthy path ---------------------------------------------------------------------------------------------------
client_conf "Gateway = yes"
check "up, and nothing is swallowed" adit_up
oracle_start c wg0 out
sleep 4
check "the oracle saw everything" oracle_stop
check "an idle tunnel says nothing" no_more_than 0 "ip or ip6"
check "2 MB there" moves 10 c s 10.9.0.1
check "2 MB back" fetches 10 c s 10.9.0.1
check "two packets are all that it costs" probe_count_is 2
check "the MTU is 1420" mtu_is 1420
check_fails "nothing to warn of" warns
check "down" adit_down

# ---- the control: the user's word ---------------------------------------------------------------------------------------
swallow 1380
client_conf "Gateway = yes" "MTU = 1420"
check "up with an MTU of the file's" adit_up
check "small packets pass" some_traffic
control "2 MB there do not arrive" fails moves 8 c s 10.9.0.1
control "nor back" fails fetches 8 c s 10.9.0.1
control "nor from a container" fails moves 8 k s 10.9.0.1
control "nor to it" fails fetches 8 k s 10.9.0.1
check "the router swallowed them" swallowed_any
check "nothing was searched" probe_count_is 0
check "the MTU is still 1420" mtu_is 1420
check "down" adit_down

# ---- the search ---------------------------------------------------------------------------------------------------------
client_conf "Gateway = yes" "KillSwitch = up"
check "up without one" adit_up
check "the MTU is 1420" mtu_is 1420
oracle_start
check "small packets pass" some_traffic
began=${EPOCHREALTIME/./}
check "the MTU goes down to what passes, in steps of the padding" wait_for 20 mtu_is 1312
count=$(probe_count)
echo "$count packets; $(((${EPOCHREALTIME/./} - began) / 1000)) ms after the traffic"
check "... with no more than 30 packets" test "$count" -le 30
check "the oracle saw everything" oracle_stop
check "none of them beside the tunnel" clean
check "the status says why" warns_of 203.0.113.10 1372
check "2 MB there" moves 10 c s 10.9.0.1
check "2 MB back" fetches 10 c s 10.9.0.1
check "2 MB there by IPv6" moves 10 c s fd09::1
check "2 MB back by IPv6" fetches 10 c s fd09::1
check "2 MB from a container" moves 10 k s 10.9.0.1
check "2 MB to it" fetches 10 k s 10.9.0.1

# ---- and back -----------------------------------------------------------------------------------------------------------
heal
sleep 2
check "a path that is the same for the machine is not searched again" mtu_is 1312
in_host c ip link set eth0 down
sleep 0.5
ipb c <<IP
link set eth0 up
route add default via 192.168.1.1
address add fd00:1::2/64 dev eth0
route add default via fd00:1::1
IP
check "when the network changed the MTU is 1420" wait_for 5 mtu_is 1420
check_fails "nothing to warn of any more" warns
check "the tunnel carries" wait_for 10 ping_c -c 1 10.9.0.1
probe_count >/dev/null
check "2 MB there" moves 10 c s 10.9.0.1
check "the new path is searched" probe_count_is 2
check "... and clear" mtu_is 1420
check "down" adit_down

# ---- an upload that is stuck ----------------------------------------------------------------------------------------------
swallow 1380
client_conf
check "up" adit_up
check "an upload that gets stuck starts the search by itself, and then goes on" moves 30 c s 10.9.0.1
check "the MTU is what passes" mtu_is 1312
check "2 MB back" fetches 10 c s 10.9.0.1
check "down" adit_down

# ---- IPv6 alone, inside and outside -----------------------------------------------------------------------------------------
endpoint="[2001:db8:f::10]:$kTunnelPort" addresses="fd09::2/64" client_conf
check "up by IPv6, for IPv6" adit_up
check "small packets pass" some_traffic fd09::1
check "20 bytes less pass" wait_for 20 mtu_is 1296
check "the status says why" warns_of 2001:db8:f::10 1376
check "2 MB there" moves 10 c s fd09::1
check "2 MB back" fetches 10 c s fd09::1
check "down" adit_down

# ---- IPv4 alone; a server that answers only for what it would pass on -----------------------------------------------------------
swallow 1000
set_sysctl s net.ipv4.ip_forward=1
addresses="10.9.0.2/32" client_conf
check "up for IPv4" adit_up
check "small packets pass" some_traffic
check "the MTU goes below IPv6's least" wait_for 40 mtu_is 928
check "2 MB there" moves 10 c s 10.9.0.1
check "2 MB back" fetches 10 c s 10.9.0.1
check "down" adit_down
set_sysctl s net.ipv4.ip_forward=0

# ---- what cannot be helped ------------------------------------------------------------------------------------------------------
client_conf
check "up with IPv6" adit_up
check "small packets pass" some_traffic
check "where not even 1280 bytes pass, the status says so" wait_for 30 a_status_says "swallows even packets of 1340 bytes"
check "... and the MTU stays" mtu_is 1420
check "down" adit_down
in_host s nft -f - <<'NFT'
table ip silent {
  chain out { type filter hook output priority 0; icmp type { destination-unreachable, time-exceeded } drop; }
}
NFT
check "up to a server that says nothing" adit_up
probe_count >/dev/null
check "small packets pass" some_traffic
sleep 4
check "it is asked six times" probe_count_is 6
check "... and nothing changes" mtu_is 1420
check_fails "nothing is said of what is not known" warns
check "down" adit_down
in_host s nft delete table ip silent
heal
passes
