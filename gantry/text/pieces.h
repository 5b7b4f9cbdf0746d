#pragma once
// A text cut into pieces, as pre-tokenisers pass it on.
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::text {

/// Pieces are ranges of one buffer, in order, not overlapping; characters between them were removed.
struct Pieces {
  struct Range {
    std::size_t begin = 0;
    std::size_t end = 0;
  };

  std::string text;  ///< valid UTF-8
  std::vector<Range> ranges;
  /// The buffer begins where the whole input begins (and not after an added token).
  bool at_text_start = true;

  /// One piece: all of `whole`.
  Pieces(std::string whole, bool at_start) : text(std::move(whole)), at_text_start(at_start) {
    if (!text.empty()) ranges.push_back({0, text.size()});
  }
  std::string_view view(const Range& range) const {
    return std::string_view(text).substr(range.begin, range.end - range.begin);
  }
};

}  // namespace gantry::text
