#!/usr/bin/env bash
# `adit up` with nothing but a provider's .conf: a full tunnel that loops nowhere and leaks nothing, hooks, reload, status,
# down to the state before; and all that must change nothing.
#
#   [client] 192.168.1.2 --- LAN --- 192.168.1.1 [router] 203.0.113.1 --- 203.0.113.10 [server]
#    wg0     10.9.0.2, fd09::2                                             10.9.0.1, fd09::1  wg0
#                                                                          198.51.100.7, 2001:db8:7::7: "the internet"
#
# timeout: 120
# also with: asan
. "$(dirname "$0")/lib.sh"
require_tools wg ping tcpdump

host client
host router
host server
link client router 192.168.1.2/24 192.168.1.1/24
link router server 203.0.113.1/24 203.0.113.10/24
n client ip route add default via 192.168.1.1
n server ip route add 192.168.1.0/24 via 203.0.113.1
n router sysctl -qw net.ipv4.ip_forward=1
n server ip address add 198.51.100.7/32 dev lo
n server ip address add 2001:db8:7::7/128 dev lo
n router ip route add 198.51.100.7/32 via 203.0.113.10
make_keys client server
cat >"$tmp/server.conf" <<CONF
[Interface]
PrivateKey = $(cat "$tmp/server.key")
ListenPort = 51820
Address = 10.9.0.1/24, fd09::1/64
[Peer]
PublicKey = $(cat "$tmp/client.pub")
AllowedIPs = 10.9.0.2/32, fd09::2/128
CONF
mkdir "$tmp/server" && mv "$tmp/server.conf" "$tmp/server/wg0.conf"

# As providers write them: BOM, CRLF, empty values, repeated keys, comments.
conf=$tmp/wg0.conf
printf '\xef\xbb\xbf[interface]\r\n# friendly_name = home\r\nPrivateKey=%s\r\nAddress = 10.9.0.2/24\r\naddress = fd09::2/64\r\nDNS =\r\nPostUp = echo %%i >>%s/hooks\r\nPreDown = echo down >>%s/hooks\r\n\r\n[Peer]\r\nPublicKey = %s # the server\r\nPresharedKey =\r\nAllowedIPs = 0.0.0.0/0\r\nAllowedIPs = ::/0\r\nEndpoint = 203.0.113.10:51820\r\n' \
  "$(cat "$tmp/client.key")" "$tmp" "$tmp" "$(cat "$tmp/server.pub")" >"$conf"
chmod 600 "$conf" "$tmp/server/wg0.conf"

state() {
  n client ip rule
  n client ip -6 rule
  n client ip route show table all
  n client ip -6 route show table all
  n client ip -br link
  n client sysctl -a 2>/dev/null | grep -E 'rp_filter|src_valid_mark' || true
}
a() { n client "$adit" "$@"; }
# All of them share /run, as processes of one machine do; each host's directory below /run/adit is its own by interface name.
spawn server server "$adit" run "$tmp/server/wg0.conf"
wait_for 10 n server ip link show wg0
sleep 0.5
stop server
before=$(state)

check "check prints a plan and changes nothing" a check "$conf"
check "... nothing" equal "$before" "$(state)"

# A server under another name, because both live in one /run/adit here.
mv "$tmp/server/wg0.conf" "$tmp/server/wgs.conf"
spawn server server "$adit" run "$tmp/server/wgs.conf"
wait_for 10 n server ip link show wgs
check "up" a up --wait=10 "$conf"
check "ping to the internet, IPv4" n client ping -c 3 -i 0.1 -W 3 198.51.100.7
check "... and IPv6, over a LAN without" n client ping -c 3 -i 0.1 -W 3 2001:db8:7::7
check "the LAN is still reachable outside the tunnel" n client ping -c 1 -W 2 192.168.1.1
check "PostUp ran with the interface's name" grep -qx wg0 "$tmp/hooks"
check "status shows the peer" bash -c '[[ $1 == *"$2"* ]]' _ "$(a status wg0)" "$(cat "$tmp/server.pub")"
check "status --json is JSON with the interface" bash -c '[[ $1 == *wg0* && $1 == "{"* || $1 == "["* ]]' _ "$(a status wg0 --json)"
check "the socket's mark is the engine's" bash -c '[[ $1 != off ]]' _ "$(n client wg show wg0 fwmark)"

