#!/usr/bin/env bash
# Runs what `./dev test` has built, suite by suite, and adds it up. Usage: tests/run.sh [FILTER], a regular expression on
# test names; ADIT_JOBS says how many unit tests run at a time.
#
# Each suite appends to build/test/results one line per test: SUITE <tab> pass|fail|skip <tab> NAME <tab> REASON.
# A namespace script says "scenario NN pass: SENTENCE" for each failure scenario (table in tests/netns/lab.sh) that holds;
# those of scripts that passed are listed and counted.
# A checklist row counts as asserted when a test that passed carries it: CONF12 in a unit test's name, or a line
# "asserts CONF-12 CONF-13" printed by a namespace script or the simulation.
#
# Last lines: one per suite, the reasons for skips, the rows asserted, and the total alone on the last line. Exit status 1
# when anything failed or nothing ran.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."

filter=${1:-}
jobs=${ADIT_JOBS:-$(nproc)}
kChecklistRows=103
kScenarios=63
kSimulation=(--seeds 1000 --hours 1)
kSimulationTimeout=600    # 120 s is the budget on two free cores; a busy machine may take longer without being wrong
kNamespaceTimeout=180     # unless the script says "# timeout: SECONDS"
out=$PWD/build/test
rm -rf "$out"
mkdir -p "$out"
: >"$out/results"
: >"$out/asserted"
: >"$out/scenarios"

# record SUITE VERDICT NAME [REASON]
record() {
  printf '%s\t%s\t%s\t%s\n' "$1" "$2" "$3" "${4:-}" >>"$out/results"
  [[ $2 != fail ]] || echo "FAILED $1: $3${4:+ ($4)}"
}

matches() { [[ -z $filter || $1 =~ $filter ]]; }

asserted_in_log() { grep -ohE '^asserts( CONF-[0-9]+)+$' "$1" | grep -oE '[0-9]+' >>"$out/asserted" || true; }

# ---- unit tests, vectors, fuzz corpora, tidy: ctest ------------------------------------------------------------------

# junit FILE SUITE: ctest's JUnit file as result lines. The reason for a skip is what GTEST_SKIP printed.
junit() {
  awk -v suite="$2" '
    function plain(text) {
      gsub(/&lt;/, "<", text); gsub(/&gt;/, ">", text); gsub(/&quot;/, "\"", text); gsub(/&apos;/, "\047", text)
      gsub(/&amp;/, "\\&", text)
      return text
    }
    function attribute(name,   at, rest) {
      at = index($0, " " name "=\"")
      if (!at) return ""
      rest = substr($0, at + length(name) + 3)
      return plain(substr(rest, 1, index(rest, "\"") - 1))
    }
    /<testcase /        { name = attribute("name"); status = attribute("status"); reason = message = ""; take = 0 }
    /<skipped message=/ { message = attribute("message") }
    /<failure message=/ { message = attribute("message") }
    take && NF          { reason = plain($0); take = 0 }
    /: Skipped$/        { take = 1 }
    /<\/testcase>/ {
      # "notrun" is also what a test gets that could not be started: only a skip that the test itself asked for is one.
      if (status == "run") verdict = "pass"
      else if (status == "disabled" || (status == "notrun" && message ~ /^SKIP_/)) verdict = "skip"
      else verdict = "fail"
      print suite "\t" verdict "\t" name "\t" (reason != "" ? reason : status == "disabled" ? status : message)
    }' "$1"
}

# unit PRESET SUITE: tests of targets that were not built in this tree are not part of the suite.
unit() {
  local xml=$out/$1.xml log=$out/$1.log start=$SECONDS
  ctest --test-dir "build/$1" -j "$jobs" -E '_NOT_BUILT$' ${filter:+-R "$filter"} --output-on-failure \
    --test-output-size-passed 65536 --output-junit "$xml" >"$log" 2>&1 || true
  if [[ ! -f $xml ]]; then
    [[ -n $filter ]] && grep -q 'No tests were found' "$log" && return
    cat "$log"
    record "$2" fail ctest "wrote no result file"
    return
  fi
  junit "$xml" "$2" >"$out/$1.results"
  cat "$out/$1.results" >>"$out/results"
  awk -F'\t' '$2 == "pass" { print $3 }' "$out/$1.results" | grep -oE 'CONF[0-9]+' | tr -d 'A-Z' >>"$out/asserted" || true
  # A failure scenario may be a unit test: its name ends in _SCENARIO31.
  awk -F'\t' '$2 == "pass" && match($3, /_SCENARIO[0-9]+$/) { printf "scenario %02d pass: %s\n", substr($3, RSTART + 9), $3 }' \
    "$out/$1.results" >>"$out/scenarios"
  [[ -s $out/$1.results ]] || return 0
  if grep -q $'\tfail\t' "$out/$1.results"; then
    grep -vE '^ *Start +[0-9]+:|^ *[0-9]+/[0-9]+ Test .* (Passed|\*\*\*Skipped) ' "$log"
    awk -F'\t' '$2 == "fail" { print "FAILED " $1 ": " $3 " (" $4 ")" }' "$out/$1.results"
  fi
  echo "test: $2, $((SECONDS - start)) s"
}

# ---- simulation -----------------------------------------------------------------------------------------------------

