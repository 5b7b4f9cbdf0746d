// Replays fuzz/corpus/<target>/ through every fuzz target, in process. What it proves: no input of the corpus, among
// them every input that once broke a parser, crashes, hangs or throws past the parser's contract.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

extern "C" {
#define GANTRY_FUZZ_TARGET(name) int name##_one_input(const std::uint8_t* data, std::size_t size);
#include "fuzz_targets.inc"
#undef GANTRY_FUZZ_TARGET
}

namespace {

struct FuzzTarget {
  const char* name;
  int (*one_input)(const std::uint8_t*, std::size_t);
};

const FuzzTarget kTargets[] = {
#define GANTRY_FUZZ_TARGET(name) {#name, name##_one_input},
#include "fuzz_targets.inc"
#undef GANTRY_FUZZ_TARGET
};

class FuzzCorpus : public ::testing::TestWithParam<FuzzTarget> {};

TEST_P(FuzzCorpus, IsHandledWithoutACrash) {
  const std::filesystem::path folder = std::filesystem::path(GANTRY_FUZZ_CORPUS) / GetParam().name;
  ASSERT_TRUE(std::filesystem::is_directory(folder)) << folder << ": every target needs a corpus";
  std::vector<std::filesystem::path> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) inputs.push_back(entry.path());
  ASSERT_FALSE(inputs.empty()) << folder;
  std::sort(inputs.begin(), inputs.end());
  for (const auto& path : inputs) {
    SCOPED_TRACE(path.string());
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    EXPECT_EQ(GetParam().one_input(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()), 0);
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzCorpus, ::testing::ValuesIn(kTargets),
                         [](const auto& target) { return std::string(target.param.name); });

}  // namespace
