#pragma once
// A tokeniser for tests of data sets: every byte is its own token (ids 0 to 255), then <s> = 256, </s> = 257,
// <|user|> = 258, <|assistant|> = 259, <|end|> = 260.
#include <filesystem>
#include <memory>
#include <string>

#include "gantry/base/file.h"
#include "gantry/base/json.h"
#include "gantry/text/byte_map.h"
#include "gantry/text/tokenizer.h"
#include "tests/test_support.h"

namespace gantry::text {

inline constexpr std::int32_t kEos = 257;

class TemporaryFolder : public tests::TemporaryFolder {
 public:
  /// Writes a file below the folder and returns its path.
  std::string write(const std::string& name, std::string_view text) const {
    const std::filesystem::path file = path() / name;
    std::filesystem::create_directories(file.parent_path());
    base::write_file_atomically(file, text);
    return file.string();
  }
};

inline std::unique_ptr<Tokenizer> byte_tokenizer(const std::string& chat_template = "", int extra_tokens = 0) {
  base::Json vocab;
  for (int byte = 0; byte < 256; ++byte) vocab[spell_bytes(std::string(1, static_cast<char>(byte)))] = byte;
  base::Json added = base::Json::array();
  int id = 256;
  for (const char* token : {"<s>", "</s>", "<|user|>", "<|assistant|>", "<|end|>"}) {
    added.push_back({{"id", id++}, {"content", token}, {"special", true}});
  }
  for (int i = 0; i < extra_tokens; ++i) vocab["unused" + std::to_string(i)] = id++;
  const base::Json json = {{"version", "1.0"},
                           {"added_tokens", added},
                           {"normalizer", nullptr},
                           {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
                           {"decoder", {{"type", "ByteLevel"}}},
                           {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", base::Json::array()}}}};
  const TemporaryFolder folder;
  folder.write("tokenizer.json", json.dump());
  folder.write("tokenizer_config.json",
               base::Json{{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"chat_template", chat_template}}.dump());
  return load_tokenizer(folder.path());
}

}  // namespace gantry::text
