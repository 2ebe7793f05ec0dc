#!/usr/bin/env bash
# The firewall: what `adit check` prints is what the kernel has, and the scenarios that it is for. Topology: lab.sh.
#
# "main for all" is a foreign rule in front of ours that sends every packet by table main: with it nothing but the firewall
# stands between a packet and the uplink.
#
# timeout: 240
# alone: it counts milliseconds
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools jq
lab_up
lab_container

ask_port() { in_host "$1" "$lab" ask "$2" "$3" "$4" "${@:5}"; }
# refused HOST udp|tcp ADDRESS PORT [OPTIONS…]: the machine itself says no, at once.
refused() {
  local answer
  answer=$(ask_port "$@") || true
  [[ $answer == "error EPERM "* || $answer == "error EACCES "* || $answer == "error EHOSTUNREACH "* ]] || { echo "$answer"; return 1; }
}
main_for_all() {
  ipb c <<<"rule add pref 100 lookup main"
  in_host c ip -6 rule add pref 100 lookup main
}
main_for_some() {
  ipb c <<<"rule delete pref 100"
  in_host c ip -6 rule delete pref 100
}
# counted COUNTER [TABLE]: it is not zero.
counted() {
  local count
  count=$(in_host c nft list counter inet "${2:-adit-wg0}" "$1" | awk '/packets/ { print $2 }')
  ((count > 0)) || { echo "$1 is $count"; return 1; }
}
squeeze() { tr -s '[:space:]' ' '; }
nobody() { in_host c setpriv --reuid 65534 --clear-groups "$lab" ask udp 8.8.8.8 7 --device eth0; }
nobody_gets() { # WORDS at the line's begin
  local answer
  answer=$(nobody) || true
  [[ $answer == "$1 "* ]] || { echo "$answer"; return 1; }
}
gets_dhcp() {
  local answer
  answer=$(ask_port c udp 192.0.2.9 67 --source-port 68 --device eth0 --wait 100) || true
  [[ $answer == "$1 "* ]] || { echo "$answer"; return 1; }
}
snapshot c

# ---- the table

client_conf "KillSwitch = up" "DNSGuard = yes" "Gateway = yes" "Forward = tcp 8080 to 192.168.1.77:7" \
  "#adit: Forward = udp 5000-5010 to fd00:1::77"
planned=$(a check "$conf" 2>/dev/null | sed -n '/^table/,/^}/p' | squeeze)
check "up with everything on" adit_up
check "the kernel has what check printed" equal "$planned" \
  "$(in_host c nft list table inet adit-wg0 | sed -E 's/ # progname adit//; /^\tflags /d; s/packets [0-9]+ bytes [0-9]+/packets 0 bytes 0/' | squeeze)"
explain() { a explain "$@"; }
check "explain: the firewall refuses what would go beside the tunnel, and by which rule" \
  bash -c '[[ $1 == *"by eth0, but the firewall of wg0 refuses them"*"adit-wg0, chain out_deny"*"killed_out"* ]]' _ "$(explain 203.0.113.1 --mark=0x1000)"
check "explain: ... but not the engine's own: its mark, its protocol, its port" \
  bash -c '[[ $1 == *"by UDP port 51820"*"by eth0"*"adit-wg0 lets it pass"* ]]' _ "$(explain 203.0.113.10 --mark=0x1000 --protocol=udp --port=51820)"
check "explain: ... and no other port of the endpoint's" \
  bash -c '[[ $1 == *"chain out_deny"*"killed_out"* ]]' _ "$(explain 203.0.113.10 --mark=0x1000 --protocol=tcp --port=443)"
check "explain: the LAN's resolver, which the DNS guard closes" \
  bash -c '[[ $1 == *"the firewall of wg0 refuses them"*"dns"* ]]' _ "$(explain 192.168.1.1 --protocol=udp --port=53)"
