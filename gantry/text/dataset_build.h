#pragma once
// The tokenising half of a data set: documents in, shards and their manifest out.
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gantry/text/dataset.h"
#include "gantry/text/dataset_source.h"

namespace gantry::text {

/// What a finished cache holds; written last, so that its presence means that the shards are complete.
struct DatasetManifest {
  std::uint64_t identity = 0;
  std::uint64_t shards = 0;
  std::uint64_t tokens = 0;
  std::uint64_t documents = 0;
};

/// Hash of everything that shapes the tokens.
std::uint64_t dataset_identity(const std::vector<SourceFile>& files, const Tokenizer& tokenizer,
                               const DatasetOptions& options);

std::filesystem::path manifest_path(const std::filesystem::path& cache_dir, std::uint64_t identity);
std::filesystem::path shard_path(const std::filesystem::path& cache_dir, std::uint64_t identity, std::uint64_t shard);

/// Throws InputError when the manifest is missing or malformed.
DatasetManifest read_manifest(const std::filesystem::path& cache_dir, std::uint64_t identity);

/// Tokenises every file and writes shards and manifest. `shard_tokens` bounds a shard and the memory used; a longer
/// document makes a longer shard.
DatasetManifest tokenize_sources(const std::vector<SourceFile>& files, const Tokenizer& tokenizer,
                                 const std::filesystem::path& cache_dir, std::uint64_t identity,
                                 const DatasetOptions& options, const TokenDataset::ProgressCallback& progress,
                                 std::uint64_t shard_tokens = std::uint64_t{1} << 25);

/// Tokens of one document piece, and which of them count (empty: all).
struct EncodedPiece {
  std::vector<std::int32_t> tokens;
  std::vector<bool> trained;
};

class ChatTemplate;
/// Tokenises text, or a conversation through the template (null when the model has none).
EncodedPiece encode_piece(const DocumentPiece& piece, const Tokenizer& tokenizer, const ChatTemplate* chat,
                          const DatasetOptions& options);

}  // namespace gantry::text
