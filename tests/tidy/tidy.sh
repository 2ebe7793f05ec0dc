#!/usr/bin/env bash
# What the compiler does not see: layers, calls that a pure folder may not make, and things left lying about. Prints
# FILE:LINE: RULE: what is wrong, one line each, and fails if there is one. Usage: tidy.sh [ROOT].
#
# The tables come first; they are the place where an exception gets its name. self_check.sh shows that every rule can fail.
set -euo pipefail
cd "${1:-$(dirname "$(readlink -f "$0")")/../..}"

# ---- tables ---------------------------------------------------------------------------------------------------------

# What a folder may include besides itself.
declare -A layer=(
  [base]=""
  [crypto]="base"
  [config]="base crypto"
  [tunnel]="base crypto"
  [tun]="base"
  [udp]="base"
  [routing]="base config crypto"
  [dns]="base config"
  [engine]="base crypto config tunnel tun udp"
  [control]="base config crypto"
  [cli]="base crypto config tunnel tun udp routing dns engine control"
)

# In these folders only doors make system calls or read clocks. engine, control and cli are I/O throughout.
kPureFolders='src/(base|crypto|config|tunnel|tun|udp|routing|dns)/'
kDoors='src/(base/fd\.h|tun/device\.(cc|h)|udp/socket\.(cc|h)|routing/(netlink|nft_socket|old_flows|network_events|netns|links|journal|sysctl|table_names|take_snapshot)\.cc|dns/(resolv_file|resolvconf|resolved|resolver)\.(cc|h))'
# State that data threads share with the control thread. Nothing else below the engine knows of threads.
kShared='src/(tunnel/(drop|exchange|handshake_queue|icmp|index_table|keypair|peer|published)\.(h|cc)|tun/device\.(h|cc)|udp/socket\.(h|cc)|routing/(netns\.cc|uplink_choice\.(h|cc)))'
kPerThread='src/crypto/primitives\.cc'  # OpenSSL contexts, one per thread and never shared
kRandomSources='src/(base/random\.h|crypto/primitives\.cc)'
# Tests open descriptors and start threads to test those who do; their helpers are called test_X.h or X_fixture.h.
kTests='(_test\.cc|/(test_[a-z_]*|[a-z_]*_fixture)\.(h|cc))'

kMaxLines=1000
kMaxTestLines=1500  # a list of cases, which is looked up rather than read

# ---- machinery ------------------------------------------------------------------------------------------------------

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/findings"

finding() { printf '%s: %s: %s\n' "$1" "$2" "$3" >>"$work/findings"; }

all_files() { find . \( -name build -o -name .git -o -name .cache -o -path ./tests/fuzz/corpus -o -path ./tests/vectors \) -prune -o -type f -print | cut -c3- | sort; }
all_files >"$work/files"
grep -E '^(src|tests|bench)/.*\.(cc|h)$' "$work/files" >"$work/sources" || true
grep -E '(^dev$|^\.ci/run$|\.sh$)' "$work/files" >"$work/scripts" || true
# tests/tidy quotes what it looks for.
grep -vE '^tests/tidy/' "$work/files" | grep -vE '\.(bin|pcap|png)$' >"$work/texts" || true

