#!/usr/bin/env bash
# DNS = on the machine: by systemd-resolved (a stand-in on a private bus), by resolvconf (a stand-in in PATH), and in
# resolv.conf itself; trampled, crashed, rebooted. /etc and /var/lib are the script's own.
#
#   [near] 192.0.2.1 ---- veth ---- 192.0.2.2 [far], where nobody answers: DNS does not wait for a handshake
#
# timeout: 120
# also with: asan
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/lab.sh"
require_tools wg dbus-daemon

fake_resolve1=$(dirname "$adit")/adit_fake_resolve1
host near
host far
link near far 192.0.2.1/24 192.0.2.2/24
make_keys near far

own=$'nameserver 192.0.2.53\nsearch lan.example\n'
mkdir -p /run/bin
export PATH=/run/bin:$PATH
resolv_conf_is_own() { equal "$own" "$(cat /etc/resolv.conf; echo x | tr -d 'x\n')"$'\n'; }
reset_resolv_conf() { rm -f /etc/resolv.conf && printf %s "$own" >/etc/resolv.conf; }
reset_resolv_conf

(umask 077 && cat >"$conf") <<CONF
[Interface]
PrivateKey = $(cat "$tmp/near.key")
Address = 10.9.0.1/24
DNS = 10.9.0.53, corp.example
[Peer]
PublicKey = $(cat "$tmp/far.pub")
AllowedIPs = 0.0.0.0/0
Endpoint = 192.0.2.2:51820
CONF
sed 's/10.9.0/10.8.0/' "$conf" >"$tmp/wg1.conf"
chmod 600 "$tmp/wg1.conf"

up() { n near env ADIT_DNS="${2:-auto}" WG_LOG_FILE="$tmp/adit.log" "$adit" up "$tmp/$1.conf"; }
down() { n near "$adit" down "$tmp/$1.conf"; }
asks() { equal "nameserver $1" "$(grep nameserver /etc/resolv.conf)"; }
status() { n near "$adit" status wg0 --json; }
says() { status | grep -qF "$1"; }
crash() {
  local pid
  pid=$(cat /run/adit/wg0.lock)
  kill -KILL "$pid"
  # The link goes before the lock: threads die one by one.
  wait_for 5 is_gone "$pid"
  wait_for 5 flock -n /run/adit/wg0.lock true
  wait_for 5 bash -c '! ip netns exec "$1" ip link show wg0 2>/dev/null' _ "$(ns near)"
}

# ---- the file ----
check "off: the tunnel comes up" up wg0 off
check "... and resolv.conf is untouched (the control)" resolv_conf_is_own
down wg0
check "up writes resolv.conf" up wg0
check "... with the tunnel's server" asks 10.9.0.53
check "... and its domain" grep -qx "search corp.example" /etc/resolv.conf
check "... and status says by which way" says '"backend": "resolv.conf"'
check "... and that it is good" says '"health": "good"'
check "the text form too" bash -c 'grep -q "dns: 10.9.0.53 (corp.example) by resolv.conf" <<<"$1"' _ "$(n near "$adit" status wg0)"
check "a second tunnel takes over" up wg1
check "... all questions" asks 10.8.0.53
check "... and when the first goes down" down wg0
check "... it keeps them" asks 10.8.0.53
down wg1
check "after the last one the file is as it was" resolv_conf_is_own
check "... and nothing is kept" equal lock "$(ls /var/lib/adit/dns)"

# ---- a reload ----
cp "$conf" "$tmp/old.conf"
reloads() { sed "$1" "$tmp/old.conf" >"$conf" && n near "$adit" reload wg0; }
up wg0
check "reload with another server" reloads 's/^DNS.*/DNS = 10.9.0.54/'
check "... it is asked" asks 10.9.0.54
check "... and status names it" says 10.9.0.54
check "reload with a file that is wrong" fails reloads 's/^DNS.*/DNS = 10.9.0/'
check "... changes nothing" asks 10.9.0.54
check "reload without DNS" reloads '/^DNS/d'
check "... and resolv.conf is as it was" resolv_conf_is_own
check "reload with it" reloads ''
check "... and it is asked again" asks 10.9.0.53
check "another way to avoid loops is refused" exits_saying 1 "LoopAvoidance = routes is not possible while rules is in force" \
  reloads 's/^DNS.*/&\nLoopAvoidance = routes/'
check "the way that is in force is not" reloads 's/^DNS.*/&\nLoopAvoidance = rules/'
cp "$tmp/old.conf" "$conf"
down wg0
check "after it the file is as it was" resolv_conf_is_own
check "... and nothing is kept" equal lock "$(ls /var/lib/adit/dns)"

