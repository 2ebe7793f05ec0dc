#!/usr/bin/env bash
# Other VPNs, other firewalls and a second tunnel of ours on the same machine. Topology: lab.sh; here also
#
#   [c] ts0, wgq: stand for the devices of Tailscale and of a wg-quick tunnel, whose rules are replayed
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools jq
lab_up
client_conf
ipb c <<IP
link add ts0 type veth peer name ts0_end
link add wgq type veth peer name wgq_end
address add 100.64.0.2/32 dev ts0
link set ts0 up
link set ts0_end up
link set wgq up
link set wgq_end up
IP

# All but what is ours, with handles, byte for byte.
foreign_tables() {
  in_host c nft -j list ruleset | jq -S -c '.nftables[] | select([.. | objects | (.table? // empty, (select(has("family") and has("handle")) | .name? // empty))] | any(strings | startswith("adit")) | not) | del(.. | .packets?, .bytes?)'
}

scenario 13 "chains of podman and Tailscale survive up, reload and down byte for byte"
in_host c nft -f - <<'NFT'
table inet netavark {
  chain NETAVARK-HOSTPORT-DNAT { tcp dport 8080 jump nv_dnat; }
  chain nv_dnat { ip saddr 10.88.0.0/16 meta mark set meta mark or 0x2000; tcp dport 8080 dnat ip to 10.88.0.2:80; }
  chain PREROUTING { type nat hook prerouting priority -100; fib daddr type local jump NETAVARK-HOSTPORT-DNAT; }
  chain POSTROUTING { type nat hook postrouting priority 100; ip saddr 10.88.0.0/16 ip daddr != 10.88.0.0/16 masquerade; }
}
table ip filter {
  chain ts-input { iifname != "tailscale0" ip saddr 100.64.0.0/10 drop; iifname "tailscale0" accept; }
  chain INPUT { type filter hook input priority 0; policy accept; counter jump ts-input; }
}
table ip6 filter {
  chain ts-forward { meta mark & 0xff0000 == 0x40000 accept; }
}
NFT
before=$(foreign_tables)
check "there is something to lose" test "$(wc -l <<<"$before")" -gt 10
for level in off up; do
  client_conf "#adit: KillSwitch = $level"
  check "up, kill switch $level" adit_up
  check "the tunnel carries" sees c udp 8.8.8.8 10.9.0.2
  check "the chains are as before" equal "$before" "$(foreign_tables)"
  ours=$(in_host c nft -s list table inet adit-wg0)
  client_conf "KillSwitch = $([[ $level == up ]] && echo off || echo up)" "LAN = block" "MTU = 1300"
  check "reload, to another kill switch, LAN and MTU" a reload wg0
  check "... our table is another" fails equal "$ours" "$(in_host c nft -s list table inet adit-wg0)"
  check "... the chains are as before" equal "$before" "$(foreign_tables)"
  check "down" adit_down
  check "... and still" equal "$before" "$(foreign_tables)"
done
in_host c nft flush chain ip filter ts-input
control "a flushed chain shows" fails equal "$before" "$(foreign_tables)"
in_host c nft flush ruleset
client_conf
passes "replayed: netavark's and Tailscale's chains"

