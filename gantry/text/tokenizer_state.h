#pragma once
// Inside of Tokenizer: the compiled pipeline.
#include "gantry/text/added_tokens.h"
#include "gantry/text/decoder.h"
#include "gantry/text/normalizer.h"
#include "gantry/text/pre_tokenizer.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/tokenizer_parts.h"

namespace gantry::text {

struct Tokenizer::State {
  explicit State(TokenizerParts given);

  /// Encodes text that holds no raw added tokens. `escaped`: invalid bytes are carried as private-use characters.
  void encode_section(std::string_view text, bool at_start, bool escaped, bool parse_special,
                      std::vector<std::int32_t>& out) const;
  void encode_pieces(Pieces& pieces, bool escaped, std::vector<std::int32_t>& out) const;
  void append_decoded(std::int32_t id, bool skip_special, Decoder::State& state, std::string& out) const;
  /// Throws InputError when out of range.
  void check_id(std::int32_t id) const;
  std::string_view spelling(std::int32_t id) const;

  TokenizerParts parts;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  AddedTokens added;
  Decoder decoder;
  SpecialFrame frame;
  std::int32_t size = 0;
  std::vector<std::int32_t> stop_ids;
};

}  // namespace gantry::text
