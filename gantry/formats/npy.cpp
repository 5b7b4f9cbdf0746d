#include "gantry/formats/npy.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cstring>
#include <set>

#include "gantry/formats/npy_internal.h"

namespace gantry::formats {
namespace {

using base::fail_input;

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr std::uint64_t kMaxHeaderBytes = std::uint64_t{1} << 20;
constexpr std::size_t kMaxNpyDimensions = 64;

struct DescrRow {
  DType dtype;
  std::string_view code;  // kind and size, without the byte order
};

constexpr std::array kDescrRows{
    DescrRow{DType::kBool, "b1"}, DescrRow{DType::kU8, "u1"},  DescrRow{DType::kI8, "i1"},  DescrRow{DType::kU16, "u2"},
    DescrRow{DType::kI16, "i2"},  DescrRow{DType::kF16, "f2"}, DescrRow{DType::kU32, "u4"}, DescrRow{DType::kI32, "i4"},
    DescrRow{DType::kF32, "f4"},  DescrRow{DType::kU64, "u8"}, DescrRow{DType::kI64, "i8"}, DescrRow{DType::kF64, "f8"},
    DescrRow{DType::kC64, "c8"},
};

struct Header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

/// The header is a Python dictionary literal of three known keys; nothing else is understood.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, const std::string& source) : text_(text), source_(source) {}

  Header parse() {
    Header header;
    std::set<std::string> seen;
    expect('{');
    while (!accept('}')) {
      const std::string key = string("a key");
      expect(':');
      GANTRY_CHECK(seen.insert(key).second, "{}: .npy header has '{}' twice", source_, key);
      if (key == "descr") {
        header.descr = descr();
      } else if (key == "fortran_order") {
        header.fortran_order = boolean();
      } else if (key == "shape") {
        header.shape = shape();
      } else {
        fail_input("{}: .npy header has the unknown key '{}'", source_, key);
      }
      if (accept('}')) break;
      expect(',');
    }
    skip_space();
    GANTRY_CHECK(at_ == text_.size(), "{}: text after the .npy header's dictionary", source_);
    GANTRY_CHECK(seen.size() == 3, "{}: .npy header needs descr, fortran_order and shape", source_);
    return header;
  }

 private:
  void skip_space() {
    while (at_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[at_])) != 0) ++at_;
  }

  bool accept(char wanted) {
    skip_space();
    if (at_ == text_.size() || text_[at_] != wanted) return false;
    ++at_;
    return true;
  }

  void expect(char wanted) {
    GANTRY_CHECK(accept(wanted), "{}: .npy header is malformed at character {}: expected '{}'", source_, at_, wanted);
  }

  std::string string(std::string_view what) {
    skip_space();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    GANTRY_CHECK(quote == '\'' || quote == '"', "{}: .npy header is malformed at character {}: expected {} in quotes",
                 source_, at_, what);
    const auto end = text_.find(quote, at_ + 1);
    GANTRY_CHECK(end != text_.npos, "{}: .npy header ends inside a string", source_);
    std::string result(text_.substr(at_ + 1, end - at_ - 1));
    at_ = end + 1;
    return result;
  }

  std::string descr() {
    skip_space();
    GANTRY_CHECK(at_ == text_.size() || text_[at_] != '[', "{}: structured .npy arrays are not supported", source_);
    return string("a type");
  }

  bool boolean() {
    skip_space();
    for (const bool value : {true, false}) {
      const std::string_view word = value ? "True" : "False";
      if (!text_.substr(at_).starts_with(word)) continue;
      at_ += word.size();
      return value;
    }
    fail_input("{}: .npy header: fortran_order must be True or False", source_);
  }

  std::vector<std::int64_t> shape() {
    std::vector<std::int64_t> result;
    expect('(');
    while (!accept(')')) {
      skip_space();
      std::int64_t size = -1;
      const auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), size);
      GANTRY_CHECK(error == std::errc() && size >= 0, "{}: .npy header: shape must hold sizes from 0 to 2^63 - 1",
                   source_);
      GANTRY_CHECK(result.size() < kMaxNpyDimensions, "{}: .npy header: more than {} dimensions", source_,
                   kMaxNpyDimensions);
      result.push_back(size);
      at_ = static_cast<std::size_t>(end - text_.data());
      accept('L');  // Python 2 wrote long integers so
      if (accept(')')) break;
      expect(',');
    }
    return result;
  }

  std::string_view text_;
  const std::string& source_;
  std::size_t at_ = 0;
};

DType parse_descr(const std::string& descr, const std::string& source) {
  GANTRY_CHECK(descr.size() >= 2, "{}: element type '{}' is not supported", source, descr);
  GANTRY_CHECK(descr[1] != 'O', "{}: arrays of Python objects are not supported; save numbers instead", source);
  if (std::string_view("<>|=").find(descr[0]) != std::string_view::npos) {
    for (const DescrRow& row : kDescrRows) {
      if (descr.substr(1) == row.code) return row.dtype;
    }
  }
  fail_input("{}: element type '{}' is not supported", source, descr);
}

