#pragma once
// tokenizer.json of the `tokenizers` package: read into parts, and written.
#include <string>
#include <string_view>

#include "gantry/base/json.h"
#include "gantry/text/tokenizer_parts.h"

namespace gantry::text {

/// The pipeline of a parsed tokenizer.json; BOS, EOS and the template come from other files. Throws InputError naming
/// `source` and the field.
TokenizerParts parts_from_tokenizer_json(const base::Json& json, std::string source);

/// The tokenizer.json of a pipeline.
base::OrderedJson tokenizer_json(const TokenizerParts& parts);

/// Adds tokens that the parts lack. A token that the model's vocabulary spells gets the vocabulary's id; throws
/// InputError naming `source` when the id of another one is taken.
void merge_added_tokens(TokenizerParts& parts, const std::vector<AddedToken>& tokens, std::string_view source);

/// One entry of "added_tokens", or of "added_tokens_decoder" with its id given apart.
AddedToken added_token_from_json(const base::Json& entry, std::int32_t id, std::string_view source);

}  // namespace gantry::text
