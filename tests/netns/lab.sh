# The topology, the leak oracle and the state comparison of the failure scenarios. Sourced after lib.sh; not a test itself.
#
#   [c] eth0 192.168.1.2, fd00:1::2 ---lan_c--+
#   [l] eth0 192.168.1.77, fd00:1::77 --lan_l-+-- br0 [r] wan ---------- eth0 [s] 203.0.113.10, 2001:db8:f::10: adit, port 51820
#   [e] eth0 192.168.1.66, fd00:1::66 --lan_e-+   192.168.1.1    203.0.113.1,     lo: 8.8.8.8, 9.9.9.9, 2001:db8::1: "the internet"
#   [k] eth0 172.17.0.2 -- docker0 [c]            fd00:1::1      2001:db8:f::1    wgs: 10.9.0.1, fd09::1
#
# c is the client, with an ordinary LAN and a default route by r for both families; without a tunnel everything of s is
# reachable from it, so that a leak is a packet that arrives. l is a host of the LAN, e a second router on it, which forwards
# to r. k is a container behind a bridge of c, which forwards and masquerades for it as Docker does. Every host answers on
# port 7 with the address that it sees the asker come from: 10.9.0.2 through the tunnel, 192.168.1.2 beside it.
#
# The oracle is a capture of what c sends on the LAN (r's port to it, incoming). Only the tunnel's UDP to s, ARP, neighbour
# discovery, DHCP and the LAN itself are approved; all else is a leak.
#
#   lab_up                       builds it; lab_container adds k
#   client_conf [LINE…]          writes $conf (wg0.conf); LINEs go into [Interface]; $allowed, $addresses and $endpoint are used
#   adit_up [ARGS…], adit_down   of $conf in c
#   scenario 6 "LAN kept"        begins one
#   check …; control "SENTENCE" COMMAND…     as check, but for the run with the protection switched off
#   passes ["replayed: firewalld's rules"]   ends it. Without a control since `scenario` it is an error: a test that
#                                            cannot fail shows nothing.
#
# Controls work by a foreign rule or packet filter in front of ours, never by removing what is ours: that would be repaired.
#
# The scenarios, and the script that asserts each; "-" is not done. tests/run.sh counts what really passed.
#
#   01  endpoint inside the allowed IPs            loops.sh, modes.sh
#   02  default route lost                         loops.sh, modes.sh  replayed: a kernel without rules
#   03  mark stripped                              loops.sh (firewall, and the engine's guard without nftables)
#   04  endpoint on the LAN                        loops.sh
#   05  no leak while coming up                    firewall.sh
#   06  LAN kept                                   lan.sh
#   07  new link after up                          lan.sh
#   08  LAN overlaps the allowed IPs               lan.sh
#   09  container behind a full tunnel             lan.sh             replayed: Docker's bridge and masquerade
#   10  container kill switch                      firewall.sh        replayed: Docker's bridge and masquerade
#   11  Docker's pools: main unchanged             lan.sh
#   12  Docker's raw drop named by doctor          doctor.sh          replayed: Docker's rules
#   13  foreign chains survive                     neighbours.sh      replayed: netavark's, Tailscale's chains
#   14  tunnel without IPv6                        ipv6.sh
#   15  machine without IPv6                       ipv6.sh
#   16  MTU below 1280 with IPv6                   ipv6.sh
#   17  router advertisement after up              pushed_routes.sh
#   18  accept_ra with forwarding                  ipv6.sh
#   19  rp_filter=1                                marks.sh
#   20  read-only /proc/sys                        marks.sh
#   21  firewalld's IPv6_rpfilter                  marks.sh           replayed: firewalld's rule
#   22  foreign marks intact                       marks.sh
#   23  kube-proxy's bits                          marks.sh
#   24  networkd deletes rules                     healing.sh          replayed: networkd's deletion
#   25  routes flushed                             healing.sh
#   26  a fight over a rule                        healing.sh
#   27  nft flush ruleset                          firewall.sh, modes.sh (a table that cannot be owned)
#   28  two VPNs, both orders                      neighbours.sh      replayed: Tailscale's, wg-quick's rules; a wg-quick started later wins
#   29  two of ours                                neighbours.sh
#   30  NetworkManager disconnects the device      healing.sh          replayed: NetworkManager's disconnecting
#   31  kill -9 at every operation                 src/routing/*_test.cc, faults.sh (up, reload, down, with kill switch and DNS; cleanup, next start)
#   32  error at every operation                   src/routing/*_test.cc, faults.sh (EPERM, EBUSY, EEXIST, each at each)
#   33  sysctl changed by others                   healing.sh
#   34  crash leaves the IPv6 guard                refusals.sh
#   35  interface name taken                       refusals.sh
#   36  10,000 foreign changes                     src/routing/foreign_change_test.cc
#   37  address change during a transfer           roam.sh
#   38  Wi-Fi to Ethernet                          roam.sh
#   39  suspend                                    suspend.sh
#   40  DHCP renewal under the kill switch         firewall.sh
#   41  uplink back with another gateway           outage.sh
#   42  endpoint's name changes address            endpoints.sh
#   43  A and AAAA, IPv6 broken                    endpoints.sh
#   44  TunnelVision                               pushed_routes.sh   replayed: DHCP option 121
#   45  TunnelCrack LocalNet                       pushed_routes.sh
#   46  TunnelVision on private ranges             firewall.sh
#   47  TunnelCrack ServerIP                       pushed_routes.sh
#   48  CVE-2019-14899                             firewall.sh
#   49  SO_BINDTODEVICE                            firewall.sh
#   50  flow opened before up                      firewall.sh
#   51  LAN resolver closed                        dns_guard.sh
#   52  resolved restarts                          dns.sh             stand-in for systemd-resolved on a private bus
#   53  resolv.conf trampled                       dns.sh
#   54  crash with resolv.conf written; stale backup dns.sh
#   55  MTU black hole                             blackhole.sh
#   56  roaming to a smaller MTU                   roam.sh
#   57  missing rights, missing tools              refusals.sh
#   58  20,000 allowed IPs                         healing.sh
#   59  old kernel                                 modes.sh
#   60  captive portal                             portal.sh
#   61  DNS step fails                             dns.sh
#   62  tentative addresses during DAD             ipv6.sh
#   63  two kill switches, and a foreign one       firewall.sh

