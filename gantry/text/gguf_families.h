#pragma once
// How byte-level BPE models of a family cut a text, by GGUF's `tokenizer.ggml.pre`. GGUF stores only that name; the
// patterns are those of the families' tokenizer.json files.
#include <string_view>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::text {

struct GgufFamily {
  std::vector<const char*> names;
  std::vector<const char*> patterns;  ///< applied in turn, matches and gaps isolated
  bool gpt2_pattern = true;           ///< then GPT-2's pattern
  bool ignore_merges = false;
  bool add_bos = false;    ///< unless the file says otherwise
  bool add_frame = false;  ///< BOS and EOS around a text, as encoders want
  bool nfc = false;
};

/// Throws InputError naming `source` for an unknown name.
const GgufFamily& gguf_family(std::string_view name, std::string_view source);

/// "pre_tokenizer" and "normalizer" of a tokenizer.json.
base::Json family_pre_tokenizer(const GgufFamily& family);
base::Json family_normalizer(const GgufFamily& family);

}  // namespace gantry::text
