#include "gantry/text/tokenizer_files.h"

#include "gantry/base/file.h"
#include "gantry/text/bpe_model.h"
#include "gantry/text/gguf_families.h"
#include "gantry/text/sentencepiece.h"
#include "gantry/text/utf8.h"
#include "gantry/text/wordpiece_model.h"

namespace gantry::text {
namespace {

using base::Json;
using base::json_get_or;
namespace fs = std::filesystem;

constexpr std::uint64_t kMaxFileBytes = std::uint64_t{256} << 20;

// Lines without their ends; a last empty line does not count.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
  }
  return lines;
}

void require_utf8(std::string_view text, const std::string& source) {
  GANTRY_CHECK(is_valid_utf8(text), "{}: not UTF-8 text; expected a vocabulary file", source);
}

std::vector<std::pair<std::string_view, std::string_view>> merges_of(std::string_view text, const std::string& source) {
  std::vector<std::pair<std::string_view, std::string_view>> sides;
  std::size_t number = 0;
  for (const std::string_view line : lines_of(text)) {
    ++number;
    if (line.empty() || (number == 1 && line.starts_with("#version"))) continue;
    const std::size_t space = line.find(' ', 1);
    GANTRY_CHECK(space != std::string_view::npos && space + 1 < line.size(),
                 "{}:{}: '{}' is no merge; expected two tokens with a space between", source, number, line);
    sides.emplace_back(line.substr(0, space), line.substr(space + 1));
  }
  return sides;
}

void add_if_present(TokenizerParts& parts, const char* token, bool special) {
  const std::int32_t id = parts.model->vocabulary().find(token);
  if (id >= 0) parts.added_tokens.push_back({id, token, special});
}

}  // namespace

TokenizerParts bert_parts(Vocabulary vocabulary, bool lowercase, Json strip_accents, bool split_chinese,
                          std::string source) {
  TokenizerParts parts;
  parts.source = std::move(source);
  parts.model = std::make_unique<WordPieceModel>(std::move(vocabulary), WordPieceOptions{}, parts.source);
  for (const char* token : {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}) add_if_present(parts, token, true);
  parts.normalizer = {{"type", "BertNormalizer"},
                      {"clean_text", true},
                      {"handle_chinese_chars", split_chinese},
                      {"strip_accents", std::move(strip_accents)},
                      {"lowercase", lowercase}};
  parts.pre_tokenizer = {{"type", "BertPreTokenizer"}};
  parts.decoder = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  const std::int32_t cls = parts.model->vocabulary().find("[CLS]");
  const std::int32_t sep = parts.model->vocabulary().find("[SEP]");
  if (cls >= 0 && sep >= 0) parts.post_processor = template_processing({{"[CLS]", cls}}, {{"[SEP]", sep}});
  const std::int32_t pad = parts.model->vocabulary().find("[PAD]");
  if (pad >= 0) parts.pad_id = pad;
  return parts;
}

TokenizerParts parts_from_vocab_txt(const fs::path& path, const Json& config) {
  const std::string source = path.string();
  const std::string text = base::read_text_file(path, kMaxFileBytes);
  require_utf8(text, source);
  std::vector<std::string> tokens;
  for (const std::string_view line : lines_of(text)) tokens.emplace_back(line);
  const std::string config_source = (path.parent_path() / "tokenizer_config.json").string();
  return bert_parts(Vocabulary(tokens, source), json_get_or<bool>(config, "do_lower_case", true, config_source),
                    config.value("strip_accents", Json()),
                    json_get_or<bool>(config, "tokenize_chinese_chars", true, config_source), source);
}

TokenizerParts parts_from_vocab_and_merges(const fs::path& directory, const Json& config) {
  const fs::path vocab_path = directory / "vocab.json";
  const fs::path merges_path = directory / "merges.txt";
  const std::string config_source = (directory / "tokenizer_config.json").string();
  const auto class_name = json_get_or<std::string>(config, "tokenizer_class", "GPT2Tokenizer", config_source);
  const bool qwen = class_name.starts_with("Qwen2");
  TokenizerParts parts;
  parts.source = vocab_path.string();
  if (qwen) {
    const GgufFamily& family = gguf_family("qwen2", config_source);
    parts.pre_tokenizer = family_pre_tokenizer(family);
    parts.normalizer = family_normalizer(family);
  } else {
    const bool prefix_space = json_get_or<bool>(config, "add_prefix_space", false, config_source);
    parts.pre_tokenizer = {
        {"type", "ByteLevel"}, {"add_prefix_space", prefix_space}, {"trim_offsets", true}, {"use_regex", true}};
  }
  parts.decoder = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
  parts.spells_bytes = true;

  const std::string merges_text = base::read_text_file(merges_path, kMaxFileBytes);
  require_utf8(merges_text, merges_path.string());
  Json model = {{"type", "BPE"}, {"vocab", base::read_json_file(vocab_path)}, {"merges", Json::array()}};
  for (const auto& [left, right] : merges_of(merges_text, merges_path.string())) {
    model["merges"].push_back({left, right});
  }
  parts.model = model_from_json(model, parts.source, true, {});
  if (class_name.starts_with("Roberta")) {
    for (const char* token : {"<s>", "<pad>", "</s>", "<unk>", "<mask>"}) add_if_present(parts, token, true);
    const std::int32_t bos = parts.model->vocabulary().find("<s>");
    const std::int32_t eos = parts.model->vocabulary().find("</s>");
    if (bos >= 0 && eos >= 0) parts.post_processor = template_processing({{"<s>", bos}}, {{"</s>", eos}});
  } else {
    add_if_present(parts, "<|endoftext|>", true);
  }
  return parts;
}

TokenizerParts parts_from_sentencepiece_file(const fs::path& path, const Json& config) {
  SentencePieceModel model = parse_sentencepiece(base::read_text_file(path, kMaxFileBytes), path.string());
  const std::string config_source = (path.parent_path() / "tokenizer_config.json").string();
  const bool bpe = model.algorithm == SentencePieceModel::Algorithm::kBpe;
  SentencePieceFrame frame;
  frame.add_bos = json_get_or<bool>(config, "add_bos_token", bpe && model.bos_id >= 0, config_source);
  frame.add_eos = json_get_or<bool>(config, "add_eos_token", !bpe && model.bos_id < 0, config_source);
  frame.prefix_first_only = !json_get_or<bool>(config, "legacy", true, config_source);
  return parts_from_sentencepiece(std::move(model), frame);
}

}  // namespace gantry::text
