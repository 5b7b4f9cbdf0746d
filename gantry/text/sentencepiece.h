#pragma once
// SentencePiece model files (tokenizer.model, spiece.model): a protobuf message, read by a small checked reader.
// Goals: BPE and unigram models, byte fallback, the precompiled character map. Non-goals: word and char models,
// white space as suffix, sampling.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gantry/text/tokenizer_parts.h"

namespace gantry::text {

enum class PieceType { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

struct SentencePiece {
  std::string text;
  float score = 0;
  PieceType type = PieceType::kNormal;
};

/// Defaults are those of the format.
struct SentencePieceModel {
  enum class Algorithm { kUnigram = 1, kBpe = 2 };
  std::string source;
  std::vector<SentencePiece> pieces;
  Algorithm algorithm = Algorithm::kUnigram;
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  std::string charsmap;  ///< see charsmap.h; empty: none
  /// -1: none
  std::int32_t unk_id = 0;
  std::int32_t bos_id = 1;
  std::int32_t eos_id = 2;
  std::int32_t pad_id = -1;
};

/// Reads a model file's bytes. Throws InputError naming `source` for a damaged file or an unsupported model.
SentencePieceModel parse_sentencepiece(std::string_view bytes, std::string source);

/// What stands around a text, and how a text after a special token begins.
struct SentencePieceFrame {
  bool add_bos = false;
  bool add_eos = false;
  /// Put the dummy prefix at the start of the text only, not after every added token.
  bool prefix_first_only = false;
};

TokenizerParts parts_from_sentencepiece(SentencePieceModel model, const SentencePieceFrame& frame);

}  // namespace gantry::text
