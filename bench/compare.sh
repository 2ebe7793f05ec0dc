#!/usr/bin/env bash
# Implementations of WireGuard side by side, on this machine, in one run: two hosts joined by a veth pair, both ends of the
# tunnel the same program, taken in turn round after round, so that a busy minute of the machine meets all of them.
# bench/README.md says what each case measures and how to read the figures.
#
#   [a] 192.0.2.1 ------------------ veth ------------------ 192.0.2.2 [b]
#   wga 10.9.0.1, fd00:9::1                       wgb 10.9.0.2, fd00:9::2
#
# Everything happens inside mount, process and network namespaces of its own: the machine's network is not touched, and
# whatever was started ends with this script, also when it is killed.
set -euo pipefail

usage() {
  cat <<'HELP'
compare.sh [options] [[LABEL=]PROGRAM…]

PROGRAM is started as `PROGRAM -f IFNAME`; several words are allowed: 'adit-openssl=env ADIT_AEAD=openssl adit'.
`veth` is the wire without a tunnel: what the load itself can do.
Without one: Adit, and those of wireguard-go, boringtun-cli and gotatun that ./dev peers installed or that are on PATH.

  --rounds N        rounds, the programs in turn within each (5)
  --seconds N       length of one measurement (3)
  --quick           2 rounds of 1 second, fewer cases: is everything in order?
  --cases A,B@RIG   these cases (--list shows them); RIG is plain (default) or wire
  --calm PERCENT    wait, up to 2 minutes, until other work takes less than this of the cores; a measurement during which it
                    took more is repeated, at most twice, and then counts as failed (100: never)
  --congestion NAME TCP's congestion control at both ends of the load (cubic, Linux's default)
  --baseline LABEL  ratios are to this one (wireguard-go)
  --out DIRECTORY   for compare.json, compare.svg and compare.txt (build/bench)
  --list            the cases
HELP
}

# ---- the cases ------------------------------------------------------------------------------------------------------
# name | what it is | kind and its arguments | family inside | family outside | MTU of the tunnel

cases=(
  "tcp1       | TCP, 1 stream                        | tcp -P 1                | 4 | 4 | 1420"
  "tcp4       | TCP, 4 streams                       | tcp -P 4                | 4 | 4 | 1420"
  "tcp16      | TCP, 16 streams                      | tcp -P 16               | 4 | 4 | 1420"
  "reverse    | TCP, 1 stream, the other way         | tcp -R                  | 4 | 4 | 1420"
  "bidir      | TCP, both ways at once               | tcp --bidir             | 4 | 4 | 1420"
  "inner6     | TCP over IPv6 inside                 | tcp -P 1                | 6 | 4 | 1420"
  "outer6     | TCP, IPv6 outside                    | tcp -P 1                | 4 | 6 | 1420"
  "mtu8920    | TCP, MTU 8920                        | tcp -P 1                | 4 | 4 | 8920"
  "udp500     | UDP, 1300 B at 500 Mb/s              | fixed 1272 500          | 4 | 4 | 1420"
  "lossless   | UDP, 1300 B, highest lossless rate   | lossless 1272           | 4 | 4 | 1420"
  "gso        | UDP, the same, sender with UDP GSO   | lossless 1272 gso       | 4 | 4 | 1420"
  "pps64      | UDP packets of 64 bytes              | flood 36                | 4 | 4 | 1420"
  "pps512     | UDP packets of 512 bytes             | flood 484               | 4 | 4 | 1420"
  "pps1400    | UDP packets of 1400 bytes            | flood 1372              | 4 | 4 | 1420"
  "idle       | round trip, idle                     | ping                    | 4 | 4 | 1420"
  "loaded     | round trip beside 1 TCP stream       | loaded_ping             | 4 | 4 | 1420"
)
default_cases=tcp1,tcp4,tcp16,reverse,bidir,inner6,outer6,mtu8920,tcp1@wire,tcp4@wire,udp500,lossless,gso,pps64,pps512,pps1400,idle,loaded
quick_cases=tcp1,tcp4,bidir,tcp1@wire,udp500,pps64,idle

