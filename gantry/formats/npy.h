#pragma once
// NumPy files: .npy (format 1 to 3) and .npz (a ZIP of them, stored or deflated).
//
// Goals: arrays of numbers and booleans in either byte order and either memory order, delivered little-endian and
// row-major; every length checked before memory is taken for it.
// Non-goals: structured, string and object arrays (the last would mean unpickling); encrypted or split ZIPs.
//
// Errors: InputError "<file>: ..." for anything wrong with a file; Error for failures to write.
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "gantry/base/check.h"
#include "gantry/base/file.h"
#include "gantry/formats/dtype.h"

namespace gantry::formats {

/// The DType that a C++ type holds.
template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>)
    return DType::kF32;
  else if constexpr (std::is_same_v<T, double>)
    return DType::kF64;
  else if constexpr (std::is_same_v<T, bool>)
    return DType::kBool;
  else if constexpr (std::is_same_v<T, std::uint8_t>)
    return DType::kU8;
  else if constexpr (std::is_same_v<T, std::int8_t>)
    return DType::kI8;
  else if constexpr (std::is_same_v<T, std::uint16_t>)
    return DType::kU16;
  else if constexpr (std::is_same_v<T, std::int16_t>)
    return DType::kI16;
  else if constexpr (std::is_same_v<T, std::uint32_t>)
    return DType::kU32;
  else if constexpr (std::is_same_v<T, std::int32_t>)
    return DType::kI32;
  else if constexpr (std::is_same_v<T, std::uint64_t>)
    return DType::kU64;
  else {
    static_assert(std::is_same_v<T, std::int64_t>, "no DType for this type");
    return DType::kI64;
  }
}

/// An array in memory: little-endian, row-major.
struct NpyArray {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;

  std::int64_t numel() const { return static_cast<std::int64_t>(data.size() / dtype_bytes(dtype)); }

  /// The elements as T; InputError when the array has another type.
  template <class T>
  std::span<const T> values() const {
    GANTRY_CHECK(dtype == dtype_of<T>(), "expected an array of {}, found {}", dtype_name(dtype_of<T>()),
                 dtype_name(dtype));
    return {reinterpret_cast<const T*>(data.data()), data.size() / sizeof(T)};
  }
};

/// Reads a .npy file, or its image in memory; `source` starts every error message.
NpyArray read_npy(const std::filesystem::path& path);
NpyArray parse_npy(std::span<const std::byte> image, const std::string& source);

/// Largest member of a .npz that is unpacked unless the caller says otherwise.
inline constexpr std::uint64_t kMaxNpzMemberBytes = std::uint64_t{8} << 30;

/// A .npz archive; members are unpacked when asked for. Movable, not copyable.
class NpzFile {
 public:
  static NpzFile open(const std::filesystem::path& path);
  /// The same on an image in memory, which the caller keeps alive.
  static NpzFile parse(std::span<const std::byte> image, std::string source);

  NpzFile(NpzFile&&) noexcept = default;
  NpzFile& operator=(NpzFile&&) noexcept = default;
  NpzFile(const NpzFile&) = delete;
  NpzFile& operator=(const NpzFile&) = delete;

  /// Names of the arrays without ".npy", sorted.
  std::vector<std::string> names() const;
  bool has(std::string_view name) const { return members_.find(name) != members_.end(); }
  /// Unpacks and checks (CRC) one array. InputError when it is missing, damaged, or larger than `max_bytes`.
  NpyArray read(std::string_view name, std::uint64_t max_bytes = kMaxNpzMemberBytes) const;

 private:
  /// What the central directory says of a member.
  struct Member {
    std::uint16_t method = 0;
    std::uint16_t flags = 0;
    std::uint32_t crc = 0;
    std::uint64_t packed_bytes = 0;
    std::uint64_t bytes = 0;
    std::uint64_t header_offset = 0;
  };

  NpzFile() = default;
  void parse_directory();
  std::span<const std::byte> packed(const std::string& name, const Member& member) const;

  std::optional<base::MappedFile> file_;
  std::span<const std::byte> image_;
  std::string source_;
  std::map<std::string, Member, std::less<>> members_;
};

/// An array to write; `data` is row-major and exactly as long as shape and dtype say.
struct NpyToWrite {
  std::string name;  ///< used in archives only
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::span<const std::byte> data;
};

/// Writes a .npy file atomically. InputError for types that NumPy lacks (BF16, F8).
void write_npy(const std::filesystem::path& path, const NpyToWrite& array);

/// Writes an uncompressed .npz atomically; InputError beyond ZIP's 4 GiB and 65,535 members.
void write_npz(const std::filesystem::path& path, const std::vector<NpyToWrite>& arrays);

}  // namespace gantry::formats
