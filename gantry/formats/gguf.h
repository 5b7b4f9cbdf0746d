#pragma once
// GGUF v2 and v3 (little-endian): reader of one memory-mapped file, and a small writer.
//
// Goals: every count, length and offset of a file checked before it is believed; metadata as typed values whose getters
// accept any integer width; tensors in row-major shape (the reverse of the file's ne).
// Non-goals: v1, big-endian files, arrays of arrays, files split over several GGUFs, quantising.
//
// Errors: InputError "<file>: ..." for anything wrong with a file.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "gantry/base/file.h"
#include "gantry/formats/gguf_quants.h"

namespace gantry::formats {

/// A metadata value: a scalar, a string or an array of them, in the width that the file uses.
using GgufValue =
    std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t, float, bool,
                 std::string, std::uint64_t, std::int64_t, double, std::vector<std::uint8_t>, std::vector<std::int8_t>,
                 std::vector<std::uint16_t>, std::vector<std::int16_t>, std::vector<std::uint32_t>,
                 std::vector<std::int32_t>, std::vector<float>, std::vector<bool>, std::vector<std::string>,
                 std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;

using GgufMetadata = std::map<std::string, GgufValue, std::less<>>;

struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;  ///< row-major: the last axis is contiguous
  std::uint64_t offset = 0;         ///< first byte, from the start of the file
  std::uint64_t bytes = 0;

  /// Elements; known not to overflow.
  std::int64_t numel() const;
};

/// One file. Movable, not copyable; spans and pointers it returns live as long as the object (moves keep them valid).
class GgufFile {
 public:
  static GgufFile open(const std::filesystem::path& path);
  /// Checks a file image in memory, which the caller keeps alive; `source` starts every error message.
  static GgufFile parse(std::span<const std::byte> image, std::string source);

  GgufFile(GgufFile&&) noexcept = default;
  GgufFile& operator=(GgufFile&&) noexcept = default;
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  std::uint32_t version() const { return version_; }
  const std::string& source() const { return source_; }

  /// Tensors in the order of the file's table.
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// Null when there is no such tensor.
  const GgufTensor* find(std::string_view name) const;
  /// Like find(), but a missing tensor is an InputError.
  const GgufTensor& get(std::string_view name) const;
  /// The tensor's bytes as stored.
  std::span<const std::byte> raw(const GgufTensor& tensor) const;
  /// Converts a tensor to fp32 in row-major order, on several threads where it is large. `out` holds numel() elements;
  /// InputError naming the tensor and its type where the type is not supported.
  void dequantize(const GgufTensor& tensor, std::span<float> out) const;

  const GgufMetadata& metadata() const { return metadata_; }
  bool has(std::string_view key) const { return find_value(key) != nullptr; }
  /// Null when there is no such key.
  const GgufValue* find_value(std::string_view key) const;

  // Getters: the first form throws InputError when the key is missing, the second returns the fallback; both throw when
  // the value has another type or is out of range. Integers of any width and sign are accepted, and for get_f32 also
  // f64.
  std::uint32_t get_u32(std::string_view key) const;
  std::uint32_t get_u32(std::string_view key, std::uint32_t fallback) const;
  std::int64_t get_i64(std::string_view key) const;
  std::int64_t get_i64(std::string_view key, std::int64_t fallback) const;
  float get_f32(std::string_view key) const;
  float get_f32(std::string_view key, float fallback) const;
  bool get_bool(std::string_view key) const;
  bool get_bool(std::string_view key, bool fallback) const;
  const std::string& get_string(std::string_view key) const;
  std::string get_string(std::string_view key, std::string fallback) const;
  const std::vector<std::string>& get_string_array(std::string_view key) const;
  /// Any integer array, widened.
  std::vector<std::int64_t> get_int_array(std::string_view key) const;
  /// f32 or f64 array.
  std::vector<float> get_f32_array(std::string_view key) const;

 private:
  GgufFile() = default;
  void parse_image();
  const GgufValue& require(std::string_view key) const;

  std::optional<base::MappedFile> file_;
  std::span<const std::byte> image_;
  std::string source_;
  std::uint32_t version_ = 0;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, std::size_t> by_name_;  // keys view into tensors_
  GgufMetadata metadata_;
};

/// A tensor to write: bytes already in the layout of `type`, alive during the call; row-major shape.
struct GgufTensorToWrite {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data = {};
};

/// Writes GGUF v3 atomically; `metadata` in the order given. `general.alignment` in it is honoured, else 32.
void write_gguf(const std::filesystem::path& path, const std::vector<std::pair<std::string, GgufValue>>& metadata,
                const std::vector<GgufTensorToWrite>& tensors);

}  // namespace gantry::formats