rungs=(100 150 200 300 400 500 600 750 1000 1250 1500 2000 2500 3000 4000 5000)  # Mb/s tried by `lossless`
lossless_percent=0.01

# field NAME N: column N of the case's row, without the blanks around it.
field() {
  local row
  for row in "${cases[@]}"; do
    [[ ${row%% *} == "$1" ]] || continue
    awk -F'|' -v n="$2" '{ gsub(/^ +| +$/, "", $n); print $n }' <<<"$row"
    return
  done
  return 1
}

# ---- the command line -----------------------------------------------------------------------------------------------

die() {
  echo "compare: $*" >&2
  exit 1
}

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
rounds="" seconds="" calm=100 congestion=cubic baseline=wireguard-go out=$root/build/bench selected="" quick=0 named=()
arguments=("$@")
while (($#)); do
  case $1 in
    --rounds | --seconds | --calm | --cases | --congestion | --baseline | --out) (($# > 1)) || die "$1 needs a value" ;;&
    --rounds) rounds=$2 && shift ;;
    --seconds) seconds=$2 && shift ;;
    --calm) calm=$2 && shift ;;
    --cases) selected=$2 && shift ;;
    --congestion) congestion=$2 && shift ;;
    --baseline) baseline=$2 && shift ;;
    --out) out=$2 && shift ;;
    --quick) quick=1 ;;
    --list)
      for row in "${cases[@]}"; do echo "$(cut -d'|' -f1,2 <<<"$row" | tr -d '|')"; done
      exit
      ;;
    -h | --help) usage && exit ;;
    -*) die "no such option: $1 (--help)" ;;
    *) named+=("$1") ;;
  esac
  shift
done
if ((quick)); then
  : "${rounds:=2}" "${seconds:=1}" "${selected:=$quick_cases}"
