#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/base/json.h"
#include "gantry/base/threads.h"
#include "gantry/formats/safetensors.h"

namespace gantry::formats {
namespace {

namespace fs = std::filesystem;
constexpr std::uint64_t kPieceBytes = std::uint64_t{4} << 20;

/// A shard is a plain file name beside its index: nothing that could leave the folder.
void check_shard_name(const std::string& name, const std::string& source) {
  const bool plain = !name.empty() && name.find_first_of(std::string_view("/\\\0", 3)) == name.npos;
  GANTRY_CHECK(plain && name != "." && name != ".." && name.ends_with(".safetensors"),
               "{}: shard name {} is refused: expected a plain *.safetensors file name", source,
               base::Json(name).dump());
}

/// A run of bytes to copy or to touch.
struct Piece {
  const std::byte* from;
  std::byte* to;
  std::uint64_t bytes;
};

void append_pieces(std::vector<Piece>& pieces, std::span<const std::byte> from, std::byte* to) {
  for (std::uint64_t begin = 0; begin < from.size(); begin += kPieceBytes) {
    const auto bytes = std::min<std::uint64_t>(kPieceBytes, from.size() - begin);
    pieces.push_back({from.data() + begin, to == nullptr ? nullptr : to + begin, bytes});
  }
}

void touch(const Piece& piece) {
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(piece.from) & ~(page - 1);
  const auto end = reinterpret_cast<std::uintptr_t>(piece.from) + piece.bytes;
#ifdef MADV_POPULATE_READ
  if (::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_POPULATE_READ) == 0) return;
#endif
  // Kernels before 5.14 lack the call: read one byte a page.
  for (std::uint64_t at = 0; at < piece.bytes; at += page) {
    static_cast<void>(*reinterpret_cast<const volatile std::byte*>(piece.from + at));
  }
}

}  // namespace

SafetensorsModel SafetensorsModel::open(const fs::path& path) {
  SafetensorsModel model;
  model.path_ = path;
  std::error_code ignored;
  if (!fs::is_directory(path, ignored)) {
    if (path.extension() == ".json") {
      model.open_shards(path);
    } else {
      model.files_.push_back(SafetensorsFile::open(path));
    }
  } else if (fs::exists(path / "model.safetensors", ignored)) {
    model.files_.push_back(SafetensorsFile::open(path / "model.safetensors"));
  } else if (fs::exists(path / "model.safetensors.index.json", ignored)) {
    model.open_shards(path / "model.safetensors.index.json");
  } else {
    base::fail_input("{}: expected model.safetensors or model.safetensors.index.json in this folder, found neither",
                     path.string());
  }
  model.collect();
  return model;
}

void SafetensorsModel::open_shards(const fs::path& index_path) {
  const std::string source = index_path.string();
  const base::Json index = base::read_json_file(index_path);
  const auto weight_map = base::json_get<std::map<std::string, std::string>>(index, "weight_map", source);
  std::set<std::string> names;
  for (const auto& [tensor, shard] : weight_map) names.insert(shard);
  std::map<std::string, std::size_t> shard_of_name;
  for (const std::string& name : names) {
    check_shard_name(name, source);
    const fs::path path = index_path.parent_path() / name;
    std::error_code ignored;
    GANTRY_CHECK(fs::exists(path, ignored), "{}: shard '{}' is missing; download or copy it beside the index", source,
                 name);
    shard_of_name.emplace(name, files_.size());
    files_.push_back(SafetensorsFile::open(path));
  }
  for (const auto& [tensor, shard] : weight_map) {
    GANTRY_CHECK(files_[shard_of_name.at(shard)].find(tensor) != nullptr,
                 "{}: tensor '{}' is said to be in '{}' but is not there", source, tensor, shard);
  }
  for (const SafetensorsFile& file : files_) {
    for (const TensorInfo& tensor : file.tensors()) {
      const auto listed = weight_map.find(tensor.name);
      GANTRY_CHECK(listed != weight_map.end(), "{}: tensor '{}' of {} is not listed", source, tensor.name,
                   file.source());
      GANTRY_CHECK(shard_of_name.at(listed->second) == static_cast<std::size_t>(&file - files_.data()),
                   "{}: tensor '{}' is in two shards, '{}' and {}", source, tensor.name, listed->second, file.source());
    }
  }
}

void SafetensorsModel::collect() {
  for (std::size_t shard = 0; shard < files_.size(); ++shard) {
    for (const TensorInfo& tensor : files_[shard].tensors()) {
      tensors_.push_back(tensor);
      tensors_.back().shard = static_cast<std::uint32_t>(shard);
    }
    metadata_.insert(files_[shard].metadata().begin(), files_[shard].metadata().end());
  }
  by_name_.reserve(tensors_.size());
  for (std::size_t i = 0; i < tensors_.size(); ++i) by_name_.emplace(tensors_[i].name, i);
}

const TensorInfo* SafetensorsModel::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const TensorInfo& SafetensorsModel::get(std::string_view name) const {
  const TensorInfo* tensor = find(name);
  GANTRY_CHECK(tensor != nullptr, "{}: tensor '{}' is missing", path_.string(), name);
  return *tensor;
}

std::span<const std::byte> SafetensorsModel::data(const TensorInfo& tensor) const {
  GANTRY_CHECK(tensor.shard < files_.size(), "{}: tensor '{}' is not of this model", path_.string(), tensor.name);
  return files_[tensor.shard].data(tensor);
}

std::uint64_t SafetensorsModel::total_bytes() const {
  std::uint64_t total = 0;
  for (const TensorInfo& tensor : tensors_) total += tensor.bytes;
  return total;
}

void SafetensorsModel::read_parallel(std::span<const TensorRead> reads) const {
  std::vector<Piece> pieces;
  for (const TensorRead& read : reads) {
    GANTRY_CHECK(read.tensor != nullptr, "{}: a read names no tensor", path_.string());
    GANTRY_CHECK(read.to.size() == read.tensor->bytes, "{}: tensor '{}' has {} bytes, the destination {}",
                 path_.string(), read.tensor->name, read.tensor->bytes, read.to.size());
    append_pieces(pieces, data(*read.tensor), read.to.data());
  }
  base::parallel_ranges(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const Piece& piece = pieces[static_cast<std::size_t>(i)];
      std::memcpy(piece.to, piece.from, piece.bytes);
    }
  });
}

void SafetensorsModel::prefetch() const {
  std::vector<Piece> pieces;
  for (const SafetensorsFile& file : files_) append_pieces(pieces, file.image_, nullptr);
  base::parallel_ranges(static_cast<std::int64_t>(pieces.size()), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) touch(pieces[static_cast<std::size_t>(i)]);
  });
}

}  // namespace gantry::formats
