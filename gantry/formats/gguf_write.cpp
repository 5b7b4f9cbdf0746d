#include <type_traits>
#include <unordered_set>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/formats/gguf.h"
#include "gantry/formats/gguf_internal.h"

namespace gantry::formats {
namespace {

constexpr std::uint32_t kVersion = 3;

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append_scalar(std::string& out, const std::string& text) {
  append(out, static_cast<std::uint64_t>(text.size()));
  out += text;
}
void append_scalar(std::string& out, bool value) { append(out, static_cast<std::uint8_t>(value)); }
template <class T>
requires std::is_arithmetic_v<T>
void append_scalar(std::string& out, T value) { append(out, value); }

template <class T>
void append_scalar(std::string& out, const std::vector<T>& array) {
  append(out, static_cast<std::uint64_t>(array.size()));
  for (const auto& element : array) append_scalar(out, static_cast<const T&>(element));
}

/// Number of a scalar type in the file: its place among the alternatives of GgufValue, after which arrays come.
std::uint32_t scalar_type(std::size_t alternative) {
  return static_cast<std::uint32_t>(alternative < internal::kGgufArray ? alternative : alternative + 1);
}

void append_value(std::string& out, const GgufValue& value) {
  constexpr std::size_t kScalars = std::variant_size_v<GgufValue> / 2;
  const bool is_array = value.index() >= kScalars;
  if (is_array) append(out, internal::kGgufArray);
  append(out, scalar_type(value.index() % kScalars));
  std::visit([&](const auto& held) { append_scalar(out, held); }, value);
}

std::uint64_t find_alignment(const std::vector<std::pair<std::string, GgufValue>>& metadata,
                             const std::string& source) {
  std::uint64_t alignment = internal::kGgufDefaultAlignment;
  for (const auto& [key, value] : metadata) {
    if (key == "general.alignment") alignment = static_cast<std::uint64_t>(internal::gguf_integer(value).value_or(0));
  }
  internal::check_gguf_alignment(alignment, source);
  return alignment;
}

void pad(std::string& out, std::uint64_t alignment) {
  out.append((alignment - out.size() % alignment) % alignment, '\0');
}

std::string make_table(const std::vector<std::pair<std::string, GgufValue>>& metadata,
                       const std::vector<GgufTensorToWrite>& tensors, std::uint64_t alignment,
                       const std::string& source) {
  std::string out;
  append(out, internal::kGgufMagic);
  append(out, kVersion);
  append(out, static_cast<std::uint64_t>(tensors.size()));
  append(out, static_cast<std::uint64_t>(metadata.size()));
  std::unordered_set<std::string_view> names;
  for (const auto& [key, value] : metadata) {
    GANTRY_CHECK(names.insert(key).second, "{}: metadata '{}' is given twice", source, key);
    append_scalar(out, key);
    append_value(out, value);
  }
  names.clear();
  std::uint64_t offset = 0;
  for (const GgufTensorToWrite& tensor : tensors) {
    GANTRY_CHECK(names.insert(tensor.name).second, "{}: tensor '{}' is given twice", source, tensor.name);
    const std::uint64_t bytes = internal::gguf_tensor_bytes(tensor.name, tensor.type, tensor.shape, source);
    GANTRY_CHECK(tensor.data.size() == bytes, "{}: tensor '{}' takes {} bytes, {} are given", source, tensor.name,
                 bytes, tensor.data.size());
    append_scalar(out, tensor.name);
    append(out, static_cast<std::uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) append(out, *size);
    append(out, static_cast<std::uint32_t>(tensor.type));
    append(out, offset);
    offset += (bytes + alignment - 1) / alignment * alignment;
  }
  pad(out, alignment);
  return out;
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const std::vector<std::pair<std::string, GgufValue>>& metadata,
                const std::vector<GgufTensorToWrite>& tensors) {
  const std::string source = path.string();
  const std::uint64_t alignment = find_alignment(metadata, source);
  const std::string table = make_table(metadata, tensors, alignment, source);
  const std::string zeros(alignment, '\0');
  base::AtomicFile file(path);
  file.write(table);
  for (const GgufTensorToWrite& tensor : tensors) {
    file.write(tensor.data);
    file.write(std::string_view(zeros).substr(0, (alignment - file.size() % alignment) % alignment));
  }
  file.commit();
}

}  // namespace gantry::formats