scenario 53 "resolv.conf trampled"
up wg0 off
printf 'nameserver 198.51.100.1\n' >/etc/resolv.conf
sleep 1
control "with DNS off a file that somebody writes stays" asks 198.51.100.1
down wg0
reset_resolv_conf
up wg0
printf 'nameserver 198.51.100.1\n' >/etc/resolv.conf
check "trampled in place: repaired within 2 s" wait_for 2 asks 10.9.0.53
printf 'nameserver 198.51.100.2\n' >/etc/new && mv /etc/new /etc/resolv.conf
check "trampled by rename: repaired" wait_for 2 asks 10.9.0.53
printf 'nameserver 198.51.100.3\n' >/run/stub.conf
ln -s /run/stub.conf /etc/new && mv /etc/new /etc/resolv.conf
check "trampled by a symlink: repaired" wait_for 2 asks 10.9.0.53
check "... and what it led to is left alone" equal "nameserver 198.51.100.3" "$(cat /run/stub.conf)"
fight() {
  local i
  for ((i = 0; i < 3; i++)); do
    printf 'nameserver 198.51.100.4\n' >/etc/resolv.conf
    sleep 0.5
  done
}
fight
check "a fight ends: the other one's file stays" asks 198.51.100.4
check "... status warns" says '"health": "degraded"'
check "... says how often it was put right" says '"repairs": 5'
check "... and the tunnel is up" says '"state": "up"'
passes
down wg0
scenario 54 "crash with resolv.conf written; stale backup"
check "54b: a file that is not ours is not replaced by an older network's" asks 198.51.100.4

reset_resolv_conf
up wg0
printf 'nameserver 198.51.100.5\n' >/etc/resolv.conf
wait_for 2 asks 10.9.0.53
down wg0
check "54b: what comes back belongs to the network we are in" asks 198.51.100.5

rm /etc/resolv.conf && ln -s ../run/stub.conf /etc/resolv.conf
up wg0
check "a symlink is replaced" test ! -L /etc/resolv.conf
crash
control "after kill -9 our file is still there" asks 10.9.0.53
check "... until cleanup" n near "$adit" cleanup wg0
check "... which puts the link back" equal ../run/stub.conf "$(readlink /etc/resolv.conf)"
up wg0
crash
check "after another crash the next up" up wg0
check "... is in force" asks 10.9.0.53
down wg0
check "... and its down puts the link back" equal ../run/stub.conf "$(readlink /etc/resolv.conf)"

reset_resolv_conf
up wg0
crash
mv /run/adit /run/adit-before
echo 00000000-0000-0000-0000-00000000000b >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
check "after a reboot another tunnel comes up" up wg1 off
check "... and the original is back" resolv_conf_is_own
passes
down wg1
rm -rf /run/adit && mv /run/adit-before /run/adit
n near "$adit" cleanup wg0  # a reboot would have taken the rules
umount /proc/sys/kernel/random/boot_id

# As in a container: resolv.conf is a mount point.
printf %s "$own" >/run/mounted.conf
mount --bind /run/mounted.conf /etc/resolv.conf
up wg0
check "a mount point is written in place" asks 10.9.0.53
check "... it is still one" mountpoint -q /etc/resolv.conf
printf 'nameserver 198.51.100.6\n' >/etc/resolv.conf
check "... and is repaired as well" wait_for 2 asks 10.9.0.53
printf %s "$own" >/etc/resolv.conf
wait_for 2 asks 10.9.0.53
down wg0
check "... and comes back" resolv_conf_is_own
umount /etc/resolv.conf
check "no temporary file is left in /etc" equal "" "$(ls -A /etc | grep -F .adit || true)"

scenario 61 "DNS step fails"
# A resolvconf that works.
cat >/run/bin/resolvconf <<'X'
#!/bin/sh
echo "$@" >>/run/test/resolvconf.calls
case $1 in
  -a) cp /etc/resolv.conf /run/before.conf && cat >/etc/resolv.conf ;;
  -d) cp /run/before.conf /etc/resolv.conf ;;
