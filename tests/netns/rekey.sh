#!/usr/bin/env bash
# Rekeying under load: with limits lowered by the constructor's arguments (adit_short_limits), by age and by count, against
# ourselves and against wireguard-go in both roles. No packet is lost by it.
#
#   [ours] 192.0.2.1 ---- veth ---- 192.0.2.2 [theirs]
#    wg0   10.9.0.1                 10.9.0.2   wg0
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
require_tools wg wireguard-go iperf3 ping
short=$(dirname "$adit")/adit_short_limits
[[ -x $short ]] || skip "needs $short: ./dev build"

host ours
host theirs
link ours theirs 192.0.2.1/24 192.0.2.2/24
make_keys ours theirs

# start HOST COMMAND…
start() {
  local where=$1 number other
  shift
  number=$([[ $where == ours ]] && echo 1 || echo 2)
  other=$([[ $where == ours ]] && echo theirs || echo ours)
  spawn "$where" "$where" env WG_PROCESS_FOREGROUND=1 LOG_LEVEL=error "$@"
  wait_for 10 n "$where" wg show wg0
  n "$where" wg set wg0 private-key "$tmp/$where.key" listen-port 5182"$number" peer "$(cat "$tmp/$other.pub")" \
    allowed-ips "10.9.0.$((3 - number))/32" endpoint "192.0.2.$((3 - number)):5182$((3 - number))"
  n "$where" ip address add "10.9.0.$number/24" dev wg0
  n "$where" ip link set wg0 mtu 1420 up
}
handshake() { n "$1" wg show wg0 latest-handshakes | cut -f2; }

# lossless LABEL FROM TO: 400 pings over 8 s, none lost, and the session changed meanwhile.
lossless() {
  local before after
  # The first packets after a restart of the other side are lost, until the silence is noticed.
  check "$1: the tunnel is up" n "$2" timeout 10 bash -c 'until ping -c 1 -W 0.5 "$0"; do :; done' "$3"
  before=$(handshake ours)
  sleep 1.1
  check "$1: 400 pings in 8 s, none lost" bash -c '[[ $("$@" | tee /dev/stderr) == *" 0% packet loss"* ]]' _ \
    ip netns exec "$(ns "$2")" ping -q -c 400 -i 0.02 -W 2 "$3"
  after=$(handshake ours)
  check "... and the session was replaced" test "$after" -gt "$before"
}

start ours "$short" wg0 2 1000000000
start theirs "$short" wg0 1000000 1000000000
lossless "by age, we initiate, our own engine answers" ours 10.9.0.2
stop theirs
start theirs "$(command -v wireguard-go)" -f wg0
lossless "by age, we initiate, wireguard-go answers" ours 10.9.0.2
lossless "by age, they send" theirs 10.9.0.1
stop ours
stop theirs

start ours "$short" wg0 1000000 100
start theirs "$(command -v wireguard-go)" -f wg0
lossless "by count (100 messages)" ours 10.9.0.2
stop ours
start ours "$short" wg0 1000000 20000
check "a TCP stream across rekeying by count" bash -c '(( $1 > 20 ))' _ "$(transfer theirs ours 10.9.0.2 3)"
stop theirs
start theirs "$short" wg0 1000000 20000
check "... also between two of us, either direction" bash -c '(( $1 > 20 ))' _ "$(transfer ours theirs 10.9.0.1 3)"
asserts 40 51 52
