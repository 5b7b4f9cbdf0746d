// Finding out what a path holds.
#include "gantry/base/json.h"
#include "gantry/formats/gguf.h"
#include "gantry/text/tokenizer.h"
#include "gantry/text/tokenizer_config.h"
#include "gantry/text/tokenizer_files.h"
#include "gantry/text/tokenizer_json.h"

namespace gantry::text {
namespace {

using base::Json;
namespace fs = std::filesystem;

constexpr const char* kSentencePieceNames[] = {"tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
                                               "sentencepiece.model"};

std::unique_ptr<Tokenizer> finish(TokenizerParts parts, const Json& config, const fs::path& directory) {
  apply_tokenizer_config(parts, config, directory);
  return std::make_unique<Tokenizer>(std::move(parts));
}

fs::path folder_of(const fs::path& file) { return file.has_parent_path() ? file.parent_path() : fs::path("."); }

std::unique_ptr<Tokenizer> load_file(const fs::path& file) {
  const fs::path directory = folder_of(file);
  if (file.extension() == ".gguf") return tokenizer_from_gguf(formats::GgufFile::open(file));
  if (file.filename() == "vocab.json" || file.filename() == "merges.txt") {
    const Json config = read_tokenizer_config(directory);
    return finish(parts_from_vocab_and_merges(directory, config), config, directory);
  }
  if (file.extension() == ".json") {
    TokenizerParts parts = parts_from_tokenizer_json(base::read_json_file(file), file.string());
    return finish(std::move(parts), read_tokenizer_config(directory), directory);
  }
  const Json config = read_tokenizer_config(directory);
  if (file.extension() == ".model") return finish(parts_from_sentencepiece_file(file, config), config, directory);
  if (file.extension() == ".txt") return finish(parts_from_vocab_txt(file, config), config, directory);
  base::fail_input("{}: not a tokeniser; expected a .gguf, tokenizer.json, .model or vocab.txt file, or a model folder",
                   file.string());
}

}  // namespace

std::unique_ptr<Tokenizer> load_tokenizer(const fs::path& model_dir_or_file) {
  const fs::path& path = model_dir_or_file;
  GANTRY_CHECK(fs::exists(path), "{}: no such file or folder", path.string());
  if (!fs::is_directory(path)) return load_file(path);
  if (fs::is_regular_file(path / "tokenizer.json")) return load_file(path / "tokenizer.json");
  for (const char* name : kSentencePieceNames) {
    if (fs::is_regular_file(path / name)) return load_file(path / name);
  }
  if (fs::is_regular_file(path / "vocab.json") && fs::is_regular_file(path / "merges.txt")) {
    return load_file(path / "vocab.json");
  }
  if (fs::is_regular_file(path / "vocab.txt")) return load_file(path / "vocab.txt");
  fs::path gguf;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().extension() != ".gguf") continue;
    GANTRY_CHECK(gguf.empty(), "{}: several GGUF files; name one", path.string());
    gguf = entry.path();
  }
  GANTRY_CHECK(!gguf.empty(),
               "{}: no tokeniser; expected tokenizer.json, tokenizer.model, vocab.json with merges.txt, vocab.txt or a "
               "GGUF file",
               path.string());
  return load_file(gguf);
}

}  // namespace gantry::text
