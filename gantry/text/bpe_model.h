#pragma once
// Byte-pair encoding, over bytes (GPT-2 and its heirs) or characters (SentencePiece).
#include "gantry/text/bpe_merger.h"
#include "gantry/text/model.h"
#include "gantry/text/word_cache.h"

namespace gantry::text {

struct BpeOptions {
  std::string unk_token;                  ///< "": unknown characters are dropped
  std::string continuing_subword_prefix;  ///< before every symbol but the first of a piece
  std::string end_of_word_suffix;         ///< after the last symbol of a piece
  bool fuse_unk = false;                  ///< a run of unknown characters gives one unk
  bool byte_fallback = false;             ///< unknown characters become "<0xXX>" tokens
  bool ignore_merges = false;             ///< a piece that is a token needs no merges
  bool spells_bytes = false;              ///< pieces are raw bytes; the vocabulary spells them (byte_map.h)
};

class BpeModel final : public Model {
 public:
  /// Merges in order of rank, or with explicit `ranks` (equal ranks allowed; lower first).
  BpeModel(Vocabulary vocabulary, std::vector<BpeMerge> merges, BpeOptions options, std::string_view source,
           std::vector<std::uint32_t> ranks = {});

  void encode(std::string_view piece, std::vector<std::int32_t>& out) const override;
  base::OrderedJson to_json() const override;
  bool may_cut_before_metaspace() const override { return may_cut_; }
  std::int32_t unk_id() const override { return unk_id_; }

 private:
  void encode_uncached(std::string_view piece, std::vector<std::int32_t>& out) const;
  void byte_symbols(std::string_view piece, std::vector<std::int32_t>& symbols) const;
  void char_symbols(std::string_view piece, std::vector<std::int32_t>& symbols) const;
  bool fall_back(std::string_view symbol, std::vector<std::int32_t>& symbols) const;

  BpeOptions options_;
  std::vector<BpeMerge> merges_;  // in order of rank, for saving
  BpeMerger merger_;
  std::vector<std::int32_t> byte_ids_;  // of single bytes: spelled ones, or "<0xXX>"
  std::int32_t unk_id_;
  bool may_cut_ = false;
  WordCache cache_;
};

/// Merges given by the spelling of both sides, in order of rank. Throws InputError naming `source` when a side or the
/// joined token is not in the vocabulary.
std::vector<BpeMerge> resolve_merges(const Vocabulary& vocabulary,
                                     const std::vector<std::pair<std::string_view, std::string_view>>& sides,
                                     std::string_view continuing_subword_prefix, std::string_view source);

/// Merges of a SentencePiece BPE vocabulary: every way to join two tokens into a third that may be `used`, ordered by
/// falling score of the result. Fills `ranks`, equal for equal scores. Throws InputError naming `source` for
/// a token of more than 1024 bytes.
std::vector<BpeMerge> merges_from_scores(const Vocabulary& vocabulary, const std::vector<float>& scores,
                                         const std::vector<bool>& used, std::vector<std::uint32_t>& ranks,
                                         std::string_view source);

}  // namespace gantry::text
