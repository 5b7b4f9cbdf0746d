#pragma once
// WordPiece (BERT): the longest token first, continued by tokens with a prefix; and WordLevel, whole words only.
#include "gantry/text/byte_trie.h"
#include "gantry/text/model.h"

namespace gantry::text {

struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  std::size_t max_input_chars_per_word = 100;  ///< longer words are unknown
};

class WordPieceModel final : public Model {
 public:
  /// Throws InputError naming `source` when the unknown token is not in the vocabulary.
  WordPieceModel(Vocabulary vocabulary, WordPieceOptions options, std::string_view source);

  void encode(std::string_view piece, std::vector<std::int32_t>& out) const override;
  base::OrderedJson to_json() const override;
  std::int32_t unk_id() const override { return unk_id_; }

 private:
  WordPieceOptions options_;
  ByteTrie trie_;
  /// Where continuing tokens hang; no value when no token has the prefix.
  ByteTrie::Node continuing_ = ByteTrie::kRoot;
  bool has_continuing_ = true;
  std::int32_t unk_id_;
};

class WordLevelModel final : public Model {
 public:
  /// An empty `unk_token` drops unknown words.
  WordLevelModel(Vocabulary vocabulary, std::string unk_token);

  void encode(std::string_view piece, std::vector<std::int32_t>& out) const override;
  base::OrderedJson to_json() const override;
  std::int32_t unk_id() const override { return unk_id_; }

 private:
  std::string unk_token_;
  std::int32_t unk_id_;
};

}  // namespace gantry::text
