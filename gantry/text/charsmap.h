#pragma once
// SentencePiece's precompiled character map: a double-array trie from UTF-8 sequences to their replacements.
//   uint32 LE: bytes of the trie; the trie, uint32 LE units (Darts-clone layout); replacements, each ended by a NUL.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::text {

class Charsmap {
 public:
  /// `blob` is the map's bytes; throws InputError naming `source` when the sizes do not fit. Units are checked as they
  /// are followed, so a damaged map gives wrong text at worst.
  Charsmap(std::string_view blob, std::string_view source);

  /// Replaces the longest mapped sequence at each place, as SentencePiece does; the rest stays. (The `tokenizers`
  /// package looks at whole grapheme clusters and differs for some piles of combining marks.)
  std::string apply(std::string_view text) const;

 private:
  struct Hit {
    std::size_t length = 0;
    std::uint32_t offset = 0;
  };
  Hit longest(std::string_view text) const;

  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

/// Standard alphabet with optional padding; throws InputError naming `source` for anything else.
std::string decode_base64(std::string_view encoded, std::string_view source);
std::string encode_base64(std::string_view bytes);

}  // namespace gantry::text
