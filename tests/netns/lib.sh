# Sourced first by every script of this folder. A script is one test: it ends with 0 (passed), 77 (skipped; the reason is
# its last line) or anything else (failed). tests/run.sh runs every *.sh here but this one and lab.sh; there is no other
# registration.
#
#   #!/usr/bin/env bash
#   # What is shown, and the topology:
#   #
#   #   [alice] 192.0.2.1 ---- veth ---- 192.0.2.2 [bob]
#   #
#   # timeout: 60            (seconds; default 180)
#   # also with: tsan        (the builds it runs with besides release)
#   # alone: REASON          (it measures, or needs the whole machine: no other script runs beside it)
#   . "$(dirname "$0")/lib.sh"
#   require_tools wg wireguard-go
#   host alice; host bob
#   link alice bob 192.0.2.1/24 192.0.2.2/24
#   check "the hosts reach each other" n alice ping -c 1 -W 2 192.0.2.2
#   asserts 12 13            (checklist rows that this script holds)
#
# Sourcing this file restarts the script inside mount, process and network namespaces of its own, with an empty /run and
# /var/lib and an /etc whose changes are the script's alone. So nothing here can touch the machine's network, UAPI sockets of
# two tests never meet, and whatever the script started dies with it, also when it is killed.
#
# From the environment: ADIT, the program under test (default build/release/adit). For the script: $adit, the same, and
# $tmp, an empty directory that goes away at the end.

set -euo pipefail

skip() {
  echo "skipped: $*"
  exit 77
}

if [[ -z ${ADIT_TEST_ID:-} ]]; then
  export ADIT_TEST_ID=$$
  ((EUID == 0)) || skip "needs root"
  for tool in unshare ip mount; do command -v "$tool" >/dev/null || skip "needs $tool"; done
  private=(unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private)
  "${private[@]}" true 2>/dev/null || skip "may not create namespaces here"
  exec "${private[@]}" bash "$0" "$@"
fi

mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/hosts /run/etc/{upper,work}
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work /etc 2>/dev/null || {
  cp -a /etc /run/etc/copy  # a kernel without overlays
  mount --bind /run/etc/copy /etc
}
if mountpoint -q /etc/resolv.conf; then  # a container's; the test has its own
  cat /etc/resolv.conf >/run/etc/resolv.conf
  umount /etc/resolv.conf
  cp /run/etc/resolv.conf /etc/resolv.conf
fi
mount -t tmpfs -o mode=755 tmpfs /var/lib
ip link set lo up

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
adit=$(readlink -f "${ADIT:-$root/build/release/adit}")
[[ -x $adit ]] || {
  echo "no program at ${ADIT:-build/release/adit}: ./dev build"
  exit 1
}
[[ -c /dev/net/tun ]] || skip "needs /dev/net/tun"

tmp=/run/test  # in memory: gone with the namespaces, however the test ends
mkdir "$tmp"
declare -A pids=()
export TSAN_OPTIONS="log_path=$tmp/sanitizer:${TSAN_OPTIONS:-}"
export ASAN_OPTIONS="log_path=$tmp/sanitizer:${ASAN_OPTIONS:-}"
export UBSAN_OPTIONS="log_path=$tmp/sanitizer:print_stacktrace=1:${UBSAN_OPTIONS:-}"

