#include <algorithm>
#include <memory>
#include <set>
#include <unordered_set>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/base/json.h"
#include "gantry/formats/safetensors.h"

namespace gantry::formats {
namespace {

namespace fs = std::filesystem;
using TensorPointers = std::vector<const TensorToWrite*>;

/// Every shard is an open file until all are written, so their number is bounded well below the usual limit of 1024.
constexpr std::size_t kMaxShards = 512;

std::string quoted(const std::string& text, const std::string& source) {
  try {
    return base::Json(text).dump();
  } catch (const nlohmann::json::exception&) {
    base::fail_input("{}: a name or metadata value is not valid UTF-8", source);
  }
}

std::uint64_t tensor_bytes(const TensorToWrite& tensor, const std::string& source) {
  const auto bytes = checked_bytes(tensor.shape, tensor.dtype);
  GANTRY_CHECK(bytes.has_value(), "{}: tensor '{}': shape {} overflows", source, tensor.name,
               format_shape(tensor.shape));
  return *bytes;
}

void check_tensors(const std::vector<TensorToWrite>& tensors, const std::string& source) {
  std::unordered_set<std::string_view> names;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t bytes = tensor_bytes(tensor, source);
    GANTRY_CHECK(tensor.name != "__metadata__", "{}: a tensor cannot be named __metadata__", source);
    GANTRY_CHECK(names.insert(tensor.name).second, "{}: tensor '{}' is given twice", source, tensor.name);
    GANTRY_CHECK(tensor.fill || tensor.data.size() == bytes,
                 "{}: tensor '{}': {} of shape {} takes {} bytes, {} are given", source, tensor.name,
                 dtype_name(tensor.dtype), format_shape(tensor.shape), bytes, tensor.data.size());
  }
}

/// The length word and the JSON, padded so that the data starts at a multiple of 8.
std::string make_header(const TensorPointers& tensors, const SafetensorsMetadata& metadata, const std::string& source) {
  std::string json = "{";
  if (!metadata.empty()) {
    json += "\"__metadata__\":{";
    for (const auto& [key, value] : metadata) json += quoted(key, source) + ":" + quoted(value, source) + ",";
    json.back() = '}';
    json += ',';
  }
  std::uint64_t offset = 0;
  for (const TensorToWrite* tensor : tensors) {
    const std::uint64_t end = offset + tensor_bytes(*tensor, source);
    json += fmt::format("{}:{{\"dtype\":\"{}\",\"shape\":{},\"data_offsets\":[{},{}]}},", quoted(tensor->name, source),
                        dtype_name(tensor->dtype), format_shape(tensor->shape), offset, end);
    offset = end;
  }
  if (json.size() > 1) json.pop_back();
  json += '}';
  json.append((8 - json.size() % 8) % 8, ' ');
  GANTRY_CHECK(json.size() <= kMaxSafetensorsHeader, "{}: header of {} bytes exceeds the format's limit of {}", source,
               json.size(), kMaxSafetensorsHeader);
  const std::uint64_t length = json.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + json;
}

void write_body(base::AtomicFile& file, TensorPointers tensors, const SafetensorsMetadata& metadata,
                const std::string& source) {
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const auto* a, const auto* b) { return dtype_bytes(a->dtype) > dtype_bytes(b->dtype); });
  file.write(make_header(tensors, metadata, source));
  std::vector<std::byte> buffer;
  for (const TensorToWrite* tensor : tensors) {
    if (tensor->fill) {
      buffer.assign(tensor_bytes(*tensor, source), std::byte{0});
      tensor->fill(buffer);
      file.write(buffer);
    } else {
      file.write(tensor->data);
    }
  }
}

