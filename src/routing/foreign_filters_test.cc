#include "routing/foreign_filters.h"

#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <vector>

namespace adit {
namespace {

// A message of the fuzz corpus: see tests/fuzz/fuzz_foreign_filters.cc.
ForeignFilters Read(const std::string& name) {
  std::ifstream file(std::string(ADIT_SOURCE_DIR "/tests/fuzz/corpus/foreign_filters/") + name, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  ForeignFilters filters;
  EXPECT_FALSE(bytes.empty()) << name;
  if (bytes.empty()) return filters;
  std::vector<std::uint32_t> aligned((sizeof(nlmsghdr) + bytes.size() + 3) / 4);
  auto* message = reinterpret_cast<nlmsghdr*>(aligned.data());
  message->nlmsg_len = static_cast<std::uint32_t>(sizeof(nlmsghdr) + bytes.size() - 1);
  std::copy(bytes.begin() + 1, bytes.end(), static_cast<char*>(nlmsg_data(message)));
  bytes[0] == 0 ? ReadFilterChain(message, filters) : ReadFilterRule(message, filters);
  return filters;
}

bool IsEmpty(const ForeignFilters& filters) {
  return filters.policies.empty() && filters.containers.empty() && filters.reverse_path.empty();
}

TEST(ForeignFilters, ReadsAPolicyOfDropAndItsHook) {
  const ForeignFilters filters = Read("chain_output_drop");
  ASSERT_EQ(filters.policies.size(), 1U);
  EXPECT_EQ(filters.policies[0], (DropPolicy{{"inet", "strict", "out"}, "output"}));
  EXPECT_EQ(filters.policies[0].place.ToString(), "table inet strict, chain out");
}

TEST(ForeignFilters, ReadsDockersDropOfBothFamilies) {
  const ForeignFilters v4 = Read("rule_docker_raw");
  ASSERT_EQ(v4.containers.size(), 1U);
  EXPECT_EQ(v4.containers[0].destination.ToString(), "172.17.0.2");
  EXPECT_EQ(v4.containers[0].unless_device, "docker0");
  const ForeignFilters v6 = Read("rule_docker_raw6");
  ASSERT_EQ(v6.containers.size(), 1U);
  EXPECT_EQ(v6.containers[0].unless_device, "br-0");
}

TEST(ForeignFilters, ReadsAReversePathFilter) {
  const ForeignFilters filters = Read("rule_rpfilter");
  ASSERT_EQ(filters.reverse_path.size(), 1U);
  EXPECT_EQ(filters.reverse_path[0].table, "firewalld");
}

TEST(ForeignFilters, LeavesOutWhatAcceptsWhatIsOursAndWhatIsBroken) {
  for (const char* name : {"chain_input_accept", "chain_of_ours", "rule_accepts", "rule_short_address",
                           "rule_nest_too_long", "no_header"}) {
    EXPECT_TRUE(IsEmpty(Read(name))) << name;
  }
}

}  // namespace
}  // namespace adit