check "explain: ... and another port of that host's" bash -c '[[ $1 == *"adit-wg0 lets it pass"* ]]' _ "$(explain 192.168.1.1 --protocol=udp --port=54)"
check "explain: what goes into the tunnel passes" bash -c '[[ $1 == *"into the tunnel wg0"*"adit-wg0 lets it pass"* ]]' _ "$(explain 8.8.8.8)"
check "explain: what comes in and would go on beside the tunnel is refused too" \
  bash -c '[[ $1 == *"by eth0"*"adit-wg0, chain forward_deny"*"killed_forward"* ]]' _ "$(explain 203.0.113.1 --mark=0x1000 --iif=eth0)"
check "explain: ... and into the tunnel it passes" bash -c '[[ $1 == *"into the tunnel wg0"*"adit-wg0 lets it pass"* ]]' _ "$(explain 8.8.8.8 --iif=eth0)"
check "explain: to the tunnel's address from the side" \
  bash -c '[[ $1 == *"chain incoming refuses it"*"spoofed"* ]]' _ "$(explain 10.9.0.2 --iif=eth0)"
check "explain as JSON" equal "adit-wg0 false out_deny killed_out" \
  "$(explain 203.0.113.1 --mark=0x1000 --json | jq -r '.firewall[0] | "\(.table) \(.passes) \(.chain) \(.counter)"')"
in_host c nft 'add table inet foreign_policy; add chain inet foreign_policy output { type filter hook output priority 10; policy drop; }'
check "explain: a foreign policy is named" bash -c '[[ $1 == *"table inet foreign_policy, chain output drops"* ]]' _ "$(explain 8.8.8.8)"
in_host c nft delete table inet foreign_policy
check "status names the kill switch" bash -c '[[ $1 == *"kill switch up"* ]]' _ "$(a status wg0)"
check_fails "nobody else deletes the table" in_host c nft delete table inet adit-wg0
check "down" adit_down
check "everything is as before" unchanged c

# ---- accidents and attacks, each with the kill switch and without

scenario 5 "no leak while coming up and going down"
client_conf "KillSwitch = always"
check "the kill switch closes before the tunnel" a killswitch on "$conf"
oracle_start
spawn flood5 c "$lab" flood 8.8.8.8 7 200 20
check "up" adit_up
check "down" adit_down
check "it is still closed" equal on "$(a killswitch status "$conf")"
stop flood5
check "the oracle" oracle_stop
check "nothing left but the tunnel" clean
check "the kill switch opens" a killswitch off "$conf"
client_conf
oracle_start
spawn flood5 c "$lab" flood 8.8.8.8 7 200 20
adit_up >/dev/null
adit_down >/dev/null
stop flood5
check "the oracle" oracle_stop
control "without it the flood is on the LAN" leaks "dst host 8.8.8.8"
passes

client_conf "KillSwitch = up"
check "up" adit_up
oracle_start
check "an unprivileged user, bound to eth0: EPERM" nobody_gets "error EPERM"
check "... and counted" counted killed_out
ipb c <<<"route add 10.0.0.0/8 via 192.168.1.66"
check "a private network that DHCP pushes: refused" refused c udp 10.1.2.3 7
ipb c <<<"route delete 10.0.0.0/8 via 192.168.1.66"
check "unmarked to the endpoint: refused" refused c udp 203.0.113.10 $kTunnelPort --device eth0
check "marked to another port: refused" refused c udp 203.0.113.10 7 --mark 0x1000
check "with the bit by which tunnels approve: refused" refused c udp 8.8.8.8 7 --device eth0 --mark 0x2000000
check "TCP to the endpoint goes through the tunnel" sees c tcp 203.0.113.10 10.9.0.2
check "a neighbour is reached" sees c udp 192.168.1.77 192.168.1.2
check "DHCP renewal straight to a server: let out" gets_dhcp silence
check "the oracle" oracle_stop
check "nothing left but the tunnel" clean
check "not even a question for the destination" no_more_than 0 "arp and host 8.8.8.8"
check "down" adit_down

