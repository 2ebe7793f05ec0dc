#!/usr/bin/env bash
# Reverse path filters, a read-only /proc/sys, and marks that belong to others. Topology and oracle: lab.sh.
#
# timeout: 90
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
lab_up
client_conf

# In front of ours: what is not the engine's goes into the tunnel, so a strict filter finds the endpoint's answers on the wrong
# device, as it does without the rule for the endpoint's port.
hide_answers_rule() { in_host c ip rule add priority 100 not fwmark 0x1000/0x3000 to 203.0.113.10 lookup 30568; }
marks() { in_host c bash -c 'grep -H "" /proc/sys/net/ipv4/conf/*/src_valid_mark'; }
handshakes() { n c wg show wg0 latest-handshakes | cut -f2; }

strict_filter_works() {  # HOW
  check "$1: up, with a handshake" adit_up
  check "the tunnel carries" sees c tcp 8.8.8.8 10.9.0.2
  check "other ports of the endpoint stay in the tunnel" sees c tcp 203.0.113.10 10.9.0.2
  hide_answers_rule
  control "without the rule for the answers nothing comes back" gets c udp 8.8.8.8 silence --wait 300
  in_host c ip rule delete priority 100
  check "with it the tunnel carries again" wait_for 3 sees c udp 8.8.8.8 10.9.0.2
}

scenario 19 "rp_filter=1: the handshake works, and src_valid_mark stays as it is on every device"
set_sysctl c net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1
valid=$(marks)
strict_filter_works "rp_filter=1"
check "net.ipv4.conf.all.src_valid_mark is still 0" equal 0 "$(in_host c cat /proc/sys/net/ipv4/conf/all/src_valid_mark)"
check "... and nobody else's has changed" equal "$valid" "$(marks | grep -v /wg0/)"
check "down" adit_down
passes

scenario 20 "rp_filter=1 and a read-only /proc/sys: the same, by the rule for the endpoint's port"
read_only() { n c unshare --mount bash -c 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"' _ "$@"; }
control "nothing can be written there" fails read_only sysctl -qw net.ipv4.conf.all.rp_filter=1
adit_up() { read_only "$adit" up --wait=10 "$conf"; }
strict_filter_works "read-only"
check "down" adit_down
passes
set_sysctl c net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0
adit_up() { a up --wait=10 "$@" "$conf"; }

scenario 21 "firewalld's IPv6_rpfilter=strict: an IPv6 endpoint's answers pass"
endpoint="[2001:db8:f::10]:$kTunnelPort"
client_conf
# As firewalld 2 has it: table firewalld, chain filter_PREROUTING, in the order of its own rules.
in_host c nft -f - <<'NFT'
table inet firewalld {
  counter not_this_way { }
  chain filter_PREROUTING {
    type filter hook prerouting priority filter + 10; policy accept;
    icmpv6 type { nd-router-advert, nd-neighbor-solicit } accept
    meta nfproto ipv6 fib saddr . mark . iif oif missing counter name not_this_way drop
  }
}
NFT
not_this_way() { in_host c nft reset counter inet firewalld not_this_way | awk '/packets/ { print $2 }'; }
check "up, with a handshake" adit_up
check "the tunnel carries IPv6" sees c tcp 2001:db8::1 fd09::2
check "... and IPv4" sees c udp 8.8.8.8 10.9.0.2
check "nothing was dropped for its way" equal 0 "$(not_this_way)"
# What our table gives the answers, taken from them again: between ours (-310) and firewalld's.
in_host c nft -f - <<'NFT'
table inet unmark {
  chain answers { type filter hook prerouting priority -305; ip6 saddr 2001:db8:f::10 meta mark set meta mark & 0xffffcfff; }
}
NFT
control "without our mark on the answers nothing comes back" gets c udp 2001:db8::1 silence --wait 300
control "... and it is firewalld's rule that drops them" test "$(not_this_way)" -gt 0
in_host c nft delete table inet unmark
check "with it the tunnel carries again" wait_for 3 sees c udp 2001:db8::1 fd09::2
check "down" adit_down
in_host c nft delete table inet firewalld
endpoint=203.0.113.10:$kTunnelPort
client_conf
passes "replayed: firewalld's rule"

# Somebody else's chains: one marks UDP and remembers it on the connection, others count who still has the mark.
foreign_chains() {
  in_host c nft -f - <<'NFT'
table inet foreign {
  counter marked_out { }
  counter marked_in { }
  chain set_mark { type route hook output priority -160; udp dport 7 meta mark set meta mark or 0x42 ct mark set 0x42; }
  chain restore { type filter hook prerouting priority -140; udp sport 7 meta mark set ct mark; }
  chain count_out { type filter hook postrouting priority 300; udp dport 7 meta mark & 0xff == 0x42 counter name marked_out; }
  chain count_in { type filter hook input priority 300; udp sport 7 meta mark & 0xff == 0x42 counter name marked_in; }
}
NFT
}
counted() { in_host c nft reset counters table inet foreign | awk '/packets/ { printf "%s ", $2 }'; }
ask_ten() { for _ in 1 2 3 4 5 6 7 8 9 10; do ask c udp "$1" >/dev/null || return 1; done; }

scenario 22 "foreign marks stay on UDP packets: as many before up as after"
foreign_chains
ask_ten 8.8.8.8
before=$(counted)
check "before up ten out and ten in are marked" equal "10 10 " "$before"
check "up" adit_up
ask_ten 8.8.8.8
check "while up, through the tunnel, as many" equal "$before" "$(counted)"
ask_ten 192.168.1.77
check "... and beside it" equal "$before" "$(counted)"
in_host c nft -f - <<'NFT'
table inet like_wg_quick {
  chain premangle { type filter hook prerouting priority -130; meta l4proto udp meta mark set 0; }
}
NFT
ask_ten 8.8.8.8
control "where a chain overwrites marks whole, as wg-quick's does, they are gone" fails equal "$before" "$(counted)"
in_host c nft delete table inet like_wg_quick
passes

scenario 23 "no mark of ours has one of kube-proxy's bits, 0x4000 and 0x8000, on any packet"
has_no_kube_bits() { (($1 & 0xc000)) && echo "mark $1" && return 1 || return 0; }
kube_table() {
  in_host c nft -f - <<'NFT'
table inet kube_replay {
  counter dropped { }
  counter masqueraded { }
  chain out { type filter hook postrouting priority -200; udp dport 51820 meta mark & 0x8000 == 0x8000 counter name dropped; udp dport 51820 meta mark & 0x4000 == 0x4000 counter name masqueraded; }
}
NFT
}
kube_counted() { in_host c nft reset counters table inet kube_replay | awk '/packets/ { printf "%s ", $2 }'; }
kube_table
check "the sockets' mark has none" has_no_kube_bits "$(n c wg show wg0 fwmark)"
check "the tunnel carries" ask_ten 8.8.8.8
check "no packet had one" equal "0 0 " "$(kube_counted)"
check "down" adit_down
client_conf "FwMark = 0xca6c"
check "up with wg-quick's mark" adit_up
control "wg-quick's mark has both" fails has_no_kube_bits "$(n c wg show wg0 fwmark)"
ask_ten 8.8.8.8
control "... and so have its packets" fails equal "0 0 " "$(kube_counted)"
check "down" adit_down
in_host c nft delete table inet kube_replay
passes "replayed: kube-proxy's bits"