/// Splits an image into header text and data.
std::pair<std::string_view, std::span<const std::byte>> split_image(std::span<const std::byte> image,
                                                                    const std::string& source) {
  const std::string_view text(reinterpret_cast<const char*>(image.data()), image.size());
  GANTRY_CHECK(text.size() >= 10 && text.starts_with(kMagic), "{}: not a .npy file, or truncated", source);
  const auto major = static_cast<unsigned char>(text[6]);
  GANTRY_CHECK(major >= 1 && major <= 3, "{}: .npy format {}, expected 1 to 3", source, major);
  const std::size_t length_bytes = major == 1 ? 2 : 4;
  GANTRY_CHECK(text.size() >= 8 + length_bytes, "{}: truncated .npy file", source);
  std::uint32_t length = 0;
  std::memcpy(&length, text.data() + 8, length_bytes);
  GANTRY_CHECK(length <= kMaxHeaderBytes, "{}: .npy header of {} bytes, more than {}", source, length, kMaxHeaderBytes);
  const std::size_t begin = 8 + length_bytes;
  GANTRY_CHECK(length <= text.size() - begin, "{}: truncated: .npy header of {} bytes, {} are left", source, length,
               text.size() - begin);
  return {text.substr(begin, length), image.subspan(begin + length)};
}

void swap_bytes(std::vector<std::byte>& data, std::size_t width) {
  for (std::size_t at = 0; at < data.size(); at += width) {
    std::reverse(data.begin() + static_cast<std::ptrdiff_t>(at),
                 data.begin() + static_cast<std::ptrdiff_t>(at + width));
  }
}

/// Column-major to row-major: walks the output in order and keeps the matching input position.
std::vector<std::byte> to_row_major(std::span<const std::byte> from, const std::vector<std::int64_t>& shape,
                                    std::size_t width) {
  std::vector<std::byte> to(from.size());
  std::array<std::size_t, kMaxNpyDimensions> strides{width};
  for (std::size_t axis = 1; axis < shape.size(); ++axis) {
    strides[axis] = strides[axis - 1] * static_cast<std::size_t>(shape[axis - 1]);
  }
  std::array<std::int64_t, kMaxNpyDimensions> index{};
  std::size_t position = 0;
  for (std::size_t at = 0; at < to.size(); at += width) {
    std::memcpy(to.data() + at, from.data() + position, width);
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      position += strides[axis];
      if (++index[axis] < shape[axis]) break;
      position -= strides[axis] * static_cast<std::size_t>(shape[axis]);
      index[axis] = 0;
    }
  }
  return to;
}

}  // namespace

NpyArray parse_npy(std::span<const std::byte> image, const std::string& source) {
  const auto [text, data] = split_image(image, source);
  Header header = HeaderParser(text, source).parse();
  NpyArray array;
  array.dtype = parse_descr(header.descr, source);
  const auto bytes = checked_bytes(header.shape, array.dtype);
  GANTRY_CHECK(bytes.has_value(), "{}: shape {} overflows", source, format_shape(header.shape));
  GANTRY_CHECK(*bytes <= data.size(), "{}: truncated: {} of shape {} takes {} bytes, the file holds {}", source,
               dtype_name(array.dtype), format_shape(header.shape), *bytes, data.size());
  GANTRY_CHECK(*bytes == data.size(), "{}: {} bytes of data after the array", source, data.size() - *bytes);
  const std::size_t width = dtype_bytes(array.dtype);
  if (header.fortran_order && header.shape.size() > 1) {
    array.data = to_row_major(data, header.shape, width);
  } else {
    array.data.assign(data.begin(), data.end());
  }
  // A complex number is two swapped halves.
  if (header.descr[0] == '>') swap_bytes(array.data, array.dtype == DType::kC64 ? width / 2 : width);
  if (array.dtype == DType::kBool) {  // other bytes than 0 and 1 must not reach a C++ bool
    for (std::byte& value : array.data) value = std::byte{value != std::byte{0}};
  }
  array.shape = std::move(header.shape);
  return array;
}

NpyArray read_npy(const std::filesystem::path& path) {
  const base::MappedFile file(path);
  return parse_npy(file.bytes(), path.string());
}

std::string internal::make_npy_header(const NpyToWrite& array, const std::string& source) {
  const auto row = std::find_if(kDescrRows.begin(), kDescrRows.end(),
                                [&](const DescrRow& candidate) { return candidate.dtype == array.dtype; });
  GANTRY_CHECK(row != kDescrRows.end(), "{}: NumPy has no type for {}; convert to F32 first", source,
               dtype_name(array.dtype));
  const auto bytes = checked_bytes(array.shape, array.dtype);
  GANTRY_CHECK(bytes.has_value() && *bytes == array.data.size() && array.shape.size() <= kMaxNpyDimensions,
               "{}: array '{}': {} of shape {} does not take the {} bytes given", source, array.name,
               dtype_name(array.dtype), format_shape(array.shape), array.data.size());
  std::string shape;
  for (const auto size : array.shape) shape += fmt::format("{}, ", size);
  if (array.shape.size() > 1) shape.resize(shape.size() - 2);
  if (array.shape.size() == 1) shape.pop_back();
  std::string text = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}",
                                 dtype_bytes(array.dtype) == 1 ? '|' : '<', row->code, shape);
  constexpr std::size_t kPrefix = 10;  // magic, version, length
  text.append(63 - (kPrefix + text.size()) % 64, ' ');
  text += '\n';
  const auto length = static_cast<std::uint16_t>(text.size());
  std::string out(kMagic);
  out.append("\x01\x00", 2);
  out.append(reinterpret_cast<const char*>(&length), sizeof(length));
  return out + text;
}

void write_npy(const std::filesystem::path& path, const NpyToWrite& array) {
  const std::string header = internal::make_npy_header(array, path.string());
  base::AtomicFile file(path);
  file.write(header);
  file.write(array.data);
  file.commit();
}

}  // namespace gantry::formats
