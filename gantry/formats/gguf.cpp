// Parsing of GGUF images.
#include "gantry/formats/gguf.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "gantry/base/check.h"
#include "gantry/formats/dtype.h"
#include "gantry/formats/gguf_internal.h"

namespace gantry::formats {
namespace {

using base::fail_input;

static_assert(std::endian::native == std::endian::little, "the format is little-endian and read in place");

constexpr std::uint64_t kMaxNameBytes = 65535;
/// Least bytes of a metadata entry (empty key, type, one byte) and of a tensor entry (empty name, no axes).
constexpr std::uint64_t kMinEntryBytes = 8 + 4 + 1;
constexpr std::uint64_t kMinTensorBytes = 8 + 4 + 4 + 8;

/// Reads forward through the image; every read is checked against its end.
class Cursor {
 public:
  Cursor(std::span<const std::byte> image, const std::string& source) : image_(image), source_(source) {}

  std::uint64_t position() const { return position_; }
  std::uint64_t left() const { return image_.size() - position_; }

  template <class T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string read_string(std::string_view what, std::uint64_t max_bytes) {
    const auto length = read<std::uint64_t>(what);
    GANTRY_CHECK(length <= max_bytes, "{}: {} at byte {} claims {} bytes, more than {}", source_, what, position_,
                 length, max_bytes);
    const auto bytes = take(length, what);
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /// A count of things that take at least `min_bytes` each, so that a false count cannot make us allocate.
  std::uint64_t read_count(std::string_view what, std::uint64_t min_bytes) {
    const auto count = read<std::uint64_t>(what);
    check_count(count, what, min_bytes);
    return count;
  }

  void check_count(std::uint64_t count, std::string_view what, std::uint64_t min_bytes) const {
    GANTRY_CHECK(count <= left() / min_bytes, "{}: {} of {} cannot fit into the {} bytes that are left", source_, what,
                 count, left());
  }

  std::span<const std::byte> take(std::uint64_t bytes, std::string_view what) {
    GANTRY_CHECK(bytes <= left(), "{}: truncated: {} needs {} bytes at byte {}, {} are left", source_, what, bytes,
                 position_, left());
    const auto result = image_.subspan(position_, bytes);
    position_ += bytes;
    return result;
  }

 private:
  std::span<const std::byte> image_;
  const std::string& source_;
  std::uint64_t position_ = 0;
};

template <class T>
T read_scalar(Cursor& cursor, const std::string& key) {
  if constexpr (std::is_same_v<T, std::string>) {
    return cursor.read_string("value of '" + key + "'", std::numeric_limits<std::uint64_t>::max());
  } else if constexpr (std::is_same_v<T, bool>) {
    return cursor.read<std::uint8_t>("value of '" + key + "'") != 0;
  } else {
    return cursor.read<T>("value of '" + key + "'");
  }
}

template <class T>
std::vector<T> read_array(Cursor& cursor, const std::string& key) {
  constexpr std::uint64_t kMinBytes = std::is_same_v<T, std::string> ? 8 : sizeof(T);
  const auto count = cursor.read_count("length of array '" + key + "'", kMinBytes);
  std::vector<T> result;
  if constexpr (std::is_same_v<T, std::string> || std::is_same_v<T, bool>) {
    result.reserve(count);
    for (std::uint64_t i = 0; i < count; ++i) result.push_back(read_scalar<T>(cursor, key));
  } else {
    result.resize(count);
    const auto bytes = cursor.take(count * sizeof(T), "array '" + key + "'");
    if (count != 0) std::memcpy(result.data(), bytes.data(), bytes.size());
  }
  return result;
}

/// Calls read<T>() with the C++ type of the file's type number.
template <template <class> class Reader>
GgufValue read_typed(std::uint32_t type, Cursor& cursor, const std::string& key, const std::string& source) {
  switch (type) {
    case 0: return Reader<std::uint8_t>{}(cursor, key);
    case 1: return Reader<std::int8_t>{}(cursor, key);
    case 2: return Reader<std::uint16_t>{}(cursor, key);
    case 3: return Reader<std::int16_t>{}(cursor, key);
    case 4: return Reader<std::uint32_t>{}(cursor, key);
    case 5: return Reader<std::int32_t>{}(cursor, key);
    case 6: return Reader<float>{}(cursor, key);
    case 7: return Reader<bool>{}(cursor, key);
    case 8: return Reader<std::string>{}(cursor, key);
    case 10: return Reader<std::uint64_t>{}(cursor, key);
    case 11: return Reader<std::int64_t>{}(cursor, key);
    case 12: return Reader<double>{}(cursor, key);
    default: fail_input("{}: metadata '{}' has the unknown type number {}", source, key, type);
  }
}

template <class T>
struct ScalarReader {
  GgufValue operator()(Cursor& cursor, const std::string& key) const { return read_scalar<T>(cursor, key); }
};

template <class T>
struct ArrayReader {
  GgufValue operator()(Cursor& cursor, const std::string& key) const { return read_array<T>(cursor, key); }
};

GgufValue read_value(Cursor& cursor, const std::string& key, const std::string& source) {
  const auto type = cursor.read<std::uint32_t>("type of '" + key + "'");
  if (type != internal::kGgufArray) return read_typed<ScalarReader>(type, cursor, key, source);
  const auto element = cursor.read<std::uint32_t>("element type of '" + key + "'");
  GANTRY_CHECK(element != internal::kGgufArray, "{}: metadata '{}' is an array of arrays, which is not supported",
               source, key);
  return read_typed<ArrayReader>(element, cursor, key, source);
}

std::uint32_t read_version(Cursor& cursor, const std::string& source) {
  const auto magic = cursor.read<std::uint32_t>("magic");
  GANTRY_CHECK(magic == internal::kGgufMagic, "{}: not a GGUF file: starts with {:#010x}, expected \"GGUF\"", source,
               magic);
  const auto version = cursor.read<std::uint32_t>("version");
  GANTRY_CHECK((version & 0xffffu) != 0, "{}: big-endian GGUF files are not supported", source);
  GANTRY_CHECK(version == 2 || version == 3, "{}: GGUF version {}, expected 2 or 3", source, version);
  return version;
}

/// One entry of the tensor table; its offset is still relative to the data section.
GgufTensor read_tensor(Cursor& cursor, const std::string& source) {
  GgufTensor tensor;
  tensor.name = cursor.read_string("tensor name", kMaxNameBytes);
  const auto axes = cursor.read<std::uint32_t>("axes of '" + tensor.name + "'");
  GANTRY_CHECK(axes <= internal::kGgufMaxDimensions, "{}: tensor '{}' claims {} axes, more than {}", source,
               tensor.name, axes, internal::kGgufMaxDimensions);
  for (std::uint32_t axis = 0; axis < axes; ++axis) {
    const auto size = cursor.read<std::uint64_t>("shape of '" + tensor.name + "'");
    GANTRY_CHECK(size <= std::uint64_t{INT64_MAX}, "{}: tensor '{}': a size of {} overflows", source, tensor.name,
                 size);
    tensor.shape.push_back(static_cast<std::int64_t>(size));
  }
  std::reverse(tensor.shape.begin(), tensor.shape.end());
  const auto number = cursor.read<std::uint32_t>("type of '" + tensor.name + "'");
  const auto type = parse_gguf_type(number);
  GANTRY_CHECK(type.has_value(), "{}: tensor '{}' has the unknown type number {}", source, tensor.name, number);
  tensor.type = *type;
  tensor.bytes = internal::gguf_tensor_bytes(tensor.name, tensor.type, tensor.shape, source);
  tensor.offset = cursor.read<std::uint64_t>("offset of '" + tensor.name + "'");
  return tensor;
}

/// Turns offsets into file positions and checks them: aligned, inside the file, no two tensors overlapping.
void place_tensors(std::vector<GgufTensor>& tensors, std::uint64_t table_end, std::uint64_t alignment,
                   std::uint64_t file_bytes, const std::string& source) {
  const std::uint64_t data_begin = (table_end + alignment - 1) / alignment * alignment;
  std::vector<const GgufTensor*> order;
  for (GgufTensor& tensor : tensors) {
    GANTRY_CHECK(tensor.offset % alignment == 0, "{}: tensor '{}': offset {} is not a multiple of the alignment {}",
                 source, tensor.name, tensor.offset, alignment);
    const std::uint64_t available = file_bytes > data_begin ? file_bytes - data_begin : 0;
    GANTRY_CHECK(tensor.offset <= available && tensor.bytes <= available - tensor.offset,
                 "{}: truncated: tensor '{}' needs {} bytes at data byte {}, the file holds {} bytes of data", source,
                 tensor.name, tensor.bytes, tensor.offset, available);
    tensor.offset += data_begin;
    if (tensor.bytes != 0) order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (std::size_t i = 1; i < order.size(); ++i) {
    GANTRY_CHECK(order[i - 1]->offset + order[i - 1]->bytes <= order[i]->offset, "{}: tensors '{}' and '{}' overlap",
                 source, order[i - 1]->name, order[i]->name);
  }
}

}  // namespace

namespace internal {

void check_gguf_alignment(std::uint64_t alignment, const std::string& source) {
  constexpr std::uint64_t kMaxAlignment = std::uint64_t{1} << 20;
  GANTRY_CHECK(std::has_single_bit(alignment) && alignment <= kMaxAlignment,
               "{}: general.alignment is {}, expected a power of two up to {}", source, alignment, kMaxAlignment);
}

std::uint64_t gguf_tensor_bytes(const std::string& name, GgufType type, std::span<const std::int64_t> shape,
                                const std::string& source) {
  const GgufTypeTraits& traits = gguf_traits(type);
  GANTRY_CHECK(shape.size() <= kGgufMaxDimensions, "{}: tensor '{}' has {} axes, more than {}", source, name,
               shape.size(), kGgufMaxDimensions);
  const auto elements = checked_numel(shape);
  GANTRY_CHECK(elements.has_value() && *elements <= INT64_MAX / 8, "{}: tensor '{}': shape {} overflows", source, name,
               format_shape(shape));
  const std::int64_t row = shape.empty() ? 1 : shape.back();
  GANTRY_CHECK(row % traits.block_elements == 0, "{}: tensor '{}': rows of {} elements are not whole {} blocks of {}",
               source, name, row, traits.name, traits.block_elements);
  return static_cast<std::uint64_t>(*elements / traits.block_elements * traits.block_bytes);
}

}  // namespace internal

std::int64_t GgufTensor::numel() const { return checked_numel(shape).value(); }

GgufFile GgufFile::open(const std::filesystem::path& path) {
  GgufFile result;
  result.file_.emplace(path);
  result.image_ = result.file_->bytes();
  result.source_ = path.string();
  result.parse_image();
  return result;
}

GgufFile GgufFile::parse(std::span<const std::byte> image, std::string source) {
  GgufFile result;
  result.image_ = image;
  result.source_ = std::move(source);
  result.parse_image();
  return result;
}

void GgufFile::parse_image() {
  Cursor cursor(image_, source_);
  version_ = read_version(cursor, source_);
  const auto tensor_count = cursor.read_count("tensor count", kMinTensorBytes);
  const auto entry_count = cursor.read_count("metadata count", kMinEntryBytes);
  for (std::uint64_t i = 0; i < entry_count; ++i) {
    std::string key = cursor.read_string("metadata key", kMaxNameBytes);
    GANTRY_CHECK(!metadata_.contains(key), "{}: metadata '{}' appears twice", source_, key);
    GgufValue value = read_value(cursor, key, source_);
    metadata_.emplace(std::move(key), std::move(value));
  }
  const auto alignment = get_u32("general.alignment", internal::kGgufDefaultAlignment);
  internal::check_gguf_alignment(alignment, source_);
  cursor.check_count(tensor_count, "tensor count", kMinTensorBytes);
  tensors_.reserve(tensor_count);
  by_name_.reserve(tensor_count);
  for (std::uint64_t i = 0; i < tensor_count; ++i) {
    tensors_.push_back(read_tensor(cursor, source_));
    const bool added = by_name_.emplace(tensors_.back().name, i).second;
    GANTRY_CHECK(added, "{}: tensor '{}' appears twice", source_, tensors_.back().name);
  }
  place_tensors(tensors_, cursor.position(), alignment, image_.size(), source_);
}

const GgufTensor* GgufFile::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

const GgufTensor& GgufFile::get(std::string_view name) const {
  const GgufTensor* tensor = find(name);
  GANTRY_CHECK(tensor != nullptr, "{}: tensor '{}' is missing", source_, name);
  return *tensor;
}

std::span<const std::byte> GgufFile::raw(const GgufTensor& tensor) const {
  GANTRY_CHECK(tensor.offset <= image_.size() && tensor.bytes <= image_.size() - tensor.offset,
               "{}: tensor '{}' is not of this file", source_, tensor.name);
  return image_.subspan(tensor.offset, tensor.bytes);
}

void GgufFile::dequantize(const GgufTensor& tensor, std::span<float> out) const {
  const auto bytes = raw(tensor);
  try {
    dequantize_blocks_parallel(tensor.type, bytes, out);
  } catch (const base::InputError& error) {
    fail_input("{}: tensor '{}': {}", source_, tensor.name, error.what());
  }
}

}  // namespace gantry::formats
