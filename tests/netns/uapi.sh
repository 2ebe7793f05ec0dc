#!/usr/bin/env bash
# `wg` against the control socket of a real device: every command, the largest set in use, and what must change nothing.
#
#   [here] wg0, no network
#
# timeout: 120
# also with: asan
. "$(dirname "$0")/lib.sh"
require_tools wg nc

host here
make_keys ours one two three
start_device here wg0
w() { n here wg "$@"; }
show() { w showconf wg0; w show wg0 dump; }
# raw TEXT: to the socket; prints the answer. The text is not to end in a blank line by itself.
raw() { printf '%b' "$1" | n here timeout 3 nc -NU /run/wireguard/wg0.sock || true; }
hex() { base64 -d <"$1" | od -An -vtx1 | tr -d ' \n'; }
one=$(cat "$tmp/one.pub") two=$(cat "$tmp/two.pub")

w set wg0 private-key "$tmp/ours.key" listen-port 51820 fwmark 0x20
w set wg0 peer "$one" preshared-key <(wg genpsk) endpoint 192.0.2.1:1 persistent-keepalive 25 allowed-ips 10.0.1.0/24,fd01::/64
check "the device reads back" equal "51820 0x20 $(cat "$tmp/ours.pub")" \
  "$(w show wg0 listen-port) $(w show wg0 fwmark) $(w show wg0 public-key)"
check "the peer reads back" equal "$one 10.0.1.0/24 fd01::/64" "$(w show wg0 allowed-ips | tr '\t' ' ')"
check "keepalive and endpoint read back" equal "25 192.0.2.1:1" \
  "$(w show wg0 persistent-keepalive | cut -f2) $(w show wg0 endpoints | cut -f2)"
w set wg0 peer "$two" allowed-ips 10.0.1.0/24
check "an allowed IP moves to whom it is given last" equal "$one fd01::/64|$two 10.0.1.0/24|" \
  "$(w show wg0 allowed-ips | tr '\t\n' ' |')"
w set wg0 peer "$two" allowed-ips 10.77.1.2/8
check "host bits are masked" equal "$two 10.0.0.0/8" "$(w show wg0 allowed-ips | tail -1 | tr '\t' ' ')"
w showconf wg0 >"$tmp/full.conf"
w setconf wg0 "$tmp/full.conf"
check "showconf → setconf is the identity" equal "$(cat "$tmp/full.conf")" "$(w showconf wg0)"
printf '[Peer]\nPublicKey = %s\nAllowedIPs = 10.3.0.0/16\n' "$(cat "$tmp/three.pub")" >"$tmp/add.conf"
w addconf wg0 "$tmp/add.conf"
check "addconf adds" equal 3 "$(w show wg0 peers | wc -l)"
check "... in the order of creation" equal "$one $two $(cat "$tmp/three.pub") " "$(w show wg0 peers | tr '\n' ' ')"
w syncconf wg0 "$tmp/full.conf"
check "syncconf removes what is not in the file" equal 2 "$(w show wg0 peers | wc -l)"
w set wg0 peer "$two" remove
check "remove removes" equal "$one" "$(w show wg0 peers)"
w set wg0 private-key /dev/null
check "an empty private key removes it" equal "(none)" "$(w show wg0 private-key)"
w set wg0 private-key "$tmp/ours.key"

# Our own key as a peer is ignored without an error, as the reference does it; a key of low order is accepted and silent.
check "our own key as a peer: no error" w set wg0 peer "$(cat "$tmp/ours.pub")" allowed-ips 10.4.0.0/16
check "... and no peer" equal "$one" "$(w show wg0 peers)"
low=$(head -c 32 /dev/zero | base64)
check "a low-order key is accepted" w set wg0 peer "$low" allowed-ips 10.5.0.1/32
w set wg0 peer "$low" remove
asserts 16 99 100 102

# ---- what is refused changes nothing

