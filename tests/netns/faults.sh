#!/usr/bin/env bash
# The whole program with a fault at each thing that it changes on the machine, over up, reload and down with a kill switch,
# a gateway's settings and DNS: each of three errors of the kernel's, and kill -9 before (then cleanup) and after (then the
# next start). Topology: lab.sh; the faults: faults.cc.
#
# timeout: 300
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools setpriv
lab_up

preload=$(dirname "$adit")/adit_faults.so
fault=$tmp/fault
EPERM=1 EBUSY=16 EEXIST=17 BEFORE=0 AFTER=-1
faulty() { n c env LD_PRELOAD="$preload" ADIT_TEST_FAULT="$fault" ADIT_DNS="${dns_by:-file}" "$adit" "$@"; }
# As an unprivileged user who goes past the rules.
is_closed() { [[ $(in_host c setpriv --reuid 65534 --clear-groups "$lab" ask udp 192.0.2.9 7 --device eth0 --wait 50 || true) == "error EPERM "* ]]; }
first_conf() { client_conf "KillSwitch = up" "Gateway = yes" "DNS = 10.9.0.53, corp.example"; }
conf_of_reload() { endpoint="[2001:db8:f::10]:$kTunnelPort" addresses="10.9.0.2/24" allowed="0.0.0.0/0, 10.77.0.0/16" client_conf "KillSwitch = up" "LAN = block" "MTU = 1300" "DNS = 10.9.0.54"; }
# State without the order of things: two ways to the same end.
sorted_state() { state c | sed -E '/^\[/d; s/ # progname adit//; s/^[0-9]+: //' | sort; }
is_state() { sorted_state | diff "$tmp/$1" - >"$tmp/difference"; }
must() { "$@" || { cat "$tmp/said" "$tmp/difference" 2>/dev/null; echo "NOT OK: $phase, operation $at, $what: $*"; exit 1; }; }
says() { "$@" >"$tmp/said" 2>&1; }
as_it_was() { must wait_for 5 is_state before; }
# A tunnel comes up without DNS rather than not at all: then resolv.conf is as it was, and status says so.
is_state_or_without_dns() {
  is_state "$1" && return
  sorted_state | grep -vx wg0.dns | diff "$tmp/$1_without_dns" - >"$tmp/difference" && a status wg0 | grep -q 'dns:.*degraded'
}
# The fault's file goes a moment before the process does. What was left is undone by `cleanup`, or taken over by the next up.
cleaned() {
  must wait_for 5 adit_is_dead
  if [[ $what == "$AFTER" ]]; then
    first_conf
    must says faulty up "$conf"
    must wait_for 5 is_state first
    must is_closed
    must says adit_down
  else
    must says a cleanup wg0
  fi
  as_it_was
}

printf 'nameserver 192.168.1.1\n' >/etc/resolv.conf
snapshot c
sorted_state >"$tmp/before"
for dns_by in off file; do
  first_conf
  check "up" faulty up "$conf"
  wait_for 5 is_closed
  sorted_state >"$tmp/first"
  conf_of_reload
  check "reload" a reload wg0
  sorted_state >"$tmp/second"
  [[ $dns_by == off ]] || break
  mv "$tmp/first" "$tmp/first_without_dns"
  mv "$tmp/second" "$tmp/second_without_dns"
  check "down" adit_down
done
check "DNS is in force" grep -q 10.9.0.54 /etc/resolv.conf
check "control: it changes something" fails cmp -s "$tmp/first" "$tmp/second"
first_conf
check "reload back" a reload wg0
check "... to the state of before" wait_for 5 is_state first
check "down" adit_down
check "the machine is as it was" wait_for 5 is_state before

arm() { echo "$at $what" >"$fault"; }
# Whether the fault was met: then its file is gone.
disarm() {
  # In one step: the daemon may be about to meet it.
  is_met_now=
  mv "$fault" "$tmp/disarmed" 2>/dev/null || is_met=1 is_met_now=1
}

fault_in_up() {
  local status=0
  first_conf
  arm
  says faulty up "$conf" || status=$?
  disarm
  if [[ $what -le 0 && $is_met_now ]]; then
    cleaned
  elif ((status == 0)); then  # not met, or it could do without
    must wait_for 5 is_state_or_without_dns first
    must says adit_down
    as_it_was
  else
    as_it_was
  fi
}
fault_in_reload() {
  local status=0
  first_conf
  must says faulty up "$conf"
  conf_of_reload
  arm
  says a reload wg0 || status=$?
  disarm
  must is_closed
  # It may have died after it had answered.
  if [[ $what -le 0 && $is_met_now ]]; then
    cleaned
    return
  fi
  must wait_for 5 is_state_or_without_dns "$( ((status == 0)) && echo second || echo first)"
  must says adit_down
  as_it_was
}
fault_in_down() {
  local status=0
  first_conf
  must says faulty up "$conf"
  arm
  says adit_down || status=$?
  disarm
  if ((status == 0)); then as_it_was; else cleaned; fi
}

scenario 31 "kill -9 at every operation of up, reload and down of the program, with a kill switch and DNS: cleanup, or the next start, leaves nothing"
errors=("$EPERM" "$EBUSY" "$EEXIST")
for phase in up reload down; do
  for ((at = 0; at < 100; at++)); do
    is_met=
    for what in "$BEFORE" "$AFTER" "${errors[@]}"; do "fault_in_$phase"; done
    [[ $is_met ]] || break
  done
  echo "$phase: $at operations"
  control "the faults of $phase were met" test "$at" -ge 5
done
passes
scenario 32 "EPERM, EBUSY and EEXIST at every operation of up, reload and down of the program: all or nothing"
control "the same without a fault: the machine is another" says faulty up "$conf"
control "..." fails is_state before
check "down" adit_down
passes
