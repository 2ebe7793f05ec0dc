#!/usr/bin/env bash
# The LAN's resolver beside a tunnel that has its own: closed by the DNS guard, on ports 53 and 853. Topology and oracle: lab.sh.
#
# timeout: 90
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
lab_up
for name in r s; do service "$name" 53; service "$name" 853; done

resolvers="192.168.1.1 fd00:1::1"
declare -A own=([192.168.1.1]=192.168.1.2 [fd00:1::1]=fd00:1::2)
query() { in_host c "$lab" ask "$@"; }
# answered udp|tcp ADDRESS PORT SOURCE, and refused udp|tcp ADDRESS PORT ERROR: at once, by this machine itself.
answered() {
  local answer
  answer=$(query "$1" "$2" "$3") || true
  [[ $answer == "answer $4 "* ]] || { echo "$answer"; return 1; }
}
refused() {
  local answer
  answer=$(query "$1" "$2" "$3") || true
  [[ $answer == "error $4 "* ]] || { echo "$answer"; return 1; }
}

lan_resolver_is_open() {  # WORD: check or control
  local resolver
  for resolver in $resolvers; do
    "$1" "$resolver answers on UDP 53" answered udp "$resolver" 53 "${own[$resolver]}"
    "$1" "... on TCP 53" answered tcp "$resolver" 53 "${own[$resolver]}"
    "$1" "... on TCP 853" answered tcp "$resolver" 853 "${own[$resolver]}"
  done
}
lan_resolver_is_closed() {
  local resolver
  for resolver in $resolvers; do
    check "$resolver on UDP 53: EPERM" refused udp "$resolver" 53 EPERM
    check "... on TCP 53: reset" refused tcp "$resolver" 53 ECONNREFUSED
    check "... on TCP 853: reset" refused tcp "$resolver" 853 ECONNREFUSED
    check "... and its other ports stay open" sees c tcp "$resolver" "${own[$resolver]}"
  done
}
dns="port 53 or port 853"

scenario 51 "the LAN's resolver is closed, UDP and TCP 53 and TCP 853; the tunnel's answers"
snapshot c
client_conf "DNS = 10.9.0.1" "DNSGuard = no" "KillSwitch = up"
check "up without the guard" adit_up
oracle_start
lan_resolver_is_open control
check "the oracle saw everything" oracle_stop
control "... and the oracle sees it asked" at_least 6 "$dns"
check "down" adit_down

# By the key alone, and by itself: a kill switch and DNS = together close it.
for lines in "DNSGuard = yes" "KillSwitch = up"; do
  client_conf "DNS = 10.9.0.1" "$lines"
  check "up with $lines" adit_up
  oracle_start
  lan_resolver_is_closed
  check "the tunnel's resolver answers on UDP" answered udp 10.9.0.1 53 10.9.0.2
  check "... and TCP" answered tcp 10.9.0.1 53 10.9.0.2
  check "one of the internet does too, through the tunnel" answered udp 8.8.8.8 53 10.9.0.2
  check "the oracle saw everything" oracle_stop
  check "nothing was asked on the LAN" no_more_than 0 "$dns"
  check "nothing leaked" clean
  check "down" adit_down
  check "everything is as before" unchanged c
done
passes
