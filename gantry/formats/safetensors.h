#pragma once
// safetensors: reader (one memory-mapped file, or a model folder with shards) and writer.
//
// Goals: zero-copy reading; every claim of a file checked before it is believed (header length, JSON, element types,
// shapes against byte ranges, no overlap, no hole, unique names); a failed write leaves the older file untouched.
// Non-goals: element types narrower than a byte; files on the network.
//
// Errors: InputError "<file>: ..." for anything wrong with a file; Error for failures to write.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "gantry/base/file.h"
#include "gantry/formats/dtype.h"

namespace gantry::formats {

using SafetensorsMetadata = std::map<std::string, std::string>;

/// Longest header accepted, in bytes; the limit of the format's reference implementation.
inline constexpr std::uint64_t kMaxSafetensorsHeader = 100'000'000;

/// One file. Movable, not copyable; spans and pointers it returns live as long as the object (moves keep them valid).
class SafetensorsFile {
 public:
  /// Maps and checks a file.
  static SafetensorsFile open(const std::filesystem::path& path);
  /// Checks a file image in memory, which the caller keeps alive; `source` starts every error message.
  static SafetensorsFile parse(std::span<const std::byte> image, std::string source);

  SafetensorsFile(SafetensorsFile&&) noexcept = default;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept = default;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  /// All tensors in the order of their data.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Null when there is no such tensor.
  const TensorInfo* find(std::string_view name) const;
  /// The bytes of a tensor of this file; not necessarily aligned to the element type in files of other writers.
  std::span<const std::byte> data(const TensorInfo& tensor) const;
  /// The free-form string map `__metadata__`.
  const SafetensorsMetadata& metadata() const { return metadata_; }
  /// File name, for messages.
  const std::string& source() const { return source_; }

 private:
  friend class SafetensorsModel;
  SafetensorsFile() = default;
  void parse_image();

  std::optional<base::MappedFile> file_;
  std::span<const std::byte> image_;
  std::string source_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, std::size_t> by_name_;  // keys view into tensors_
  SafetensorsMetadata metadata_;
};

/// A destination of SafetensorsModel::read_parallel.
struct TensorRead {
  const TensorInfo* tensor = nullptr;
  std::span<std::byte> to;  ///< exactly tensor->bytes long
};

/// All tensors of a model: a folder (model.safetensors, or model.safetensors.index.json with its shards), an index
/// file, or a single .safetensors file. Movable, not copyable.
class SafetensorsModel {
 public:
  /// Throws InputError for a missing shard, a tensor in two shards, an index that disagrees with its shards, and shard
  /// names that leave the folder.
  static SafetensorsModel open(const std::filesystem::path& path);

  /// All tensors, shard by shard in the order of their data.
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  /// Null when there is no such tensor.
  const TensorInfo* find(std::string_view name) const;
  /// Like find(), but a missing tensor is an InputError that names it and the model.
  const TensorInfo& get(std::string_view name) const;
  std::span<const std::byte> data(const TensorInfo& tensor) const;
  /// The shards' metadata merged; the first shard wins.
  const SafetensorsMetadata& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }
  /// Bytes of all tensors.
  std::uint64_t total_bytes() const;

  /// Copies tensors to memory, in parallel within and across tensors.
  void read_parallel(std::span<const TensorRead> reads) const;
  /// Brings all pages into memory in parallel, so that later accesses through data() don't fault one by one.
  void prefetch() const;

 private:
  SafetensorsModel() = default;
  void open_shards(const std::filesystem::path& index_path);
  void collect();

  std::filesystem::path path_;
  std::vector<SafetensorsFile> files_;
  std::vector<TensorInfo> tensors_;
  std::unordered_map<std::string_view, std::size_t> by_name_;  // keys view into tensors_
  SafetensorsMetadata metadata_;
};

/// A tensor to write. Its bytes are `data` (exactly the size that shape and dtype give, alive during the call) or,
/// where `fill` is set, what `fill` writes into a buffer of that size: one tensor at a time is then in memory.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data = {};
  std::function<void(std::span<std::byte>)> fill = {};
};

/// Writes one file atomically: until it is complete and on disk, an older file of that name stays as it was. Tensors
/// are laid out by falling element size (so that each is aligned) and otherwise in the order given.
void write_safetensors(const std::filesystem::path& path, const std::vector<TensorToWrite>& tensors,
                       const SafetensorsMetadata& metadata = {});

/// Writes a model into an existing folder: model.safetensors if it fits into `max_shard_bytes`, else
/// model-00001-of-0000N.safetensors and model.safetensors.index.json. Tensors keep their order across shards; one
/// larger than the limit gets a shard of its own. All shards are written in full before the first is renamed into
/// place, and leftovers of an older model are removed last. A power cut between those renames can leave a mix of old
/// and new shards: where that matters write into a fresh folder.
void write_safetensors_sharded(const std::filesystem::path& directory, const std::vector<TensorToWrite>& tensors,
                               std::uint64_t max_shard_bytes, const SafetensorsMetadata& metadata = {});

}  // namespace gantry::formats