kTunnelPort=51820
lab=$(dirname "$adit")/adit_lab
[[ -x $lab ]] || skip "needs $lab: ./dev build"
require_tools wg tcpdump nft

conf=$tmp/wg0.conf

# in_host HOST COMMAND…: like n, without a /run/wireguard of its own; faster.
in_host() {
  local where=$1
  shift
  ip netns exec "$(ns "$where")" "$@"
}
# ipb HOST: `ip` commands from stdin, one a line.
ipb() { ip -n "$(ns "$1")" -batch -; }

# set_sysctl HOST KEY=VALUE…
set_sysctl() {
  local where=$1
  shift
  in_host "$where" sysctl -qw "$@"
}

lab_up() {
  local name
  for name in c r s l e; do host "$name"; done
  ipb r <<IP
link add br0 type bridge forward_delay 0 mcast_snooping 0
link add lan_c type veth peer name eth0 netns $(ns c)
link add lan_l type veth peer name eth0 netns $(ns l)
link add lan_e type veth peer name eth0 netns $(ns e)
link add wan type veth peer name eth0 netns $(ns s)
link set lan_c master br0 up
link set lan_l master br0 up
link set lan_e master br0 up
address add 192.168.1.1/24 dev br0
address add fd00:1::1/64 dev br0
link set br0 up
address add 203.0.113.1/24 dev wan
address add 2001:db8:f::1/64 dev wan
link set wan up
IP
  lan_host c 192.168.1.2/24 fd00:1::2/64
  lan_host l 192.168.1.77/24 fd00:1::77/64
  lan_host e 192.168.1.66/24 fd00:1::66/64
  ipb s <<IP
address add 203.0.113.10/24 dev eth0
address add 2001:db8:f::10/64 dev eth0
link set eth0 up
route add default via 203.0.113.1
route add default via 2001:db8:f::1
address add 8.8.8.8/32 dev lo
address add 9.9.9.9/32 dev lo
address add 2001:db8::1/128 dev lo
IP
  ipb r <<IP
route add default via 203.0.113.10
route add default via 2001:db8:f::10
IP
  set_sysctl r net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 \
    net.ipv4.conf.br0.send_redirects=0
  set_sysctl e net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.all.send_redirects=0 \
    net.ipv4.conf.eth0.send_redirects=0
  # A resolver, so that what DNS does to the file shows.
  echo "nameserver 192.168.1.1" >/etc/resolv.conf
  for name in c r l e s; do service "$name"; done
  make_keys client second server
  start_server
}

