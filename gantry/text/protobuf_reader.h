#pragma once
// The protobuf wire format: fields of one message, every length checked.
#include <bit>
#include <cstdint>
#include <string>
#include <string_view>

#include "gantry/base/check.h"

namespace gantry::text {

class ProtobufReader {
 public:
  /// `bytes` must outlive the reader. Throws InputError naming `source` for anything malformed.
  ProtobufReader(std::string_view bytes, std::string_view source) : bytes_(bytes), source_(source) {}

  struct Field {
    std::uint32_t number = 0;
    std::uint64_t value = 0;  ///< varint, or the bits of a fixed-width value
    std::string_view bytes;   ///< length-delimited

    float as_float() const { return std::bit_cast<float>(static_cast<std::uint32_t>(value)); }
    std::int32_t as_int() const { return static_cast<std::int32_t>(static_cast<std::uint32_t>(value)); }
    bool as_bool() const { return value != 0; }
  };

  /// False at the end of the message.
  bool next(Field& field) {
    if (at_ >= bytes_.size()) return false;
    const std::uint64_t key = varint();
    field = Field{};
    field.number = static_cast<std::uint32_t>(key >> 3);
    GANTRY_CHECK(field.number != 0 && (key >> 3) < (1u << 29), "{}: no protobuf field at byte {}; the file is damaged",
                 source_, at_);
    switch (key & 7u) {
      case 0: field.value = varint(); return true;
      case 1: field.value = fixed(8); return true;
      case 2: {
        const std::uint64_t length = varint();
        GANTRY_CHECK(length <= bytes_.size() - at_,
                     "{}: field {} declares {} bytes, {} are left; the file is cut short or damaged", source_,
                     field.number, length, bytes_.size() - at_);
        field.bytes = bytes_.substr(at_, static_cast<std::size_t>(length));
        at_ += static_cast<std::size_t>(length);
        return true;
      }
      case 5: field.value = fixed(4); return true;
      default:
        base::fail_input("{}: protobuf wire type {} at byte {} is not valid; the file is damaged", source_, key & 7u,
                         at_);
    }
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      GANTRY_CHECK(at_ < bytes_.size(), "{}: the file ends inside a number; it is cut short", source_);
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7fu) << shift;
      if (byte < 0x80) return value;
    }
    base::fail_input("{}: a number of more than 64 bits at byte {}; the file is damaged", source_, at_);
  }

  std::uint64_t fixed(std::size_t width) {
    GANTRY_CHECK(bytes_.size() - at_ >= width, "{}: the file ends inside a number; it is cut short", source_);
    std::uint64_t value = 0;
    for (std::size_t i = 0; i < width; ++i) {
      value |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes_[at_ + i])) << (8 * i);
    }
    at_ += width;
    return value;
  }

  std::string_view bytes_;
  std::string source_;
  std::size_t at_ = 0;
};

}  // namespace gantry::text