client_conf
check "up without a kill switch" adit_up
oracle_start
nobody >/dev/null || true
scenario 46 "TunnelVision on private ranges"
ipb c <<<"route add 10.0.0.0/8 via 192.168.1.66"
ask_port c udp 10.1.2.3 7 --wait 200 >/dev/null || true
ipb c <<<"route delete 10.0.0.0/8 via 192.168.1.66"
ask_port c udp 203.0.113.10 7 --mark 0x1000 --wait 200 >/dev/null || true
check "the oracle" oracle_stop
control "without a kill switch it is on the LAN" leaks "dst host 10.1.2.3"
passes
scenario 49 "SO_BINDTODEVICE of an unprivileged user: EPERM"
# No route leads there from eth0, so the kernel takes the destination for a neighbour and asks the LAN for it.
control "without a kill switch the LAN is asked for the destination" at_least 1 "arp and host 8.8.8.8"
passes
check "control: without a kill switch a marked packet reaches any port of the endpoint" leaks "dst host 203.0.113.10 and udp dst port 7"
check "down" adit_down

scenario 40 "DHCP renewal straight to the server passes the kill switch"
client_conf "KillSwitch = up"
check "up" adit_up
check "from the client's port: let out" gets_dhcp silence
control "from another port: refused" refused c udp 192.0.2.9 67 --source-port 6868 --device eth0
passes

scenario 48 "CVE-2019-14899: a neighbour sends to the tunnel's address"
ipb l <<<"route add 10.9.0.2/32 via 192.168.1.2"
check "silence" gets l udp 10.9.0.2 silence --wait 200
check "... and counted" counted spoofed
check "down" adit_down
allowed="10.9.0.0/24"
client_conf
check "up as a split tunnel, which has no firewall" adit_up
control "there the neighbour is answered" sees l udp 10.9.0.2 192.168.1.77
check "down" adit_down
allowed="0.0.0.0/0, ::/0"
ipb l <<<"route delete 10.9.0.2/32 via 192.168.1.2"
passes

scenario 50 "a flow from before the tunnel is cut at once"
client_conf "KillSwitch = up"
spawn hold50 c "$lab" hold tcp 8.8.8.8 7
check "connected beside the tunnel" wait_for 5 grep -q "connected 192.168.1.2" "$tmp/hold50.log"
check "up" adit_up
check "ECONNABORTED" wait_for 3 grep -q "error ECONNABORTED" "$tmp/hold50.log"
stop hold50
check "down" adit_down
client_conf "KillSwitch = up" "CutOldFlows = no"
spawn hold50b c "$lab" hold tcp 8.8.8.8 7
check "connected again" wait_for 5 grep -q "connected 192.168.1.2" "$tmp/hold50b.log"
check "up, cutting nothing" adit_up
control "the flow is not told" fails wait_for 1 grep -q "error ECONNABORTED" "$tmp/hold50b.log"
check "... yet no address of the LAN gets into the tunnel" counted foreign_source
stop hold50b KILL
check "down" adit_down
# A container's, which the machine translates to its address of the LAN; unlike masquerading, the kernel keeps that when the
# way changes.
in_host c nft -f - <<'NFT'
table ip fixed_replay {
  chain postrouting {
    type nat hook postrouting priority 90; policy accept;
    ip saddr 172.17.0.0/16 oifname "eth0" snat to 192.168.1.2
  }
}
NFT
for cuts in yes no; do
  client_conf "KillSwitch = up" "CutOldFlows = $cuts"
  check "a container's flow beside the tunnel" sees k udp 8.8.8.8 192.168.1.2 --source-port 5050
  check "up (CutOldFlows = $cuts)" adit_up
  if [[ $cuts == yes ]]; then
    check "the same flow goes on through the tunnel, as the tunnel's" sees k udp 8.8.8.8 10.9.0.2 --source-port 5050
  else
    control "the same flow still carries the LAN's address" fails sees k udp 8.8.8.8 10.9.0.2 --source-port 5050
    check "... another one does not" sees k udp 8.8.8.8 10.9.0.2 --source-port 5051
  fi
  check "down" adit_down
