// Writing a tokeniser in Hugging Face layout.
#include "gantry/base/file.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/tokenizer_json.h"

namespace gantry::text {
namespace {

using base::OrderedJson;
namespace fs = std::filesystem;

OrderedJson config_json(const Tokenizer& tokenizer) {
  OrderedJson config = OrderedJson::object();
  OrderedJson table = OrderedJson::object();
  for (const AddedToken& token : tokenizer.parts().added_tokens) {
    table[std::to_string(token.id)] = {{"content", token.content},         {"lstrip", token.lstrip},
                                       {"normalized", token.normalized},   {"rstrip", token.rstrip},
                                       {"single_word", token.single_word}, {"special", token.special}};
  }
  config["added_tokens_decoder"] = std::move(table);
  const auto set = [&](const char* key, std::optional<std::int32_t> id) {
    if (id) config[key] = tokenizer.token_text(*id);
  };
  set("bos_token", tokenizer.bos_id());
  set("eos_token", tokenizer.eos_id());
  set("pad_token", tokenizer.pad_id());
  set("unk_token", tokenizer.unk_id());
  if (!tokenizer.chat_template().empty()) config["chat_template"] = tokenizer.chat_template();
  config["clean_up_tokenization_spaces"] = false;
  config["tokenizer_class"] = "PreTrainedTokenizerFast";
  return config;
}

OrderedJson generation_json(const Tokenizer& tokenizer) {
  OrderedJson json = OrderedJson::object();
  if (tokenizer.bos_id()) json["bos_token_id"] = *tokenizer.bos_id();
  if (tokenizer.stop_ids().size() == 1)
    json["eos_token_id"] = tokenizer.stop_ids().front();
  else if (!tokenizer.stop_ids().empty())
    json["eos_token_id"] = tokenizer.stop_ids();
  if (tokenizer.pad_id()) json["pad_token_id"] = *tokenizer.pad_id();
  return json;
}

void write_json(const fs::path& path, const OrderedJson& json, int indent) {
  std::string text;
  try {
    text = json.dump(indent);
  } catch (const OrderedJson::type_error&) {
    base::fail_input("{}: the tokeniser has a token that is not valid UTF-8, which JSON cannot hold", path.string());
  }
  base::write_file_atomically(path, text + "\n");
}

}  // namespace

void save_tokenizer(const Tokenizer& tokenizer, const fs::path& directory) {
  base::make_directories(directory);
  write_json(directory / "tokenizer.json", tokenizer_json(tokenizer.parts()), -1);
  write_json(directory / "tokenizer_config.json", config_json(tokenizer), 2);
  if (!fs::exists(directory / "generation_config.json")) {
    write_json(directory / "generation_config.json", generation_json(tokenizer), 2);
  }
}

}  // namespace gantry::text
