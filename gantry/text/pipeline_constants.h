#pragma once
// What the steps around a tokeniser's model (normaliser, pre-tokeniser, decoder) share.
#include <cstddef>
#include <string_view>

namespace gantry::text {

/// U+2581, which SentencePiece vocabularies write for a space.
inline constexpr std::string_view kMetaspace = "\xe2\x96\x81";

/// Times by which a step may lengthen a text, apart from what it inserts; the text of a file is untrusted.
inline constexpr std::size_t kMaxGrowth = 64;
/// Bytes of a string that a step inserts.
inline constexpr std::size_t kMaxInsertedBytes = 4096;

}  // namespace gantry::text