simulation() {
  local log=$out/sim.log start=$SECONDS code=0 last
  matches sim || return 0
  timeout --kill-after=10 "$kSimulationTimeout" build/release/sim "${kSimulation[@]}" >"$log" 2>&1 || code=$?
  last=$(tail -n 1 "$log")
  if ((code == 0)) && [[ $last =~ ^sim:\ [1-9][0-9]*\ seeds,\ 0\ failed ]]; then
    record simulation pass "sim ${kSimulation[*]}"
    asserted_in_log "$log"
    echo "test: simulation, $((SECONDS - start)) s: $last"
  else
    tail -n 100 "$log"
    record simulation fail "sim ${kSimulation[*]}" "exit status $code: $last"
  fi
}

# ---- network namespaces ---------------------------------------------------------------------------------------------

# A script's head may say "# timeout: SECONDS", "# alone: REASON" and "# also with: tsan asan" (the builds it runs with besides release).
head_field() { sed -nE "1,40s/^# $2: *(.*)$/\1/p" "$1" | head -n 1; }

# namespace_test SCRIPT PRESET SUITE
namespace_test() {
  local script=$1 name=${1##*/} limit log code=0 reason
  name=${name%.sh}
  log=$out/$3-$name.log
  limit=$(head_field "$script" timeout)
  ADIT=$PWD/build/$2/adit timeout --kill-after=20 "${limit:-$kNamespaceTimeout}" bash "$script" >"$log" 2>&1 </dev/null || code=$?
  # A report of a sanitizer is a failure whatever the script thinks of the rest.
  if grep -qE '(WARNING: ThreadSanitizer|ERROR: AddressSanitizer|ERROR: LeakSanitizer|runtime error:)' "$log"; then code=66; fi
  case $code in
    0)
      record "$3" pass "$name"
      asserted_in_log "$log"
      grep -hE '^scenario [0-9]+ pass: ' "$log" >>"$out/scenarios" || true
      ;;
    77) record "$3" skip "$name" "$(tail -n 1 "$log" | sed 's/^skipped: //')" ;;
    *)
      reason="exit status $code"
      ((code != 124 && code != 137)) || reason="no end after ${limit:-$kNamespaceTimeout} s"
      echo "---- $3 $name"
      tail -n 200 "$log"
      record "$3" fail "$name" "$reason"
      ;;
  esac
}

# pool JOBS TEST…: runs these tests, each "SCRIPT PRESET SUITE", JOBS at a time. What a failed one prints stays together.
pool() {
  local jobs=$1 test words
  shift
  for test in "$@"; do
    read -ra words <<<"$test"
    while (($(jobs -rp | wc -l) >= jobs)); do wait -n || true; done
    { report=$(namespace_test "${words[@]}"); [[ -z $report ]] || echo "$report"; } &
  done
  wait
}

# Most scripts wait more than they work, in namespaces of their own: they run side by side. One that measures, or needs the
# whole machine, says "# alone: REASON"; one that does hardly anything but wait says "# sleeps: REASON", and runs beside the
# others whatever their number.
namespaces() {
  local script preset kind start=$SECONDS shared=() alone=() asleep=() sleeper=
  for script in tests/netns/*.sh; do
    [[ $script != */@(lib|lab).sh && -f $script ]] || continue
    matches "netns/${script##*/}" || continue
    kind=shared
    [[ -z $(head_field "$script" alone) ]] || kind=alone
    [[ -z $(head_field "$script" sleeps) ]] || kind=asleep
    local -n list=$kind
    list+=("$script release namespaces")
    for preset in $(head_field "$script" "also with"); do list+=("$script $preset namespaces-$preset"); done
    unset -n list
  done
  ((${#shared[@]} + ${#alone[@]} + ${#asleep[@]})) || return 0
  if ((${#asleep[@]})); then
    pool "${#asleep[@]}" "${asleep[@]}" &
    sleeper=$!
  fi
  # A pool counts and awaits the jobs of its shell, so each has one of its own.
  (pool "$jobs" ${shared[@]+"${shared[@]}"})
  (pool 1 ${alone[@]+"${alone[@]}"})
  [[ ! $sleeper ]] || wait "$sleeper"
  echo "test: namespaces, $((SECONDS - start)) s"
}

# ---- the sum --------------------------------------------------------------------------------------------------------

summary() {
  local rows
  echo
  awk -F'\t' '
    $2 == "skip" { why[$4 == "" ? "no reason given" : $4]++ }
    { if (!($1 in seen)) { order[++suites] = $1; seen[$1] = 1 } count[$1, $2]++ }
    END {
      printf "%-20s %8s %8s %8s\n", "suite", "passed", "failed", "skipped"
      for (i = 1; i <= suites; i++)
        printf "%-20s %8d %8d %8d\n", order[i], count[order[i], "pass"], count[order[i], "fail"], count[order[i], "skip"]
      for (reason in why) printf "skipped %d: %s\n", why[reason], reason
    }' "$out/results"
  rows=$(awk -v rows=$kChecklistRows '$1 >= 1 && $1 <= rows && !seen[$1]++ { n++ } END { print n + 0 }' "$out/asserted")
  echo "$rows of $kChecklistRows checklist rows asserted"
  sort -u -k2,2n "$out/scenarios"
  echo "$(awk -v last=$kScenarios '$2 >= 1 && $2 <= last && !seen[$2 + 0]++ { n++ } END { print n + 0 }' "$out/scenarios") of $kScenarios scenarios asserted"
  awk -F'\t' '{ count[$2]++ }
    END { printf "%d passed, %d failed, %d skipped\n", count["pass"], count["fail"], count["skip"]
          exit !(count["pass"] > 0 && count["fail"] == 0) }' "$out/results"
}

unit release unit
unit asan unit-asan
unit tsan unit-tsan
simulation
namespaces
summary
