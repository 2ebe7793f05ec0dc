#!/usr/bin/env bash
# The engine's own packets never go into the tunnel: endpoint inside the allowed IPs, no route to it, endpoint on the LAN.
# Topology and oracle: lab.sh.
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools ping jq
lab_up

# In front of our rules, one that sends what carries the engine's mark into the tunnel: what a rule set without loop avoidance does.
break_mark() { in_host c ip rule add priority 100 fwmark 0x1000/0x3000 lookup 30568; }
mend_mark() { in_host c ip rule delete priority 100; }
# The engine's own packets that were sent into the tunnel all the same: refused in front of it for their source, or dropped in
# it. The former comes first wherever there is a firewall.
caught() { a status wg0 --json | jq '([.. | .loop? | numbers] | add // 0) + (.firewall.packets.foreign_source // 0)'; }
caught_more_than() { (($(caught) > $1)) || { echo "$(caught) caught, not more than $1"; return 1; }; }

scenario 1 "an endpoint inside the allowed IPs does not loop: one outer packet a ping, none in the tunnel"
client_conf
check "up" adit_up
check "the endpoint's own address is reached through the tunnel" sees c udp 203.0.113.10 10.9.0.2
oracle_start
check "1000 pings" ping_c -c 1000 -i 0.002 8.8.8.8
check "the oracle saw everything" oracle_stop
check "one outer packet a ping, and not more than a handshake and the search for the MTU beside them" outer_pings_between 1000 1024
check "... and nothing but them" clean
oracle_start c wg0 out
check "1000 pings" ping_c -c 1000 -i 0.002 8.8.8.8
check "the oracle saw everything" oracle_stop
check "the tunnel carries the pings" at_least 1000 "icmp"
check "... and none of the engine's own packets" no_more_than 0 "$outer"
before=$(caught)
check "so far none had to be caught" equal 0 "$before"
break_mark
ping_c -c 5 -i 0.1 -W 1 8.8.8.8 >/dev/null || true
control "without the mark's rule they are sent into the tunnel, where the guards catch them" caught_more_than "$before"
mend_mark
check "with it the tunnel works again" wait_for 3 ping_c -c 1 -W 1 8.8.8.8
passes

scenario 2 "without a default route the engine's packets are refused, not looped; with it the tunnel is back in 2 s"
oracle_start c wg0 out
in_host c ip route delete default
check_fails "no answer" ping_c -c 5 -i 0.1 -W 1 8.8.8.8
in_host c ip route add default via 192.168.1.1
check "... and with the route it is back in 2 s" wait_for 2 ping_c -c 1 -W 1 8.8.8.8
check "the oracle saw everything" oracle_stop
check "none of the engine's packets went into the tunnel" no_more_than 0 "$outer"
before=$(caught)
break_mark
ping_c -c 5 -i 0.1 -W 1 8.8.8.8 >/dev/null || true
control "without the mark's rules they do" caught_more_than "$before"
mend_mark
check "down" adit_down
passes

scenario 3 "a foreign filter strips the engine's mark: its packets are caught and counted, and nothing spins"
# In hundredths of a second, of all threads.
cpu_time() { awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$(adit_pid)/stat"; }
check "up" adit_up
check "the tunnel carries" ping_c -c 1 8.8.8.8
control "with the mark nothing is counted" equal 0 "$(caught)"
in_host c nft -f - <<'NFT'
table inet strips_marks {
  chain out { type route hook output priority -100; udp dport 51820 meta mark set 0; }
}
NFT
oracle_start
before=$(cpu_time)
start=${EPOCHREALTIME//[.,]/}
check_fails "no answer" ping_c -c 40 -i 0.05 -W 1 8.8.8.8
hundredths=$(((${EPOCHREALTIME//[.,]/} - start) / 10000))
used=$(($(cpu_time) - before))
check "the oracle saw everything" oracle_stop
check "they are counted" test "$(caught)" -gt 0
check "each packet once: no more than were sent and a few of the engine's own" test "$(caught)" -le 60
check "less than 5 % of a processor ($used of $hundredths hundredths of a second)" test $((used * 20)) -lt "$hundredths"
check "nothing leaked" clean
in_host c nft delete table inet strips_marks
check "without the filter the tunnel carries again" wait_for 6 ping_c -c 1 -W 1 8.8.8.8
check "down" adit_down

# Where there is no firewall in front of it, the engine's own guard has to see them.
in_engine() { a status wg0 --json | jq '[.. | .loop? | numbers] | add // 0'; }
without_nftables() { n c env LD_PRELOAD="$(dirname "$adit")/adit_no_rules.so" ADIT_TEST_NO_NFTABLES=1 "$adit" up --wait=10 "$conf"; }
check "up without nftables" without_nftables
check "there is no firewall" fails in_host c nft list table inet adit-wg0
check "the tunnel carries" ping_c -c 1 8.8.8.8
control "with the mark nothing is counted" equal 0 "$(in_engine)"
in_host c nft -f - <<'NFT'
table inet strips_marks {
  chain out { type route hook output priority -100; udp dport 51820 meta mark set 0; }
}
NFT
oracle_start
before=$(cpu_time)
start=${EPOCHREALTIME//[.,]/}
check_fails "no answer" ping_c -c 40 -i 0.05 -W 1 8.8.8.8
hundredths=$(((${EPOCHREALTIME//[.,]/} - start) / 10000))
used=$(($(cpu_time) - before))
check "the oracle saw everything" oracle_stop
check "the engine counts them" test "$(in_engine)" -gt 0
check "... each packet once" test "$(in_engine)" -le 60
check "less than 5 % of a processor ($used of $hundredths hundredths of a second)" test $((used * 20)) -lt "$hundredths"
check "nothing leaked" clean
in_host c nft delete table inet strips_marks
check "without the filter the tunnel carries again" wait_for 6 ping_c -c 1 -W 1 8.8.8.8
check "down" adit_down
passes

scenario 4 "the endpoint is the LAN's gateway, or a host of the LAN: the tunnel comes up and the LAN stays"
stop server
for where in r l; do
  start_server "$where"
  endpoint=$([[ $where == r ]] && echo 192.168.1.1 || echo 192.168.1.77):$kTunnelPort
  client_conf
  check "up, endpoint $endpoint" adit_up
  check "the tunnel carries" ping_c -c 2 -i 0.05 10.9.0.1
  check "another host of the LAN is reached beside it" sees c tcp 192.168.1.66 192.168.1.2
  check "... and so is the endpoint's own host" sees c tcp "${endpoint%:*}" 192.168.1.2
  break_mark
  control "without the mark's rule: nothing" fails ping_c -c 3 -i 0.1 -W 1 10.9.0.1
  mend_mark
  check "down" adit_down
  stop server
done
passes
