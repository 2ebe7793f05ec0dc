#!/usr/bin/env bash
# What a reload makes of the firewall, without a moment in which something leaks, and what is done without nftables.
# Topology and oracle: lab.sh.
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools jq setpriv
lab_up

# Of an unprivileged user who goes past the rules: "error EPERM" behind a kill switch.
past_the_rules() { in_host c setpriv --reuid 65534 --clear-groups "$lab" ask udp 192.0.2.9 7 --device eth0 --wait 200; }
is_closed() { [[ $(past_the_rules || true) == "error EPERM "* ]]; }
has_table() { in_host c nft list table inet adit-wg0 >/dev/null 2>&1; }
forwarding() { in_host c sysctl -n net.ipv4.ip_forward net.ipv6.conf.all.forwarding | tr '\n' ' '; }
reloads() { client_conf "$@" && a reload wg0; }
snapshot c

# ---- the kill switch, of a full tunnel

client_conf
check "up without a kill switch" adit_up
check_fails "it is open" is_closed
check "a port that is taken: nothing is reloaded" exits_saying 1 "everything stays as it is" \
  reloads "KillSwitch = up" "Gateway = yes" "LAN = block" "ListenPort = 7"
check_fails "... it is still open" is_closed
check "... the LAN is reached" sees c tcp 192.168.1.77 192.168.1.2
check "... and is no gateway" equal "0 0 " "$(forwarding)"
check "reload with KillSwitch = up" reloads "KillSwitch = up"
check "closed" is_closed
check "the tunnel works" sees c udp 8.8.8.8 10.9.0.2
check "a port that is taken: it does not open" exits_saying 1 "everything stays as it is" reloads "ListenPort = 7"
check "... it is still closed" is_closed
check "the status says so" bash -c '[[ $1 == *"kill switch up"* ]]' _ "$(a status wg0)"
oracle_start
spawn flood c setpriv --reuid 65534 --clear-groups "$lab" flood 8.8.8.8 7 200 20
check "reload with another LAN" reloads "KillSwitch = up" "LAN = block"
check_fails "the LAN is not reached" sees c tcp 192.168.1.77 192.168.1.2
check "reload with another MTU and address" reloads "KillSwitch = up" "MTU = 1300"
check "the LAN is reached" sees c tcp 192.168.1.77 192.168.1.2
check "reload with KillSwitch = always" reloads "KillSwitch = always"
stop flood
check "the oracle saw everything" oracle_stop
check "nothing leaked in all of that" clean
check "a file that is wrong changes nothing" exits_saying 1 "KillSwitch" reloads "KillSwitch = perhaps"
check "... it is still closed" is_closed
check "down" adit_down
check "always: the table stays" has_table
check "... closed" is_closed
check "opened" a killswitch off "$conf"
check "the machine is as it was" unchanged c

client_conf "KillSwitch = always"
check "up with KillSwitch = always" adit_up
check "reload with KillSwitch = up" reloads "KillSwitch = up"
check "kill -9" adit_kill
check "closed" is_closed
check "cleanup" a cleanup wg0
check "up, not always: nothing stays" unchanged c

# ---- of a split tunnel, which has no firewall unless it is asked for

allowed="10.9.0.0/24"
client_conf
check "up as a split tunnel" adit_up
check_fails "no table" has_table
check "a port that is taken: nothing is reloaded" exits_saying 1 "everything stays as it is" \
  reloads "KillSwitch = always" "ListenPort = 7"
check_fails "... no table" has_table
check "reload with KillSwitch = up" reloads "KillSwitch = up"
check "closed" is_closed
check "the tunnel works" sees c udp 10.9.0.1 10.9.0.2
oracle_start
spawn flood c "$lab" flood 8.8.8.8 7 200 20
allowed="0.0.0.0/0, ::/0"
check "reload as a full tunnel without a kill switch" reloads
check "it works" sees c udp 8.8.8.8 10.9.0.2
allowed="10.9.0.0/24"
check "back to a split tunnel with one" reloads "KillSwitch = up"
stop flood
check "the oracle saw everything" oracle_stop
check "it opened when the routes were there, and nothing leaked" clean
check "closed" is_closed
check "reload without" reloads
check_fails "no table" has_table
check "what is beside it is reached" sees c udp 8.8.8.8 192.168.1.2
check "reload with KillSwitch = always" reloads "KillSwitch = always"
check "closed" is_closed
check "reload without" reloads
check_fails "no table" has_table
oracle_start
check "control: 8.8.8.8 leaks when there is none" sees c udp 8.8.8.8 192.168.1.2
oracle_stop
check "control: ... and the oracle sees it" leaks "dst host 8.8.8.8"
check "down" adit_down
check "the machine is as it was" unchanged c

# ---- a gateway

client_conf
check "up" adit_up
before=$(forwarding)
check "reload as a gateway" reloads "Gateway = yes" "Forward = tcp 8080 to 192.168.1.77:7"
check "it forwards" equal "1 1 " "$(forwarding)"
check "its own IPv6 router is still heard" equal 2 "$(in_host c sysctl -n net.ipv6.conf.eth0.accept_ra)"
check "the port is forwarded" bash -c '[[ $1 == *192.168.1.77* ]]' _ "$(in_host c nft list chain inet adit-wg0 forwards)"
check "reload without" reloads
check "the settings are back" equal "$before" "$(forwarding)"
check "reload as a gateway" reloads "Gateway = yes"
check "kill -9" adit_kill
check "cleanup" a cleanup wg0
check "the machine is as it was" unchanged c
allowed="0.0.0.0/0, ::/0"

# ---- a kernel without nftables

without_nftables() { n c env LD_PRELOAD="$(dirname "$adit")/adit_no_rules.so" ADIT_TEST_NO_NFTABLES=1 "$adit" "$@"; }
client_conf
check "up without a kill switch" exits_saying 0 "there is no firewall around this tunnel: .*no nftables" without_nftables up --wait=10 "$conf"
check "it works" sees c udp 8.8.8.8 10.9.0.2
check_fails "no table" has_table
check "the status says what is missing" bash -c '[[ $1 == *"no nftables"* ]]' _ "$(a status wg0)"
client_conf "KillSwitch = up"
check "a kill switch by reload is refused" exits_saying 1 "not reloaded.*KillSwitch = up is not possible here" a reload wg0
check "... the tunnel works on" sees c udp 8.8.8.8 10.9.0.2
check "down" adit_down
check "the machine is as it was" unchanged c
for key in "KillSwitch = up" "KillSwitch = always" "DNSGuard = yes" "Gateway = yes"; do
  client_conf "$key"
  check "$key: refused" exits_saying 4 "no nftables" without_nftables up "$conf"
  check "... nothing changed" unchanged c
done
check "control: with nftables it comes up" adit_up
check "down" adit_down
check "the machine is as it was" unchanged c
