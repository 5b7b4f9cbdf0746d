#pragma once
// What a tokeniser is made of. Loaders fill this; Tokenizer checks and runs it; save_tokenizer writes it.
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gantry/base/json.h"
#include "gantry/text/added_tokens.h"
#include "gantry/text/model.h"

namespace gantry::text {

struct TokenizerParts {
  std::string source;  ///< file that error messages name
  std::unique_ptr<Model> model;

  // Values of a tokenizer.json; null where a stage does nothing.
  base::Json normalizer;
  base::Json pre_tokenizer;
  base::Json decoder;
  base::Json post_processor;
  /// The model maps bytes itself (BpeOptions::spells_bytes); must agree with the pre-tokeniser.
  bool spells_bytes = false;

  std::vector<AddedToken> added_tokens;
  std::optional<std::int32_t> bos_id;
  std::optional<std::int32_t> eos_id;
  std::optional<std::int32_t> pad_id;
  std::optional<std::int32_t> unk_id;
  std::vector<std::int32_t> stop_ids;  ///< beside eos_id
  std::string chat_template;
};

/// Whether a pre-tokeniser's last step spells bytes.
bool ends_in_byte_level(const base::Json& pre_tokenizer);

/// Ids that a post-processor puts before and after one text.
struct SpecialFrame {
  std::vector<std::int32_t> prefix;
  std::vector<std::int32_t> suffix;
};
/// Reads TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel or a Sequence of them. Throws InputError
/// naming `source`.
SpecialFrame special_frame(const base::Json& post_processor, std::string_view source);

/// The TemplateProcessing value that puts these tokens around a text; null when there are none.
base::Json template_processing(const std::vector<std::pair<std::string, std::int32_t>>& prefix,
                               const std::vector<std::pair<std::string, std::int32_t>>& suffix);

}  // namespace gantry::text
