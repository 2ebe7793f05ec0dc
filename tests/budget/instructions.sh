#!/usr/bin/env bash
# Instructions per packet of each stage of the data path, against the budget beside this script. Time depends on the
# machine's mood, a count does not: callgrind gives the same one again and again, and without AVX-512, since valgrind does
# not know it, whatever the CPU.
#
#   instructions.sh PATH_BUDGET            checks
#   instructions.sh PATH_BUDGET --update   writes what it counts into budget.tsv: say in the commit what the packets got for it
#
# Skipped without valgrind, and on a CPU without AVX2, where other code runs.
set -euo pipefail

program=${1:?instructions.sh PATH_BUDGET [--update]}
update=${2:-}
table=$(dirname "$(readlink -f "$0")")/budget.tsv
allowed_percent=3  # a new compiler patch or C library moves a figure by about one
repeats=20

skip() {
  echo "skipped: $*"
  exit 77
}
command -v valgrind >/dev/null || skip "needs valgrind: ./dev deps test"
[[ $(uname -m) == x86_64 ]] && grep -qw avx2 /proc/cpuinfo || skip "the budget was recorded on amd64 with AVX2"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# count [--wasteful] STAGE: instructions of `repeats` repeats.
count() {
  valgrind --tool=callgrind --toggle-collect=adit_measured --callgrind-out-file="$work/out" "$program" "$@" "$repeats" \
    >"$work/log" 2>&1 || { cat "$work/log" >&2; echo "instructions: $* failed" >&2; exit 1; }
  awk '/Collected :/ { print $NF; found = 1 } END { exit !found }' "$work/log" ||
    { cat "$work/log" >&2; echo "instructions: no count of $*" >&2; exit 1; }
}
per_packet() { awk -v counted="$1" -v packets="$2" -v repeats=$repeats 'BEGIN { printf "%.1f", counted / packets / repeats }'; }
exceeds() { awk -v value="$1" -v budget="$2" -v percent=$allowed_percent 'BEGIN { exit !(value > budget * (1 + percent / 100)) }'; }

"$program" >"$work/stages"
failed=0
printf '%-16s %10s %10s\n' stage counted budget
while read -r stage packets; do
  value=$(per_packet "$(count "$stage")" "$packets")
  printf '%s\t%s\n' "$stage" "$value" >>"$work/table"
  budget=$(awk -v stage="$stage" '$1 == stage { print $2 }' "$table" 2>/dev/null || true)
  printf '%-16s %10s %10s\n' "$stage" "$value" "${budget:--}"
  [[ ! $update ]] || continue
  if [[ ! $budget ]]; then
    echo "FAILED: $stage has no budget: instructions.sh PATH_BUDGET --update"
    failed=1
  elif exceeds "$value" "$budget"; then
    echo "FAILED: $stage takes $value instructions a packet, $budget are allowed. If it is worth them: --update"
    failed=1
  elif exceeds "$budget" "$value"; then
    echo "note: $stage has become cheaper: --update keeps it so"
  fi
done <"$work/stages"

# The guard itself: a stage that reads every byte once more must be found too dear.
read -r stage packets <"$work/stages"
wasteful=$(per_packet "$(count --wasteful "$stage")" "$packets")
budget=$(awk -v stage="$stage" '$1 == stage { print $2 }' "$work/table")
exceeds "$wasteful" "$budget" || { echo "FAILED: a wasteful $stage ($wasteful) passes for a good one ($budget)"; failed=1; }

if [[ $update ]]; then
  { echo "# stage, instructions per packet (instructions.sh --update; Release, g++ 12, Debian 12, AVX2)"; cat "$work/table"; } >"$table"
  echo "wrote $table"
fi
exit $failed
