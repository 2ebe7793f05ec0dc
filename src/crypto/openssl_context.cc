#include <openssl/crypto.h>

#include "base/check.h"
#include "crypto/internal.h"

namespace adit::internal {

OSSL_LIB_CTX* OpenSslContext() {
  static OSSL_LIB_CTX* const context = [] {
    OSSL_LIB_CTX* made = OSSL_LIB_CTX_new();
    CHECK(made != nullptr);
    return made;
  }();
  return context;
}

}  // namespace adit::internal