# As routing.md has them; without an exit node table 52 holds the tailnet only.
tailscale_up() {
  local family
  for family in -4 -6; do
    in_host c ip $family rule add priority 5210 fwmark 0x80000/0xff0000 lookup main
    in_host c ip $family rule add priority 5230 fwmark 0x80000/0xff0000 lookup default
    in_host c ip $family rule add priority 5250 fwmark 0x80000/0xff0000 unreachable
    in_host c ip $family rule add priority 5270 lookup 52
  done
  in_host c ip route add 100.64.0.0/10 dev ts0 table 52
}
tailscale_down() {
  local family priority
  for family in -4 -6; do for priority in 5210 5230 5250 5270; do in_host c ip $family rule delete priority $priority; done; done
  in_host c ip route delete 100.64.0.0/10 dev ts0 table 52
  in_host c ip route delete default dev ts0 table 52 2>/dev/null || true
}
# A split wg-quick tunnel has no rules; a full one has these, without priorities: the kernel puts them in front of all.
wg_quick_up() {
  in_host c ip route add 0.0.0.0/0 dev wgq table 51820
  in_host c ip rule add not fwmark 51820 table 51820
  in_host c ip rule add table main suppress_prefixlength 0
}
wg_quick_down() {
  in_host c ip rule delete table 51820
  in_host c ip rule delete pref "$(rule_priorities c -4 "lookup main suppress_prefixlength 0" | head -n 1)"
  in_host c ip route delete 0.0.0.0/0 dev wgq table 51820
}
leaves_by() { in_host c ip route get "$1" ${2:+mark "$2"} | grep -oP 'dev \K\S+' || true; }
others() { in_host c ip rule | grep -E '^52[0-9]+:'; in_host c ip route show table 52; }

scenario 28 "next to Tailscale the same one wins in both orders, next to a wg-quick that was there too; down leaves them as they were"
winners() { echo "8.8.8.8 by $(leaves_by 8.8.8.8), 100.64.0.7 by $(leaves_by 100.64.0.7), the engine by $(leaves_by 203.0.113.10 0x1000), Tailscale's own by $(leaves_by 8.8.8.8 0x80000)"; }
wanted="8.8.8.8 by wg0, 100.64.0.7 by ts0, the engine by eth0, Tailscale's own by eth0"
tailscale_up
snapshot c
check "Tailscale first: up" adit_up
check "the winners" equal "$wanted" "$(winners)"
check "the tunnel carries" sees c udp 8.8.8.8 10.9.0.2
check "down" adit_down
check "... leaves Tailscale's as they were" unchanged c
tailscale_down
check "Tailscale second: up" adit_up
tailscale_up
check "the same winners" equal "$wanted" "$(winners)"
check "the tunnel carries" sees c udp 8.8.8.8 10.9.0.2
before=$(others)
check "down" adit_down
check "... leaves Tailscale's as they were" equal "$before" "$(others)"
tailscale_down
wg_quick_up
snapshot c
check "wg-quick first: up" adit_up
check "ours wins" equal wg0 "$(leaves_by 8.8.8.8)"
check "the tunnel carries" sees c udp 8.8.8.8 10.9.0.2
check "down" adit_down
check "... leaves wg-quick's as they were" unchanged c
in_host c ip rule delete table 51820
control "a down that removes one of theirs shows" fails unchanged c
in_host c ip rule add not fwmark 51820 table 51820
wg_quick_down
tailscale_up
in_host c ip route add default dev ts0 table 52
check "up beside an exit node" a up "$conf"
control "a rule in front that takes all is another winner" fails equal "$wanted" "$(winners)"
check "... and the status says which rule it is" grep -q 'lookup 52' <(a status wg0)
check "down" adit_down
tailscale_down
passes "replayed: Tailscale's and wg-quick's rules. A wg-quick started later puts itself in front of everything"

scenario 29 "two of ours: the second one's down leaves the first working, LAN and all"
second_conf
check "up" adit_up
snapshot c
check "the second: up" a up --wait=10 "$conf2"
check "the first one keeps what it has" sees c udp 8.8.8.8 10.9.0.2
check "the second carries what is bound to it" sees c udp 10.9.0.1 10.9.0.3 --device wg1
check "the second: down" a down wg1
check "everything of the first is as it was" unchanged c
check "the tunnel carries" sees c udp 8.8.8.8 10.9.0.2
check "the LAN is kept" sees c udp 192.168.1.77 192.168.1.2
# wg-quick's down removes a rule by its form, whosever it is; ours has another form, so that is replayed with it. Our process is stopped meanwhile, or the rule
# would be back at once.
kill -STOP "$(adit_pid)"
in_host c ip rule delete lookup main suppress_prefixlength 15
control "a rule of the first that is removed shows" fails unchanged c
kill -CONT "$(adit_pid)"
check "... and is back when the process moves again" wait_for 3 unchanged c
check "down" adit_down
passes
