#pragma once
// Pipelines from the older vocabulary files of a Hugging Face folder.
#include <filesystem>

#include "gantry/base/json.h"
#include "gantry/text/tokenizer_parts.h"

namespace gantry::text {

/// vocab.txt of BERT, one token a line; `config` is tokenizer_config.json (do_lower_case, strip_accents, ...).
TokenizerParts parts_from_vocab_txt(const std::filesystem::path& path, const base::Json& config);

/// vocab.json and merges.txt in `directory`: GPT-2, RoBERTa or Qwen2 by the "tokenizer_class" of `config`.
TokenizerParts parts_from_vocab_and_merges(const std::filesystem::path& directory, const base::Json& config);

/// tokenizer.model; `config` decides on BOS and EOS (add_bos_token, add_eos_token), else the kind of model does.
TokenizerParts parts_from_sentencepiece_file(const std::filesystem::path& path, const base::Json& config);

/// A pipeline for WordPiece vocabularies, with [CLS] and [SEP] around a text where the vocabulary has them.
TokenizerParts bert_parts(Vocabulary vocabulary, bool lowercase, base::Json strip_accents, bool split_chinese,
                          std::string source);

}  // namespace gantry::text