done
in_host c nft delete table ip fixed_replay
passes

scenario 10 "a container behind a tunnel that is gone"
client_conf "KillSwitch = up"
check "up" adit_up
check "the container goes through the tunnel" sees k udp 8.8.8.8 10.9.0.2
check "... and its MSS is clamped" bash -c '[[ $1 == *"maxseg size set rt mtu"* ]]' _ "$(in_host c nft list chain inet adit-wg0 clamp)"
main_for_all
oracle_start
check "the process is killed, the TUN with it" adit_kill
check "the kill switch stands" equal on "$(a killswitch status "$conf")"
check "the container's packets are refused or lost" fails sees k udp 8.8.8.8 192.168.1.2 --wait 300
check "... and counted" counted killed_forward
check "the machine's too" refused c udp 8.8.8.8 7
check "the oracle" oracle_stop
check "nothing is on the LAN" clean
check "the next up adopts the table" adit_up
check "... and works" sees c udp 10.9.0.1 10.9.0.2 --device wg0
check "killed again" adit_kill
check "cleanup" a cleanup wg0
control "without it the container is on the LAN" sees k udp 8.8.8.8 192.168.1.2
main_for_some
check "everything is as before" unchanged c
passes "replayed: Docker's bridge and masquerade"

scenario 27 "nft flush ruleset"
client_conf "KillSwitch = up"
check "up" adit_up
in_host c nft "add table inet foreign"
oracle_start
spawn flood27 c "$lab" flood 8.8.8.8 7 500 2
main_for_all
check "somebody flushes everything" in_host c nft flush ruleset
control "his own table is gone" fails in_host c nft list table inet foreign
check "ours stands, or is back" wait_for 1 in_host c nft list table inet adit-wg0
sleep 0.3
check "the flood is still refused" refused c udp 8.8.8.8 7
main_for_some
stop flood27
check "the oracle" oracle_stop
check "nothing left but the tunnel" clean
check "down" adit_down
passes

scenario 63 "two kill switches of ours, and a foreign one"
client_conf "KillSwitch = up"
second_conf "KillSwitch = up"
check "up, the first" adit_up
check "up, the second, through the first one's kill switch" a up --wait=10 "$conf2"
check "the first carries" sees c udp 8.8.8.8 10.9.0.2
check "the second carries" sees c udp 8.8.8.8 10.9.0.3 --device wg1
check "a user bound to eth0 is still refused" nobody_gets "error EPERM"
check "the second goes" a down wg1
check "the first carries" sees c udp 8.8.8.8 10.9.0.2
check "... and is still closed" nobody_gets "error EPERM"
check "the second again, and the first goes" a up --wait=10 "$conf2"
check "down" adit_down
check "the second carries" sees c udp 8.8.8.8 10.9.0.3
check "... and is closed" nobody_gets "error EPERM"
foreign() { # MORE RULES
  in_host c nft -f - <<NFT
table inet foreign {
  chain out { type filter hook output priority 0; policy drop;
    oifname "lo" accept
    udp dport $kTunnelPort accept
    $1
  }
}
NFT
}
foreign 'oifname "wg1" accept'
check "beside a foreign policy drop that knows it, it carries" sees c udp 8.8.8.8 10.9.0.3
in_host c nft delete table inet foreign
foreign ''
control "one that does not know it stops it, whatever we accept" fails sees c udp 8.8.8.8 10.9.0.3 --wait 300
in_host c nft delete table inet foreign
check "down" a down wg1
passes

# ---- gateway

