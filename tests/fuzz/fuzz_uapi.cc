// The UAPI socket's input. The first byte says in pieces of how many bytes it arrives; the rest is what a client sends.
//
// Holds: where a stream is cut does not change what it asks for; a request that was understood is understood the same
// when we write it; an answer that was understood is understood the same when we write it.
#include <vector>

#include "config/uapi.h"
#include "fuzz/input.h"

namespace adit {
namespace {

struct Seen {
  UapiRequest::Kind kind;
  int code;
  SecretText set;
  friend bool operator==(const Seen&, const Seen&) = default;
};

std::vector<Seen> Frame(std::string_view stream, std::size_t piece_bytes) {
  std::vector<Seen> seen;
  UapiFramer framer(nullptr);
  while (!stream.empty()) {
    std::string_view piece = stream.substr(0, piece_bytes);
    stream.remove_prefix(piece.size());
    while (!piece.empty()) {
      const std::size_t before = piece.size();
      const auto request = framer.Read(piece);
      CHECK(piece.size() <= before);
      if (!request) {
        CHECK(piece.empty());
        break;
      }
      seen.push_back({request->kind, request->update ? 0 : request->update.error().code,
                      request->update ? WriteUapiSet(*request->update) : SecretText()});
      if (request->kind == UapiRequest::Kind::kUnknown) return seen;
      CHECK(request->update || request->update.error().code != 0);
    }
  }
  return seen;
}

}  // namespace
}  // namespace adit

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace adit;
  FuzzInput input(data, size);
  const std::size_t piece_bytes = 1 + input.TakeByte();
  const std::string_view stream = input.TakeText();

  const std::vector<Seen> whole = Frame(stream, stream.size());
  CHECK(whole == Frame(stream, piece_bytes));
  for (const Seen& seen : whole) {
    if (seen.kind != UapiRequest::Kind::kSet || seen.code != 0) continue;
    const std::vector<Seen> again = Frame(seen.set, seen.set.size());
    CHECK(again.size() == 1 && again[0] == seen);
  }

  if (const auto status = ParseUapiGet(stream)) {
    SecretText text = WriteUapiGet(*status);
    text += WriteUapiErrno(UapiRequest::Kind::kGet, 0);
    const auto again = ParseUapiGet(text);
    CHECK(again.has_value());
    CHECK(WriteUapiGet(*again) == WriteUapiGet(*status));
  }
  return 0;
}
