#!/usr/bin/env bash
# adit exec --isolated: a program whose only way out is the tunnel. The oracle is a capture on the client's only uplink:
# nothing but the tunnel's UDP and ARP may be in it, whatever the program tries.
#
#   [near] 192.0.2.1 ---- veth ---- 192.0.2.2 [far]   203.0.113.9 (lo): "the internet"; 10.9.0.2: the tunnel's name server
#
# timeout: 120
. "$(dirname "$0")/lib.sh"
require_tools wg ping tcpdump getent

host near
host far
link near far 192.0.2.1/24 192.0.2.2/24 2001:db8::1/64 2001:db8::2/64
n far ip address add 203.0.113.9/32 dev lo
n near ip route add default via 192.0.2.2
n near ip -6 route add default via 2001:db8::2
make_keys near far

rm -f /etc/resolv.conf
echo "nameserver 192.0.2.2" >/etc/resolv.conf
sed -i 's/^hosts:.*/hosts: files dns/' /etc/nsswitch.conf

(umask 077 && cat >"$tmp/wgf.conf") <<CONF
[Interface]
PrivateKey = $(cat "$tmp/far.key")
ListenPort = 51820
Address = 10.9.0.2/24
[Peer]
PublicKey = $(cat "$tmp/near.pub")
AllowedIPs = 10.9.0.1/32
CONF
n far env ADIT_RUN_DIR=/run/adit-far "$adit" up "$tmp/wgf.conf"
(umask 077 && cat >"$tmp/wg0.conf") <<CONF
[Interface]
PrivateKey = $(cat "$tmp/near.key")
Address = 10.9.0.1/24
DNS = 10.9.0.2, inside.example
[Peer]
PublicKey = $(cat "$tmp/far.pub")
AllowedIPs = 0.0.0.0/0
Endpoint = 192.0.2.2:51820
CONF
echo "www.inside.example 60 203.0.113.9" >"$tmp/zone"
spawn dns far "$(dirname "$adit")/adit_fake_dns" 10.9.0.2 "$tmp/zone"
spawn lan-dns far "$(dirname "$adit")/adit_fake_dns" 192.0.2.2 "$tmp/zone"
wait_for 5 grep -q ready "$tmp/dns.log"
wait_for 5 grep -q ready "$tmp/lan-dns.log"

inside() { n near "$adit" exec --isolated --config "$tmp/wg0.conf" "${user[@]}" -- "$@"; }
user=()
code_of() {
  local code=0
  "$@" >/dev/null 2>&1 || code=$?
  echo "$code"
}
runs() { # a process with this command line, seen from outside
  local process
  for process in /proc/[0-9]*; do
    [[ $(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) != "$1 " ]] || return 0
  done
  return 1
}
runs_not() { ! runs "$1"; }

oracle_start() {
  rm -f "$tmp/oracle.pcap"
  spawn oracle near tcpdump -U --immediate-mode -n -i to_far -w "$tmp/oracle.pcap"
  wait_for 5 test -s "$tmp/oracle.pcap"
}
# What left that is neither the tunnel nor ARP, neighbour discovery or the kernel's multicast listener reports, which
# carry a hop-by-hop header before their ICMPv6.
oracle_stop() {
  sleep 0.3
  stop oracle INT
  tcpdump -n -r "$tmp/oracle.pcap" 'not arp and not (udp port 51820) and not icmp6 and not (ip6[6] = 0 and dst net ff02::/16)' 2>/dev/null
}

# The attempts, each of which leaves by the uplink where there is one.
cat >"$tmp/attempts" <<'X'
#!/bin/sh
ping -c 1 -W 1 192.0.2.2
ping -c 1 -W 1 203.0.113.9
ping -c 1 -W 1 -I to_far 192.0.2.2
ping -6 -c 1 -W 1 2001:db8::2
getent hosts www.inside.example
getent hosts www.outside.example
true
X
chmod +x "$tmp/attempts"
oracle_start
n near "$tmp/attempts" >/dev/null 2>&1 || true
check "outside the attempts leave by the uplink (the control)" test -n "$(oracle_stop)"
oracle_start
inside "$tmp/attempts" >"$tmp/attempts.out" 2>&1 || true
check "inside nothing leaves but the tunnel" equal "" "$(oracle_stop)"
check "... and through it the internet is there" grep -q "1 received" "$tmp/attempts.out"
check "... names are asked for inside" grep -q "www.inside.example A" "$tmp/dns.log"
check "... and found" grep -q "^203.0.113.9" "$tmp/attempts.out"
: >"$tmp/lan-dns.log"
inside getent hosts www.inside.example >/dev/null
check "... which hears nothing" equal "" "$(cat "$tmp/lan-dns.log")"
check "the uplink is not there" fails inside ip link show to_far
check "the machine's resolv.conf is untouched" equal "nameserver 192.0.2.2" "$(cat /etc/resolv.conf)"
check "... inside it is the tunnel's" bash -c 'grep -qx "nameserver 10.9.0.2" <<<"$1"' _ "$(inside cat /etc/resolv.conf)"

