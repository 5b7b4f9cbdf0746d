#include <algorithm>
#include <charconv>

#include "gantry/base/check.h"
#include "gantry/plan/megatron_flags.h"
#include "gantry/plan/types.h"

namespace gantry::plan::internal {
namespace {

constexpr std::string_view kFlag = "--pipeline-model-parallel-layout";
constexpr std::size_t kMaxExpanded = std::size_t{2} * kMaxLayers;

// The number behind the '*' at `position`, or 1; moves past it.
std::size_t multiplier(std::string_view text, std::size_t* position) {
  if (*position >= text.size() || text[*position] != '*') return 1;
  std::size_t count = 0;
  const char* begin = text.data() + *position + 1;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(begin, end, count);
  GANTRY_CHECK(error == std::errc() && count >= 1 && count <= kMaxExpanded,
               "{} '{}': expected a number from 1 behind '*' at position {}", kFlag, text, *position);
  *position = static_cast<std::size_t>(stop - text.data());
  return count;
}

void append(std::string_view unit, std::size_t count, std::string_view text, std::string& expanded) {
  GANTRY_CHECK(unit.size() * count <= kMaxExpanded && expanded.size() + unit.size() * count <= kMaxExpanded,
               "{} '{}': more than {} layers", kFlag, text, kMaxLayers);
  for (std::size_t i = 0; i < count; ++i) expanded += unit;
}

// x*3 is xxx and (xy|)*2 is xy|xy|; groups do not nest.
std::string expand(std::string_view text) {
  std::string expanded;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == ',') {  // cosmetic
      ++i;
      continue;
    }
    if (text[i] != '(') {
      const std::string_view unit = text.substr(i++, 1);
      append(unit, multiplier(text, &i), text, expanded);
      continue;
    }
    const std::size_t close = text.find(')', i);
    const std::string_view group = text.substr(i + 1, close == std::string_view::npos ? close : close - i - 1);
    GANTRY_CHECK(close != std::string_view::npos && group.find('(') == std::string_view::npos,
                 "{} '{}': the group at position {} is not closed or holds another", kFlag, text, i);
    i = close + 1;
    append(expand(group), multiplier(text, &i), text, expanded);
  }
  return expanded;
}

// Layers of every chunk of "Ett|tt|ttL".
std::vector<int> chunk_counts(std::string_view text, const std::string& expanded) {
  std::vector<int> counts(1);
  for (std::size_t i = 0; i < expanded.size(); ++i) {
    const char c = expanded[i];
    const bool in_place = (c == 'E') == (i == 0) && (c == 'L') == (i + 1 == expanded.size());
    GANTRY_CHECK(in_place && (c == 'E' || c == 'L' || c == 't' || c == '|'),
                 "{} '{}': expected E, then t and |, then L, found '{}'", kFlag, text, c);
    if (c == '|') counts.push_back(0);
    if (c == 't') ++counts.back();
  }
  return counts;
}

}  // namespace

std::vector<int> layers_of_layout(std::string_view layout, int stages, std::int64_t layers, int* chunks) {
  GANTRY_CHECK(*chunks == 1, "{} excludes the flags of virtual stages; keep one", kFlag);
  const std::string expanded = expand(layout);
  GANTRY_CHECK(expanded.size() >= 3, "{} '{}': expected E, then t and |, then L", kFlag, layout);
  const std::vector<int> counts = chunk_counts(layout, expanded);
  const auto per_stage = static_cast<std::int64_t>(counts.size()) / stages;
  GANTRY_CHECK(std::ssize(counts) == per_stage * stages, "{} '{}': {} parts do not divide over {} stages", kFlag,
               layout, counts.size(), stages);
  std::vector<int> split(static_cast<std::size_t>(stages));
  std::int64_t sum = 0;
  for (std::size_t i = 0; i < counts.size(); ++i) {
    const std::size_t stage = i % split.size();
    GANTRY_CHECK(
        counts[i] >= 1 && counts[i] == counts[stage],
        "{} '{}': part {} has {} layers; a plan needs at least one, and as many as the first part of its stage "
        "({})",
        kFlag, layout, i, counts[i], counts[stage]);
    split[stage] += counts[i];
    sum += counts[i];
  }
  GANTRY_CHECK(sum == layers, "{} '{}' has {} layers, the model {}", kFlag, layout, sum, layers);
  *chunks = static_cast<int>(per_stage);
  return split;
}

}  // namespace gantry::plan::internal