# lan_host HOST ADDRESS4 ADDRESS6: on the LAN, with a default route by r.
lan_host() {
  ipb "$1" <<IP
address add $2 dev eth0
address add $3 dev eth0
link set eth0 up
route add default via 192.168.1.1
route add default via fd00:1::1
IP
}

# service HOST [PORT]: the host answers there (default 7).
service() {
  spawn "service-$1-${2:-7}" "$1" "$lab" serve "${2:-7}"
  wait_for 5 grep -q ready "$tmp/service-$1-${2:-7}.log"
}

# start_server [HOST] [LISTEN_ADDRESS_NOTE]: our own engine as the other side, called wgs.
start_server() {
  mkdir -p "$tmp/server"
  cat >"$tmp/server/wgs.conf" <<CONF
[Interface]
PrivateKey = $(cat "$tmp/server.key")
ListenPort = $kTunnelPort
Address = 10.9.0.1/24, fd09::1/64
[Peer]
PublicKey = $(cat "$tmp/client.pub")
AllowedIPs = 10.9.0.2/32, fd09::2/128
[Peer]
PublicKey = $(cat "$tmp/second.pub")
AllowedIPs = 10.9.0.3/32, fd09::3/128
CONF
  chmod 600 "$tmp/server/wgs.conf"
  spawn server "${1:-s}" "$adit" run "$tmp/server/wgs.conf"
  wait_for 10 bash -c '[[ $(ip netns exec "$1" wg show wgs listen-port 2>/dev/null) == "$2" ]]' _ "$(ns "${1:-s}")" "$kTunnelPort" ||
    wait_for 10 n "${1:-s}" ip address show dev wgs to 10.9.0.1
}

# lab_container: k behind docker0 of c, which forwards and masquerades as Docker does.
lab_container() {
  host k
  ipb c <<IP
link add docker0 type bridge forward_delay 0 mcast_snooping 0
link add veth_k type veth peer name eth0 netns $(ns k)
link set veth_k master docker0 up
address add 172.17.0.1/16 dev docker0
link set docker0 up
IP
  ipb k <<IP
address add 172.17.0.2/16 dev eth0
link set eth0 up
route add default via 172.17.0.1
IP
  set_sysctl c net.ipv4.ip_forward=1
  in_host c nft -f - <<'NFT'
table ip docker_replay {
  chain postrouting {
    type nat hook postrouting priority 100; policy accept;
    ip saddr 172.17.0.0/16 oifname != "docker0" masquerade
  }
}
NFT
  service k
}

# ---- the client -----------------------------------------------------------------------------------------------------

allowed="0.0.0.0/0, ::/0"
addresses="10.9.0.2/24, fd09::2/64"
endpoint="203.0.113.10:$kTunnelPort"

