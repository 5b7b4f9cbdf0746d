#pragma once
// Unigram language model: the segmentation of greatest summed log probability (Viterbi over a byte trie).
#include "gantry/text/byte_trie.h"
#include "gantry/text/model.h"
#include "gantry/text/word_cache.h"

namespace gantry::text {

struct UnigramOptions {
  std::int32_t unk_id = Vocabulary::kNone;
  bool byte_fallback = false;
  /// Sum scores in fp32, as SentencePiece does, rather than in fp64, as the `tokenizers` package does; decides near
  /// ties.
  bool single_precision = false;
};

class UnigramModel final : public Model {
 public:
  /// scores[id]: log probability; `used[id]`: text may produce the token. Throws InputError naming `source` for scores
  /// that are not finite and for an unk_id outside the vocabulary.
  UnigramModel(Vocabulary vocabulary, std::vector<double> scores, const std::vector<bool>& used, UnigramOptions options,
               std::string_view source);

  void encode(std::string_view piece, std::vector<std::int32_t>& out) const override;
  base::OrderedJson to_json() const override;
  bool may_cut_before_metaspace() const override { return may_cut_; }
  std::int32_t unk_id() const override { return options_.unk_id; }

 private:
  struct Step {
    double score = 0;
    std::size_t start = 0;
    std::int32_t id = Vocabulary::kNone;
    bool reached = false;
  };
  void encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const;
  void forward(std::string_view piece, std::vector<Step>& steps) const;
  void relax(Step& target, double score, std::size_t start, std::int32_t id) const;
  void append_unknown(std::string_view text, bool after_unknown, std::vector<std::int32_t>& out) const;

  UnigramOptions options_;
  std::vector<double> scores_;
  ByteTrie trie_;
  std::vector<std::int32_t> byte_ids_;
  double unk_score_ = 0;
  bool may_cut_ = false;
  WordCache cache_;
};

}  // namespace gantry::text
