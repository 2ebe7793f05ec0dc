#!/usr/bin/env bash
# What an installation puts where, and that the boot unit does what it is there for: the very command line of the unit closes
# the kill switch of a tunnel that is not up.
#
#   [near] 192.0.2.1 ---- veth ---- 192.0.2.2 [far]
#
# timeout: 60
. "$(dirname "$0")/lib.sh"
require_tools cmake ping

built=$(dirname "$adit")
[[ -f $built/cmake_install.cmake ]] || skip "needs the build tree of the program"
prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$built/CMakeCache.txt")

host near
host far
link near far 192.0.2.1/24 192.0.2.2/24
make_keys near far

mkdir -p "$prefix"
mount -t tmpfs -o mode=755 tmpfs "$prefix"  # this script's alone
check "it installs" cmake --install "$built" --component adit
check "... the program, the unit and the documents" equal \
  "bin/adit lib/systemd/system/adit-killswitch@.service share/doc/adit/CHANGELOG.md share/doc/adit/LICENSE share/doc/adit/README.md" \
  "$(cd "$prefix" && find . -type f | sed 's|^./||' | sort | tr '\n' ' ' | sed 's/ $//')"
check "... the program runs there" "$prefix/bin/adit" --version

unit=$prefix/lib/systemd/system/adit-killswitch@.service
if command -v systemd-analyze >/dev/null; then
  systemd-analyze verify "$prefix/lib/systemd/system/adit-killswitch@wg0.service" >"$tmp/verify" 2>&1 || true
  check_fails "systemd has nothing to say about the unit" grep -e adit "$tmp/verify"
fi

mkdir -p /etc/wireguard
cat >/etc/wireguard/wg0.conf <<CONF
[Interface]
PrivateKey = $(cat "$tmp/near.key")
Address = 10.9.0.1/24
KillSwitch = always
LAN = block
[Peer]
PublicKey = $(cat "$tmp/far.pub")
AllowedIPs = 0.0.0.0/0, ::/0
Endpoint = 192.0.2.2:51820
CONF
chmod 600 /etc/wireguard/wg0.conf
read -r -a start < <(sed -n 's/^ExecStart=//p' "$unit" | sed 's/%i/wg0/')
check "the unit names the program that was installed" equal "$prefix/bin/adit" "${start[0]}"
check "before it the neighbour answers" n near ping -c 1 -W 2 192.0.2.2
check "the unit's command closes the kill switch" n near "${start[@]}"
check_fails "... nothing leaves any more" n near ping -c 1 -W 1 192.0.2.2
check "... a second time, too" n near "${start[@]}"
check "and it opens again" n near "$prefix/bin/adit" killswitch off wg0
check "... the neighbour answers" n near ping -c 1 -W 2 192.0.2.2
