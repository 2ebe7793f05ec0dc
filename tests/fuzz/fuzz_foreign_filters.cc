// nf_tables messages as another program's tables make the kernel write them: the first byte says chain or rule, the
// rest is the message behind its netlink header. Whatever comes: bounded, complete findings, none of our own tables.
#include <linux/netfilter/nf_tables.h>
#include <netlink/msg.h>

#include <cstring>
#include <vector>

#include "fuzz/input.h"
#include "routing/foreign_filters.h"

using namespace adit;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzInput input(data, size);
  const bool is_chain = input.TakeByte() % 2 == 0;
  const Bytes body = input.TakeRest();
  // As the kernel hands it over: aligned, and exactly as long as it says.
  std::vector<std::uint32_t> aligned((sizeof(nlmsghdr) + body.size() + 3) / 4);
  auto* message = reinterpret_cast<nlmsghdr*>(aligned.data());
  message->nlmsg_len = static_cast<std::uint32_t>(sizeof(nlmsghdr) + body.size());
  if (!body.empty()) std::memcpy(nlmsg_data(message), body.data(), body.size());

  ForeignFilters filters;
  if (is_chain) {
    ReadFilterChain(message, filters);
  } else {
    ReadFilterRule(message, filters);
  }
  CHECK(filters.policies.size() + filters.containers.size() + filters.reverse_path.size() <= 1);
  const auto check_place = [](const FilterPlace& place) {
    CHECK(place.table != "adit" && !place.table.starts_with("adit-"));
    CHECK(place.family == "ip" || place.family == "ip6" || place.family == "inet");
  };
  for (const DropPolicy& policy : filters.policies) check_place(policy.place);
  for (const FilterPlace& place : filters.reverse_path) check_place(place);
  for (const ContainerDrop& drop : filters.containers) {
    check_place(drop.place);
    CHECK(!drop.unless_device.empty());
  }
  return 0;
}
