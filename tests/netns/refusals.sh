#!/usr/bin/env bash
# What must be refused with nothing changed, and what must not: rights, names, leftovers. Topology: lab.sh.
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools setpriv
lab_up
client_conf
snapshot c

one_line() { [[ $(grep -c . "$tmp/out") == 1 ]] || { cat "$tmp/out"; return 1; }; }

scenario 57 "no CAP_NET_ADMIN: one line, exit status 4, nothing changed. NET_ADMIN alone, without any tool on the PATH: works"
check "without the right: exit status 4" exits 4 n c setpriv --bounding-set=-net_admin --inh-caps=-net_admin -- "$adit" up "$conf"
check "... one line" one_line
check "... that names it" grep -q CAP_NET_ADMIN "$tmp/out"
check "... nothing changed" unchanged c
mkdir "$tmp/empty"
only_net_admin() { n c setpriv --bounding-set=-all,+net_admin --inh-caps=-all -- env -i PATH="$tmp/empty" "$@"; }
control "there no tool is found" exits 127 only_net_admin ip rule
check "with NET_ADMIN alone: up" only_net_admin "$adit" up --wait=10 "$conf"
check "the tunnel carries" sees c udp 8.8.8.8 10.9.0.2
control "... and the state is another" fails unchanged c
check "down" only_net_admin "$adit" down wg0
check "... as before" unchanged c
passes

scenario 35 "the interface's name belongs to another process: refused, nothing changed"
spawn foreign c "$adit" -f wg0
wait_for 5 n c wg show wg0
snapshot c
check "up is refused" exits 1 a up "$conf"
check "... in one line" one_line
check "... that names it" grep -q wg0 "$tmp/out"
check "... nothing changed" unchanged c
check "... the other still answers" n c wg show wg0
stop foreign
in_host c ip link add wg0 type veth peer name wg0_end
snapshot c
check "a link that is no TUN: refused too" exits 1 a up "$conf"
check "... nothing changed" unchanged c
in_host c ip link delete wg0
control "with the name free it comes up" adit_up
check "down" adit_down
passes

scenario 34 "a crash that takes the TUN and leaves the IPv6 guard: the next start recovers, and so does cleanup"
addresses="10.9.0.2/24"
client_conf
snapshot c
for cure in cleanup up; do
  check "up" adit_up
  check "kill -9" adit_kill
  control "IPv6 is refused by what is left" gets c udp 2001:db8::1 EHOSTUNREACH
  control "... and the state is another" fails unchanged c
  if [[ $cure == up ]]; then
    check "the next up" adit_up
    check "the tunnel carries" sees c udp 8.8.8.8 10.9.0.2
    check "down" adit_down
  else
    check "cleanup" a cleanup wg0
  fi
  check "everything is as before" unchanged c
  check "... IPv6 works" sees c udp 2001:db8::1 fd00:1::2
done
passes
