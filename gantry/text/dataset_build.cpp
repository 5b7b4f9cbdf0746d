#include "gantry/text/dataset_build.h"

#include <optional>
#include <utility>

#include "gantry/base/file.h"
#include "gantry/base/interrupt.h"
#include "gantry/base/log.h"
#include "gantry/base/threads.h"
#include "gantry/text/chat_template.h"
#include "gantry/text/dataset_hash.h"
#include "gantry/text/dataset_shard.h"
#include "gantry/text/tokenizer.h"

namespace gantry::text {
namespace {

constexpr int kFormat = 1;  // changes when the same input would give other tokens or another manifest
constexpr std::size_t kBatchBytes = std::size_t{64} << 20;
constexpr std::size_t kBatchPieces = 4096;

/// Vocabulary, special tokens and template, and the ids of a text that takes the usual turns of a pre-tokeniser.
void add_tokenizer(DataHash& hash, const Tokenizer& tokenizer) {
  hash.add(static_cast<std::uint64_t>(tokenizer.vocab_size()));
  for (std::int32_t id = 0; id < tokenizer.vocab_size(); ++id) hash.add_field(tokenizer.token_text(id));
  for (const auto& ids : {tokenizer.prefix_ids(), tokenizer.suffix_ids()}) {
    hash.add(ids.size());
    hash.add(std::as_bytes(ids));
  }
  hash.add(static_cast<std::uint64_t>(tokenizer.eos_id().value_or(-1)));
  hash.add_field(tokenizer.chat_template());
  const auto probe = tokenizer.encode(
      "The Quick  brown\tfox's 1234.5 jumps\n\n  over don't e\u0301\u00e9 \u65e5\u672c\u8a9e \U0001f600!?\r\nEND ");
  hash.add(std::as_bytes(std::span(probe)));
}

/// Collects documents and writes a shard whenever enough tokens are there.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path cache_dir, std::uint64_t identity, std::int64_t vocab_size,
              std::uint64_t shard_tokens)
      : cache_dir_(std::move(cache_dir)), vocab_size_(vocab_size), shard_tokens_(shard_tokens) {
    manifest_.identity = identity;
  }

  /// `begins`: the piece opens a document.
  void add(EncodedPiece piece, bool begins) {
    if (begins) {
      drop_empty();
      if (content_.tokens.size() >= shard_tokens_) flush();
      content_.starts.push_back(content_.tokens.size());
      ++manifest_.documents;
      empty_ = true;
    }
    if (piece.tokens.empty()) return;
    empty_ = false;
    const std::size_t before = content_.tokens.size();
    content_.tokens.insert(content_.tokens.end(), piece.tokens.begin(), piece.tokens.end());
    if (piece.trained.empty() && content_.trained.empty()) return;
    content_.trained.resize(before, true);
    if (piece.trained.empty()) piece.trained.assign(piece.tokens.size(), true);
    content_.trained.insert(content_.trained.end(), piece.trained.begin(), piece.trained.end());
  }

  DatasetManifest finish() {
    drop_empty();
    if (!content_.tokens.empty()) flush();
    return manifest_;
  }

 private:
  /// Forgets a document that turned out to have no tokens.
  void drop_empty() {
    if (!std::exchange(empty_, false)) return;
    content_.starts.pop_back();
    --manifest_.documents;
  }

  void flush() {
    write_shard(shard_path(cache_dir_, manifest_.identity, manifest_.shards), content_, vocab_size_,
                manifest_.identity);
    ++manifest_.shards;
    manifest_.tokens += content_.tokens.size();
    content_ = {};
  }

  std::filesystem::path cache_dir_;
  std::int64_t vocab_size_;
  std::uint64_t shard_tokens_;
  ShardContent content_;
  DatasetManifest manifest_;
  bool empty_ = false;  // the last document has no tokens so far
};

/// Encodes a batch of pieces on all threads and appends them in order.
void encode_batch(std::vector<DocumentPiece>& batch, const Tokenizer& tokenizer, const ChatTemplate* chat,
                  const DatasetOptions& options, ShardWriter& writer) {
  std::vector<EncodedPiece> encoded(batch.size());
  base::parallel_ranges(static_cast<std::int64_t>(batch.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      encoded[i] = encode_piece(batch[i], tokenizer, chat, options);
    }
  });
  for (std::size_t i = 0; i < batch.size(); ++i) writer.add(std::move(encoded[i]), batch[i].begins);
  batch.clear();
}