ipb l <<<"route add 8.8.8.8 via 192.168.1.2"
ipb l <<<"route add 10.9.0.0/24 via 192.168.1.2"
ipb e <<<"route add 10.9.0.2 via 192.168.1.2"
set_sysctl c net.ipv4.ip_forward=0
snapshot c
forwards="Forward = tcp 8000-8010 to 192.168.1.77
Forward = udp 7777 to [fd00:1::77]:7"
gateway_conf() { client_conf "Gateway = yes" "KillSwitch = up" "$forwards" "$@"; }
in_host l ip -6 route add fd09::/64 via fd00:1::2
in_host e ip -6 route add fd09::2 via fd00:1::2
service l 8005
gateway_conf "Forward = udp 7777 to 192.168.1.77:7"
check "a gateway comes up" adit_up
check "it forwards" equal 1 "$(in_host c sysctl -n net.ipv4.ip_forward)"
check "a host of the LAN goes through the tunnel, masqueraded" sees l udp 8.8.8.8 10.9.0.2
port_sees() { [[ $(ask_port "$1" "$2" "$3" "$4") == "answer $5 "* ]]; }
check "a forwarded port reaches it from the tunnel" port_sees s udp 10.9.0.2 7777 10.9.0.1
check "... by IPv6" port_sees s udp fd09::2 7777 fd09::1
check "... one of a range, by TCP" port_sees s tcp 10.9.0.2 8005 10.9.0.1
check "... and from a neighbour that uses the tunnel's address" port_sees e udp 10.9.0.2 7777 192.168.1.2
check "... by IPv6" port_sees e udp fd09::2 7777 fd00:1::2
check "another port of the tunnel's address stays closed to neighbours" gets e udp 10.9.0.2 silence --wait 200
check "... by IPv6" gets e udp fd09::2 silence --wait 200
# The list of forwardings changes while it runs, alone.
count_of() { a status wg0 --json | jq ".firewall.packets.$1"; }
passed=$(count_of gateway_in)
others() { in_host c nft -s list table inet adit-wg0 | sed '/chain forwards {/,/}/d; /chain hairpin[46] {/,/}/d'; }
rest=$(others)
gateway_conf "Forward = udp 7778 to 192.168.1.77:7"
check "reload with another forwarding" a reload wg0
check "the new one carries" port_sees s udp 10.9.0.2 7778 10.9.0.1
check "... also for a neighbour" port_sees e udp 10.9.0.2 7778 192.168.1.2
check "the old one does not" fails port_sees s udp 10.9.0.2 7777 10.9.0.1
check "one that stayed does" port_sees s tcp 10.9.0.2 8005 10.9.0.1
check "all other chains are as they were" equal "$rest" "$(others)"
check "... the counts too" test "$(count_of gateway_in)" -gt "$passed"
check "what passed is counted" bash -c 'jq -e ".firewall.packets | .gateway_in > 0 and .gateway_out > 0" <<<"$1"' _ "$(a status wg0 --json)"
check "down" adit_down
check "everything is as before, also the sysctls" unchanged c
client_conf
check "up without Gateway" adit_up
check "control: the host of the LAN gets nowhere" gets l udp 8.8.8.8 silence --wait 300
check "down" adit_down

client_conf "Gateway = yes"
check "a gateway comes up" adit_up
set_sysctl c net.ipv4.ip_forward=0
check "somebody else stops forwarding" equal 0 "$(in_host c sysctl -n net.ipv4.ip_forward)"
check "down" adit_down
check "... and it stays as he set it" equal 0 "$(in_host c sysctl -n net.ipv4.ip_forward)"

# ---- a kernel that has no nftables for us

code=0
client_conf "KillSwitch = up"
n c setpriv --bounding-set=-net_admin --inh-caps=-net_admin -- "$adit" up "$conf" >"$tmp/cap.out" 2>&1 || code=$?
check "without CAP_NET_ADMIN: exit code 4" equal 4 "$code"