# The sources without comments and without what stands in quotes, one file of FILE:LINE:CODE lines.
xargs -r -d '\n' awk '
  FNR == 1 { inside = 0 }
  {
    line = $0
    if (line !~ /^[ \t]*#[ \t]*include/) {
      gsub(/\x27(\\.|[^\x27\\])\x27/, "0", line)
      gsub(/"(\\.|[^"\\])*"/, "\"\"", line)
    }
    if (inside) { if (line ~ /\*\//) { sub(/^.*\*\//, "", line); inside = 0 } else line = "" }
    sub(/\/\/.*/, "", line)
    gsub(/\/\*[^*]*\*\//, "", line)
    if (line ~ /\/\*/) { sub(/\/\*.*/, "", line); inside = 1 }
    if (line ~ /[^ \t]/) print FILENAME ":" FNR ": " line
  }' <"$work/sources" >"$work/code"

# forbid RULE WHAT_IS_WRONG PATH_PATTERN CODE_PATTERN [EXEMPT_PATH_PATTERN]…
forbid() {
  local rule=$1 what=$2 paths=$3 pattern=$4 exempt place
  shift 4
  exempt=$(IFS='|' && echo "$*")
  { grep -E "^$paths[^:]*:[0-9]+:.*($pattern)" "$work/code" || true; } |
    { if [[ $exempt ]]; then grep -vE "^[^:]*($exempt)[^:]*:" || true; else cat; fi; } |
    while IFS= read -r place; do finding "$(cut -d: -f1,2 <<<"$place")" "$rule" "$what"; done
}

# A call of a free function, not of a member or of somebody's namespace.
free_call() { echo "([^A-Za-z0-9_.>:]|[^A-Za-z0-9_]::)($1)\("; }

# ---- rules: code ----------------------------------------------------------------------------------------------------

layers() {
  local folder allowed
  while IFS=: read -r file line folder included; do
    allowed=" $folder ${layer[$folder]-} "
    [[ -v layer[$folder] ]] || allowed=" $folder "
    [[ $allowed == *" $included "* ]] ||
      finding "$file:$line" layer "src/$folder may not include $included (it may: ${layer[$folder]:-nothing of ours})"
  done < <(sed -nE 's|^(src/([a-z_]+)/[^:]*:[0-9]+):[ \t]*#[ \t]*include "([a-z_]+)/.*|\1:\2:\3|p' "$work/code")
}

pure_folders() {
  forbid clock "a clock is read; take \`now\` as an argument" "$kPureFolders" \
    "_clock::now|$(free_call 'clock_gettime|gettimeofday')|$(free_call time)(nullptr|NULL|0|&)" "$kDoors" "$kTests"
  forbid random "randomness out of nowhere; take Random& as an argument" "src/" \
    "$(free_call 'getrandom|rand|srand|random|arc4random')|random_device|mt19937|randombytes_" "$kRandomSources" "$kTests"
  forbid thread "threads and locks belong to the engine (or add the file to kShared and say why)" \
    "$kPureFolders" 'std::(j?thread|(shared_|recursive_|timed_)*mutex|condition_variable|atomic|async|once_flag|call_once|counting_semaphore|latch|barrier)|pthread_|thread_local' \
    "$kShared" "$kPerThread" "$kTests"
  forbid syscall "a system call outside a door" "$kPureFolders" \
    "$(free_call 'socket|ioctl|open(at)?|read|write|readv|writev|pread|pwrite|close|send(msg|mmsg|to)?|recv(msg|mmsg|from)?|bind|connect|listen|accept4?|[gs]etsockopt|mmap|munmap|epoll_[a-z0-9]+|poll|fork|execv[a-z]*|posix_spawn|system|popen|unlink|rename|mkdir|getenv|setenv|getaddrinfo|if_nametoindex|if_indextoname|fopen|usleep|nanosleep|setns|unshare|getpid')|std::(if|of|f)stream|std::filesystem|sleep_for|sleep_until" \
    "$kDoors" "$kTests"
}

# The order of an unordered container differs from run to run, and with it what a pure function does.
unordered() {
  local folder names
  for folder in base crypto config tunnel tun udp; do
    names=$(sed -nE "s/^src\/$folder\/[^:]*:[0-9]+:.*unordered_(multi)?(map|set)<.*> +([A-Za-z_0-9]+).*/\3/p" "$work/code" | sort -u | paste -sd '|')
    [[ -z $names ]] ||
      forbid unordered "walks an unordered container; its order is not reproducible" "src/$folder/" \
        "for \(.*:.*\b($names)\)|\b($names)\.c?begin\(" "$kTests"
  done
}

headers() {
  local file
  while IFS= read -r file; do
    [[ $file != *.h ]] || grep -q '^#pragma once$' "$file" || finding "$file:1" pragma "no #pragma once"
  done <"$work/sources"
}

# A test must be able to fail: it, or a helper it calls, expects something. Helpers are looked for in the test files of
# the same folder.
assertions() {
  local folder
  while IFS= read -r folder; do
    grep -E "^$folder/[^/:]*($kTests):" "$work/code" | awk '
      { path = $0; sub(/:.*/, "", path); number = $0; sub(/^[^:]*:/, "", number); sub(/:.*/, "", number)
        code = $0; sub(/^[^:]*:[0-9]+: /, "", code) }
      code ~ /^(TYPED_)?TEST(_F|_P)?\(/ { count++; where[count] = path ":" number; test[count] = 1; body[count] = ""; name[count] = "" }
      code !~ /^(TYPED_)?TEST/ && code ~ /[A-Za-z_0-9]+\([^;]*$|auto [A-Za-z_0-9]+ = \[/ && code !~ /^ *(if|for|while|switch|return|EXPECT|ASSERT|else)/ && code ~ /[{(,]$/ {
        helper = code
        if (helper ~ /auto [A-Za-z_0-9]+ = \[/) { sub(/.*auto /, "", helper); sub(/ .*/, "", helper) }
        else { sub(/\(.*/, "", helper); sub(/.*[^A-Za-z_0-9]/, "", helper) }
        candidate = helper
      }
      code ~ /EXPECT_|ASSERT_|ADD_FAILURE|FAIL\(/ && candidate != "" { asserting[candidate] = 1 }
      count { body[count] = body[count] " " code }
      END {
        # Helpers of helpers: a few rounds are enough for anything that a person can read.
        for (i = 1; i <= count; i++) {
          good = body[i] ~ /EXPECT_|ASSERT_|ADD_FAILURE|FAIL\(/
          for (h in asserting) if (!good && index(body[i], h)) good = 1
          if (!good) print where[i]
        }
      }'
  done < <(grep -E "_test\.cc$" "$work/sources" | sed 's|/[^/]*$||' | sort -u) |
    while IFS= read -r place; do finding "$place" assertion "a test that expects nothing cannot fail"; done
  forbid disabled "a disabled test tests nothing; mend it or remove it" "" 'TEST(_F|_P)?\(.*DISABLED_'
}

# ---- rules: everything else -----------------------------------------------------------------------------------------

leftovers() {
  local place
  # in_texts RULE WHAT PATTERN
  in_texts() {
    { xargs -r -d '\n' grep -nHIE "$3" <"$work/texts" || true; } | cut -d: -f1,2 |
      while IFS= read -r place; do finding "$place" "$1" "$2"; done
  }
  in_texts leftover "finish it, or open an issue" '\b(TODO|FIXME|XXX|HACK)\b'
  in_texts path "a path of the machine it was written on" '(^|[^A-Za-z0-9_.-])(/wor[k]/|/tmp/bash_job[s])'
  in_texts kill "ends processes by name, and with them somebody else's" '\b(pkil[l]|killal[l]) '
}

lengths() {
  local file count limit
  while IFS= read -r file; do
    count=$(wc -l <"$file")
    limit=$kMaxLines
    [[ ! $file =~ $kTests ]] || limit=$kMaxTestLines
    ((count <= limit)) || finding "$file:1" length "$count lines; nobody reads more than $limit in one go"
  done < <(cat "$work/sources" "$work/scripts")
}

# Links to files of the repository, and to a heading when there is a "#".
links() {
  local file line target path anchor
  while IFS= read -r file; do
    while IFS=: read -r line target; do
      [[ $target =~ ^[a-z]+: ]] && continue
      path=${target%%#*}
      anchor=""
      [[ $target != *#* ]] || anchor=${target#*#}
      path=${path:+$(dirname "$file")/$path}
      path=${path:-$file}
      if [[ ! -e $path ]]; then
        finding "$file:$line" link "leads nowhere: $target"
      elif [[ $anchor && $path == *.md ]] &&
        ! sed -nE 's/^#+ +//p' "$path" | tr 'A-Z' 'a-z' | sed -E 's/[^a-z0-9 _-]//g; s/ /-/g' | grep -qxF "$anchor"; then
        finding "$file:$line" link "no such heading: $target"
      fi
    done < <(awk '{ text = $0; gsub(/`[^`]*`/, "", text)
                    while (match(text, /\]\([^) ]+\)/)) { print FNR ":" substr(text, RSTART + 2, RLENGTH - 3); text = substr(text, RSTART + RLENGTH) } }' "$file")
  done < <(grep -E '\.md$' "$work/files" || true)
}

scripts() {
  local file
  while IFS= read -r file; do
    bash -n "$file" 2>/dev/null || finding "$file:1" script "does not parse: bash -n $file"
    [[ $file == tests/netns/*.sh && $file != */lib.sh && $file != */lab.sh ]] || continue
    grep -q '/lib\.sh' "$file" || finding "$file:1" namespace "does not stand on lib.sh, so nothing keeps it off the machine's network"
    grep -qE '^ *check(_fails)? ' "$file" || finding "$file:1" namespace "checks nothing, so it cannot fail"
  done <"$work/scripts"
}

layers
pure_folders
unordered
headers
assertions
leftovers
lengths
links
scripts

sort -u "$work/findings"
[[ ! -s $work/findings ]] || exit 1
echo "tidy: $(wc -l <"$work/sources") sources, nothing found"