# client_conf [LINE…]: $conf from $allowed, $addresses, $endpoint; the LINEs go into [Interface].
client_conf() {
  {
    echo "[Interface]"
    echo "PrivateKey = $(cat "$tmp/client.key")"
    echo "Address = $addresses"
    ((!$#)) || printf '%s\n' "$@"
    echo "[Peer]"
    echo "PublicKey = $(cat "$tmp/server.pub")"
    echo "AllowedIPs = $allowed"
    echo "Endpoint = $endpoint"
  } >"$conf"
  chmod 600 "$conf"
}

# second_conf [LINE…]: $conf2, another full tunnel (wg1, 10.9.0.3) to the same server.
conf2=$tmp/wg1.conf
second_conf() {
  local kept_conf=$conf kept_addresses=$addresses
  conf=$conf2
  addresses="10.9.0.3/24, fd09::3/64"
  client_conf "$@"
  sed -i "s|^PrivateKey = .*|PrivateKey = $(cat "$tmp/second.key")|" "$conf2"
  conf=$kept_conf
  addresses=$kept_addresses
}

a() { n c "$adit" "$@"; }
adit_up() { a up --wait=10 "$@" "$conf"; }
adit_down() { a down wg0; }
# The daemon's process, as its lock file says.
adit_pid() { cat /run/adit/wg0.lock; }
adit_kill() {
  kill -KILL "$(adit_pid)" && wait_for 3 adit_is_dead
}
# Its threads die one by one, and the last one's end lets go of the lock.
adit_is_dead() {
  local pid
  pid=$(adit_pid 2>/dev/null) || return 0
  is_gone "$pid" && flock -n /run/adit/wg0.lock true
}

# ask HOST udp|tcp ADDRESS [OPTIONS…]: who the other side says that we are: "answer 10.9.0.2 MICROSECONDS".
ask() { in_host "$1" "$lab" ask "$2" "$3" 7 "${@:4}"; }
# sees HOST udp|tcp ADDRESS SOURCE: the other side answers, and sees us as SOURCE.
sees() {
  local answer
  answer=$(ask "$1" "$2" "$3" "${@:5}") || { echo "$answer"; return 1; }
  [[ $answer == "answer $4 "* ]] || { echo "$answer"; return 1; }
}
# gets HOST udp|tcp ADDRESS WORD: "silence" or the name of the error that comes back.
gets() {
  local answer
  answer=$(ask "$1" "$2" "$3" "${@:5}") || true
  [[ $answer == "$4 "* || $answer == "error $4 "* ]] || { echo "$answer"; return 1; }
}
# took ANSWER_LINE: how many microseconds.
took() { echo "${1##* }"; }

# rules HOST FAMILY WORDS: the priorities of our rules that contain WORDS.
rule_priorities() { in_host "$1" ip "$2" rule | awk -v words="$3" 'index($0, words) { sub(":", "", $1); print $1 }'; }

# ---- the oracle -----------------------------------------------------------------------------------------------------

# What c may send on the LAN. $approved_too is one more alternative, for a scenario that approves more.
approved_too=""
approved() {
  echo "(udp and dst port $kTunnelPort and (dst host 203.0.113.10 or dst host 2001:db8:f::10))" \
    "or arp or (icmp6 and ip6[40] >= 133 and ip6[40] <= 137)" \
    "or (ip6 dst net ff02::/16) or (igmp)" \
    "or (udp and (port 67 or port 68 or port 546 or port 547))" \
    "or (src net 192.168.1.0/24 and dst net 192.168.1.0/24) or (src net fd00:1::/64 and dst net fd00:1::/64)" \
    "or (ip6 src net fe80::/10 and (dst net fe80::/10 or dst net fd00:1::/64))" \
    "or (icmp and icmp[icmptype] = icmp-unreach and dst host 203.0.113.10)" \
    "${approved_too:+or ($approved_too)}"
}

# oracle_start [HOST DEVICE in|out]: begins to capture what HOST's DEVICE receives or sends (default: r lan_c in, which is what c
# sends). What c's kernel puts into the tunnel is: c wg0 out.
oracle_start() {
  oracle_host=${1:-r}
  oracle_device=${2:-lan_c}
  pcap=$tmp/oracle.pcap
  rm -f "$pcap" "$tmp/oracle.log"
  spawn oracle "$oracle_host" tcpdump -Z root -n -Q "${3:-in}" -i "$oracle_device" --immediate-mode -U -B 16384 -w "$pcap"
  wait_for 5 grep -q listening "$tmp/oracle.log"
}

# oracle_stop: all that was sent until now is in $pcap afterwards; a packet of the LAN that comes last proves it.
oracle_stop() {
  local token=canary-$RANDOM$RANDOM
  if [[ $oracle_host == r && $oracle_device == lan_c ]]; then
    wait_for 2 canary_seen "$token" || { echo "the oracle does not see the canary"; return 1; }
  else
    sleep 0.2
  fi
  stop oracle INT
  grep -q '^0 packets dropped by kernel' "$tmp/oracle.log" || { echo "the oracle lost packets"; cat "$tmp/oracle.log"; return 1; }
}
# A broadcast frame of c that no firewall of c's sees: from a packet socket.
canary_seen() {
  in_host c "$lab" frame eth0 "$1"
  sleep 0.02
  grep -aq "$1" "$pcap"
}

# captured FILTER: how many of the captured packets it matches. packets FILTER: their lines.
packets() { tcpdump -Z root -n -r "$pcap" "$1" 2>/dev/null; }
captured() { packets "$1" | wc -l; }
# at_least N FILTER, no_more_than N FILTER: for use with check.
at_least() {
  local count
  count=$(captured "$2")
  ((count >= $1)) || { echo "$count packets, not $1 or more: $2"; return 1; }
}
no_more_than() {
  local count
  count=$(captured "$2")
  ((count <= $1)) || { echo "$count packets, more than $1: $2"; packets "$2" | head -n 5; return 1; }
}

# clean: nothing but what is approved was captured. leaks [FILTER]: something else was (that FILTER matches).
clean() {
  local found
  found=$(packets "not ($(approved)) and not ether proto 0x88b5")
  [[ -z $found ]] || { echo "leaked:"; head -n 10 <<<"$found"; return 1; }
}
leaks() {
  local found
  found=$(packets "not ($(approved)) and not ether proto 0x88b5${1:+ and ($1)}")
  [[ -n $found ]] || { echo "nothing leaked"; return 1; }
}

# ---- the state of a host --------------------------------------------------------------------------------------------

# state HOST: rules, routes, links, addresses, firewall, sysctls, files: what a tunnel must leave as it was. Without counters
# and what merely ages.
state() {
  in_host "$1" bash -c '
    for family in -4 -6; do
      echo "[rules $family]"; ip "$family" -details rule
      echo "[routes $family]"; ip "$family" -details route show table all | sed -E "s/ expires [0-9]+sec//; s/ hoplimit 64//"
      echo "[addresses $family]"; ip "$family" -o address | sed -E "s/valid_lft [0-9]+sec//; s/preferred_lft [0-9]+sec//"
    done
    echo "[links]"; ip -br link | sed -E "s/ +$//"
    echo "[nft]"; nft -s list ruleset
    echo "[sysctls]"
    cd /proc/sys/net && grep -H "" ipv4/ip_forward ipv4/conf/*/{rp_filter,src_valid_mark,forwarding,accept_redirects,send_redirects,arp_ignore} \
      ipv6/conf/*/{disable_ipv6,forwarding,accept_ra,accept_redirects} 2>/dev/null'
  echo "[files]"
  cat /etc/resolv.conf
  ls /run/adit /run/hosts/"$1" /etc/iproute2/rt_tables.d 2>/dev/null | grep -vE 'wgs|^$' || true
}
# snapshot HOST: remembers. unchanged HOST: nothing differs from what was remembered.
snapshot() { state "$1" >"$tmp/state-$1"; }
unchanged() { state "$1" | diff "$tmp/state-$1" -; }

# ---- scenarios ------------------------------------------------------------------------------------------------------

scenario() {
  scenario_number=$1
  scenario_sentence=$2
  has_control=
  printf -- '---- scenario %02d: %s\n' "$1" "$2"
}
control() {
  has_control=1
  check "control: $1" "${@:2}"
}
passes() {
  [[ $has_control ]] || { echo "NOT OK: scenario $scenario_number has no control"; exit 1; }
  printf 'scenario %02d pass: %s%s\n' "$scenario_number" "$scenario_sentence" "${1:+ ($1)}"
}

# What carries the tunnel to s, as a capture filter.
outer="udp and dst port $kTunnelPort and dst host 203.0.113.10"
# A ping of 56 bytes is 128 on the wire below UDP. On a busy machine several leave as one super-packet, which the capture shows
# as one: hence by length.
outer_pings() { packets "$outer" | awk '/UDP, length/ { bytes += $NF } END { print int(bytes / 128) }'; }
outer_pings_between() {
  local count
  count=$(outer_pings)
  ((count >= $1 && count <= $2)) || { echo "$count outer packets, not $1 to $2"; return 1; }
}
ping_c() { in_host c ping -q -W 2 "$@"; }
