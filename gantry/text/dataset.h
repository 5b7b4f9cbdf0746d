#pragma once
// Token data sets: text files, folders and JSON Lines turned once into token shards on disk, then read by position.
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "gantry/base/json.h"

namespace gantry::text {

class Tokenizer;
class TokenShard;

/// How documents become tokens and tokens become rows of a batch.
struct DatasetOptions {
  std::int64_t sequence_length = 1024;
  std::uint64_t seed = 0;
  bool shuffle = true;
  bool pack = true;
  double validation_fraction = 0;
  std::string text_field = "text";
  bool assistant_only = true;
  bool parse_special = false;
  bool add_eos = true;
  bool verify_cache = true;

  template <class Visitor>
  void visit_fields(Visitor& visit) {
    visit.group("Data");
    visit("sequence_length", sequence_length, "tokens in a row of a batch");
    visit("seed", seed, "decides the order of the rows");
    visit("shuffle", shuffle, "a new order every epoch; off: the order of the files");
    visit("pack", pack, "rows run through document boundaries; off: one document a row, cut or padded");
    visit("validation_fraction", validation_fraction,
          "share of the tokens, at the end, kept for validation (0 to 0.9)");
    visit("text_field", text_field, "member of a JSON line that holds the text");
    visit("assistant_only", assistant_only, "in conversations, only what the assistant says counts in the loss");
    visit("parse_special", parse_special, "special tokens written in plain text are taken as such");
    visit("add_eos", add_eos, "end every text with the end-of-sequence token");
    visit("verify_cache", verify_cache, "check the checksums of cached tokens when they are opened");
  }
};

enum class Split { kTrain, kValidation };

/// A part of the tokens: [begin_token, end_token), which are documents [begin_document, end_document). Where a split
/// had to cut a document, its two parts count for both sides.
struct TokenRange {
  std::uint64_t begin_token = 0;
  std::uint64_t end_token = 0;
  std::uint64_t begin_document = 0;
  std::uint64_t end_document = 0;
  std::uint64_t tokens() const { return end_token - begin_token; }
};

/// Immutable after build(); every member may be called from several threads at once.
class TokenDataset {
 public:
  /// Called while text is being tokenised: bytes of the files read, and their sum.
  using ProgressCallback = std::function<void(std::uint64_t done, std::uint64_t total)>;

  /// Tokenises `sources` (files and folders, see find_sources()) into `cache_dir`, or opens what an earlier call left
  /// there. The cache is used again when tokeniser, options that shape tokens, and the files (path, size, time) are the
  /// same; a damaged cache is reported in the log and made anew. Throws InputError for bad input, naming the file, and
  /// Error when the cache cannot be written.
  static TokenDataset build(const std::vector<std::string>& sources, const Tokenizer& tokenizer,
                            const std::filesystem::path& cache_dir, const DatasetOptions& options,
                            const ProgressCallback& progress = {});
  ~TokenDataset();
  TokenDataset(TokenDataset&&) noexcept;
  TokenDataset& operator=(TokenDataset&&) noexcept;

  std::uint64_t token_count() const;
  std::uint64_t document_count() const;
  /// First token of a document; document_count() gives token_count().
  std::uint64_t document_start(std::uint64_t document) const;
  /// The document that holds a token.
  std::uint64_t document_of(std::uint64_t token) const;
  void copy_tokens(std::uint64_t begin, std::span<std::int32_t> out) const;
  /// Whether a token counts in the loss.
  bool trained(std::uint64_t token) const;
  bool masked() const;
  /// Identity of tokeniser, sources and options.
  std::uint64_t identity() const;
  /// Whether build() found everything in the cache.
  bool from_cache() const;
  std::int32_t pad_id() const;

  /// The last `validation_fraction` of the tokens and the rest. The cut moves to the next start of a document where
  /// that leaves at least half of the wanted validation tokens; packed data may otherwise be cut inside a document.
  /// Throws InputError when either side would be empty.
  TokenRange range(Split split, const DatasetOptions& options) const;

 private:
  struct State;
  explicit TokenDataset(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Throws InputError for options out of range.
void check_dataset_options(const DatasetOptions& options);

}  // namespace gantry::text