refused() {
  local before after answer
  before=$(show)
  answer=$(raw "$2")
  after=$(show)
  check "$1: answered" bash -c '[[ -z $1 || $1 =~ errno=-?[1-9] ]]' _ "$answer"
  check "... and nothing changed" equal "$before" "$after"
}
k=$(hex "$tmp/two.pub")
refused "a line without '='" "set=1\npublic_key=$k\nnonsense\n\n"
refused "an unknown key" "set=1\npublic_key=$k\ncolour=blue\n\n"
refused "a key of the wrong length" "set=1\npublic_key=${k:2}\n\n"
refused "a bad value after good ones" "set=1\nlisten_port=51999\npublic_key=$k\nallowed_ip=10.6.0.0/16\nallowed_ip=10.7.0.0/99\n\n"
refused "replace_peers, and then an error" "set=1\nreplace_peers=true\npublic_key=$k\nendpoint=nowhere\n\n"
refused "a device key after a peer" "set=1\npublic_key=$k\nlisten_port=1\n\n"
refused "half a request and a hang-up" "set=1\nreplace_peers=true\npublic_key=$k\nallowed_ip=10.6.0.0/16\n"
refused "an operation nobody knows" "frob=1\n\n"
refused "a line of a megabyte" "set=1\nprivate_key=$(head -c 1048576 /dev/zero | tr '\0' a)\n\n"
check "the device still answers" w show wg0
check "several operations on one connection" equal 2 "$(raw "get=1\n\nget=1\n\n" | grep -c '^errno=0$')"
check "an answer to get has a positive or zero errno, to set a negative or zero one" equal "errno=0 errno=-22" \
  "$(raw "get=1\n\n" | grep errno) $(raw "set=1\nfoo=bar\n\n" | grep errno)"

# A busy port: refused, and the old one stays bound.
spawn squatter here nc -u -l -k 127.0.0.1 52000
wait_for 5 n here bash -c 'grep -q :CB20 /proc/net/udp'
check_fails "a busy port is refused" w set wg0 listen-port 52000
check "... and the device keeps its own" equal 51820 "$(w show wg0 listen-port)"
check "... bound" n here bash -c 'grep -q :CA6C /proc/net/udp'
asserts 97 98 103

# A reload without ListenPort keeps the port that we chose.
n here ip link set wg0 up
w set wg0 listen-port 0
port=$(w show wg0 listen-port)
grep -v ListenPort "$tmp/full.conf" >"$tmp/noport.conf"
w syncconf wg0 "$tmp/noport.conf"
check "a reload without ListenPort keeps the random port" equal "$port" "$(w show wg0 listen-port)"

# ---- size: 255 × 256 allowed IPs of each family in one set, then 29 peers without any

{
  echo "[Interface]"
  echo "PrivateKey = $(cat "$tmp/ours.key")"
  echo "[Peer]"
  echo "PublicKey = $one"
  for a in {1..255}; do
    printf 'AllowedIPs = '
    printf "10.$a.%d.0/24, " {0..255} | sed 's/, $//'
    printf '\nAllowedIPs = '
    printf "fd00:$a:%x::/48, " {0..255} | sed 's/, $//'
    echo
  done
} >"$tmp/huge.conf"
start=${EPOCHREALTIME//[.,]/}
check "130,560 allowed IPs in one setconf" w setconf wg0 "$tmp/huge.conf"
took=$(((${EPOCHREALTIME//[.,]/} - start) / 1000))
echo "   $took ms, wg's own part included"
check "... all of them read back" equal 130560 "$(w show wg0 allowed-ips | cut -f2- | tr ' ' '\n' | wc -l)"
{
  echo "[Interface]"
  for i in {1..29}; do printf '[Peer]\nPublicKey = %s\n' "$(wg genkey | wg pubkey)"; done
} >"$tmp/peers.conf"
check "29 peers without allowed IPs" w setconf wg0 "$tmp/peers.conf"
check "... are there" equal 29 "$(w show wg0 peers | wc -l)"
asserts 101
