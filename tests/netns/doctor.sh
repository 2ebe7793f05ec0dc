#!/usr/bin/env bash
# `adit doctor` names what stands in a tunnel's way, and nothing where there is nothing. Topology: lab.sh.
#
# timeout: 60
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools jq setpriv
lab_up
lab_container
in_host c nft flush ruleset

doctor() { n c "$adit" doctor --json; }
texts() { doctor 2>/dev/null | jq -r ".[] | select(.level != \"good\") | .text"; }
says() {
  texts >"$tmp/texts"
  grep -qF -- "$1" "$tmp/texts" || { cat "$tmp/texts"; return 1; }
}
is_silent_about() { ! says "$1"; }

snapshot c
check "a machine without problems: exit status 0" exits 0 doctor
check "every finding that is not good has a cure" test "$(doctor | jq '[.[] | select(.level != "good" and (.cure // "") == "")] | length')" -eq 0
check "nothing has changed" unchanged c

scenario 12 "a peer that would reach a container's address: Docker's raw drop is found and named"
client_conf
check "up" adit_up
n s wg set wgs peer "$(cat "$tmp/client.pub")" allowed-ips 10.9.0.2/32,fd09::2/128,172.17.0.0/16
in_host s ip route add 172.17.0.0/16 dev wgs
check "a peer reaches the container" wait_for 3 sees s udp 172.17.0.2 10.9.0.1
control "there is no such finding" is_silent_about 172.17.0.2
in_host c nft -f - <<'NFT'
table ip raw {
  chain PREROUTING {
    type filter hook prerouting priority raw; policy accept;
    iifname != "docker0" ip daddr 172.17.0.2 counter packets 0 bytes 0 drop
    iifname != "docker0" ip daddr 172.17.0.9 counter packets 0 bytes 0 accept
  }
}
table ip6 raw {
  chain PREROUTING {
    type filter hook prerouting priority raw; policy accept;
    ip6 daddr fd00:d::2 iifname != "br-0123456789ab" counter drop
  }
}
NFT
check "with Docker's rule it does not" gets s udp 172.17.0.2 silence --wait 300
check "doctor names the table, the container and the bridge" says "table ip raw, chain PREROUTING drops what goes to 172.17.0.2 unless it comes in by docker0"
check "... of IPv6 too" says "fd00:d::2 unless it comes in by br-0123456789ab"
check "... and not what is accepted" is_silent_about 172.17.0.9
in_host c nft delete table ip raw
in_host c nft delete table ip6 raw
check "down" adit_down
passes "replayed: Docker's rules"

in_host c nft -f - <<'NFT'
table inet strict {
  chain out { type filter hook output priority 0; policy drop; meta l4proto { tcp, udp, icmp, icmpv6 } accept; }
  chain rpfilter { type filter hook prerouting priority 10; meta nfproto ipv6 fib saddr . mark . iif oif missing drop; }
}
NFT
check "an output policy of drop is a problem: exit status 4" exits 4 doctor
check "... named" says "table inet strict, chain out drops"
check "firewalld's reverse path filter is named" says "chain rpfilter drops what comes in by another device"
in_host c nft delete table inet strict

in_host c ip rule add priority 5270 lookup 52
check "Tailscale's rule is named" says "rules of Tailscale"
in_host c ip route add default via 192.168.1.66 table 52
check "... and is a problem with a default route behind it" exits 4 doctor
in_host c ip route delete default table 52
in_host c ip rule delete priority 5270

set_sysctl c net.ipv4.conf.eth0.rp_filter=1
check "a strict reverse path filter is named" says "reverse path filter of eth0"
set_sysctl c net.ipv4.conf.eth0.rp_filter=0

check "up" adit_up
check "our own tunnel is no problem" exits 0 doctor
check "kill -9" adit_kill
check "what a crash left is" exits 4 doctor
check "... named" says "the process of wg0 died"
check "cleanup" a cleanup wg0
check "... cures it" exits 0 doctor

without_right() { n c setpriv --bounding-set=-net_admin --inh-caps=-net_admin -- "$adit" doctor; }
check "without CAP_NET_ADMIN: exit status 4" exits 4 without_right
check "... and it says so" grep -q "CAP_NET_ADMIN is missing" "$tmp/out"
no_device() { n c unshare --mount bash -c 'mount -t tmpfs tmpfs /dev/net && exec "$@"' _ "$adit" doctor; }
check "without /dev/net/tun: exit status 4" exits 4 no_device
check "... and it says so" grep -q "/dev/net/tun is missing" "$tmp/out"
