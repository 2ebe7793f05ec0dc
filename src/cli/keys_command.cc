#include "cli/keys_command.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

#include "cli/log.h"
#include "config/secret_text.h"
#include "crypto/keys.h"
#include "crypto/primitives.h"

namespace adit {
namespace {

Outcome PrintKey(Bytes key) {
  if (std::printf("%s\n", KeyToBase64(key).c_str()) < 0 || std::fflush(stdout) != 0) {
    return FailWith(ExitCode::kFailure, "cannot write to stdout: {}", std::strerror(errno));
  }
  return {};
}

void WarnIfWorldReadable() {
  struct stat out{};
  if (fstat(STDOUT_FILENO, &out) == 0 && S_ISREG(out.st_mode) && (out.st_mode & S_IRWXO) != 0) {
    PrintWarning("writing to a file that everybody can read; set the umask to 077 and try again");
  }
}

bool IsSpace(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

}  // namespace

Outcome RunGenkey() {
  WarnIfWorldReadable();
  InitializeCrypto();
  SystemRandom random;
  return PrintKey(PrivateKey::Generate(random));
}

Outcome RunGenpsk() {
  WarnIfWorldReadable();
  InitializeCrypto();
  SystemRandom random;
  PresharedKey key;
  random.Fill(key.mutable_bytes());
  return PrintKey(key);
}

Outcome RunPubkey() {
  InitializeCrypto();
  constexpr std::size_t kMaxInput = 256;  // a key and blanks around it
  SecretText text(kMaxInput, '\0');
  std::size_t size = 0;
  while (size < kMaxInput) {
    const ssize_t got = read(STDIN_FILENO, text.data() + size, kMaxInput - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return FailWith(ExitCode::kFailure, "cannot read stdin: {}", std::strerror(errno));
    if (got == 0) break;
    size += static_cast<std::size_t>(got);
  }
  std::string_view key(text.data(), size);
  while (!key.empty() && IsSpace(key.back())) key.remove_suffix(1);
  const auto parsed = ParseKeyBase64(key);
  if (!parsed) {
    return FailWith(ExitCode::kFailure, "stdin is not a key: 44 characters of base64, as `adit genkey` prints them");
  }
  return PrintKey(PrivateKey(*parsed).Clamped().ComputePublicKey().bytes);
}

}  // namespace adit
