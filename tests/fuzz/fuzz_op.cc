// A line of the routing journal, which a crashed run left behind. Holds: an operation that was understood is written in
// a form that is understood as the same one.
#include "fuzz/input.h"
#include "routing/op.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  const auto op = ParseOp(FuzzInput(data, size).TakeText());
  if (!op) return 0;
  CHECK(ParseOp(ToString(*op)) == op);
  CHECK(!InverseToString(*op).empty());
  return 0;
}
