#pragma once
// The files beside a tokeniser in a Hugging Face folder: which tokens mean BOS, EOS and padding, what ends a
// generation, and the chat template.
#include <filesystem>

#include "gantry/base/json.h"
#include "gantry/text/tokenizer_parts.h"

namespace gantry::text {

/// tokenizer_config.json of a folder, or an empty object.
base::Json read_tokenizer_config(const std::filesystem::path& directory);

/// Completes `parts` from tokenizer_config.json (given), special_tokens_map.json, added_tokens.json,
/// generation_config.json, config.json and chat_template.jinja, as far as they exist. Throws InputError naming the
/// file.
void apply_tokenizer_config(TokenizerParts& parts, const base::Json& config, const std::filesystem::path& directory);

/// Id of a token by its spelling, added tokens first; -1 when unknown.
std::int32_t find_token(const TokenizerParts& parts, std::string_view token);

}  // namespace gantry::text