# Only the tunnel's UDP is on the LAN while the client talks to the internet.
spawn watch router tcpdump -n -i to_client --immediate-mode 'not arp and not icmp6 and not (ip6[6] = 0 and dst net ff02::/16)'
wait_for 5 grep -q listening "$tmp/watch.log"
n client ping -c 20 -i 0.02 -W 2 198.51.100.7 >/dev/null
n client ping -c 20 -i 0.02 -W 2 2001:db8:7::7 >/dev/null
sleep 0.3
stop watch INT
check "the router's LAN leg saw the tunnel's packets" grep -q 'IP 192.168.1.2.*> 203.0.113.10.51820: UDP' "$tmp/watch.log"
check_fails "... and nothing else" bash -c 'grep " IP" "$1" | grep -v "203.0.113.10.51820"' _ "$tmp/watch.log"

# Without its route the engine's packet is refused, never looped through the tunnel.
n client ip route delete default
sent=$(n client wg show wg0 transfer | cut -f3)
n client ping -c 20 -i 0.01 -W 1 198.51.100.7 >/dev/null || true
check "without a route to the endpoint nothing loops" bash -c '(( $2 - $1 < 20000 ))' _ "$sent" "$(n client wg show wg0 transfer | cut -f3)"
n client ip route add default via 192.168.1.1
check "... and with the route the tunnel is back" wait_for 8 n client ping -c 1 -W 1 198.51.100.7

check_fails "up again refuses" a up "$conf"
check "... and leaves the tunnel alone" n client ping -c 1 -W 3 198.51.100.7
check "down" a down wg0
check "PreDown ran" grep -qx down "$tmp/hooks"
check "rules, routes, links and sysctls are as before" equal "$before" "$(state)"

# kill -9, then cleanup; and kill -9, then up.
check "up" a up "$conf"
kill_daemon() {
  local pid
  pid=$(cat /run/adit/wg0.lock) && kill -KILL "$pid" && wait_for 3 is_gone "$pid"
}
check "kill -9" kill_daemon
check "cleanup" a cleanup wg0
check "... leaves the state as before" equal "$before" "$(state)"
check "up" a up "$conf"
check "kill -9" kill_daemon
check "the next up takes over" a up --wait=10 "$conf"
check "... works" n client ping -c 1 -W 3 198.51.100.7
check "down" a down wg0
check "... leaves the state as before" equal "$before" "$(state)"

# ---- bad input: a clear error, the right exit code, nothing changed

bad() {  # LABEL EXIT_CODE SED_EXPRESSION
  local code=0
  sed "$3" "$conf" >"$tmp/bad0.conf"
  chmod 600 "$tmp/bad0.conf"
  a up "$tmp/bad0.conf" >"$tmp/bad.out" 2>&1 || code=$?
  check "$1: exit code $2" equal "$2" "$code"
  check "... one sentence" bash -c '[[ $(grep "^adit:" "$1" | grep -vc "^adit: warning:") == 1 ]]' _ "$tmp/bad.out"
  check "... nothing changed" equal "$before" "$(state)"
}
bad "a key of the wrong length" 3 's/^PublicKey = ..../PublicKey = /'
check "... names file and line" grep -q 'bad0.conf:[0-9]' "$tmp/bad.out"
bad "an MTU below 576" 3 's/^DNS =/MTU = 500/'
bad "an MTU above 65535" 3 's/^DNS =/MTU = 70000/'
bad "an unknown key" 3 's/^DNS =/Colour = blue/'
bad "an address with a bad mask" 3 's/fd09::2.64/fd09::2\/200/'
bad "our own key as a peer" 3 "s|^PublicKey = .*|PublicKey = $(cat "$tmp/client.pub")|"
bad "a PreUp hook that fails" 1 's/^DNS =.*/PreUp = exit 3/'
bad "a PostUp hook that fails" 1 's/^PostUp = .*/PostUp = exit 3/'
# PostUp has run when --wait gives up: what it made is taken back by PreDown and PostDown.
: >"$tmp/hooks"
bad_peer=$(wg genkey | wg pubkey)
code=0
sed -e "s|^PublicKey = .*|PublicKey = $bad_peer|" -e "s|^DNS =.*|PostDown = echo after >>$tmp/hooks|" "$conf" >"$tmp/bad0.conf"
a up --wait=1 "$tmp/bad0.conf" >"$tmp/bad.out" 2>&1 || code=$?
check "no handshake within --wait: exit code 5" equal 5 "$code"
check "... the hooks of the way down ran too" equal "bad0 down after " "$(tr '\n' ' ' <"$tmp/hooks")"
check "... nothing changed" equal "$before" "$(state)"
n client ip link add bad0 type dummy 2>/dev/null || n client ip link add bad0 type veth peer name bad1
with_link=$(state)
sed "" "$conf" >"$tmp/bad0.conf"
check_fails "an interface name that exists" a up "$tmp/bad0.conf"
check "... nothing changed" equal "$with_link" "$(state)"
n client ip link delete bad0
check_fails "a file that does not exist" a up "$tmp/none.conf"
check_fails "a tunnel that is not up cannot go down" a down nothere
code=0
n client setpriv --bounding-set=-net_admin --inh-caps=-net_admin -- "$adit" up "$conf" >"$tmp/cap.out" 2>&1 || code=$?
check "without CAP_NET_ADMIN: exit code 4" equal 4 "$code"
check "... and the line says so" grep -q CAP_NET_ADMIN "$tmp/cap.out"
check "... nothing changed" equal "$before" "$(state)"