/// Whether a file without any document is an error: yes if the user named it.
void report_empty(const SourceFile& file) {
  GANTRY_CHECK(!file.named, "{}: this file is empty", file.path.string());
  base::log_warn("{}: this file is empty and left out", file.path.string());
}

}  // namespace

std::uint64_t dataset_identity(const std::vector<SourceFile>& files, const Tokenizer& tokenizer,
                               const DatasetOptions& options) {
  DataHash hash;
  hash.add(std::uint64_t{kFormat});
  add_tokenizer(hash, tokenizer);
  for (const SourceFile& file : files) {
    std::error_code ignored;
    const auto absolute = std::filesystem::absolute(file.path, ignored).lexically_normal();
    hash.add_field(absolute.string());
    hash.add(file.bytes);
    hash.add(static_cast<std::uint64_t>(file.modified_ns));
  }
  hash.add_field(options.text_field);
  hash.add((options.assistant_only ? 1u : 0u) | (options.parse_special ? 2u : 0u) | (options.add_eos ? 4u : 0u));
  return hash.value();
}

std::filesystem::path manifest_path(const std::filesystem::path& cache_dir, std::uint64_t identity) {
  return cache_dir / fmt::format("{:016x}.json", identity);
}

std::filesystem::path shard_path(const std::filesystem::path& cache_dir, std::uint64_t identity, std::uint64_t shard) {
  return cache_dir / fmt::format("{:016x}-{:05}.tokens", identity, shard);
}

DatasetManifest read_manifest(const std::filesystem::path& cache_dir, std::uint64_t identity) {
  const auto path = manifest_path(cache_dir, identity);
  const base::Json json = base::read_json_file(path);
  DatasetManifest manifest;
  manifest.identity = identity;
  manifest.shards = base::json_get<std::uint64_t>(json, "shards", path.string());
  manifest.tokens = base::json_get<std::uint64_t>(json, "tokens", path.string());
  manifest.documents = base::json_get<std::uint64_t>(json, "documents", path.string());
  return manifest;
}

DatasetManifest tokenize_sources(const std::vector<SourceFile>& files, const Tokenizer& tokenizer,
                                 const std::filesystem::path& cache_dir, std::uint64_t identity,
                                 const DatasetOptions& options, const TokenDataset::ProgressCallback& progress,
                                 std::uint64_t shard_tokens) {
  std::optional<ChatTemplate> chat;
  if (!tokenizer.chat_template().empty()) chat.emplace(tokenizer.chat_template());
  ShardWriter writer(cache_dir, identity, tokenizer.vocab_size(), shard_tokens);
  std::vector<DocumentPiece> batch;
  std::uint64_t done = 0;
  std::uint64_t total = 0;
  for (const SourceFile& file : files) total += file.bytes;
  std::size_t batch_bytes = 0;
  const auto encode = [&] {
    if (base::interrupted()) throw base::Interrupted("interrupted while tokenising; the next run starts this over");
    encode_batch(batch, tokenizer, chat ? &*chat : nullptr, options, writer);
    batch_bytes = 0;
    if (progress) progress(done, total);
  };
  for (const SourceFile& file : files) {
    const auto reader = open_documents(file, options.text_field);
    bool any = false;
    for (DocumentPiece piece; reader->next(piece); any = true) {
      batch_bytes += piece.text.size() + 1024;
      batch.push_back(std::move(piece));
      if (batch_bytes >= kBatchBytes || batch.size() >= kBatchPieces) encode();
    }
    if (!any) report_empty(file);
    done += file.bytes;
  }
  encode();
  const DatasetManifest manifest = writer.finish();
  GANTRY_CHECK(manifest.tokens > 0, "{}: no text found, nothing to train on", files.front().path.string());
  const base::OrderedJson json = {
      {"format", kFormat}, {"shards", manifest.shards}, {"tokens", manifest.tokens}, {"documents", manifest.documents}};
  base::write_file_atomically(manifest_path(cache_dir, identity), json.dump(2) + "\n");
  return manifest;
}

}  // namespace gantry::text