esac
X
chmod +x /run/bin/resolvconf
reset_resolv_conf
check "resolvconf works" up wg0
check "... and is used" says '"backend": "resolvconf"'
control "... status says good" says '"health": "good"'
check "... the servers are in force" asks 10.9.0.53
sleep 0.3
check "somebody removes the record" n near resolvconf -d tun.wg0
check "... it is made again within a second" wait_for 1 asks 10.9.0.53
check "... which counts as a repair" says '"repairs": 1'
crash
check "after a crash cleanup" n near "$adit" cleanup wg0
check "... takes the record back" resolv_conf_is_own
rm -f "$tmp/resolvconf.calls"
cat >/run/bin/resolvconf <<'X'
#!/bin/sh
echo "$@" >>/run/test/resolvconf.calls
exit 99
X
chmod +x /run/bin/resolvconf
check "resolvconf fails and nothing else is wanted: the tunnel comes up" up wg0 resolvconf
check "... degraded" says '"health": "degraded"'
check "... with the reason" says 'exit code 99'
sleep 1.2
check "... and nobody tried again" equal 1 "$(grep -c -- '^-a' "$tmp/resolvconf.calls")"
check "... names are looked up as before" resolv_conf_is_own
down wg0
check "resolvconf fails: resolv.conf is written in its place" up wg0
check "... in force" asks 10.9.0.53
check "... and status does not hide it" says 'exit code 99'
down wg0
check "... and comes back" resolv_conf_is_own
chattr +i /etc/resolv.conf 2>/dev/null && {
  check "a file that cannot be written either: the tunnel comes up" up wg0
  check "... degraded" says '"health": "degraded"'
  chattr -i /etc/resolv.conf
  down wg0
}
passes
rm /run/bin/resolvconf

scenario 52 "resolved restarts"
cat >"$tmp/bus.conf" <<X
<busconfig><listen>unix:path=$tmp/bus</listen><auth>EXTERNAL</auth><policy context="default">
<allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/><allow user="*"/></policy></busconfig>
X
export DBUS_SYSTEM_BUS_ADDRESS=unix:path=$tmp/bus
spawn bus near dbus-daemon --nofork --config-file="$tmp/bus.conf"
wait_for 5 test -S "$tmp/bus"
spawn resolve1 near "$fake_resolve1"
wait_for 5 grep -q ready "$tmp/resolve1.log"
check "resolved runs, but resolv.conf leads past it: the file is written" up wg0
check "... as status says" says '"backend": "resolv.conf"'
down wg0
own=$'nameserver 127.0.0.53\noptions edns0\n'
reset_resolv_conf
up wg0 off
control "with DNS off it is told nothing" equal ready "$(cat "$tmp/resolve1.log")"
down wg0
check "resolv.conf leads to resolved: it is told" up wg0
check "... as status says" says '"backend": "systemd-resolved"'
check "... and good" says '"health": "good"'
index=$(n near cat /sys/class/net/wg0/ifindex)
told() { grep -qx "dns $index 10.9.0.53" "$tmp/resolve1.log"; }
check "... our server" told
check "... our domain and, as it is a full tunnel, all names" grep -qx "domains $index corp.example ~." "$tmp/resolve1.log"
check "... and resolv.conf is untouched" resolv_conf_is_own
stop resolve1
check "resolved stops: degraded" wait_for 2 says 'not running'
: >"$tmp/resolve1.log"
spawn resolve1 near "$fake_resolve1"
check "resolved starts again: told within a second" wait_for 1 told
check "... our domains, too" grep -qx "domains $index corp.example ~." "$tmp/resolve1.log"
check "... and that all names go there" grep -qx "default $index yes" "$tmp/resolve1.log"
check "... and good" wait_for 1 says '"health": "good"'
sleep 0.3 # what it says of the change has been heard
: >"$tmp/resolve1.log"
adit_of_wg0=$(cat /run/adit/wg0.lock)
kill -STOP "$adit_of_wg0"
check "somebody takes it back while resolved runs" n near "$fake_resolve1" revert "$index"
sleep 0.5
control "... which stays so without us" fails told
kill -CONT "$adit_of_wg0"
check "it is told again within a second" wait_for 1 told
check "... all of it" grep -qx "domains $index corp.example ~." "$tmp/resolve1.log"
check "... which counts as a repair" wait_for 1 says '"repairs": 2'
down wg0
check "down takes it back" wait_for 1 grep -qx "revert $index" "$tmp/resolve1.log"
passes

sed -i 's/^AllowedIPs = .*/AllowedIPs = 10.9.0.0\/24/' "$conf"
: >"$tmp/resolve1.log"
up wg0
index=$(n near cat /sys/class/net/wg0/ifindex)
check "a split tunnel: its domain only" grep -qx "domains $index corp.example" "$tmp/resolve1.log"
check "... and no others" grep -qx "default $index no" "$tmp/resolve1.log"
down wg0
