#!/usr/bin/env bash
# Every rule of tidy.sh can fail: plants one violation at a time in a small clean tree and expects it to be found, by that
# rule, at that line. Usage: self_check.sh.
set -euo pipefail
tidy=$(dirname "$(readlink -f "$0")")/tidy.sh
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
failures=0

# clean_tree: what tidy.sh has nothing to say about, near misses included.
clean_tree() {
  rm -rf "${tree:?}"/*
  mkdir -p "$tree"/{src/{base,crypto,tunnel,engine,routing},tests/netns,docs}
  cat >"$tree/src/base/a.h" <<'X'
#pragma once
// std::mutex in a comment, and rand() too.
inline const char* text = "std::thread clock_gettime( // not a comment";
inline int brand(int x) { return x; }
inline int b = object.read(1) + pointer->write(2) + Other::open(3);
X
  printf '#pragma once\n#include "base/a.h"\n' >"$tree/src/tunnel/b.h"
  printf '#include "tunnel/b.h"\n#include <mutex>\nstd::mutex m;\nauto t = std::chrono::steady_clock::now();\n' >"$tree/src/engine/c.cc"
  printf 'void Holds(int x) {\n  EXPECT_EQ(x, 1);\n}\nTEST(A, UsesAHelper) { Holds(1); }\nTEST(A, Expects) {\n  EXPECT_TRUE(true);\n}\n' >"$tree/src/base/a_test.cc"
  printf 'std::unordered_map<int, int> table_;\nint f() { return table_.at(1); }\n' >"$tree/src/tunnel/b.cc"
  printf '#!/usr/bin/env bash\n. "$(dirname "$0")/lib.sh"\ncheck "it holds" true\n' >"$tree/tests/netns/d.sh"
  printf '# One title\n[here](docs/e.md) [there](#one-title) [far](https://example.org/x)\n' >"$tree/README.md"
  printf '# E\n## A heading, with care\n[up](../README.md#one-title) [own](#a-heading-with-care)\n' >"$tree/docs/e.md"
}

# finds RULE FILE LINE TEXT: appended to FILE, TEXT (printf's form) makes RULE speak of LINE.
finds() {
  local output
  clean_tree
  mkdir -p "$tree/$(dirname "$2")"
  printf "$4" >>"$tree/$2"
  if output=$("$tidy" "$tree"); then
    echo "not found: $1 in $2: $4"
    failures=$((failures + 1))
  elif ! grep -qE "^$2:$3: $1: " <<<"$output" || (($(wc -l <<<"$output") != 1)); then
    printf 'expected only %s at %s:%s, got:\n%s\n' "$1" "$2" "$3" "$output"
    failures=$((failures + 1))
  fi
}

clean_tree
"$tidy" "$tree" >/dev/null || {
  echo "the clean tree is not clean:"
  "$tidy" "$tree" || true
  failures=1
}

finds layer src/base/a.h 6 '#include "crypto/keys.h"\n'
finds layer src/tunnel/b.h 3 '  #  include "udp/socket.h"\n'
finds layer src/control/x.cc 1 '#include "engine/engine.h"\n'
finds layer src/newfolder/x.cc 1 '#include "base/a.h"\n'
finds clock src/base/x.cc 1 'auto t = std::chrono::system_clock::now();\n'
finds clock src/tunnel/x.cc 2 '\nint x = ::clock_gettime(CLOCK_BOOTTIME, &t);\n'
finds clock src/routing/plan.cc 1 'auto t = time(nullptr);\n'
finds random src/engine/x.cc 1 'std::mt19937 engine;\n'
finds random src/crypto/x.cc 1 'randombytes_buf(p, 4);\n'
finds random src/base/x.cc 1 'int x = rand();\n'
finds thread src/tunnel/x.h 2 '#pragma once\nstd::shared_mutex m;\n'
finds thread src/base/x.cc 1 'static thread_local int x;\n'
finds syscall src/tun/split.cc 1 'ioctl(fd, 1);\n'
finds syscall src/config/conf_file.cc 1 'std::ifstream file(path);\n'
finds syscall src/udp/segment.cc 1 '  (void)::sendmsg(fd, &m, 0);\n'
finds syscall src/routing/plan.cc 1 'if (int fd = open(path, 0); fd) {}\n'
finds unordered src/tunnel/x.cc 1 'for (auto& [a, b] : table_) f(a);\n'
finds unordered src/tunnel/x.cc 1 'auto it = table_.begin();\n'
finds pragma src/base/x.h 1 'int x;\n'
finds assertion src/base/x_test.cc 1 'TEST(A, DoesNotExpect) {\n  Call();\n}\nTEST(A, Does) {\n  EXPECT_TRUE(1);\n}\n'
finds disabled src/base/x_test.cc 1 'TEST(A, DISABLED_Expects) {\n  EXPECT_TRUE(1);\n}\n'
finds leftover docs/e.md 4 'TODO: write\n'
finds leftover src/base/x.cc 1 'int x;  // FIXME\n'
finds path docs/e.md 4 'see /work/main/README.md\n'
finds kill tests/netns/d.sh 4 'pkill adit\n'
finds length src/base/x.cc 1 "$(printf 'int x;\\n%.0s' {1..1001})"
finds link README.md 3 '[gone](docs/gone.md)\n'
finds link README.md 3 '[gone](docs/e.md#no-such-heading)\n'
finds script tests/x.sh 1 'if true; then\n'
finds namespace tests/netns/x.sh 1 'check "it holds" ip link\n'
finds namespace tests/netns/x.sh 1 '. "$(dirname "$0")/lib.sh"\nip link\n'

((failures == 0)) || exit 1
echo "tidy: every rule can fail"