# A resolver of the machine that answers by a socket in the file system.
mkdir -p /run/systemd/resolve
echo "nameserver 127.0.0.53" >/run/systemd/resolve/stub-resolv.conf
touch /run/systemd/resolve/io.systemd.Resolve
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
check "with systemd-resolved: resolv.conf is the tunnel's" bash -c 'grep -qx "nameserver 10.9.0.2" <<<"$1"' _ "$(inside cat /etc/resolv.conf)"
check "... and its socket is covered" fails inside test -e /run/systemd/resolve/io.systemd.Resolve
check "... but only in there" test -e /run/systemd/resolve/io.systemd.Resolve
rm /etc/resolv.conf
echo "nameserver 192.0.2.2" >/etc/resolv.conf

# The program's end.
check "exit code 0" equal 0 "$(code_of inside true)"
check "exit code 7" equal 7 "$(code_of inside sh -c 'exit 7')"
check "ended by SIGKILL: 137" equal 137 "$(code_of inside sh -c 'kill -KILL $$')"
check "no such program: 127" equal 127 "$(code_of inside no-such-program)"
check "not a program: 126" equal 126 "$(code_of inside /etc/passwd)"
check "its input and output are ours" equal "hello" "$(echo hello | inside cat)"
inside sh -c 'sleep 1002 & exit 0'
check "what it left in the background is gone" wait_for 2 runs_not "sleep 1002"

spawn exec near "$adit" exec --isolated --config "$tmp/wg0.conf" -- sh -c 'trap "exit 9" TERM; echo begun; while :; do sleep 0.1; done'
wait_for 5 grep -q begun "$tmp/exec.log"
check "status knows it" bash -c 'grep -q "interface: wg0" <<<"$1"' _ "$(n near "$adit" status wg0)"
check "so does wg" n near wg show wg0
check "the same key twice is refused" equal 1 "$(code_of inside true)"
pid=${pids[exec]}
kill -TERM "$pid"
code=0
wait "$pid" || code=$?
unset 'pids[exec]'
check "SIGTERM reaches the program, and its exit code us" equal 9 "$code"

spawn exec near "$adit" exec --isolated --config "$tmp/wg0.conf" -- sh -c 'sleep 1003 & sleep 1004'
wait_for 5 runs "sleep 1004"
check "down ends it" n near "$adit" down "$tmp/wg0.conf"
check "... all of it" wait_for 2 runs_not "sleep 1003"
wait "${pids[exec]}" || true
unset 'pids[exec]'

spawn exec near "$adit" exec --isolated --config "$tmp/wg0.conf" -- sh -c 'sleep 1005 & sleep 1006'
wait_for 5 runs "sleep 1006"
stop exec KILL
check "after kill -9 nothing of it runs" wait_for 2 runs_not "sleep 1005"
check "... and the next one starts" equal 0 "$(code_of inside true)"

# No rights.
check "root stays root" equal 0 "$(inside id -u)"
user=(--user nobody)
check "--user: it runs as that user" equal 65534 "$(inside id -u)"
check "... without capabilities" bash -c 'grep -qE "^CapEff:\s+0+$" <<<"$1"' _ "$(inside cat /proc/self/status)"
check "... and cannot gain any" bash -c 'grep -qE "^NoNewPrivs:\s+1$" <<<"$1"' _ "$(inside cat /proc/self/status)"
check "... nor does it need any to ping" inside ping -c 1 -W 2 203.0.113.9
user=()
export SUDO_UID=65534 SUDO_GID=65534
check "by sudo: it runs as who called" equal 65534 "$(inside id -u)"
unset SUDO_UID SUDO_GID
check "nothing is left" equal "" "$(ls -A /run/adit)"
check "... no link either" fails n near ip link show wg0