# SaveConfig: what the device and its link have when it goes down.
saved=$tmp/saved0.conf
cat >"$saved" <<CONF
# lost by wg-quick too
[Interface]
PrivateKey = $(cat "$tmp/client.key")
Address = 10.9.0.2/24
DNS = 10.9.0.1
MTU = 1400
SaveConfig = true
PostUp = echo %i up >>$tmp/hooks
[Peer]
PublicKey = $(cat "$tmp/server.pub")
AllowedIPs = 10.9.0.1/32
Endpoint = 203.0.113.10:51820
CONF
chmod 600 "$saved"
n client env ADIT_DNS=off "$adit" up "$saved"
n client ip address add 10.9.7.7/32 dev saved0
n client wg set saved0 peer "$bad_peer" allowed-ips 10.77.0.0/16 persistent-keepalive 25
a down saved0
for line in "Address = 10.9.0.2/24" "Address = 10.9.7.7/32" "DNS = 10.9.0.1" "MTU = 1400" "SaveConfig = true" \
  "PostUp = echo %i up >>$tmp/hooks" "PublicKey = $(cat "$tmp/server.pub")" "PublicKey = $bad_peer" \
  "AllowedIPs = 10.77.0.0/16" "PersistentKeepalive = 25" "Endpoint = 203.0.113.10:51820"; do
  check "SaveConfig saved \"${line:0:40}\"" grep -qxF "$line" "$saved"
done
check "... for its owner only" equal 600 "$(stat -c %a "$saved")"
check "... and it can be read again" a check "$saved"
sed -i 's/^SaveConfig.*//' "$saved"
before_save=$(cat "$saved")
n client env ADIT_DNS=off "$adit" up "$saved"
n client ip address add 10.9.7.8/32 dev saved0
a down saved0
check "without SaveConfig the file stays" equal "$before_save" "$(cat "$saved")"

# Without AVX-512: no cipher of ours that needs it, and libcrypto, whose choice is made before main(), sees none either.
plain=$tmp/plain0.conf
printf '[Interface]\nPrivateKey = %s\nAddress = 10.9.0.2/24\n' "$(cat "$tmp/client.key")" >"$plain"
chmod 600 "$plain"
cipher() { a status plain0 | sed -n 's/.*cipher: .* by //p'; }
process_of() { local p; for p in /proc/[0-9]*; do tr '\0' ' ' <"$p/cmdline" 2>/dev/null | grep -q "^$adit up $plain" && echo "${p#/proc/}"; done; }
has_mask() { tr '\0' '\n' <"/proc/$(process_of)/environ" | grep -q '^OPENSSL_ia32cap=:~0xd0230000$'; }
if grep -qw avx512_vbmi2 /proc/cpuinfo && grep -qw avx512ifma /proc/cpuinfo; then
  a up "$plain"
  check "on this CPU the cipher is the one across packets" equal lanes "$(cipher)"
  check_fails "... and libcrypto is left to itself" has_mask
  a down plain0
fi
n client env ADIT_AVX512=off "$adit" up "$plain"
check "ADIT_AVX512=off leaves OpenSSL's" equal openssl "$(cipher)"
check "... told of a CPU without AVX-512" has_mask
a down plain0
check "... and a cipher that needs it is refused" \
  exits_saying 2 "not available here; these are: openssl libsodium" n client env ADIT_AVX512=off ADIT_AEAD=ipsec-mb "$adit" up "$plain"
check "ADIT_AVX512 is on or off" exits_saying 2 "neither on nor off" n client env ADIT_AVX512=maybe "$adit" up "$plain"
stop server