fi
: "${rounds:=5}" "${seconds:=3}" "${selected:=$default_cases}"
[[ $rounds =~ ^[1-9][0-9]{0,2}$ && $seconds =~ ^[1-9][0-9]{0,2}$ ]] || die "--rounds and --seconds are numbers from 1 to 999"
[[ $calm =~ ^([1-9][0-9]?|100)$ ]] || die "--calm is a number from 1 to 100"
IFS=, read -ra selected <<<"$selected"
for one in "${selected[@]}"; do
  field "${one%@*}" 1 >/dev/null && [[ $one != *@* || ${one#*@} =~ ^(plain|wire)$ ]] || die "no such case: $one (--list)"
done

# The programs: labels[i] and commands[i]. What ./dev peers installed goes before what the distribution brought.
PATH=$root/build/peers/bin:$PATH
labels=() commands=()
add_program() {
  local label=${1%%=*} command=${1#*=} words program
  [[ $1 == *=* && $label != */* && $label != *' '* ]] || label=$(basename "${1%% *}") command=$1
  read -ra words <<<"$command"
  if [[ $command != veth ]]; then
    words[0]=$(type -P "${words[0]}") || die "no such program: $command"
    words[0]=$(readlink -f "${words[0]}")
  fi
  labels+=("$label")
  commands+=("${words[*]}")
}
if ((${#named[@]})); then
  for program in "${named[@]}"; do add_program "$program"; done
else
  add_program "adit=${ADIT:-$root/build/release/adit}"
  for program in wireguard-go boringtun-cli gotatun; do
    if command -v "$program" >/dev/null; then add_program "$program=$program"; fi
  done
fi
udp_load=${UDP_LOAD:-$root/build/release/udp_load}

# ---- a world of its own ---------------------------------------------------------------------------------------------

for tool in unshare ip wg iperf3 ping ethtool awk timeout; do
  command -v "$tool" >/dev/null || die "needs $tool: ./dev deps bench"
done
[[ -x $udp_load ]] || die "no $udp_load: ./dev build release udp_load"
if [[ -z ${ADIT_COMPARE_ID:-} ]]; then
  ((EUID == 0)) || die "needs root"
  mkdir -p "$out"
  export ADIT_COMPARE_ID=$$
  exec unshare --mount --net --pid --fork --kill-child --mount-proc --propagation private bash "$0" "${arguments[@]}"
fi
mount -t tmpfs -o mode=755 tmpfs /run
ip link set lo up
tmp=/run/compare
mkdir -p "$tmp" /run/wireguard
results=$tmp/results.tsv  # round, case, program, metric, value
: >"$results"

ticks_per_second=$(getconf CLK_TCK)
pids=()

# ns HOST: the name of its network namespace. n HOST COMMAND…: runs it there.
ns() { echo "bench-$ADIT_COMPARE_ID-$1"; }
n() { (become "$@"); }
# become HOST COMMAND…: for the background, where $! shall be the command's own pid.
become() {
  local where=$1
  shift
  exec ip netns exec "$(ns "$where")" "$@"
}

wait_for() {
  local end=$((${EPOCHREALTIME//[.,]/} + $1 * 1000000))
  shift
  until "$@" >/dev/null 2>&1; do
    ((${EPOCHREALTIME//[.,]/} < end)) || return 1
    sleep 0.02
  done
}
is_gone() { ! kill -0 "$1" 2>/dev/null || [[ $(sed -E 's/^.*\) //' "/proc/$1/stat" 2>/dev/null) == Z* ]]; }

for side in a b; do
  (umask 077 && wg genkey >"$tmp/$side.key")
  wg pubkey <"$tmp/$side.key" >"$tmp/$side.pub"
done

declare -A number=([a]=1 [b]=2)  # the last number of a host's addresses

# ---- one tunnel -----------------------------------------------------------------------------------------------------

# open_tunnel COMMAND RIG OUTER MTU: both hosts, the wire between them, and both ends of the tunnel, with a handshake done.
open_tunnel() {
  local command=$1 rig=$2 outer=$3 mtu=$4 side other link_mtu=1500
  ((mtu <= 1420)) || link_mtu=9000
  for side in a b; do
    ip netns add "$(ns $side)"
    n $side sysctl -qw net.ipv6.conf.all.accept_dad=0 net.ipv6.conf.default.accept_dad=0
    ip -n "$(ns $side)" link set lo up
  done
  ip -n "$(ns a)" link add wire mtu $link_mtu type veth peer name wire mtu $link_mtu netns "$(ns b)"
  for side in a b; do
    ip -n "$(ns $side)" address add "192.0.2.${number[$side]}/24" dev wire
    ip -n "$(ns $side)" address add "2001:db8:9::${number[$side]}/64" dev wire
    # A link that carries single packets: the sender's stack segments, the receiver's collects again, as on a real wire
    # with a card that cannot segment UDP. The plain veth passes super-packets of 64 KB whole.
    if [[ $rig == wire ]]; then
      n $side ethtool -K wire tx-udp-segmentation off gro on rx-udp-gro-forwarding on >/dev/null
    fi
    ip -n "$(ns $side)" link set wire up
  done
  if [[ $command == veth ]]; then
    for side in a b; do
      ip -n "$(ns $side)" address add "10.9.0.${number[$side]}/24" dev wire
      ip -n "$(ns $side)" address add "fd00:9::${number[$side]}/64" dev wire
    done
    wait_for 10 n a ping -c 1 -W 1 10.9.0.2
    return
  fi
  for side in a b; do
    # WG_SUDO: boringtun and gotatun shall not give up the privileges they were started with.
    become $side env WG_SUDO=true WG_LOG_LEVEL=error WG_PROCESS_FOREGROUND=1 $command -f "wg$side" >"$tmp/program-$side.log" 2>&1 </dev/null &
    pids+=($!)
  done
  for side in a b; do
    other=$([[ $side == a ]] && echo b || echo a)
    wait_for 10 answers_or_ended "$side" && wg show "wg$side" >/dev/null 2>&1 || { note="did not start within 10 s"; return 1; }
    local address="192.0.2.${number[$other]}"
    ((outer == 4)) || address="[2001:db8:9::${number[$other]}]"
    wg set "wg$side" private-key "$tmp/$side.key" listen-port $((51819 + ${number[$side]})) peer "$(<"$tmp/$other.pub")" \
      allowed-ips "10.9.0.${number[$other]}/32,fd00:9::${number[$other]}/128" \
      endpoint "$address:$((51819 + ${number[$other]}))"
    ip -n "$(ns $side)" address add "10.9.0.${number[$side]}/24" dev "wg$side"
    ip -n "$(ns $side)" address add "fd00:9::${number[$side]}/64" dev "wg$side"
    ip -n "$(ns $side)" link set "wg$side" mtu "$mtu" up
  done
  wait_for 10 n a ping -c 1 -W 1 10.9.0.2 || { note="no handshake within 10 s"; return 1; }
}
answers_or_ended() { wg show "wg$1" || is_gone "${pids[number[$1] - 1]}"; }

close_tunnel() {
  local pid side
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
  for pid in "${pids[@]}"; do
    wait_for 5 is_gone "$pid" || kill -KILL "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
  done
  pids=()
  for side in a b; do ip netns delete "$(ns $side)" 2>/dev/null || true; done
  rm -f /run/wireguard/*.sock
}

# tunnel_ticks: CPU time of both ends so far, user and system, in clock ticks (columns 14 and 15 of proc(5) stat).
tunnel_ticks() { of_both stat 2>/dev/null | sed -E 's/^.*\) //' | awk '{ sum += $12 + $13 } END { print sum + 0 }'; }
of_both() { for pid in "${pids[@]}"; do cat "/proc/$pid/$1"; done; }
# memory FIELD: the larger of both ends, in MB.
memory() { of_both status | awk -v name="$1:" '$1 == name && $2 > most { most = $2 } END { print most * 1.024 / 1000 }'; }
# others_ticks: what the machine has spent so far on anything but this script's processes. Interrupts count with the work:
# a process's own figures hold those that came while it ran, and a tunnel's are mostly its own packets.
others_ticks() {
  local own
  own=$(sed -E 's/^.*\) //' /proc/1/stat | awk '{ print $12 + $13 + $14 + $15 }')
  awk -v own="$own" -v tunnel="$(tunnel_ticks)" '/^cpu / { print $2 + $3 + $4 + $7 + $8 - own - tunnel }' /proc/stat
}
# carried SIDE: "received sent" by the tunnel's own counters.
carried() { ((!${#pids[@]})) || wg show "wg$1" transfer | awk '{ print $2, $3 }'; }

# ---- measuring ------------------------------------------------------------------------------------------------------

# emit METRIC VALUE. A wire without a tunnel has neither its CPU time nor its memory.
emit() {
  [[ ! $1 =~ ^(cpu|loaded_memory) || ${#pids[@]} != 0 ]] || return 0
  printf '%d\t%s\t%s\t%s\t%s\n' "$round" "$case" "$label" "$1" "$2" >>"$results"
}
calculate() { awk "BEGIN { printf \"%.6g\", ($1) }"; }

begin() {
  idle_memory=$(memory VmRSS) loaded_memory=0
  before_a=$(carried a) before_b=$(carried b)
  others=$(others_ticks) started=${EPOCHREALTIME//[.,]/} ticks=$(tunnel_ticks)
}
# finish FORWARD REVERSE: payload bytes that arrived at b and at a. Fails when the tunnel's counters do not show them.
finish() {
  ticks=$(($(tunnel_ticks) - ticks))
  others=$(($(others_ticks) - others))
  local took=$((${EPOCHREALTIME//[.,]/} - started))
  others=$(calculate "int(1000 * $others / $ticks_per_second / ($took / 1e6) / $(nproc)) / 10")
  if ((calm < 100 && ${others%.*} >= calm)); then
    noisy=1 note="other work took ${others%.*} % of the cores"
    return 1
  fi
  emit others "$others"
  ((${#pids[@]})) || return 0
  emit idle_memory "$idle_memory"
  loaded_memory=$(memory VmHWM)
  wait_for 2 counted "$1" "$2" || {
    note="the counters of the tunnel do not show the bytes that arrived"
    return 1
  }
}
is_calm() {
  local before started=${EPOCHREALTIME//[.,]/}
  before=$(others_ticks)
  sleep 0.5
  (($(others_ticks) - before < calm * ticks_per_second * $(nproc) * (${EPOCHREALTIME//[.,]/} - started) / 100000000))
}
counted() {
  local a0=($before_a) b0=($before_b) a1=($(carried a)) b1=($(carried b))
  (($1 <= a1[1] - a0[1] && $1 <= b1[0] - b0[0] && $2 <= b1[1] - b0[1] && $2 <= a1[0] - a0[0]))
}

listening() { grep -q ':1451 .* 0A ' "/proc/$1/net/tcp" "/proc/$1/net/tcp6"; }  # port 5201, LISTEN

# run_tcp ADDRESS [IPERF3_ARGS…]: sets rate, retransmitted and cpu; result says both.
run_tcp() {
  local address=$1 server status=0 forward reverse
  shift
  become b iperf3 -s -1 >/dev/null 2>&1 </dev/null &
  server=$!
  wait_for 5 listening "$server" || { note="iperf3 does not listen"; return 1; }
  begin
  # The machine's own congestion control need not be Linux's default: bbr's pacing halves what a bare veth carries.
  n a timeout $((seconds + 10)) iperf3 -c "$address" -t "$seconds" -C "$congestion" -J "$@" >"$tmp/iperf3.json" 2>&1 || status=$?
  ((status == 0)) || kill "$server" 2>/dev/null || true
  wait "$server" 2>/dev/null || true
  ((status == 0)) || { note="iperf3: $(awk -F'"' '/"error"/ { print $4 }' "$tmp/iperf3.json")"; return 1; }
  read -r rate forward reverse retransmitted < <(awk '
    /^\t*"end":/ { end = 1 }
    end && /"sum_[a-z_]+":/ { split($1, key, "\""); section = key[2] }
    end && section ~ /^sum_received/ && /"bytes":/ { bytes[section] = $2 + 0 }
    end && section ~ /^sum_received/ && /"bits_per_second":/ { rate += $2 }
    end && section ~ /^sum_sent/ && /"retransmits":/ { again += $2 }
    /"reverse":/ { back = $2 + 0 }
    END {
      forward = bytes["sum_received"]; reverse = bytes["sum_received_bidir_reverse"]
      if (back) { reverse = forward; forward = 0 }
      printf "%.4f %.0f %.0f %d\n", rate / 1e9, forward, reverse, again
    }' "$tmp/iperf3.json")
  finish "$forward" "$reverse" || return 1
  cpu=$(calculate "$ticks / $ticks_per_second / (($forward + $reverse) / 1e9)")
  emit loaded_memory "$loaded_memory"
  result="$rate Gb/s, $cpu s/GB"
}

# measure_tcp ADDRESS [IPERF3_ARGS…]
measure_tcp() {
  run_tcp "$@" || return 1
  emit gbps "$rate"
  emit cpu "$cpu"
  emit retransmits "$retransmitted"
}

# udp ADDRESS BYTES SECONDS MBITS [gso]: sets sent, got, got_bytes, got_seconds.
udp() {
  local receiver ignored
  become b "$udp_load" receive "$1" 5201 $(($3 + 8)) ${5:+gro} >"$tmp/received" &
  receiver=$!
  wait_for 5 grep -q ':1451 ' "/proc/$receiver/net/udp" "/proc/$receiver/net/udp6" || { note="udp_load does not listen"; return 1; }
  n a timeout $(($3 + 8)) "$udp_load" send "$1" 5201 "$2" "$3" "$4" ${5:+gso} >"$tmp/sent" || { note="udp_load could not send"; return 1; }
  wait "$receiver" || { note="udp_load could not receive"; return 1; }
  read -r sent ignored <"$tmp/sent"
  read -r got got_bytes got_seconds reordered <"$tmp/received"
}
loss() { calculate "$sent > $got ? 100 * ($sent - $got) / $sent : 0"; }

# measure_fixed ADDRESS BYTES MBITS
measure_fixed() {
  begin
  udp "$1" "$2" "$seconds" "$3" || return 1
  finish "$got_bytes" 0 || return 1
  awk "BEGIN { exit !($sent * $2 * 8 / $seconds > $3 * 9e5) }" || { note="the machine was too busy to send at $3 Mb/s"; return 1; }
  emit loss "$(loss)"
  emit cpu_packet "$(calculate "1e6 * $ticks / $ticks_per_second / $got")"
  emit reordered "$reordered"
  result="$(loss) % lost, $(calculate "1e6 * $ticks / $ticks_per_second / $got") us CPU per packet"
}

# measure_flood ADDRESS BYTES: what arrives of more than fits.
measure_flood() {
  begin
  udp "$1" "$2" "$seconds" 0 || return 1
  finish "$got_bytes" 0 || return 1
  emit kpps "$(calculate "$got / $got_seconds / 1e3")"
  emit cpu_packet "$(calculate "1e6 * $ticks / $ticks_per_second / $got")"
  emit reordered "$reordered"
  result="$(calculate "$got / $got_seconds / 1e3") thousand packets/s, $(calculate "1e6 * $ticks / $ticks_per_second / $got") us CPU per packet"
}

# measure_lossless ADDRESS BYTES [gso]: bisects the rungs, 1 s each. A rung holds if its second trial does: one hiccup of the
# machine shall not send the search to the bottom.
measure_lossless() {
  local low=-1 high=${#rungs[@]} middle total=0
  begin
  while ((high - low > 1)); do
    middle=$(((low + high) / 2))
    if lossless_at "$1" "$2" "${rungs[middle]}" "${3:-}" || lossless_at "$1" "$2" "${rungs[middle]}" "${3:-}"; then
      low=$middle
    else
      high=$middle
    fi
  done
  finish "$total" 0 || return 1
  rate=0
  ((low < 0)) || rate=${rungs[low]}
  emit mbps "$rate"
  result="$rate Mb/s"
}
lossless_at() {
  udp "$1" "$2" 1 "$3" "$4" || return 1
  total=$((total + got_bytes))
  awk "BEGIN { exit !($sent * $2 * 8 > $3 * 9.5e5 && ($sent - $got) * 100 <= $lossless_percent * $sent) }"
}

# round_trips FILE: median and 99th percentile in microseconds of what ping printed.
round_trips() {
  sed -nE 's/.* time=([0-9.]+) ms.*/\1/p' "$1" | sort -n |
    awk '{ t[NR] = $1 } END { if (!NR) exit 1; p = int(NR * 0.99 + 0.5); printf "%.1f %.1f\n", t[int((NR + 1) / 2)] * 1000, t[p] * 1000 }'
}

# measure_ping ADDRESS: 100 a second.
measure_ping() {
  local median tail
  begin
  n a timeout $((seconds + 10)) ping -i 0.01 -c $((seconds * 100)) -W 1 "$1" >"$tmp/ping" || { note="ping got no answer"; return 1; }
  finish $((seconds * 100 * 64)) $((seconds * 100 * 64)) || return 1
  read -r median tail < <(round_trips "$tmp/ping")
  emit rtt "$median"
  emit rtt99 "$tail"
  result="$median us, 99 %: $tail us"
}

# measure_loaded_ping ADDRESS: the same while one TCP stream runs; starts late enough for the stream to be at speed.
measure_loaded_ping() {
  local pinger median tail
  (sleep 0.5 && become a timeout $((seconds + 5)) ping -i 0.01 -c $((seconds * 100 - 60)) -W 1 "$1") \
    >"$tmp/ping" 2>&1 </dev/null &
  pinger=$!
  run_tcp "$1" || { wait "$pinger" || true; return 1; }
  wait "$pinger" || true
  read -r median tail < <(round_trips "$tmp/ping") || { note="ping got no answer"; return 1; }
  emit rtt "$median"
  emit rtt99 "$tail"
  result+=", $median us, 99 %: $tail us"
}

# measure PROGRAM_INDEX CASE[@RIG]
measure() {
  label=${labels[$1]} case=$2 note="" result=""
  local name=${2%@*} rig=plain side kind inner outer mtu status noisy attempt address=10.9.0.2
  [[ $2 != *@* ]] || rig=${2#*@}
  read -ra kind <<<"$(field "$name" 3)"
  inner=$(field "$name" 4) outer=$(field "$name" 5) mtu=$(field "$name" 6)
  ((inner == 4)) || address=fd00:9::2
  for ((attempt = 1; attempt <= 3; ++attempt)); do
    ((calm == 100)) || wait_for 120 is_calm || true
    status=0 noisy=0
    open_tunnel "${commands[$1]}" "$rig" "$outer" "$mtu" && "measure_${kind[0]}" "$address" "${kind[@]:1}" || status=1
    ((status && noisy && attempt < 3)) || break
    close_tunnel
  done
  if ((status)); then
    emit failed "${note:=unknown}"
    result="FAILED: $note"
    for side in a b; do tail -n 3 "$tmp/program-$side.log" | sed "s/^/  $label at $side: /" >&2 || true; done
  fi
  close_tunnel
  printf 'round %d/%d  %-12s %-14s %s\n' "$round" "$rounds" "$case" "$label" "$result" >&2
}

# ---- the result -----------------------------------------------------------------------------------------------------

versions() {
  local i version
  for i in "${!labels[@]}"; do
    version=$(timeout 5 ${commands[i]} --version 2>/dev/null </dev/null | grep -oE 'v?[0-9]+(\.[0-9]+)+[^ ,]*' | head -n 1) || version=""
    printf '%s\t%s\n' "${labels[i]}" "${version:-unknown}"
  done
}

summarise() {
  local row
  versions >"$tmp/programs.tsv"
  {
    for one in "${selected[@]}"; do printf '%s\t%s%s\n' "$one" "$(field "${one%@*}" 2)" "$([[ $one != *@wire ]] || echo ', as on a wire')"; done
    printf 'memory\tthe larger end\n'
  } >"$tmp/cases.tsv"
  {
    printf 'date\t%s\n' "$(date -u +%Y-%m-%dT%H:%MZ)"
    printf 'cpu\t%s\n' "$(awk -F': *' '/^model name/ { print $2; exit }' /proc/cpuinfo)"
    printf 'cores\t%s\n' "$(nproc)"
    printf 'kernel\t%s\n' "$(uname -r)"
    printf 'seconds\t%s\n' "$seconds"
    printf 'congestion\t%s\n' "$congestion"
    printf 'baseline\t%s\n' "$baseline"
  } >"$tmp/machine.tsv"
  for form in txt json svg; do
    awk -v form="$form" -f "$root/bench/compare.awk" "$tmp/machine.tsv" "$tmp/programs.tsv" "$tmp/cases.tsv" "$results" >"$tmp/compare.$form"
    cp "$tmp/compare.$form" "$out/compare.$form"
  done
  cat "$tmp/compare.txt"
  echo "compare: written to $out: compare.txt, compare.json, compare.svg" >&2
}

# At every end, also when interrupted: then with what there is. A trap may run inside a redirected function.
exec 3>&1 4>&2
finish_up() {
  local code=$?
  exec >&3 2>&4
  trap - EXIT INT TERM
  set +e
  close_tunnel
  [[ ! -s $results ]] || summarise
  exit "$code"
}
trap finish_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

for ((round = 1; round <= rounds; ++round)); do
  for one in "${selected[@]}"; do
    for ((turn = 0; turn < ${#labels[@]}; ++turn)); do
      measure $(((turn + round - 1) % ${#labels[@]})) "$one"
    done
  done
done
