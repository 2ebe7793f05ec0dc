#!/usr/bin/env bash
# A network that lets nothing out before somebody has logged in: `adit portal`. Topology and oracle: lab.sh.
#
# timeout: 180
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools setpriv
lab_up
service r 53

kNobody=65534
kOther=65533
as() { in_host c setpriv --reuid="$1" --regid="$1" --clear-groups "${@:2}"; }
# Whoever asks port 80 of anybody gets the portal, which is r's own service.
portal_is_shown_to() { [[ $(as "$1" "$lab" ask tcp "${2:-8.8.8.8}" 80) == "answer 192.168.1.2 "* ]]; }
lan_names_are_told_to() { [[ $(as "$1" "$lab" ask udp 192.168.1.1 53) == "answer 192.168.1.2 "* ]]; }
# r is a captive portal: nothing passes it.
captive() {
  in_host r nft -f - <<NFT
table ip captive {
  chain pre { type nat hook prerouting priority dstnat; iifname br0 tcp dport 80 redirect to :7; }
  chain deaf { type filter hook forward priority 0; iifname br0 drop; }
}
NFT
}
portal() { n c "$adit" portal "$@" wg0; }
# Not by pipes: grep -q ends early, and what wrote to it then fails for it.
status_says() { [[ $(a status wg0) == *"$1"* ]]; }
is_closed() { [[ $(in_host c ip rule) != *uidrange* && $(in_host c nft list table inet adit-wg0) != *skuid* ]]; }
client_conf "KillSwitch = up" "DNSGuard = yes"
snapshot c

scenario 60 "captive portal: a window for one user only, which closes by itself"
check "up" adit_up
check "the tunnel works" sees c udp 8.8.8.8 10.9.0.2
captive
oracle_start
control "without a window the portal is not shown to the user" fails portal_is_shown_to $kNobody
check "open it for a user and 8 s" portal --user $kNobody --for 8
check "the portal is shown to that user" portal_is_shown_to $kNobody
check "... and the status says so" status_says "programs of user $kNobody pass beside the tunnel"
check "... who may ask the network's server for names" lan_names_are_told_to $kNobody
check "it is not shown to another" fails portal_is_shown_to $kOther 9.9.9.9
check "... nor to root" fails portal_is_shown_to 0 9.9.9.9
check "... who may not ask for names either" fails lan_names_are_told_to 0
check "within 10 s it is closed" wait_for 10 is_closed
check "the status says nothing of it any more" fails status_says "pass beside"
check "the portal is not shown to the user any more" fails portal_is_shown_to $kNobody 9.9.9.9
check "the oracle saw everything" oracle_stop
check "what others sent did not leave" no_more_than 0 "dst host 9.9.9.9"
control "what the user sent did" at_least 1 "dst host 8.8.8.8 and tcp dst port 80"

in_host c "$adit" portal --user $kNobody wg0 -- bash -c 'id -u; cat /etc/resolv.conf; "$0" ask tcp 8.8.8.8 80; exit 7' "$lab" >"$tmp/out" && code=0 || code=$?
check "... its exit status is ours" equal 7 "$code"
check "... it runs as the user" grep -qx $kNobody "$tmp/out"
check "... the portal is shown to it" grep -q 'answer 192.168.1.2 ' "$tmp/out"
check "with its end the window is closed" is_closed
spawn browser c "$adit" portal --user $kNobody wg0 -- sleep 60
check "another program has the window" wait_for 5 fails is_closed
stop browser
check "SIGTERM ends the program, and closes the window" wait_for 3 is_closed
check "open it once more" portal --user $kNobody
check "and close it" n c "$adit" portal --close wg0
check "it is closed" is_closed
check "closing it again is no error" n c "$adit" portal --close wg0

check "open it for 6 s" portal --user $kNobody --for 6
check "a reload leaves it open" a reload wg0
check "... to that user" portal_is_shown_to $kNobody
adit_kill
sleep 6.5
check "who kills the tunnel does not keep it open" fails portal_is_shown_to $kNobody
in_host r nft delete table ip captive
check "cleanup" a cleanup wg0
check "the machine is as it was" unchanged c
check "up" adit_up
check "once logged in the tunnel works again" wait_for 10 sees c udp 8.8.8.8 10.9.0.2
check "down with an open window" portal --user $kNobody
check "down" adit_down
check "the machine is as it was" unchanged c
passes

check "up" adit_up
set_sysctl c net.ipv4.conf.eth0.rp_filter=1
check "a strict reverse path filter: refused, and what to do" exits_saying 1 "sysctl -w net.ipv4.conf.eth0.rp_filter=2" portal --user $kNobody
set_sysctl c net.ipv4.conf.eth0.rp_filter=2
check "a loose one is none" portal --user $kNobody
check "down" adit_down
check "no tunnel: refused" exits_saying 1 "no tunnel wg0 of ours is up" portal --user $kNobody
check "nobody of that name: refused" exits_saying 2 "nobody-here" portal --user nobody-here
check "no time at all: refused" exits 2 portal --user $kNobody --for 0
client_conf "LoopAvoidance = routes"
check "up by host routes" adit_up
check "without rules: refused, and why" exits_saying 1 "needs policy rules" portal --user $kNobody
check "down" adit_down
