#pragma once
// Cutting pieces at the matches of a pattern.
#include <string_view>

#include "gantry/text/pieces.h"
#include "gantry/text/regex.h"

namespace gantry::text {

/// What becomes of the text that a pattern matched.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// "Removed", "Isolated", ...; throws InputError naming `source` otherwise.
SplitBehavior parse_split_behavior(std::string_view name, std::string_view source);

/// Cuts every piece. `invert` exchanges matched and unmatched text.
void split_pieces(Pieces& pieces, const Regex& pattern, SplitBehavior behavior, bool invert = false);

}  // namespace gantry::text
