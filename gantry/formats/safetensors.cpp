#include "gantry/formats/safetensors.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "gantry/base/check.h"
#include "gantry/formats/safetensors_internal.h"

namespace gantry::formats {
namespace {

static_assert(std::endian::native == std::endian::little, "the format is little-endian and read in place");

constexpr std::uint64_t kLengthBytes = 8;

/// Length of the JSON header, checked against the file.
std::uint64_t header_length(std::span<const std::byte> image, const std::string& source) {
  GANTRY_CHECK(image.size() >= kLengthBytes, "{}: {} bytes is too short for a safetensors file", source, image.size());
  std::uint64_t length = 0;
  std::memcpy(&length, image.data(), kLengthBytes);
  GANTRY_CHECK(length <= kMaxSafetensorsHeader,
               "{}: header length {} exceeds the limit of {} bytes: not a safetensors file, or damaged", source, length,
               kMaxSafetensorsHeader);
  GANTRY_CHECK(length <= image.size() - kLengthBytes, "{}: truncated: header of {} bytes in a file of {}", source,
               length, image.size());
  return length;
}

/// Byte ranges against shapes, and against one another: in order, without overlap or hole, up to the file's end.
void check_layout(const std::vector<internal::HeaderTensor>& tensors, std::uint64_t data_bytes,
                  const std::string& source) {
  std::uint64_t expected = 0;
  for (const auto& tensor : tensors) {
    const TensorInfo& info = tensor.info;
    GANTRY_CHECK(tensor.begin <= tensor.end, "{}: tensor '{}': data_offsets [{}, {}] run backwards", source, info.name,
                 tensor.begin, tensor.end);
    GANTRY_CHECK(tensor.end <= data_bytes,
                 "{}: tensor '{}': data ends at byte {} but the file holds {} bytes of data (truncated?)", source,
                 info.name, tensor.end, data_bytes);
    const auto bytes = checked_bytes(info.shape, info.dtype);
    GANTRY_CHECK(bytes.has_value(), "{}: tensor '{}': shape {} overflows", source, info.name, format_shape(info.shape));
    GANTRY_CHECK(*bytes == tensor.end - tensor.begin, "{}: tensor '{}': {} of shape {} takes {} bytes, data_offsets {}",
                 source, info.name, dtype_name(info.dtype), format_shape(info.shape), *bytes,
                 tensor.end - tensor.begin);
    GANTRY_CHECK(tensor.begin >= expected, "{}: tensor '{}': data overlaps another tensor's", source, info.name);
    GANTRY_CHECK(tensor.begin == expected, "{}: {} unused bytes before the data of tensor '{}'", source,
                 tensor.begin - expected, info.name);
    expected = tensor.end;
  }
  GANTRY_CHECK(expected == data_bytes, "{}: {} bytes of data after the last tensor", source, data_bytes - expected);
}

}  // namespace

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) {
  SafetensorsFile result;
  result.file_.emplace(path);
  result.image_ = result.file_->bytes();
  result.source_ = path.string();
  result.parse_image();
  return result;
}

SafetensorsFile SafetensorsFile::parse(std::span<const std::byte> image, std::string source) {
  SafetensorsFile result;
  result.image_ = image;
  result.source_ = std::move(source);
  result.parse_image();
  return result;
}

void SafetensorsFile::parse_image() {
  const std::uint64_t length = header_length(image_, source_);
  const std::string_view json(reinterpret_cast<const char*>(image_.data()) + kLengthBytes, length);
  auto header = internal::parse_safetensors_header(json, source_);
  std::stable_sort(header.tensors.begin(), header.tensors.end(),
                   [](const auto& a, const auto& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  check_layout(header.tensors, image_.size() - kLengthBytes - length, source_);

  metadata_ = std::move(header.metadata);
  tensors_.reserve(header.tensors.size());
  by_name_.reserve(header.tensors.size());
  for (auto& tensor : header.tensors) {
    tensor.info.offset = kLengthBytes + length + tensor.begin;
    tensor.info.bytes = tensor.end - tensor.begin;
    tensors_.push_back(std::move(tensor.info));
    const bool added = by_name_.emplace(tensors_.back().name, tensors_.size() - 1).second;
    GANTRY_CHECK(added, "{}: tensor '{}' appears twice", source_, tensors_.back().name);
  }
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

std::span<const std::byte> SafetensorsFile::data(const TensorInfo& tensor) const {
  GANTRY_CHECK(tensor.offset <= image_.size() && tensor.bytes <= image_.size() - tensor.offset,
               "{}: tensor '{}' is not of this file", source_, tensor.name);
  return image_.subspan(tensor.offset, tensor.bytes);
}

}  // namespace gantry::formats
