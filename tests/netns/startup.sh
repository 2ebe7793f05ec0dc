#!/usr/bin/env bash
# The start-up contract that scripts hang on: when the command returns the device and the socket answer; the link may go to
# another namespace; deleting it ends the process; the same name starts again at once.
#
#   [near] 192.0.2.1 ---- veth ---- 192.0.2.2 [far]       [inside]: only the moved link
#
# timeout: 170
# alone: it counts milliseconds
# also with: asan
. "$(dirname "$0")/lib.sh"
require_tools wg ping

host near
host far
host inside
link near far 192.0.2.1/24 192.0.2.2/24
make_keys near far

alive() { n "$1" wg show "$2" >/dev/null 2>&1; }
# The daemon has left our process tree: found by its command line, in this pid namespace.
daemon_pid() {
  local process
  for process in /proc/[0-9]*; do
    if [[ $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) == "$adit $1 " ]]; then echo "${process#/proc/}"; fi
  done
}
no_daemon() { [[ -z $(daemon_pid "$1") ]]; }

check "without -f the command returns 0" n near "$adit" wg0
check "... and at once the socket answers" n near wg show wg0
check "... and the device exists" n near ip link show wg0
check "... and the process is in the background" test -n "$(daemon_pid wg0)"
check "the socket directory is 0755, the socket is root's alone" equal "755 700" \
  "$(stat -c %a /run/hosts/near) $(stat -c %a /run/hosts/near/wg0.sock)"

check_fails "a second one of the same name refuses" n near "$adit" wg0
check "... and the first still answers" n near wg show wg0
n near "$adit" wg0 >"$tmp/second.out" 2>&1 || true
check "... and says in one line what is wrong" bash -c '[[ $(wc -l <"$1") == 1 ]] && grep -q wg0 "$1"' _ "$tmp/second.out"

# SIGHUP must not kill it; SIGTERM ends it and takes link and socket with it.
pid=$(daemon_pid wg0)
kill -HUP "$pid"
sleep 0.3
check "SIGHUP does not end it" alive near wg0
kill -TERM "$pid"
check "SIGTERM ends it" wait_for 3 no_daemon wg0
check "... link and socket are gone" bash -c '! ip netns exec "$1" ip link show wg0 2>/dev/null && [[ ! -e /run/hosts/near/wg0.sock ]]' _ "$(ns near)"

n near "$adit" wg0
kill -INT "$(daemon_pid wg0)"
check "SIGINT ends it" wait_for 3 no_daemon wg0
n near "$adit" wg0
rm /run/hosts/near/wg0.sock
check "removal of the socket file ends it" wait_for 3 no_daemon wg0

n near "$adit" wg0
kill -KILL "$(daemon_pid wg0)"
wait_for 3 no_daemon wg0
check "after kill -9 a stale socket is left" test -e /run/hosts/near/wg0.sock
check "... and the next start replaces it" n near "$adit" wg0
check "... and answers" n near wg show wg0
n near ip link delete wg0
check "deleting the link ends it" wait_for 2 no_daemon wg0
check "... and the socket is gone" test ! -e /run/hosts/near/wg0.sock

# A hundred times in a row, without waiting for the old one to be gone.
again() {
  local i
  for ((i = 0; i < 100; i++)); do
    n near "$adit" wg0 || { echo "start $i failed"; return 1; }
    n near wg show wg0 >/dev/null || { echo "no answer at start $i"; return 1; }
    n near ip link delete wg0
  done
}
check "100 times: start, answer, delete the link, start again at once" again
check "... the last one is gone too" wait_for 3 no_daemon wg0

# The device moves to another namespace; its UDP sockets stay behind with the network.
start_device far wg0
n far wg set wg0 private-key "$tmp/far.key" listen-port 51821 peer "$(cat "$tmp/near.pub")" allowed-ips 10.9.0.1/32
n far ip address add 10.9.0.2/24 dev wg0
n far ip link set wg0 up
n near "$adit" wg0
n near wg set wg0 private-key "$tmp/near.key" listen-port 51820 peer "$(cat "$tmp/far.pub")" \
  allowed-ips 10.9.0.2/32 endpoint 192.0.2.2:51821
n near ip link set wg0 netns "$(ns inside)"
check "the socket answers after the move" n near wg show wg0
n inside ip address add 10.9.0.1/24 dev wg0
n inside ip link set wg0 up
check "traffic flows from the other namespace" n inside ping -c 2 -i 0.1 -W 3 10.9.0.2
n inside ip link set wg0 down
check_fails "down there is down" n inside ping -c 1 -W 1 10.9.0.2
n inside ip link set wg0 up
check "... and up again is up" n inside ping -c 1 -W 5 10.9.0.2
n inside ip link delete wg0
check "deleting it there ends the process" wait_for 3 no_daemon wg0

# Rename and MTU are followed too.
n near "$adit" wg0
n near ip link set wg0 name tunnel0
check "a renamed link keeps its socket" n near wg show wg0
n near ip link delete tunnel0
check "... and deleting it ends the process" wait_for 3 no_daemon wg0
asserts 57 96
