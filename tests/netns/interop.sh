#!/usr/bin/env bash
# Against wireguard-go: both roles, outer IPv4 and IPv6, with and without a preshared key. Then the transfer counters, a
# TCP stream each way, and both restarts.
#
#   [ours] 192.0.2.1, fd00:1::1 ---- veth ---- 192.0.2.2, fd00:1::2 [theirs]
#    wg0   10.9.0.1, fd09::1                    10.9.0.2, fd09::2    wg0
#
# timeout: 170
. "$(dirname "$0")/lib.sh"
require_tools wg wireguard-go iperf3 ping

host ours
host theirs
link ours theirs 192.0.2.1/24 192.0.2.2/24 fd00:1::1/64 fd00:1::2/64
make_keys ours theirs
wg genpsk >"$tmp/psk"
printf '\n' >"$tmp/empty"

# configure HOST PSK_FILE OUTER_PEER: the whole device, as `wg setconf` sends it; without an endpoint if OUTER_PEER is "".
configure() {
  local me=$1 psk=$2 outer=$3 other ip port
  case $me in
    ours) other=theirs ip=2 port=51821 ;;
    theirs) other=ours ip=1 port=51820 ;;
  esac
  {
    echo "[Interface]"
    echo "PrivateKey = $(cat "$tmp/$me.key")"
    echo "ListenPort = $([[ $me == ours ]] && echo 51820 || echo 51821)"
    echo "[Peer]"
    echo "PublicKey = $(cat "$tmp/$other.pub")"
    [[ $psk == none ]] || echo "PresharedKey = $(cat "$psk")"
    echo "AllowedIPs = 10.9.0.$ip/32, fd09::$ip/128"
    [[ -z $outer ]] || echo "Endpoint = $outer:$port"
  } >"$tmp/$me.conf"
  n "$me" wg setconf wg0 "$tmp/$me.conf"
}

up() {
  local number
  number=$([[ $1 == ours ]] && echo 1 || echo 2)
  n "$1" ip address add "10.9.0.$number/24" dev wg0
  n "$1" ip address add "fd09::$number/64" dev wg0
  n "$1" ip link set wg0 mtu 1420 up
}

start_pair() {
  start_device ours wg0
  start_device theirs wg0 "$(command -v wireguard-go)"
}

stop_pair() {
  stop ours-wg0
  stop theirs-wg0
}

for outer in 4 6; do
  for psk in none "$tmp/psk"; do
    for initiator in ours theirs; do
      start_pair
      address_ours=192.0.2.1 address_theirs=192.0.2.2
      ((outer == 4)) || address_ours="[fd00:1::1]" address_theirs="[fd00:1::2]"
      # Who does not initiate learns the other's endpoint from the handshake.
      if [[ $initiator == ours ]]; then
        configure ours "$psk" "$address_theirs"
        configure theirs "$psk" ""
        from=ours to4=10.9.0.2 to6=fd09::2
      else
        configure ours "$psk" ""
        configure theirs "$psk" "$address_ours"
        from=theirs to4=10.9.0.1 to6=fd09::1
      fi
      up ours
      up theirs
      label="$initiator initiate, outer IPv$outer, psk ${psk##*/}"
      check "$label: ping over IPv4 inside" n "$from" ping -c 3 -i 0.1 -W 3 "$to4"
      check "$label: ping over IPv6 inside" n "$from" ping -c 3 -i 0.1 -W 3 "$to6"
      check "$label: both know of the handshake" bash -c '[[ $1 != 0 && $2 != 0 ]]' _ \
        "$(n ours wg show wg0 latest-handshakes | cut -f2)" "$(n theirs wg show wg0 latest-handshakes | cut -f2)"
      stop_pair
    done
  done
done

# A wrong preshared key is silence, in either role.
start_pair
configure ours "$tmp/psk" 192.0.2.2
configure theirs none 192.0.2.1
up ours
up theirs
check_fails "a preshared key that only one side has lets nothing through" n ours ping -c 2 -i 0.2 -W 1 10.9.0.2
check "... and no handshake is shown" equal 0 "$(n ours wg show wg0 latest-handshakes | cut -f2)"

# The same devices, repaired without a restart: the new key counts from the next handshake.
configure theirs "$tmp/psk" 192.0.2.1
check "with the key on both sides it comes up" n ours ping -c 1 -W 8 10.9.0.2

# What `wg` counts: 10 pings of 56 bytes are 10 × (16 + 96 + 16) bytes each way, and the handshake 148 + 92.
stop_pair
start_pair
configure ours none 192.0.2.2
configure theirs none ""
n ours sysctl -qw net.ipv6.conf.all.disable_ipv6=1
n theirs sysctl -qw net.ipv6.conf.all.disable_ipv6=1
for side in ours theirs; do
  n "$side" ip address add "10.9.0.$([[ $side == ours ]] && echo 1 || echo 2)/24" dev wg0
  n "$side" ip link set wg0 mtu 1420 up
done
check "ten pings" n ours ping -c 10 -i 0.05 -W 2 10.9.0.2
read -r received sent < <(n ours wg show wg0 transfer | cut -f2,3)
check "transfer counters are those of the kernel's own test (1372 in, 1428 out)" equal "1372 1428" "$received $sent"
asserts 13 49 50 79 93 94

check "a TCP stream from us to them" bash -c '(( $1 > 20 ))' _ "$(transfer theirs ours 10.9.0.2 2)"
check "a TCP stream from them to us" bash -c '(( $1 > 20 ))' _ "$(transfer ours theirs 10.9.0.1 2)"
check "a UDP stream at 50 Mb/s" bash -c '(( $1 > 20 ))' _ "$(transfer theirs ours 10.9.0.2 1 -u -b 50M)"

# They restart and forget everything; we send: healed within 15 s and a little (F14).
stop theirs-wg0
start_device theirs wg0 "$(command -v wireguard-go)"
configure theirs none 192.0.2.1
n theirs ip address add 10.9.0.2/24 dev wg0
n theirs ip link set wg0 mtu 1420 up
check "they restart, they send: at once" n theirs ping -c 1 -W 3 10.9.0.1
stop ours-wg0
start_device ours wg0
configure ours none 192.0.2.2
n ours ip address add 10.9.0.1/24 dev wg0
n ours ip link set wg0 mtu 1420 up
check "we restart, we send: at once" n ours ping -c 1 -W 3 10.9.0.2
stop theirs-wg0
start_device theirs wg0 "$(command -v wireguard-go)"
configure theirs none ""
n theirs ip address add 10.9.0.2/24 dev wg0
n theirs ip link set wg0 mtu 1420 up
check "they restart, only we send: within 16 s" n ours timeout 16 bash -c 'until ping -c 1 -W 0.2 10.9.0.2; do :; done'
asserts 45
