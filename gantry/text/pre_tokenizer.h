#pragma once
// Pre-tokenisers of a tokenizer.json: cut the normalised text into pieces that the model encodes one by one.
#include <functional>
#include <string_view>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/text/pieces.h"

namespace gantry::text {

/// GPT-2's pattern, which ByteLevel uses.
extern const char* const kGpt2Pattern;

class PreTokenizer {
 public:
  /// `config` is the "pre_tokenizer" value; null makes one that does nothing. With `defer_spelling`, a ByteLevel step
  /// in last place leaves the bytes as they are and spells_bytes() is true: the model then maps bytes itself. Throws
  /// InputError naming `source` for an unknown or malformed step.
  PreTokenizer(const base::Json& config, std::string_view source, bool defer_spelling);

  /// Throws InputError when steps of a forged file blow the text up.
  void apply(Pieces& pieces) const;
  bool spells_bytes() const { return spells_bytes_; }

 private:
  using Step = std::function<void(Pieces&)>;
  void add(const base::Json& config, std::string_view source, bool last);
  void add_byte_level(const base::Json& config, std::string_view source, bool last);
  void add_split(const base::Json& config, std::string_view source);
  void add_metaspace(const base::Json& config, std::string_view source);

  std::vector<Step> steps_;
  bool defer_spelling_;
  bool spells_bytes_ = false;
};

/// Rewrites each piece by `edit(piece, piece begins the whole text)`.
void rewrite_pieces(Pieces& pieces, const std::function<std::string(std::string_view, bool)>& edit);

/// Cuts before each U+2581 that follows another character.
void split_before_metaspace(Pieces& pieces);

/// A {"String": ...} or {"Regex": ...} object as a pattern for Regex.
std::string pattern_of(const base::Json& config, std::string_view source);

}  // namespace gantry::text
