#include "gantry/text/bpe_merger.h"

#include <gtest/gtest.h>

#include "gantry/base/random.h"

namespace gantry::text {
namespace {

using Symbols = std::vector<std::int32_t>;

// Looks for the best pair anew each time.
Symbols merge_plainly(Symbols symbols, const std::vector<BpeMerge>& merges, const std::vector<std::uint32_t>& ranks) {
  for (;;) {
    std::size_t best = symbols.size();
    std::uint32_t best_rank = 0;
    std::int32_t result = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (std::size_t m = 0; m < merges.size(); ++m) {
        if (merges[m].left != symbols[i] || merges[m].right != symbols[i + 1]) continue;
        if (best == symbols.size() || ranks[m] < best_rank) {
          best = i;
          best_rank = ranks[m];
          result = merges[m].result;
        }
        break;
      }
    }
    if (best == symbols.size()) return symbols;
    symbols[best] = result;
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
}

TEST(BpeMerger, ShortAndLongWordsMergeAsThePlainMethodDoes) {
  base::CounterRandom random(7);
  std::vector<BpeMerge> merges;
  std::vector<std::uint32_t> ranks;
  for (std::int32_t next = 4; next < 60; ++next) {
    merges.push_back({static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(next))),
                      static_cast<std::int32_t>(random.below(static_cast<std::uint64_t>(next))), next});
    ranks.push_back(static_cast<std::uint32_t>(random.below(30)));  // with ties
  }
  const BpeMerger merger(merges, ranks);
  for (std::size_t length = 0; length < 120; ++length) {
    for (int repeat = 0; repeat < 5; ++repeat) {
      Symbols symbols(length);
      for (auto& symbol : symbols) symbol = static_cast<std::int32_t>(random.below(4));
      const Symbols expected = merge_plainly(symbols, merges, ranks);
      merger.merge(symbols);
      EXPECT_EQ(symbols, expected) << "length " << length;
    }
  }
}

TEST(BpeMerger, EqualNeighboursMergeFromTheLeft) {
  const BpeMerger merger({{0, 0, 1}}, {0});
  for (const std::size_t length : {3u, 7u, 101u}) {
    Symbols symbols(length, 0);
    merger.merge(symbols);
    Symbols expected(length / 2, 1);
    expected.push_back(0);
    EXPECT_EQ(symbols, expected);
  }
}

}  // namespace
}  // namespace gantry::text