std::vector<TensorPointers> split(const std::vector<TensorToWrite>& tensors, std::uint64_t max_shard_bytes,
                                  const std::string& source) {
  std::vector<TensorPointers> shards(1);
  std::uint64_t used = 0;
  for (const TensorToWrite& tensor : tensors) {
    const std::uint64_t bytes = tensor_bytes(tensor, source);
    if (!shards.back().empty() && (used > max_shard_bytes || bytes > max_shard_bytes - used)) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(&tensor);
    used += bytes;
  }
  GANTRY_CHECK(shards.size() <= kMaxShards, "{}: {} shards of {} bytes, more than {}: raise the shard size", source,
               shards.size(), max_shard_bytes, kMaxShards);
  return shards;
}

std::vector<std::string> shard_names(std::size_t count) {
  if (count == 1) return {"model.safetensors"};
  std::vector<std::string> names;
  for (std::size_t i = 1; i <= count; ++i) names.push_back(fmt::format("model-{:05}-of-{:05}.safetensors", i, count));
  return names;
}

std::string make_index(const std::vector<TensorPointers>& shards, const std::vector<std::string>& names,
                       const std::string& source) {
  base::Json weight_map = base::Json::object();
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    for (const TensorToWrite* tensor : shards[i]) {
      weight_map[tensor->name] = names[i];
      total += tensor_bytes(*tensor, source);
    }
  }
  return base::Json{{"metadata", {{"total_size", total}}}, {"weight_map", std::move(weight_map)}}.dump(2) + "\n";
}

/// "model-00003-of-00007.safetensors"
bool is_shard_name(std::string_view name) {
  constexpr std::string_view kPattern = "model-#####-of-#####.safetensors";
  return name.size() == kPattern.size() &&
         std::equal(name.begin(), name.end(), kPattern.begin(), [](char found, char wanted) {
           return wanted == '#' ? found >= '0' && found <= '9' : found == wanted;
         });
}

void remove_stale(const fs::path& directory, const std::set<std::string>& written) {
  std::vector<fs::path> stale;
  for (const auto& entry : fs::directory_iterator(directory)) {
    const std::string name = entry.path().filename().string();
    const bool ours = is_shard_name(name) || name == "model.safetensors" || name == "model.safetensors.index.json";
    if (ours && !written.contains(name)) stale.push_back(entry.path());
  }
  for (const fs::path& path : stale) {
    std::error_code error;
    fs::remove(path, error);
    if (error) base::fail("{}: cannot remove this leftover of an older model: {}", path.string(), error.message());
  }
}

}  // namespace

void write_safetensors(const fs::path& path, const std::vector<TensorToWrite>& tensors,
                       const SafetensorsMetadata& metadata) {
  const std::string source = path.string();
  check_tensors(tensors, source);
  TensorPointers pointers;
  for (const TensorToWrite& tensor : tensors) pointers.push_back(&tensor);
  base::AtomicFile file(path);
  write_body(file, std::move(pointers), metadata, source);
  file.commit();
}

void write_safetensors_sharded(const fs::path& directory, const std::vector<TensorToWrite>& tensors,
                               std::uint64_t max_shard_bytes, const SafetensorsMetadata& metadata) {
  const std::string source = directory.string();
  check_tensors(tensors, source);
  const auto shards = split(tensors, max_shard_bytes, source);
  const auto names = shard_names(shards.size());
  std::set<std::string> written(names.begin(), names.end());
  std::vector<std::unique_ptr<base::AtomicFile>> files;
  for (std::size_t i = 0; i < shards.size(); ++i) {
    files.push_back(std::make_unique<base::AtomicFile>(directory / names[i]));
    write_body(*files.back(), shards[i], metadata, (directory / names[i]).string());
  }
  if (shards.size() > 1) {
    written.insert("model.safetensors.index.json");
    files.push_back(std::make_unique<base::AtomicFile>(directory / "model.safetensors.index.json"));
    files.back()->write(make_index(shards, names, source));
  }
  for (const auto& file : files) file->commit();
  remove_stale(directory, written);
}

}  // namespace gantry::formats
