#pragma once
// Tokenisers: text to token ids and back, for byte-level BPE, SentencePiece-style BPE, unigram and WordPiece models.
//
// Every source (tokenizer.json, tokenizer.model, vocab files, GGUF metadata) is turned into the same pipeline:
//   added tokens -> normaliser -> pre-tokeniser -> model -> special tokens of the template,
// whose parts carry the JSON of a tokenizer.json, so that any tokeniser can be saved in that form.
//
// Text is UTF-8. Bytes that are not valid UTF-8 never fail: byte-level and byte-fallback models encode them as their
// byte tokens, others as the unknown token.
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace gantry::formats {
class GgufFile;
}

namespace gantry::text {

struct TokenizerParts;

struct EncodeOptions {
  /// Add BOS, EOS, [CLS], ... as the model's tokeniser defines.
  bool add_special = false;
  /// Recognise special tokens written in the text; false encodes them as plain text (what a server does with user
  /// text).
  bool parse_special = true;
};

/// Immutable after construction; every member may be called from several threads at once.
class Tokenizer {
 public:
  /// Throws InputError when the parts contradict each other; see tokenizer_parts.h.
  explicit Tokenizer(TokenizerParts parts);
  virtual ~Tokenizer();
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;
  /// Valid UTF-8: bytes that form no character become U+FFFD. Throws InputError for an id outside the vocabulary.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;
  /// decode() before U+FFFD is put in: decode_bytes(encode(text)) gives back the very bytes of `text` wherever the
  /// normaliser changes nothing and the model has byte tokens.
  std::string decode_bytes(std::span<const std::int32_t> ids, bool skip_special = false) const;

  /// The raw bytes that a token stands for in the middle of a text (" the", "\xe2").
  std::string token_bytes(std::int32_t id) const;
  /// The token as the vocabulary spells it ("Ġthe", "<0xE2>"); empty for an unused id. Throws InputError when out of
  /// range.
  std::string_view token_text(std::int32_t id) const;
  std::optional<std::int32_t> id_of(std::string_view token) const;
  /// One more than the largest id.
  std::int32_t vocab_size() const;
  bool is_special(std::int32_t id) const;

  std::optional<std::int32_t> bos_id() const;
  std::optional<std::int32_t> eos_id() const;
  std::optional<std::int32_t> pad_id() const;
  std::optional<std::int32_t> unk_id() const;
  /// Every id that ends a generation: EOS, and end-of-turn tokens that the model's files name.
  const std::vector<std::int32_t>& stop_ids() const;
  /// Ids that add_special puts before and after a text.
  std::span<const std::int32_t> prefix_ids() const;
  std::span<const std::int32_t> suffix_ids() const;

  /// The Jinja chat template of the model; "" when it has none.
  const std::string& chat_template() const;
  const TokenizerParts& parts() const;

 private:
  friend class StreamingDetokenizer;
  struct State;
  std::unique_ptr<State> state_;
};

/// Reads a folder in Hugging Face layout (tokenizer.json, or tokenizer.model, or vocab.json with merges.txt, or
/// vocab.txt; with tokenizer_config.json, special_tokens_map.json, generation_config.json and chat_template.jinja where
/// present), or one .gguf, tokenizer.json, .model or vocab.txt file. A folder without any of these but with one .gguf
/// file reads that. Throws InputError naming the file and the field.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& model_dir_or_file);

/// From the metadata (tokenizer.ggml.*) of an opened GGUF file.
std::unique_ptr<Tokenizer> tokenizer_from_gguf(const formats::GgufFile& file);

/// Writes tokenizer.json and tokenizer_config.json (chat template included), and generation_config.json unless there is
/// one, into `directory`, which it makes when missing. load_tokenizer and the `tokenizers` package read them to equal
/// ids.
void save_tokenizer(const Tokenizer& tokenizer, const std::filesystem::path& directory);

}  // namespace gantry::text