# Runs at every end. This shell is process 1 of its namespace: when it goes, the kernel kills what is left and the network
# namespaces go with their last process. What it started is asked to end first, so that sanitizers can report.
finish() {
  local code=$? name report log
  trap - EXIT INT TERM
  set +e
  for name in "${!pids[@]}"; do stop "$name"; done
  kill -TERM -1 2>/dev/null  # this process namespace holds only what the script started
  wait_for 5 nothing_else_runs || kill -KILL -1 2>/dev/null
  for report in "$tmp"/sanitizer*; do
    [[ -f $report ]] || continue
    cat "$report"
    code=66
  done
  if ((code != 0 && code != 77)); then
    for log in "$tmp"/*.log; do
      [[ -f $log ]] || continue
      echo "---- ${log##*/}"
      tail -n 40 "$log"
    done
    echo "failed: exit status $code"
  fi
  exit "$code"
}
nothing_else_runs() {
  local processes=(/proc/[0-9]*)
  ((${#processes[@]} == 1))  # this shell
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# require_tools TOOL…: skips the whole script when one is missing.
require_tools() {
  local tool
  for tool in "$@"; do command -v "$tool" >/dev/null || skip "needs $tool"; done
}

# ---- hosts and links ------------------------------------------------------------------------------------------------

# host NAME: a network namespace with lo up and a /run/wireguard of its own, so that two hosts may both have a wg0.
host() {
  local directory=/run/hosts/$1
  mkdir -p "$directory" /run/wireguard
  ip netns add "adit-$ADIT_TEST_ID-$1"
  # Without duplicate address detection an IPv6 address is usable at once.
  n "$1" sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
  n "$1" ip link set lo up
}

# n HOST COMMAND…: runs it there. `ip netns exec` gives the command a mount namespace, in which /run/wireguard is the host's.
n() { (exec_in "$@"); }
exec_in() {
  local name=$1
  shift
  exec ip netns exec "adit-$ADIT_TEST_ID-$name" bash -c 'mount --bind "$0" /run/wireguard && exec "$@"' "/run/hosts/$name" "$@"
}

# ns HOST: the name of the host's network namespace, for `ip link set … netns`.
ns() { echo "adit-$ADIT_TEST_ID-$1"; }

# link A B [ADDRESS_A ADDRESS_B]…: a veth pair, called to_B in A and to_A in B, with these addresses, up.
link() {
  local a=$1 b=$2
  shift 2
  ip -n "$(ns "$a")" link add "to_$b" type veth peer name "to_$a" netns "$(ns "$b")"
  while (($#)); do
    ip -n "$(ns "$a")" address add "$1" dev "to_$b"
    ip -n "$(ns "$b")" address add "$2" dev "to_$a"
    shift 2
  done
  ip -n "$(ns "$a")" link set "to_$b" up
  ip -n "$(ns "$b")" link set "to_$a" up
}

# ---- processes ------------------------------------------------------------------------------------------------------

# spawn NAME HOST COMMAND…: in the background; what it prints goes to $tmp/NAME.log and is shown when the test fails.
spawn() {
  local name=$1 where=$2
  shift 2
  # exec all the way, so that the pid is the command's own and a signal reaches it.
  exec_in "$where" "$@" >>"$tmp/$name.log" 2>&1 </dev/null &
  pids[$name]=$!
}

# stop NAME [SIGNAL]: ends a spawned process and waits for it, at most 10 s, then kills it.
stop() {
  local pid=${pids[$1]}
  unset "pids[$1]"
  kill "-${2:-TERM}" "$pid" 2>/dev/null || true
  wait_for 10 is_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null || true
}
is_gone() { ! kill -0 "$1" 2>/dev/null || [[ $(sed -E 's/^.*\) //' "/proc/$1/stat" 2>/dev/null) == Z* ]]; }

# wait_for SECONDS COMMAND…: until it succeeds, tried 20 times a second. Fails when the time is over.
wait_for() {
  local end=$((${EPOCHREALTIME//[.,]/} + $1 * 1000000))
  shift
  until "$@" >/dev/null 2>&1; do
    ((${EPOCHREALTIME//[.,]/} < end)) || return 1
    sleep 0.05
  done
}

# ---- verdicts -------------------------------------------------------------------------------------------------------

# check "SENTENCE" COMMAND…: the script fails at the first one that does not hold, and shows what the command printed.
check() {
  local sentence=$1 output=$tmp/check.out
  shift
  if "$@" >"$output" 2>&1; then
    echo "ok: $sentence"
  else
    echo "NOT OK: $sentence"
    echo "  command: $*"
    sed 's/^/  /' "$output"
    exit 1
  fi
}

# check_fails "SENTENCE" COMMAND…: holds when the command fails (and could be run at all).
check_fails() {
  local sentence=$1
  shift
  check "$sentence" fails "$@"
}
# exits STATUS COMMAND…: what it says is in $tmp/out. exits_saying STATUS PATTERN COMMAND…: and that it says this.
exits() {
  local expected=$1 code=0
  shift
  "$@" >"$tmp/out" 2>&1 || code=$?
  ((code == expected)) || { echo "exit status $code, not $expected:"; cat "$tmp/out"; return 1; }
}
exits_saying() {
  exits "$1" "${@:3}" || return 1
  grep -q -e "$2" "$tmp/out" || { cat "$tmp/out"; return 1; }
}
fails() {
  local code=0
  "$@" || code=$?
  ((code != 0 && code != 126 && code != 127))
}

# equal EXPECTED ACTUAL: for use with check.
equal() { [[ $1 == "$2" ]] || { printf 'expected: %s\nactual:   %s\n' "$1" "$2"; return 1; }; }

# asserts ROW…: these rows of the conformance checklist hold in this run. Counted only if the whole script passes.
asserts() { echo "asserts$(printf ' CONF-%d' "$@")"; }

# ---- WireGuard ------------------------------------------------------------------------------------------------------

# make_keys NAME…: $tmp/NAME.key and $tmp/NAME.pub.
make_keys() {
  local name
  for name in "$@"; do
    (umask 077 && wg genkey >"$tmp/$name.key")
    wg pubkey <"$tmp/$name.key" >"$tmp/$name.pub"
  done
}

# start_device HOST IFNAME [PROGRAM]: a bare device in the foreground, spawned as HOST-IFNAME; returns when its socket
# answers. PROGRAM is $adit or wireguard-go.
start_device() {
  local where=$1 name=$2 program=${3:-$adit}
  spawn "$where-$name" "$where" env WG_PROCESS_FOREGROUND=1 LOG_LEVEL=verbose "$program" -f "$name"
  wait_for 10 n "$where" wg show "$name" || {
    echo "NOT OK: ${program##*/} answers on $name in $where within 10 s"
    exit 1
  }
}

# transfer SERVER CLIENT ADDRESS SECONDS [IPERF3_ARGS…]: one iperf3 run; prints the rate in Mbit/s as a whole number.
transfer() {
  local server=$1 client=$2 address=$3 seconds=$4 listener
  shift 4
  : >"$tmp/iperf3-server.log"  # not the last run's "listening"
  exec_in "$server" iperf3 -s -1 -B "$address" >"$tmp/iperf3-server.log" 2>&1 </dev/null &
  listener=$!
  wait_for 5 grep -q listening "$tmp/iperf3-server.log"
  n "$client" timeout $((seconds + 20)) iperf3 -c "$address" -t "$seconds" -f m "$@" >"$tmp/iperf3-client.log" 2>&1 || {
    kill "$listener"
    return 1
  }
  wait "$listener"
  awk '/receiver/ { for (i = 2; i <= NF; i++) if ($i ~ /^[MG]bits/) rate = $(i - 1) } END { if (rate == "") exit 1; printf "%d\n", rate }' \
    "$tmp/iperf3-client.log"
}
